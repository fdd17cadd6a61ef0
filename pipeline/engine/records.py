"""A micro-batch, folded: which events it makes, and where its items stand afterwards.

Records are folded in offset order, so two records of one item in one batch give the
events that two batches would, and batch boundaries leave no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.forgetting import NO_TIMESTAMP, Decay
from pipeline.engine.changes import Applied, Tally
from pipeline.engine.events import Step
from pipeline.engine.setting import EngineSettings
from pipeline.engine.succession import Succeeded, SuccessionFold
from pipeline.errors import Reason, RecordError
from pipeline.kernels.contract import Labels, Points
from pipeline.messages.codec import encode_assignment, encode_vector, vector_headers
from pipeline.messages.dead_letters import dead_letter
from pipeline.messages.embedding import model_headers
from pipeline.messages.events import Cause
from pipeline.messages.records import Outgoing, Record
from pipeline.state.members import Metadata, PartitionState, Version

NOWHERE = -1


class Placed(NamedTuple):
    """A batch, decoded and labelled; parallel to its records but for ``vectors`` and labels."""

    vectors: Points  # (n_vectors, n_dims)
    labels: Labels  # (n_vectors,)
    distances_squared: NDArray[np.float64]  # (n_vectors,)
    proofs: NDArray[np.float64]  # (n_vectors,)
    label_list: Sequence[int]  # the labels once more: a loop reads lists faster than arrays
    nearest: Sequence[float]  # (n_vectors,) distance as users see it
    second: Sequence[float]  # (n_vectors,) the runner-up's
    rows: Sequence[int]  # record -> row of vectors; -1: a tombstone or a dead letter
    sequences: Sequence[int]
    metadata: Mapping[int, Metadata]
    errors: Mapping[int, RecordError]
    next_vectors: Points | None = None  # (n_next_vectors, n_next_dims) of the next embedding model
    next_rows: Mapping[int, int] = MappingProxyType({})  # record -> row of next_vectors


@dataclass(slots=True)
class _Item:
    """An item that the batch touches, as it is after the records folded so far."""

    row: int  # in the state; -1: none
    label: int  # -1: in no cluster
    sequence: int
    kept: bool
    is_ghost: bool = False
    vector: int = NOWHERE  # in the batch; -1: the one in the state
    offset: int = NOWHERE
    timestamp_ms: int | None = None  # as the record has it; like the vector, in the batch
    metadata: Metadata | None = None


@dataclass(slots=True, eq=False)
class RecordFold:
    """The records of one partition in one batch."""

    settings: EngineSettings
    state: PartitionState
    cluster_ids: Sequence[str]
    version: Version
    decay: Decay | None
    placed: Placed
    tally: Tally
    outgoing: list[Outgoing]
    steps: list[Step] = field(default_factory=list)
    _items: dict[bytes, _Item] = field(default_factory=dict)
    _landed: list[int] = field(default_factory=list)  # rows of the batch
    _n_items: int = 0
    _succession: SuccessionFold | None = None

    def __post_init__(self) -> None:
        if self.state.successors is None:
            return
        vectors = self.placed.next_vectors
        self._succession = SuccessionFold(
            self.settings,
            self.state.partition,
            self.state.successors,
            self.state.successors.vectors[:0] if vectors is None else vectors,
            self.outgoing,
        )

    @property
    def succeeded(self) -> Succeeded | None:
        """What becomes of the set that the next embedding model has; None: nothing."""
        return None if self._succession is None else self._succession.change()

    def fold(self, records: Sequence[Record], indices: Sequence[int]) -> Applied:
        """Fold ``records[indices]``, all of this partition and in offset order.

        What happens to every record stands in this loop; what is rare is a call.
        """
        state, placed, items, settings = self.state, self.placed, self._items, self.settings
        rows, sequences, errors = placed.rows, placed.sequences, placed.errors
        labels, distances, metadata = placed.label_list, placed.nearest, placed.metadata
        cluster_ids, (epoch, revision) = self.cluster_ids, self.version
        partition, assignments = state.partition, settings.topics.assignments
        write, land = self.outgoing.append, self._landed.append
        max_items = settings.limits.max_items_per_partition
        next_rows, succession = placed.next_rows, self._succession
        self._n_items = state.n_items
        self._look_up([records[i].key for i in indices])
        n_unchanged = n_applied = 0
        for i in indices:
            record = records[i]
            if errors and i in errors:
                self._reject(record, errors[i])
                continue
            key = record.key
            assert key is not None, "a record without a key is a dead letter"
            item, row, sequence = items[key], rows[i], sequences[i]
            before = item.label
            if next_rows and i in next_rows:
                self._succeed(i, record, key, item)
                continue
            if row == NOWHERE:
                self._remove(record, key, item)
            elif 0 < sequence <= item.sequence:
                self._pass_by(key, item)
                continue
            elif before == NOWHERE and self._n_items >= max_items:
                self._reject(record, self._above_limit())
                continue
            else:
                after = labels[row]
                item.metadata = metadata.get(i) if metadata else None
                if before == after:
                    n_unchanged += 1
                else:
                    self._n_items += before == NOWHERE
                    self._step(record, key, item, before, after, row)
                item.label, item.vector, item.sequence = after, row, sequence
                item.offset = offset = record.offset
                item.timestamp_ms = record.timestamp_ms
                land(row)
                if succession is not None:
                    succession.outdate(key)
                if item.kept or not settings.input_is_compacted:
                    self._write_vector(key, item)
                value = encode_assignment(
                    cluster_ids[after], distances[row], sequence, epoch, revision, partition, offset
                )
                write(Outgoing(assignments, partition, key, value))
            n_applied += 1
        if n_unchanged:
            self.tally.outcomes["upsert", "unchanged"] += n_unchanged
        return self._applied(records[indices[-1]].offset + 1, n_applied)

    def _above_limit(self) -> RecordError:
        n_items = self.settings.limits.max_items_per_partition
        return RecordError(Reason.LIMIT, f"the partition holds {n_items} items already, the limit")

    def _succeed(self, i: int, record: Record, key: bytes, item: _Item) -> None:
        """A record of the next embedding model: its item stays as it is, and has it in store."""
        placed, succession = self.placed, self._succession
        assert succession is not None
        if succession.is_stale(key, placed.sequences[i]):
            self._pass_by(key, item)
        elif succession.is_above_limit(key):
            self._reject(record, self._above_limit())
        else:
            self.tally.outcomes["upsert", "unchanged"] += 1
            self._keep_vector(key, item)
            row, sequence = placed.next_rows[i], placed.sequences[i]
            succession.apply(record, key, row, sequence, placed.metadata.get(i))

    def _pass_by(self, key: bytes, item: _Item) -> None:
        """A stale record."""
        self.tally.outcomes["upsert", "stale"] += 1
        self._keep_vectors(key, item)

    def _keep_vectors(self, key: bytes, item: _Item) -> None:
        """Save what counts from compaction, which will take it for the newer record."""
        self._keep_vector(key, item)
        if self._succession is not None:
            self._succession.keep(key)

    def _look_up(self, keys: Sequence[bytes | None]) -> None:
        """One `_Item` for every key, as the state has it."""
        members = self.state.members
        distinct = [key for key in dict.fromkeys(keys) if key is not None]
        rows = members.find_all(distinct).tolist()
        known = [row for row in rows if row != NOWHERE]
        columns = zip(
            members.labels[known].tolist(),
            members.sequences[known].tolist(),
            members.kept[known].tolist(),
            strict=True,
        )
        for key, row in zip(distinct, rows, strict=True):
            if row != NOWHERE:
                self._items[key] = _Item(row, *next(columns))
            elif members.ghosts and key in members.ghosts:
                # no sequence: a ghost takes its next valid record whatever it says
                ghost = members.ghosts[key]
                self._items[key] = _Item(NOWHERE, ghost.label, 0, ghost.is_kept, is_ghost=True)
            else:
                self._items[key] = _Item(NOWHERE, NOWHERE, 0, kept=False)

    def _write_vector(self, key: bytes, item: _Item) -> None:
        """After an applied record: our copy, or that the input has the vector again."""
        if self.settings.input_is_compacted:
            self._write(self.settings.topics.vectors, key, None)
            item.kept = False
            return
        vector = encode_vector(self.placed.vectors[item.vector], item.sequence)
        headers = vector_headers(item.metadata or None, item.timestamp_ms)
        headers += model_headers(self.settings.embedding)
        self._write(self.settings.topics.vectors, key, vector, headers)
        item.kept = True

    def _remove(self, record: Record, key: bytes, item: _Item) -> None:
        if self._succession is not None:
            self._succession.outdate(key)
        if item.label == NOWHERE:
            self.tally.outcomes["tombstone", "unchanged"] += 1
            return
        item.metadata = self._metadata_of(key, item)
        self._step(record, key, item, item.label, NOWHERE, NOWHERE)
        self._n_items -= 1
        item.label, item.vector, item.sequence, item.metadata = NOWHERE, NOWHERE, 0, None
        item.offset = record.offset
        if item.kept:
            self._write(self.settings.topics.vectors, key, None)
            item.kept = False
        self._write(self.settings.topics.assignments, key, None)

    def _reject(self, record: Record, error: RecordError) -> None:
        op = "tombstone" if record.value is None else "upsert"
        self.tally.outcomes[op, "dead"] += 1
        self.tally.dead[error.reason] += 1
        self.tally.first_dead.setdefault(error.reason, record.key)
        topics = self.settings.topics
        if self.settings.writes_dead_letters:
            self.outgoing.append(
                dead_letter(
                    record, topic=topics.input, to=topics.dead_letters, error=error,
                    stage="assign" if error.reason is Reason.LIMIT else "decode",
                )
            )  # fmt: skip
        if record.key is not None and record.key in self._items:
            self._keep_vectors(record.key, self._items[record.key])

    def _keep_vector(self, key: bytes, item: _Item) -> None:
        """Save the vector by which the item stands, unless it is saved."""
        if item.kept or item.label == NOWHERE or not self.settings.input_is_compacted:
            return
        members = self.state.members
        if item.vector != NOWHERE:
            vector, metadata = self.placed.vectors[item.vector], item.metadata
            timestamp_ms = item.timestamp_ms
        elif item.row != NOWHERE:
            vector, metadata = members.vectors[item.row], members.metadata.get(key)
            timestamp_ms = int(members.timestamps[item.row])
        else:
            return  # a ghost: its row is gone already
        headers = vector_headers(metadata or None, timestamp_ms)
        headers += model_headers(self.settings.embedding)
        self._write(
            self.settings.topics.vectors, key, encode_vector(vector, item.sequence), headers
        )
        item.kept = True

    def _step(
        self, record: Record, key: bytes, item: _Item, before: int, after: int, row: int
    ) -> None:
        op = "upsert" if after != NOWHERE else "tombstone"
        if before == NOWHERE:
            outcome = "assigned"
        elif after == NOWHERE:
            outcome = "removed"
        else:
            outcome = "reassigned"
        self.tally.outcomes[op, outcome] += 1
        self.steps.append(
            Step(
                key, before, after, Cause.RECORD, record.partition, record.offset,
                record.timestamp_ms, row, item.metadata,
            )
        )  # fmt: skip

    def _metadata_of(self, key: bytes, item: _Item) -> Metadata | None:
        if item.vector != NOWHERE:
            return item.metadata
        return self.state.members.metadata.get(key)

    def _write(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        headers: tuple[tuple[str, bytes | None], ...] = (),
    ) -> None:
        self.outgoing.append(Outgoing(topic, self.state.partition, key, value, headers))

    def _applied(self, next_offset: int, n_applied: int) -> Applied:
        put = [(key, item) for key, item in self._items.items() if item.vector != NOWHERE]
        items = [item for _, item in put]
        rows = np.array([item.vector for item in items], np.intp)
        times = [item.timestamp_ms for item in items]
        timestamps = np.array([NO_TIMESTAMP if t is None or t < 0 else t for t in times], np.int64)
        touched = self._items.items()
        n_reassigned = sum(step.before != NOWHERE and step.after != NOWHERE for step in self.steps)
        return Applied(
            partition=self.state.partition,
            next_offset=next_offset,
            keys=[key for key, _ in put],
            vectors=self.placed.vectors[rows],
            labels=np.array([item.label for item in items], np.int32),
            proofs=self.placed.proofs[rows],
            sequences=np.array([item.sequence for item in items], np.uint64),
            offsets=np.array([item.offset for item in items], np.int64),
            kept=np.array([item.kept for item in items], np.bool_),
            timestamps=timestamps,
            weights=None if self.decay is None else self.decay.weight(timestamps),
            old_rows=np.array([item.row for item in items], np.intp),
            removed=[k for k, item in touched if item.row != NOWHERE and item.label == NOWHERE],
            ghosts_gone=[k for k, item in touched if item.is_ghost and item.offset != NOWHERE],
            kept_anew=[
                k for k, item in touched
                if item.kept and item.vector == NOWHERE and item.row != NOWHERE
            ],
            metadata=self._metadata(),
            landed=self.placed.labels[self._landed],
            landed_squared=self.placed.distances_squared[self._landed],
            n_records=n_applied,
            n_reassigned=n_reassigned,
        )  # fmt: skip

    def _metadata(self) -> dict[bytes, Metadata | None]:
        if not self.settings.events.metadata:
            return {}
        return {key: item.metadata for key, item in self._items.items() if item.offset != NOWHERE}
