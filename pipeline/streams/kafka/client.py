"""What every client of Kafka here has in common: settings, errors, and messages as records.

Three facts about the client shape this room. An exception that leaves one of its callbacks breaks
it, so callbacks only note things (`Watch`) and the caller of the client raises. Errors tell by
flags what may be done about them, so they are judged in one place. And a method call per
field of a message costs more than the work on it, so messages become records by columns.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from operator import is_not
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.errors import ConfigError, FatalError, FencedError, TopicError, UnreachableError
from pipeline.messages.records import Record

OnError = Callable[[str, str], None]
"""Told the client's name of an error, and its sentence; of errors that it survives by itself."""

_RECORD_OVERHEAD_BYTES: Final = 64 * 1024
_SILENCE: Final = logging.Logger("librdkafka", level=logging.CRITICAL + 1)
_SAME_ERROR_EVERY_S: Final = 5.0

OWNED: Final = {
    "enable.auto.commit": "offsets are committed in the transaction of what was made of them",
    "enable.auto.offset.store": "offsets are committed in the transaction of what was made of them",
    "auto.offset.reset": "a lost offset must stop the service, not move it",
    "isolation.level": "what a transaction has not committed does not exist",
    "enable.partition.eof": "the end of a partition is how a restore knows that it is done",
    "transactional.id": "it is <group.id>.<instance>; set kafka.group.id and instance",
    "group.instance.id": "it is the option instance; empty: none, and a restart deals anew",
    "enable.idempotence": "transactions need it",
    "message.max.bytes": "it follows limits.max_record_bytes",
}
"""Settings that are not the user's, and why."""

GROUP_FENCED: Final = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
    }
)
"""The group has moved on: this member's view of who owns what is stale."""

_TAKEN_OVER: Final = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.FENCED_INSTANCE_ID,
    }
)
_LOCKED_OUT: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
    }
)
_FORBIDDEN: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
NEVER_BETTER: Final = _FORBIDDEN | {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}
"""The same transaction would fail again: somebody has to change something first."""

OUTSIDE_THE_LOG: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
"""The broker has no record at the offset asked for, and none after it can be meant."""


class ClientSettings:
    """The options under ``kafka:``, turned into what each kind of client takes.

    Parameters
    ----------
    given
        Names and values as librdkafka knows them, and overlays for one kind of client:
        ``consumer.*``, ``producer.*``, ``admin.*``.
    max_record_bytes
        Of the largest input record: a dead letter of it must fit.

    Raises
    ------
    ConfigError
        ``bootstrap.servers`` is missing, or a setting is one of `OWNED`.
    """

    def __init__(self, given: Mapping[str, object], max_record_bytes: int) -> None:
        self._shared: dict[str, str] = {}
        self._overlays: dict[str, dict[str, str]] = {"consumer": {}, "producer": {}, "admin": {}}
        self._max_message_bytes = max_record_bytes + _RECORD_OVERHEAD_BYTES
        self._is_static = True
        for path, value in given.items():
            kind, dot, name = path.partition(".")
            overlay = self._overlays.get(kind) if dot else None
            if overlay is None:
                name, overlay = path, self._shared
            if name == "group.instance.id" and value == "":
                self._is_static = False
                continue
            if name in OWNED:
                raise ConfigError(f"kafka.{path} is not for you to set: {OWNED[name]}")
            if name == "group.id" and overlay is not self._shared:
                raise ConfigError(f"kafka.{path} is set, but must be kafka.group.id")
            if value is not None:
                overlay[name] = str(value).lower() if isinstance(value, bool) else str(value)
        self.group_id = self._shared.pop("group.id", None)
        self.servers = self._shared.get("bootstrap.servers", "")
        if not self.servers:
            raise ConfigError("kafka.bootstrap.servers is empty, but must be host:port[,host:port]")

    @property
    def is_incremental(self) -> bool:
        """Whether a rebalance adds and takes partitions instead of dealing all of them anew."""
        merged = self._shared | self._overlays["consumer"]
        strategies = merged.get("partition.assignment.strategy", "cooperative-sticky")
        return merged.get("group.protocol") == "consumer" or strategies == "cooperative-sticky"

    def admin(self, watch: Watch) -> dict[str, Any]:
        return self._merged("admin", {}) | {"error_cb": watch.note}

    def member(self, group_id: str, instance_id: str | None, watch: Watch) -> dict[str, Any]:
        """A consumer that is a member of a group."""
        merged = self._shared | self._overlays["consumer"]
        # the broker answers as soon as there is a byte; this is what a new or resumed partition
        # waits for at most, until the fetch that went out without it is back
        defaults = {"max.poll.interval.ms": "60000", "fetch.wait.max.ms": "100"}
        if merged.get("group.protocol") != "consumer":
            defaults["partition.assignment.strategy"] = "cooperative-sticky"
        owned = {"group.id": group_id}
        if instance_id is not None and self._is_static:
            owned["group.instance.id"] = instance_id
        return self._consumer(defaults, owned, watch)

    def reader(self, watch: Watch) -> dict[str, Any]:
        """A consumer on its own. The client wants the name of a group all the same."""
        name = f"{self.group_id}-reader" if self.group_id else "eddy-reader"
        # 1 MB, the default, is 600 vectors, and a partition on its own waits for each time: with
        # this it was read 1.3 to 2.1 times as fast
        defaults = {"fetch.wait.max.ms": "20", "max.partition.fetch.bytes": "8000000"}
        return self._consumer(defaults, {"group.id": name}, watch) | {
            "group.protocol": "classic"  # the other kind cannot read without a group
        }

    def producer(self, watch: Watch, transactional_id: str | None = None) -> dict[str, Any]:
        defaults = {"linger.ms": "5", "batch.size": "1000000"}
        # what Java clients do with a key, for topics that both write to
        defaults["partitioner"] = "murmur2_random"
        owned: dict[str, Any] = {
            "enable.idempotence": "true",
            "message.max.bytes": str(self._max_message_bytes),
            "error_cb": watch.note,
        }
        if transactional_id is not None:
            defaults |= {
                "transaction.timeout.ms": "15000",
                # a commit answers before its markers are written, and the next transaction is told
                # to come again: by default after 100 ms, ten times what all the rest takes
                "retry.backoff.ms": "2",
                "retry.backoff.max.ms": "200",
                # librdkafka #5456 and #5511: who commits offsets while the coordinator of the group
                # has gone waits, whatever the time limit says, until some connection comes or goes.
                # Idle ones end after this, and the one to the coordinator of transactions is made
                # anew at once: a few times within the timeout above
                "connections.max.idle.ms": "5000",
            }
            owned["transactional.id"] = transactional_id
        return self._merged("producer", defaults) | owned

    def _consumer(
        self, defaults: Mapping[str, str], owned: Mapping[str, str], watch: Watch
    ) -> dict[str, Any]:
        defaults = {
            # 1000, the default, stops a partition for a second whenever the local queue is full
            "fetch.queue.backoff.ms": "5",
            "fetch.error.backoff.ms": "100",
            # what a client holds before anybody asks: the queue, and one answer above it. By
            # default 67 and 52 MB, of each consumer, and the allocator keeps what it once needed
            "queued.max.messages.kbytes": "32768",
            "fetch.max.bytes": "16777216",
            **defaults,
        }
        merged = self._merged("consumer", defaults)
        return {
            **merged,
            **owned,
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": "true",
            "error_cb": watch.note,
        }

    def _merged(self, kind: str, defaults: Mapping[str, str]) -> dict[str, Any]:
        shared = {
            "reconnect.backoff.ms": "50",
            "reconnect.backoff.max.ms": "500",
        }
        merged: dict[str, Any] = {**shared, **defaults, **self._shared, **self._overlays[kind]}
        if not merged.keys() & {"debug", "log_level"}:
            # what matters comes through `Watch`; to stderr goes only what somebody asks for
            merged |= {"log_level": "0", "logger": _SILENCE}
        return merged


class Watch:
    """Keeps what a client says in its callbacks until somebody may raise or tell it."""

    def __init__(self, on_error: OnError) -> None:
        self.locked_out: KafkaError | None = None
        self.heard = ""
        self.on_error = on_error
        self._news: deque[tuple[str, str]] = deque(maxlen=100)
        self._told_at: dict[str, float] = {}

    def note(self, error: KafkaError) -> None:
        """The client's ``error_cb``: it never raises."""
        if error.code() in _LOCKED_OUT:
            self.locked_out = error
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.heard = f"; last heard: {error.str()}"
        self.remember(error)

    def remember(self, error: KafkaError) -> None:
        """To be told: an error that a call ended with, and that was survived."""
        self._news.append((error.name(), error.str()))

    def tell(self) -> None:
        """Pass on what was noted, the same error at most once in a few seconds."""
        while self._news:
            code, message = self._news.popleft()
            now = time.monotonic()
            if now - self._told_at.get(code, -_SAME_ERROR_EVERY_S) >= _SAME_ERROR_EVERY_S:
                self._told_at[code] = now
                self.on_error(code, message)

    def raise_if_locked_out(self) -> None:
        """Calls of a client that was refused only time out; this says why."""
        if self.locked_out is not None:
            raise FatalError(
                f"the broker does not let us in ({self.locked_out.name()}): "
                f"{self.locked_out.str()}; look at kafka.sasl.* and kafka.ssl.*"
            )


def made(kind: Callable[[dict[str, Any]], Any], settings: dict[str, Any]) -> Any:
    """A client of a kind; a setting that it does not take is a `ConfigError`."""
    try:
        return kind(settings)
    except KafkaException as problem:
        error: KafkaError = problem.args[0]
        raise ConfigError(f"kafka: {error.str()}") from problem


def is_fatal(error: KafkaError) -> bool:
    """Whether the client is of no more use; among messages the flag is not set, but a code is."""
    return bool(error.fatal()) or error.code() == KafkaError._FATAL


def failure(error: KafkaError, doing: str) -> FatalError:
    """What to raise for an error after which this client cannot go on."""
    said = f"{doing}: {error.name()}: {error.str()}"
    # a consumer's own code for it comes in words only
    is_fenced = error.code() == KafkaError._FATAL and "fenced" in error.str()
    if is_fenced or error.code() in _TAKEN_OVER:
        ends = (
            f"{said}; another process runs under the same instance name: it goes on, this one ends"
        )
        if is_fenced or error.code() == KafkaError.FENCED_INSTANCE_ID:
            return FencedError(ends)
        # the broker refuses a producer whose own transaction was open for too long in the same way
        return FencedError(f"{ends}; or an outage was longer than a transaction may be open")
    if error.code() in _FORBIDDEN:
        return FatalError(
            f"{said}; this user lacks the permission: eddy topics acls lists what each role needs"
        )
    if error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE):
        return TopicError(f"{said}; raise max.message.bytes of the topic (eddy topics check)")
    return FatalError(said)


class Patience:
    """How long calls are tried again before the broker counts as gone."""

    def __init__(self, limit_s: float, watch: Watch, doing: str) -> None:
        self._limit_s = limit_s
        self._deadline = time.monotonic() + limit_s
        self._watch = watch
        self._doing = doing

    @property
    def left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def spend(self, error: KafkaError) -> None:
        """Return if the same call may be tried once more; else `UnreachableError`."""
        self._watch.remember(error)
        self._watch.tell()
        if self.left_s <= 0.0:
            raise UnreachableError(
                f"no answer within {self._limit_s:g} s while {self._doing}: "
                f"{error.name()}: {error.str()}{self._watch.heard}"
            )


class Event(NamedTuple):
    """What the client says between records about a partition."""

    partition: int
    offset: int
    error: KafkaError


def only_records(messages: list[Message]) -> tuple[list[Message], list[Event]]:
    """Messages that are records, and those that are events."""
    errors: list[Any] = list(map(Message.error, messages))
    if not any(map(is_not, errors, repeat(None))):  # an error cannot be compared with None by ==
        return messages, []
    records, events = [], []
    rows = zip(messages, errors, *places_of(messages), strict=True)
    for message, error, partition, offset in rows:
        if error is None:
            records.append(message)
        else:
            events.append(Event(partition, offset, error))
    return records, events


def places_of(messages: list[Message]) -> tuple[list[int], list[int]]:
    """Their partitions and offsets."""
    partitions: list[Any] = list(map(Message.partition, messages))
    offsets: list[Any] = list(map(Message.offset, messages))
    return partitions, offsets


def records_of(
    messages: list[Message], partitions: Sequence[int], offsets: Sequence[int]
) -> list[Record]:
    """The records of messages whose partitions and offsets are known already.

    ``map`` over the methods, and tuples made without the constructor's frame: 0.6 µs a record,
    against 1.6 µs in a comprehension.
    """
    stamps = [None if kind == 0 else ms for kind, ms in map(Message.timestamp, messages)]
    headers = [tuple(pairs) if pairs else () for pairs in map(Message.headers, messages)]
    rows = zip(
        partitions,
        offsets,
        map(Message.key, messages),
        map(Message.value, messages),
        stamps,
        headers,
        strict=True,
    )
    return list(map(tuple.__new__, repeat(Record), rows))


def stable_end(consumer: Consumer, topic: str, partition: int, watch: Watch) -> int | None:
    """The end of a partition as a reader of committed records has it; None if nobody answers."""
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=1.0)
    except KafkaException as problem:
        watch.remember(problem.args[0])
        watch.tell()  # who asks for many partitions waits for each, and is alive
        return None
    return int(end)


def known_end(consumer: Consumer, topic: str, partition: int, watch: Watch) -> int:
    """The end of a partition as last heard of; asked for only before anything was fetched."""
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
    return int(end if end >= 0 else stable_end(consumer, topic, partition, watch) or 0)
