"""One process under measurement: ``null``, ``eddy`` or ``kernel``, as a JSON task says.

Eddy runs as `pipeline.services.launch` puts it together; the null pipeline polls and commits with
the same `Stream` and writes one assignment per record, of the same size. Between either and the
client stands a `Gate`: it lets the items in, waits until they are settled, and then opens for
the updates and measures from their first batch to their last commit.
"""

from __future__ import annotations

import cProfile
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config, load
from pipeline.kernels.choose import make_kernels
from pipeline.kernels.contract import DevicePolicy
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.codec import encode_assignment
from pipeline.messages.records import Outgoing
from pipeline.services.launch import run_assigner
from pipeline.streams.contract import GroupMember, Poll, Stream
from pipeline.streams.kafka.broker import KafkaBroker

SETTLE_S = 1.5
"""Between the items and the updates: statistics that are due go out within a second."""
KERNEL_BATCH = 4000
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all threads; 0 where there is no /proc."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / TICKS


def busy_seconds() -> float:
    """CPU time that all processes of the machine have had so far; 0 where there is no /proc."""
    try:
        words = Path("/proc/stat").read_text().split(None, 9)[1:9]
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in words)
    return (user + nice + system + irq + softirq + steal) / TICKS


class Gate:
    """A `Stream` that hands out items first, then the updates, and measures the second part."""

    def __init__(
        self,
        stream: Stream,
        boundary: Mapping[int, int],
        ends: Mapping[int, int],
        *,
        broker_pid: int,
        profile: cProfile.Profile | None,
        on_settled: Callable[[], None],
        on_done: Callable[[dict[str, Any]], None],
    ) -> None:
        self.inner, self.boundary, self.ends = stream, boundary, ends
        self.broker_pid, self.profile = broker_pid, profile
        self.on_settled, self.on_done = on_settled, on_done
        self.settled_at: float | None = None
        self.is_open = self.is_done = False
        self.committed: dict[int, int] = {}
        self.began_at: float | None = None
        self.cpu_at = self.broker_cpu_at = self.busy_at = 0.0
        self.poll_s = self.commit_s = 0.0
        self.n_transactions = self.n_batches = 0

    def poll(self, max_records: int, *, timeout_s: float, max_bytes: int | None = None) -> Poll:
        if not self.is_open:
            return self._poll_items(max_records, timeout_s, max_bytes)
        if self.began_at is not None:
            at = time.perf_counter()
            polled = self.inner.poll(max_records, timeout_s=timeout_s, max_bytes=max_bytes)
            self.poll_s += time.perf_counter() - at
            self.n_batches += bool(polled.records)
            return polled
        polled = self.inner.poll(max_records, timeout_s=timeout_s, max_bytes=max_bytes)
        if polled.records:
            self.n_batches = 1
            self.cpu_at, self.broker_cpu_at = time.process_time(), cpu_seconds(self.broker_pid)
            self.busy_at = busy_seconds()
            self.began_at = time.perf_counter()
            if self.profile is not None:
                self.profile.enable()
        return polled

    def _poll_items(self, max_records: int, timeout_s: float, max_bytes: int | None) -> Poll:
        if self.settled_at is not None and time.monotonic() > self.settled_at + SETTLE_S:
            self.is_open = True
            self.on_settled()
            for partition, offset in self.boundary.items():
                self.inner.start(partition, offset)
        polled = self.inner.poll(max_records, timeout_s=timeout_s, max_bytes=max_bytes)
        if not self.is_open and polled.records:
            polled.records = [r for r in polled.records if r.offset < self.boundary[r.partition]]
        return polled

    def commit(self, outgoing: Iterable[Outgoing], next_offsets: Mapping[int, int]) -> None:
        at = time.perf_counter()
        self.inner.commit(outgoing, next_offsets)
        ended_at = time.perf_counter()
        self.committed.update(next_offsets)
        if not self.is_open:
            self._settle(next_offsets)
            return
        self.commit_s += ended_at - at
        self.n_transactions += 1
        reached = self.committed.get
        if not self.is_done and all(reached(p, 0) >= end for p, end in self.ends.items()):
            self.is_done = True
            self._finish(ended_at)

    def _settle(self, next_offsets: Mapping[int, int]) -> None:
        for partition, offset in next_offsets.items():
            if offset >= self.boundary[partition] and self.settled_at is None:
                self.inner.stop(partition)
        reached = self.committed.get
        if self.settled_at is None and all(reached(p, 0) >= o for p, o in self.boundary.items()):
            self.settled_at = time.monotonic()

    def _finish(self, ended_at: float) -> None:
        if self.profile is not None:
            self.profile.disable()
        assert self.began_at is not None
        n = sum(end - self.boundary[p] for p, end in self.ends.items())
        seconds = ended_at - self.began_at
        cpu_s = time.process_time() - self.cpu_at
        broker_s = cpu_seconds(self.broker_pid) - self.broker_cpu_at
        self.on_done(
            {
                "records_per_s": n / seconds,
                "seconds": seconds,
                "poll_us": 1e6 * self.poll_s / n,
                "commit_us": 1e6 * self.commit_s / n,
                "rest_us": 1e6 * (seconds - self.poll_s - self.commit_s) / n,
                "cpu_us": 1e6 * cpu_s / n,
                "broker_cpu_us": 1e6 * broker_s / n,
                "transactions": self.n_transactions,
                "records_per_batch": n / self.n_batches,
                "foreign_cores": (busy_seconds() - self.busy_at - cpu_s - broker_s) / seconds,
            }
        )

    def start(self, partition: int, offset: int) -> None:
        self.inner.start(partition, offset)

    def stop(self, partition: int) -> None:
        self.inner.stop(partition)

    def rewind(self) -> None:
        self.inner.rewind()

    def lag(self) -> Mapping[int, int]:
        return self.inner.lag()

    def close(self) -> None:
        self.inner.close()


class Announcer(Gate):
    """Everything passes; it only tells when the items are through."""

    def poll(self, max_records: int, *, timeout_s: float, max_bytes: int | None = None) -> Poll:
        polled = self.inner.poll(max_records, timeout_s=timeout_s, max_bytes=max_bytes)
        settled_at = self.settled_at
        if not self.is_open and settled_at is not None and time.monotonic() > settled_at + SETTLE_S:
            self.is_open = True
            self.on_settled()
        return polled

    def commit(self, outgoing: Iterable[Outgoing], next_offsets: Mapping[int, int]) -> None:
        self.inner.commit(outgoing, next_offsets)
        if self.settled_at is None:
            self.committed.update(next_offsets)
            reached = self.committed.get
            if all(reached(p, 0) >= offset for p, offset in self.boundary.items()):
                self.settled_at = time.monotonic()


class GatedBroker:
    """The real broker, whose streams pass the gate."""

    def __init__(self, broker: KafkaBroker, gate: Callable[[Stream], Gate]) -> None:
        self._broker, self._gate = broker, gate

    def stream(self, member: GroupMember) -> Gate:
        return self._gate(self._broker.stream(member))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


def run_null(config: Config, broker: GatedBroker, stop: threading.Event, *, stamped: bool) -> None:
    """Same consumption, same transactions, one assignment per record, and nothing in between.

    Parameters
    ----------
    stamped
        Assignments name their records, so that a reader can tell them apart.
    """
    group = f"{config.topics.prefix}assigner"
    stream = broker.stream(GroupMember(config.topics.input, group, f"{group}.null", "null"))
    topic, batching = config.topics.assignments, config.batching
    same = encode_assignment("c250", 0.8123456, 0, 1, 0, 3, 100_000)
    try:
        while not stop.is_set():
            polled = stream.poll(batching.max_records, timeout_s=batching.max_wait_s)
            for partition, committed in polled.assigned.items():
                stream.start(partition, committed or 0)
            if not polled.records:
                continue
            if stamped:
                outgoing = [
                    Outgoing(
                        topic, r.partition, r.key,
                        encode_assignment("c250", 0.8123456, 0, 1, 0, r.partition, r.offset),
                    )
                    for r in polled.records
                ]  # fmt: skip
            else:
                outgoing = [Outgoing(topic, r.partition, r.key, same) for r in polled.records]
            stream.commit(outgoing, {r.partition: r.offset + 1 for r in polled.records})
    finally:
        stream.close()


def run_kernel(sample: Path, n_records: int, threads: int | None) -> dict[str, Any]:
    """`assign` alone over the updates, in batches of a full transaction."""
    with np.load(sample) as arrays:
        centroids, vectors = arrays["centroids"], arrays["vectors"]
    kernels = CpuKernels(threads)
    model = kernels.load(centroids)
    batches = [vectors[i : i + KERNEL_BATCH] for i in range(0, len(vectors), KERNEL_BATCH)]
    found = {}
    for name, second in (("without_second_per_s", False), ("records_per_s", True)):
        kernels.assign(model, batches[0], second=second)  # compiled, and its threads are up
        busy_at, cpu_at = busy_seconds(), time.process_time()
        n, began_at = 0, time.perf_counter()
        while n < n_records:
            for batch in batches:
                kernels.assign(model, batch, second=second)
                n += len(batch)
        seconds, cpu_s = time.perf_counter() - began_at, time.process_time() - cpu_at
        found[name] = n / seconds
    found["cpu_us"] = 1e6 * cpu_s / n  # of the last: as Eddy calls it
    found["foreign_cores"] = (busy_seconds() - busy_at - cpu_s) / seconds
    return found


def main() -> int:
    """Run the task given as the only argument."""
    task = json.loads(sys.argv[1])
    out = Path(task["out"])

    def write(path: Path, found: Mapping[str, Any]) -> None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(found))
        partial.rename(path)  # whoever waits for the file finds all of it

    if task["kind"] == "kernel":
        write(out, run_kernel(Path(task["sample"]), task["n_records"], task["threads"]))
        return 0
    config = load(None, {}, task["sets"]).config
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    profile = cProfile.Profile() if task.get("profile") else None

    def done(found: dict[str, Any]) -> None:
        if profile is not None:
            profile.dump_stats(task["profile"])
        write(out, found)
        stop.set()

    def gate(stream: Stream) -> Gate:
        kind = Gate if task["ends"] else Announcer
        return kind(
            stream,
            {int(p): offset for p, offset in task["boundary"].items()},
            {int(p): offset for p, offset in task["ends"].items()},
            broker_pid=task["broker_pid"],
            profile=profile,
            on_settled=lambda: write(out.with_suffix(".ready"), {}),
            on_done=done,
        )

    client = KafkaBroker(config.kafka, max_record_bytes=config.limits.max_record_bytes)
    broker = GatedBroker(client, gate)
    if task["kind"] == "null":
        client.wait(30.0)
        run_null(config, broker, stop, stamped=not task["ends"])
    else:
        kernels = make_kernels(DevicePolicy("cpu", threads=task["threads"]))
        run_assigner(config, broker, kernels, stop=stop)  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    sys.exit(main())
