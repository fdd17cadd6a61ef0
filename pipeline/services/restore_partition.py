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

from pipeline.clustering.forgetting import NO_TIMESTAMP
from pipeline.engine.cluster_engine import Restored
from pipeline.engine.setting import EngineSettings
from pipeline.errors import TopicError
from pipeline.messages.codec import (
    AssignmentRow,
    decode,
    decode_assignment,
    decode_head,
    decode_vectors,
    record_metadata,
    record_timestamp,
)
from pipeline.messages.embedding import successor_item
from pipeline.messages.records import Record
from pipeline.services.succession import Waiting
from pipeline.state.members import Members
from pipeline.state.snapshot import LoadedSnapshot, SnapshotError, SnapshotRows

GONE = -1
"""In place of the offset of the record that counts: the item's last assignment is null."""
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
    values: dict[bytes, bytes | None] = field(default_factory=dict)
    """Item -> its last assignment, as it stands in the log."""
    rows: dict[bytes, AssignmentRow] = field(default_factory=dict)
    """Those of `values` whose row is yet to be found."""
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
    assigned: dict[bytes, AssignmentRow] = field(default_factory=dict)
    """All of `rows`, where something waits."""
    members: Members = field(init=False)
    clusters: dict[str, int] = field(default_factory=dict)
    """Cluster -> what stands for it in the members' labels until the engine has its own."""

    def __post_init__(self) -> None:
        self.members = Members(self.settings.embedding.dimensions)
        if self.snapshot is not None:
            self.published |= self.snapshot.published
            self.embedding_since = self.snapshot.identity.embedding_since

    # --- changelogs ---------------------------------------------------------------

    def fold_assignments(self, records: Sequence[Record]) -> None:
        """The next records of the assignments."""
        # a tombstone takes the place of what stood before it: with a snapshot it has to be known
        self.values.update({record[2]: record[3] for record in records})  # type: ignore[misc]

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
        return any(value is not None for value in self.values.values())

    def read_assignments(self, settings: EngineSettings, since: int | None) -> None:
        """Now that the changelogs are read and the model is known, see what is to be found."""
        self.settings, self.since = settings, since
        self.members = Members(settings.embedding.dimensions)
        self.rows = {
            key: decode_assignment(value)
            for key, value in self.values.items()
            if value is not None
        }  # fmt: skip
        if self.snapshot is None:
            self.values = {}
            self.members.reserve(len(self.rows))
        if self.successors is not None or self.arrivals is not None:
            self.assigned = dict(self.rows)

    # --- the snapshot ---------------------------------------------------------------

    def take_snapshot(self) -> Generator[int, None, None]:
        """Take the rows of the snapshot that still count; yield how many were read.

        Raises
        ------
        SnapshotError
            It is damaged, or does not fit what the changelogs say.
        """
        snapshot, members = self.snapshot, self.members
        assert snapshot is not None
        last = {key: row.offset for key, row in self.rows.items()}
        last |= {key: GONE for key, value in self.values.items() if value is None}
        self.values = {}
        members.reserve(snapshot.n_rows + len(self.rows))
        for part in snapshot.slices():
            self._take_part(part, last)
            yield len(part)
        found = [key for key in self.rows if key in members.of]
        if found:
            taken = [self.rows.pop(key) for key in found]
            self._set_assignments([members.of[key] for key in found], taken)
        for row in self.rows.values():
            if row.offset < snapshot.marks.next_offset:
                raise SnapshotError(
                    f"the assignment of an item names offset {row.offset}, which is before the "
                    f"snapshot's {snapshot.marks.next_offset}, but the snapshot lacks its row"
                )
        for keys, is_kept in ((self.released, False), (self.vectors.keys(), True)):
            members.kept[[members.of[key] for key in keys if key in members.of]] = is_kept

    def _take_part(self, part: SnapshotRows, last: Mapping[bytes, int]) -> None:
        """Rows without a later assignment, and those of the record that it names."""
        keys, at = part.keys, None
        if last:
            offsets = part.offsets.tolist()
            at = [
                i for i, (key, offset) in enumerate(zip(keys, offsets, strict=True))
                if last.get(key, offset) == offset
            ]  # fmt: skip
            if len(at) == len(keys):
                at = None
            else:
                keys = [keys[i] for i in at]
        chosen: Any = slice(None) if at is None else at
        members, rows = self.members, self._rows_of(keys)
        numbers = np.array([self._number_of(c) for c in part.cluster_ids], np.int32)
        members.vectors[rows] = part.vectors[chosen]
        members.labels[rows] = numbers[part.clusters[chosen]]
        members.sequences[rows] = part.sequences[chosen]
        members.offsets[rows] = part.offsets[chosen]
        members.kept[rows] = part.kept[chosen]
        members.timestamps[rows] = part.timestamps[chosen]
        for i, value in part.metadata.items():
            if part.keys[i] in members.of:
                self._note_metadata(part.keys[i], value)

    # --- rows -------------------------------------------------------------------------

    def wants_input(self) -> bool:
        """Whether a record below the committed offset may still be needed."""
        if self.next_offset == 0:
            return False
        if self.successors is not None or self.arrivals is not None:
            return True
        if self.settings.input_is_compacted:
            return bool(self.rows)  # also to see what `item-vectors` stands in for
        return any(key not in self.vectors for key in self.rows)

    def take_input(self, records: Sequence[Record]) -> None:
        """The next records of the input: those that count become members."""
        if records[-1].offset >= self.next_offset:
            records = [record for record in records if record.offset < self.next_offset]
        for one in (self.successors, self.arrivals):
            if one is not None:
                one.take(records)
        rows, vectors = self.rows, self.vectors
        counting = []
        for record, row in zip(records, map(rows.get, [r[2] for r in records]), strict=True):  # type: ignore[arg-type]
            if row is None:
                continue
            if vectors and record.key in vectors:  # the copy will be taken
                if record.offset > row.offset and not self._is_behind(row):
                    self.shadowed.add(record.key)
            elif row.offset == record.offset and not self._is_behind(row):
                counting.append(record)
        if not counting:
            return
        batch = decode(counting, self.settings.embedding, self.settings.limits)
        if batch.errors:
            at, error = next(iter(batch.errors.items()))
            raise TopicError(
                f"{self.settings.topics.input}/{self.number}/{counting[at].offset} was applied, "
                f"but cannot be decoded any more ({error}); the embedding settings were changed: "
                f"set them back, or begin anew with another topics.prefix"
            )
        keys: list[bytes] = [record[2] for record in counting]  # type: ignore[misc]
        self._take(keys, batch.vectors, [record[4] for record in counting], kept=False)
        for i, value in batch.metadata.items():
            self._note_metadata(keys[i], value)

    def take_kept(self) -> Generator[int, None, None]:
        """Take the rows that `item-vectors` has; yield how many, now and then."""
        rows = self.rows
        found = [key for key in self.vectors if key in rows and not self._is_behind(rows[key])]
        if self.settings.input_is_compacted:
            # The copy was made for a newer record that is bad or stale. Where that one is gone,
            # too, compaction took it for one beyond the committed offset: the item is a ghost.
            found = [key for key in found if key in self.shadowed]
        n_dims = self.settings.embedding.dimensions
        for start in range(0, len(found), CHUNK):
            keys = found[start : start + CHUNK]
            records = [self.vectors.pop(key) for key in keys]  # so it is not held twice for long
            vectors, _ = decode_vectors([record.value or b"" for record in records], n_dims)
            self._take(keys, vectors, [record_timestamp(r) for r in records], kept=True)
            if self.settings.events.metadata:
                for key, record in zip(keys, records, strict=True):
                    self._note_metadata(key, record_metadata(record))
            yield len(keys)

    def restored(self) -> Restored:
        """The partition, once everything was taken; what has no row is a ghost."""
        successors, arrivals, members = self.successors, self.arrivals, self.members
        names = list(self.clusters)
        return Restored(
            partition=self.number,
            next_offset=self.next_offset,
            members=members,
            cluster_ids=[names[n] for n in members.labels[: members.n_rows].tolist()],
            ghosts={
                key: (row.cluster, row.offset, key in self.vectors)
                for key, row in self.rows.items()
            },
            published=self.published,
            ghosts_until=self.ends_at,
            behind={key for key, row in self.rows.items() if self._is_behind(row)},
            successors=None if successors is None else successors.counting(self.assigned, None),
            arrivals=None if arrivals is None else arrivals.counting(self.assigned, self.since),
            embedding_since=self.since,
        )

    def _take(
        self,
        keys: Sequence[bytes],
        vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]],
        timestamps: Sequence[int | None],
        *,
        kept: bool,
    ) -> None:
        members, rows = self.members, self._rows_of(keys)
        taken = [self.rows.pop(key) for key in keys]
        members.vectors[rows] = vectors
        members.kept[rows] = kept
        members.offsets[rows] = [row.offset for row in taken]
        members.timestamps[rows] = [
            NO_TIMESTAMP if t is None or t < 0 else t for t in timestamps
        ]  # fmt: skip
        self._set_assignments(rows, taken)

    def _set_assignments(self, rows: Any, taken: Sequence[AssignmentRow]) -> None:
        members = self.members
        members.labels[rows] = [self._number_of(row.cluster) for row in taken]
        # through an array of its own: numpy would make floats of numbers beyond 2**63
        members.sequences[rows] = np.array([row.sequence for row in taken], np.uint64)

    def _rows_of(self, keys: Sequence[bytes]) -> Any:
        """Where distinct items are or shall be; a slice if they are new: it is written faster."""
        n_before = self.members.n_rows
        rows = self.members.put(keys)
        n_after = self.members.n_rows
        return slice(n_before, n_after) if n_after - n_before == len(keys) else rows

    def _number_of(self, cluster: str) -> int:
        return self.clusters.setdefault(cluster, len(self.clusters))

    def _is_behind(self, row: AssignmentRow) -> bool:
        """Whether an assignment is of an embedding model that stands no more."""
        return self.since is not None and row.epoch < self.since

    def _note_metadata(self, key: bytes, value: Mapping[str, Any] | None) -> None:
        shown = {k: value[k] for k in self.settings.events.metadata if k in value} if value else {}
        if shown:
            self.members.metadata[key] = shown
