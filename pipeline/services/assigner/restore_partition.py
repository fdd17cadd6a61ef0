"""One partition while it is read back: what the changelogs, a snapshot and the input say of it.

The changelogs come first: an item's last assignment names the record whose vector counts. Rows are
taken straight into the members, wherever they are found, and never judged again. With a snapshot
the changelogs are only those behind its marks; an item without one since then stands as it was.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.forgetting import NO_TIMESTAMP
from pipeline.engine.cluster_engine import Restored
from pipeline.engine.setting import EngineSettings
from pipeline.errors import TopicError
from pipeline.messages.codec import (
    decode,
    decode_head,
    decode_vectors,
    record_metadata,
    record_timestamp,
)
from pipeline.messages.embedding import successor_item
from pipeline.messages.records import Record
from pipeline.services.assigner.restore_assignments import Assigned
from pipeline.services.assigner.succession import Waiting
from pipeline.state.members import Members
from pipeline.state.snapshot import LoadedSnapshot, SnapshotError, SnapshotRows

CHUNK = 4000
"""Rows between two yields of what is read from memory."""


@dataclass(slots=True, eq=False)
class PartitionRestore:
    """What was read of a partition so far."""

    number: int
    next_offset: int
    ends_at: int
    settings: EngineSettings
    snapshot: LoadedSnapshot | None = None
    """Where the reading began; None: with the topics."""
    assigned: Assigned = field(default_factory=Assigned)
    """The last assignment of every item; with a snapshot, of those that have one since."""
    vectors: dict[bytes, Record] = field(default_factory=dict)
    released: set[bytes] = field(default_factory=set)
    """Items whose vector is in `item-vectors` no more."""
    shadowed: set[bytes] = field(default_factory=set)
    """Items whose vector is in `item-vectors` for a record that still stands in the input."""
    published: set[str] = field(default_factory=set)
    has_head: bool = False
    embedding_since: int | None = None
    """As the head says it."""
    since: int | None = None
    """The epoch with which the embedding model took over that stands."""
    kept_waiting: dict[bytes, Record] = field(default_factory=dict)
    """Items whose vector of another embedding model is in `item-vectors` beside that of theirs."""
    successors: Waiting | None = None
    arrivals: Waiting | None = None
    members: Members = field(init=False)
    """A cluster's number in `assigned` is its label, until the engine has its own."""

    def __post_init__(self) -> None:
        embedding = self.settings.embedding
        self.members = Members(embedding.dimensions, dtype=embedding.dtype)
        if self.snapshot is not None:
            self.published |= self.snapshot.published
            self.embedding_since = self.snapshot.identity.embedding_since

    # --- changelogs ---------------------------------------------------------------

    def fold_assignments(self, records: Sequence[Record]) -> None:
        """The next records of the assignments."""
        # a tombstone takes the place of what stood before it: with a snapshot it has to be known
        self.assigned.fold(records)

    def fold_vectors(self, records: Sequence[Record]) -> None:
        """The next records of `item-vectors`."""
        for record in records:
            assert record.key is not None
            waiting = successor_item(record.key)
            if waiting is not None:
                if record.value is None:
                    self.kept_waiting.pop(waiting, None)
                else:
                    self.kept_waiting[waiting] = record
            elif record.value is None:
                self.vectors.pop(record.key, None)
                self.released.add(record.key)
            else:
                self.vectors[record.key] = record

    def fold_statistics(self, records: Sequence[Record]) -> None:
        """The next records of the statistics: which clusters stand there, and the head."""
        for record in records:
            assert record.key is not None
            _, _, cluster_id = record.key.decode().partition("/")
            if not cluster_id:
                self.has_head = True
                if record.value is not None:
                    self.embedding_since = decode_head(record.value).embedding_since
            elif record.value is None:
                self.published.discard(cluster_id)
            else:
                self.published.add(cluster_id)

    def has_assignments(self) -> bool:
        """Whether any item has one."""
        if self.snapshot is not None and self.snapshot.n_rows:
            return True
        return self.assigned.has_any

    def read_assignments(self, settings: EngineSettings, since: int | None) -> None:
        """Now that the changelogs are read and the model is known, see what is to be found."""
        self.settings, self.since = settings, since
        self.members = Members(settings.embedding.dimensions, dtype=settings.embedding.dtype)
        self.assigned.check()
        if self.snapshot is None:
            self.members.reserve(len(self.assigned.open))

    # --- the snapshot ---------------------------------------------------------------

    def take_snapshot(self) -> Generator[int, None, None]:
        """Take the rows of the snapshot that still count; yield how many were read.

        Raises
        ------
        SnapshotError
            It is damaged, or does not fit what the changelogs say.
        """
        snapshot, members, assigned = self.snapshot, self.members, self.assigned
        assert snapshot is not None
        members.reserve(snapshot.n_rows + len(assigned.open))
        for part in snapshot.slices():
            self._take_part(part)
            yield len(part)
        places = assigned.open
        rows = members.find_packed(assigned.packed(places))
        is_found = rows >= 0
        self._set_assignments(rows[is_found], places[is_found])
        missing = assigned.offsets[places[~is_found]]
        if missing.size and missing.min() < snapshot.marks.next_offset:
            raise SnapshotError(
                f"the assignment of an item names offset {missing.min()}, which is before the "
                f"snapshot's {snapshot.marks.next_offset}, but the snapshot lacks its row"
            )
        for keys, is_kept in ((self.released, False), (self.vectors, True)):
            rows = members.find_all([*keys])
            members.kept[rows[rows >= 0]] = is_kept

    def _take_part(self, part: SnapshotRows) -> None:
        """Rows without a later assignment, and those of the record that it names."""
        keys: Sequence[bytes] = part.keys
        chosen: Any = slice(None)
        if len(self.assigned):
            places = self.assigned.find(keys)
            counts = (places < 0) | (self.assigned.offsets[places] == part.offsets)
            if not counts.all():
                chosen = np.flatnonzero(counts)
                keys = [keys[i] for i in chosen.tolist()]
        members, rows = self.members, self._rows_of(keys)
        numbers = np.array([self.assigned.number_of(c) for c in part.cluster_ids], np.int32)
        members.vectors[rows] = part.vectors[chosen]
        members.labels[rows] = numbers[part.clusters[chosen]]
        members.sequences[rows] = part.sequences[chosen]
        members.offsets[rows] = part.offsets[chosen]
        members.kept[rows] = part.kept[chosen]
        members.timestamps[rows] = part.timestamps[chosen]
        for i, value in part.metadata.items():
            if part.keys[i] in members:
                self._note_metadata(part.keys[i], value)

    # --- rows -------------------------------------------------------------------------

    def wants_input(self) -> bool:
        """Whether a record below the committed offset may still be needed."""
        if self.next_offset == 0:
            return False
        if self.successors is not None or self.arrivals is not None:
            return True
        n_open = len(self.assigned.open)
        if self.settings.input_is_compacted:
            return n_open > 0  # also to see what `item-vectors` stands in for
        n_copies = np.count_nonzero(self.assigned.find_open([*self.vectors]) >= 0)
        return n_open > int(n_copies)

    def take_input(self, records: Sequence[Record]) -> None:
        """The next records of the input: those that count become members."""
        if records[-1].offset >= self.next_offset:
            records = [record for record in records if record.offset < self.next_offset]
        for one in (self.successors, self.arrivals):
            if one is not None:
                one.take(records)
        offsets = np.array([record[1] for record in records], np.int64)
        places = self.assigned.find_open([record[2] or b"" for record in records])
        if self.vectors:
            self._see_copies(records, offsets, places)
        # where a place is -1, what is compared is of another item, and of no interest
        counts = (places >= 0) & (self.assigned.offsets[places] == offsets)
        counts &= ~self._are_behind(places)
        at = np.flatnonzero(counts)
        counting = records if len(at) == len(records) else [records[i] for i in at.tolist()]
        if not counting:
            return
        batch = decode(counting, self.settings.embedding, self.settings.limits)
        if batch.errors:
            first, error = next(iter(batch.errors.items()))
            raise TopicError(
                f"{self.settings.topics.input}/{self.number}/{counting[first].offset} was applied, "
                f"but cannot be decoded any more ({error}); the embedding settings were changed: "
                f"set them back, or begin anew with another topics.prefix"
            )
        keys: list[bytes] = [record[2] for record in counting]  # type: ignore[misc]
        self._take(keys, places[at], batch.vectors, [record[4] for record in counting], kept=False)
        for i, value in batch.metadata.items():
            self._note_metadata(keys[i], value)

    def _see_copies(
        self, records: Sequence[Record], offsets: NDArray[np.int64], places: NDArray[np.intp]
    ) -> None:
        """Set the places of items to -1 whose copy in `item-vectors` will be taken."""
        open_ones = np.flatnonzero(places >= 0)
        has_copy = [records[i].key in self.vectors for i in open_ones.tolist()]
        at = open_ones[np.array(has_copy, np.bool_)]
        is_newer = offsets[at] > self.assigned.offsets[places[at]]
        shadowed = at[is_newer & ~self._are_behind(places[at])]
        self.shadowed.update(key for i in shadowed.tolist() if (key := records[i].key) is not None)
        places[at] = -1

    def take_kept(self) -> Generator[int, None, None]:
        """Take the rows that `item-vectors` has; yield how many, now and then."""
        known = [*self.vectors]
        places = self.assigned.find_open(known)
        is_to_take = (places >= 0) & ~self._are_behind(places)
        found = [key for key, is_one in zip(known, is_to_take.tolist(), strict=True) if is_one]
        if self.settings.input_is_compacted:
            # The copy was made for a newer record that is bad or stale. Where that one is gone,
            # too, compaction took it for one beyond the committed offset: the item is a ghost.
            found = [key for key in found if key in self.shadowed]
        n_dims = self.settings.embedding.dimensions
        for start in range(0, len(found), CHUNK):
            keys = found[start : start + CHUNK]
            records = [self.vectors.pop(key) for key in keys]  # so it is not held twice for long
            vectors, _ = decode_vectors([record.value or b"" for record in records], n_dims)
            stamps = [record_timestamp(record) for record in records]
            self._take(keys, self.assigned.find(keys), vectors, stamps, kept=True)
            if self.settings.events.metadata:
                for key, record in zip(keys, records, strict=True):
                    self._note_metadata(key, record_metadata(record))
            yield len(keys)

    def restored(self) -> Restored:
        """The partition, once everything was taken; what has no row is a ghost."""
        successors, arrivals, members = self.successors, self.arrivals, self.members
        assigned, places = self.assigned, self.assigned.open
        names, ghosts = list(assigned.names), assigned.items(places)
        behind = self._are_behind(places).tolist()
        return Restored(
            partition=self.number,
            next_offset=self.next_offset,
            members=members,
            cluster_ids=[names[n] for n in members.labels[: members.n_rows].tolist()],
            ghosts={
                key: (names[number], offset, key in self.vectors)
                for key, number, offset in zip(
                    ghosts, assigned.clusters[places].tolist(), assigned.offsets[places].tolist(),
                    strict=True,
                )
            },
            published=self.published,
            ghosts_until=self.ends_at,
            behind={key for key, is_one in zip(ghosts, behind, strict=True) if is_one},
            successors=None if successors is None else successors.counting(assigned, None),
            arrivals=None if arrivals is None else arrivals.counting(assigned, self.since),
            embedding_since=self.since,
        )  # fmt: skip

    def _take(
        self,
        keys: Sequence[bytes],
        places: NDArray[np.intp],
        vectors: NDArray[np.float32],
        timestamps: Sequence[int | None],
        *,
        kept: bool,
    ) -> None:
        members, rows = self.members, self._rows_of(keys)
        members.vectors[rows] = vectors
        members.kept[rows] = kept
        members.offsets[rows] = self.assigned.offsets[places]
        members.timestamps[rows] = [
            NO_TIMESTAMP if t is None or t < 0 else t for t in timestamps
        ]  # fmt: skip
        self._set_assignments(rows, places)

    def _set_assignments(self, rows: Any, places: NDArray[np.intp]) -> None:
        members, assigned = self.members, self.assigned
        members.labels[rows] = assigned.clusters[places]
        members.sequences[rows] = assigned.sequences[places]
        assigned.is_open[places] = False

    def _rows_of(self, keys: Sequence[bytes]) -> Any:
        """Where distinct items are or shall be; a slice if they are new: it is written faster."""
        n_before = self.members.n_rows
        rows = self.members.put(keys)
        n_after = self.members.n_rows
        return slice(n_before, n_after) if n_after - n_before == len(keys) else rows

    def _are_behind(self, places: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which assignments are of an embedding model that stands no more."""
        if self.since is None:
            return np.zeros(len(places), np.bool_)
        return self.assigned.epochs[places] < self.since

    def _note_metadata(self, key: bytes, value: Mapping[str, Any] | None) -> None:
        shown = {k: value[k] for k in self.settings.events.metadata if k in value} if value else {}
        if shown:
            self.members.metadata[key] = shown
