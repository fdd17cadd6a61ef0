"""Reads partitions on its own, on Kafka: no group, nothing committed.

The end of a partition is its high watermark when the reader is made, asked for at
read_uncommitted; what is read is what was committed. The client says "the end" (an EOF event)
at the last stable offset, so an end below the noted one means that a transaction is undecided.
Records alone cannot tell: the last offsets of a log may be markers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.errors import TopicError, TransientError
from pipeline.messages.records import Record
from pipeline.streams.contract import Range
from pipeline.streams.kafka.client import (
    NEVER_BETTER,
    OUTSIDE_THE_LOG,
    ClientSettings,
    Event,
    Watch,
    failure,
    is_fatal,
    made,
    only_records,
    places_of,
    records_of,
)

_CONSUME_AT_ONCE: Final = 10_000
_CONSUME_S: Final = 0.02
"""The client waits as long for as many messages as it was asked for, also behind the last one: at
0.1 s, a restore waited half a second for the ends of its topics."""


class KafkaReader:
    """Implements `pipeline.streams.contract.Reader`.

    Parameters
    ----------
    ranges
        Asks the broker for the present range of every partition.
    """

    def __init__(
        self,
        settings: ClientSettings,
        topic: str,
        starts: Mapping[int, int] | None,
        watch: Watch,
        ranges: Callable[[], Mapping[int, Range]],
        *,
        stall_limit_s: float,
    ) -> None:
        self.n_recreated = 0
        self._settings = settings
        self._topic = topic
        self._watch = watch
        self._ranges = ranges
        self._stall_limit_s = stall_limit_s
        present = ranges()
        if starts is None:
            starts = {partition: found.low for partition, found in present.items()}
        for partition in starts:
            if partition not in present:
                raise TopicError(f"{topic} has no partition {partition}")
        self._positions = {p: max(start, present[p].low) for p, start in starts.items()}
        self._unread = {
            p: present[p].high for p, at in self._positions.items() if at < present[p].high
        }
        self._lively_at = time.monotonic()
        self._closed = False
        self._consumer = self._make_consumer()

    def read(self, max_records: int, *, timeout_s: float) -> Sequence[Record]:
        self._watch.tell()
        deadline = time.monotonic() + timeout_s
        was_at_end = self.at_end
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            records = self._take(self._consume(max_records, min(left_s, _CONSUME_S)))
            if records:
                self._lively_at = time.monotonic()
                return records
            if left_s <= 0.0 or self.at_end is not was_at_end:
                break  # the end may be behind markers alone: who waits for it need not go on
        if time.monotonic() - self._lively_at > self._stall_limit_s:
            self._look_for_stall()
        return ()

    @property
    def at_end(self) -> bool:
        return not self._unread

    @property
    def positions(self) -> Mapping[int, int]:
        return dict(self._positions)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._consumer.close()

    def _make_consumer(self) -> Consumer:
        consumer: Consumer = made(Consumer, self._settings.reader(self._watch))
        places = [TopicPartition(self._topic, p, at) for p, at in self._positions.items()]
        consumer.assign(places)
        return consumer

    def _consume(self, n_messages: int, timeout_s: float) -> list[Message]:
        try:
            messages: list[Message] = self._consumer.consume(
                min(n_messages, _CONSUME_AT_ONCE), timeout_s
            )
        except KafkaException as problem:
            # what it had popped is gone, while its own position has moved on
            self._recreate()
            error: KafkaError = problem.args[0]
            raise TransientError(
                f"reading {self._topic}: {error.name()}: {error.str()}"
            ) from problem
        except BaseException:  # a signal's
            self._recreate()
            raise
        return messages

    def _take(self, messages: list[Message]) -> list[Record]:
        records, events = only_records(messages)
        partitions, offsets = places_of(records)
        for partition, last in dict(zip(partitions, offsets, strict=True)).items():
            self._reach(partition, last + 1)
        for event in events:
            self._handle(event)
        return records_of(records, partitions, offsets)

    def _reach(self, partition: int, position: int) -> None:
        self._positions[partition] = max(position, self._positions[partition])
        if position >= self._unread.get(partition, position + 1):
            del self._unread[partition]

    def _handle(self, event: Event) -> None:
        partition, offset, error = event
        if error.code() == KafkaError._PARTITION_EOF:
            if offset > self._positions[partition]:
                self._lively_at = time.monotonic()
            self._reach(partition, offset)
        elif error.code() in OUTSIDE_THE_LOG:
            self._skip_what_retention_took(partition)
        elif error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            pass  # the client asks for a group that a reader is no member of; records come anyway
        elif is_fatal(error) or error.code() in NEVER_BETTER:
            raise failure(error, f"reading {self._topic}")
        else:
            self._watch.remember(error)

    def _skip_what_retention_took(self, partition: int) -> None:
        position, present = self._positions[partition], self._ranges()[partition]
        if position > present.high:
            raise TopicError(
                f"{self._topic}/{partition} ends at {present.high}, but was read up to {position}: "
                "it was made anew, or the broker lost records"
            )
        self._reach(partition, max(position, present.low))
        self._recreate()

    def _look_for_stall(self) -> None:
        """Replace a consumer that gets nothing of what is there."""
        self._lively_at = time.monotonic()
        for partition, position in self._positions.items():
            place = TopicPartition(self._topic, partition)
            try:
                _, stable_end = self._consumer.get_watermark_offsets(place, timeout=1.0)
            except KafkaException as problem:
                self._watch.remember(problem.args[0])
                return
            if stable_end > position:
                self.n_recreated += 1
                self._recreate()
                return

    def _recreate(self) -> None:
        self._consumer.close()
        self._consumer = self._make_consumer()
