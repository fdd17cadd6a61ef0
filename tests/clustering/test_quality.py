"""Quality in numbers, held against the members themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.clustering.quality import (
    Quality,
    Shift,
    assess,
    churn,
    inertia_per_member,
    mean_squared_distances,
    shift_summary,
    shifts,
    simplified_silhouette,
    size_cv,
    size_entropy,
    staleness,
)
from tests import naive

SIZES = hnp.arrays(np.int64, st.integers(1, 12), elements=st.integers(0, 1000))
CLOUDS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 20), st.integers(1, 5)),
    elements=st.floats(-8, 8, width=16),
)


def added_up(points, labels, n_clusters):
    """Counts, means and sums of squared norms, one point at a time."""
    counts = np.zeros(n_clusters)
    sums = np.zeros((n_clusters, points.shape[1]))
    squares = np.zeros(n_clusters)
    for x, label in zip(points.astype(float), labels, strict=True):
        counts[label] += 1
        sums[label] += x
        squares[label] += sum(v * v for v in x)
    return counts, sums / np.maximum(counts, 1)[:, None], squares


def settled(points, centroids):
    labels, distances_squared, _, second = naive.assign(points, centroids)
    return labels, np.array(distances_squared), np.array(second)


def quality(**changes):
    known = {
        "n_members": 10, "n_clusters": 2, "n_empty": 0, "inertia_per_member": 1.5,
        "inertia_at_fit": 1.0, "silhouette": 0.5, "size_cv": 0.0, "size_entropy": 1.0,
        "churn": 0.0, "staleness": 0.0, "shift": Shift(),
    }  # fmt: skip
    return Quality(**{**known, **changes})


# Inertia


@given(CLOUDS, st.integers(1, 4), st.randoms())
def test_the_spread_from_sums_is_the_mean_squared_distance_of_the_members(points, k, random):
    labels = [random.randrange(k) for _ in points]
    centroids = np.float32([[random.uniform(-8, 8) for _ in points[0]] for _ in range(k)])

    found = mean_squared_distances(*added_up(points, labels, k), centroids)

    for label in range(k):
        distances = [
            naive.squared_distance(x, centroids[label])
            for x, its in zip(points, labels, strict=True)
            if its == label
        ]
        expected = sum(distances) / len(distances) if distances else 0.0
        assert found[label] == pytest.approx(expected, rel=1e-9, abs=1e-11)


@given(hnp.arrays(np.float32, 3, elements=st.floats(-100, 100, width=32)), st.integers(1, 1000))
def test_a_spread_is_never_below_zero(point, n):
    squares = np.array([n * float(np.square(point.astype(float)).sum())]) * (1 - 1e-15)

    found = mean_squared_distances(
        np.array([n * 1.0]), point[None].astype(float), squares, point[None]
    )

    assert 0.0 <= found[0] < 1e-9


@given(CLOUDS, st.integers(1, 4))
def test_inertia_per_member_is_the_mean_over_all_members(points, k):
    centroids = points[np.arange(k) % len(points)] + np.float32(0.5)
    labels, distances_squared, _ = settled(points, centroids)
    counts, means, squares = added_up(points, labels, k)

    found = inertia_per_member(counts, mean_squared_distances(counts, means, squares, centroids))

    assert found == pytest.approx(distances_squared.mean(), rel=1e-9, abs=1e-11)


def test_without_members_there_is_no_inertia():
    assert inertia_per_member(np.zeros(3), np.zeros(3)) is None


def test_growth_is_measured_from_the_fit():
    assert quality().inertia_growth == 0.5
    assert quality(inertia_at_fit=None).inertia_growth == 0.0
    assert quality(inertia_per_member=None).inertia_growth == 0.0
    assert quality(inertia_at_fit=0.0).inertia_growth == math.inf
    assert quality(inertia_at_fit=0.0, inertia_per_member=0.0).inertia_growth == 0.0


# Silhouette


@given(CLOUDS, st.integers(2, 4))
def test_the_silhouette_is_the_mean_over_points(points, k):
    centroids = points[np.arange(k) % len(points)] + np.arange(k, dtype=np.float32)[:, None]
    _, first, second = settled(points, centroids)

    total = 0.0
    for x in points:
        a, b = sorted(math.sqrt(naive.squared_distance(x, c)) for c in centroids)[:2]
        total += (b - a) / max(a, b) if b else 0.0

    assert simplified_silhouette(first, second) == pytest.approx(total / len(points), abs=1e-12)


def test_a_silhouette_needs_points_and_two_clusters():
    nothing = np.empty(0)

    assert simplified_silhouette(nothing, nothing) is None
    assert simplified_silhouette(np.array([1.0]), np.array([np.inf])) is None


def test_far_apart_clusters_have_a_silhouette_near_one():
    assert simplified_silhouette(np.array([1e-4]), np.array([1e4])) == pytest.approx(1.0, abs=1e-3)
    assert simplified_silhouette(np.array([4.0, 0.0]), np.array([4.0, 0.0])) == 0.0


# Balance


@given(SIZES)
def test_balance_matches_the_definitions(sizes):
    mean = sum(sizes.tolist()) / len(sizes)
    deviation = math.sqrt(sum((n - mean) ** 2 for n in sizes.tolist()) / len(sizes))
    shares = [n / sum(sizes.tolist()) for n in sizes.tolist() if n]
    bits = sum(-p * math.log2(p) for p in shares)

    assert size_cv(sizes) == pytest.approx(deviation / mean if mean else 0.0)
    if len(sizes) > 1 and mean:
        assert size_entropy(sizes) == pytest.approx(bits / math.log2(len(sizes)), abs=1e-12)
    else:
        assert size_entropy(sizes) == 1.0


def test_one_cluster_with_everything_is_the_worst_balance():
    sizes = np.array([0, 0, 90, 0])

    assert size_cv(sizes) == pytest.approx(math.sqrt(3))
    assert size_entropy(sizes) == 0.0
    assert size_cv(np.array([7, 7, 7])) == 0.0
    assert size_entropy(np.array([7, 7, 7])) == pytest.approx(1.0)


# Shares


def test_shares_of_nothing_are_zero():
    assert churn(0, 0) == staleness(0, 0) == 0.0
    assert churn(1, 4) == staleness(1, 4) == 0.25


# Shift


def test_a_shift_is_in_units_of_the_spread_at_the_fit():
    fitted = np.zeros((3, 2), np.float32)
    now = np.float32([[3, 4], [3, 4], [0, 0]])

    found = shifts(now, fitted, np.array([100.0, 1.0, 4.0]))

    assert found.tolist() == [0.5, 5.0, 0.0]
    assert shift_summary(found) == Shift(5.5 / 3, pytest.approx(4.55), 5.0)


def test_a_cluster_without_spread_has_no_unit_and_is_left_out():
    found = shifts(np.float32([[9.0], [1.0]]), np.float32([[0.0], [0.0]]), np.array([0.0, 4.0]))

    assert math.isnan(found[0])
    assert shift_summary(found) == Shift(0.5, 0.5, 0.5)
    assert shift_summary(found[:1]) == Shift()


# All of it


def test_the_assessment_puts_all_numbers_together():
    found = assess(
        np.array([3, 1, 0]),
        np.array([3.0, 1.0, 0.0]),
        np.array([2.0, 6.0, 0.0]),
        np.array([0.5, np.nan, 0.0]),
        inertia_at_fit=2.0,
        silhouette=0.25,
        n_records=8,
        n_reassigned=2,
        n_unproven=1,
    )

    assert found == quality(
        n_members=4, n_clusters=3, n_empty=1, inertia_per_member=3.0, inertia_at_fit=2.0,
        silhouette=0.25, size_cv=size_cv(np.array([3, 1, 0])),
        size_entropy=size_entropy(np.array([3, 1, 0])), churn=0.25, staleness=0.25,
        shift=Shift(0.25, pytest.approx(0.475), 0.5),
    )  # fmt: skip
