"""Every twin keeps one contract; the naive version says what it is. All equalities are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.contract import Sums
from pipeline.kernels.cpu.search import Float32Search
from pipeline.kernels.cpu.twin import CpuKernels
from tests import naive
from tests.kernels.cases import (
    CASES,
    SIMULATED,
    duplicated_centroids,
    heavy_tails,
    near_ties,
    near_ties_far_out,
    normal,
    one_gap,
    plain,
)
from tests.kernels.conftest import IS_TRAPPED

IN_PROCESS = settings(max_examples=5 if SIMULATED or IS_TRAPPED else 60, deadline=None)
MAX_COMPONENT = 8.0


def wrong(kernels, points, centroids):
    """What an assignment breaks of its contract: a set of words, empty when it keeps it."""
    labels, distances, second_labels, second_distances = naive.assign(points, centroids)
    model = kernels.load(centroids)
    found = kernels.assign(model, points)
    asked = kernels.assign(model, points, second=True, margin=True)
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
        if types != [np.int32, np.float64, np.float32] * (1 if result is found else 2):
            broken.add("types")
    if asked.second_labels.tolist() != second_labels:
        broken.add("second labels")
    if asked.second_distances_squared.tolist() != second_distances:
        broken.add("second distances")
    rows = zip(asked.margins.tolist(), points, labels, strict=True)
    if not all(naive.is_margin(low, x, centroids, label) for low, x, label in rows):
        broken.add("margins")
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


def worth(twin):
    """How much of the truth a bound should have; behind a forced prefix it need not be good."""
    return 0.1 if getattr(twin, "_prefix", None) else 0.7


def test_gaps_are_worth_something(twin):
    points, centroids = plain(n=40, d=64, k=9)
    _, distances, _, second_distances = naive.assign(points, centroids)
    model = twin.load(centroids)
    true = np.array(second_distances) - distances

    assert (twin.assign(model, points, second=True).gaps >= 0.9 * true - 1e-3).all()
    assert twin.assign(model, points).gaps.mean() >= worth(twin) * true.mean()


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("margin", [False, True])
def test_assign_gives_what_it_is_asked_for(twin, second, margin):
    points, centroids = plain()

    found = twin.assign(twin.load(centroids), points, second=second, margin=margin)

    assert (found.second_labels is not None) == second
    assert (found.second_distances_squared is not None) == second
    assert (found.margins is not None) == margin


def test_margins_are_worth_something(twin):
    points, centroids = plain(n=40, d=64, k=9)

    found = twin.assign(twin.load(centroids), points, margin=True)

    own = centroids[found.labels].astype(np.float64)
    between = np.linalg.norm(centroids - own[:, None], axis=2)
    squares = np.square(points[:, None].astype(np.float64) - centroids).sum(axis=2)
    gaps = squares - found.distances_squared[:, None]
    true = np.where(between > 0.0, gaps, np.inf) / np.where(between > 0.0, 2.0 * between, 1.0)
    assert found.margins.mean() >= worth(twin) * true.min(axis=1).mean()


def test_a_margin_is_infinite_with_one_cluster(twin):
    points, centroids = plain(k=1)

    found = twin.assign(twin.load(centroids), points, margin=True)

    assert np.isposinf(found.margins).all()


@pytest.mark.parametrize("case", [plain, near_ties, one_gap, duplicated_centroids, heavy_tails])
def test_a_point_that_moves_by_less_than_its_margin_keeps_its_label(twin, case):
    points, centroids = case()
    model = twin.load(centroids)
    found = twin.assign(model, points, margin=True)
    assert found.margins.max() > 0.0

    for other in range(len(centroids)):
        ways = centroids[other].astype(np.float64) - centroids[found.labels]
        lengths = np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-30)
        moved = (points + ways / lengths * (0.99999 * found.margins[:, None])).astype(np.float32)
        moves = np.linalg.norm(moved.astype(np.float64) - points, axis=1)
        within = moves < found.margins  # rounding to float32 may have taken it too far
        assert (naive.assign(moved, centroids)[0] == found.labels)[within].all()
        assert twin.assign(model, moved).labels[within].tolist() == found.labels[within].tolist()


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

    def assign(self, model, points, **asked):
        found = super().assign(model, points, **asked)
        centroids = model.centroids
        scores = np.square(centroids).sum(axis=1) - 2 * points @ centroids.T
        return found._replace(labels=scores.argmin(axis=1).astype(np.int32))


class KnowsNoRounding(CpuKernels):
    """Takes the float32 score for the lower bound itself: E = 0."""

    def load(self, centroids):
        model = super().load(centroids)
        exact = model.bounded
        squares = np.square(exact.centred.astype(np.float64)).sum(axis=1).astype(np.float32)
        bare = exact._replace(floors=squares, reaches=np.zeros_like(exact.reaches))
        model.ways[0]._search = Float32Search(bare)
        return model


class RoundsGapsToNearest(CpuKernels):
    def assign(self, model, points, *, second=False, margin=False):
        found = super().assign(model, points, second=True, margin=margin)
        gaps = found.second_distances_squared - found.distances_squared
        return found._replace(gaps=gaps.astype(np.float32))


class TakesTheGapForTheMargin(CpuKernels):
    """Half the difference of the distances: what a border would be if centroids were that near."""

    def assign(self, model, points, *, second=False, margin=False):
        found = super().assign(model, points, second=True, margin=True)
        near, far = found.distances_squared**0.5, found.second_distances_squared**0.5
        return found._replace(margins=((far - near) * 0.51).astype(np.float32))


HARD = [
    near_ties,
    near_ties_far_out,
    one_gap,
    lambda: one_gap(1e-7),
    lambda: plain(n=200, d=64, k=9),
]


@pytest.mark.parametrize(
    ("control", "what"),
    [
        (TrustsFloat32, "labels"),
        (KnowsNoRounding, "labels"),
        (RoundsGapsToNearest, "gaps"),
        (TakesTheGapForTheMargin, "margins"),
    ],
)
def test_controls_are_caught(control, what):
    found = set(itertools.chain(*(wrong(control(), *case()) for case in HARD)))

    assert what in found
