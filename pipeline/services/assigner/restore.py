"""Reading partitions back from a snapshot and the topics, in slices beside polling.

Two barriers, in this order. The stream withholds a partition until no transaction with
offsets of it is pending (1); the changelogs are then read to the end that they have *after*
that (2). The other order gives wrong state behind perfect output: a process that slept
in its commit may wake up in between.

The assignments are read first. The row that counts for an item is the one at its
assignment's source offset, in the snapshot, `item-vectors` or the input; every other row is
skipped without judging it again. An assignment whose row is nowhere is a ghost.

A snapshot only saves reading: one that does not fit the logs, or turns out to be damaged, is
left aside, and its partition is read from the beginning of the topics.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.engine.cluster_engine import Restored
from pipeline.engine.setting import EngineSettings
from pipeline.errors import TopicError, TransientError
from pipeline.messages.embedding import without_next
from pipeline.messages.model import Model, ModelFold
from pipeline.messages.policy import EmbeddingPolicy
from pipeline.messages.records import Record
from pipeline.services.assigner.restore_partition import PartitionRestore
from pipeline.services.assigner.succession import Waiting
from pipeline.state.snapshot import LoadedSnapshot, SnapshotError
from pipeline.streams.contract import Broker, Range, Reader

SLICE_RECORDS = 4000
SLICE_WAIT_S = 0.1


class Slice(NamedTuple):
    """What was read between two turns of the loop."""

    n_records: int
    source: str = "topic"
    """Or ``snapshot``."""
    ratio: float = 0.0
    """How much of everything is read by now."""


@dataclass(slots=True, eq=False)
class RestoreResult:
    """What was read back."""

    partitions: dict[int, Restored]
    model: Model | None
    n_records: int = 0
    sources: dict[int, str] = field(default_factory=dict)
    """Partition -> ``snapshot`` or ``topic``."""


@dataclass(slots=True, eq=False)
class Restore:
    """Reads a set of partitions that were assigned together."""

    broker: Broker
    settings: EngineSettings
    committed: Mapping[int, int | None]
    """Partition -> committed offset, fetched behind barrier 1."""
    since: int | None = None
    """The epoch with which the embedding model took over that stands; None: there was no other."""
    find: Callable[[int], LoadedSnapshot | None] | None = None
    """The snapshot of a partition, if there is one to be used; None: there are none at all."""
    reject: Callable[[int, str], None] | None = None
    """Is told of a snapshot that proved useless, and why."""

    _useless: set[int] = field(default_factory=set)
    """Partitions whose snapshot is left aside."""
    _n_total: int = 0
    _n_read: dict[str, int] = field(default_factory=dict)
    """By topic, and of the snapshots: offsets passed, and rows."""

    def run(self) -> Generator[Slice, None, RestoreResult]:
        """Yield after each slice what it read; return everything that was read.

        Raises
        ------
        TopicError
            What was committed does not fit the logs: going on would process everything again,
            skip, or forget.
        """
        while True:
            try:
                return (yield from self._run())
            except _UselessError as useless:  # rare: so all is read again, in the one way there is
                self._leave(useless.partition, str(useless))

    def _run(self) -> Generator[Slice, None, RestoreResult]:
        topics = self.settings.topics
        result = RestoreResult({}, None)
        partitions = self._begin()
        marks = {n: p.snapshot.marks for n, p in partitions.items() if p.snapshot is not None}
        result.sources = {n: "snapshot" if n in marks else "topic" for n in partitions}
        changelogs = (
            (
                topics.assignments, {n: m.assignments for n, m in marks.items()},
                PartitionRestore.fold_assignments,
            ),
            (topics.vectors, {n: m.vectors for n, m in marks.items()},
             PartitionRestore.fold_vectors),
            (topics.statistics, {n: m.statistics for n, m in marks.items()},
             PartitionRestore.fold_statistics),
        )  # fmt: skip
        for topic, known, fold in changelogs:
            for records in self._read(topic, {n: known.get(n, 0) for n in partitions}):
                for number, mine in _by_partition(records):
                    fold(partitions[number], mine)
                yield self._slice(records)
                result.n_records += len(records)
        for number, partition in partitions.items():
            if self.committed[number] is None:
                _check_uncommitted(f"{topics.input}/{number}", partition)

        result.model = yield from self._read_model()
        if result.model is not None:
            self.settings = self.settings.under(result.model.manifest)
            self.since = result.model.manifest.embedding_since
            self._await(partitions, result.model)
        for number, partition in partitions.items():
            if partition.has_assignments() and result.model is None:
                raise TopicError(
                    f"{topics.assignments} has assignments in partition {number}, but "
                    f"{topics.model} holds no model: a derived topic was deleted; delete all of "
                    f"them and the group's offsets to begin anew"
                )
            partition.read_assignments(self.settings, self.since)
            yield self._slice(())
            yield from self._take_snapshot(partition, result)

        for records in self._read_input(partitions):
            for number, mine in _by_partition(records):
                partitions[number].take_input(mine)
            yield self._slice(records)
            result.n_records += len(records)
        for number, partition in partitions.items():
            for _ in partition.take_kept():
                yield self._slice(())
            result.partitions[number] = partition.restored()
        return result

    # --- the beginning ------------------------------------------------------------

    def _begin(self) -> dict[int, PartitionRestore]:
        topics = self.settings.topics
        inputs = self.broker.ranges(topics.input)
        changelogs = {
            name: self.broker.ranges(name)
            for name in (topics.assignments, topics.vectors, topics.statistics)
        }
        partitions = {}
        self._n_read, self._n_total = {}, 0
        for number, committed in self.committed.items():
            log, logs = inputs[number], {name: found[number] for name, found in changelogs.items()}
            if committed is not None:
                _check_committed(
                    f"{topics.input}/{number}", committed, log,
                    has_statistics=logs[topics.statistics].high > 0,
                )  # fmt: skip
            snapshot = self._snapshot(number, log, logs)
            partitions[number] = PartitionRestore(
                number, log.low if committed is None else committed, log.high,
                self.settings, snapshot,
            )  # fmt: skip
            starts = dict.fromkeys(logs, 0)
            begins_at = log.low
            if snapshot is not None:
                starts = self._marks(snapshot)
                begins_at = snapshot.marks.next_offset
                self._n_total += snapshot.n_rows
            self._n_total += max(0, partitions[number].next_offset - begins_at)
            self._n_total += sum(
                max(0, found.high - max(starts[name], found.low)) for name, found in logs.items()
            )
        return partitions

    def _marks(self, snapshot: LoadedSnapshot) -> dict[str, int]:
        topics, marks = self.settings.topics, snapshot.marks
        return {
            topics.assignments: marks.assignments,
            topics.vectors: marks.vectors,
            topics.statistics: marks.statistics,
        }

    def _snapshot(
        self, number: int, log: Range, logs: Mapping[str, Range]
    ) -> LoadedSnapshot | None:
        """The snapshot of a partition, if it fits the logs."""
        committed = self.committed[number]
        if self.find is None or committed is None or number in self._useless:
            return None
        snapshot = self.find(number)
        if snapshot is None:
            return None
        problem = None
        if snapshot.next_offset > committed:
            problem = f"it is of offset {snapshot.next_offset}, but {committed} is committed"
        elif self.settings.input_is_compacted and snapshot.marks.next_offset < log.low:
            # with `item-vectors` for every row this would do no harm
            problem = f"the input begins at {log.low}, behind its {snapshot.marks.next_offset}"
        for name, mark in self._marks(snapshot).items():
            if not logs[name].low <= mark <= logs[name].high:
                problem = f"{name} holds {logs[name].low} to {logs[name].high}, not its {mark}"
        if problem is None:
            return snapshot
        self._leave(number, problem)
        return None

    def _leave(self, number: int, problem: str) -> None:
        self._useless.add(number)
        if self.reject is not None:
            self.reject(number, problem)

    def _await(self, partitions: Mapping[int, PartitionRestore], model: Model) -> None:
        """Look out for vectors of another embedding model, where one is on its way or just came."""
        settings, since = self.settings, model.manifest.embedding_since
        successor = settings.embedding.successor
        for number, partition in partitions.items():
            arrives = since is not None and (partition.embedding_since or 0) < since
            snapshot = partition.snapshot
            if snapshot is not None and (
                successor is not None or arrives or snapshot.identity.embedding_since != since
            ):
                raise _UselessError(number, "the embedding model changes, or has since it was made")
            if successor is not None:
                partition.successors = self._waiting(successor, partition)
            if arrives:
                partition.arrivals = self._waiting(without_next(settings.embedding), partition)

    def _waiting(self, embedding: EmbeddingPolicy, partition: PartitionRestore) -> Waiting:
        settings = self.settings
        return Waiting(embedding, settings.limits, settings.events.metadata, partition.kept_waiting)

    # --- reading ------------------------------------------------------------------

    def _read(self, topic: str, starts: Mapping[int, int] | None) -> Iterator[Sequence[Record]]:
        """Slices of a topic up to the end that it has now: barrier 2."""
        reader = self.broker.reader(topic, starts)
        begun_at = reader.positions
        try:
            while not reader.at_end:
                records = _slice(reader)
                if starts is not None:
                    self._pass(topic, begun_at, reader)
                yield records
        finally:
            reader.close()

    def _read_model(self) -> Generator[Slice, None, Model | None]:
        fold = ModelFold()
        for records in self._read(self.settings.topics.model, None):
            fold.fold(records)
            yield self._slice(records)
        fold.check_wire(self.settings.topics.model)
        return fold.newest

    def _take_snapshot(
        self, partition: PartitionRestore, result: RestoreResult
    ) -> Generator[Slice, None, None]:
        if partition.snapshot is None:
            return
        try:
            for n_rows in partition.take_snapshot():
                self._n_read["snapshot"] = self._n_read.get("snapshot", 0) + n_rows
                result.n_records += n_rows
                yield Slice(n_rows, "snapshot", self._ratio)
        except SnapshotError as error:
            raise _UselessError(partition.number, str(error)) from error

    def _read_input(self, partitions: Mapping[int, PartitionRestore]) -> Iterator[Sequence[Record]]:
        """Slices of the input, up to the committed offsets and for items that miss their row."""
        wanted = {
            n: 0 if p.snapshot is None else p.snapshot.marks.next_offset
            for n, p in partitions.items()
            if p.wants_input()
        }
        if not wanted:
            return
        topic = self.settings.topics.input
        reader = self.broker.reader(topic, wanted)
        begun_at = reader.positions

        def left() -> dict[int, int]:
            """Where the partitions are that have not come to their committed offset."""
            at = reader.positions
            return {n: at[n] for n in wanted if at[n] < partitions[n].next_offset}

        try:
            while not reader.at_end and left():
                records = _slice(reader)
                self._pass(topic, begun_at, reader)
                yield records
            for n, end in left().items():
                raise TopicError(
                    f"{topic}/{n} ends at {end}, but was processed up to "
                    f"{partitions[n].next_offset}: the broker lost records, or it was made anew"
                )
        finally:
            reader.close()

    def _pass(self, topic: str, begun_at: Mapping[int, int], reader: Reader) -> None:
        passed = sum(at - begun_at.get(n, at) for n, at in reader.positions.items())
        self._n_read[topic] = passed

    @property
    def _ratio(self) -> float:
        """Of what had to be read when the restore began; what was written since is beyond it."""
        return min(1.0, sum(self._n_read.values()) / max(1, self._n_total))

    def _slice(self, records: Sequence[Record]) -> Slice:
        return Slice(len(records), "topic", self._ratio)


class _UselessError(SnapshotError):
    """A snapshot was found wanting in the middle of a restore."""

    def __init__(self, partition: int, reason: str) -> None:
        super().__init__(reason)
        self.partition = partition


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


def _check_uncommitted(where: str, partition: PartitionRestore) -> None:
    """No owner has committed anything; what an aborted transaction left in the logs is no state."""
    if partition.has_assignments() or partition.has_head:
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


def _by_partition(records: Sequence[Record]) -> Iterator[tuple[int, Sequence[Record]]]:
    """The records of each partition, in the order they have."""
    numbers = {record.partition for record in records}
    if len(numbers) == 1:
        yield numbers.pop(), records
        return
    for number in sorted(numbers):
        yield number, [record for record in records if record.partition == number]
