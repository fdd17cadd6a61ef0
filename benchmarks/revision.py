"""Milliseconds from changed statistics to the records of the next revision.

What the reclusterer does between a poll and a commit: fold the rows of the clusters that changed
and their head, compute and compare the means, make the next model, encode what moved. Beside it
the floor: the digest of all centroids, which the manifest holds, and the bytes of those rows and
of the centroids that moved, copied once.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._stage import describe, machine, quartiles, said, write_results
from pipeline.clustering.centroids import CentroidPolicy
from pipeline.engine.revision import RevisionRule
from pipeline.engine.totals import Totals
from pipeline.messages.codec import encode_head, encode_statistics, head_key, statistics_key
from pipeline.messages.events import Head, StatisticsRow
from pipeline.messages.model import N_QUANTILES, Manifest, Model, digest, model_records
from pipeline.messages.records import Record

MEMBERS = 200  # of a cluster in a partition
TARGET_MS = 5.0


class Partitions:
    """Statistics of random members, as the owners of the partitions would write them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.rng = np.random.default_rng(options.seed)
        self.n_partitions, self.n_clusters = options.partitions, options.clusters
        shape = (self.n_partitions, self.n_clusters, options.dims)
        points = self.rng.normal(size=shape[1:]) / np.sqrt(options.dims)
        self.sums = np.rint(points * MEMBERS * 2.0**40).astype(np.int64)[None].repeat(shape[0], 0)
        self.offsets = [0] * self.n_partitions

    def first_model(self, dims: int) -> Model:
        """Centroids at the means, so that only what changes moves."""
        centroids = (self.sums[0] * (2.0**-40 / MEMBERS)).astype(np.float32)
        manifest = Manifest(
            epoch=1, revision=0, metric="euclidean", dimensions=dims, embedding_model=None,
            clusters=tuple(f"c{i + 1}" for i in range(self.n_clusters)), max_component=1.0,
            input_policy="compact", digest=digest(centroids), next_cluster_number=10**6,
            fitted_items=1, fitted_inertia=1.0, fitted_offsets=(0,) * self.n_partitions,
            created_at_ms=0,
        )  # fmt: skip
        ones = np.ones(self.n_clusters)
        quantiles = np.ones((self.n_clusters, N_QUANTILES), np.float32)
        return Model(manifest, centroids, ones.astype(np.int64), ones, ones, quantiles, centroids)

    def says(self, partition: int, labels: Sequence[int]) -> list[Record]:
        """The rows of some clusters, and the head."""
        said: list[tuple[bytes, bytes]] = []
        for label in labels:
            square = int(self.rng.integers(2**40))
            value = encode_statistics(
                StatisticsRow(
                    1, MEMBERS, MEMBERS * 2**16, square, 1, 0.1, 0.01, self.sums[partition, label]
                )
            )
            said.append((statistics_key(partition, f"c{label + 1}"), value))
        offset = self.offsets[partition]
        # every head tells of new records, so that a revision need not wait for sweeps
        head = Head(1, 0, 0, offset + 1, MEMBERS * self.n_clusters, offset + 1, 0)
        said.append((head_key(partition), encode_head(head)))
        self.offsets[partition] += len(said)
        return [Record(partition, offset + i, key, value) for i, (key, value) in enumerate(said)]

    def changes(self, partition: int, n_changed: int) -> list[Record]:
        """Some clusters of a partition, moved by a few per cent of their spread."""
        labels = self.rng.choice(self.n_clusters, n_changed, replace=False)
        steps = self.rng.normal(size=(n_changed, self.sums.shape[2])) * 2.0**33
        self.sums[partition, labels] += np.rint(steps).astype(np.int64)
        return self.says(partition, labels.tolist())


def floor(
    centroids: NDArray[np.float32], records: Sequence[Record], labels: int
) -> Callable[[], Any]:
    """The least anybody could do: hash the centroids, touch the bytes that came and that go."""

    def call() -> None:
        hashlib.sha256(centroids.data).hexdigest()
        for record in records:
            np.frombuffer(record.value, np.uint8).copy()
        for centroid in centroids[:labels]:
            centroid.tobytes()

    return call


def measure(
    options: argparse.Namespace, n_changed: int
) -> tuple[dict[str, list[float]], int, float]:
    """Milliseconds of each part by round; the centroids that moved, and their records' bytes."""
    partitions = Partitions(options)
    model = partitions.first_model(options.dims)
    totals = Totals(options.partitions, options.dims, max_component=1.0)
    for partition in range(options.partitions):
        totals.fold(partitions.says(partition, range(options.clusters)))
    totals.opened()
    rule = RevisionRule(CentroidPolicy())
    times: dict[str, list[float]] = {"fold": [], "revise": [], "encode": [], "all": [], "floor": []}
    n_moved = n_bytes = 0
    for i in range(-3, options.rounds):  # the first three warm up
        records = partitions.changes(i % options.partitions, n_changed)
        bare = floor(model.centroids, records, n_changed)
        gc.collect()
        gc.disable()
        began = time.perf_counter()
        totals.fold(records)
        folded = time.perf_counter()
        found = rule.propose(model, totals, i)
        revised = time.perf_counter()
        assert found is not None
        outgoing = model_records(found, "model", previous=model)
        encoded = time.perf_counter()
        bare()
        ended = time.perf_counter()
        gc.enable()
        rule.published(found)
        model = found
        if i >= 0:
            n_moved += len(outgoing) - 2
            n_bytes += sum(len(out.value or b"") for out in outgoing)
            for name, seconds in (
                ("fold", folded - began), ("revise", revised - folded),
                ("encode", encoded - revised), ("all", encoded - began), ("floor", ended - encoded),
            ):  # fmt: skip
                times[name].append(seconds * 1e3)
    return times, n_moved // options.rounds, n_bytes / options.rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--dims", type=int, default=1024)
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--changed", type=int, nargs="+", default=[1, 2, 100, 500])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    about = machine()
    print(describe(about))
    print(
        f"K={options.clusters}, d={options.dims}, {options.partitions} partitions, "
        f"{options.rounds} rounds; milliseconds, median (quartiles)"
    )
    figures = {}
    for n_changed in options.changed:
        times, n_moved, n_bytes = measure(options, n_changed)
        found = {name: quartiles(taken) for name, taken in times.items()}
        ratios = quartiles([a / b for a, b in zip(times["all"], times["floor"], strict=True)])
        print(
            f"\n{n_changed} rows changed, {n_moved} centroids moved, {n_bytes / 1e6:.2f} MB written"
        )
        for name, figure in found.items():
            print(f"  {name:<8} {said(figure, '.2f'):>26}")
        print(f"  all / floor {said(ratios, '.1f'):>23}")
        if n_changed == 100:
            verdict = "met" if found["all"]["q3"] <= TARGET_MS else "missed"
            print(f"  target: {TARGET_MS} ms at the upper quartile: {verdict}")
        key = f"d={options.dims} K={options.clusters} changed={n_changed}"
        figures[key] = {**found, "times_floor": ratios}
    print(f"\nwritten to {write_results('revision', figures, about)}")


if __name__ == "__main__":
    main()
