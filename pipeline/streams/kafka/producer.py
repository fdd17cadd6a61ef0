"""Writes without a transaction, on Kafka."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client

from pipeline.errors import FatalError, TransientError
from pipeline.messages.records import Outgoing
from pipeline.streams.contract import Place
from pipeline.streams.kafka.client import ClientSettings, Watch, failure, made


class KafkaProducer:
    """Implements `pipeline.streams.contract.Producer`."""

    def __init__(self, settings: ClientSettings, watch: Watch) -> None:
        self._settings, self._watch = settings, watch
        self._undelivered: dict[str, tuple[int, KafkaError]] = {}
        own = {"on_delivery": self._on_delivery, "delivery.report.only.error": True}
        self._client: Any = made(Client, settings.producer(watch) | own)
        self._telling: Any = None

    def write(self, record: Outgoing) -> None:
        topic, partition, key, value, headers, timestamp_ms = record
        while True:
            try:
                self._client.produce(
                    topic,
                    value,
                    key,
                    partition,
                    headers=list(headers),
                    timestamp=timestamp_ms or 0,
                )
                return
            except BufferError:
                self._client.poll(0.05)
            except KafkaException as problem:
                raise failure(problem.args[0], f"writing to {topic}") from problem

    def flush(self) -> None:
        while self._client.flush(1.0):
            self._watch.tell()
            self._watch.raise_if_locked_out()
        if self._undelivered:
            said = "; ".join(
                f"{n} to {topic}: {error.name()}: {error.str()}"
                for topic, (n, error) in self._undelivered.items()
            )
            self._undelivered = {}
            raise FatalError(f"records were not written: {said}")

    def deliver(self, record: Outgoing, *, timeout_s: float) -> Place:
        if self._telling is None:
            # a client of its own: the other one is not told of each record, which halves its rate
            self._telling = made(Client, self._settings.producer(self._watch) | {"linger.ms": "0"})
        deadline, doing = time.monotonic() + timeout_s, f"writing to {record.topic}"
        told: list[tuple[KafkaError | None, Place]] = []

        def note(error: KafkaError | None, message: Message) -> None:
            told.append((error, Place(message.partition() or 0, message.offset() or 0)))

        topic, partition, key, value, headers, timestamp_ms = record
        try:
            self._telling.produce(
                topic, value, key, partition, headers=list(headers),
                timestamp=timestamp_ms or 0, on_delivery=note,
            )  # fmt: skip
        except BufferError as problem:
            raise TransientError(f"{doing}: the queue is full") from problem
        except KafkaException as problem:
            raise failure(problem.args[0], doing) from problem
        while not told:
            self._telling.poll(0.05)
            self._watch.tell()
            self._watch.raise_if_locked_out()
            if not told and time.monotonic() > deadline:
                raise TransientError(
                    f"{doing}: not acknowledged within {timeout_s:g} s; it may still be written"
                )
        error, place = told[0]
        if error is not None:
            raise failure(error, doing)
        return place

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            topic = message.topic() or ""
            n, first = self._undelivered.get(topic, (0, error))
            self._undelivered[topic] = (n + 1, first)
