"""The dip is the distance to the nearest distribution with one mode, and is rare as stated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from pipeline.clustering.dip import TABLE, TABLE_LEVELS, TABLE_SIZES, dip, dip_p_value


def nearest_unimodal(sample):
    """The dip from its definition: a linear program for each place that the mode may have."""
    x, counts = np.unique(sample, return_counts=True)
    upper = np.cumsum(counts) / len(sample)
    lower = upper - counts / len(sample)
    return min(distance_with_mode(x, lower, upper, mode) for mode in range(len(x)))


def distance_with_mode(x, lower, upper, mode):
    n, jump, distance = len(x), len(x), len(x) + 1  # columns: G(x[i]-), G(x[mode]), distance
    rows, bounds = [], []

    def at_most(bound, *terms):
        row = np.zeros(n + 2)
        for column, factor in terms:
            row[column] += factor
        rows.append(row)
        bounds.append(bound)

    for i in range(n):
        at_most(lower[i], (i, 1), (distance, -1))
        at_most(-lower[i] if i == mode else -upper[i], (i, -1), (distance, -1))
    at_most(upper[mode], (jump, 1), (distance, -1))
    at_most(-upper[mode], (jump, -1), (distance, -1))
    at_most(0, (mode, 1), (jump, -1))
    for i in range(1, n - 1):
        before, after = 1 / (x[i] - x[i - 1]), 1 / (x[i + 1] - x[i])
        if i < mode:
            at_most(0, (i, before + after), (i - 1, -before), (i + 1, -after))
        elif i > mode:
            first = jump if i - 1 == mode else i - 1
            at_most(0, (i, -before - after), (first, before), (i + 1, after))
    for i in range(n - 1):
        at_most(0, (jump if i == mode else i, 1), (i + 1, -1))
    cost = np.zeros(n + 2)
    cost[distance] = 1
    found = linprog(cost, A_ub=np.array(rows), b_ub=bounds, bounds=(None, None))
    assert found.status == 0
    return found.fun


@given(st.lists(st.integers(0, 12), min_size=3, max_size=10).filter(lambda x: len(set(x)) > 2))
def test_it_is_the_distance_to_the_nearest_unimodal_distribution(sample):
    assert math.isclose(dip(sample), max(0.5 / len(sample), nearest_unimodal(sample)), abs_tol=1e-9)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60), st.randoms())
def test_it_knows_neither_order_nor_direction_nor_unit(sample, random):
    values = np.array(sample)
    shuffled = list(values)
    random.shuffle(shuffled)

    assert dip(shuffled) == dip(values)
    assert math.isclose(dip(-4 * values), dip(values), abs_tol=1e-9)
    assert 0.5 / len(sample) <= dip(values) <= 0.25 or len(sample) == 1


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_a_grid_and_a_single_place_have_the_smallest_dip(n):
    assert math.isclose(dip(np.arange(n)), 0.5 / n)
    assert math.isclose(dip(np.full(n, 3.0)), 0.5 / n)


def test_two_places_have_the_largest():
    assert dip([0.0] * 50 + [1.0] * 50) == 0.25


@pytest.mark.parametrize(("n", "n_runs"), [(20, 2000), (150, 500)])
def test_uniform_samples_fall_below_a_level_as_often_as_it_says(n, n_runs):
    rng = np.random.default_rng(n)

    p_values = np.array([dip_p_value(rng.random(n)) for _ in range(n_runs)])

    for level in (0.1, 0.2, 0.5):
        assert abs((p_values <= level).mean() - level) < 4 * math.sqrt(level / n_runs)


def test_p_values_go_on_falling_beyond_the_table():
    sizes = (4, 8, 20, 60)
    p_values = [dip_p_value([*np.linspace(0, 1, n), *np.linspace(9, 10, n)]) for n in sizes]

    assert (np.diff(p_values) < 0).all()
    assert 0.0 < p_values[-1] < 1e-40


def test_too_few_prove_nothing():
    assert dip_p_value([0.0] * 3 + [1.0] * 4) == 1.0


def test_the_table_rises_along_levels():
    assert TABLE.shape == (len(TABLE_SIZES), len(TABLE_LEVELS))
    assert (np.diff(TABLE, axis=1) > 0).all()
