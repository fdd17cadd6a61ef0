"""Partitions that nobody in a group owns, although the group is at rest: they are given away again.

A cooperative rebalance moves a partition in two steps: its owner gives it up, then joins once more,
and in that second rebalance the partition is handed out. A static member whose process is replaced
between the two never joins the second time, and its successor takes its seat over without any
rebalance, as static members do. The partition has no owner then until the group changes next, and
everybody is well. The client cannot be told to join again. So a thread here looks at the group, and
where the same partitions had no owner at two looks, a visitor joins it and leaves it at once: each
of the two starts a rebalance, in which the group's leader hands out what is not owned.

The visitor asks for another topic than the members do, so nothing of theirs moves to it and back.
One that asked for theirs took 3 of 13 partitions each time, and twice in three left them without an
owner: it was gone before the second step of its own hand-over.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from pipeline.errors import ConfigError
from pipeline.streams.contract import GroupMember
from pipeline.streams.kafka.client import ClientSettings, Watch, made

_LOOK_EVERY_S: Final = 10.0
_MIN_LOOKS: Final = 2
_MAX_DOUBLINGS: Final = 5
_ANSWER_S: Final = 1.0
_VISIT_S: Final = 90.0  # a rebalance waits for its slowest member: max.poll.interval.ms, 60 s
_CLOSE_LIMIT_S: Final = 10.0


class Seat(NamedTuple):
    """A member of the group, and what it was given of the topic."""

    member_id: str
    instance_id: str | None
    partitions: frozenset[int]


class Seen(NamedTuple):
    """What one look at the group found."""

    is_at_rest: bool
    n_partitions: int
    seats: frozenset[Seat]

    @property
    def orphans(self) -> list[int]:
        """Partitions without an owner; none is told of while a rebalance goes on."""
        if not self.is_at_rest or not self.seats:
            return []
        owned = frozenset[int]().union(*(seat.partitions for seat in self.seats))
        return sorted(set(range(self.n_partitions)) - owned)


class Verdicts:
    """Whether it is for this member to start a rebalance; told of every look in turn.

    The first by name goes first, after two equal looks; each next one waits two looks longer, for
    one that hangs, or is of a release that does not look. Who started one that changed nothing
    waits twice as long each time.
    """

    def __init__(self, instance_id: str) -> None:
        self._instance_id = instance_id
        self._before: Seen | None = None
        self._n_equal = 0
        self._n_futile = 0

    def on(self, seen: Seen | None) -> list[int]:
        """Orphans to be given away now; none: nothing is to be done. None: nobody answered."""
        orphans = seen.orphans if seen is not None else []
        if seen is None or not orphans:
            self._before, self._n_equal = None, 0
            if seen is not None and seen.is_at_rest:
                self._n_futile = 0
            return []
        self._n_equal = self._n_equal + 1 if seen == self._before else 1
        self._before = seen
        names = sorted(seat.instance_id for seat in seen.seats if seat.instance_id is not None)
        if self._instance_id not in names:
            return []
        turn = 1 + names.index(self._instance_id)
        if self._n_equal < _MIN_LOOKS * turn << self._n_futile:
            return []
        self._before, self._n_equal = None, 0
        self._n_futile = min(_MAX_DOUBLINGS, self._n_futile + 1)
        return orphans


class Orphans:
    """Looks after the group of one static member, from a thread of its own.

    What it finds is noted on the member's watch and told by the member's own loop: it is no sign of
    life of a loop that hangs. A broker that does not answer, or not to this user, is asked again
    at the next look.

    Parameters
    ----------
    admin
        The client that asks; any thread may use it.
    """

    def __init__(
        self, admin: Any, settings: ClientSettings, member: GroupMember, watch: Watch
    ) -> None:
        self._admin, self._settings, self._member, self._watch = admin, settings, member, watch
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="eddy-orphans", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Idempotent, also before `start`. No thread is left to call a client while Python ends."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_LIMIT_S)

    def _run(self) -> None:
        assert self._member.instance_id is not None, "only who has a name can be replaced"
        verdicts = Verdicts(self._member.instance_id)
        while not self._closing.wait(_LOOK_EVERY_S):
            try:
                orphans = verdicts.on(self._look())
                if orphans:
                    self._give_away(orphans)
            except (KafkaException, ConfigError):
                continue  # a broker that went away meanwhile: the next look finds the same

    def _look(self) -> Seen | None:
        group_id, topic = self._member.group_id, self._member.topic
        try:
            found = self._admin.list_topics(topic, timeout=_ANSWER_S).topics[topic]
            asked = self._admin.describe_consumer_groups([group_id], request_timeout=_ANSWER_S)
            group = self._answer(asked[group_id])
        except (KafkaException, TimeoutError):
            return None
        seats = frozenset(
            Seat(
                member.member_id,
                member.group_instance_id or None,
                frozenset(
                    place.partition
                    for place in member.assignment.topic_partitions
                    if place.topic == topic
                ),
            )
            for member in group.members
        )
        # a topic that is not told of has no partitions here, so nothing is found
        return Seen(group.state == ConsumerGroupState.STABLE, len(found.partitions), seats)

    def _answer(self, future: Future[Any]) -> Any:
        return future.result(2 * _ANSWER_S)  # one that the client has lost is at its end, too

    def _give_away(self, orphans: list[int]) -> None:
        """A visitor joins the group, and leaves once the rebalance that this started is over."""
        group_id, topic = self._member.group_id, self._member.topic
        elsewhere = self._elsewhere()
        if elsewhere is None:
            return
        said = f"{topic} {orphans} have no owner in {group_id}: a rebalance is started"
        self._watch.remember(KafkaError(KafkaError._STATE, said))
        settings = self._settings.member(group_id, None, Watch(_tell_nobody))
        is_over: list[bool] = []

        def on_assign(consumer: Consumer, places: list[TopicPartition]) -> None:
            # what is not assigned here the binding would assign itself, and fetch
            at = [TopicPartition(p.topic, p.partition, OFFSET_BEGINNING) for p in places]
            is_over.append(True)
            consumer.incremental_assign(at)
            if at:
                consumer.pause(at)

        visitor: Consumer = made(Consumer, settings)
        try:
            visitor.subscribe([elsewhere], on_assign=on_assign)
            deadline = time.monotonic() + _VISIT_S
            while not (is_over or self._closing.is_set() or time.monotonic() > deadline):
                visitor.poll(0.1)
        finally:
            visitor.close()

    def _elsewhere(self) -> str | None:
        """A topic that exists and is not ours. Nothing of it is read."""
        others = [
            (len(found.partitions), name)
            for name, found in self._admin.list_topics(timeout=_ANSWER_S).topics.items()
            if name != self._member.topic and found.error is None and not name.startswith("__")
        ]
        return min(others)[1] if others else None


def are_possible(settings: ClientSettings, member: GroupMember) -> bool:
    """Whether members of a kind may leave partitions without an owner: static and cooperative."""
    given = settings.member(member.group_id, member.instance_id, Watch(_tell_nobody))
    is_classic = given.get("group.protocol") != "consumer"
    return is_classic and settings.is_incremental and "group.instance.id" in given


def _tell_nobody(code: str, message: str) -> None:
    """What the visitor hears, the member's own client hears as well."""
