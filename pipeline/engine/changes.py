"""What a transaction says to the world, and what it will do to the state.

A change is made by looking at the state and leaving it as it is; `install` makes it
real, and is called when the transaction was committed, and not before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.events import Step
from pipeline.errors import Reason
from pipeline.kernels.contract import Kernels, Labels, Points, Weights
from pipeline.messages.halves import widened
from pipeline.messages.records import Outgoing
from pipeline.state.members import Metadata, PartitionState, Version, write_members


class Change(Protocol):
    """What will happen to one partition."""

    partition: int

    def install(self, state: PartitionState, kernels: Kernels) -> None: ...


@dataclass(slots=True)
class Tally:
    """What a transaction did, in numbers: for metrics and the log."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(op, outcome): (upsert, assigned), (tombstone, removed), ..."""
    dead: Counter[Reason] = field(default_factory=Counter)
    first_dead: dict[Reason, bytes | None] = field(default_factory=dict)
    """The key of the first dead letter of a reason: for one log line each."""
    n_events: int = 0
    n_reassigned_by_model: int = 0
    n_checked: int = 0
    """Members that a slice of a sweep held against the model."""
    confidences: list[float] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Changes:
    """One transaction: what goes out in it, and what comes into the state after it."""

    outgoing: list[Outgoing]
    partitions: list[Change]
    next_offsets: dict[int, int]
    tally: Tally = field(default_factory=Tally)
    written: list[tuple[int, Sequence[Step]]] = field(default_factory=list)
    """Where in ``outgoing`` events of records begin, and which steps they tell of."""


@dataclass(slots=True, eq=False)
class Applied:
    """A micro-batch, folded: what each item that was touched is afterwards."""

    partition: int
    next_offset: int
    keys: list[bytes]
    """(n,) distinct items that have a new vector."""
    vectors: Points  # (n, n_dims)
    labels: Labels  # (n,)
    proofs: NDArray[np.float64]  # (n,)
    sequences: NDArray[np.uint64]  # (n,)
    offsets: NDArray[np.int64]  # (n,)
    kept: NDArray[np.bool_]  # (n,)
    timestamps: NDArray[np.int64]  # (n,) milliseconds; -1: none
    weights: Weights | None  # (n,); None: the model has no forgetting
    old_rows: NDArray[np.intp]
    """(n,) where the item stood before; -1: nowhere."""
    removed: list[bytes]
    """Items that had a row and have none now."""
    ghosts_gone: list[bytes]
    kept_anew: list[bytes]
    """Items that stay as they are, but whose vector stands in `item-vectors` from now on."""
    metadata: dict[bytes, Metadata | None]
    landed: NDArray[np.int32]
    """Labels of all records that landed, also those overtaken in the same batch."""
    landed_squared: NDArray[np.float64]
    n_records: int
    n_reassigned: int

    def install(self, state: PartitionState, kernels: Kernels) -> None:
        members = state.members
        removed_rows = members.rows_of(self.removed)
        self._fold(state, kernels, removed_rows)
        self._count(state)

        members.remove(self.removed)
        for key in self.ghosts_gone:
            del members.ghosts[key]
        if self.kept_anew:
            members.kept[members.rows_of(self.kept_anew)] = True
        if self.keys:
            write_members(
                members, self.keys, self.vectors, self.labels, self.proofs,
                self.sequences, self.offsets, self.kept, self.timestamps, self.weights,
            )  # fmt: skip
        for key, metadata in self.metadata.items():
            if metadata is None:
                members.metadata.pop(key, None)
            else:
                members.metadata[key] = metadata
        state.next_offset = self.next_offset
        state.head_is_due = True

    def _fold(self, state: PartitionState, kernels: Kernels, removed: NDArray[np.intp]) -> None:
        members = state.members
        old_labels = np.where(self.old_rows >= 0, _take(members.labels, self.old_rows), -1)
        if self.keys:
            is_weighted = self.weights is not None
            kernels.accumulate(
                state.sums,
                widened(_take(members.vectors, self.old_rows)),
                old_labels.astype(np.int32),
                self.vectors,
                self.labels,
                old_weights=_take(members.weights, self.old_rows) if is_weighted else None,
                new_weights=self.weights,
            )
        if self.removed:
            gone = widened(members.vectors[removed])
            nowhere = np.full(len(gone), -1, np.int32)
            weights = None if self.weights is None else members.weights[removed]
            kernels.accumulate(
                state.sums, gone, members.labels[removed], gone, nowhere,
                old_weights=weights, new_weights=weights,
            )  # fmt: skip
        touched = np.concatenate([old_labels, self.labels, members.labels[removed]])
        state.dirty[touched[touched >= 0]] = True
        state.n_unpublished += len(self.keys) + len(self.removed)

    def _count(self, state: PartitionState) -> None:
        traffic, n_labels = state.traffic, len(state.sums.counts)
        traffic.n_records += self.n_records
        traffic.n_reassigned += self.n_reassigned
        distances = np.sqrt(self.landed_squared)
        traffic.landed += np.bincount(self.landed, minlength=n_labels)
        traffic.distances += np.bincount(self.landed, distances, n_labels)
        traffic.distances_squared += np.bincount(self.landed, self.landed_squared, n_labels)


@dataclass(slots=True, eq=False)
class Swept:
    """A slice of members, held against the newest model."""

    partition: int
    rows: NDArray[np.intp]  # (n,) those that were compared with the centroids
    labels: Labels  # (n,)
    proofs: NDArray[np.float64]  # (n,)
    recounted: NDArray[np.intp]
    """Which of them change their label, or under a new landmark their weight."""
    weights: Weights | None
    """(n,) under the newest model; None: it has no forgetting."""
    to_sweep: tuple[range, ...]
    """What is left of the sweep."""
    swept_to: Version

    def install(self, state: PartitionState, kernels: Kernels) -> None:
        members = state.members
        if len(self.recounted):
            rows, new = self.rows[self.recounted], self.labels[self.recounted]
            vectors, old = widened(members.vectors[rows]), members.labels[rows]
            old_weights = new_weights = None
            if self.weights is not None:
                old_weights, new_weights = members.weights[rows], self.weights[self.recounted]
                members.weights[rows] = new_weights
            kernels.accumulate(
                state.sums, vectors, old, vectors, new,
                old_weights=old_weights, new_weights=new_weights,
            )  # fmt: skip
            state.dirty[old] = True
            state.dirty[new] = True
            members.labels[rows] = new
            state.n_unpublished += len(rows)
        members.proofs[self.rows] = self.proofs
        state.to_sweep = self.to_sweep
        if not self.to_sweep:
            state.swept_to = self.swept_to
            state.head_is_due = True


@dataclass(slots=True, eq=False)
class Published:
    """The statistics of dirty clusters went out, and the head behind them."""

    partition: int
    written: Sequence[str]
    nulled: Sequence[str]

    def install(self, state: PartitionState, kernels: Kernels) -> None:
        if self.written or self.nulled:
            state.dirty[:] = False
            state.n_unpublished = 0
        state.published.update(self.written)
        state.published.difference_update(self.nulled)
        state.head_is_due = False


@dataclass(slots=True, eq=False)
class Lost:
    """Ghosts whose next record never came."""

    partition: int
    keys: list[bytes]
    is_last: bool
    strays: list[bytes]
    """Items whose vector of the next embedding model counts no more."""

    def install(self, state: PartitionState, kernels: Kernels) -> None:
        for key in self.keys:
            del state.members.ghosts[key]
            state.members.metadata.pop(key, None)
        if state.successors is not None:
            state.successors.strays.difference_update(self.strays)
        state.are_ghosts_settled = self.is_last
        state.head_is_due = True


_T = TypeVar("_T", bound=np.generic)


def _take(column: NDArray[_T], rows: NDArray[np.intp]) -> NDArray[_T]:
    """Rows of a column; what stands at -1 is not read by anybody."""
    if not len(column):
        return np.zeros((len(rows), *column.shape[1:]), column.dtype)
    return column[rows]
