"""Topics and the logs of their partitions, as the memory twin keeps them.

Offsets are given out as a broker does it: the marker that ends a transaction takes one, and so
does a record that is aborted later, so that offsets have gaps and the high watermark runs ahead
of the last record. Neither is kept: no reader at read_committed ever sees one.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from operator import attrgetter

from pipeline.errors import TopicError
from pipeline.messages.records import Headers, Record
from pipeline.streams.contract import TopicSettings
from pipeline.streams.transactions import Transaction

_offset_of = attrgetter("offset")


@dataclass(eq=False, slots=True)
class PartitionLog:
    """Records in offset order, of which those from the first undecided one on are unreadable."""

    is_compacted: bool = False
    low: int = 0
    high: int = 0
    records: list[Record] = field(default_factory=list)
    undecided: dict[Transaction, list[int]] = field(default_factory=dict)

    @property
    def stable(self) -> int:
        """The last stable offset: everything below it is decided."""
        return min((offsets[0] for offsets in self.undecided.values()), default=self.high)

    def append(
        self,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int,
        transaction: Transaction | None = None,
    ) -> int:
        assert key is not None or not self.is_compacted, "a compacted topic refuses a null key"
        offset = self.high
        self.records.append(Record(partition, offset, key, value, timestamp_ms, headers))
        if transaction is not None:
            self.undecided.setdefault(transaction, []).append(offset)
        self.high += 1
        return offset

    def end(self, transaction: Transaction, *, commits: bool) -> None:
        """Write the marker that decides a transaction here; nothing if it wrote nothing here."""
        offsets = set(self.undecided.pop(transaction, ()))
        if not offsets:
            return
        if not commits:
            self.records = [record for record in self.records if record.offset not in offsets]
        self.high += 1

    def readable(self) -> list[Record]:
        """Everything that a reader at read_committed could be given now."""
        return self.records[: self._index(self.stable)]

    def read(self, position: int, limit: int) -> tuple[list[Record], int]:
        """Readable records from ``position`` on, and the position after them."""
        start, stop = self._index(position), self._index(self.stable)
        if start + limit >= stop:
            return self.records[start:stop], max(position, self.stable)
        batch = self.records[start : start + limit]
        return batch, batch[-1].offset + 1 if batch else position

    def end_of_records(self) -> int:
        """The offset after the last readable record: markers behind it do not count."""
        stop = self._index(self.stable)
        return self.records[stop - 1].offset + 1 if stop else self.low

    def compact(
        self, *, keep_tombstones: bool, before: int | None, young_from: int | None = None
    ) -> None:
        end = self.stable if before is None else min(self.stable, before)
        newest = {record.key: record.offset for record in self.records if record.offset < end}
        self.records = [
            record
            for record in self.records
            if record.offset >= end
            or (
                newest[record.key] == record.offset
                and (
                    keep_tombstones
                    or record.value is not None
                    or (young_from is not None and record.offset >= young_from)
                )
            )
        ]

    def truncate(self, before: int) -> None:
        assert self.low <= before <= self.stable
        self.records = self.records[self._index(before) :]
        self.low = before

    def _index(self, offset: int) -> int:
        return bisect_left(self.records, offset, key=_offset_of)


@dataclass(eq=False, slots=True)
class Topics:
    """Settings and logs by name; what does not exist is a `TopicError`."""

    settings: dict[str, TopicSettings] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    """As many as there were topics: one that is made anew is another."""
    _logs: dict[str, list[PartitionLog]] = field(default_factory=dict)
    _n_created: int = 0

    def create(self, topic: TopicSettings) -> None:
        """Make a topic; one that exists already is left as it is."""
        if topic.name not in self.settings:
            is_compacted = "compact" in topic.config.get("cleanup.policy", "")
            self.settings[topic.name] = topic
            self.ids[topic.name] = str(self._n_created)
            self._n_created += 1
            self._logs[topic.name] = [PartitionLog(is_compacted) for _ in range(topic.n_partitions)]

    def delete(self, name: str) -> None:
        del self.settings[name], self.ids[name], self._logs[name]

    def logs(self, name: str) -> list[PartitionLog]:
        if name not in self._logs:
            raise TopicError(f"topic {name} does not exist")
        return self._logs[name]

    def log(self, name: str, partition: int) -> PartitionLog:
        logs = self.logs(name)
        if not 0 <= partition < len(logs):
            raise TopicError(f"topic {name} has {len(logs)} partitions, but not {partition}")
        return logs[partition]
