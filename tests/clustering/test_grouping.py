"""Points as a score takes them: nothing is lost on the way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clustering import grouping
from pipeline.clustering.grouping import grouped, squared_distances


def some(n=50, d=4, kind=np.float32):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)).astype(kind), rng.integers(0, 5, n) * 7 - 3


def test_labels_are_renumbered_in_their_order():
    groups = grouped(np.ones((6, 1), np.float32), np.array([9, -4, 2, 9, 9, -4]))

    assert groups.ranks.tolist() == [2, 0, 1, 2, 2, 0]
    assert groups.starts.tolist() == [0, 2, 3, 6]
    assert groups.sizes.tolist() == [2, 1, 3]
    assert groups.order().tolist() == [1, 5, 2, 0, 3, 4]


def test_unsigned_labels_are_labels():
    groups = grouped(np.ones((3, 1), np.float32), np.array([2**64 - 1, 0, 5], np.uint64))

    assert groups.ranks.tolist() == [2, 0, 1]


def test_sorted_float32_is_what_it_was():
    points, labels = some()
    groups = grouped(points, labels)

    assert groups.sorted_points().tobytes() == points[groups.order()].tobytes()
    assert grouped(points, np.sort(labels)).sorted_points() is points  # nothing to do, no copy


@pytest.mark.parametrize("chunk", [1, 13, 2**18])
def test_sorted_float64_keeps_distances_where_all_is_far_out(chunk, monkeypatch):
    monkeypatch.setattr(grouping, "CHUNK", chunk)
    points, labels = some(kind=np.float64)
    points = points * 1e-3 + 1e8
    groups = grouped(points, labels)

    found = groups.sorted_points()

    right = points[groups.order()] * groups.scale
    assert found.dtype == np.float32
    assert found - found[0] == pytest.approx(right - right[0], rel=1e-5, abs=1e-7 * groups.scale)


@pytest.mark.parametrize("chunk", [1, 13, 2**18])
def test_chunks_add_up(chunk, monkeypatch):
    monkeypatch.setattr(grouping, "CHUNK", chunk)
    points, labels = some()
    groups = grouped(points, labels)
    sums = np.zeros((len(groups.sizes), 4))

    for rows, values in groups.chunks():
        groups.add(rows, values / groups.scale + points[0].astype(float), sums)

    right = [points[labels == name].astype(float).sum(axis=0) for name in sorted(set(labels))]
    assert sums == pytest.approx(np.array(right), rel=1e-12)


@given(
    n=st.integers(1, 9),
    k=st.integers(1, 9),
    d=st.integers(1, 20),
    gap=st.sampled_from([0.0, 1e-12, 1e-6, 1e-3, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_squared_distances_lose_no_digits_when_they_are_small(n, k, d, gap, seed):
    rng = np.random.default_rng(seed)
    centroids = rng.standard_normal((k, d))
    points = centroids[rng.integers(0, k, n)] + gap * rng.standard_normal((n, d))

    found = squared_distances(points, centroids)

    assert found == pytest.approx(
        np.square(points[:, None] - centroids).sum(axis=2), rel=1e-7, abs=0.0
    )
