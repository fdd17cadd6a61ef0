"""What the assigners have yet to read, seen from outside: so also while all of them are down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.errors import TransientError
from pipeline.streams.contract import Broker

INTERVAL_S = 30.0


@dataclass(slots=True)
class GroupLag:
    """Asks for committed offsets and ends of the log, not too often."""

    broker: Broker
    group: str
    topic: str
    clock: Callable[[], float]
    _told_s: float = float("-inf")

    def tell(self, report: Callable[[Mapping[int, int]], None]) -> None:
        """Report the records left of each partition, if it is time and the broker answers."""
        now = self.clock()
        if now - self._told_s < INTERVAL_S:
            return
        self._told_s = now
        try:
            committed = self.broker.committed(self.group, self.topic)
            ranges = self.broker.ranges(self.topic)
        except TransientError:
            return  # a transaction is pending, or the broker is away: at the next time
        report(
            {
                partition: log.high - max(committed[partition] or 0, log.low)
                for partition, log in ranges.items()
            }
        )
