"""How fast changes come, and how long they took from their record to the view.

The follower's thread notes, others read; numbers in arrays of fixed length, so nobody waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.messages.events import Cause
from pipeline.state.view.fold import News

N_KEPT: Final = 1024
RATE_S: Final = 10


class Rates:
    """What the newest changes tell.

    Parameters
    ----------
    now
        Seconds since 1970. The times of records are those of whoever wrote them: clocks that differ
        show.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._took_s = np.full(N_KEPT, np.nan)
        self._n = 0
        self._counts = np.zeros(RATE_S + 1, np.int64)
        self._seconds = np.full(RATE_S + 1, -1, np.int64)
        self._began_at: float | None = None

    def hear(self, news: News) -> None:
        """Changes have come to the view just now."""
        now = self._now()
        if self._began_at is None:
            self._began_at = now
        if not news.changes:
            return
        slot = int(now) % len(self._seconds)
        if self._seconds[slot] != int(now):
            self._seconds[slot], self._counts[slot] = int(now), 0
        self._counts[slot] += len(news.changes)
        for change in news.changes[-N_KEPT:]:
            if change.cause is Cause.RECORD and change.occurred_at_ms is not None:
                self._took_s[self._n % N_KEPT] = max(0.0, now - change.occurred_at_ms / 1000.0)
                self._n += 1

    @property
    def events_per_s(self) -> float:
        """Over the last `RATE_S` full seconds, or since it began."""
        now = int(self._now())
        is_recent = (self._seconds < now) & (self._seconds >= now - RATE_S)
        since = now if self._began_at is None else int(self._began_at)
        return float(self._counts[is_recent].sum()) / max(1, min(RATE_S, now - since))

    def quantiles_s(self, *levels: float) -> list[float | None]:
        """Of the time from a record to its change in the view; None: nothing was seen."""
        known: NDArray[np.float64] = self._took_s[~np.isnan(self._took_s)]
        if not len(known):
            return [None for _ in levels]
        found: list[float | None] = np.quantile(known, levels).round(4).tolist()
        return found
