"""Vectors, followed beside the assignments: an item's is the row at its assignment's offset.

The input runs ahead of the assigners, and so may its reader here. Rows that nobody has claimed yet
wait, `MAX_WAITING_BYTES` of them at most; beyond that a partition's later rows are passed over, and
read again once the waiting ones are claimed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import RecordError
from pipeline.messages.codec import decode, decode_vectors, record_metadata
from pipeline.messages.embedding import successor_item, without_next
from pipeline.messages.records import Record
from pipeline.services.server.desk import Desk
from pipeline.state.view.items import NO_VECTOR
from pipeline.state.view.neighbours import ExactSearch
from pipeline.streams.contract import Broker
from pipeline.telemetry.logs import get_logger

SLICE_RECORDS = 2000
MAX_WAITING_BYTES = 64 * 2**20
"""Of all partitions together; each has an equal share, so none stands in another's way."""
_EARLY = -1


class VectorMarks(NamedTuple):
    """From where on topics are read to go on from vectors that are there."""

    input: Mapping[int, int] | None
    """By partition; None: it is not read."""
    copies: Mapping[int, int]


class VectorFollower:
    """Feeds the vectors of a `Desk`'s items, and its search.

    Parameters
    ----------
    is_compacted
        The input stores the vectors, and their copies stand in where it cannot; else only copies.
    marks
        Of the vectors that the items have already; None: all are read.
    """

    def __init__(
        self, broker: Broker, desk: Desk, *, is_compacted: bool, marks: VectorMarks | None = None
    ) -> None:
        self._broker, self._desk, self._is_compacted = broker, desk, is_compacted
        self._policy = without_next(desk.embedding)
        self._row_bytes = 4 * desk.embedding.dimensions
        self._is_over = False
        items = desk.view.items
        with desk.changed:
            if marks is None:
                items.forget_vectors(desk.embedding.dimensions)
            desk.search_by(ExactSearch(items))
            for start in range(0, items.n_rows, SLICE_RECORDS):
                rows = np.arange(start, min(start + SLICE_RECORDS, items.n_rows))
                desk.noted(rows[items.has_vector(rows)])
        starts = VectorMarks(None, {}) if marks is None else marks
        self._copies = broker.reader(desk.topics.vectors, starts.copies or None)
        self._input = broker.reader(desk.topics.input, starts.input) if is_compacted else None
        self._waiting: dict[int, dict[int, Record]] = {}
        """Partition -> offset -> row that no assignment has named yet."""
        self._early: dict[bytes, Record] = {}
        """Copies of items that are not known yet."""
        self._n_bytes: Counter[int] = Counter()
        """Of `_waiting` by partition, and of `_early` under `_EARLY`."""
        self._room = MAX_WAITING_BYTES // (1 + desk.topics.partitions)
        self._held: dict[int, int] = {}
        """Partition -> the first offset that was passed over for want of room."""
        self._seen: dict[int, int] = {}
        """Partition -> the newest offset assigned when rows were dropped last."""
        self._read_to: Mapping[int, int] = {}
        """Partition of the input -> what is below was taken in, or passed over."""
        desk.holds = self._holds

    @property
    def at_end(self) -> bool:
        """Whether both topics were read to the ends that they had."""
        if self._is_over:
            return True
        return self._copies.at_end and (self._input is None or self._input.at_end)

    @property
    def positions(self) -> Mapping[int, int]:
        """How far the copies are read."""
        return self._copies.positions

    @property
    def marks(self) -> VectorMarks | None:
        """From where on to read again: what waits is nowhere else. None: no vectors are kept.

        A row below what shows waits for nobody: all that was to claim it is read.
        """
        if self._is_over:
            return None
        copies = dict(self._copies.positions)
        for early in self._early.values():
            copies[early.partition] = min(copies[early.partition], early.offset)
        if self._input is None:
            return VectorMarks(None, copies)
        places = dict(self._input.positions)
        for partition, position in places.items():
            shown = self._desk.view.next_offset(partition)
            waiting = [at for at in self._waiting.get(partition, {}) if at >= shown]
            places[partition] = min(position, self._held.get(partition, position), *waiting)
        return VectorMarks(places, copies)

    def step(self) -> int:
        """Take the next rows in; how many there were."""
        if self._is_over:
            return 0
        n = 0
        if self._input is not None:
            self._reopen()
            n += self._take_input(self._input.read(SLICE_RECORDS, timeout_s=0.0))
            read_to = self._input.positions
            if read_to != self._read_to:
                with self._desk.changed:
                    self._read_to = read_to
                    self._desk.changed.notify_all()
        n += self._take_copies(self._copies.read(SLICE_RECORDS, timeout_s=0.0))
        return n

    def assigned(self, records: Sequence[Record]) -> None:
        """Assignments were taken in: what waited for them counts now. With the lock held."""
        if self._is_over:
            return
        items, claimed, copies = self._desk.view.items, [], []
        for key in {record.key for record in records if record.key is not None}:
            row = items.find(key)
            if row < 0:
                continue
            early = self._early.pop(key, None)
            if early is not None:
                self._n_bytes[_EARLY] -= len(early.value or b"")
                copies.append(early)
            partition, offset = int(items.partitions[row]), int(items.offsets[row])
            found = self._waiting.get(partition, {}).pop(offset, None)
            if found is not None:
                self._n_bytes[partition] -= len(found.value or b"")
                if found.key == key:
                    claimed.append(found)
        self._give_copies(copies)
        self._give(claimed)

    def _holds(self, partition: int, offset: int) -> bool:
        """See `pipeline.services.server.desk.Desk.holds`."""
        if self._is_over or self._input is None:
            return True
        is_read = self._read_to.get(partition, 0) > offset
        return is_read and self._held.get(partition, 2**63) > offset

    def close(self) -> None:
        """Free the readers."""
        self._copies.close()
        if self._input is not None:
            self._input.close()

    # --- the input ----------------------------------------------------------------

    def _take_input(self, records: Sequence[Record]) -> int:
        if not records:
            return 0
        items, counting = self._desk.view.items, []
        with self._desk.changed:
            for record in records:
                key, value = record.key, record.value
                if key is None or value is None:
                    continue
                if items.wants(key, record.partition, record.offset):
                    counting.append(record)
                    continue
                row = items.find(key)
                is_past = row >= 0 and items.offsets[row] >= record.offset
                if not is_past and record.offset < self._held.get(record.partition, 2**63):
                    self._wait(record)
            self._give(counting)
        return len(records)

    def _wait(self, record: Record) -> None:
        partition = record.partition
        waiting = self._waiting.setdefault(partition, {})
        if self._n_bytes[partition] > self._room:
            self._drop_settled(partition, waiting)
        if self._n_bytes[partition] > self._room:
            self._held[partition] = record.offset
        elif record.offset not in waiting:
            waiting[record.offset] = record
            self._n_bytes[partition] += len(record.value or b"")

    def _drop_settled(self, partition: int, waiting: dict[int, Record]) -> None:
        """Rows below what was assigned a while ago are dead letters, stale, or written over."""
        seen = self._seen.get(partition, 0)
        for offset in [offset for offset in waiting if offset < seen]:
            self._n_bytes[partition] -= len(waiting.pop(offset).value or b"")
        self._seen[partition] = self._desk.view.next_offset(partition)

    def _reopen(self) -> None:
        """Read again what was passed over, once there is room for it."""
        for partition in self._held:
            if self._n_bytes[partition] > self._room // 2:
                self._drop_settled(partition, self._waiting.setdefault(partition, {}))
        roomy = {p: at for p, at in self._held.items() if self._n_bytes[p] <= self._room // 2}
        if not roomy:
            return
        assert self._input is not None
        starts = {**self._input.positions, **roomy}
        self._input.close()
        self._input = self._broker.reader(self._desk.topics.input, starts)
        with self._desk.changed:
            self._read_to = starts  # what is read again is not there yet
            for partition in roomy:
                del self._held[partition]

    def _give(self, records: Sequence[Record]) -> None:
        if not records:
            return
        items = self._desk.view.items
        newest = {record.key: record for record in records}  # of one item the last one counts
        batch = decode(list(newest.values()), self._policy, self._desk.limits)
        good = [i for i, row in enumerate(batch.rows.tolist()) if row >= 0]
        named = list(newest)
        rows = items.give([named[i] or b"" for i in good], batch.vectors, are_copies=False)
        for i, row in zip(good, rows.tolist(), strict=True):
            items.metadata.put(row, batch.metadata.get(i, {}))
        self._desk.noted(rows)
        self._check_room()

    # --- copies -------------------------------------------------------------------

    def _take_copies(self, records: Sequence[Record]) -> int:
        if not records:
            return 0
        items = self._desk.view.items
        newest = {record.key: record for record in records if record.key is not None}
        with self._desk.changed:
            known = []
            for key, record in newest.items():
                if successor_item(key) is not None:
                    continue
                late = self._early.pop(key, None)
                self._n_bytes[_EARLY] -= 0 if late is None else len(late.value or b"")
                if record.value is None:
                    continue
                if items.find(key) >= 0:
                    known.append(record)
                elif self._n_bytes[_EARLY] <= self._room:
                    self._early[key] = record
                    self._n_bytes[_EARLY] += len(record.value)
            self._give_copies(known)
        return len(records)

    def _give_copies(self, records: Sequence[Record]) -> None:
        items, n_dims = self._desk.view.items, self._desk.embedding.dimensions
        for record in records:
            try:
                vectors, _ = decode_vectors([record.value or b""], n_dims)
            except RecordError:
                continue  # of another embedding model
            rows = items.give([record.key or b""], vectors, are_copies=True)
            for row in rows.tolist():
                items.metadata.put(row, _metadata_of(record))
            self._desk.noted(rows)
        self._check_room()

    def _check_room(self) -> None:
        """More vectors than may be kept: then none are."""
        items, policy = self._desk.view.items, self._desk.policy
        n_bytes = self._row_bytes * len(items)
        if n_bytes <= policy.max_vector_bytes:
            return
        self._is_over = True
        self._desk.search_by(None)
        items.forget_vectors(0)
        items.vector_offsets[:] = NO_VECTOR
        self._waiting, self._early, self._n_bytes = {}, {}, Counter()
        get_logger().warning("vectors_left_out", bytes=n_bytes, limit=policy.max_vector_bytes)


def _metadata_of(record: Record) -> Mapping[str, Any]:
    """What stands beside a copy: the keys that events carry along."""
    try:
        return record_metadata(record) or {}
    except RecordError:
        return {}
