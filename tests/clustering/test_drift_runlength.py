"""The rate of false alarms is the one asked for: charts are run until they alarm."""

from __future__ import annotations

from collections import Counter
from itertools import product
from math import comb, prod

import numpy as np
import pytest
from scipy.stats import chi2, norm

from pipeline.clustering.drift.runlength import (
    MEMORY,
    normal_tail,
    radius_tail,
    shaped_level,
    shaped_levels,
)
from pipeline.clustering.drift.shares import Occupancy, RecordWeights, Traffic, cells, cumulants
from pipeline.clustering.drift.signals import Baseline
from tests.clustering.drift_streams import fitted, uneven

RUNS = 400  # the mean of so many runs is off by 5 % in two of three trials


def run_lengths(steps, n_runs):
    """Windows until each run alarms; ``steps`` takes who still runs and tells who alarms."""
    lengths, t = [], 0
    while n_runs:
        t += 1
        n_alarms = int(steps(n_runs).sum())
        lengths += [t] * n_alarms
        n_runs -= n_alarms
    return np.array(lengths)


class ShareRuns:
    """The occupancy chart of many streams at once, written down a second time."""

    def __init__(self, shares, window, n_runs, level):
        self.shares, self.window, self.level = shares, window, level
        self.rng = np.random.default_rng(0)
        self.remembered = np.tile(shares, (n_runs, 1))
        self.weights = RecordWeights()

    def __call__(self, n_runs):
        landed = self.rng.multinomial(self.window, self.shares, size=n_runs)
        self.remembered += MEMORY * (landed / self.window - self.remembered)
        self.weights.add(self.window)
        gaps = self.remembered - self.shares
        statistics = (gaps**2 / self.shares).sum(axis=1) / self.weights.variance
        alarms = statistics > self.level(self.weights)
        self.remembered = self.remembered[~alarms]
        return alarms


@pytest.mark.parametrize("arl0", [30, 100])
def test_occupancy_runs_as_long_as_asked_for(arl0):
    shares = uneven(58)
    chart = Occupancy(Traffic(Baseline(fitted(58), 10**6)), arl0=arl0, window=4096)

    lengths = run_lengths(
        ShareRuns(shares, 4096, RUNS, lambda w: shaped_level(chart.tail, *cumulants(shares, w))),
        RUNS,
    )

    assert 0.85 < lengths.mean() / arl0 < 1.15


def test_clusters_with_hardly_any_traffic_do_not_shorten_the_run():
    shares, window, arl0 = uneven(150, power=1.5), 100, 60
    counts = np.rint(shares * 10**6)
    chart = Occupancy(Traffic(Baseline(fitted(150, counts), 10**6)), arl0=arl0, window=window)
    together = np.bincount(chart.cells, shares)
    naive = chi2.isf(radius_tail(float(arl0), 149.0), 149)  # the control: the normal limit

    def mean_run(shares, level):
        return run_lengths(ShareRuns(shares, window, RUNS, level), RUNS).mean()

    assert len(together) < 75, "every second cluster is too small to be looked at alone"
    mean = mean_run(together, lambda w: shaped_level(chart.tail, *cumulants(together, w)))
    assert 0.85 < mean / arl0 < 1.15
    assert mean_run(shares, lambda w: naive) / arl0 < 0.7


@pytest.mark.parametrize("n_charts", [1, 58])
def test_the_first_alarm_of_many_clusters_comes_as_late_as_asked_for(n_charts):
    arl0, n_runs, rng = 100, RUNS * (5 if n_charts == 1 else 1), np.random.default_rng(1)
    level = norm.isf(normal_tail(float(arl0), n_charts))
    state = {"sums": np.zeros((n_runs, n_charts)), "noise": 0.0}

    def steps(n_runs):
        state["sums"] *= 1 - MEMORY
        state["sums"] += MEMORY * rng.normal(size=(n_runs, n_charts))
        state["noise"] = (1 - MEMORY) ** 2 * state["noise"] + MEMORY**2
        alarms = (state["sums"] > level * state["noise"] ** 0.5).any(axis=1)
        state["sums"] = state["sums"][~alarms]
        return alarms

    assert 0.85 < run_lengths(steps, n_runs).mean() / arl0 < 1.15


def test_a_longer_run_needs_a_rarer_level():
    assert radius_tail(100.0, 5.0) > radius_tail(1000.0, 5.0) > radius_tail(10_000.0, 5.0)
    assert normal_tail(100.0, 1) > normal_tail(100.0, 10) > normal_tail(1000.0, 10)


def test_independent_windows_are_the_limit_of_rare_alarms():
    # alarms that hardly ever come come alone: the rate is the tail
    assert 1.0 < normal_tail(1e9) * 1e9 < 1.4


def outcomes(shares, n):
    """All ways in which n records land, with their probabilities."""
    for landed in product(range(n + 1), repeat=len(shares)):
        if sum(landed) == n:
            ways = prod(comb(sum(landed[: i + 1]), x) for i, x in enumerate(landed))
            yield np.array(landed), ways * prod(p**x for p, x in zip(shares, landed, strict=True))


def test_cumulants_are_those_of_every_outcome_counted():
    shares, sizes = np.array([0.1, 0.2, 0.7]), (3, 1, 4)
    weights, states = RecordWeights(), [(shares, 1.0)]
    for n in sizes:
        weights.add(n)
        states = [
            ((1 - MEMORY) * z + MEMORY * landed / n, p * q)
            for z, p in states
            for landed, q in outcomes(shares, n)
        ]

    statistics: Counter[float] = Counter()
    for z, p in states:
        statistics[float(((z - shares) ** 2 / shares).sum() / weights.variance)] += p
    q, p = np.array(list(statistics)), np.array(list(statistics.values()))
    mean = (p * q).sum()

    assert p.sum() == pytest.approx(1.0)
    assert cumulants(shares, weights) == pytest.approx(
        (mean, (p * (q - mean) ** 2).sum(), (p * (q - mean) ** 3).sum()), rel=1e-9
    )


def test_settled_weights_are_the_limit_of_many_windows():
    weights = RecordWeights()
    for _ in range(400):
        weights.add(50)

    assert weights.sums == pytest.approx(RecordWeights.settled(50).sums, rel=1e-12)


def test_a_level_of_a_gamma_distribution_is_its_own():
    shape = 3.0  # of mean 3, variance 3, third cumulant 6

    level = shaped_level(0.01, shape, shape, 2.0 * shape)

    assert chi2.sf(2 * level, 2 * shape) == pytest.approx(0.01)


def test_what_is_not_skewed_upwards_has_a_normal_level():
    assert shaped_levels(0.01, np.array([-2.0, 0.0])) == pytest.approx([norm.isf(0.01)] * 2)


def test_sparse_clusters_are_counted_together_and_expect_enough():
    expected = np.array([0.1, 40.0, 6.0, 0.2, 30.0])

    found = cells(expected)

    assert found[0] == found[3] == found[2], "the sparse ones alone would not expect five"
    assert len({*found.tolist()}) == 3
    assert np.bincount(found, expected).min() >= 5.0


def test_clusters_with_enough_traffic_stay_alone():
    assert sorted(cells(np.array([9.0, 5.0, 7.0])).tolist()) == [0, 1, 2]
