"""Reading a partition back on a real broker: from the topics alone, and from a snapshot.

The topics hold one record and one assignment of every item, each under a model, as an owner leaves
them; the snapshot is one taken at their end. Both ways read the same state in one process, as an
assigner does after a restart, up to the moment when the engine has it: rows, statistics, labels.
Targets: 100 000 rows a second from the topics on two cores, and a million items of 384 dimensions
in 5 s from a snapshot.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._stage import (
    describe,
    end_on_sigterm,
    machine,
    prepare_topics,
    quartiles,
    said,
    settings,
    write_results,
)
from benchmarks._workload import Workload, input_record, make_model, make_workload, model_outgoing
from pipeline.config import Config
from pipeline.engine.cluster_engine import ClusterEngine
from pipeline.engine.setting import EngineSettings
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.codec import encode_assignment, encode_head, head_key
from pipeline.messages.events import Head
from pipeline.messages.model import Model
from pipeline.messages.records import Outgoing
from pipeline.services.allocator import collect_seldom
from pipeline.services.assigner.restore import Restore
from pipeline.state.snapshot import Identity, Marks, SnapshotWriter, capture, open_snapshot
from pipeline.streams.broker import start_broker
from pipeline.streams.kafka.broker import KafkaBroker

ROWS_A_SECOND = 100_000
SECONDS_A_MILLION = 5.0
SLICE = 4096
CHUNK = 20_000


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("topic", "snapshot"), default=None)
    parser.add_argument("--profile", action="store_true", help="one round each under cProfile")
    parser.add_argument("--scratch", action="store_true", help="write no results")
    return parser.parse_args()


def records(topic: str, workload: Workload, n_items: int) -> Iterator[Outgoing]:
    """One record of every item; the items repeat under other names where there are more."""
    items = workload.items
    for n in range(n_items):
        yield input_record(topic, 1, n, items[n % len(items)])


def fill(client: KafkaBroker, config: Config, workload: Workload, model: Model, n: int) -> None:
    """The topics as an owner leaves them, but for the statistics of clusters."""
    topics, names = config.topics, model.manifest.clusters
    producer = client.producer()
    for out in model_outgoing(model, topics.model):
        producer.write(out)
    for number, record in enumerate(records(topics.input, workload, n)):
        producer.write(record)
        value = encode_assignment(
            names[number % len(names)], 0.25 + number * 1e-7, 0, 1, 0, 0, number
        )
        producer.write(Outgoing(topics.assignments, 0, record.key, value))
    head = encode_head(Head(1, 0, n, n, n, 0, 0))
    producer.write(Outgoing(topics.statistics, 0, head_key(0), head))
    producer.flush()


class Stage:
    """What both ways read, and the engine that takes it over."""

    def __init__(self, client: KafkaBroker, config: Config, model: Model, threads: int) -> None:
        self.client, self.config, self.model = client, config, model
        self.kernels = CpuKernels(threads)
        self.settings = EngineSettings(
            config.topics, config.embedding, config.limits, config.events, True
        )
        self.path = Path("/nowhere")
        manifest = model.manifest
        self.identity = Identity(
            0, "measured", {}, manifest.dimensions, "float32", manifest.metric,
            manifest.max_component, manifest.embedding_model, manifest.embedding_since, (),
            "compact",
        )  # fmt: skip

    def restore(self, n_items: int, find: Callable[[int], Any] | None) -> ClusterEngine:
        """Read the partition back and take it over."""
        engine = ClusterEngine(self.settings, self.kernels)
        engine.install_model(self.model)
        run = Restore(self.client, self.settings, {0: n_items}, find=find).run()
        while True:
            try:
                next(run)
            except StopIteration as end:
                engine.adopt(end.value.partitions[0])
                assert len(engine.partitions[0].members) == n_items, "rows are missing"
                return engine

    def write_snapshot(self, engine: ClusterEngine, path: Path) -> float:
        """Write one of everything; how many seconds that took."""
        self.path, began = path, time.perf_counter()
        topics, state = self.config.topics, engine.partitions[0]
        high = {
            name: self.client.ranges(name)[0].high
            for name in (topics.assignments, topics.vectors, topics.statistics)
        }
        marks = Marks(
            state.next_offset, high[topics.assignments], high[topics.vectors],
            high[topics.statistics],
        )  # fmt: skip
        writer = SnapshotWriter(path, self.identity, marks, created_at_ms=0, published=frozenset())
        for start in range(0, state.members.n_rows, SLICE):
            writer.add(capture(state.members, engine.table.ids, start, start + SLICE))
        writer.finish(state.next_offset)
        return time.perf_counter() - began

    def measure(self, source: str, n_items: int) -> tuple[float, float]:
        """Seconds of the wall and of this process."""
        find = None if source == "topic" else lambda _: open_snapshot(self.path, self.identity)
        wall, cpu = time.perf_counter(), time.process_time()
        self.restore(n_items, find)
        return time.perf_counter() - wall, time.process_time() - cpu


def profile(call: Callable[[], object]) -> None:
    """Show where the time of one call goes."""
    profiler = cProfile.Profile()
    profiler.runcall(call)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(22)


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fill a broker, then read it back in turns."""
    n = options.items
    workload = make_workload(min(n, CHUNK), options.dims, seed=3)
    figures: dict[str, Any] = {}
    with start_broker(folder / "broker", extra={"log.cleaner.enable": "false"}) as broker:
        sets = settings(broker, topic="in", prefix="r.", partitions=1, dims=options.dims)
        config, client = prepare_topics(sets)
        model = make_model(workload, options.clusters, 1, CpuKernels(options.threads))
        fill(client, config, workload, model, n)
        stage = Stage(client, config, model, options.threads)
        # as every service has it: at Python's own threshold its collector took half of the time
        collect_seldom()
        took_s = stage.write_snapshot(stage.restore(n, None), folder / "0.snapshot")
        print(f"writing the snapshot: {took_s:.2f} s, {stage.path.stat().st_size / 1e6:,.0f} MB")
        sources = [s for s in ("topic", "snapshot") if options.only in (None, s)]
        if options.profile:
            for source in sources:
                profile(lambda source=source: stage.measure(source, n))  # type: ignore[misc]
        took: dict[str, list[tuple[float, float]]] = {source: [] for source in sources}
        for _ in range(options.rounds):
            for source in sources:
                took[source].append(stage.measure(source, n))
    for source, rounds in took.items():
        walls, cpus = np.array(rounds).T
        found = {
            "rows_a_second": quartiles(list(n / walls)),
            "seconds_a_million": quartiles(list(walls * 1e6 / n)),
            "cpu_seconds_a_million": quartiles(list(cpus * 1e6 / n)),
            "n_items": n,
        }
        figures[f"{source}-{options.dims}"] = found
        print(
            f"{source:<9} {said(found['rows_a_second'])} rows/s, "
            f"{said(found['seconds_a_million'], '.2f')} s a million, "
            f"{said(found['cpu_seconds_a_million'], '.2f')} s of processors"
        )
    return figures


def main() -> int:
    options = parsed()
    end_on_sigterm()
    about = machine()
    print(describe(about))
    with tempfile.TemporaryDirectory() as folder:
        figures = run(options, Path(folder))
    if not options.scratch:
        print(f"written: {write_results('restore', figures, about)}")
    met = [
        figures[key]["rows_a_second"]["median"] >= ROWS_A_SECOND
        if key.startswith("topic")
        else figures[key]["seconds_a_million"]["median"] <= SECONDS_A_MILLION
        for key in figures
    ]
    print(f"targets: {'met' if all(met) else 'missed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
