"""A member of a group that writes in transactions, on Kafka.

The state of an owned partition goes one way: *new* (the callback has taken it, paused), *known*
(its committed offset is read: barrier 1; reported by `poll`), *started* (hands out records). The
client is told to pause and to seek, but what is handed out is decided here: only records of
started partitions, and only at or past the offset that is due.

All calls come from one thread, and callbacks run inside ``consume`` and nowhere else; they
note and never raise, because the client would assign partitions behind our back.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from pipeline.errors import AbortedError, FatalError, FencedError, TopicError, TransientError
from pipeline.messages.records import Outgoing, Record
from pipeline.streams.contract import GroupMember, Poll
from pipeline.streams.kafka.client import (
    NEVER_BETTER,
    OUTSIDE_THE_LOG,
    ClientSettings,
    Event,
    Watch,
    failure,
    is_fatal,
    known_end,
    made,
    only_records,
    places_of,
    records_of,
    stable_end,
)
from pipeline.streams.kafka.portion import Portion
from pipeline.streams.kafka.transactions import Transactions

_CONSUME_S: Final = 0.15  # the binding cuts longer waits into pieces of 0.2 s
_HOLD_S: Final = 0.2
_BARRIER_S: Final = 0.5


class KafkaStream:
    """Implements `pipeline.streams.contract.Stream`.

    Parameters
    ----------
    reach_limit_s
        How long the start waits for the broker before `UnreachableError`.
    stall_limit_s
        A consumer that hands out nothing for so long although there is something is replaced.
    answers
        Whether a broker answers now; any thread may ask.
    on_leave
        Called before the group is left.

    Attributes
    ----------
    n_recreated
        Consumers replaced because they had stalled, or had lost their seat in the group.
    """

    def __init__(
        self,
        settings: ClientSettings,
        member: GroupMember,
        watch: Watch,
        *,
        reach_limit_s: float,
        stall_limit_s: float,
        answers: Callable[[], bool],
        on_leave: Callable[[], None] = lambda: None,
    ) -> None:
        self.n_recreated = 0
        self._on_leave = on_leave
        self._settings, self._member, self._watch = settings, member, watch
        self._stall_limit_s = stall_limit_s
        self._new: set[int] = set()
        self._known: set[int] = set()
        self._due: dict[int, int] = {}  # started: the next offset to hand out
        self._base: dict[int, int] = {}  # started: where a rewind goes
        self._ends: dict[int, int] = {}  # started: where the client last said "the end"
        self._unsought: dict[int, int] = {}  # started, but the client would not seek yet
        self._revoked: set[int] = set()
        self._lost: set[int] = set()
        self._in_callback: BaseException | None = None
        self._hold_until = 0.0
        self._portion = Portion()
        self._lively_at = time.monotonic()
        self._closed = False
        # first: it ends what a predecessor had open, and committed offsets may hang on that
        self._transactions = Transactions(
            settings, member.transactional_id, watch, limit_s=reach_limit_s, answers=answers
        )
        self._consumer = self._make_consumer()
        # a consumer that is collected in the middle of a rebalance keeps the process alive for ever
        atexit.register(self._leave)

    # What comes in

    def poll(self, max_records: int, *, timeout_s: float, max_bytes: int | None = None) -> Poll:
        self._transactions.attend()
        self._watch.tell()
        self._seek_again()
        if self._hold_until:
            self._hold(timeout_s)
            return self._changes([], {})
        known = self._pass_barrier() if self._new else {}
        if known:  # first things first: nothing flows before the caller has started them
            return self._changes([], known)
        records: list[Record] = []
        deadline = time.monotonic() + timeout_s
        wait_s = timeout_s
        self._portion.begin(max_records, max_bytes)
        while True:
            messages = self._consume(self._portion.n_asked, min(wait_s, _CONSUME_S))
            is_more_likely = self._portion.take(messages)
            if messages:
                records += self._take(messages)
            if self._revoked or self._lost or self._new:
                break
            if records:
                if not is_more_likely:
                    break
                wait_s = 0.0  # joined only while there is a backlog, without waiting for it
            else:
                wait_s = deadline - time.monotonic()
                if wait_s <= 0.0:
                    break
        if records:
            self._lively_at = time.monotonic()
            gone = self._revoked | self._lost
            if gone:
                records = [record for record in records if record.partition not in gone]
        elif time.monotonic() - self._lively_at > self._stall_limit_s:
            self._look_for_stall()
        return self._changes(records, {})

    def start(self, partition: int, offset: int) -> None:
        assert partition in self._known, f"partition {partition} is not owned"
        self._base[partition] = offset
        self._place(partition, offset)
        self._lively_at = time.monotonic()

    def stop(self, partition: int) -> None:
        assert partition in self._known, f"partition {partition} is not owned"
        self._pause([partition])
        self._forget(partition)

    def rewind(self) -> None:
        for partition, offset in self._base.items():
            self._place(partition, offset)

    def lag(self) -> Mapping[int, int]:
        lag = {}
        for partition, base in self._base.items():
            reached = base
            if base >= self._due[partition]:  # all that was handed out is committed
                reached = max(base, self._ends.get(partition, base))
            end = known_end(self._consumer, self._member.topic, partition, self._watch)
            lag[partition] = max(0, end - reached)
        return lag

    # What goes out

    def commit(self, outgoing: Iterable[Outgoing], next_offsets: Mapping[int, int]) -> None:
        assert next_offsets, "a transaction without offsets is checked by nobody"
        # the broker looks at the generation of the group only, not at who owns what in it
        if not next_offsets.keys() <= self._known:
            gone = sorted(next_offsets.keys() - self._known)
            raise AbortedError(f"partitions {gone} are no longer ours", code="not_owned")
        topic = self._member.topic
        offsets = [TopicPartition(topic, p, offset) for p, offset in next_offsets.items()]
        metadata = self._consumer.consumer_group_metadata()
        try:
            self._transactions.write(outgoing, offsets, metadata)
        except AbortedError:
            if self._transactions.group_has_moved:
                # until the callback of the rebalance comes, every transaction would end like this
                self._hold_until = time.monotonic() + _HOLD_S
                self._pause(self._due)
            raise
        for partition, offset in next_offsets.items():
            if partition in self._base:
                self._base[partition] = offset

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._leave)
        self._leave()
        self._known.clear()
        self._transactions.close()
        self._watch.tell()

    # Clients

    def _leave(self) -> None:
        self._on_leave()
        self._consumer.close()

    def _make_consumer(self) -> Consumer:
        group_id, instance_id = self._member.group_id, self._member.instance_id
        settings = self._settings.member(group_id, instance_id, self._watch)
        consumer: Consumer = made(Consumer, settings)
        consumer.subscribe(
            [self._member.topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        return consumer

    # Callbacks: inside consume() or close(), and they never raise

    @contextmanager
    def _unraised(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - out of here it would reach the client, see above
            self._in_callback = self._in_callback or error

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        with self._unraised():
            # an offset that is there in any case; where to start is for the caller to say
            places = [TopicPartition(p.topic, p.partition, OFFSET_BEGINNING) for p in partitions]
            if self._settings.is_incremental:
                consumer.incremental_assign(places)
            else:
                consumer.assign(places)
            if places:
                consumer.pause(places)
            self._new |= {p.partition for p in partitions}

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        with self._unraised():
            self._take_away(consumer, partitions, self._revoked)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        with self._unraised():
            self._take_away(consumer, partitions, self._lost)

    def _take_away(
        self, consumer: Consumer, partitions: list[TopicPartition], gone: set[int]
    ) -> None:
        for p in partitions:
            if p.partition in self._known:  # nobody was told of the others
                gone.add(p.partition)
            self._known.discard(p.partition)
            self._new.discard(p.partition)
            self._forget(p.partition)
        if self._settings.is_incremental:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    # Polling

    def _consume(self, n_messages: int, timeout_s: float) -> list[Message]:
        try:
            messages: list[Message] = self._consumer.consume(n_messages, max(0.0, timeout_s))
        except KafkaException as problem:
            # what it had popped already is gone, while its position has moved on
            self.rewind()
            error: KafkaError = problem.args[0]
            if error.fatal():
                self._end_or_renew(failure(error, "reading"))
            raise TransientError(f"reading: {error.name()}: {error.str()}") from problem
        except BaseException:  # a signal's
            self.rewind()
            raise
        if self._in_callback is not None:
            error_in_callback, self._in_callback = self._in_callback, None
            if isinstance(error_in_callback, KafkaException):
                said = failure(error_in_callback.args[0], "taking or giving partitions")
                raise said from error_in_callback
            raise error_in_callback
        return messages

    def _take(self, messages: list[Message]) -> list[Record]:
        """Records of started partitions from the offset that is due on; events are handled."""
        messages, events = only_records(messages)
        for event in events:
            self._handle(event)
        if not messages:
            return []
        partitions, offsets = places_of(messages)
        # the last one given for a key stays, so these are the first and the last per partition
        firsts = dict(zip(reversed(partitions), reversed(offsets), strict=True))
        for partition, first in firsts.items():
            due = self._due.get(partition)
            if due is None or first < due or partition in self._unsought:
                return self._take_some(messages)
        for partition, last in dict(zip(partitions, offsets, strict=True)).items():
            self._due[partition] = last + 1
        return records_of(messages, partitions, offsets)

    def _take_some(self, messages: list[Message]) -> list[Record]:
        """As `_take`, one by one: some were fetched before a stop, a rewind or a revocation."""
        wanted = []
        partitions, offsets = places_of(messages)
        for message, partition, offset in zip(messages, partitions, offsets, strict=True):
            due = self._due.get(partition)
            if due is not None and offset >= due and partition not in self._unsought:
                self._due[partition] = offset + 1
                wanted.append(message)
        return records_of(wanted, *places_of(wanted))

    def _handle(self, event: Event) -> None:
        partition, offset, error = event
        if error.code() == KafkaError._PARTITION_EOF:
            if partition in self._due:
                if offset != self._ends.get(partition):
                    self._lively_at = time.monotonic()
                self._ends[partition] = offset
        elif error.code() in OUTSIDE_THE_LOG:
            if partition in self._due:
                raise TopicError(
                    f"{self._member.topic}/{partition} holds no offset {self._due[partition]}: "
                    "retention has taken records that were not read, or the topic was made anew"
                )
        elif is_fatal(error) or error.code() in NEVER_BETTER:
            doing = f"reading {self._member.topic} as a member of {self._member.group_id}"
            self._end_or_renew(failure(error, doing))
        else:
            self._watch.remember(error)

    def _pass_barrier(self) -> dict[int, int | None]:
        """Committed offsets of new partitions that no transaction is pending on."""
        asked = [TopicPartition(self._member.topic, p) for p in sorted(self._new)]
        try:
            # waits, at read_committed, for transactions that hold offsets of any of them
            found = self._consumer.committed(asked, timeout=_BARRIER_S)
        except KafkaException as problem:
            error: KafkaError = problem.args[0]
            if error.fatal() or error.code() in NEVER_BETTER:
                raise failure(error, "reading committed offsets") from problem
            self._watch.remember(error)
            return {}
        known = {p.partition: p.offset if p.offset >= 0 else None for p in found if not p.error}
        self._new -= known.keys()
        self._known |= known.keys()
        return known

    def _changes(self, records: list[Record], assigned: Mapping[int, int | None]) -> Poll:
        poll = Poll(records, assigned, frozenset(self._revoked), frozenset(self._lost))
        self._revoked.clear()
        self._lost.clear()
        return poll

    def _hold(self, timeout_s: float) -> None:
        """Take nothing until the group's own callback had time to come; it needs polling."""
        left_s = self._hold_until - time.monotonic()
        messages = self._consume(1, min(left_s, timeout_s, 0.05))
        for event in only_records(messages)[1]:
            self._handle(event)
        if left_s <= 0.0:
            self._hold_until = 0.0
            for partition, offset in dict(self._due).items():
                self._place(partition, offset)

    # Places

    def _place(self, partition: int, offset: int) -> None:
        """Hand out from ``offset`` on, now or as soon as the client can."""
        self._due[partition] = offset
        self._ends.pop(partition, None)
        place = TopicPartition(self._member.topic, partition, offset)
        try:
            self._consumer.seek(place)
        except KafkaException as problem:
            error: KafkaError = problem.args[0]
            if error.fatal():
                raise failure(error, f"seeking {self._member.topic}/{partition}") from problem
            # not being fetched yet: paused, or its leader is away
            self._unsought[partition] = offset
            return
        self._unsought.pop(partition, None)
        if not self._hold_until:
            self._consumer.resume([place])

    def _seek_again(self) -> None:
        for partition, offset in dict(self._unsought).items():
            self._place(partition, offset)

    def _pause(self, partitions: Iterable[int]) -> None:
        places = [TopicPartition(self._member.topic, p) for p in partitions]
        if places:
            self._consumer.pause(places)

    def _forget(self, partition: int) -> None:
        for places in (self._due, self._base, self._ends, self._unsought):
            places.pop(partition, None)

    def _look_for_stall(self) -> None:
        """Replace a consumer that keeps its partitions and gets nothing of what is there."""
        self._lively_at = time.monotonic()
        for partition, due in dict(self._due).items():
            end = stable_end(self._consumer, self._member.topic, partition, self._watch)
            if end is None:  # the broker is away: nothing can be told
                return
            if end > max(due, self._ends.get(partition, due)):
                break
        else:
            return
        self._watch.remember(KafkaError(KafkaError._STATE, "the consumer stalled and is made anew"))
        self._renew_consumer()

    def _end_or_renew(self, problem: FatalError) -> None:
        """Raise, but for a fenced consumer of a process that nobody has replaced.

        A client that heard nothing for a session timeout forgets its member id. Until its callback
        has run, which a call that waits for the same broker delays, it goes on with heartbeats
        without one, and the group takes those for a stranger's in this instance's seat. Who really
        took our place has fenced the producer before.
        """
        if not isinstance(problem, FencedError):
            raise problem
        place = TopicPartition(self._member.topic, 0, 0)
        self._transactions.probe([place], self._consumer.consumer_group_metadata())
        self._watch.remember(KafkaError(KafkaError._STATE, "the consumer lost its seat"))
        self._renew_consumer()

    def _renew_consumer(self) -> None:
        """All that was owned is lost; the group hands it out again."""
        self.n_recreated += 1
        self._consumer.close()  # calls back: what was owned is revoked
        self._lost |= self._known
        for partition in self._known | self._new:
            self._forget(partition)
        self._known.clear()
        self._new.clear()
        self._lively_at = time.monotonic()
        self._consumer = self._make_consumer()
