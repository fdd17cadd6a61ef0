"""Who is where: the members of one input partition, and what their clusters add up to.

Everything here changes only after the transaction that says so was committed, and
everything here can be read back from the topics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.clustering.proofs import UNPROVEN
from pipeline.kernels.contract import Sums, Weights
from pipeline.state.rows import Rows
from pipeline.state.successors import Successors

Metadata = dict[str, Any]


class Ghost(NamedTuple):
    """An item with an assignment but without a row: compaction took the row.

    It keeps its label for the next event's ``from``, counts in no sum and is never swept.
    """

    label: int
    offset: int  # of its last record in the input
    is_kept: bool  # whether a vector of it stands in `item-vectors`
    is_behind: bool = False  # it stood by a vector of an embedding model that stands no more


class Members(Rows):
    """The items of a partition that are in a cluster, one row each."""

    columns = (
        "vectors", "labels", "proofs", "sequences", "offsets", "kept", "timestamps", "weights",
    )  # fmt: skip

    def __init__(self, n_dims: int, *, dtype: DTypeLike = np.float32) -> None:
        super().__init__(n_dims, dtype=dtype)
        self.labels: NDArray[np.int32] = np.empty(0, np.int32)
        self.proofs: NDArray[np.float64] = np.empty(0, np.float64)
        """A label is proven while this is above its drift (:mod:`pipeline.clustering.proofs`);
        -inf: not proven; NaN: a free row."""
        self.sequences: NDArray[np.uint64] = np.empty(0, np.uint64)
        """The producer's version of the item; 0: none."""
        self.offsets: NDArray[np.int64] = np.empty(0, np.int64)
        """Of the record that counts, in the input."""
        self.kept: NDArray[np.bool_] = np.empty(0, np.bool_)
        """Whether the vector stands in `item-vectors`."""
        self.timestamps: NDArray[np.int64] = np.empty(0, np.int64)
        """Of the record that counts, milliseconds since 1970; -1: it had none."""
        self.weights: Weights = np.empty(0)
        """What the row was counted with, so what is to be subtracted, whatever the landmark is by
        now; says nothing where the sums have no weights."""
        self.metadata: dict[bytes, Metadata] = {}
        """Of the items whose record had some, the keys that events show."""
        self.ghosts: dict[bytes, Ghost] = {}

    @property
    def n_items(self) -> int:
        """Items that have an assignment, ghosts included."""
        return len(self) + len(self.ghosts)

    def remove(self, keys: Iterable[bytes]) -> NDArray[np.intp]:
        """Forget items that are there; a free row holds no label that could go out of range."""
        rows = super().remove(keys)
        self.labels[rows] = 0
        self.proofs[rows] = np.nan
        return rows

    def unprove(self) -> None:
        """Take every proof back: no label was compared with the centroids that there are now."""
        self.proofs[: self.n_rows] = UNPROVEN
        self.proofs[self._ids.free] = np.nan

    def unproven(self, span: range, drift: NDArray[np.float64]) -> NDArray[np.intp]:
        """The rows of a span, ascending, whose label the centroids may have drifted away from.

        ``drift`` (n_labels,) is that of every label; free rows are never among them.
        """
        rows = slice(span.start, span.stop)
        return np.flatnonzero(self.proofs[rows] <= drift[self.labels[rows]]) + span.start


@dataclass(slots=True, eq=False)
class Traffic:
    """What landed since this owner began; counted from 0 by every owner."""

    since: int
    n_records: int = 0
    n_reassigned: int = 0
    landed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    distances: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    distances_squared: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


class Version(NamedTuple):
    """Which model: a new fit is an epoch, a small move inside it a revision."""

    epoch: int
    revision: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.revision}"


@dataclass(slots=True, eq=False)
class PartitionState:
    """All that a process remembers of one partition that it owns.

    Arrays by label have one entry for each cluster of the engine's table, which holds the
    clusters of the model and then the retired ones that still have members.

    Invariant: ``sums.counts.sum() == len(members)``, and every row of ``sums`` equals what
    its members add up to, each with its weight where the model has forgetting.
    """

    partition: int
    members: Members
    sums: Sums
    traffic: Traffic
    next_offset: int
    """The first offset of the input that is not applied yet."""
    dirty: NDArray[np.bool_]
    """(n_labels,) clusters whose published statistics are not these any more."""
    swept_to: Version | None = None
    """The newest model whose sweep is done here."""
    to_sweep: tuple[range, ...] = (range(0),)
    """Rows that the sweep has yet to look at, in this order; none when it is done."""
    n_unpublished: int = 0
    """Changes of members since the statistics were last published."""
    head_is_due: bool = True
    """Whether the published head does not say what is true now."""
    published: set[str] = field(default_factory=set)
    """Clusters that have a row in `cluster-stats`."""
    ghosts_until: int = 0
    """Where the input ended at the restore: a ghost still there beyond it is lost."""
    are_ghosts_settled: bool = False
    """Whether those that were to be lost are: what is left has a vector of the next model."""
    successors: Successors | None = None
    """The second set, while another embedding model is on its way; None: none is."""
    arrivals: Successors | None = None
    """What is left of it, once that model has taken over; None: all have arrived."""
    n_unassigned: int = 0
    """How many of the arrivals have no assignment."""
    embedding_since: int | None = None
    """The epoch with which the embedding model took over by which all members stand; None: there
    was no other, or they have not all arrived."""

    @property
    def sweep_pending(self) -> int:
        """Rows that the sweep has yet to look at."""
        n_rows = sum(len(span) for span in self.to_sweep)
        return n_rows if self.arrivals is None else n_rows + len(self.arrivals)

    @property
    def n_items(self) -> int:
        """Items that have an assignment, or are about to get one."""
        return self.members.n_items + self.n_unassigned

    @property
    def may_lose_ghosts(self) -> bool:
        """Whether ghosts are to be removed, once their next record should have come.

        And what strays in `item-vectors` for the same reason.
        """
        if self.arrivals is not None or self.are_ghosts_settled:
            return False
        has_strays = self.successors is not None and bool(self.successors.strays)
        return bool(self.members.ghosts) or has_strays

    def await_arrivals(self, arrivals: Successors) -> None:
        """Let items of another embedding model arrive; ghosts are lost after that."""
        ghosts = self.members.ghosts
        self.arrivals, self.embedding_since = arrivals, None
        self.n_unassigned = sum(key not in ghosts for key in arrivals)
        self.are_ghosts_settled = False
        self.swept_to = None

    def n_unproven(self, drift: NDArray[np.float64]) -> int:
        """How many of them need another look; a pass over two numbers of each."""
        return sum(len(self.members.unproven(span, drift)) for span in self.to_sweep)

    def has_swept(self, epoch: int) -> bool:
        """Whether every label is one of this epoch, though a revision may be on its way."""
        return self.swept_to is not None and self.swept_to.epoch == epoch

    def begin_sweep(self) -> None:
        """Go round once from where the sweep is; rows still to come need no look.

        What is written from now on is assigned by the newest model already.
        """
        at, n_rows = self.to_sweep[0].start if self.to_sweep else 0, self.members.n_rows
        self.to_sweep = tuple(span for span in (range(at, n_rows), range(at)) if span)
        self.to_sweep = self.to_sweep or (range(0),)  # one slice says that it is done

    def relabel(self, new_labels: NDArray[np.int32], n_labels: int) -> None:
        """Move every array from the old table of labels to a new one.

        ``new_labels[old]`` is where a label stands in the new table, -1 where it is gone,
        which only a cluster without members may be.
        """
        members, sums, traffic = self.members, self.sums, self.traffic
        kept = np.flatnonzero(new_labels >= 0)
        to = new_labels[kept]
        assert not np.delete(sums.counts, kept).any(), "a cluster with members lost its label"

        members.labels[: members.n_rows] = new_labels[members.labels[: members.n_rows]]
        members.ghosts = {
            key: ghost._replace(label=int(new_labels[ghost.label]))
            for key, ghost in members.ghosts.items()
        }
        for owner, names in (
            (sums, sums.arrays),
            (traffic, ("landed", "distances", "distances_squared")),
            (self, ("dirty",)),
        ):
            for name in names:
                old = getattr(owner, name)
                new = np.zeros((n_labels, *old.shape[1:]), old.dtype)
                new[to] = old[kept]
                setattr(owner, name, new)


def empty_partition(
    partition: int, members: Members, *, n_labels: int, max_component: float, next_offset: int
) -> PartitionState:
    """A partition that begins at ``next_offset``; its sums are those of no members."""
    traffic = Traffic(
        since=next_offset,
        landed=np.zeros(n_labels, np.int64),
        distances=np.zeros(n_labels),
        distances_squared=np.zeros(n_labels),
    )
    return PartitionState(
        partition=partition,
        members=members,
        sums=Sums.zeros(n_labels, members.vectors.shape[1], max_component=max_component),
        traffic=traffic,
        next_offset=next_offset,
        dirty=np.ones(n_labels, np.bool_),  # nobody knows what the last owner had still to say
    )


def write_members(
    members: Members,
    keys: Sequence[bytes],
    vectors: NDArray[np.float32],
    labels: NDArray[np.int32],
    proofs: NDArray[np.float64],
    sequences: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    kept: NDArray[np.bool_],
    timestamps: NDArray[np.int64],
    weights: Weights | None,
) -> None:
    """Put distinct items into rows; all arrays are parallel to ``keys``."""
    rows = members.put(keys)
    members.vectors[rows] = vectors
    members.labels[rows] = labels
    members.proofs[rows] = proofs
    members.sequences[rows] = sequences
    members.offsets[rows] = offsets
    members.kept[rows] = kept
    members.timestamps[rows] = timestamps
    if weights is not None:
        members.weights[rows] = weights
