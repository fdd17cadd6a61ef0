"""A cluster of Apache Kafka, seen by one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka import admin as kafka_admin

from pipeline.errors import FatalError, TopicError, TransientError
from pipeline.streams.contract import GroupMember, Producer, Range, Reader, Stream, TopicSettings
from pipeline.streams.kafka.client import (
    NEVER_BETTER,
    ClientSettings,
    OnError,
    Patience,
    Watch,
    failure,
    made,
)
from pipeline.streams.kafka.orphans import Orphans, are_possible
from pipeline.streams.kafka.producer import KafkaProducer
from pipeline.streams.kafka.reader import KafkaReader
from pipeline.streams.kafka.stream import KafkaStream

_admin: Any = kafka_admin  # its types are given in part only
_CALL_S: Final = 5.0
_ANSWER_S: Final = 1.0
_CREATE_S: Final = 30.0
_ASK_LIMIT_S: Final = 30.0
_LOST_S: Final = 15.0  # an answer that is later than that was lost in the client
_TOLD: Final = (
    "cleanup.policy",
    "retention.ms",
    "delete.retention.ms",
    "min.compaction.lag.ms",
    "max.message.bytes",
)

T = TypeVar("T")


class KafkaBroker:
    """Implements `pipeline.streams.contract.Broker`.

    Parameters
    ----------
    settings
        The options under ``kafka:``; see `ClientSettings`. Nothing is connected yet.
    max_record_bytes
        ``limits.max_record_bytes``.
    on_error
        Told what the clients survive by themselves, such as a broker that went away: the name of
        the error and a sentence. The same one at most every few seconds.
    reach_limit_s
        How long a `Stream` waits for the broker when it is made.
    stall_limit_s
        After how long without a record consumers are looked at.

    Raises
    ------
    ConfigError
        A setting that is missing, not the user's, or that the client does not know.
    """

    def __init__(
        self,
        settings: Mapping[str, object],
        *,
        max_record_bytes: int = 1_048_576,
        on_error: OnError = lambda code, message: None,
        reach_limit_s: float = 60.0,
        stall_limit_s: float = 10.0,
    ) -> None:
        self._settings = ClientSettings(settings, max_record_bytes)
        self._on_error = on_error
        self._reach_limit_s = reach_limit_s
        self._stall_limit_s = stall_limit_s
        self._watch = Watch(on_error)
        self._seen_groups: set[str] = set()
        # kept: one that is collected takes the answers under way with it
        self._admin: Any = made(_admin.AdminClient, self._settings.admin(self._watch))

    def wait(self, timeout_s: float) -> None:
        doing = f"waiting for a broker at {self._settings.servers}"
        patience = Patience(timeout_s, self._watch, doing)
        while True:
            try:
                self._admin.list_topics(timeout=min(1.0, patience.left_s + 0.1))
                return
            except KafkaException as problem:
                self._admin.poll(0)
                self._watch.raise_if_locked_out()
                patience.spend(problem.args[0])

    def topics(self, names: Iterable[str]) -> Mapping[str, TopicSettings]:
        metadata = self._ask(lambda: self._admin.list_topics(timeout=_CALL_S), "listing topics")
        counts = {
            name: len(metadata.topics[name].partitions)
            for name in names
            if name in metadata.topics and metadata.topics[name].error is None
        }
        operations = self._operations(list(counts))
        return {
            name: TopicSettings(name, n_partitions, self._config(name), operations.get(name))
            for name, n_partitions in counts.items()
        }

    def topic_ids(self, names: Iterable[str]) -> Mapping[str, str]:
        asked = TopicCollection(sorted(set(names)))
        if not asked.topic_names:  # the client takes that for an error
            return {}

        def ask() -> dict[str, str]:
            found = {}
            futures = self._admin.describe_topics(asked, request_timeout=_CALL_S)
            for name, future in futures.items():
                try:
                    found[name] = str(_answer(future).topic_id)
                except KafkaException as problem:
                    if problem.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                        raise
            return found

        return self._ask(ask, "asking for the ids of topics")

    def create_topics(
        self, topics: Iterable[TopicSettings], *, replication_factor: int = 1
    ) -> None:
        wanted = [
            _admin.NewTopic(t.name, t.n_partitions, replication_factor, config=dict(t.config))
            for t in topics
        ]
        if not wanted:
            return
        asked = self._admin.create_topics(wanted, request_timeout=_CREATE_S)
        for name, future in asked.items():
            try:
                _answer(future, _CREATE_S + _LOST_S)
            except KafkaException as problem:
                error: KafkaError = problem.args[0]
                if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    message = f"creating {name}: {error.name()}: {error.str()}"
                    kind = TransientError if error.retriable() else TopicError
                    raise kind(message) from problem
        # the answer comes before every broker knows them, and a client that asks too early is told
        # that there is no such topic
        deadline = time.monotonic() + _ASK_LIMIT_S
        while not self._have_leaders([topic.topic for topic in wanted]):
            if time.monotonic() > deadline:
                raise TransientError("the new topics have no leader yet")

    def ranges(self, topic: str) -> Mapping[int, Range]:
        partitions = self._partitions(topic)
        lows = self._offsets(topic, partitions, _admin.OffsetSpec.earliest())
        highs = self._offsets(topic, partitions, _admin.OffsetSpec.latest())
        return {p: Range(lows[p], highs[p]) for p in partitions}

    def committed(self, group_id: str, topic: str) -> Mapping[int, int | None]:
        partitions = self._partitions(topic)
        self._require_group(group_id)
        consumer = made(Consumer, self._settings.reader(self._watch) | {"group.id": group_id})
        places = [TopicPartition(topic, p) for p in partitions]

        def ask() -> list[TopicPartition]:
            found: list[TopicPartition] = consumer.committed(places, timeout=_CALL_S)
            for place in found:
                if place.error is not None:  # its offset says nothing then, not even that none is
                    raise KafkaException(place.error)
            return found

        try:
            found = self._ask(ask, f"reading the offsets of {group_id}")
        finally:
            consumer.close()
        return {place.partition: place.offset if place.offset >= 0 else None for place in found}

    def stream(self, member: GroupMember) -> Stream:
        watch = Watch(self._on_error)
        orphans = Orphans(self._admin, self._settings, member, watch)
        stream = KafkaStream(
            self._settings,
            member,
            watch,
            reach_limit_s=self._reach_limit_s,
            stall_limit_s=self._stall_limit_s,
            answers=lambda: self._answers(member.topic),
            on_leave=orphans.close,
        )
        if are_possible(self._settings, member):
            orphans.start()
        return stream

    def reader(self, topic: str, starts: Mapping[int, int] | None = None) -> Reader:
        return KafkaReader(
            self._settings,
            topic,
            starts,
            Watch(self._on_error),
            lambda: self.ranges(topic),
            stall_limit_s=self._stall_limit_s,
        )

    def producer(self) -> Producer:
        return KafkaProducer(self._settings, Watch(self._on_error))

    def _answers(self, topic: str) -> bool:
        """Whether a broker answers now; from any thread."""
        try:
            self._admin.list_topics(topic, timeout=_ANSWER_S)
        except KafkaException:
            return False
        return True

    def _require_group(self, group_id: str) -> None:
        """Once a group: a consumer that may not see it is told nothing, and only times out."""
        if group_id in self._seen_groups:
            return
        doing = f"reading the offsets of {group_id}"

        futures = self._admin.describe_consumer_groups([group_id], request_timeout=_CALL_S)
        try:
            _answer(futures[group_id])
        except KafkaException as problem:
            if problem.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise failure(problem.args[0], doing) from problem
            # whatever else is wrong, the question that follows is told better
        self._seen_groups.add(group_id)

    def _operations(self, names: list[str]) -> dict[str, frozenset[str]]:
        """What this user may do with topics; none of those that the broker does not tell about."""
        if not names:
            return {}
        asked = TopicCollection(names)
        futures = self._admin.describe_topics(
            asked, include_authorized_operations=True, request_timeout=_CALL_S
        )
        found: dict[str, frozenset[str]] = {}
        for name, future in futures.items():
            # who has just been deleted, or cannot be asked, is judged by what else is known of it
            with suppress(KafkaException):
                told = _answer(future).authorized_operations
                if told:
                    words = (operation.name.title().replace("_", "") for operation in told)
                    found[name] = frozenset(words)
        return found

    def _config(self, topic: str) -> dict[str, str]:
        """Settings of a topic; none where the permission to see them is missing."""
        resource = _admin.ConfigResource(_admin.ResourceType.TOPIC, topic)

        def ask() -> Mapping[str, Any]:
            futures = self._admin.describe_configs([resource], request_timeout=_CALL_S)
            entries: Mapping[str, Any] = _answer(futures[resource])
            return entries

        try:
            entries = self._ask(ask, f"describing {topic}")
        except FatalError as problem:
            cause = problem.__cause__
            assert isinstance(cause, KafkaException)
            if cause.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                return {}
            raise
        return {name: entries[name].value for name in _TOLD if name in entries}

    def _partitions(self, topic: str) -> list[int]:
        # this also refreshes the leaders that the client remembers: without it offsets are refused
        # for minutes after a broker came back
        metadata = self._ask(
            lambda: self._admin.list_topics(topic, timeout=_CALL_S), f"looking for {topic}"
        )
        found = metadata.topics[topic]
        if found.error is not None:
            raise TopicError(f"{topic}: {found.error.name()}: {found.error.str()}")
        return sorted(found.partitions)

    def _have_leaders(self, names: Iterable[str]) -> bool:
        found = self._ask(lambda: self._admin.list_topics(timeout=_CALL_S), "listing topics").topics
        return all(
            name in found
            and found[name].error is None
            and all(p.leader >= 0 for p in found[name].partitions.values())
            for name in names
        )

    def _offsets(self, topic: str, partitions: list[int], spec: Any) -> dict[int, int]:
        asked = {TopicPartition(topic, p): spec for p in partitions}

        def ask() -> dict[int, int]:
            futures = self._admin.list_offsets(
                asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_CALL_S
            )
            found = {place.partition: _answer(future).offset for place, future in futures.items()}
            if min(found.values(), default=0) < 0:
                # the broker died with the question: the client answers -1001, and no error. Taken
                # for the end of a log, a restore would find nothing there
                raise KafkaException(KafkaError(KafkaError._TRANSPORT, "the broker went away"))
            return found

        return self._ask(ask, f"asking for the range of {topic}", refresh=topic)

    def _ask(self, call: Callable[[], T], doing: str, *, refresh: str | None = None) -> T:
        """The answer to a question that changes nothing; `TransientError` if none comes."""
        patience = Patience(_ASK_LIMIT_S, self._watch, doing)
        while True:
            try:
                return call()
            except KafkaException as problem:
                error: KafkaError = problem.args[0]
                self._admin.poll(0)
                self._watch.raise_if_locked_out()
                if error.fatal() or error.code() in NEVER_BETTER:
                    raise failure(error, doing) from problem
                if patience.left_s <= 0.0:
                    raise TransientError(f"{doing}: {error.name()}: {error.str()}") from problem
                patience.spend(error)
                time.sleep(0.1)  # some are answered at once, such as a leader that has just moved
            if refresh is not None:
                self._partitions(refresh)


def _answer(future: Any, limit_s: float = _LOST_S) -> Any:
    """What a question came to; one that the client has lost is at its end, too."""
    try:
        return future.result(limit_s)
    except TimeoutError as problem:
        lost = KafkaError(KafkaError._TIMED_OUT, "the client gave no answer")
        raise KafkaException(lost) from problem
