"""When an assigner looks at itself: how often, and at how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from pipeline.engine.checking import (
    Look,
    Violation,
    check_counts,
    check_labels,
    check_sums,
)
from pipeline.engine.cluster_engine import ClusterEngine

LABELS_PER_S = 64
"""At most: fewer where a model is large, by `PAUSE`."""
INTERVAL_S = 0.25
"""Several small looks a second rather than a large one: no batch waits long for any."""
SUMS_INTERVAL_S = 10.0
COUNTS_INTERVAL_S = 60.0
"""A pass over a label and a proof of every member of a partition."""
PAUSE = 110
"""A look is followed by a rest so many times as long: less than 1 % of the loop, whatever the
model. On two busy cores (Zen 5) that left 64 labels a second of 26 x 384, 17 of 500 x 384, and one
in two seconds of 5000 x 1024."""


@dataclass(slots=True)
class Checks:
    """Decides what is looked at, and holds the chance by which it is drawn."""

    rng: Generator = field(default_factory=lambda: np.random.default_rng(0))
    n_checked: int = 0
    """Labels so far."""
    _looked_at: float = float("-inf")
    _again_at: float = float("-inf")
    _sums_at: float = float("-inf")
    _counts_at: float = float("-inf")

    def look(self, engine: ClusterEngine, clock: Callable[[], float]) -> list[Violation]:
        """Look at a little, if it is time to; what cannot be, usually nothing.

        Call it between transactions: in the middle of one the state may be on its way.
        """
        began = clock()
        if began < self._again_at:
            return []
        found = self._look(engine, began)
        ended = clock()
        self._again_at = ended + max(INTERVAL_S, PAUSE * (ended - began))
        return found.violations

    def _look(self, engine: ClusterEngine, now: float) -> Look:
        if now >= self._counts_at:
            self._counts_at = now + COUNTS_INTERVAL_S
            return check_counts(engine, self.rng)
        if now >= self._sums_at:
            self._sums_at = now + SUMS_INTERVAL_S
            return check_sums(engine, self.rng)
        elapsed_s, self._looked_at = min(now - self._looked_at, 1.0), now
        looked = check_labels(engine, self.rng, max(1, round(LABELS_PER_S * elapsed_s)))
        self.n_checked += looked.n_checked
        return looked
