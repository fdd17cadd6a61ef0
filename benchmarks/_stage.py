"""What the benchmarks on a real broker share: topics, processes, the machine, results."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._worker import busy_seconds
from pipeline.config import Config, load
from pipeline.messages.records import Outgoing
from pipeline.streams.broker import RunningBroker
from pipeline.streams.jars import KAFKA_VERSION
from pipeline.streams.kafka.broker import KafkaBroker
from pipeline.streams.topics import expected_topics

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"
TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def settings(
    broker: RunningBroker, *, topic: str, prefix: str, partitions: int, dims: int,
    more: Sequence[str] = (),
) -> list[str]:  # fmt: skip
    """``key=value`` of the configuration that every process of a round gets."""
    return [
        f"kafka.bootstrap.servers={broker.bootstrap_servers}",
        f"topics.input={topic}",
        f"topics.prefix={prefix}",
        f"topics.partitions={partitions}",
        f"embedding.dimensions={dims}",
        "embedding.metric=euclidean",
        "telemetry.metrics_port=0",
        "instance=measured",
        *more,
    ]


def prepare_topics(sets: Sequence[str]) -> tuple[Config, KafkaBroker]:
    """All topics of a configuration, made where they are missing."""
    config = load(None, {}, sets).config
    client = KafkaBroker(config.kafka, max_record_bytes=config.limits.max_record_bytes)
    client.wait(30.0)
    client.create_topics(expected_topics(config.topics, config.limits.max_record_bytes))
    return config, client


def produce(client: KafkaBroker, records: Iterable[Outgoing]) -> None:
    """Write records and wait until they are there."""
    producer = client.producer()
    for record in records:
        producer.write(record)
    producer.flush()


def highs(client: KafkaBroker, topic: str) -> dict[int, int]:
    """The end of every partition."""
    return {partition: found.high for partition, found in client.ranges(topic).items()}


def wait_quiet(limit_cores: float, timeout_s: float) -> None:
    """Until others leave the machine alone for a second, or the time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        busy_at, at = busy_seconds(), time.monotonic()
        time.sleep(1.0)
        if busy_seconds() - busy_at <= limit_cores * (time.monotonic() - at):
            return


def end_on_sigterm() -> None:
    """End as by Ctrl-C, so that workers and the broker's folder go, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Worker:
    """A process of `benchmarks._worker`."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self.out = Path(task["out"])
        self.log = self.out.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks._worker", json.dumps(task)],
                cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Until the items are settled."""
        deadline = time.monotonic() + timeout_s
        while not self.out.with_suffix(".ready").exists():
            self._go_on(deadline, "ready")
            time.sleep(0.02)

    def result(self, timeout_s: float = 300.0) -> dict[str, Any]:
        """What it measured, once it has ended."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.close()
            raise SystemExit(f"no result in {timeout_s} s:\n{self._last_words()}") from None
        except BaseException:  # who measures is told to end
            self.close()
            raise
        if status or not self.out.exists():
            raise SystemExit(f"a worker ended with {status}:\n{self._last_words()}")
        found: dict[str, Any] = json.loads(self.out.read_text())
        return found

    def close(self) -> None:
        """Ask it to end, and see that it does."""
        self.process.terminate()
        try:
            self.process.wait(20.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _go_on(self, deadline: float, what: str) -> None:
        if self.process.poll() is not None or time.monotonic() > deadline:
            self.close()
            raise SystemExit(f"a worker is not {what}:\n{self._last_words()}")

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


# --- figures ----------------------------------------------------------------------


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median with the quartiles around it."""
    low, middle, high = np.percentile(np.array(values, float), [25, 50, 75])
    return {"median": float(middle), "q1": float(low), "q3": float(high)}


def said(found: Mapping[str, float], form: str = ",.0f") -> str:
    """Quartiles for people: median (q1 .. q3)."""
    return f"{found['median']:{form}} ({found['q1']:{form}} .. {found['q3']:{form}})"


def machine() -> dict[str, Any]:
    """The class of the machine, never its name."""
    facts: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    except OSError:
        facts["model name"] = platform.processor() or platform.machine()
    flags = facts.get("flags", "").split()
    return {
        "cpu": facts.get("model name", platform.machine()),
        "family_model": f"{facts.get('cpu family', '?')}-{facts.get('model', '?')}",
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in TELLING_FLAGS if flag in flags],
        "load": [round(load, 2) for load in os.getloadavg()],
        "versions": {
            "python": platform.python_version(),
            "kafka": KAFKA_VERSION,
            **{name: version(name) for name in ("confluent-kafka", "numpy", "numba", "scipy")},
        },
    }


def describe(found: Mapping[str, Any]) -> str:
    """The machine in two lines."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"{found['cpu']} ({found['family_model']}, {' '.join(found['flags'])}), "
        f"{found['cores']} cores, load {found['load'][0]}\n{versions}"
    )


def write_results(
    name: str, figures: Mapping[str, Any], about: Mapping[str, Any], folder: Path = RESULTS
) -> Path:
    """Put figures into the day's file of this class of machine, beside those of others."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{about['cpu']}-{about['family_model']}".lower()).strip("-")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = folder / f"{today}-{slug}-{about['cores']}c.json"
    folder.mkdir(parents=True, exist_ok=True)
    held = json.loads(path.read_text()) if path.exists() else {}
    held.setdefault(name, {}).update(
        {key: {**value, "machine": about} for key, value in figures.items()}
    )
    path.write_text(json.dumps(held, indent=1) + "\n")
    return path
