"""Charts on the shares of traffic that clusters get: occupancy and imbalance.

Both look at one vector: z = (1 - λ) z + λ x/n, the shares of a window remembered exponentially,
which begins at the shares π of the fit. With windows of n_t records, c_r the weight of a record,

    v = Σ c_r²            cov(z) = v (diag π - π πᵀ)

exactly, whatever the windows hold. The sums of other powers give the skewness, which sparse
clusters cause, so the level of a statistic is right where a normal limit is not yet.

**What the fit does not know.** An item that the fit saw lands where the fit counted it: π is
exact. New items come from what the fit was a sample of, and π was only estimated: the share a of
new items, remembered like z, brings the variance a²/n_fit, where it is counted as if it were
noise. So a model fitted on few items does not cry at every new one, and a stream that goes on
with the items it has is watched as sharply as can be.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.clustering.drift.runlength import (
    MEMORY,
    degrees_of,
    normal_tail,
    radius_tail,
    shaped_level,
)
from pipeline.clustering.drift.signals import Baseline, Counts, Floats, Reading, Window

KEEP = 1.0 - MEMORY
QUIET = 0.25
"""An alarm ends below what a quarter of all windows exceed without a change."""
MIN_EXPECTED = 5.0
"""Records of a cluster in the memory, below which it is counted together with others."""
EMPTY = 0.5
"""A cluster without a member at the fit is expected to get half of one's traffic."""


class RecordWeights:
    """Sums of powers of the weights that records have in the memory, for r = 2, 3, 4, 6."""

    def __init__(self) -> None:
        self.sums = {2: 0.0, 3: 0.0, 4: 0.0, 6: 0.0}

    def add(self, n: int) -> None:
        """One more window, of ``n`` records."""
        for r in self.sums:
            self.sums[r] = KEEP**r * self.sums[r] + MEMORY**r / float(n) ** (r - 1)

    @classmethod
    def settled(cls, n: int) -> RecordWeights:
        """After many windows of ``n`` records."""
        weights = cls()
        weights.sums = {r: MEMORY**r / float(n) ** (r - 1) / (1.0 - KEEP**r) for r in weights.sums}
        return weights

    @property
    def variance(self) -> float:
        """v = Σ c²; zero before the first record."""
        return self.sums[2]

    def normed(self, r: int) -> float:
        """Σ c^r where Σ c² = 1."""
        return self.sums[r] / math.sqrt(self.sums[2]) ** r


class Traffic:
    """Where records land, remembered; what is known of where they should."""

    def __init__(self, baseline: Baseline) -> None:
        counts = np.maximum(baseline.profiles.counts.astype(np.float64), EMPTY)
        self.shares = counts / counts.sum()
        self.remembered = self.shares.copy()
        self.weights = RecordWeights()
        self._n_fitted = max(float(baseline.profiles.counts.sum()), 1.0)
        self._n_items = max(float(baseline.n_items or 0), self._n_fitted)
        self._n_members = baseline.n_members
        self._weight = 0.0  # of all windows so far, against the fit's
        self._new = 0.0  # of items that the fit did not see

    def add(self, window: Window) -> None:
        """One more window, with at least one record that landed."""
        n = int(window.landed.sum())
        # what did not land was a tombstone, mostly, and made room for an item that did
        n_new = window.n_members - self._n_members + max(window.n_records - n, 0)
        self._n_members = window.n_members
        self.remembered += MEMORY * (window.landed / n - self.remembered)
        self.weights.add(n)
        self._weight += MEMORY * (1.0 - self._weight)
        self._new += MEMORY * (min(max(n_new / n, 0.0), 1.0) - self._new)

    @property
    def variance(self) -> float:
        """Of the records, and of the fit that did not see all items, or not those that came."""
        not_seen = self._weight**2 * (1.0 / self._n_fitted - 1.0 / self._n_items)
        return self.weights.variance + not_seen + self._new**2 / self._n_items


class Occupancy:
    """Whether the shares are still those of the fit: Q = Σ (z - π)²/π / v.

    "A multivariate exponentially weighted moving average control chart", 1992, of the whitened
    shares. Its run length is that of the chart of a normal vector with as many degrees of
    freedom as make it as skewed (`cumulants`). The effect is Cohen's w, sqrt(Σ (z - π)²/π),
    less what chance alone adds to it.
    """

    def __init__(self, traffic: Traffic, *, arl0: float, window: int) -> None:
        self._traffic = traffic
        self.cells = cells(traffic.shares / RecordWeights.settled(window).variance)
        self._shares: Floats = np.bincount(self.cells, traffic.shares).astype(np.float64)
        self.is_possible = len(self._shares) > 1
        if self.is_possible:
            _, variance, third = cumulants(self._shares, RecordWeights.settled(window))
            self.tail = radius_tail(float(arl0), round(degrees_of(variance, third), 1))

    def read(self) -> Reading:
        """After a window that `Traffic` has taken in."""
        variance = self._traffic.variance
        gaps = np.bincount(self.cells, self._traffic.remembered) - self._shares
        distance = float((gaps * gaps / self._shares).sum())
        moments = cumulants(self._shares, self._traffic.weights)
        excess = distance - (len(self._shares) - 1) * variance
        return Reading(
            statistics=np.array([distance / variance]),
            thresholds=np.array([shaped_level(self.tail, *moments)]),
            quiet=np.array([shaped_level(QUIET, *moments)]),
            effects=np.array([math.sqrt(max(excess, 0.0))]),
            evidence=self._evidence,
        )

    def _evidence(self) -> Floats:
        """Of a cluster: its part of Q; of those counted together, by how far each is off."""
        gaps = np.abs(self._traffic.remembered - self._traffic.shares)
        by_cell = np.bincount(self.cells, self._traffic.remembered) - self._shares
        together = np.bincount(self.cells, gaps)
        part = gaps / np.maximum(together, np.finfo(np.float64).tiny)[self.cells]
        noise = self._shares * (1.0 - self._shares) * self._traffic.variance
        evidence: Floats = (by_cell**2 / noise)[self.cells] * part
        return evidence


class Imbalance:
    """Whether the traffic is more concentrated than at the fit: T = Σ z² - Σ π².

    Under no change z - π is nearly normal, so T is a linear and a quadratic part, whose mean,
    variance and skewness are known in closed form. The effect is the share of the effective
    number of clusters, 1/Σ z², that is gone.
    """

    def __init__(self, traffic: Traffic, *, arl0: float, window: int) -> None:
        self._traffic = traffic
        self.powers = [float((traffic.shares**r).sum()) for r in (1, 2, 3, 4)]
        self.is_possible = len(traffic.shares) > 1
        if self.is_possible:
            linear, quadratic = self._variances(RecordWeights.settled(window).variance)
            self.tail = normal_tail(float(arl0), 1, round(quadratic / (linear + quadratic), 2))

    def _variances(self, v: float) -> tuple[float, float]:
        _, p2, p3, _ = self.powers
        return 4.0 * v * max(p3 - p2 * p2, 0.0), 2.0 * v * v * (p2 - 2.0 * p3 + p2 * p2)

    def read(self) -> Reading:
        """After a window that `Traffic` has taken in."""
        v = self._traffic.variance
        _, p2, p3, p4 = self.powers
        spread = math.sqrt(sum(self._variances(v)))
        # tr Σ³ and πᵀΣ²π of a multinomial's Σ
        cubic = 8.0 * v**3 * (p3 - 3.0 * p4 + 3.0 * p2 * p3 - p2**3)
        third = cubic + 24.0 * v * v * max(p4 - 2.0 * p2 * p3 + p2**3, 0.0)
        now = float((self._traffic.remembered**2).sum()) - v * (1.0 - p2)
        skew = third / spread**3
        return Reading(
            statistics=np.array([(now - p2) / spread]),
            thresholds=np.array([shaped_level(self.tail, 0.0, 1.0, skew)]),
            quiet=np.array([shaped_level(QUIET, 0.0, 1.0, skew)]),
            effects=np.array([max(1.0 - p2 / now, 0.0) if now > 0.0 else 0.0]),
            evidence=self._evidence,
        )

    def _evidence(self) -> Floats:
        """Of a cluster that grew and is larger than most; the growth of others spreads traffic."""
        gaps, shares = self._traffic.remembered - self._traffic.shares, self._traffic.shares
        evidence = gaps**2 / (shares * (1.0 - shares) * self._traffic.variance)
        return np.where((gaps > 0.0) & (shares >= self.powers[1]), evidence, 0.0)


def cells(expected: Floats) -> Counts:
    """(K,) int64: clusters that are expected to get too little share the last cell."""
    order = np.argsort(expected, kind="stable")
    n_sparse = int((expected < MIN_EXPECTED).sum())
    while 0 < n_sparse < len(expected) and expected[order[:n_sparse]].sum() < MIN_EXPECTED:
        n_sparse += 1
    found = np.empty(len(expected), np.int64)
    found[order[n_sparse:]] = np.arange(len(expected) - n_sparse)
    found[order[:n_sparse]] = len(expected) - n_sparse
    return found


def cumulants(shares: Floats, weights: RecordWeights) -> tuple[float, float, float]:
    """Mean, variance and third cumulant of Q without a change, exactly.

    Q = Σ_{r,s} c_r c_s G(i_r, i_s) over pairs of records, where G(i, j) = δ_ij/π_i - 1 has mean
    zero in either argument: so products vanish in which a record stands alone, and the rest is
    counted. With equal weights it is "The exact value of the moments of the distribution of χ²,
    used as a test of goodness of fit, when expectations are small", 1937.
    """
    k = float(len(shares))
    inverse, inverse_squared = float((1.0 / shares).sum()), float((shares**-2.0).sum())
    four, six, pairs = weights.normed(4), weights.normed(6), weights.normed(3) ** 2
    uneven = inverse - k * k  # the variance of 1/π of a record's cluster
    variance = 2.0 * (k - 1.0) * (1.0 - four) + four * uneven
    third = (
        8.0 * (k - 1.0) * (1.0 - 3.0 * four + 2.0 * six)
        + 4.0 * (pairs - six) * (inverse - 3.0 * k + 2.0)
        + 12.0 * (four - six) * uneven
        + 6.0 * (pairs - six) * uneven
        + six * (inverse_squared - 3.0 * k * inverse + 2.0 * k**3)
    )
    return k - 1.0, variance, third
