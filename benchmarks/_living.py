"""An Eddy of real processes for the benchmarks that take longer, and what is seen of it outside."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from numpy.typing import NDArray

from benchmarks._stage import ROOT, highs, produce, settings
from benchmarks._workload import input_record, make_model, make_workload, model_outgoing
from pipeline.config import load
from pipeline.errors import TransientError
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.codec import decode_change
from pipeline.messages.events import Cause
from pipeline.streams.broker import RunningBroker
from pipeline.streams.kafka.broker import KafkaBroker
from pipeline.streams.topics import expected_topics

READY_S = 120.0
SERVICES = ("assigner", "reclusterer")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every benchmark on a `Living` may be asked for."""
    parser.add_argument("--dims", type=int, default=384, help="384 or more")
    parser.add_argument("--items", type=int, default=20_000, help="settled before")
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--heap", default="1g", help="of the broker")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="Eddy's")
    parser.add_argument("--no-write", action="store_true", help="leave results/ as it is")


def opened(options: argparse.Namespace, broker: RunningBroker, folder: Path, **more: Any) -> Living:
    """A `Living` as `add_options` was answered."""
    return Living(
        broker, folder, dims=options.dims, n_items=options.items, n_clusters=options.clusters,
        n_partitions=options.partitions, more=options.set, **more,
    )  # fmt: skip


class Living:
    """Topics with settled items and a model, an assigner and a reclusterer.

    Parameters
    ----------
    topic_config
        Over what ``eddy topics create`` would set, by the short name of the topic; what ``*`` holds
        is for all of them.
    """

    def __init__(
        self, broker: RunningBroker, folder: Path, *, dims: int, n_items: int, n_clusters: int,
        n_partitions: int, more: Sequence[str] = (),
        topic_config: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:  # fmt: skip
        self.servers, self.folder, self.n_partitions = (
            broker.bootstrap_servers, folder, n_partitions,
        )  # fmt: skip
        self.sets = settings(
            broker, topic="changes-in", prefix="living.", partitions=n_partitions, dims=dims,
            more=["telemetry.log_format=json", *more],
        )  # fmt: skip
        self.config = load(None, {}, self.sets).config
        self.topics, limit = self.config.topics, self.config.limits.max_record_bytes
        self.client = KafkaBroker(self.config.kafka, max_record_bytes=limit)
        self.client.wait(30.0)
        given = topic_config or {}
        self.client.create_topics(
            replace(one, config={**one.config, **given.get("*", {}), **given.get(one.name, {})})
            for one in expected_topics(self.topics, limit)
        )
        self.workload = make_workload(n_items, dims, seed=3)
        model = make_model(self.workload, n_clusters, n_partitions, CpuKernels(None))
        produce(self.client, model_outgoing(model, self.topics.model))
        items = enumerate(self.workload.items)
        produce(
            self.client, (input_record(self.topics.input, n_partitions, i, x) for i, x in items)
        )
        self.processes = {name: self._start(name) for name in SERVICES}

    @property
    def flags(self) -> list[str]:
        return [word for one in self.sets for word in ("--set", one)]

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", name, *self.flags],
                cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip

    def eddy(self, *words: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", words[0], *self.flags, *words[1:]],
            cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def lag(self) -> int | None:
        """Records that are not committed; None while a transaction is pending, or nobody says."""
        try:
            done = self.client.committed(f"{self.topics.prefix}assigner", self.topics.input)
            ends = highs(self.client, self.topics.input)
        except TransientError:
            return None
        return sum(max(0, end - (done[p] or 0)) for p, end in ends.items())

    def wait_through(self, timeout_s: float = READY_S) -> float:
        """Until all of the input is committed; when that was seen."""
        deadline = time.monotonic() + timeout_s
        while self.lag() != 0:
            for name, process in self.processes.items():
                if process.poll() is not None or time.monotonic() > deadline:
                    said = (self.folder / f"{name}.log").read_text(errors="replace")
                    raise SystemExit(f"{name} does not get through:\n{said[-3000:]}")
            time.sleep(0.02)
        return time.monotonic()

    def footprint(self) -> dict[str, dict[str, float]]:
        """Of every process: resident MB, threads, file descriptors."""
        return {name: footprint(process.pid) for name, process in self.processes.items()}

    def verify(self) -> dict[str, Any]:
        """What ``eddy verify`` says: whether all holds, and how many of the records are lost."""
        ended = self.eddy("verify", "--json", "--timeout", "120")
        lines = ended.stdout.strip().splitlines()
        said = json.loads(lines[-1]) if lines else {}
        if ended.returncode:
            print(ended.stdout[-2000:], ended.stderr[-2000:], file=sys.stderr)
        return {"holds": ended.returncode == 0, "said": said}

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def footprint(pid: int) -> dict[str, float]:
    """Resident MB, threads and file descriptors of a process."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return {
        "rss_mb": int(status["VmRSS"].split()[0]) * 1024 / 1e6,
        "threads": float(status["Threads"]),
        "descriptors": float(len(list(Path(f"/proc/{pid}/fd").iterdir()))),
    }


class Stopwatch(threading.Thread):
    """Times records from when they were due to their event, seen at read_committed.

    Only items whose key is in ``keys`` count, all of them if it is None: decoding every event would
    take the processor from who is measured.
    """

    def __init__(self, living: Living, keys: frozenset[bytes] | None = None) -> None:
        super().__init__(daemon=True)
        self.n_lost_reports = 0
        self._keys, self._lock = keys, threading.Lock()
        self._due: dict[tuple[int, int], float] = {}
        self._seen: dict[tuple[int, int], float] = {}
        self._ended = threading.Event()
        ends = highs(living.client, living.topics.changes)
        self._consumer = Consumer(
            {
                "bootstrap.servers": living.servers, "group.id": "stopwatch",
                "enable.auto.commit": False, "isolation.level": "read_committed",
                "auto.offset.reset": "error", "fetch.queue.backoff.ms": 5,
            }
        )  # fmt: skip
        self._consumer.assign(
            [TopicPartition(living.topics.changes, p, offset) for p, offset in ends.items()]
        )

    def sent(self, due: float) -> Any:
        """What a producer calls when it knows the place of a record that was due then."""

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.n_lost_reports += 1
                return
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            with self._lock:
                self._due[partition, offset] = due

        return delivered

    def take(self) -> NDArray[np.float64]:
        """(n,) seconds of the records that are through since the last call."""
        with self._lock:
            both = self._due.keys() & self._seen.keys()
            return np.array([self._seen.pop(place) - self._due.pop(place) for place in both])

    @property
    def n_waiting(self) -> int:
        """Records without an event, as yet or because they changed nothing."""
        return len(self._due)

    def end(self) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.is_set():
            messages = self._consumer.consume(1000, 0.02)
            at = time.perf_counter()
            for message in messages:
                value, key = message.value(), message.key()
                if message.error() is not None or value is None:
                    continue
                if self._keys is None or key in self._keys:
                    change = decode_change(value)
                    if change.cause is not Cause.RECORD:
                        continue  # a model moved the item later on; its record is long through
                    with self._lock:
                        self._seen[change.partition, change.offset] = at
        self._consumer.close()


def sender(living: Living) -> Producer:
    """A producer that is connected, and waits for nothing."""
    made = Producer({"bootstrap.servers": living.servers, "linger.ms": 1})
    made.list_topics(living.topics.input, timeout=10.0)
    return made


def figures_ms(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Mean, percentiles and maximum in milliseconds; nothing of nothing."""
    if not len(seconds):
        return {}
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99])
    named = {"mean": seconds.mean(), "p50": p50, "p95": p95, "p99": p99, "max": seconds.max()}
    return {name: 1000.0 * float(value) for name, value in named.items()}
