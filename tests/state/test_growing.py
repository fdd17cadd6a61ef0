"""Arrays that grow: what stood in them stays, for those who look on as well."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from pipeline.state.growing import HUGE_PAGE, LARGE, _mapping_of, grow

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all is copied")


class Owner:
    def __init__(self, column):
        self.column = column


def test_what_stood_there_stays_and_the_rest_is_zero():
    owner, n = Owner(np.full((1, 3), 7, np.int16)), 1

    while n * 6 < 3 * HUGE_PAGE:
        owner.column[:n] += 1
        before = owner.column[[0, n // 2, n - 1]].copy()
        grow(owner, "column", 3 * n)
        assert owner.column.shape == (3 * n, 3)
        assert (owner.column[[0, n // 2, n - 1]] == before).all()
        assert not owner.column[n:].any()
        n *= 3


@on_linux
def test_what_is_large_is_moved_and_not_copied():
    owner = Owner(np.ones(8))
    grow(owner, "column", LARGE)
    mapping = _mapping_of(owner.column)
    assert mapping is not None

    grow(owner, "column", 4 * LARGE)

    assert _mapping_of(owner.column) is mapping
    assert owner.column[:9].tolist() == [1.0] * 8 + [0.0]


def test_who_holds_a_view_keeps_what_it_shows():
    owner = Owner(np.zeros(8))
    grow(owner, "column", LARGE)
    owner.column[5] = 5.0
    view = owner.column[4:7]

    grow(owner, "column", 4 * LARGE)
    owner.column[5] = 6.0

    assert view.tolist() == [0.0, 5.0, 0.0]
    assert owner.column[5] == 6.0


def test_columns_of_no_width_and_no_rows():
    owner = Owner(np.zeros((0, 0), np.float32))

    grow(owner, "column", 10)

    assert owner.column.shape == (10, 0)
