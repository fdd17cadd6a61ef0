"""One transaction at a time, on Kafka: records and the offsets behind them, together or not at all.

An error tells by its flags what may be done: *fatal*, only a new producer can go on, so the
process ends; *requires abort*, and the next transaction may work; *retriable*, the same call
with the same arguments. Anything else counts as fatal.

One fatal error is survived all the same. A broker that died before it heard of a transaction calls
the end of it a transition that cannot be (INVALID_TXN_STATE). It looks at the producer's epoch
first, so nobody has taken this one's place, and another producer may: what was not asked to be
committed is not, and the making of a producer ends whatever is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
from pipeline.streams.kafka.overdue import Overdue

_CALL_S: Final = 5.0
_COMMIT_LIMIT_S: Final = 300.0
_OVERDUE_S: Final = 2 * _CALL_S


class _ForgottenError(FatalError):
    """The broker knows of no such transaction, though its producer is the newest one."""


class Transactions:
    """A producer with a transactional id. Making one fences its predecessor.

    Parameters
    ----------
    limit_s
        How long the start waits for the broker before `UnreachableError`.
    answers
        Whether a broker answers now; called from a thread of its own.

    Attributes
    ----------
    group_has_moved
        Whether the last abort was due to the group: this member's generation is stale.
    n_renewed
        Producers replaced because the broker had forgotten their transaction.
    """

    def __init__(
        self,
        settings: ClientSettings,
        transactional_id: str,
        watch: Watch,
        *,
        limit_s: float,
        answers: Callable[[], bool],
    ) -> None:
        self.group_has_moved = False
        self.n_renewed = 0
        self._id = transactional_id
        self._watch = watch
        self._undelivered: tuple[str | None, KafkaError] | None = None
        # no cost per message: the client calls only for those that failed, to name their topic
        own = {"on_delivery": self._on_delivery, "delivery.report.only.error": True}
        self._settings = settings.producer(watch, transactional_id) | own
        self._producer: Any = made(Producer, self._settings)
        self._overdue = Overdue(
            watch.on_error, answers, after_s=_OVERDUE_S, limit_s=_COMMIT_LIMIT_S
        )
        try:
            self._init(limit_s)
        except BaseException:
            self._overdue.close()
            raise

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
        producer, is_asked = self._producer, False
        try:
            self._insist(producer.begin_transaction)
            self._produce(outgoing)
            self._insist(producer.send_offsets_to_transaction, offsets, metadata, _CALL_S)
            is_asked = True
            self._insist(producer.commit_transaction, _CALL_S)
        except KafkaException as problem:
            # the client asks the broker only once all was delivered
            may_be_committed = is_asked and self._undelivered is None
            raise self._aborted(problem.args[0], may_be_committed) from problem
        except _ForgottenError as problem:  # a broker that had committed it would say so again
            self._renew()
            raise AbortedError(str(problem), code="INVALID_TXN_STATE") from problem
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
        except _ForgottenError:
            self._renew()  # its epoch was looked at before
            return
        self._abort()

    def attend(self) -> None:
        """Let the client call back."""
        self._producer.poll(0)

    def close(self) -> None:
        self._overdue.close()
        with suppress(KafkaException):  # one that was fenced says so once more
            self._producer.close()

    def _renew(self) -> None:
        """Another producer under the same id; that ends what the id may have open."""
        self.n_renewed += 1
        said = "the broker forgot a transaction, and its producer is made anew"
        self._watch.remember(KafkaError(KafkaError._STATE, said))
        with suppress(KafkaException):
            self._producer.purge()  # else closing it would wait for what cannot be delivered
            self._producer.close()
        self._producer = made(Producer, self._settings)
        self._init(_COMMIT_LIMIT_S)

    def _init(self, limit_s: float) -> None:
        doing = f"starting transactions as {self._id}"
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
                self._call(call, *arguments)
                return
            except KafkaException as problem:
                error: KafkaError = problem.args[0]
                if error.fatal() and error.code() == KafkaError.INVALID_TXN_STATE:
                    raise _ForgottenError(f"in a transaction: {error.str()}") from problem
                if error.fatal():
                    raise failure(error, "in a transaction") from problem
                if error.txn_requires_abort() or not error.retriable():
                    raise
                if patience is None:
                    patience = Patience(_COMMIT_LIMIT_S, self._watch, "ending a transaction")
                patience.spend(error)

    def _call(self, call: Any, *arguments: Any) -> None:
        self._overdue.begin(call.__name__)
        try:
            call(*arguments)
        finally:
            self._overdue.end()

    def _aborted(self, error: KafkaError, may_be_committed: bool) -> FatalError | AbortedError:
        """Abort because of an error, and what to raise then."""
        if error.fatal():
            return failure(error, "in a transaction")
        self._abort(may_be_committed=may_be_committed)
        topic, cause = self._undelivered or (None, error)
        if cause.code() in NEVER_BETTER:
            return failure(cause, f"writing to {topic or 'a topic'}")
        self.group_has_moved = error.code() in GROUP_FENCED
        said = f"the transaction was aborted: {error.name()}: {error.str()}"
        return AbortedError(said, code=error.name())

    def _abort(self, *, may_be_committed: bool = False) -> None:
        # an abort that overtakes its own AddPartitionsToTxn is fatal, so what is queued goes first
        with suppress(KafkaException):
            self._producer.flush(_CALL_S)
        try:
            self._insist(self._producer.abort_transaction, _CALL_S)
        except _ForgottenError:
            if may_be_committed:
                raise  # what became of it is for the successor to find out
            self._renew()
        except KafkaException as problem:
            raise failure(problem.args[0], "aborting a transaction") from problem

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._undelivered is None:
            self._undelivered = (message.topic(), error)
