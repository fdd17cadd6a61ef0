"""From the moment a record was due to its assignment and its event, read at read_committed.

Records come at a fixed rate. Each is timed from when it was due, not from when it was sent, so a
stall is felt by all that should have come meanwhile. A null pipeline (same consumption, same
transactions, one assignment per record, no clustering) and Eddy take turns in one run on one
broker. Both write an assignment for every record; Eddy also writes events, timed apart.
Target: p50, p95 and p99 of the assignments at most 1.25 times the null pipeline's.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from numpy.typing import NDArray

from benchmarks._stage import (
    Worker,
    describe,
    end_on_sigterm,
    highs,
    machine,
    prepare_topics,
    produce,
    quartiles,
    said,
    settings,
    write_results,
)
from benchmarks._workload import input_record, make_model, make_workload, model_outgoing
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.codec import decode_assignment, decode_change
from pipeline.messages.records import Outgoing
from pipeline.streams.broker import RunningBroker, start_broker

TARGET = 1.25
N_ITEMS = 20_000
LAST_WORDS_S = 30.0
"""How long the last records may take; what comes later counts as lost, and the run fails."""
SHARES = {"p50": 50, "p95": 95, "p99": 99}

Arrivals = list[tuple[str, bytes, float]]
"""Topic, value, and when it was read."""


class Probe(threading.Thread):
    """A consumer at read_committed, which notes when each record reaches it."""

    def __init__(self, servers: str, starts: dict[str, dict[int, int]]) -> None:
        super().__init__(daemon=True)
        self.arrivals: Arrivals = []
        self.counts = dict.fromkeys(starts, 0)
        self.stop = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers, "group.id": "probe", "enable.auto.commit": False,
                "isolation.level": "read_committed", "auto.offset.reset": "error",
                "fetch.queue.backoff.ms": 5,
            }
        )  # fmt: skip
        self._consumer.assign(
            [TopicPartition(t, p, offset) for t, of in starts.items() for p, offset in of.items()]
        )

    def run(self) -> None:
        while not self.stop.is_set():
            message = self._consumer.poll(0.05)
            if message is None or message.error() is not None:
                continue
            topic = message.topic()
            self.arrivals.append((topic, message.value(), time.perf_counter()))
            self.counts[topic] += 1
        self._consumer.close()


class Load:
    """Records of an input, made beforehand and sent when they are due."""

    def __init__(self, servers: str, records: list[Outgoing], rate: float) -> None:
        self._records, self._rate = records, rate
        self._producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
        self._producer.list_topics(records[0].topic, timeout=10.0)  # connected before the first

    def send(self) -> tuple[float, NDArray[np.float64]]:
        """When the first was due, and how late each was sent: (n_records,), seconds."""
        late = np.zeros(len(self._records))
        began_at = time.perf_counter() + 0.1
        produce_one, serve = self._producer.produce, self._producer.poll
        for number, record in enumerate(self._records):
            due = began_at + number / self._rate
            while (left := due - time.perf_counter()) > 0:
                time.sleep(left)
            produce_one(record.topic, record.value, record.key, record.partition)
            late[number] = time.perf_counter() - due
            serve(0)
        self._producer.flush(10.0)
        return began_at, late


class Stage:
    """What is the same in every round: the broker, the items, the model."""

    def __init__(self, broker: RunningBroker, dims: int, options: argparse.Namespace) -> None:
        self.broker, self.dims, self.options = broker, dims, options
        self.workload = make_workload(N_ITEMS, dims, seed=2)
        kernels = CpuKernels(options.threads)
        self.model = make_model(self.workload, options.clusters, options.partitions, kernels)

    def run(self, kind: str, number: int, scratch: Path) -> dict[str, Any]:
        """One pipeline under load, from its first item to its end."""
        options, n = self.options, self.options.partitions
        name = f"{kind}-{self.dims}-{number}"
        sets = settings(
            self.broker, topic=f"changes-{name}", prefix=f"{name}.", partitions=n,
            dims=self.dims, more=[f"batching.max_wait_s={options.max_wait_s}", *options.set],
        )  # fmt: skip
        config, client = prepare_topics(sets)
        topics = config.topics
        items = enumerate(self.workload.items)
        produce(client, (input_record(topics.input, n, i, vector) for i, vector in items))
        produce(client, model_outgoing(self.model, topics.model))
        boundary = highs(client, topics.input)
        task = {
            "kind": kind, "out": str(scratch / f"{name}.json"), "threads": options.threads,
            "sets": sets, "boundary": boundary, "ends": {}, "broker_pid": self.broker.pid,
        }  # fmt: skip
        n_records = int(options.rate * (options.warm_s + options.seconds))
        records = [
            input_record(topics.input, n, item, vector)
            for chosen, moved in self.workload.updates(n_records)
            for item, vector in zip(chosen.tolist(), moved, strict=True)
        ]
        worker = Worker(task)
        try:
            worker.wait_ready()
            servers = self.broker.bootstrap_servers
            read = (topics.assignments, topics.changes)
            probe = Probe(servers, {topic: highs(client, topic) for topic in read})
            probe.start()
            began_at, late = Load(servers, records, options.rate).send()
            deadline = time.monotonic() + LAST_WORDS_S
            while probe.counts[topics.assignments] < n_records and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.2)  # an event of the last transaction, if there is one
            probe.stop.set()
            probe.join()
        finally:
            worker.close()
        if probe.counts[topics.assignments] != n_records:
            raise SystemExit(
                f"{kind}: {probe.counts[topics.assignments]} assignments of {n_records} records"
            )
        due = self._due(records, boundary, began_at)
        n_warm = int(options.rate * options.warm_s)
        first_due = began_at + n_warm / options.rate
        waits: dict[str, list[float]] = {topics.assignments: [], topics.changes: []}
        for topic, value, at in probe.arrivals:
            if topic == topics.assignments:
                row = decode_assignment(value)
                place = row.partition, row.offset
            else:
                change = decode_change(value)
                place = change.partition, change.offset
            if due[place] >= first_due:
                waits[topic].append(at - due[place])
        return {
            "assignments": np.array(waits[topics.assignments]),
            "events": np.array(waits[topics.changes]),
            "late": late[n_warm:],
        }

    def _due(
        self, records: list[Outgoing], boundary: dict[int, int], began_at: float
    ) -> dict[tuple[int, int], float]:
        """Partition and offset of every record -> when it was due."""
        following, due = dict(boundary), {}
        for number, record in enumerate(records):
            due[record.partition, following[record.partition]] = (
                began_at + number / self.options.rate
            )
            following[record.partition] += 1
        return due


def figures_of(waits: NDArray[np.float64]) -> dict[str, float]:
    """Percentiles, mean and maximum in milliseconds."""
    found = {name: float(np.percentile(waits, share)) for name, share in SHARES.items()}
    found |= {"mean": float(waits.mean()), "max": float(waits.max())}
    return {name: 1000 * value for name, value in found.items()}


def measure(stage: Stage, scratch: Path) -> dict[str, Any]:
    """Rounds of both, whoever was second going first in the next."""
    options = stage.options
    rounds: dict[str, list[dict[str, float]]] = {"null": [], "eddy": [], "events": []}
    late, ratios = [], []
    for number in range(options.rounds):
        for kind in ("null", "eddy") if number % 2 == 0 else ("eddy", "null"):
            found = stage.run(kind, number, scratch)
            rounds[kind].append(figures_of(found["assignments"]))
            if kind == "eddy":
                rounds["events"].append(figures_of(found["events"]))
            late.append(figures_of(found["late"]))
        null, eddy = rounds["null"][-1], rounds["eddy"][-1]
        ratios.append({name: eddy[name] / null[name] for name in null})
        print(
            f"  round {number + 1}: "
            + "  ".join(f"{s} {eddy[s]:.1f}/{null[s]:.1f}={ratios[-1][s]:.2f}" for s in SHARES)
            + f"  load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    each = {"eddy_of_null": ratios, **{f"{kind}_ms": of for kind, of in rounds.items()}}
    return {
        "rate": options.rate, "seconds": options.seconds, "rounds": options.rounds,
        "clusters": options.clusters, "partitions": options.partitions,
        "max_wait_s": options.max_wait_s,
        **{
            name: {one: quartiles([of_round[one] for of_round in of]) for one in of[0]}
            for name, of in each.items()
        },
        "sent_late_ms": {"p99": quartiles([one["p99"] for one in late])},
    }  # fmt: skip


def show(dims: int, figures: dict[str, Any]) -> None:
    """The figures for people, the ratios first."""
    print(
        f"\nd={dims}, K={figures['clusters']}, {figures['rate']:,.0f} records/s, max_wait_s "
        f"{figures['max_wait_s']}, medians (quartiles) of {figures['rounds']} rounds"
    )
    for name in (*SHARES, "mean", "max"):
        ratio = figures["eddy_of_null"][name]
        verdict = ""
        if name in SHARES:
            verdict = "reached" if ratio["median"] <= TARGET else "MISSED"
            verdict = f"target {TARGET}: {verdict}"
        kinds = "   ".join(
            f"{kind} {said(figures[f'{kind}_ms'][name], '.1f')}"
            for kind in ("eddy", "null", "events")
        )
        print(f"  {name:<5} eddy/null {said(ratio, '.2f')} {verdict:<22} ms: {kinds}")
    print(f"  sent late, p99: {said(figures['sent_late_ms']['p99'], '.2f')} ms (in all of them)")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dims", type=int, nargs="+", default=[384], help="384, 1024")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=15.0, help="measured in each round")
    parser.add_argument("--warm-s", type=float, default=3.0, help="sent before, not counted")
    parser.add_argument("--rate", type=float, default=1000.0, help="records per second")
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--max-wait-s", type=float, default=0.002, help="batching.max_wait_s")
    parser.add_argument("--threads", type=int, help="of the kernels; all cores by default")
    parser.add_argument("--heap", default="1g", help="of the broker")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of both")
    parser.add_argument("--no-write", action="store_true", help="leave results/ as it is")
    options = parser.parse_args()

    sys.setswitchinterval(0.0005)  # sender and probe share an interpreter
    end_on_sigterm()
    about = machine()
    print(describe(about))
    figures = {}
    with tempfile.TemporaryDirectory() as folder, start_broker(None, heap=options.heap) as broker:
        for dims in options.dims:
            print(f"d={dims}", flush=True)
            figures[str(dims)] = measure(Stage(broker, dims, options), Path(folder))
            show(dims, figures[str(dims)])
    if not options.no_write:
        print(f"\nwritten to {write_results('latency', figures, about)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
