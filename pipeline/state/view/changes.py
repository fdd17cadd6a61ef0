"""The newest change events, in a ring for each partition of the input.

A ring for each, so that every replica holds the same events once it has caught up. An event is
kept as the bytes that it came in, beside the few numbers that it is looked for by: some 500 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from pipeline.messages.codec import decode_change
from pipeline.messages.events import ClusterChange
from pipeline.messages.records import Record
from pipeline.state.view.items import NOWHERE, ClusterNames

RING_EVENTS = 65_536
"""Of all partitions together."""
_COLUMNS: Final = ("times", "offsets", "sources", "targets", "hashes")


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
        places: dict[int, NDArray[np.intp]] = {}
        for partition, ring in self._rings.items():
            at = self._fitting(ring, item, number, since_ms)
            places[partition] = at if before is None else _behind(ring, partition, at, before)
        if item is None:  # all of them fit: so only the newest are put in order
            places = self._newest_of(places, limit)
        keys: list[NDArray[np.int64]] = []
        for partition, at in places.items():
            ring, place = self._rings[partition], np.full(len(at), partition)
            keys.append(np.column_stack((ring.times[at], place, ring.offsets[at], at)))
        if not keys:
            return []
        table = np.concatenate(keys)
        order = np.lexsort((table[:, 2], table[:, 1], table[:, 0]))[::-1]
        found: list[KeptChange] = []
        for time_ms, partition, offset, at in table[order].tolist():
            change = decode_change(self._rings[partition].values[at])
            if item is None or change.item == item:
                found.append(KeptChange(ChangeKey(time_ms, partition, offset), change))
                if len(found) == limit:
                    break
        return found

    def records(self) -> list[Record]:
        """What is kept, as it was read: of a partition in offset order, over all by time."""
        keys, found = [], []
        for partition, ring in self._rings.items():
            at = (np.arange(len(ring.values)) + ring.n) % len(ring.values)  # the oldest first
            times = np.maximum.accumulate(ring.times[at])
            keys.append(np.column_stack((times, np.full(len(at), partition), ring.offsets[at])))
            for i in at.tolist():
                offset, time_ms = int(ring.offsets[i]), int(ring.times[i])
                found.append(Record(partition, offset, None, ring.values[i], time_ms, ()))
        if not found:
            return []
        table = np.concatenate(keys)
        order = np.lexsort((table[:, 2], table[:, 1], table[:, 0]))
        return [found[i] for i in order.tolist()]

    def parts(self) -> dict[str, Any]:
        """All of it, copied."""
        rings = self._rings
        told: dict[str, Any] = {
            "capacity": self._capacity,
            "rings": [(p, ring.n, len(ring.values)) for p, ring in rings.items()],
            "next": [*self._next.items()],
        }
        for p, ring in rings.items():
            n = len(ring.values)
            told |= {f"{p}.{name}": getattr(ring, name)[:n].copy() for name in _COLUMNS}
            told[f"{p}.values"] = list(ring.values)
        return told

    def resume(self, parts: Mapping[str, Any]) -> None:
        """Become what `parts` told."""
        if parts["capacity"] != self._capacity:
            raise ValueError(f"a ring of {parts['capacity']} events")
        for p, n_taken, n in parts["rings"]:
            ring = self._rings[p] = _Ring(self._capacity)
            ring.n, ring.values = n_taken, parts[f"{p}.values"]
            if len(ring.values) != n or n != min(n_taken, self._capacity):
                raise ValueError(f"{len(ring.values)} events of {n}")
            for name in _COLUMNS:
                getattr(ring, name)[:n] = parts[f"{p}.{name}"]
        self._next = dict(parts["next"])

    def _newest_of(
        self, places: dict[int, NDArray[np.intp]], n: int
    ) -> dict[int, NDArray[np.intp]]:
        """The ``n`` newest in the order of `ChangeKey`, themselves in any order.

        Many events have one time, as those of a new model: so of the ones at the border partition
        and offset decide.
        """
        times = {partition: self._rings[partition].times[at] for partition, at in places.items()}
        if sum(map(len, times.values())) <= n:
            return places
        every = np.concatenate([*times.values()])
        least = np.partition(every, -n)[-n]
        n_left = n - int(np.count_nonzero(every > least))
        chosen = {}
        for partition in sorted(places, reverse=True):
            at, at_times = places[partition], times[partition]
            equal = at[at_times == least]
            if len(equal) > n_left:
                first = len(equal) - n_left
                order = np.argpartition(self._rings[partition].offsets[equal], first - 1)
                equal = equal[order[first:]]
            n_left -= len(equal)
            chosen[partition] = np.concatenate((at[at_times > least], equal))
        return chosen

    def _fitting(
        self, ring: _Ring, item: str | None, number: int | None, since_ms: int | None
    ) -> NDArray[np.intp]:
        n = len(ring.values)
        if item is None and number is None and since_ms is None:
            return np.arange(n)
        fits = np.ones(n, np.bool_)
        if item is not None:
            fits &= ring.hashes[:n] == crc32(item.encode())
        if number is not None:
            fits &= (ring.sources[:n] == number) | (ring.targets[:n] == number)
        if since_ms is not None:
            fits &= ring.times[:n] >= since_ms
        return np.flatnonzero(fits)


def _behind(ring: _Ring, partition: int, at: NDArray[np.intp], key: ChangeKey) -> NDArray[np.intp]:
    """Those of the places that stand below the key in the order of `ChangeKey`."""
    times = ring.times[at]
    below = times < key.time_ms
    if partition == key.partition:
        below |= (times == key.time_ms) & (ring.offsets[at] < key.offset)
    elif partition < key.partition:
        below |= times == key.time_ms
    return at[below]
