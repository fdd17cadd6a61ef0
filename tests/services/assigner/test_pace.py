"""How a slice finds its size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.services.assigner.pace import SlicePace


def run(pace, micros_per_row, n_slices=40, n_left=10**9):
    for _ in range(n_slices):
        n = min(pace.n_rows, n_left)
        pace.took(n, n * micros_per_row * 1e-6)
    return pace.n_rows


@pytest.mark.parametrize(("micros", "n_rows"), [(4.0, 2500), (10.0, 1000), (50.0, 200)])
def test_a_slice_comes_to_last_as_long_as_its_budget(micros, n_rows):
    assert run(SlicePace(budget_s=0.010), micros) == pytest.approx(n_rows, abs=1)


@pytest.mark.parametrize(("micros", "n_rows"), [(0.001, 2**14), (0.0, 2**14), (10_000.0, 64)])
def test_it_stays_within_its_bounds_however_fast_the_device_is(micros, n_rows):
    assert run(SlicePace(), micros) == n_rows


def test_a_slice_that_had_little_to_do_says_nothing():
    pace = SlicePace(n_rows=1000)

    pace.took(3, 0.001)

    assert pace.n_rows == 1000


def test_one_stall_costs_at_most_three_quarters():
    pace = SlicePace(n_rows=1000)

    pace.took(1000, 60.0)

    assert pace.n_rows == 250


@given(st.lists(st.tuples(st.integers(0, 2**14), st.floats(0.0, 10.0)), max_size=30))
def test_whatever_it_is_told_there_is_a_next_slice(history):
    pace = SlicePace()
    for n_rows, duration_s in history:
        pace.took(min(n_rows, pace.n_rows), duration_s)

        assert pace.min_rows <= pace.n_rows <= pace.max_rows
