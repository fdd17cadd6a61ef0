"""From one embedding model to the next: how far the items are, and when it takes over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.state.rows import NOWHERE
from pipeline.state.sample import Sample

LOOK_INTERVAL_S = 1.0
"""Counting the items that have both is a pass over all of them."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Items by the embedding models that they have a vector of."""

    n_both: int
    n_old_only: int
    n_new_only: int

    @classmethod
    def of(cls, old: Sample, new: Sample) -> Progress:
        """Of two samples over one range of items."""
        rows = old.find_packed(new.packed_names(new.occupied()))
        n_both = int(np.count_nonzero(rows != NOWHERE))
        return cls(n_both, len(old) - n_both, len(new) - n_both)

    @property
    def share(self) -> float:
        """Of the items that have a vector of the model that stands, those with both; 1 of none."""
        n_old = self.n_both + self.n_old_only
        return self.n_both / n_old if n_old else 1.0


@dataclass(slots=True)
class Migration:
    """Asks, not too often, whether enough items have both."""

    share: float
    clock: Callable[[], float]
    progress: Progress | None = None
    """As it was when last looked at."""
    _looked_at: float = float("-inf")

    def is_due(self, old: Sample, new: Sample) -> bool:
        """Whether the next model takes over."""
        if not len(new) or len(new) < self.share * len(old):
            return False  # so there are not enough with both
        now = self.clock()
        if now - self._looked_at >= LOOK_INTERVAL_S:
            self._looked_at, self.progress = now, Progress.of(old, new)
        return self.progress is not None and self.progress.share >= self.share
