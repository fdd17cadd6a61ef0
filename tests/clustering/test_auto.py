"""The number of clusters follows from the points: heaps apart are found, one heap is left whole."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.clustering.auto import MIN_MEMBERS, adapted
from pipeline.clustering.kmeans import Fit, FitCancelledError, fit
from pipeline.clustering.valleys import lots, p_value, two_means
from pipeline.kernels.cpu.twin import CpuKernels

KERNELS = CpuKernels(threads=1)


def fitted(points, n_clusters, start=None, seed=0):
    return fit(points, n_clusters, kernels=KERNELS, seed=seed, max_component=256.0, start=start)


def search(points, found: Fit, *, seed=0, low=1, high=100, refits=None, **options):
    def refit(start):
        if refits is not None:
            refits.append(len(start))
        return fitted(points, len(start), start)

    return adapted(
        points,
        found,
        min_clusters=low,
        max_clusters=high,
        kernels=KERNELS,
        refit=refit,
        seed=seed,
        **options,
    )


def heaps(n_heaps, n_dims, *, n_each=100, apart=8.0, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_heaps, n_dims)) * apart / np.sqrt(2 * n_dims)
    noise = rng.standard_normal((n_heaps, n_each, n_dims)) / np.sqrt(max(1, n_dims / 16))
    return (centres[:, None] + noise).reshape(-1, n_dims).astype(np.float32)


def one_heap(kind, n, n_dims, rng):
    normal = rng.standard_normal((n, n_dims))
    match kind:
        case "gaussian":
            return normal
        case "heavy tails":
            return normal / np.sqrt(rng.chisquare(3, (n, 1)) / 3)
        case "skewed":
            return rng.exponential(size=(n, n_dims))
        case "uniform ball":
            lengths = np.sqrt(np.square(normal).sum(axis=1, keepdims=True))
            return normal / lengths * rng.random((n, 1)) ** (1 / n_dims)
        case "uniform cube":
            return rng.random((n, n_dims))
        case "fast decaying spectrum":
            return normal / np.arange(1, n_dims + 1)
    raise AssertionError(kind)


KINDS = (
    "gaussian",
    "heavy tails",
    "skewed",
    "uniform ball",
    "uniform cube",
    "fast decaying spectrum",
)


@pytest.mark.parametrize("n_dims", [2, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_one_heap_looks_like_two_no_more_often_than_stated(kind, n_dims):
    rng = np.random.default_rng(n_dims)
    n_runs, level = 150, 0.05

    n_split = sum(
        p_value(one_heap(kind, 120, n_dims, rng), rng.random(120) < 0.5, two_means) <= level
        for _ in range(n_runs)
    )

    assert n_split <= level * n_runs + 3 * np.sqrt(level * n_runs)


def test_without_the_unseen_half_every_heap_would_look_like_two():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((60, 384))
    both = np.concatenate([points, points])  # each hand holds the same points: nothing is unseen

    assert p_value(both, np.arange(120) < 60, two_means) < 1e-6
    assert p_value(points, np.arange(60) < 30, two_means) > 0.05


@pytest.mark.parametrize(("n_large", "n_small"), [(200, 200), (1000, 30)])
def test_two_heaps_apart_are_told_apart_also_when_one_is_small(n_large, n_small):
    rng = np.random.default_rng(0)
    points = rng.standard_normal((n_large + n_small, 16))
    points[n_large:, 0] += 25.0

    assert p_value(points, rng.random(len(points)) < 0.5, two_means) < 1e-4


@pytest.mark.parametrize("n_start", [1, 6, 40])
@pytest.mark.parametrize("kind", ["gaussian", "skewed", "uniform cube"])
def test_one_heap_becomes_one_cluster_in_however_many_it_was_cut(kind, n_start):
    points = one_heap(kind, 1500, 8, np.random.default_rng(1)).astype(np.float32)

    assert len(search(points, fitted(points, n_start)).centroids) == 1


@pytest.mark.parametrize("n_start", [5, 12, 30])
@pytest.mark.parametrize("n_dims", [16, 100])
def test_heaps_apart_are_counted_from_any_side(n_start, n_dims):
    points = heaps(12, n_dims, apart=11.0)

    found = search(points, fitted(points, n_start))

    assert len(found.centroids) == 12
    assert np.bincount(found.labels).tolist() == [100] * 12


def test_a_search_from_its_own_result_changes_nothing_and_fits_nothing():
    points = heaps(10, 16)
    once = search(points, fitted(points, 25))
    refits: list[int] = []

    again = search(points, once, refits=refits)
    warm = search(points, fitted(points, len(once.centroids), once.centroids))

    assert again is once
    assert refits == []
    np.testing.assert_array_equal(warm.labels, once.labels)


@pytest.mark.parametrize("seed", range(3))
def test_also_among_heaps_that_run_into_each_other(seed):
    points = heaps(30, 6, n_each=40, apart=4.0, seed=seed)
    once = search(points, fitted(points, 20))

    assert search(points, once) is once


def test_the_same_seed_gives_the_same_clusters():
    points = heaps(8, 16, apart=5.0)
    found = fitted(points, 15)

    first, second = search(points, found, seed=3), search(points, found, seed=3)

    np.testing.assert_array_equal(first.centroids, second.centroids)


def test_limits_hold_against_the_evidence():
    points = heaps(6, 16)

    assert len(search(points, fitted(points, 6), high=4).centroids) == 4
    assert len(search(points, fitted(points, 6), low=9).centroids) == 9
    assert len(search(points, fitted(points, 3), high=5).centroids) == 5
    assert len(search(points, fitted(points, 12), low=12, high=12).centroids) == 12


def test_a_cluster_too_light_for_any_test_dies():
    points = np.concatenate([heaps(3, 16), np.full((MIN_MEMBERS - 1, 16), 6.0, np.float32)])

    found = search(points, fitted(points, 4))

    assert len(found.centroids) == 3


def test_copies_of_few_points_are_no_more_clusters_than_places():
    places = np.repeat(np.eye(3, 4, dtype=np.float32), 40, axis=0)

    assert len(search(places, fitted(places, 2)).centroids) == 3
    assert len(search(places[:40], fitted(places[:40], 1), low=2).centroids) == 1


def test_it_stops_when_told_so():
    points = heaps(3, 4)

    with pytest.raises(FitCancelledError):
        search(points, fitted(points, 2), is_cancelled=lambda: True)


def test_a_lot_depends_on_the_point_and_copies_differ():
    points = heaps(2, 4)
    shuffled = np.random.default_rng(0).permutation(len(points))

    np.testing.assert_array_equal(lots(points[shuffled], 1), lots(points, 1)[shuffled])
    assert len(set(lots(np.ones((50, 4), np.float32), 0).tolist())) == 50
    assert 0.3 < (lots(points, 0) & np.uint64(1)).mean() < 0.7
