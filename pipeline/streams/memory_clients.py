"""What of the broker in memory needs no group: readers, and producers without a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from zlib import crc32

from pipeline.errors import FatalError, TransientError
from pipeline.messages.records import Headers, Outgoing, Record
from pipeline.streams.contract import Place
from pipeline.streams.log import Topics


class Cluster(Protocol):
    """What both ask of the broker in memory."""

    is_away: bool
    _topics: Topics

    def _answer(self) -> None: ...

    def _limit(self, max_records: int) -> int: ...

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> int: ...


class MemoryReader:
    """Implements `pipeline.streams.contract.Reader`."""

    def __init__(self, broker: Cluster, topic: str, starts: Mapping[int, int] | None) -> None:
        self._broker = broker
        self._topic = topic
        logs = broker._topics.logs(topic)
        chosen = dict.fromkeys(range(len(logs)), 0) if starts is None else starts
        self._positions = {p: max(start, logs[p].low) for p, start in chosen.items()}
        self._missing = {p: logs[p].high for p in chosen if self._positions[p] < logs[p].high}

    def read(self, max_records: int, *, timeout_s: float) -> Sequence[Record]:
        self._broker._answer()
        limit = self._broker._limit(max_records)
        records: list[Record] = []
        for p, position in self._positions.items():
            log = self._broker._topics.log(self._topic, p)
            batch, self._positions[p] = log.read(max(position, log.low), limit - len(records))
            records += batch
        self._missing = {p: end for p, end in self._missing.items() if self._positions[p] < end}
        return records

    @property
    def at_end(self) -> bool:
        return not self._missing

    @property
    def positions(self) -> Mapping[int, int]:
        return dict(self._positions)

    def close(self) -> None:
        """There is nothing to free."""


class MemoryProducer:
    """Implements `pipeline.streams.contract.Producer`."""

    def __init__(self, broker: Cluster) -> None:
        self._broker = broker
        self._queue: list[Outgoing] = []

    def write(self, record: Outgoing) -> None:
        self._queue.append(self._placed(record))
        if not self._broker.is_away:
            self.flush()

    def flush(self) -> None:
        if self._broker.is_away and self._queue:
            raise FatalError(f"{len(self._queue)} records were not acknowledged")
        for record in self._queue:
            self._broker.append(*record)
        self._queue.clear()

    def deliver(self, record: Outgoing, *, timeout_s: float) -> Place:
        if self._broker.is_away:
            raise TransientError(f"writing to {record.topic}: nobody answers")
        placed = self._placed(record)
        return Place(placed.partition, self._broker.append(*placed))

    def _placed(self, record: Outgoing) -> Outgoing:
        if record.partition != -1:
            return record
        n_partitions = len(self._broker._topics.logs(record.topic))
        return record._replace(partition=crc32(record.key or b"") % n_partitions)
