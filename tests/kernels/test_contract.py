"""Every twin keeps one contract; the naive version says what it is. All equalities are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.contract import Assignment, Sums
from pipeline.kernels.cpu import CpuKernels
from tests import naive
from tests.kernels.cases import (
    CASES,
    SIMULATED,
    near_ties,
    near_ties_far_out,
    normal,
    one_gap,
    plain,
)

IN_PROCESS = settings(max_examples=5 if SIMULATED else 60, deadline=None)
MAX_COMPONENT = 8.0


def wrong(kernels, points, centroids):
    """What an assignment breaks of its contract: a set of words, empty when it keeps it."""
    labels, distances, second_labels, second_distances = naive.assign(points, centroids)
    model = kernels.load(centroids)
    found = kernels.assign(model, points)
    asked = kernels.assign(model, points, second=True)
    broken = set()
    for result in (found, asked):
        if result.labels.tolist() != labels:
            broken.add("labels")
        if result.distances_squared.tolist() != distances:
            broken.add("distances")
        gaps = [b - a for a, b in zip(distances, second_distances, strict=True)]
        if not all(0.0 <= low <= gap for low, gap in zip(result.gaps.tolist(), gaps, strict=True)):
            broken.add("gaps")
        types = [a.dtype for a in result if a is not None]
        if types != [np.int32, np.float64, np.float32, np.int32, np.float64][: len(types)]:
            broken.add("types")
    if asked.second_labels.tolist() != second_labels:
        broken.add("second labels")
    if asked.second_distances_squared.tolist() != second_distances:
        broken.add("second distances")
    return broken


@pytest.mark.parametrize("case", CASES)
def test_assign_gives_the_canonical_nearest_two(twin, case):
    points, centroids = CASES[case]()

    assert wrong(twin, points, centroids) == set()


@IN_PROCESS
@given(
    n=st.integers(0, 20),
    d=st.integers(1, 70),
    k=st.integers(1, 9),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    offset=st.sampled_from([0.0, 0.0, 10.0, 1e4]),
    steps=st.sampled_from([0, 1, 2, 1000]),  # so many values a component can take: ties
    seed=st.integers(0, 2**32 - 1),
)
def test_assign_gives_the_canonical_nearest_two_of_anything(
    twin, n, d, k, scale, offset, steps, seed
):
    rng = np.random.default_rng(seed)
    both = rng.standard_normal((n + k, d)) if not steps else rng.integers(0, steps, (n + k, d))
    both = (both * scale + offset).astype(np.float32)

    assert wrong(twin, both[:n], both[n:]) == set()


def test_a_gap_is_infinite_with_one_cluster(twin):
    points, centroids = plain(k=1)

    found = twin.assign(twin.load(centroids), points, second=True)

    assert np.isposinf(found.gaps).all()
    assert set(found.second_labels.tolist()) == {-1}
    assert np.isposinf(found.second_distances_squared).all()


def test_gaps_are_worth_something(twin):
    points, centroids = plain(n=40, d=64, k=9)
    _, distances, _, second_distances = naive.assign(points, centroids)

    gaps = twin.assign(twin.load(centroids), points).gaps

    true = np.array(second_distances) - distances
    assert (gaps >= 0.9 * true - 1e-3).all()


def test_assign_does_not_ask_for_more_than_it_was_told(twin):
    points, centroids = plain()

    found = twin.assign(twin.load(centroids), points)

    assert found.second_labels is None
    assert found.second_distances_squared is None


def test_arguments_are_left_alone(twin):
    points, centroids = plain()
    points.flags.writeable = centroids.flags.writeable = False
    model = twin.load(centroids)

    before = twin.assign(model, points)
    centroids.flags.writeable = True
    centroids += 1
    after = twin.assign(model, points)

    assert after.labels.tolist() == before.labels.tolist()
    assert after.distances_squared.tolist() == before.distances_squared.tolist()


@pytest.mark.parametrize("cut", [1, 4, 15, 31])
def test_batch_boundaries_leave_no_trace(twin, cut):
    points, centroids = near_ties()
    model = twin.load(centroids)
    whole = twin.assign(model, points, second=True)

    parts = [
        twin.assign(model, np.ascontiguousarray(points[i : i + cut]), second=True)
        for i in range(0, len(points), cut)
    ]

    for name in ("labels", "distances_squared", "second_labels", "second_distances_squared"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert joined.tobytes() == getattr(whole, name).tobytes(), name


# Statistics


def totals(sums):
    return sums.counts.tolist(), sums.sums.tolist(), naive.square_totals(sums.squares)


def empty(n_clusters, n_dims):
    return Sums.zeros(n_clusters, n_dims, max_component=MAX_COMPONENT)


def inserted(twin, points, labels, n_clusters):
    sums = empty(n_clusters, points.shape[1])
    twin.accumulate(sums, points, np.full(len(points), -1, np.int32), points, labels)
    return sums


@pytest.mark.parametrize(("n", "d"), [(0, 3), (1, 1), (33, 33), (20, 64)])
def test_statistics_are_those_of_integers(twin, n, d):
    points = np.clip(normal(n, d), -MAX_COMPONENT, MAX_COMPONENT)
    points[:1, :1] = -MAX_COMPONENT
    points[1:2] *= np.float32(2.0**-30)  # below the unit: this is where rint matters
    labels = (np.arange(n) % 4 - 1).astype(np.int32)

    sums = inserted(twin, points, labels, 3)

    assert totals(sums) == naive.statistics(points, labels, 3, max_component=MAX_COMPONENT)


def test_halves_are_rounded_to_even(twin):
    unit = MAX_COMPONENT * 2.0**-40
    points = (np.array([[0.5, 1.5, 2.5, -0.5, -1.5, 3.0]]) * unit).astype(np.float32)

    sums = inserted(twin, points, np.zeros(1, np.int32), 1)

    assert sums.sums.tolist() == [[0, 2, 2, 0, -2, 3]]


def test_moves_equal_statistics_of_the_result(twin):
    before, after = normal(30, 17, 1), normal(30, 17, 2)
    old_labels = np.random.default_rng(3).integers(-1, 4, 30).astype(np.int32)
    new_labels = np.random.default_rng(4).integers(-1, 4, 30).astype(np.int32)
    new_labels[:5] = old_labels[:5]  # stays, with another vector
    sums = inserted(twin, before, old_labels, 4)

    twin.accumulate(sums, before, old_labels, after, new_labels)

    assert totals(sums) == naive.statistics(after, new_labels, 4, max_component=MAX_COMPONENT)


def test_deleting_everything_leaves_zeros(twin):
    points = normal(30, 17)
    labels = (np.arange(30) % 4).astype(np.int32)
    sums = inserted(twin, points, labels, 4)
    order = np.random.default_rng(0).permutation(30)

    for part in np.array_split(order, 7):
        gone = np.full(len(part), -1, np.int32)
        rows = np.ascontiguousarray(points[part])
        twin.accumulate(sums, rows, labels[part], rows, gone)

    assert not sums.counts.any()
    assert not sums.sums.any()
    assert not sums.squares.any()


def test_the_row_of_a_missing_side_is_not_read(twin):
    points = normal(6, 5)
    unread = np.full((6, 5), np.nan, np.float32)
    labels, none = np.zeros(6, np.int32), np.full(6, -1, np.int32)
    sums = empty(1, 5)

    twin.accumulate(sums, unread, none, points, labels)
    twin.accumulate(sums, points, labels, unread, none)

    assert totals(sums) == totals(empty(1, 5))


# Controls: a suite that accepts these accepts anything


class TrustsFloat32(CpuKernels):
    """Takes the label from a float32 product."""

    def assign(self, model, points, *, second=False):
        found = super().assign(model, points, second=True)
        scores = np.square(model.centroids).sum(axis=1) - 2 * points @ model.centroids.T
        labels = scores.argmin(axis=1).astype(np.int32)
        return Assignment(labels, *found[1:])


class KnowsNoRounding(CpuKernels):
    """Takes the float32 score for the lower bound itself: E = 0."""

    def load(self, centroids):
        model = super().load(centroids)
        squares = np.square(model.centred.astype(np.float64)).sum(axis=1).astype(np.float32)
        return model._replace(floors=squares, reaches=np.zeros_like(model.reaches))


class RoundsGapsToNearest(CpuKernels):
    def assign(self, model, points, *, second=False):
        found = super().assign(model, points, second=True)
        gaps = found.second_distances_squared - found.distances_squared
        return found._replace(gaps=gaps.astype(np.float32))


HARD = [
    near_ties,
    near_ties_far_out,
    one_gap,
    lambda: one_gap(1e-7),
    lambda: plain(n=200, d=64, k=9),
]


@pytest.mark.parametrize(
    ("control", "what"),
    [(TrustsFloat32, "labels"), (KnowsNoRounding, "labels"), (RoundsGapsToNearest, "gaps")],
)
def test_controls_are_caught(control, what):
    found = set(itertools.chain(*(wrong(control(), *case()) for case in HARD)))

    assert what in found
