"""What clusters looked like at the fit, against numpy, one cluster at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clustering.profile import LEVELS, profiles, typicality
from pipeline.messages.model import N_QUANTILES

SQUARES = st.floats(0, 1e6)


def quantiles(*distances):
    squares = np.square(np.array(distances, np.float64))
    return profiles(np.zeros(len(squares), np.int32), squares, 1).quantiles


def typical(row, *distances):
    given_rows = np.repeat(np.asarray(row, np.float32), len(distances), axis=0)
    return typicality(given_rows, np.array(distances, np.float64)).tolist()


def test_the_levels_begin_at_the_nearest_and_end_at_the_farthest():
    assert LEVELS[0] == 0.0
    assert LEVELS[-1] == 1.0
    assert list(LEVELS) == sorted(set(LEVELS))
    assert len(LEVELS) == N_QUANTILES, "of the wire"


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(-1, 3), SQUARES), max_size=40))
def test_every_cluster_is_described_as_if_it_were_alone(n_clusters, members):
    members = [(label, square) for label, square in members if label < n_clusters]
    labels = np.array([label for label, _ in members], np.int32)
    squares = np.array([square for _, square in members], np.float64)

    found = profiles(labels, squares, n_clusters)

    for label in range(n_clusters):
        own = squares[labels == label]
        distances = np.sqrt(own)
        assert found.counts[label] == len(own)
        expected = (own.mean(), distances.mean()) if len(own) else (0.0, 0.0)
        assert found.mean_squared_distances[label] == pytest.approx(expected[0])
        assert found.mean_distances[label] == pytest.approx(expected[1])
        told = np.quantile(distances, LEVELS) if len(own) else np.zeros(len(LEVELS))
        assert found.quantiles[label] == pytest.approx(told, rel=1e-6)
    assert (np.diff(found.quantiles, axis=1) >= 0).all()


def test_types_are_those_of_the_wire():
    found = profiles(np.zeros(0, np.int32), np.zeros(0), 2)

    assert found.counts.dtype == np.int64
    assert found.mean_squared_distances.dtype == found.mean_distances.dtype == np.float64
    assert found.quantiles.dtype == np.float32
    assert found.quantiles.tolist() == [[0.0] * len(LEVELS)] * 2


def test_another_order_is_another_order_and_nothing_else():
    found = profiles(np.array([0, 1, 1], np.int32), np.array([1.0, 4.0, 16.0]), 2)

    turned = found.reordered(np.array([1, 0]))

    assert turned.counts.tolist() == [2, 1]
    assert turned.mean_squared_distances.tolist() == [10.0, 1.0]
    assert turned.mean_distances.tolist() == [3.0, 1.0]
    assert turned.quantiles.tolist() == found.quantiles[::-1].tolist()


def test_typicality_is_the_share_that_lay_farther_away():
    row = quantiles(*range(1, 102))  # 1, 2, ..., 101: quantile p is at 1 + 100 p

    assert typical(row, 0.0, 1.0, 51.0, 81.0, 101.0, 101.5, 1e9) == pytest.approx(
        [1.0, 1.0, 0.5, 0.2, 0.0, 0.0, 0.0]
    )


def test_members_at_the_same_distance_do_not_count_as_nearer():
    assert typical(quantiles(2.0, 2.0, 2.0), 1.0, 2.0, 2.1) == [1.0, 1.0, 0.0]
    assert typical(quantiles(0.0), 0.0, 1e-9) == [1.0, 0.0]
    # half of the members at 1, half at 3: between them nobody lay, and half lay farther
    row = np.array([[1, 1, 1, 1, 3, 3, 3, 3, 3]], np.float32)
    assert typical(row, 1.0, 3.0) == [1.0, 0.25]


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=30),
    st.lists(st.floats(0, 120), min_size=2, max_size=9),
)
def test_farther_is_never_more_typical_and_always_a_share(members, distances):
    shares = typical(quantiles(*members), *sorted(distances))

    assert all(0.0 <= share <= 1.0 for share in shares)
    assert shares == sorted(shares, reverse=True)


@given(st.lists(st.integers(0, 2**20), min_size=3, max_size=60, unique=True), st.data())
def test_typicality_is_near_the_share_counted(members, data):
    row = quantiles(*members)
    distance = data.draw(st.sampled_from(sorted(members)))

    share = typical(row, float(distance))[0]

    # nothing is known between two levels but that it is between them
    counted = sum(member > distance for member in members) / (len(members) - 1)
    below = max((p for p, q in zip(LEVELS, row[0], strict=True) if q <= distance), default=0.0)
    above = min((p for p, q in zip(LEVELS, row[0], strict=True) if q >= distance), default=1.0)
    assert 1 - above - 1e-6 <= share <= 1 - below + 1e-6
    assert 1 - above - 1e-6 <= counted <= 1 - below + 1e-6


def test_each_point_is_held_against_its_own_row():
    rows = np.concatenate([quantiles(1.0, 2.0), quantiles(10.0, 20.0)])

    assert typicality(rows, np.array([2.0, 10.0])).tolist() == [0.0, 1.0]
    assert typicality(rows[:0], np.zeros(0)).tolist() == []
