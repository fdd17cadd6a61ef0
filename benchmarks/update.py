"""Microseconds a changed record: assign, statistics, state; beside scikit-learn's `partial_fit`.

What an engine does with a batch of records whose vectors changed: finds the nearest centroid and
the runner-up of each, takes the old vector out of the statistics and puts the new one in, and
writes vector and label into the state. `MiniBatchKMeans.partial_fit` finds the nearest centroid in
float32 and moves the centroids; it keeps no state and never takes anything out. Since its centroids
have moved afterwards, Eddy stands there a second time with new centroids made and loaded after each
batch. Batches are the same for all, real edits of real embeddings.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from benchmarks import _environment
from benchmarks._contenders import Stage, stage
from benchmarks._environment import settle
from benchmarks._pairs import Contender, Row, measure, show, write
from benchmarks._vectors import centroids_of
from benchmarks._workload import make_workload
from pipeline.kernels.contract import Kernels, Points, Sums

TARGET = 3.0
MAX_COMPONENT = 4.0
N_BATCHES = 20
Batch = tuple[NDArray[np.intp], Points]


def parsed() -> Any:
    parser = _environment.options(__doc__)
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 1024])
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--members", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=4.0)
    return parser.parse_args()


class State:
    """Members of clusters, their statistics, and the centroids they are compared with."""

    def __init__(self, vectors: Points, centroids: Points, kernels: Kernels, *, follows: bool):
        self.kernels, self.follows = kernels, follows
        self.model = kernels.load(centroids)
        self.centroids = centroids.copy()
        self.vectors = vectors.copy()
        self.labels = kernels.assign(self.model, vectors).labels
        n_clusters, n_dims = centroids.shape
        self.sums = Sums.zeros(n_clusters, n_dims, max_component=MAX_COMPONENT)
        nobody = np.full(len(vectors), -1, np.int32)
        kernels.accumulate(self.sums, vectors, nobody, vectors, self.labels)

    def apply(self, batch: Batch) -> None:
        """One batch of records: rows that change, and what they become."""
        rows, new = batch
        found = self.kernels.assign(self.model, new, second=True)
        self.kernels.accumulate(self.sums, self.vectors[rows], self.labels[rows], new, found.labels)
        self.vectors[rows] = new
        self.labels[rows] = found.labels
        if self.follows:
            has = self.sums.counts > 0
            means = self.sums.sums[has] * (self.sums.unit / self.sums.counts[has, None])
            self.centroids[has] = means
            self.model = self.kernels.load(self.centroids)

    def check(self) -> None:
        """The statistics are those of the members, to the last unit."""
        fresh = Sums.zeros(*self.centroids.shape, max_component=MAX_COMPONENT)
        nobody = np.full(len(self.vectors), -1, np.int32)
        self.kernels.accumulate(fresh, self.vectors, nobody, self.vectors, self.labels)
        assert (fresh.sums == self.sums.sums).all(), "the sums are not those of the members"
        assert (fresh.counts == self.sums.counts).all(), "nor are the counts"


def in_turn(batches: list[Batch], apply: Callable[[Batch], Any]) -> Callable[[], None]:
    """All of the batches, one after the other."""

    def call() -> None:
        for batch in batches:
            apply(batch)

    return call


def run(n_dims: int, ready: Stage, options: Any) -> list[Row]:
    """One table."""
    rng = np.random.default_rng([options.seed, 12])
    vectors = ready.vectors.sample(options.members, n_dims)
    centroids = centroids_of(vectors, options.clusters, options.seed)
    edits = make_workload(1, n_dims, options.seed).edits
    batches: list[Batch] = []
    for _ in range(N_BATCHES // 2):  # there and back again, so that every turn finds changes
        rows = rng.choice(len(vectors), min(options.batch, len(vectors)), replace=False)
        new = vectors[rows] + edits[rng.integers(len(edits), size=len(rows))]
        batches += [(rows, np.ascontiguousarray(new)), (rows, vectors[rows])]
    state = State(vectors, centroids, ready.kernels, follows=False)
    following = State(vectors, centroids, ready.kernels, follows=True)
    peer = MiniBatchKMeans(options.clusters, init=centroids, n_init=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer.partial_fit(vectors)
    everybody = [
        Contender("eddy", in_turn(batches, state.apply), is_ours=True),
        Contender("eddy, new centroids", in_turn(batches, following.apply), is_ours=True),
        Contender(
            "scikit-learn, partial_fit",
            in_turn(batches, lambda batch: peer.partial_fit(batch[1])),
            is_fair=True,
        ),
    ]
    rounds = measure(
        everybody, threads=options.threads, rng=rng,
        min_rounds=options.rounds, seconds=options.seconds,
    )  # fmt: skip
    for one in (state, following):
        one.check()
    n_records = N_BATCHES * len(batches[0][0])
    cell = f"d = {n_dims}, K = {options.clusters}, batches of {len(batches[0][0])}"
    return [
        Row.of(
            cell, one.name, rounds, scale=1e6 / n_records, unit="µs a record",
            beside={"core-µs a record": f"{np.median(rounds.cpu[one.name]) * 1e6 / n_records:.3g}"},
            target=TARGET if one.name == "eddy" else None,
        )
        for one in everybody
    ]  # fmt: skip


def main() -> int:
    options = parsed()
    settle(options.isa, "update")
    ready = stage(options)
    print("× is speed beside partial_fit")
    rows: list[Row] = []
    for n_dims in options.dims:
        rows += (new := run(n_dims, ready, options))
        show(new)
    write("update", rows, ready.told, scratch=options.scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
