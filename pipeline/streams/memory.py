"""A cluster of brokers in one object: the twin that tests and the simulation run on.

One thread, no clock, no chance of its own: the same calls give the same answers. What Kafka
leaves to time is a call here, so that a test decides when it happens: a session or a
transaction times out (`MemoryBroker.expire_session`, `expire_transaction`), the marker of a
committed transaction arrives (`hold_markers`, `release_markers`), the cleaner runs (`compact`,
`truncate`). A call that would have to wait for that comes back with nothing (a poll, a read), or
raises `TransientError`.

Faults are values (`Fault`, by the number of the commit). What happens to a process *inside* a
commit is told by ``between``, called at each `Stage` of it: an exception from there is a crash at
that very point; and what it does to other members, this one slept through. A process that is
paused is one that is not called; one that was killed, one that never is again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum

from pipeline.errors import (
    AbortedError,
    FatalError,
    FencedError,
    TopicError,
    TransientError,
    UnreachableError,
)
from pipeline.messages.records import Headers, Outgoing, Record
from pipeline.streams.contract import GroupMember, Poll, Range, TopicSettings
from pipeline.streams.group import Group, Member
from pipeline.streams.log import Topics
from pipeline.streams.memory_clients import MemoryProducer, MemoryReader
from pipeline.streams.transactions import Coordinator, Place, Transaction

OFFSETS = ("__consumer_offsets", 0)
"""Where committed offsets live; its markers can be held like those of any partition."""


class Fault(StrEnum):
    """How a commit fails."""

    ABORTED = "aborted"  #       nothing becomes visible, the process may go on
    UNDECIDED = "undecided"  #   the process must end, the transaction stays open behind it
    UNANSWERED = "unanswered"  # the process must end and does not know that it was committed


class Stage(StrEnum):
    """Moments inside a commit, in their order."""

    WRITTEN = "written"  #            the records are in the logs, undecided, but for those queued
    OFFSETS_SENT = "offsets_sent"  #  the offsets too; the generation was looked at for good
    ENDED = "ended"  #                committed, but the caller has not heard of it


class MemoryBroker:
    """Implements `pipeline.streams.contract.Broker`, and the abilities of the module's docstring.

    Parameters
    ----------
    faults
        Number of the commit, counted over all streams from 0 (`n_commits` is the next one's)
        -> how it fails. It is read at each commit and may be changed in between.
    batch_sizes
        Called before each poll and read: the most records that it may hand out. 0 is allowed.
    between
        Called inside each commit with the stage reached and the stream.
    """

    def __init__(
        self,
        *,
        faults: Mapping[int, Fault] | None = None,
        batch_sizes: Callable[[], int] | None = None,
        between: Callable[[Stage, MemoryStream], None] | None = None,
    ) -> None:
        self.faults: dict[int, Fault] = dict(faults or {})
        self.batch_sizes = batch_sizes
        self.between = between
        self.n_commits = 0
        self.now_ms = 0
        """The timestamp of a record that brings none."""
        self.n_queued = 0
        """How many of a commit's last records leave the producer only after the offsets, as a
        client may do it: restore barriers in the wrong order would never see those."""
        self.is_away = False
        """True: an outage. Nothing is lost by it, and nothing times out meanwhile."""
        self._topics = Topics()
        self._groups: dict[tuple[str, str], Group] = {}
        self._coordinator = Coordinator(self._decide)

    # The contract

    def wait(self, timeout_s: float) -> None:
        if self.is_away:
            raise UnreachableError(f"no broker answered within {timeout_s} s")

    def topics(self, names: Iterable[str]) -> Mapping[str, TopicSettings]:
        self._answer()
        return {n: self._topics.settings[n] for n in names if n in self._topics.settings}

    def topic_ids(self, names: Iterable[str]) -> Mapping[str, str]:
        self._answer()
        return {n: self._topics.ids[n] for n in names if n in self._topics.ids}

    def create_topics(
        self, topics: Iterable[TopicSettings], *, replication_factor: int = 1
    ) -> None:
        self._answer()
        for topic in topics:
            self._topics.create(topic)

    def ranges(self, topic: str) -> Mapping[int, Range]:
        self._answer()
        return {p: Range(log.low, log.high) for p, log in enumerate(self._topics.logs(topic))}

    def committed(self, group_id: str, topic: str) -> Mapping[int, int | None]:
        self._answer()
        group = self._group(group_id, topic)
        pending = [p for p in range(group.n_partitions) if group.is_pending(p)]
        if pending:
            raise TransientError(f"transactions of {group_id} are pending on partitions {pending}")
        return {p: group.offsets.get(p) for p in range(group.n_partitions)}

    def stream(self, member: GroupMember) -> MemoryStream:
        self._answer()
        return MemoryStream(self, member, self._group(member.group_id, member.topic))

    def reader(self, topic: str, starts: Mapping[int, int] | None = None) -> MemoryReader:
        self._answer()
        return MemoryReader(self, topic, starts)

    def producer(self) -> MemoryProducer:
        return MemoryProducer(self)

    # What a test does to the cluster

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> int:
        """Write one record without a transaction; its offset."""
        at_ms = self.now_ms if timestamp_ms is None else timestamp_ms
        return self._topics.log(topic, partition).append(partition, key, value, headers, at_ms)

    def records(self, topic: str, partition: int, *, committed: bool = True) -> list[Record]:
        """What the log holds: as read_committed shows it, or with what is undecided, too."""
        log = self._topics.log(topic, partition)
        return log.readable() if committed else list(log.records)

    def compact(
        self,
        topic: str,
        partition: int,
        *,
        keep_tombstones: bool,
        before: int | None = None,
        young_from: int | None = None,
    ) -> None:
        """Remove every record that a newer one of its key supersedes; offsets stay.

        The newer one lies below the last stable offset, and below ``before`` where it is given.
        Tombstones go too unless told otherwise: none of them, or none from ``young_from`` on.
        """
        self._topics.log(topic, partition).compact(
            keep_tombstones=keep_tombstones, before=before, young_from=young_from
        )

    def truncate(self, topic: str, partition: int, before: int) -> None:
        """Retention: the log begins at ``before`` now."""
        self._topics.log(topic, partition).truncate(before)

    def delete_topic(self, topic: str) -> None:
        """The topic and its groups' offsets are gone; it may be made anew."""
        self._topics.delete(topic)
        self._groups = {key: group for key, group in self._groups.items() if key[1] != topic}

    def forget_offsets(self, group_id: str, topic: str) -> None:
        """The retention of the offsets topic ran out."""
        self._group(group_id, topic).offsets.clear()

    def crash(self, stream: MemoryStream) -> None:
        """The stream's process is dead: closing it says nothing to anybody any more."""
        stream._is_closed = True

    def expire_session(self, stream: MemoryStream) -> None:
        """The group has not heard of a member for too long and goes on without it."""
        if stream.member in stream.group.targets:
            stream.group.leave(stream.member)

    def expire_transaction(self, transactional_id: str) -> None:
        """A transaction was open for too long: it is aborted, and its producer is fenced."""
        self._coordinator.expire(transactional_id)

    def forget_transaction(self, transactional_id: str) -> None:
        """The coordinator died before it kept what is open; its producer is still the newest."""
        self._coordinator.abort(transactional_id)

    def hold_markers(self, topic: str, partition: int) -> None:
        """Markers that end a transaction do not arrive in this partition until released.

        A producer's next transaction, or its successor, waits for them: there they arrive, too.
        """
        if (topic, partition) != OFFSETS:
            self._topics.log(topic, partition)  # it exists
        self._coordinator.held.add((topic, partition))

    def release_markers(self, topic: str | None = None, partition: int | None = None) -> None:
        """Markers held in one partition, or in all of a topic, or everywhere, arrive."""
        held = self._coordinator.held
        chosen = {p for p in held if topic in (None, p[0]) and partition in (None, p[1])}
        self._coordinator.release(chosen)

    # What streams, readers and producers ask

    def _answer(self) -> None:
        if self.is_away:
            raise TransientError("the broker is away")

    def _next_fault(self) -> Fault | None:
        fault = self.faults.get(self.n_commits)
        self.n_commits += 1
        return None if fault is None else Fault(fault)  # a plain word becomes what it names

    def _limit(self, max_records: int) -> int:
        return max_records if self.batch_sizes is None else min(max_records, self.batch_sizes())

    def _group(self, group_id: str, topic: str) -> Group:
        n_partitions = len(self._topics.logs(topic))
        return self._groups.setdefault((group_id, topic), Group(n_partitions))

    def _write(self, transaction: Transaction, record: Outgoing) -> None:
        topic, partition, key, value, headers, timestamp_ms = record
        at_ms = self.now_ms if timestamp_ms is None else timestamp_ms
        log = self._topics.log(topic, partition)
        transaction.places[topic, partition] = None
        log.append(partition, key, value, headers, at_ms, transaction)

    def _decide(self, place: Place, transaction: Transaction, commits: bool) -> None:
        if place == OFFSETS:
            for group in self._groups.values():
                if transaction in group.pending:
                    group.end(transaction, commits=commits)
        elif place[0] in self._topics.settings:
            self._topics.log(*place).end(transaction, commits=commits)


class MemoryStream:
    """Implements `pipeline.streams.contract.Stream`; joins its group at the first poll."""

    def __init__(self, broker: MemoryBroker, member: GroupMember, group: Group) -> None:
        self.who = member
        self.group = group
        self.member = Member(member.instance_id)
        self._broker = broker
        self._epoch = broker._coordinator.take_over(member.transactional_id)
        self._positions: dict[int, int] = {}
        self._restarts: dict[int, int] = {}
        """Per started partition, where `rewind` goes back to."""
        self._ends: dict[int, int] = {}
        self._is_closed = False
        self._end: FatalError | None = None

    def poll(self, max_records: int, *, timeout_s: float, max_bytes: int | None = None) -> Poll:
        self._check_usable()
        if self._broker.is_away:
            self.rewind()
            raise TransientError("the broker is away")
        lost = self._rejoin()
        revoked = frozenset() if lost else self.group.sync(self.member)
        for partition in lost | revoked:
            self._forget(partition)
        if lost:  # joining again takes until the next poll
            return Poll(lost=lost)
        assigned = self.group.hand_over(self.member)
        records = self._read(self._broker._limit(max_records), max_bytes)
        return Poll(records, assigned, revoked, lost)

    def start(self, partition: int, offset: int) -> None:
        assert partition in self.member.told, f"partition {partition} is not ours"
        self._positions[partition] = self._restarts[partition] = offset

    def stop(self, partition: int) -> None:
        assert partition in self.member.told, f"partition {partition} is not ours"
        self._forget(partition)

    def commit(self, outgoing: Iterable[Outgoing], next_offsets: Mapping[int, int]) -> None:
        self._check_usable()
        assert next_offsets, "without offsets nothing would stop a process that was replaced"
        fault = self._broker._next_fault()
        records = list(outgoing)
        if self._broker.is_away:
            raise AbortedError("the broker is away", code="_TRANSPORT")
        # The broker itself looks at the generation only, and not at who owns what in it.
        if not self.member.told.issuperset(next_offsets):
            gone = sorted(next_offsets.keys() - self.member.told)
            raise AbortedError(f"partitions {gone} are no longer ours", code="not_owned")
        self._check_epoch()
        transaction = self._broker._coordinator.begin(self.who.transactional_id)
        n_early = max(0, len(records) - self._broker.n_queued)
        self._write(transaction, records[:n_early])
        self._reach(Stage.WRITTEN, transaction)
        refusal = self.group.refusal(self.member)
        if refusal is not None:
            self._broker._coordinator.end(transaction, commits=False)
            raise AbortedError(f"offsets of {sorted(next_offsets)} were refused", code=refusal)
        self.group.pending[transaction] = dict(next_offsets)
        transaction.places[OFFSETS] = None
        self._reach(Stage.OFFSETS_SENT, transaction)
        self._write(transaction, records[n_early:])
        if fault is Fault.ABORTED:
            self._broker._coordinator.end(transaction, commits=False)
            raise AbortedError("the commit was told to abort", code="TRANSACTION_ABORTABLE")
        if fault is Fault.UNDECIDED:
            self._fail(FatalError("the commit was told to fail before its end"))
        self._broker._coordinator.end(transaction, commits=True)
        self._reach(Stage.ENDED, transaction)
        if fault is Fault.UNANSWERED:
            self._fail(FatalError("the commit was told to get no answer"))
        for partition in next_offsets.keys() & self._restarts.keys():
            self._restarts[partition] = next_offsets[partition]

    def rewind(self) -> None:
        self._positions.update(self._restarts)

    def lag(self) -> Mapping[int, int]:
        return {p: max(0, self._ends.get(p, 0) - self._restarts[p]) for p in self._restarts}

    def close(self) -> None:
        was_closed, self._is_closed = self._is_closed, True
        if was_closed or self._broker.is_away:
            return
        # After a fatal error a producer cannot abort any more: its successor or time does.
        if self._end is None and self._is_current():
            self._broker._coordinator.abort(self.who.transactional_id)
        # A static member says no goodbye: its place is kept for the session timeout.
        if self.member in self.group.targets and self.member.instance_id is None:
            self.group.leave(self.member)

    def _forget(self, partition: int) -> None:
        for known in (self._positions, self._restarts, self._ends):
            known.pop(partition, None)

    def _write(self, transaction: Transaction, records: Sequence[Outgoing]) -> None:
        try:
            for record in records:
                self._broker._write(transaction, record)
        except TopicError:
            self._broker._coordinator.end(transaction, commits=False)
            raise

    def _rejoin(self) -> frozenset[int]:
        """Join if the group does not know this member; what it has lost by that."""
        if self.member.is_fenced:
            self._fail(FencedError(f"another process is instance {self.who.instance_id} now"))
        if self.member in self.group.targets:
            return frozenset()
        lost = frozenset(self.member.told)
        self.member = Member(self.who.instance_id)
        self.group.join(self.member)
        return lost

    def _read(self, limit: int, max_bytes: int | None) -> list[Record]:
        """Partitions take turns in being the first, so that none waits for ever."""
        left_bytes = max_bytes
        started = sorted(self._positions)
        if started:
            turn = self._broker.n_commits % len(started)
            started = started[turn:] + started[:turn]
        records: list[Record] = []
        for p in started:
            log = self._broker._topics.log(self.who.topic, p)
            if not log.low <= self._positions[p] <= log.high:
                raise TopicError(
                    f"partition {p} of {self.who.topic} holds offsets from {log.low} to "
                    f"{log.high}, but was started at {self._positions[p]}"
                )
            batch, end = log.read(self._positions[p], limit - len(records))
            if left_bytes is not None:
                n_taken, left_bytes = _within(batch, left_bytes)
                if n_taken < len(batch):
                    end = batch[n_taken].offset
                    batch = batch[:n_taken]
            self._positions[p] = end
            self._ends[p] = log.end_of_records()
            records += batch
        return records

    def _reach(self, stage: Stage, transaction: Transaction) -> None:
        """Let others act, and see whether this process was replaced meanwhile, or forgotten."""
        if self._broker.between is None:
            return
        self._broker.between(stage, self)
        if stage is Stage.ENDED:
            return
        self._check_epoch()
        if not self._broker._coordinator.is_open(transaction):
            self._epoch = self._broker._coordinator.take_over(self.who.transactional_id)
            raise AbortedError("the broker knows of no transaction", code="INVALID_TXN_STATE")

    def _check_epoch(self) -> None:
        if not self._is_current():
            self._fail(FencedError(f"another process is {self.who.transactional_id} now"))

    def _is_current(self) -> bool:
        return self._broker._coordinator.is_current(self.who.transactional_id, self._epoch)

    def _check_usable(self) -> None:
        assert not self._is_closed, "the stream was closed"
        if self._end is not None:
            raise self._end

    def _fail(self, error: FatalError) -> None:
        self._end = error
        raise error


def _within(batch: Sequence[Record], left_bytes: int) -> tuple[int, int]:
    """How many are taken until the bytes left are used up, and what is left of those then."""
    for number, record in enumerate(batch):
        if left_bytes <= 0:
            return number, left_bytes
        left_bytes -= len(record.value or b"")
    return len(batch), left_bytes
