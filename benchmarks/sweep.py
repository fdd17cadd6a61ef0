"""What it costs that centroids follow their members, by how many members there are.

Growth: of 10^4, 10^5 and 10^6 members, the sweep of an epoch, in which everybody is compared, and
those of revisions: after every so many updates the statistics go out and move the centroids, and
only members whose proof is spent are compared. Beside each figure the exponent of its growth.

Latency: records come at a fixed rate, timed from when they were due, to an engine that rests and to
one that sweeps an epoch over the largest set in slices between the batches, as the assigner does.
All in one process and without a broker: a commit is a sleep, of ``--commit-ms``.
Target: the p99 of the second at most twice that of the first.

The vectors are real (the bundled ones, or ``--vectors``), with a little noise where there are more
members than texts.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._stage import describe, machine, quartiles, said, write_results
from benchmarks._workload import NOISE, Workload, item_key, make_model, make_workload
from pipeline.clustering.centroids import CentroidPolicy
from pipeline.engine.changes import Changes
from pipeline.engine.cluster_engine import ClusterEngine, Restored
from pipeline.engine.revision import next_revision
from pipeline.engine.setting import EngineSettings
from pipeline.engine.totals import Totals
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.model import Model, digest
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy, LimitPolicy
from pipeline.messages.records import Record
from pipeline.messages.vectors import encode_vector
from pipeline.services.assigner.pace import SlicePace
from pipeline.state.members import Members
from pipeline.streams.topics import TopicPolicy

TARGET = 2.0
FIT_ITEMS = 40_000
"""A model of fewer items than there are members is as good for this."""
MAX_BATCH = 4000
CHUNK = 100_000


class Partition:
    """One partition of ``n`` members in an engine, and the users who keep changing them."""

    def __init__(self, n: int, points: NDArray[np.float32], options: argparse.Namespace) -> None:
        rng = np.random.default_rng([options.seed, 2])
        self.n, dims = n, points.shape[1]
        edits = make_workload(1, dims, options.seed).edits
        self.kernels = CpuKernels(options.threads)
        members = Members(dims)
        rows = members.put([item_key(i) for i in range(n)])
        members.offsets[rows] = 0
        if n <= len(points):
            members.vectors[rows] = points[rng.permutation(len(points))[:n]]
        else:
            for some in np.array_split(rows, max(1, n // CHUNK)):
                noise = rng.standard_normal((len(some), dims), np.float32) * (NOISE / dims**0.5)
                members.vectors[some] = points[rng.integers(len(points), size=len(some))] + noise
        fitted = members.vectors[: min(n, FIT_ITEMS)]
        self.model = make_model(
            Workload(fitted, edits, options.seed), options.clusters, 1, self.kernels
        )
        settings = EngineSettings(
            TopicPolicy(input="input", prefix="b.", partitions=1),
            EmbeddingPolicy(dimensions=dims), LimitPolicy(), EventPolicy(), True,
        )  # fmt: skip
        self.engine = ClusterEngine(settings, self.kernels)
        self.engine.install_model(self.model)
        clusters = self.model.manifest.clusters
        self.engine.adopt(Restored(0, 1, members, [clusters[0]] * n, {}, set(), 0))
        self._items = rng.integers(n, size=10_000_000)
        self._edits, self._at = edits, 1
        self._totals = Totals(1, dims, max_component=self.model.manifest.max_component)
        self._totals.opened()
        self._told = 0

    def updates(self, n: int) -> list[Record]:
        """The next records: items moved as real edits move them."""
        vectors, made = self.engine.partitions[0].members.vectors, []
        for at in range(self._at, self._at + n):
            item = int(self._items[at % len(self._items)])
            vector = vectors[item] + self._edits[at % len(self._edits)]
            made.append(Record(0, at, item_key(item), encode_vector(vector), 1000, ()))
        self._at += n
        return made

    def apply(self, records: list[Record]) -> None:
        self.engine.install(self.engine.prepare(records))

    def sweep(self, pace: SlicePace) -> tuple[int, int]:
        """To the end; how many were compared, and how many moved."""
        n_checked = n_moved = 0
        while self.engine.partitions[0].to_sweep:
            tally = sweep_slice(self.engine, pace).tally
            n_checked += tally.n_checked
            n_moved += tally.n_reassigned_by_model
        return n_checked, n_moved

    def follow(self) -> Model | None:
        """The revision that the statistics of dirty clusters make."""
        changes = self.engine.publish_statistics(0)
        self.engine.install(changes)
        said_now = [
            Record(0, self._told + i, out.key, out.value, 1000, ())
            for i, out in enumerate(changes.outgoing)
        ]
        self._told += len(said_now)
        self._totals.fold(said_now)
        return next_revision(self.engine.loaded.model, self._totals, CentroidPolicy(), 1000)

    def next_epoch(self) -> Model:
        """The centroids where the members are: a fit's last step, published as a fit."""
        revision = self.follow() or self.engine.loaded.model
        epoch = self.engine.loaded.version.epoch + 1
        manifest = dataclasses.replace(
            revision.manifest, epoch=epoch, revision=0, digest=digest(revision.centroids)
        )
        return dataclasses.replace(revision, manifest=manifest, fitted=revision.centroids)


def sweep_slice(engine: ClusterEngine, pace: SlicePace, commit_s: float = 0.0) -> Changes:
    """One slice, as the assigner does it: what moves nobody needs no commit."""
    began = time.perf_counter()
    changes = engine.sweep(0, max_rows=pace.n_rows)
    pace.took(changes.tally.n_checked, time.perf_counter() - began)
    commit(engine, changes, commit_s if changes.outgoing else 0.0)
    return changes


def commit(engine: ClusterEngine, changes: Changes, seconds: float) -> None:
    """A transaction that takes as long as a broker would, and its install."""
    if seconds:
        time.sleep(seconds)
    engine.install(changes)


# --- growth -----------------------------------------------------------------------


def growth(partition: Partition, options: argparse.Namespace) -> dict[str, Any]:
    """The epoch's sweep, then revisions after `options.changes` updates each."""
    pace, n = SlicePace(), partition.n
    partition.sweep(pace)  # from nothing known to the first model's labels
    partition.engine.install_model(partition.next_epoch())
    began = time.perf_counter()
    _, n_moved = partition.sweep(pace)
    found: dict[str, Any] = {
        "epoch_s": time.perf_counter() - began,
        "epoch_moved": n_moved / n,
        "rows_a_slice": pace.n_rows,
    }
    for _ in range(options.settle):  # nearer to rest, where a stream of small changes would be
        if (revision := partition.follow()) is None:
            break
        partition.engine.install_model(revision)
        partition.sweep(pace)
    partition.follow()
    rounds: dict[str, list[float]] = {"share": [], "sweep_s": [], "tier2_us": [], "moved": []}
    for _ in range(options.revisions):
        partition.apply(partition.updates(options.changes))
        began = time.perf_counter()
        revision = partition.follow()
        if revision is None:
            continue
        partition.engine.install_model(revision)
        swept_at = time.perf_counter()
        n_checked, n_moved = partition.sweep(pace)
        ended = time.perf_counter()
        rounds["share"].append(n_checked / n)
        rounds["moved"].append(n_moved / n)
        rounds["sweep_s"].append(ended - swept_at)
        rounds["tier2_us"].append((ended - began) / options.changes * 1e6)
    return found | {name: quartiles(values) for name, values in rounds.items() if values}


def exponent(sizes: list[int], values: list[float]) -> float:
    """Of the power of the size that fits best."""
    if len(sizes) < 2 or min(values) <= 0.0:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def told(sizes: list[int], figures: dict[str, Any]) -> None:
    """The table for people."""
    rows = [figures[f"growth n={n}"] for n in sizes]
    print(f"\n{'':<34}" + "".join(f"{n:>12,}" for n in sizes) + f"{'exponent':>10}")
    lines = (
        ("epoch: seconds", "epoch_s", 1.0, "{:12.3f}"),
        ("epoch: % moved", "epoch_moved", 100.0, "{:12.2f}"),
        ("revision: % compared", "share", 100.0, "{:12.2f}"),
        ("revision: % moved", "moved", 100.0, "{:12.4f}"),
        ("revision: sweep, ms", "sweep_s", 1e3, "{:12.2f}"),
        ("tier 2: µs per record", "tier2_us", 1.0, "{:12.1f}"),
    )
    for name, key, scale, form in lines:
        got = [row.get(key, 0.0) for row in rows]
        values = [scale * (value["median"] if isinstance(value, dict) else value) for value in got]
        line = "".join(form.format(value) for value in values)
        print(f"{name:<34}{line}{exponent(sizes, values):10.2f}")


# --- latency ----------------------------------------------------------------------


def arrivals(
    partition: Partition, pace: SlicePace | None, options: argparse.Namespace
) -> Iterator[float]:
    """The waits of records that come at this rate, in seconds, until the time or a sweep ends."""
    engine, rate, done = partition.engine, options.rate, 0
    commit_s = options.commit_ms / 1e3
    ready = partition.updates(int(rate * options.seconds))
    began = time.perf_counter()
    while done < len(ready):
        if pace is not None and not engine.partitions[0].to_sweep:
            return
        n_due = min(int((time.perf_counter() - began) * rate), len(ready))
        if n_due > done:
            batch = ready[done : min(n_due, done + MAX_BATCH)]
            commit(engine, engine.prepare(batch), commit_s)
            now = time.perf_counter() - began
            yield from (now - number / rate for number in range(done, done + len(batch)))
            done += len(batch)
        elif pace is None:
            time.sleep(1.0 / rate)
        if pace is not None:
            sweep_slice(engine, pace, commit_s)


def latency(partition: Partition, options: argparse.Namespace) -> dict[str, Any]:
    """Quiet and sweeping, in turns."""
    rounds: dict[str, list[float]] = {"quiet": [], "sweeping": [], "ratio": []}
    pace = SlicePace(options.budget_ms / 1e3)
    for _ in range(options.rounds):
        found = {}
        for kind in ("quiet", "sweeping"):
            if kind == "sweeping":
                partition.engine.install_model(partition.next_epoch())
            waits = arrivals(partition, pace if kind == "sweeping" else None, options)
            found[kind] = float(np.percentile(np.fromiter(waits, float) * 1e3, 99))
            rounds[kind].append(found[kind])
        partition.sweep(pace)
        rounds["ratio"].append(found["sweeping"] / found["quiet"])
    return {name: quartiles(values) for name, values in rounds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--changes", type=int, default=100, help="updates before a revision")
    parser.add_argument("--revisions", type=int, default=21)
    parser.add_argument("--settle", type=int, default=20, help="revisions before the first one")
    parser.add_argument("--rate", type=float, default=1000.0, help="records a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a round, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--commit-ms", type=float, default=6.0, help="what stands for a commit")
    parser.add_argument("--budget-ms", type=float, default=SlicePace().budget_s * 1e3)
    parser.add_argument("--vectors", type=Path, help=".npy of real ones, 384 dimensions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    about = machine()
    print(describe(about))
    points = make_workload(20_000, 384, options.seed).items
    if options.vectors is not None:
        points = np.load(options.vectors).astype(np.float32)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    sizes, figures = sorted(options.members), {}
    for n in sizes:
        partition = Partition(n, points, options)
        gc.collect()
        figures[f"growth n={n}"] = growth(partition, options)
    told(sizes, figures)
    found = latency(partition, options)
    figures[f"latency n={n}"] = found | {"rate": options.rate, "commit_ms": options.commit_ms}
    print(
        f"\np99 of a record's wait at {options.rate:,.0f}/s, commits of {options.commit_ms} ms: "
        f"{said(found['quiet'], '.1f')} ms; during a sweep of {n:,} members "
        f"{said(found['sweeping'], '.1f')} ms"
    )
    is_met = found["ratio"]["median"] <= TARGET
    print(
        f"ratio {said(found['ratio'], '.2f')}; target at most {TARGET}: "
        + ("met" if is_met else "MISSED")
    )
    print(f"\nwritten to {write_results('sweep', figures, about)}")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
