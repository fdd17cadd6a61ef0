"""The topics, as a user of Eddy sees them: writes records to the input, reads change events."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.client.problems import ClientError
from pipeline.client.questions import as_vector
from pipeline.client.results import Change, Model, Scalar, Version
from pipeline.errors import TransientError, UsageError
from pipeline.messages.codec import decode, decode_change, json_bytes
from pipeline.messages.events import ClusterChange
from pipeline.messages.policy import NATIVE, EmbeddingPolicy, LimitPolicy
from pipeline.messages.records import Headers, Outgoing, Record
from pipeline.messages.vectors import encode_vector
from pipeline.streams.contract import Broker, Place, Producer, Reader

Start = Literal["latest", "earliest"] | Mapping[int, int]
"""Where a subscription begins: behind the last event, at the first, or partition -> offset."""

_AT_ONCE: Final = 500
_LOOK_S: Final = 0.2
_AWAY_S: Final = 60.0
"""A subscription goes through an absence of the broker as long."""
_PAUSE_S: Final = 0.1


class Topics:
    """Opened when it is first needed.

    Parameters
    ----------
    open_broker
        None: the client was given no way to it.
    """

    def __init__(
        self, open_broker: Callable[[], Broker] | None, input_topic: str, changes_topic: str
    ) -> None:
        self._open, self.input, self.changes = open_broker, input_topic, changes_topic
        self._lock = threading.Lock()
        self._broker: Broker | None = None
        self._producer: Producer | None = None

    @property
    def broker(self) -> Broker:
        """Kafka; `UsageError` without an address of it."""
        with self._lock:
            if self._broker is None:
                if self._open is None:
                    raise UsageError(
                        "this goes through Kafka: make the client with "
                        'kafka={"bootstrap.servers": "..."}'
                    )
                self._broker = self._open()
            return self._broker

    def write(self, record: Outgoing, timeout_s: float) -> Place:
        """Write one record; where it stands. See `Producer.deliver` for errors."""
        broker = self.broker
        with self._lock:
            if self._producer is None:
                self._producer = broker.producer()
        return self._producer.deliver(record, timeout_s=timeout_s)

    def subscribe(self, start: Start, wanted: Wanted, idle_s: float | None) -> Subscription:
        """Change events from somewhere on."""
        broker = self.broker
        if isinstance(start, str):
            if start not in ("latest", "earliest"):
                raise UsageError(f"start is {start!r}, but must be latest, earliest or offsets")
            ranges = broker.ranges(self.changes)
            starts = {p: log.high if start == "latest" else log.low for p, log in ranges.items()}
        else:
            # a partition that nobody named has been read of nothing
            low = {p: log.low for p, log in broker.ranges(self.changes).items()}
            starts = {p: start.get(p, first) for p, first in low.items()}
        return Subscription(broker.reader(self.changes, starts), starts, wanted, idle_s)

    def upsert(
        self,
        item: str,
        vector: ArrayLike,
        *,
        model: Model | None,
        metadata: Mapping[str, Scalar] | None,
        sequence: int,
        embedding_model: str | None,
    ) -> Outgoing:
        """The record of an item, judged as Eddy will judge it.

        Raises
        ------
        RecordError
            It would be a dead letter.
        UsageError
            The vector is none.
        """
        numbers = as_vector(vector)
        with np.errstate(over="ignore"):
            value = encode_vector(numbers.astype(np.float32), sequence)
        # always said: what the topic takes for granted is the operator's, and may change
        headers: Headers = (("content-type", NATIVE.encode()),)
        if embedding_model is not None:
            headers += (("embedding-model", embedding_model.encode()),)
        if metadata is not None:
            headers += (("eddy-metadata", json_bytes(dict(metadata))),)
        record = Outgoing(self.input, -1, item.encode(), value, headers)
        expected = (
            EmbeddingPolicy(dimensions=numbers.size)
            if model is None
            else EmbeddingPolicy(
                dimensions=model.dimensions,
                metric="cosine" if model.metric == "cosine" else "euclidean",
            )
        )
        judged = decode([Record(0, 0, record.key, value, None, headers)], expected, LimitPolicy())
        for error in judged.errors.values():
            raise error
        return record

    def tombstone(self, item: str) -> Outgoing:
        """The record that removes an item."""
        if not item:
            raise UsageError("an item's id must not be empty")
        return Outgoing(self.input, -1, item.encode(), None)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events a subscription hands out; None: all."""

    items: frozenset[str] | None = None
    clusters: frozenset[str] | None = None
    types: frozenset[str] | None = None

    @classmethod
    def of(
        cls,
        items: Collection[str] | None,
        clusters: Collection[str] | None,
        types: Collection[str] | None,
    ) -> Wanted:
        """As users say it."""
        sets = [None if one is None else frozenset(one) for one in (items, clusters, types)]
        return cls(*sets)

    def has(self, change: Change) -> bool:
        """Whether an event is among them: a cluster's are those that bring or take an item."""
        return (
            (self.items is None or change.item in self.items)
            and (self.types is None or change.type in self.types)
            and (
                self.clusters is None
                or not self.clusters.isdisjoint({change.from_cluster, change.to_cluster})
            )
        )


class _Event(NamedTuple):
    partition: int
    offset: int
    change: Change


class Subscription:
    """Change events in the order of each partition, as they are committed; to be iterated.

    It ends when it is closed, or after ``idle_s`` seconds without an event of any kind. What it
    handed out last is behind `positions`: keep them, and a new subscription goes on there.
    """

    def __init__(
        self, reader: Reader, starts: Mapping[int, int], wanted: Wanted, idle_s: float | None
    ) -> None:
        self._reader, self._wanted, self._idle_s = reader, wanted, idle_s
        self._positions = dict(starts)
        self._looking, self._closed = threading.Lock(), False
        self._heard_at = self._lively_at = time.monotonic()

    @property
    def positions(self) -> Mapping[int, int]:
        """Partition -> offset of the first event that was not handed out yet."""
        return dict(self._positions)

    def __iter__(self) -> Iterator[Change]:
        while (events := self.look()) is not None:
            yield from self.handed_out(events)

    def look(self) -> list[_Event] | None:
        """The next events, if some come soon, none of them handed out; None at the end.

        Raises
        ------
        TransientError
            The broker was away for a minute.
        """
        with self._looking:
            if self._closed:
                return None
            try:
                records = self._reader.read(_AT_ONCE, timeout_s=_LOOK_S)
            except TransientError:
                if time.monotonic() - self._heard_at > _AWAY_S:
                    raise
                time.sleep(_PAUSE_S)
                return []
        self._heard_at = time.monotonic()
        if records:
            self._lively_at = self._heard_at
        elif self._idle_s is not None and self._heard_at - self._lively_at > self._idle_s:
            return None
        return [_Event(r.partition, r.offset, _change(r)) for r in records]

    def handed_out(self, events: list[_Event]) -> Iterator[Change]:
        """Those that are wanted, and on past the others."""
        for partition, offset, change in events:
            self._positions[partition] = offset + 1
            if self._wanted.has(change):
                yield change

    def close(self) -> None:
        """End it; idempotent."""
        with self._looking:
            if not self._closed:
                self._closed = True
                self._reader.close()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncSubscription:
    """The same for ``async for``; threads wait in place of the event loop."""

    def __init__(self, subscription: Subscription) -> None:
        self._inner = subscription

    @property
    def positions(self) -> Mapping[int, int]:
        """See `Subscription.positions`."""
        return self._inner.positions

    async def __aiter__(self) -> AsyncIterator[Change]:
        while (events := await asyncio.to_thread(self._inner.look)) is not None:
            for change in self._inner.handed_out(events):
                yield change

    async def close(self) -> None:
        """End it; idempotent."""
        await asyncio.to_thread(self._inner.close)

    async def __aenter__(self) -> AsyncSubscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def change_of(event: ClusterChange, emitted_at_ms: int | None) -> Change:
    """An event as users get it."""
    return Change(
        id=event.id, type=str(event.type), item=event.item,
        from_cluster=event.from_cluster, to_cluster=event.to_cluster, cause=str(event.cause),
        distance=event.distance, margin=event.margin, confidence=event.confidence,
        typicality=event.typicality, model=Version(event.epoch, event.revision),
        partition=event.partition, offset=event.offset,
        occurred_at=_time(event.occurred_at_ms), emitted_at=_time(emitted_at_ms),
        metadata=event.metadata,
    )  # fmt: skip


def _change(record: Record) -> Change:
    if record.value is None:
        raise ClientError(f"a tombstone among change events at {record.partition}:{record.offset}")
    return change_of(decode_change(record.value), record.timestamp_ms)


def _time(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
