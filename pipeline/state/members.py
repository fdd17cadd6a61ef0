"""Who is where: the members of one input partition, and what their clusters add up to.

Everything here changes only after the transaction that says so was committed, and
everything here can be read back from the topics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.contract import Sums
from pipeline.state.rows import Rows

Metadata = dict[str, Any]


class Ghost(NamedTuple):
    """An item with an assignment but without a row: compaction took the row.

    It keeps its label for the next event's ``from``, counts in no sum and is never swept.
    """

    label: int
    offset: int  # of its last record in the input
    is_kept: bool  # whether a vector of it stands in `item-vectors`


class Members(Rows):
    """The items of a partition that are in a cluster, one row each."""

    columns = ("vectors", "labels", "sequences", "offsets", "kept")

    def __init__(self, n_dims: int) -> None:
        super().__init__(n_dims)
        self.labels: NDArray[np.int32] = np.empty(0, np.int32)
        self.sequences: NDArray[np.uint64] = np.empty(0, np.uint64)
        """The producer's version of the item; 0: none."""
        self.offsets: NDArray[np.int64] = np.empty(0, np.int64)
        """Of the record that counts, in the input."""
        self.kept: NDArray[np.bool_] = np.empty(0, np.bool_)
        """Whether the vector stands in `item-vectors`."""
        self.metadata: dict[bytes, Metadata] = {}
        """Of the items whose record had some, the keys that events show."""
        self.ghosts: dict[bytes, Ghost] = {}

    @property
    def n_items(self) -> int:
        """Items that have an assignment, ghosts included."""
        return len(self.of) + len(self.ghosts)


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
    its members add up to.
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
    sweep_row: int | None = 0
    """Where the sweep goes on; None when it is done."""
    n_unpublished: int = 0
    """Changes of members since the statistics were last published."""
    head_is_due: bool = True
    """Whether the published head does not say what is true now."""
    published: set[str] = field(default_factory=set)
    """Clusters that have a row in `cluster-stats`."""
    ghosts_until: int = 0
    """Where the input ended at the restore: a ghost still there beyond it is lost."""

    @property
    def sweep_pending(self) -> int:
        """Rows that the sweep has yet to look at."""
        return 0 if self.sweep_row is None else self.members.n_rows - self.sweep_row

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
            (sums, ("counts", "sums", "squares")),
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
    sequences: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> None:
    """Put distinct items into rows; all arrays are parallel to ``keys``."""
    rows = members.put(keys)
    members.vectors[rows] = vectors
    members.labels[rows] = labels
    members.sequences[rows] = sequences
    members.offsets[rows] = offsets
    members.kept[rows] = kept
