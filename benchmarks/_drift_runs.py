"""Charts of many streams at once, until each alarms: what `benchmarks/drift.py` measures with.

The levels are the product's; the statistics are written down a second time, over an axis of runs.
The distance chart is the product's own, given the clusters of all runs as one long model.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.clustering.drift.charts import N_LEARNING, Distance
from pipeline.clustering.drift.runlength import MEMORY, normal_tail, shaped_level, shaped_levels
from pipeline.clustering.drift.shares import (
    Imbalance,
    Occupancy,
    RecordWeights,
    Traffic,
    cumulants,
)
from pipeline.clustering.drift.signals import Baseline, Window
from pipeline.clustering.profile import Profiles


@dataclass(frozen=True)
class Runs:
    """Windows until runs alarmed; those that had not when the time was up, count as they were."""

    lengths: np.ndarray
    n_running: int
    n_windows: int

    @property
    def mean(self) -> float:
        """For a constant rate, the estimate that uses the unfinished runs too."""
        total = float(self.lengths.sum()) + self.n_running * self.n_windows
        return total / max(len(self.lengths), 1)

    def row(self, arl0: float) -> str:
        """Mean, its ratio to what was asked for, and its standard error."""
        if not len(self.lengths):
            return f"no alarm in {self.n_running} runs of {self.n_windows} windows"
        error = 1.0 / len(self.lengths) ** 0.5
        note = f"  ({self.n_running} still running)" if self.n_running else ""
        return f"{self.mean:10.0f}  {self.mean / arl0:6.3f} ± {error:.3f}{note}"


def until_alarm(alarms: Callable[[int], np.ndarray], n_runs: int, max_s: float) -> Runs:
    """``alarms`` takes one more window for so many runs, says which alarm, and drops them."""
    lengths: list[int] = []
    t, started = 0, time.monotonic()
    while n_runs and time.monotonic() - started < max_s:
        t += 1
        found = int(alarms(n_runs).sum())
        lengths += [t] * found
        n_runs -= found
    return Runs(np.array(lengths), n_runs, t)


def shares_runs(
    fitted: Profiles, signal: str, *, arl0: int, window: int, n_runs: int, max_s: float, seed: int
) -> Runs:
    """Occupancy or imbalance, while records land as the members of the fit do."""
    baseline = Baseline(fitted, int(fitted.counts.sum()))
    traffic = Traffic(baseline)
    is_occupancy = signal == "occupancy"
    chart = (Occupancy if is_occupancy else Imbalance)(traffic, arl0=arl0, window=window)
    cells = chart.cells if isinstance(chart, Occupancy) else np.arange(len(fitted.counts))
    shares = np.bincount(cells, traffic.shares)
    p2, rng = float((shares**2).sum()), np.random.default_rng(seed)
    state, weights = np.tile(shares, (n_runs, 1)), RecordWeights()

    def alarms(n: int) -> np.ndarray:
        nonlocal state
        weights.add(window)
        traffic.weights, v = weights, weights.variance
        state += MEMORY * (rng.multinomial(window, shares, size=n) / window - state)
        if is_occupancy:
            values = ((state - shares) ** 2 / shares).sum(axis=1) / v
            level = shaped_level(chart.tail, *cumulants(shares, weights))
        else:
            spread = sum(chart._variances(v)) ** 0.5
            values = ((state**2).sum(axis=1) - v * (1 - p2) - p2) / spread
            level = float(chart.read().thresholds[0])
        found = values > level
        state = state[~found]
        return found

    return until_alarm(alarms, n_runs, max_s)


def distance_runs(
    fitted: Profiles,
    labels: np.ndarray,
    distances: np.ndarray,
    *,
    arl0: int,
    window: int,
    n_runs: int,
    max_s: float,
    is_known: bool,
    seed: int,
) -> Runs:
    """Distance, while the members of the fit come again; ``is_known``: the chart is told so."""
    k = len(fitted.counts)
    tiled = Profiles(
        *(
            np.tile(a, (n_runs,) + (1,) * (a.ndim - 1))
            for a in (
                fitted.counts,
                fitted.mean_squared_distances,
                fitted.mean_distances,
                fitted.quantiles,
            )
        )
    )
    chart = Distance(Baseline(tiled, 0), arl0=arl0)
    chart.tail = normal_tail(float(arl0), int(chart.is_watched[:k].sum()) + 1)
    if is_known:
        chart.expected, chart._n_fitted = tiled.mean_distances, np.full(n_runs * k, 1e18)
    rng, first = np.random.default_rng(seed), np.arange(n_runs)[:, None] * k
    running = np.ones(n_runs, bool)

    def alarms(_: int) -> np.ndarray:
        drawn = rng.integers(0, len(labels), (n_runs, window))
        places = (labels[drawn] + first).ravel()
        landed = np.bincount(places, minlength=n_runs * k)
        chart.add(
            Window(landed, np.bincount(places, distances[drawn].ravel(), n_runs * k), 0, 0, 0)
        )
        reading = chart.read()
        above = (reading.statistics > reading.thresholds)[:-1].reshape(n_runs, k).any(axis=1)
        found = (above | all_together(chart, n_runs)) & running
        running[found] = False
        return found

    return until_alarm(alarms, n_runs, max_s)


def all_together(chart: Distance, n_runs: int) -> np.ndarray:
    """Whether the sum over the clusters of a run is above its level."""

    def per_run(values: np.ndarray) -> np.ndarray:
        return np.where(chart.is_watched, values, 0.0).reshape(n_runs, -1).sum(axis=1)

    unknown = chart._records**2 * chart.variances / chart._n_fitted
    spread = np.sqrt(per_run(chart._noise + unknown))
    levels = shaped_levels(chart.tail, per_run(chart._thirds) / spread**3)
    above: np.ndarray = per_run(chart._sums) / spread > levels
    return above


def churn_runs(p: float, *, arl0: int, window: int, n_runs: int, max_s: float, seed: int) -> Runs:
    """Churn, each run with a usual share that it learns by itself."""
    rng = np.random.default_rng(seed)
    state, weights, weight = np.zeros(n_runs), RecordWeights(), 0.0
    newest: deque[np.ndarray] = deque()
    learned, n_learned, tail = np.zeros(n_runs), 0, normal_tail(float(arl0))

    def alarms(n: int) -> np.ndarray:
        nonlocal state, weight, learned, n_learned
        drawn = rng.binomial(window, p, n)
        newest.append(drawn)
        weights.add(window)
        weight += MEMORY * (1 - weight)
        state += MEMORY * (drawn / window - state)
        if len(newest) > N_LEARNING:
            learned, n_learned = learned + newest.popleft(), n_learned + window
        if not n_learned:
            return np.zeros(n, bool)
        usual = (learned + 0.5) / (n_learned + 1)
        scale = usual * (1 - usual)
        spread = np.sqrt(scale * (weights.variance + weight**2 / n_learned))
        skews = scale * (1 - 2 * usual) * weights.sums[3] / spread**3
        found = (state - weight * usual) / spread > shaped_levels(tail, skews)
        state, learned = state[~found], learned[~found]
        for i in range(len(newest)):
            newest[i] = newest[i][~found]
        return found

    return until_alarm(alarms, n_runs, max_s)
