"""Reading partitions back from the topics, in slices beside polling.

Two barriers, in this order. The stream withholds a partition until no transaction with
offsets of it is pending (1); the changelogs are then read to the end that they have *after*
that (2). The other order gives wrong state behind perfect output: a process that slept
in its commit may wake up in between.

The assignments are read first. The row that counts for an item is the one at its
assignment's source offset, in `item-vectors` or the input; every other row is skipped
without judging it again. An assignment whose row is nowhere is a ghost.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.clustering.forgetting import NO_TIMESTAMP
from pipeline.engine.cluster_engine import Restored
from pipeline.engine.setting import EngineSettings
from pipeline.errors import TopicError, TransientError
from pipeline.messages.codec import (
    AssignmentRow,
    decode,
    decode_assignment,
    decode_head,
    decode_vector,
    record_metadata,
    record_timestamp,
)
from pipeline.messages.embedding import successor_item, without_next
from pipeline.messages.model import Model, ModelFold
from pipeline.messages.policy import EmbeddingPolicy
from pipeline.messages.records import Record
from pipeline.services.succession import Waiting
from pipeline.state.members import Members
from pipeline.streams.contract import Broker, Range, Reader

SLICE_RECORDS = 4000
SLICE_WAIT_S = 0.1


@dataclass(slots=True, eq=False)
class RestoreResult:
    """What was read back."""

    partitions: dict[int, Restored]
    model: Model | None
    n_records: int = 0


@dataclass(slots=True, eq=False)
class _Partition:
    """A partition while it is read back."""

    next_offset: int
    ends_at: int
    rows: dict[bytes, AssignmentRow] = field(default_factory=dict)
    vectors: dict[bytes, tuple[bytes, Record]] = field(default_factory=dict)
    shadowed: set[bytes] = field(default_factory=set)
    """Items whose vector is in `item-vectors` for a record that still stands in the input."""
    published: set[str] = field(default_factory=set)
    has_head: bool = False
    embedding_since: int | None = None
    """As the head says it."""
    found: list[_Found] = field(default_factory=list)
    kept_waiting: dict[bytes, Record] = field(default_factory=dict)
    """Items whose vector of another embedding model is in `item-vectors` beside that of theirs."""
    successors: Waiting | None = None
    arrivals: Waiting | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Rows that count, of one slice."""

    keys: list[bytes]
    vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    timestamps: list[int | None]
    """Of the records that count; milliseconds."""
    kept: bool


@dataclass(slots=True, eq=False)
class Restore:
    """Reads a set of partitions that were assigned together."""

    broker: Broker
    settings: EngineSettings
    committed: Mapping[int, int | None]
    """Partition -> committed offset, fetched behind barrier 1."""
    since: int | None = None
    """The epoch with which the embedding model took over that stands; None: there was no other."""

    def run(self) -> Generator[int, None, RestoreResult]:
        """Yield after each slice how many records it read; return what was read.

        Raises
        ------
        TopicError
            What was committed does not fit the logs: going on would process everything again,
            skip, or forget.
        """
        topics = self.settings.topics
        partitions = self._begin()
        starts = dict.fromkeys(partitions, 0)
        result = RestoreResult({}, None)
        metadata: dict[bytes, dict[str, object]] = {}

        for records in self._read(topics.assignments, starts):
            for record in records:
                _fold_assignment(partitions[record.partition].rows, record)
            yield len(records)
            result.n_records += len(records)
        for records in self._read(topics.vectors, starts):
            for record in records:
                _fold_vector(partitions[record.partition], record)
            yield len(records)
            result.n_records += len(records)
        for records in self._read(topics.statistics, starts):
            for record in records:
                _fold_statistics(partitions[record.partition], record)
            yield len(records)
        for number, partition in partitions.items():
            if self.committed[number] is None:
                _check_uncommitted(f"{topics.input}/{number}", partition)

        fold = ModelFold()
        for records in self._read(topics.model, None):
            fold.fold(records)
            yield len(records)
        result.model = fold.newest
        if fold.newest is not None:
            self.settings = self.settings.under(fold.newest.manifest)
            self.since = fold.newest.manifest.embedding_since
            self._await(partitions, fold.newest)

        for records in self._read_input(partitions):
            self._take_input(partitions, records, metadata)
            yield len(records)
            result.n_records += len(records)
        for partition in partitions.values():
            self._take_kept(partition, metadata)

        for number, partition in partitions.items():
            if partition.rows and result.model is None:
                raise TopicError(
                    f"{topics.assignments} has assignments in partition {number}, but "
                    f"{topics.model} holds no model: a derived topic was deleted; delete all of "
                    f"them and the group's offsets to begin anew"
                )
            result.partitions[number] = self._restored(number, partition, metadata)
        return result

    def _begin(self) -> dict[int, _Partition]:
        topics = self.settings.topics
        inputs = self.broker.ranges(topics.input)
        statistics = self.broker.ranges(topics.statistics)
        partitions = {}
        for number, committed in self.committed.items():
            log = inputs[number]
            if committed is not None:
                _check_committed(
                    f"{topics.input}/{number}", committed, log,
                    has_statistics=statistics[number].high > 0,
                )  # fmt: skip
            partitions[number] = _Partition(log.low if committed is None else committed, log.high)
        return partitions

    def _await(self, partitions: Mapping[int, _Partition], model: Model) -> None:
        """Look out for vectors of another embedding model, where one is on its way or just came."""
        settings, since = self.settings, model.manifest.embedding_since
        successor = settings.embedding.successor
        for partition in partitions.values():
            if successor is not None:
                partition.successors = self._waiting(successor, partition)
            if since is not None and (partition.embedding_since or 0) < since:
                partition.arrivals = self._waiting(without_next(settings.embedding), partition)

    def _waiting(self, embedding: EmbeddingPolicy, partition: _Partition) -> Waiting:
        settings = self.settings
        return Waiting(embedding, settings.limits, settings.events.metadata, partition.kept_waiting)

    def _read(self, topic: str, starts: Mapping[int, int] | None) -> Iterator[Sequence[Record]]:
        """Slices of a topic up to the end that it has now: barrier 2."""
        reader = self.broker.reader(topic, starts)
        try:
            while not reader.at_end:
                yield _slice(reader)
        finally:
            reader.close()

    def _read_input(self, partitions: Mapping[int, _Partition]) -> Iterator[Sequence[Record]]:
        """Slices of the input, up to the committed offsets and for items that miss their row."""
        wanted = {
            n: 0
            for n, p in partitions.items()
            if p.next_offset > 0 and (p.rows or p.successors is not None or p.arrivals is not None)
        }
        if not wanted:
            return
        reader = self.broker.reader(self.settings.topics.input, wanted)
        try:
            while not reader.at_end and any(
                reader.positions[n] < partitions[n].next_offset for n in wanted
            ):
                yield _slice(reader)
        finally:
            reader.close()

    def _take_kept(self, partition: _Partition, metadata: dict[bytes, dict[str, object]]) -> None:
        rows = partition.rows
        found = [k for k in partition.vectors if k in rows and not self._is_behind(rows[k])]
        if self.settings.input_is_compacted:
            # The copy was made for a newer record that is bad or stale. Where that one is gone,
            # too, compaction took it for one beyond the committed offset: the item is a ghost.
            found = [key for key in found if key in partition.shadowed]
        if not found:
            return
        n_dims = self.settings.embedding.dimensions
        vectors = [decode_vector(partition.vectors[key][0], n_dims)[0] for key in found]
        timestamps = [record_timestamp(partition.vectors[key][1]) for key in found]
        partition.found.append(_Found(found, np.stack(vectors), timestamps, kept=True))
        for key in found:
            self._note_metadata(metadata, key, record_metadata(partition.vectors[key][1]))

    def _take_input(
        self,
        partitions: Mapping[int, _Partition],
        records: Sequence[Record],
        metadata: dict[bytes, dict[str, object]],
    ) -> None:
        by_partition: dict[int, list[Record]] = {}
        self._take_waiting(partitions, records)
        for record in records:
            partition = partitions[record.partition]
            row = partition.rows.get(record.key or b"")
            if row is None or record.key is None or record.offset >= partition.next_offset:
                continue
            if self._is_behind(row):
                continue
            if record.key in partition.vectors:  # the copy will be taken
                if record.offset > row.offset:
                    partition.shadowed.add(record.key)
            elif record.offset == row.offset:
                by_partition.setdefault(record.partition, []).append(record)
        for number, counting in by_partition.items():
            batch = decode(counting, self.settings.embedding, self.settings.limits)
            if batch.errors:
                at, error = next(iter(batch.errors.items()))
                raise TopicError(
                    f"{self.settings.topics.input}/{number}/{counting[at].offset} was applied, but "
                    f"cannot be decoded any more ({error}); the embedding settings were changed: "
                    f"set them back, or begin anew with another topics.prefix"
                )
            keys = [record.key for record in counting if record.key is not None]
            timestamps = [record.timestamp_ms for record in counting if record.key is not None]
            partitions[number].found.append(_Found(keys, batch.vectors, timestamps, kept=False))
            for i, value in batch.metadata.items():
                self._note_metadata(metadata, keys[i], value)

    def _take_waiting(
        self, partitions: Mapping[int, _Partition], records: Sequence[Record]
    ) -> None:
        for number, partition in partitions.items():
            sets = [one for one in (partition.successors, partition.arrivals) if one is not None]
            if sets:
                end = partition.next_offset
                mine = [r for r in records if r.partition == number and r.offset < end]
                for one in sets:
                    one.take(mine)

    def _is_behind(self, row: AssignmentRow) -> bool:
        """Whether an assignment is of an embedding model that stands no more."""
        return self.since is not None and row.epoch < self.since

    def _note_metadata(
        self,
        metadata: dict[bytes, dict[str, object]],
        key: bytes,
        value: Mapping[str, object] | None,
    ) -> None:
        shown = {k: value[k] for k in self.settings.events.metadata if k in value} if value else {}
        if shown:
            metadata[key] = shown

    def _restored(
        self, number: int, partition: _Partition, metadata: Mapping[bytes, dict[str, object]]
    ) -> Restored:
        successors, arrivals = partition.successors, partition.arrivals
        assigned = dict(partition.rows) if successors or arrivals else {}
        members = Members(self.settings.embedding.dimensions)
        cluster_ids: list[str] = []
        for found in partition.found:
            rows = members.put(found.keys)
            assignments = [partition.rows.pop(key) for key in found.keys]
            members.vectors[rows] = found.vectors
            members.sequences[rows] = [a.sequence for a in assignments]
            members.offsets[rows] = [a.offset for a in assignments]
            members.kept[rows] = found.kept
            members.timestamps[rows] = [
                NO_TIMESTAMP if t is None or t < 0 else t for t in found.timestamps
            ]
            cluster_ids += [a.cluster for a in assignments]
        members.metadata = {key: dict(metadata[key]) for key in members.of if key in metadata}
        return Restored(
            partition=number,
            next_offset=partition.next_offset,
            members=members,
            cluster_ids=cluster_ids,
            ghosts={
                key: (row.cluster, row.offset, key in partition.vectors)
                for key, row in partition.rows.items()
            },
            published=partition.published,
            ghosts_until=partition.ends_at,
            behind={key for key, row in partition.rows.items() if self._is_behind(row)},
            successors=None if successors is None else successors.counting(assigned, None),
            arrivals=None if arrivals is None else arrivals.counting(assigned, self.since),
            embedding_since=self.since,
        )


def _check_committed(where: str, committed: int, log: Range, *, has_statistics: bool) -> None:
    if not has_statistics:
        raise TopicError(
            f"{where} has the committed offset {committed}, but no head in the statistics topic: "
            f"derived topics were deleted, or a second prefix runs under the same group; "
            f"delete the group's offsets to begin anew"
        )
    if not log.low <= committed <= log.high:
        raise TopicError(
            f"{where} was processed up to offset {committed}, but its log holds {log.low} to "
            f"{log.high}: records were lost to retention, or the topic was made anew"
        )


def _check_uncommitted(where: str, partition: _Partition) -> None:
    """No owner has committed anything; what an aborted transaction left in the logs is no state."""
    if partition.rows or partition.has_head:
        raise TopicError(
            f"{where} has state in the derived topics but no committed offset (it expired, or "
            f"kafka.group.id was changed): going on would process everything again; reset the "
            f"group's offset to where it was, or begin anew with another topics.prefix"
        )


def _slice(reader: Reader) -> Sequence[Record]:
    try:
        return reader.read(SLICE_RECORDS, timeout_s=SLICE_WAIT_S)
    except TransientError:
        return ()  # the broker is away; the reader goes on where it stopped


def _fold_assignment(rows: dict[bytes, AssignmentRow], record: Record) -> None:
    assert record.key is not None
    if record.value is None:
        rows.pop(record.key, None)
    else:
        rows[record.key] = decode_assignment(record.value)


def _fold_vector(partition: _Partition, record: Record) -> None:
    assert record.key is not None
    waiting, vectors = successor_item(record.key), partition.vectors
    if waiting is not None:
        if record.value is None:
            partition.kept_waiting.pop(waiting, None)
        else:
            partition.kept_waiting[waiting] = record
    elif record.value is None:
        vectors.pop(record.key, None)
    else:
        vectors[record.key] = (record.value, record)


def _fold_statistics(partition: _Partition, record: Record) -> None:
    assert record.key is not None
    _, _, cluster_id = record.key.decode().partition("/")
    if not cluster_id:
        partition.has_head = True
        if record.value is not None:
            partition.embedding_since = decode_head(record.value).embedding_since
    elif record.value is None:
        partition.published.discard(cluster_id)
    else:
        partition.published.add(cluster_id)
