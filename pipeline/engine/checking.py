"""What the state claims, held against what it must be: labels, counts, sums; some at random.

Nobody relies on this. It is here to find what nobody thought of: a kernel that is wrong on some
processor, memory that flips a bit, a slip in the proofs. So it shares nothing with the kernels:
distances are the canonical ones (:mod:`pipeline.kernels.contract`), written once more in numpy,
and integers are added up from the rows.

A label is claimed to be the nearest where the sweep has been, and where its proof stands
(:mod:`pipeline.clustering.proofs`); a row that the sweep has yet to look at may be anywhere.
Vectors are those that are held: of float16 what was rounded.

Every look is bounded, so that a caller can choose how much of its time it is worth. No clock, and
no other chance than the caller's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pipeline.engine.cluster_engine import ClusterEngine
from pipeline.kernels.contract import WEIGHT_UNIT, Sums
from pipeline.messages.halves import widened
from pipeline.state.members import PartitionState

EXACT_LABEL, COUNTS, SUMS = "exact_label", "counts", "sums"

MAX_TERMS = 2_500_000
"""Differences that one look may square: some 4 ms (Zen 5). A single label may take more."""
MAX_ADDED = 500_000
"""Components that one look may add up: as long."""
COUNTED_ROWS = 2**18
"""At a time: counting makes numbers of 8 bytes of them."""
LANES = 32
BLOCK_BYTES = 2**20
"""Of float64 at a time: 1.3 to 1.9 ns a difference; 1.8 to 4.4 in blocks of a quarter (Zen 5)."""
_LOW = np.int64(2**32 - 1)


class Violation(NamedTuple):
    """Something that cannot be."""

    invariant: str
    partition: int
    cluster_id: str
    """Where the item stands, or whose statistics are wrong."""
    expected: str | int
    found: str | int
    key: bytes | None = None
    """The item, where it is about one."""


class Look(NamedTuple):
    """What a look saw."""

    n_checked: int
    """Labels, members counted, or members added up."""
    violations: list[Violation]


NOTHING = Look(0, [])


def distances_squared(point: NDArray[Any], centroids: NDArray[Any]) -> NDArray[np.float64]:
    """Canonical squared distances of one point to all centroids.

    Parameters
    ----------
    point : (n_dims,) float32
    centroids : (n_clusters, n_dims) float32

    Returns
    -------
    (n_clusters,) float64
        Bit by bit those of the kernels.
    """
    n_clusters, n_dims = centroids.shape
    found = np.empty(n_clusters)
    wide, n_block = point.astype(np.float64), max(1, BLOCK_BYTES // (8 * n_dims))
    for start in range(0, n_clusters, n_block):
        gaps = centroids[start : start + n_block].astype(np.float64)
        gaps -= wide  # the sign is lost with the square
        found[start : start + n_block] = _lane_sums(np.multiply(gaps, gaps, out=gaps))
    return found


def _lane_sums(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row by row: 32 running sums in ascending order, folded in halves."""
    n_dims = terms.shape[1]
    sums = np.zeros((len(terms), LANES))
    for start in range(0, n_dims, LANES):
        part = terms[:, start : start + LANES]
        sums[:, : part.shape[1]] += part
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    found: NDArray[np.float64] = sums[:, 0]
    return found


# Labels


def check_labels(engine: ClusterEngine, rng: Generator, n_labels: int) -> Look:
    """Compare some members, drawn at random, with every centroid.

    Parameters
    ----------
    n_labels
        At most: fewer where `MAX_TERMS` says so, and where rows are free or yet to be swept.
    """
    states = [state for state in engine.partitions.values() if len(state.members)]
    if engine.version is None or not states:
        return NOTHING
    centroids = engine.loaded.model.centroids
    ends = np.cumsum([state.members.n_rows for state in states])
    drawn = rng.integers(int(ends[-1]), size=min(n_labels, max(1, MAX_TERMS // centroids.size)))
    at = np.searchsorted(ends, drawn, side="right")
    n_checked, violations = 0, []
    for i in np.unique(at).tolist():
        state = states[i]
        rows = drawn[at == i] - (ends[i] - state.members.n_rows)
        for row in rows[_are_claimed(state, rows, engine.drift)].tolist():
            n_checked += 1
            found = _check_label(engine, state, row, centroids)
            violations += [] if found is None else [found]
    return Look(n_checked, violations)


def _are_claimed(
    state: PartitionState, rows: NDArray[np.int64], drift: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether each row holds a member whose label is said to be that of the nearest centroid."""
    proofs, labels = state.members.proofs[rows], state.members.labels[rows]
    is_swept = np.ones(len(rows), np.bool_)
    for span in state.to_sweep:
        is_swept &= (rows < span.start) | (rows >= span.stop)
    is_proven = proofs > drift.take(labels, mode="clip")  # a label that is none is to be found
    claimed: NDArray[np.bool_] = (is_swept | is_proven) & ~np.isnan(proofs)  # NaN: a free row
    return claimed


def _check_label(
    engine: ClusterEngine, state: PartitionState, row: int, centroids: NDArray[np.float32]
) -> Violation | None:
    members = state.members
    (vector,) = widened(members.vectors[row : row + 1])
    nearest, label = int(distances_squared(vector, centroids).argmin()), int(members.labels[row])
    if nearest == label:
        return None
    stands = _cluster(engine, label)
    return Violation(
        EXACT_LABEL, state.partition, stands, engine.table.ids[nearest], stands, members.name(row)
    )


# Counts


def check_counts(engine: ClusterEngine, rng: Generator) -> Look:
    """Count the members of one partition, drawn at random, cluster by cluster."""
    state = _any_partition(engine, rng)
    if state is None:
        return NOTHING
    counts, members = state.sums.counts, state.members
    true = np.zeros_like(counts)
    for start in range(0, members.n_rows, COUNTED_ROWS):
        labels = members.labels[start : min(start + COUNTED_ROWS, members.n_rows)]
        is_there = ~np.isnan(members.proofs[start : start + len(labels)])  # NaN: a free row
        is_label = (labels >= 0) & (labels < len(counts))
        true += np.bincount(labels[is_there & is_label], minlength=len(counts))
    violations = [
        Violation(
            COUNTS, state.partition, _cluster(engine, label), int(true[label]), int(counts[label])
        )
        for label in np.flatnonzero(true != counts)[:1].tolist()  # one that is wrong is enough
    ]
    return Look(len(members), violations)


# Sums


def check_sums(engine: ClusterEngine, rng: Generator) -> Look:
    """Add up the members of one cluster, both drawn at random, as the statistics have them.

    Where it has more components than `MAX_ADDED`, some neighbouring dimensions of all its members.
    """
    state = _any_partition(engine, rng)
    if state is None:
        return NOTHING
    sums, members = state.sums, state.members
    label = int(rng.integers(len(sums.counts)))
    rows = np.flatnonzero(members.labels[: members.n_rows] == label)
    rows = rows[~np.isnan(members.proofs[rows])]
    n_dims = members.vectors.shape[1]
    width = min(n_dims, max(1, MAX_ADDED // max(len(rows), 1)))
    start = int(rng.integers(n_dims - width + 1))
    true = _added_up(
        sums,
        widened(members.vectors[rows, start : start + width]).astype(np.float64),
        None if sums.weights is None else members.weights[rows],
        is_whole=width == n_dims,
    )
    for name, value in true.items():
        first = start if name == "sums" else 0
        said = np.atleast_1d(getattr(sums, name)[label])[first : first + len(value)]
        wrong = np.flatnonzero(value != said)
        if len(wrong):
            at = int(wrong[0])
            place = f"{name}[{first + at}]"
            violation = Violation(
                SUMS, state.partition, _cluster(engine, label),
                f"{place} {value[at]}", f"{place} {said[at]}",
            )  # fmt: skip
            return Look(len(rows), [violation])
    return Look(len(rows), [])


def _added_up(
    sums: Sums, vectors: NDArray[np.float64], weights: NDArray[np.float64] | None, *, is_whole: bool
) -> dict[str, NDArray[np.int64]]:
    """The words of `Sums` for these members; of the squares only where a row is whole."""
    found: dict[str, NDArray[np.int64]] = {}
    squares = _lane_sums(np.square(vectors)) if is_whole else None
    if weights is not None:
        found["weights"] = _integers(weights / WEIGHT_UNIT).sum(keepdims=True)
        vectors *= weights[:, None]
        squares = None if squares is None else squares * weights
    if squares is not None:
        units = _integers(squares / sums.square_unit)
        found["squares"] = np.array([(units >> 32).sum(), (units & _LOW).sum()])
    found["sums"] = _integers(vectors / sums.unit).sum(axis=0)
    return found


def _integers(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The nearest ones; halves to even."""
    return np.rint(values).astype(np.int64)


# What they share


def _any_partition(engine: ClusterEngine, rng: Generator) -> PartitionState | None:
    """One that has members."""
    states = [state for state in engine.partitions.values() if len(state.members)]
    return states[rng.integers(len(states))] if states else None


def _cluster(engine: ClusterEngine, label: int) -> str:
    ids = engine.table.ids
    return ids[label] if 0 <= label < len(ids) else f"label {label}"
