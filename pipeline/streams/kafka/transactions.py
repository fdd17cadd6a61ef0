"""One transaction at a time, on Kafka: records and the offsets behind them, together or not at all.

An error tells by its flags what may be done: *fatal*, only a new producer can go on, so the
process ends; *requires abort*, and the next transaction may work; *retriable*, the same call
with the same arguments. Anything else counts as fatal.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from pipeline.errors import AbortedError, FatalError
from pipeline.messages.records import Outgoing
from pipeline.streams.kafka.client import (
    GROUP_FENCED,
    NEVER_BETTER,
    ClientSettings,
    Patience,
    Watch,
    failure,
    made,
)

_CALL_S: Final = 5.0
_COMMIT_LIMIT_S: Final = 300.0


class Transactions:
    """A producer with a transactional id. Making one fences its predecessor.

    Parameters
    ----------
    limit_s
        How long the start waits for the broker before `UnreachableError`.

    Attributes
    ----------
    group_has_moved
        Whether the last abort was due to the group: this member's generation is stale.
    """

    def __init__(
        self, settings: ClientSettings, transactional_id: str, watch: Watch, *, limit_s: float
    ) -> None:
        self.group_has_moved = False
        self._watch = watch
        self._undelivered: tuple[str | None, KafkaError] | None = None
        # no cost per message: the client calls only for those that failed, to name their topic
        own = {"on_delivery": self._on_delivery, "delivery.report.only.error": True}
        self._producer: Any = made(Producer, settings.producer(watch, transactional_id) | own)
        self._init(transactional_id, limit_s)

    def write(
        self, outgoing: Iterable[Outgoing], offsets: list[TopicPartition], metadata: object
    ) -> None:
        """Write in one transaction; return once it is committed.

        Raises
        ------
        AbortedError
            Nothing became visible.
        FencedError, FatalError
            Only a new producer can go on.
        """
        self.group_has_moved = False
        self._undelivered = None
        producer = self._producer
        try:
            self._insist(producer.begin_transaction)
            self._produce(outgoing)
            self._insist(producer.send_offsets_to_transaction, offsets, metadata, _CALL_S)
            self._insist(producer.commit_transaction, _CALL_S)
        except KafkaException as problem:
            raise self._aborted(problem.args[0]) from problem
        except FatalError:
            raise
        except BaseException:  # of who makes the records; the next one must be able to begin
            self._abort()
            raise

    def probe(self, offsets: list[TopicPartition], metadata: object) -> None:
        """Return if this producer is not fenced: a transaction that is aborted in any case.

        Raises
        ------
        FencedError, FatalError
            Only a new producer can go on, if any.
        """
        try:
            self._insist(self._producer.begin_transaction)
            self._insist(self._producer.send_offsets_to_transaction, offsets, metadata, _CALL_S)
        except KafkaException:
            pass  # refused: the group may not know this member, but the producer is known
        self._abort()

    def attend(self) -> None:
        """Let the client call back."""
        self._producer.poll(0)

    def close(self) -> None:
        with suppress(KafkaException):  # one that was fenced says so once more
            self._producer.close()

    def _init(self, transactional_id: str, limit_s: float) -> None:
        doing = f"starting transactions as {transactional_id}"
        patience = Patience(limit_s, self._watch, doing)
        while True:
            try:
                self._producer.init_transactions(min(_CALL_S, patience.left_s + 0.1))
                return
            except KafkaException as problem:
                error: KafkaError = problem.args[0]
                with suppress(KafkaException):  # a fatal one is raised here once more
                    self._producer.poll(0)
                self._watch.raise_if_locked_out()
                if error.fatal() or not error.retriable():
                    raise failure(error, doing) from problem
                patience.spend(error)

    def _produce(self, outgoing: Iterable[Outgoing]) -> None:
        produce = self._producer.produce
        for topic, partition, key, value, headers, timestamp_ms in outgoing:
            while True:
                try:
                    if headers or timestamp_ms is not None:
                        produce(
                            topic,
                            value,
                            key,
                            partition,
                            headers=list(headers),
                            timestamp=timestamp_ms or 0,
                        )
                    else:  # the hot topics have neither, and three headers halve the rate
                        produce(topic, value, key, partition)
                    break
                except BufferError:
                    self._producer.poll(0.05)

    def _insist(self, call: Any, *arguments: Any) -> None:
        """The same call with the same arguments, as long as time may help."""
        patience = None
        while True:
            try:
                call(*arguments)
                return
            except KafkaException as problem:
                error: KafkaError = problem.args[0]
                if error.fatal():
                    raise failure(error, "in a transaction") from problem
                if error.txn_requires_abort() or not error.retriable():
                    raise
                if patience is None:
                    patience = Patience(_COMMIT_LIMIT_S, self._watch, "ending a transaction")
                patience.spend(error)

    def _aborted(self, error: KafkaError) -> FatalError | AbortedError:
        """Abort because of an error, and what to raise then."""
        if error.fatal():
            return failure(error, "in a transaction")
        self._abort()
        topic, cause = self._undelivered or (None, error)
        if cause.code() in NEVER_BETTER:
            return failure(cause, f"writing to {topic or 'a topic'}")
        self.group_has_moved = error.code() in GROUP_FENCED
        said = f"the transaction was aborted: {error.name()}: {error.str()}"
        return AbortedError(said, code=error.name())

    def _abort(self) -> None:
        # an abort that overtakes its own AddPartitionsToTxn is fatal, so what is queued goes first
        with suppress(KafkaException):
            self._producer.flush(_CALL_S)
        try:
            self._insist(self._producer.abort_transaction, _CALL_S)
        except KafkaException as problem:
            raise failure(problem.args[0], "aborting a transaction") from problem

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._undelivered is None:
            self._undelivered = (message.topic(), error)
