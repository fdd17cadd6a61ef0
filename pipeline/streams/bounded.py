"""A part of a stream: from given offsets, and up to given ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pipeline.messages.records import Outgoing
from pipeline.streams.contract import Poll, Stream


@dataclass(slots=True, eq=False)
class BoundedStream:
    """Implements `pipeline.streams.contract.Stream` around another one.

    What lies outside the bounds is read and not handed out, so nothing of it is ever committed.
    """

    inner: Stream
    starts: Mapping[int, int]
    """Partition -> the first offset to hand out; none: from wherever it is started."""
    ends: Mapping[int, int]
    """Partition -> the first offset not to hand out; of every partition."""
    started: set[int] = field(default_factory=set)
    passed: set[int] = field(default_factory=set)
    """Partitions of which a record beyond the end was seen: nothing more comes before it."""
    revoked: set[int] = field(default_factory=set)
    """Partitions that went to another member of the group."""

    def poll(self, max_records: int, *, timeout_s: float, max_bytes: int | None = None) -> Poll:
        polled = self.inner.poll(max_records, timeout_s=timeout_s, max_bytes=max_bytes)
        self.revoked |= polled.revoked
        gone = polled.revoked | polled.lost
        self.started -= gone
        self.passed -= gone
        within = [r for r in polled.records if r.offset < self.ends[r.partition]]
        if len(within) == len(polled.records):
            return polled
        self.passed |= {r.partition for r in polled.records if r.offset >= self.ends[r.partition]}
        return replace(polled, records=within)

    def start(self, partition: int, offset: int) -> None:
        self.inner.start(partition, max(offset, self.starts.get(partition, offset)))
        self.started.add(partition)

    def stop(self, partition: int) -> None:
        self.inner.stop(partition)
        self.started.discard(partition)

    def commit(self, outgoing: Iterable[Outgoing], next_offsets: Mapping[int, int]) -> None:
        self.inner.commit(outgoing, next_offsets)

    def rewind(self) -> None:
        """Also: what was seen beyond an end comes again behind what was not committed."""
        self.inner.rewind()
        self.passed.clear()

    def lag(self) -> Mapping[int, int]:
        """As the inner one counts it: to the end of the partition, not to ours."""
        return self.inner.lag()

    def close(self) -> None:
        self.inner.close()
