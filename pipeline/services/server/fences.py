"""From when on a record shows: once everything that its transaction wrote is read.

A removal, a head, an assignment each say that a partition's records below an offset were applied.
But topics are read side by side, and a transaction may be cut anywhere: what says so may be here
before the rest of it is. When it is, the rest stands in the logs, below their ends; so the ends
are asked for then, and the claim counts once the readers have passed them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from pipeline.errors import TransientError
from pipeline.state.view.fold import View
from pipeline.streams.contract import Broker

ASK_INTERVAL_S = 1.0
"""How old what the view shows may be while nobody waits for it."""


class _Fence(NamedTuple):
    claim: int
    ends: Mapping[str, int]
    """Topic -> where this partition of it ended after the claim was read."""


class Fences:
    """Raises what a `View` shows of every partition; one thread calls it."""

    def __init__(self, broker: Broker, view: View) -> None:
        self._broker, self._view = broker, view
        self._fences: dict[int, _Fence] = {}
        self._asked_at = -ASK_INTERVAL_S

    def step(
        self, positions: Mapping[str, Mapping[int, int]], now: float, *, is_pressing: bool
    ) -> bool:
        """Look how far the readers are; whether the view shows more than before.

        Parameters
        ----------
        positions
            Of the topics that are written for the input, each with its partitions: all below was
            taken in.
        now
            Seconds of a clock that never goes back.
        is_pressing
            Somebody waits, or there is nothing else to do: the ends may be asked for at once.
        """
        if is_pressing or now - self._asked_at >= ASK_INTERVAL_S:
            self._ask(positions.keys(), now)
        passed = [p for p, fence in self._fences.items() if _is_passed(fence, p, positions)]
        for partition in passed:
            self._view.shown[partition] = self._fences.pop(partition).claim
        return bool(passed)

    def _ask(self, topics: Collection[str], now: float) -> None:
        shown = self._view.shown
        claims = {
            p: claim
            for p, claim in self._view.claims.items()
            if p not in self._fences and claim > shown.get(p, 0)
        }
        if not claims:
            return
        self._asked_at = now
        try:
            ranges = {topic: self._broker.ranges(topic) for topic in topics}
        except TransientError:
            return  # the broker is away: what shows, shows
        for partition, claim in claims.items():
            ends = {t: found[partition].high for t, found in ranges.items() if partition in found}
            self._fences[partition] = _Fence(claim, ends)


def _is_passed(fence: _Fence, partition: int, positions: Mapping[str, Mapping[int, int]]) -> bool:
    return all(
        positions[topic].get(partition, end) >= end
        for topic, end in fence.ends.items()
        if topic in positions
    )
