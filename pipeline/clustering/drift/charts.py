"""Charts that do not look at shares: distance and shift of each cluster, churn of the model."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.drift.runlength import MEMORY, normal_tail, shaped_levels
from pipeline.clustering.drift.shares import KEEP, QUIET, RecordWeights
from pipeline.clustering.drift.signals import Baseline, Floats, Reading, Window
from pipeline.clustering.profile import LEVELS, Profiles

MIN_MEMBERS = 8
"""At the fit; with fewer, a cluster has no spread to compare a distance with."""
PRIOR_MEMBERS = 8.0
"""A spread counts as if so many more members had the spread that is usual."""
N_LEARNING = 20
"""Windows that churn holds back: about those that are in its memory."""
TINY = float(np.finfo(np.float64).tiny)


class Distance:
    """Whether records land farther from a centroid than the members at the fit lay.

    For each cluster, with m records in a window and ν distances' mean and σ their spread,

        S = (1 - λ) S + λ Σ (d - ν)      V = (1 - λ)² V + λ² m σ²      W = (1 - λ) W + λ m

    and the statistic is S / sqrt(V + W² σ²/n): the last term is what n members at the fit leave
    unknown of ν. "Exponentially weighted moving average control schemes: properties and
    enhancements", 1990, one-sided. A centroid is the mean of its members, so they lie closer than
    a new item of the same kind: ν is their mean distance times sqrt((n + 1) / (n - 1)). A sum of
    few distances is as skewed as they are, so the level is raised by what the quantiles at the fit
    say of it. The effect is the shift in units of σ.

    The last place of a reading is that of all clusters together: ΣS over the root of its variance,
    which notices what is too little in each of them; the threshold counts it as one more.

    All this expects vectors that the fit has not seen. Where the very same vectors come again, its
    run is longer than asked for.
    """

    def __init__(self, baseline: Baseline, *, arl0: float) -> None:
        fitted = baseline.profiles
        counts = fitted.counts.astype(np.float64)
        self.is_watched: NDArray[np.bool_] = counts >= MIN_MEMBERS
        self.is_possible = bool(self.is_watched.any())
        variances = fitted.mean_squared_distances - fitted.mean_distances**2
        variances = np.maximum(np.where(self.is_watched, variances, 0.0), 0.0)
        usual = float((counts * variances).sum()) / max(float(counts[self.is_watched].sum()), 1.0)
        shrunk = (counts * variances + PRIOR_MEMBERS * usual) / (counts + PRIOR_MEMBERS)
        self.variances = np.maximum(shrunk, TINY)
        n = np.maximum(counts, 2.0)
        self.expected = fitted.mean_distances * np.sqrt((n + 1.0) / (n - 1.0))
        self._n_fitted = n
        self._third = np.maximum(_third_moments(fitted), 0.0)
        self._sums, self._noise, self._thirds, self._records = np.zeros((4, len(counts)))
        if self.is_possible:
            self.tail = normal_tail(float(arl0), int(self.is_watched.sum()) + 1)

    def add(self, window: Window) -> None:
        """One more window."""
        self._sums *= KEEP
        self._sums += MEMORY * (window.distances - window.landed * self.expected)
        self._noise *= KEEP**2
        self._noise += MEMORY**2 * window.landed * self.variances
        self._thirds *= KEEP**3
        self._thirds += MEMORY**3 * window.landed * self._third
        self._records *= KEEP
        self._records += MEMORY * window.landed

    def read(self) -> Reading:
        """After a window; K + 1 places."""
        seen = self.is_watched & (self._records > 0.0)
        variances = self._noise + self._records**2 * self.variances / self._n_fitted
        excess = self._with_all(self._sums, seen)
        spread = np.sqrt(self._with_all(variances, seen))
        spread[spread == 0.0] = math.inf  # no record yet
        # of all together: the shift that would give ΣS if every cluster had it
        unit = self._with_all(self._records * np.sqrt(self.variances), seen)
        unit[unit == 0.0] = math.inf
        skews = self._with_all(self._thirds, seen) / spread**3
        return Reading(
            statistics=excess / spread,
            thresholds=shaped_levels(self.tail, skews),
            quiet=shaped_levels(QUIET, skews),
            effects=np.maximum(excess / unit, 0.0),
            evidence=lambda: np.maximum(excess[:-1] / spread[:-1], 0.0) ** 2,
        )

    @staticmethod
    def _with_all(values: Floats, seen: NDArray[np.bool_]) -> Floats:
        """(K + 1,): zeros where nothing is seen, the sum of the others last."""
        known = np.where(seen, values, 0.0)
        return np.append(known, known.sum())


def _third_moments(fitted: Profiles) -> Floats:
    """(K,) third central moments of the distances, from their quantiles.

    Between two quantiles the distances count as spread evenly: that overstates a single outlier,
    and so lengthens a run.
    """
    gaps = fitted.quantiles.astype(np.float64) - fitted.mean_distances[:, None]
    low, high = gaps[:, :-1], gaps[:, 1:]
    cubes = (low**3 + low**2 * high + low * high**2 + high**3) / 4.0
    moments: Floats = cubes @ np.diff(LEVELS)
    return np.where(fitted.quantiles[:, -1] > 0.0, moments, 0.0)  # zeros: not known


class Churn:
    """Whether records move more items from one cluster to another than they used to.

    How many do depends on the vectors and on nothing that a fit knows, so the stream itself says
    what is usual: all windows under this model but the newest `N_LEARNING`, and but those that were
    beyond the threshold. What is not known of it counts as noise. Beside that it is the chart of a
    proportion with exponential weights, one-sided. The effect is Cohen's h, 2 asin √p - 2 asin √p₀.
    """

    def __init__(self, *, arl0: float) -> None:
        self.tail = normal_tail(float(arl0))
        self._newest: deque[tuple[int, int]] = deque()
        self._records, self._reassigned = 0, 0
        self._weights = RecordWeights()
        self._weight, self._remembered = 0.0, 0.0
        self._is_beyond = False

    @property
    def usual(self) -> float:
        """The share of records that reassign, as learned; never 0 or 1."""
        return (self._reassigned + 0.5) / (self._records + 1.0)

    def add(self, window: Window) -> None:
        """One more window, with at least one record."""
        self._newest.append((window.n_records, window.n_reassigned))
        self._weights.add(window.n_records)
        self._weight += MEMORY * (1.0 - self._weight)
        share = window.n_reassigned / window.n_records
        self._remembered += MEMORY * (share - self._remembered)
        if len(self._newest) > N_LEARNING:
            n_records, n_reassigned = self._newest.popleft()
            if not self._is_beyond:
                self._records += n_records
                self._reassigned += n_reassigned
        self._is_beyond = self._judged()

    def _judged(self) -> bool:
        reading = self.read()
        return reading is not None and bool(reading.statistics[0] > reading.thresholds[0])

    def read(self) -> Reading | None:
        """After a window; None: it is still learning."""
        if not self._records:
            return None
        p = self.usual
        scale, v = p * (1.0 - p), self._weights.variance
        spread = math.sqrt(scale * (v + self._weight**2 / self._records))
        skews = np.array([scale * (1.0 - 2.0 * p) * self._weights.sums[3] / spread**3])
        risen = math.asin(math.sqrt(min(self._remembered / self._weight, 1.0)))
        return Reading(
            statistics=np.array([(self._remembered - self._weight * p) / spread]),
            thresholds=shaped_levels(self.tail, skews),
            quiet=shaped_levels(QUIET, skews),
            effects=np.array([max(2.0 * (risen - math.asin(math.sqrt(p))), 0.0)]),
        )


class Shift:
    """Whether a centroid goes on moving in one direction.

    A centroid that follows its members is never at rest, so how far it is from where it was fitted
    says nothing by itself. Of its steps D, remembered exponentially,

        A = (1 - λ) A + D      B = (1 - λ)² B + ‖D‖²      R = ‖A‖² / B

    has the mean 1 where steps have no direction, and (2 - λ)/λ where all are the same. Where a step
    is as likely as its opposite, P(R > x) <= 2 exp(-x/2), in any dimension ("Optimum bounds for the
    distributions of martingales in Banach spaces", 1994, for Hilbert spaces), so x = 2 ln(4 K arl0)
    makes the mean run arl0 at least: an upper bound of the rate of false alarms, and a wide one.
    λ is chosen so that a straight walk reaches twice that. The effect is the distance from where
    the centroid was fitted, in units of the cluster's spread.
    """

    def __init__(self, baseline: Baseline, *, arl0: float) -> None:
        n = len(baseline.profiles.counts)
        self.threshold = _bounded(1.0 / (2.0 * n * arl0))
        self.memory = 2.0 / (1.0 + 2.0 * self.threshold)
        self._spreads = np.sqrt(baseline.profiles.mean_squared_distances)
        self._sums: NDArray[np.float32] | None = None  # as large as the model
        self._squares = np.zeros(n)
        self._effects = np.zeros(n)

    def add(self, window: Window) -> None:
        """One more window; one without a model's step changes nothing."""
        if window.moves is None or window.displacements is None:
            return
        moves = window.moves.astype(np.float32, copy=False)
        if self._sums is None:
            self._sums = np.zeros_like(moves)
        keep = 1.0 - self.memory
        self._sums *= np.float32(keep)
        self._sums += moves
        self._squares *= keep**2
        self._squares += np.einsum("ij,ij->i", moves, moves, dtype=np.float64)
        known = np.where(self._spreads > 0.0, self._spreads, math.inf)
        self._effects = window.displacements / known

    def read(self) -> Reading | None:
        """After a window; None: no centroid has moved yet."""
        if self._sums is None:
            return None
        lengths = np.einsum("ij,ij->i", self._sums, self._sums, dtype=np.float64)
        has_moved = self._squares > 0.0
        return Reading(
            statistics=lengths * has_moved / np.where(has_moved, self._squares, 1.0),
            thresholds=np.full(len(lengths), self.threshold),
            quiet=np.full(len(lengths), _bounded(QUIET)),
            effects=self._effects,
        )


def _bounded(tail: float) -> float:
    """The level of R that is exceeded with probability ``tail`` at most."""
    return 2.0 * math.log(2.0 / tail)
