"""A dense group of far items founds a cluster; scattered ones and an item that repeats do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clustering.auto import adapted
from pipeline.clustering.births import MIN_WEIGHT, OutlierBuffer, births, is_far
from pipeline.clustering.kmeans import fit
from pipeline.kernels.cpu.twin import CpuKernels

KERNELS = CpuKernels(threads=1)
N_DIMS = 16


def group(centre, n, *, width=1.0, seed=0):
    noise = np.random.default_rng(seed).standard_normal((n, N_DIMS)) * width / np.sqrt(N_DIMS)
    return (np.asarray(centre) + noise).astype(np.float32)


def along(axis, length):
    centre = np.zeros(N_DIMS)
    centre[axis] = length
    return centre


def born(points, *, reach=3.0, **options):
    """Births beside one cluster at the origin, of spread 1."""
    distances = np.sqrt(np.square(points.astype(np.float64)).sum(axis=1))
    reaches = np.full(len(points), reach)
    return births(points, distances, reaches, spread=1.1, kernels=KERNELS, **options)


def test_a_dense_group_far_away_is_born_as_one_cluster():
    points = np.concatenate([group(along(0, 10), 40), group(along(1, -5), 1)])

    found = born(points)

    assert found is not None
    assert len(found.centroids) == 1
    assert found.founders[0].tolist() == list(range(40))
    np.testing.assert_allclose(found.centroids[0], points[:40].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_two_groups_are_two_clusters_the_heavier_first():
    points = np.concatenate([group(along(0, 10), 20), group(along(1, 10), 30, seed=1)])

    found = born(points)

    assert found is not None
    assert [len(rows) for rows in found.founders] == [30, 20]
    assert born(points, max_births=1).founders[0].tolist() == list(range(20, 50))
    assert born(points, max_births=0) is None


@pytest.mark.parametrize("seed", range(5))
def test_scattered_outliers_found_nothing(seed):
    directions = np.random.default_rng(seed).standard_normal((300, N_DIMS))
    lengths = np.sqrt(np.square(directions).sum(axis=1, keepdims=True))

    assert born((10 * directions / lengths).astype(np.float32)) is None


def test_a_group_that_is_not_far_founds_nothing():
    assert born(group(along(0, 10), 40), reach=12.0) is None


def test_a_group_wider_than_clusters_are_founds_nothing():
    assert born(group(along(0, 10), 40, width=4.0)) is None


def test_a_group_without_weight_founds_nothing():
    points = group(along(0, 10), MIN_WEIGHT)

    assert born(points) is not None
    assert born(points[1:]) is None


def test_several_items_in_one_place_are_a_group():
    assert born(np.repeat(group(along(0, 10), 1), MIN_WEIGHT, axis=0)) is not None


def test_one_item_that_repeats_itself_founds_nothing():
    buffer = OutlierBuffer(N_DIMS)
    for vector in group(along(0, 10), 100):
        buffer.apply([b"loud"], vector[None, :], np.array([True]))

    keys, points = buffer.snapshot()

    assert keys == [b"loud"]
    assert born(points) is None


def test_nothing_at_all_founds_nothing():
    assert born(np.empty((0, N_DIMS), np.float32)) is None


def test_the_order_of_rows_leaves_no_trace():
    points = np.concatenate([group(along(0, 10), 30), group(along(1, 10), 20, seed=1)])
    order = np.random.default_rng(0).permutation(len(points))

    one, other = born(points), born(points[order])

    assert one is not None
    assert other is not None
    assert [set(rows) for rows in one.founders] == [set(order[rows]) for rows in other.founders]


def test_a_newborn_of_the_smallest_weight_outlives_the_next_fit():
    old = np.random.default_rng(1).standard_normal((500, N_DIMS)) / np.sqrt(N_DIMS)
    new = group(along(0, 8), MIN_WEIGHT)
    points = np.concatenate([old.astype(np.float32), new])
    found = born(new)
    assert found is not None

    def refit(start):
        return fit(points, len(start), kernels=KERNELS, seed=0, max_component=16.0, start=start)

    after = adapted(
        points,
        refit(np.concatenate([np.zeros((1, N_DIMS), np.float32), found.centroids])),
        min_clusters=1,
        max_clusters=10,
        kernels=KERNELS,
        refit=refit,
        seed=0,
    )

    assert np.bincount(after.labels).tolist() == [500, MIN_WEIGHT]


def test_a_cluster_of_unknown_reach_has_no_far_items():
    distances = np.array([1.0, 3.0, 9.0, 9.0])

    found = is_far(distances, np.array([2.0, 2.0, 0.0, np.inf]), far=1.0)

    assert found.tolist() == [False, True, False, False]


changes = st.lists(
    st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.sampled_from(["far", "near", "gone"]))
)


@given(changes)
def test_the_buffer_holds_the_newest_vector_of_items_that_are_far(history):
    buffer, expected = OutlierBuffer(1), {}
    for step, (key, what) in enumerate(history):
        expected.pop(key, None)
        if what == "gone":
            buffer.remove([key])
        else:
            buffer.apply([key], np.full((1, 1), step, np.float32), np.array([what == "far"]))
            if what == "far":
                expected[key] = float(step)

    keys, vectors = buffer.snapshot()

    assert keys == sorted(expected)
    assert vectors[:, 0].tolist() == [expected[key] for key in keys]


def test_a_full_buffer_lets_go_of_the_item_that_was_silent_longest():
    buffer = OutlierBuffer(1, max_items=2)
    buffer.apply([b"a", b"b", b"a", b"c"], np.zeros((4, 1), np.float32), np.ones(4, bool))

    assert len(buffer) == 2
    assert b"b" not in buffer
    assert buffer.snapshot()[0] == [b"a", b"c"]
