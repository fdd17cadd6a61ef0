"""The newest change events, in a ring for each partition of the input.

A ring for each, so that every replica holds the same events once it has caught up. An event is
kept as the bytes that it came in, beside the few numbers that it is looked for by: some 500 bytes.
"""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from pipeline.messages.codec import decode_change
from pipeline.messages.events import ClusterChange
from pipeline.messages.records import Record
from pipeline.state.view_items import NOWHERE, ClusterNames

RING_EVENTS = 65_536
"""Of all partitions together."""


class ChangeKey(NamedTuple):
    """The order of events over all partitions: by the time they were written at, then by place."""

    time_ms: int
    partition: int
    offset: int


class KeptChange(NamedTuple):
    """An event of the ring."""

    key: ChangeKey
    event: ClusterChange


class _Ring:
    """The newest events of one partition."""

    def __init__(self, capacity: int) -> None:
        self.n = 0
        """Events ever taken."""
        self.times = np.zeros(capacity, np.int64)
        self.offsets = np.zeros(capacity, np.int64)
        self.sources = np.zeros(capacity, np.int32)
        self.targets = np.zeros(capacity, np.int32)
        self.hashes = np.zeros(capacity, np.uint32)
        self.values: list[bytes] = []

    def add(self, record: Record, change: ClusterChange, source: int, target: int) -> None:
        at = self.n % len(self.times)
        value = record.value or b""
        if at == len(self.values):
            self.values.append(value)
        else:
            self.values[at] = value
        self.times[at] = record.timestamp_ms or 0
        self.offsets[at] = record.offset
        self.sources[at], self.targets[at] = source, target
        self.hashes[at] = crc32(change.item.encode())
        self.n += 1


class ChangeLog:
    """Rings of all partitions, newest first."""

    def __init__(self, names: ClusterNames, n_partitions: int, n_events: int = RING_EVENTS) -> None:
        self._names = names
        self._capacity = max(1, n_events // n_partitions)
        self._rings: dict[int, _Ring] = {}
        self._next: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(len(ring.values) for ring in self._rings.values())

    def is_new(self, record: Record) -> bool:
        """Whether the record was not taken yet: a reader may begin anew."""
        return record.offset >= self._next.get(record.partition, 0)

    def add(self, record: Record, change: ClusterChange, source: int, target: int) -> None:
        """Keep an event; the oldest of its partition goes."""
        ring = self._rings.get(record.partition)
        if ring is None:
            ring = self._rings[record.partition] = _Ring(self._capacity)
        ring.add(record, change, source, target)
        self._next[record.partition] = record.offset + 1

    def newest(
        self,
        limit: int,
        *,
        item: str | None = None,
        cluster: str | None = None,
        since_ms: int | None = None,
        before: ChangeKey | None = None,
    ) -> list[KeptChange]:
        """At most ``limit`` events that fit, the newest first.

        Parameters
        ----------
        before
            Only those that come after it in this order.
        """
        number = None if cluster is None else self._names.find(cluster)
        if number == NOWHERE:
            return []
        keys: list[NDArray[np.int64]] = []
        for partition, ring in self._rings.items():
            at = self._fitting(ring, item, number, since_ms)
            place = np.full(len(at), partition)
            keys.append(np.column_stack((ring.times[at], place, ring.offsets[at], at)))
        if not keys:
            return []
        table = np.concatenate(keys)
        if before is not None:
            table = table[_precedes(table, before)]
        if item is None:  # all of them fit: so only the newest are sorted
            table = _newest(table, limit)
        order = np.lexsort((table[:, 2], table[:, 1], table[:, 0]))[::-1]
        found: list[KeptChange] = []
        for time_ms, partition, offset, at in table[order].tolist():
            change = decode_change(self._rings[partition].values[at])
            if item is None or change.item == item:
                found.append(KeptChange(ChangeKey(time_ms, partition, offset), change))
                if len(found) == limit:
                    break
        return found

    def _fitting(
        self, ring: _Ring, item: str | None, number: int | None, since_ms: int | None
    ) -> NDArray[np.intp]:
        n = len(ring.values)
        fits = np.ones(n, np.bool_)
        if item is not None:
            fits &= ring.hashes[:n] == crc32(item.encode())
        if number is not None:
            fits &= (ring.sources[:n] == number) | (ring.targets[:n] == number)
        if since_ms is not None:
            fits &= ring.times[:n] >= since_ms
        return np.flatnonzero(fits)


def _newest(table: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The last ``n`` rows in the order of `ChangeKey`, themselves in any order.

    Many events have one time, as those of a new model: so of the ones at the border the later
    columns decide.
    """
    chosen = []
    for column in range(len(ChangeKey._fields)):
        if len(table) <= n:
            break
        values = table[:, column]
        least = np.partition(values, -n)[-n]
        chosen.append(table[values > least])
        table, n = table[values == least], n - len(chosen[-1])
    return np.concatenate([*chosen, table])


def _precedes(table: NDArray[np.int64], key: ChangeKey) -> NDArray[np.bool_]:
    """(n,) whether a row stands below the key in the order of `ChangeKey`."""
    times, partitions, offsets = table[:, 0], table[:, 1], table[:, 2]
    below: NDArray[np.bool_] = (times < key.time_ms) | (
        (times == key.time_ms)
        & ((partitions < key.partition) | ((partitions == key.partition) & (offsets < key.offset)))
    )
    return below
