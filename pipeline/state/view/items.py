"""Which item is where, as the server knows it: folded from the assignments, found by id or cluster.

Beside the index of ids an item takes 36 bytes of columns, with vectors four bytes a dimension, and
what its metadata takes (`pipeline.state.view.metadata`).
There is no list of members: those of a cluster are found by one pass over the column of
clusters, which for a million items takes a third of a millisecond and nothing to keep in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RecordError
from pipeline.messages.codec import AssignmentRow, decode_assignment
from pipeline.messages.records import Record
from pipeline.state.rows import PackedKeys, Rows
from pipeline.state.view.metadata import Conditions, MetadataTable

NOWHERE = 0
"""The number of no cluster: of a row that is free."""
NO_VECTOR = -1
COPIED = -2
"""In place of a vector's offset: it is the copy beside the input, of which no offset is told."""
NAMES_AT_ONCE = 65_536
"""Ids that a snapshot copies in one call, in which nothing else is done."""
_STORED = (
    "clusters", "distances", "partitions", "offsets", "epochs", "revisions", "vector_offsets",
)  # fmt: skip


class ClusterNames:
    """Cluster ids as numbers from 1 on; a number is for the life of the view."""

    def __init__(self) -> None:
        self._ids = [""]
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        """Numbers given out, `NOWHERE` among them."""
        return len(self._ids)

    def number(self, cluster: str) -> int:
        """Its number, a new one if it has none."""
        found = self._numbers.get(cluster)
        if found is None:
            found = self._numbers[cluster] = len(self._ids)
            self._ids.append(cluster)
        return found

    def find(self, cluster: str) -> int:
        """Its number; `NOWHERE` if nobody has named it."""
        return self._numbers.get(cluster, NOWHERE)

    def id(self, number: int) -> str | None:
        """The cluster of a number; None of `NOWHERE`."""
        return self._ids[number] or None


class Place(NamedTuple):
    """Where an item is."""

    item: bytes
    cluster: str
    distance: float
    epoch: int
    revision: int
    partition: int
    offset: int
    """With ``partition``: the record that put it there."""


class Items(Rows):
    """The items of all partitions.

    Parameters
    ----------
    n_dims
        Of the vectors; 0: none are kept.
    """

    columns = (
        "vectors", "clusters", "distances", "partitions", "offsets", "epochs", "revisions",
        "vector_offsets",
    )  # fmt: skip

    def __init__(self, n_dims: int, names: ClusterNames) -> None:
        super().__init__(n_dims)
        self.cluster_names = names
        self.clusters: NDArray[np.int32] = np.empty(0, np.int32)  # numbers; NOWHERE: free
        self.distances: NDArray[np.float32] = np.empty(0, np.float32)  # as told, of that moment
        self.partitions: NDArray[np.int32] = np.empty(0, np.int32)
        self.offsets: NDArray[np.int64] = np.empty(0, np.int64)  # of the record that counts
        self.epochs: NDArray[np.int32] = np.empty(0, np.int32)
        self.revisions: NDArray[np.int32] = np.empty(0, np.int32)
        self.vector_offsets: NDArray[np.int64] = np.empty(0, np.int64)
        """Of the record that the vector is from; `NO_VECTOR`, `COPIED`."""
        self.next_offsets: dict[int, int] = {}
        """Partition -> the offset after the newest record that any assignment names."""
        self.metadata = MetadataTable()
        """Of rows, where vectors are kept: it comes with them."""
        self.n_ignored = 0
        self._counts = np.zeros(64, np.int64)

    def fold(self, records: Sequence[Record]) -> None:
        """Take the next assignments in, in offset order of each partition."""
        latest = {record.key: record.value for record in records if record.key is not None}
        gone = [key for key, value in latest.items() if value is None and key in self]
        keys, told = self._decoded(latest)
        self._remove(gone)
        if keys:
            self._put(keys, told)

    def count(self, cluster: str) -> int:
        """Members of a cluster."""
        number = self.cluster_names.find(cluster)
        return int(self._counts[number]) if number < len(self._counts) else 0

    def counts(self, clusters: Sequence[str]) -> NDArray[np.int64]:
        """(n_clusters,) members of each."""
        find = self.cluster_names.find
        return self.sizes(np.array([find(cluster) for cluster in clusters], np.intp))

    def sizes(self, numbers: NDArray[np.intp]) -> NDArray[np.int64]:
        """(n,) members of each of the clusters of some numbers."""
        found = np.zeros(len(numbers), np.int64)
        is_known = numbers < len(self._counts)
        found[is_known] = self._counts[numbers[is_known]]
        return found

    def place(self, row: int) -> Place:
        """Where the item of an occupied row is."""
        cluster = self.cluster_names.id(int(self.clusters[row]))
        assert cluster is not None, "a free row is no place"
        return Place(
            self.name(row), cluster, float(self.distances[row]), int(self.epochs[row]),
            int(self.revisions[row]), int(self.partitions[row]), int(self.offsets[row]),
        )  # fmt: skip

    def members(self, cluster: str) -> NDArray[np.intp]:
        """The rows of a cluster's members, ascending."""
        number = self.cluster_names.find(cluster)
        if number == NOWHERE:
            return np.empty(0, np.intp)
        return np.flatnonzero(self.clusters[: self.n_rows] == number)

    def by_distance(
        self,
        cluster: str,
        limit: int,
        after: tuple[float, bytes] | None,
        rows: NDArray[np.intp] | None = None,
        *,
        farthest: bool = False,
    ) -> list[tuple[float, bytes, int]]:
        """The next members by (distance, id): the nearest first, with their rows.

        Parameters
        ----------
        after
            What a page before ended with: only members behind it.
        rows
            Only these of its members.
        farthest
            The farthest first; of equals the smaller id, as otherwise.
        """
        rows = self.members(cluster) if rows is None else rows
        sign = np.float32(-1.0 if farthest else 1.0)
        distances = sign * self.distances[rows]
        if after is not None:
            after = float(sign) * after[0], after[1]
            behind = distances >= np.float32(after[0])
            rows, distances = rows[behind], distances[behind]
        # equal distances are ordered by id, and one of them may be the mark: so one pass may not
        # bring enough, and the next takes twice as many
        wanted = limit + 1
        while True:
            chosen, ranks = rows, distances
            if wanted < len(rows):
                is_near = distances <= np.partition(distances, wanted)[wanted]
                chosen, ranks = rows[is_near], distances[is_near]
            found = sorted(zip(ranks.tolist(), self.names(chosen), chosen.tolist(), strict=True))
            if after is not None:
                found = [one for one in found if one[:2] > after]
            if len(found) >= limit or len(chosen) == len(rows):
                return [(float(sign) * rank, key, row) for rank, key, row in found[:limit]]
            wanted *= 2

    def by_id(
        self, cluster: str, limit: int, after: bytes | None, rows: NDArray[np.intp] | None = None
    ) -> list[tuple[float, bytes, int]]:
        """The next members by id, likewise."""
        listed = (self.members(cluster) if rows is None else rows).tolist()
        named = sorted(zip(self.names(listed), listed, strict=True))
        if after is not None:
            named = [one for one in named if one[0] > after]
        return [(float(self.distances[row]), key, row) for key, row in named[:limit]]

    def where(
        self, conditions: Conditions, rows: NDArray[np.intp] | None = None
    ) -> NDArray[np.intp]:
        """Those of the rows, or of all that hold an item, whose metadata fits; ascending."""
        fits = self.metadata.fits(conditions, self.n_rows)
        if rows is None:
            return np.flatnonzero(fits & (self.clusters[: self.n_rows] != NOWHERE))
        return rows[fits[rows]]

    def exemplars(self) -> dict[str, bytes]:
        """The nearest member of every cluster that has one, of equals the smallest id."""
        n = self.n_rows
        clusters, distances = self.clusters[:n], self.distances[:n]
        nearest = np.full(len(self.cluster_names), np.inf, np.float32)
        np.minimum.at(nearest, clusters, distances)
        nearest[NOWHERE] = -1.0
        rows = np.flatnonzero(distances == nearest[clusters])
        numbers = clusters[rows].tolist()
        found: dict[int, bytes] = {}
        for number, key in zip(numbers, self.names(rows.tolist()), strict=True):
            found[number] = min(key, found.get(number, key))
        return {self.cluster_names.id(number) or "": key for number, key in found.items()}

    # --- vectors ------------------------------------------------------------------------------

    def has_vector(self, rows: NDArray[np.intp] | None = None) -> NDArray[np.bool_]:
        """(n,) whether rows hold an item and its vector; None: all rows ever used."""
        at: Any = slice(self.n_rows) if rows is None else rows
        offsets = self.vector_offsets[at]
        known: NDArray[np.bool_] = (offsets == self.offsets[at]) | (offsets == COPIED)
        known &= self.clusters[at] != NOWHERE
        return known

    def wants(self, key: bytes, partition: int, offset: int) -> bool:
        """Whether the vector of this record counts, and is not there."""
        row = self.find(key)
        return row >= 0 and bool(
            self.offsets[row] == offset
            and self.partitions[row] == partition
            and self.vector_offsets[row] != offset
        )

    def give(
        self, keys: Sequence[bytes], vectors: NDArray[np.float32], *, are_copies: bool
    ) -> NDArray[np.intp]:
        """Keep vectors of known, distinct items; the rows that they went to.

        A copy is taken only where the record's own is not there.
        """
        rows = self.find_all(keys)
        if are_copies:
            lacks = self.vector_offsets[rows] != self.offsets[rows]
            rows, vectors = rows[lacks], vectors[lacks]
        self.vectors[rows] = vectors
        self.vector_offsets[rows] = COPIED if are_copies else self.offsets[rows]
        return rows

    def forget_vectors(self, n_dims: int) -> None:
        """Keep none of those there are; from now on they have so many dimensions."""
        self.vectors = np.zeros((len(self.clusters), n_dims), np.float32)
        self.vector_offsets[:] = NO_VECTOR
        self.metadata = MetadataTable()

    @property
    def state_bytes(self) -> int:
        """What all of it takes."""
        columns: Iterator[NDArray[Any]] = (getattr(self, name) for name in self.columns)
        return sum(column.nbytes for column in columns) + self.id_bytes + self.metadata.n_bytes

    # --- snapshots ----------------------------------------------------------------------------

    def parts(self) -> tuple[NDArray[np.intp], dict[str, Any]]:
        """All of it, copied, as of a table without free rows; but no vectors.

        Returns
        -------
        tuple
            The rows that are 0, 1, ... there; what they hold.
        """
        rows = self.occupied()
        at: Any = slice(0, len(rows)) if len(rows) == self.n_rows else rows
        told: dict[str, Any] = {name: getattr(self, name)[at].copy() for name in _STORED}
        told["next"] = [*self.next_offsets.items()]
        for start in range(0, len(rows), NAMES_AT_ONCE):
            names = self.packed_names(rows[start : start + NAMES_AT_ONCE])
            told |= {f"names.{start}": names.blob, f"ends.{start}": names.ends}
        return rows, told

    def resume(self, parts: Mapping[str, Any]) -> None:
        """Become what `parts` told; only where there are no items. Vectors are filled in after."""
        n = len(parts["clusters"])
        self.reserve(n)
        for start in range(0, n, NAMES_AT_ONCE):
            blob, ends = parts[f"names.{start}"], parts[f"ends.{start}"]
            if (np.diff(ends, prepend=0) < 0).any() or ends[-1] != len(blob):
                raise ValueError("ids that are not as long as they say")
            self.put_packed(PackedKeys(blob, ends))
        clusters = parts["clusters"]
        if len(self) != n or self.n_rows != n:
            raise ValueError(f"{len(self)} ids of {n} items")
        if n and not 0 < clusters.min() <= clusters.max() < len(self.cluster_names):
            raise ValueError("an item of no cluster")
        for name in _STORED:
            getattr(self, name)[:n] = parts[name]
        self._counts = np.bincount(clusters, minlength=len(self.cluster_names)).astype(np.int64)
        self.next_offsets = dict(parts["next"])

    # --- folding ------------------------------------------------------------------------------

    def _decoded(
        self, latest: dict[bytes, bytes | None]
    ) -> tuple[list[bytes], list[AssignmentRow]]:
        keys, told = [], []
        for key, value in latest.items():
            if value is None:
                continue
            try:
                told.append(decode_assignment(value))
            except RecordError:
                self.n_ignored += 1
            else:
                keys.append(key)
        return keys, told

    def _remove(self, keys: Sequence[bytes]) -> None:
        if not keys:
            return
        rows = self.find_all(keys)
        np.subtract.at(self._counts, self.clusters[rows], 1)
        self.clusters[rows] = NOWHERE
        self.vector_offsets[rows] = NO_VECTOR
        self.metadata.clear(rows)
        self.remove(keys)

    def _put(self, keys: Sequence[bytes], told: Sequence[AssignmentRow]) -> None:
        is_new = self.find_all(keys) < 0
        rows = self.put(keys)
        self.clusters[rows[is_new]] = NOWHERE
        self.vector_offsets[rows[is_new]] = NO_VECTOR
        number = self.cluster_names.number
        clusters = np.array([number(row.cluster) for row in told], np.int32)
        if len(self.cluster_names) > len(self._counts):
            more = np.zeros(len(self.cluster_names), np.int64)
            self._counts = np.concatenate((self._counts, more))
        np.subtract.at(self._counts, self.clusters[rows], 1)
        np.add.at(self._counts, clusters, 1)
        self._counts[NOWHERE] = 0
        self.clusters[rows] = clusters
        self.distances[rows] = [row.distance for row in told]
        self.partitions[rows] = [row.partition for row in told]
        self.offsets[rows] = [row.offset for row in told]
        self.epochs[rows] = [row.epoch for row in told]
        self.revisions[rows] = [row.revision for row in told]
        for row in told:
            if row.offset >= self.next_offsets.get(row.partition, 0):
                self.next_offsets[row.partition] = row.offset + 1
