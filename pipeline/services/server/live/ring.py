"""The newest events of all kinds, in the order they came, found again by their offsets.

A lane is one partition of one topic of events. Within a lane events stand in offset order; what
holds between lanes is only the order in which this process read them, which is no other replica's.
So a place in the ring is a number here, and a vector of offsets on the wire.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

CHANGES: Final = "changes"
LIFECYCLE: Final = "lifecycle"
DRIFT: Final = "drift"
EVENT_CHANNELS: Final = (CHANGES, LIFECYCLE, DRIFT)
RING_EVENTS: Final = 65_536
_SHRINK: Final = 4096

Lane = tuple[str, int]
"""Channel and partition."""


class Told(NamedTuple):
    """One event, shared by everybody who gets it."""

    number: int
    """Its place in the order in which this process read them."""
    channel: str
    partition: int
    offset: int
    kind: str
    """Its ``type``."""
    item: str | None
    clusters: tuple[str, ...]
    """Those it is about; none: the whole model, or all of them."""
    body: bytes
    """JSON in one line, as it stands in the topic."""
    metadata: Mapping[str, Any] | None = None
    """Of a change, if it carries any along."""


class _Lane:
    """Where the events of one lane stand; ``floor``: below it nothing is known."""

    __slots__ = ("begin", "floor", "head", "numbers", "offsets")

    def __init__(self, floor: int) -> None:
        self.floor = self.head = floor
        self.offsets: list[int] = []
        self.numbers: list[int] = []
        self.begin = 0

    def pop(self) -> None:
        self.floor = self.offsets[self.begin] + 1
        self.begin += 1
        if self.begin >= _SHRINK and 2 * self.begin >= len(self.offsets):
            del self.offsets[: self.begin], self.numbers[: self.begin]
            self.begin = 0

    def offset_at(self, number: int) -> int:
        """The offset from which on everything has this number or a later one."""
        at = bisect_left(self.numbers, number, self.begin)
        return self.offsets[at] if at < len(self.offsets) else self.head


class Ring:
    """Holds the newest ``capacity`` events.

    Not safe for threads; whoever shares it brings the lock.
    """

    def __init__(self, capacity: int = RING_EVENTS) -> None:
        assert capacity > 0
        self._slots: list[Told | None] = [None] * capacity
        self._lanes: dict[Lane, _Lane] = {}
        self.next = 0
        """The number of the next event."""

    @property
    def oldest(self) -> int:
        """The number of the oldest event that is held; `next`, if none is."""
        return max(0, self.next - len(self._slots))

    @property
    def is_full(self) -> bool:
        """Whether the next event takes the place of the oldest."""
        return self.next >= len(self._slots)

    def begin(self, channel: str, positions: Mapping[int, int]) -> None:
        """Say where reading begins: what stands before is unknown here."""
        for partition, offset in positions.items():
            self._lanes.setdefault((channel, partition), _Lane(offset))

    def is_new(self, channel: str, partition: int, offset: int) -> bool:
        """Whether an event has not come yet: a reader may begin anew."""
        lane = self._lanes.get((channel, partition))
        return lane is None or offset >= lane.head

    def add(self, told: Told) -> None:
        """Take the next event; the oldest goes. Its number is `next`."""
        assert told.number == self.next
        at = self.next % len(self._slots)
        gone = self._slots[at]
        if gone is not None:
            self._lanes[gone.channel, gone.partition].pop()
        self._slots[at] = told
        key = (told.channel, told.partition)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(told.offset)
        lane.offsets.append(told.offset)
        lane.numbers.append(told.number)
        lane.head = told.offset + 1
        self.next += 1

    def get(self, number: int) -> Told:
        """The event of a number from `oldest` up to `next`."""
        assert self.oldest <= number < self.next
        told = self._slots[number % len(self._slots)]
        assert told is not None
        return told

    def positions(self, number: int) -> dict[Lane, int]:
        """Lane -> the offset at which somebody goes on who has all events below ``number``."""
        return {key: lane.offset_at(number) for key, lane in self._lanes.items()}

    def find(self, positions: Mapping[Lane, int], channels: frozenset[str]) -> tuple[int, int]:
        """From which number on nothing is missed, and how many offsets are not here any more.

        Marks of transactions take offsets, too: so many events are missing at most. A position
        beyond what was read here is none to worry about: another replica was ahead.
        """
        number, gap = self.next, 0
        for key, lane in self._lanes.items():
            wanted = positions.get(key)
            if key[0] not in channels or wanted is None:
                continue
            gap += max(0, lane.floor - wanted)
            at = bisect_left(lane.offsets, wanted, lane.begin)
            if at < len(lane.offsets):
                number = min(number, lane.numbers[at])
        return number, gap
