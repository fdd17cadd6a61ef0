"""A fit is a local optimum, the same for a seed, and as good as other people's."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from sklearn.cluster import KMeans

from pipeline.clustering.kmeans import (
    ClusteringPolicy,
    FewerPointsError,
    FitCancelledError,
    centroids_of,
    fit,
    inertia,
)
from pipeline.clustering.seeding import n_distinct, seeds
from pipeline.errors import ConfigError
from pipeline.kernels.cpu.twin import CpuKernels
from tests import naive

KERNELS = CpuKernels()


def blobs(n=600, d=8, k=6, seed=0, spread=0.3):
    rng = np.random.default_rng(seed)
    places = rng.standard_normal((k, d)) * 3
    points = places[np.arange(n) % k] + spread * rng.standard_normal((n, d))
    return points.astype(np.float32)


def on_sphere(points):
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def fitted(points, n_clusters, seed=0, **given):
    given = {"kernels": KERNELS, "max_component": 256.0, **given}
    return fit(points, n_clusters, seed=seed, **given)


def test_labels_are_the_argmin_of_the_centroids_returned():
    points = blobs(n=100, spread=2.0)

    found = fitted(points, 7, tol=0.1)

    labels, distances, _, _ = naive.assign(points, found.centroids)
    assert found.labels.tolist() == labels
    assert found.distances_squared.tolist() == distances
    assert found.inertia == pytest.approx(sum(distances), rel=1e-12)
    assert found.has_converged


def test_centroids_are_the_means_of_their_members():
    points = blobs(spread=1.0)

    found = fitted(points, 7, tol=0.0)

    for label, centroid in enumerate(found.centroids):
        mean = points[found.labels == label].mean(axis=0, dtype=np.float64)
        # sums hold a component to 2**-33, centroids are rounded to float32
        assert np.allclose(centroid, mean, rtol=2.0**-24, atol=2.0**-32)


@pytest.mark.parametrize("spherical", [False, True])
def test_no_pass_makes_it_worse(spherical):
    points = blobs(spread=2.0)
    passes = []

    found = fitted(
        on_sphere(points) if spherical else points,
        20,
        tol=0.0,
        spherical=spherical,
        on_pass=lambda n, left: passes.append((n, left)),
    )

    numbers, left = zip(*passes, strict=True)
    assert numbers == tuple(range(1, len(passes) + 1))
    assert len(passes) == found.n_iterations > 3
    # each centroid is rounded to float32: 2**-24 of its length, squared differences of that
    assert all(b <= a * (1 + 2.0**-20) for a, b in itertools.pairwise(left))


def test_the_same_seed_gives_the_same_bytes_whatever_the_threads(monkeypatch):
    monkeypatch.setattr("pipeline.kernels.cpu.twin.SERIAL_WORK", 0)
    monkeypatch.setattr("pipeline.kernels.cpu.twin.SERIAL_ROWS", 0)
    points = blobs(n=700, spread=2.0)

    one, two, other = (
        fitted(points, 13, seed=seed, kernels=CpuKernels(threads))
        for seed, threads in ((3, 1), (3, 2), (4, 1))
    )

    assert one.centroids.tobytes() == two.centroids.tobytes()
    assert one.labels.tobytes() == two.labels.tobytes()
    assert one.centroids.tobytes() != other.centroids.tobytes()


@pytest.mark.parametrize(("k", "spread"), [(6, 0.3), (12, 1.0), (25, 2.0)])
def test_as_good_as_scikit_learn(k, spread):
    points = blobs(n=1500, d=16, k=k, spread=spread)
    peers = [KMeans(k, n_init=1, random_state=s).fit(points).inertia_ for s in range(5)]

    found = [fitted(points, k, seed=s).inertia for s in range(5)]

    # a start falls into one of many optima: the best is as good, the middle within their noise
    assert min(found) <= min(peers) * 1.01
    assert statistics.median(found) <= max(peers) * 1.0001  # theirs is summed in float32


def test_separate_blobs_are_found():
    points = blobs(k=6, spread=0.1)

    found = fitted(points, 6)

    for blob in range(6):
        assert len(set(found.labels[blob::6].tolist())) == 1


def test_warm_start_on_its_own_result_changes_nothing():
    points = blobs(spread=1.0)
    first = fitted(points, 9, tol=0.0)

    again = fitted(points, 9, start=first.centroids, tol=0.0)

    assert again.centroids.tobytes() == first.centroids.tobytes()
    assert again.labels.tobytes() == first.labels.tobytes()
    assert again.n_iterations == 1


def test_warm_start_is_not_modified():
    points = blobs()
    start = points[:6].copy()

    fitted(points, 6, start=start)

    assert start.tobytes() == points[:6].tobytes()


def test_empty_clusters_get_the_farthest_points():
    points = np.array([[0.0], [1.0], [10.0], [11.0], [50.0]], np.float32)
    start = np.array([[0.0], [1000.0], [2000.0]], np.float32)  # two that nobody is near to

    found = fitted(points, 3, start=start, tol=0.0)

    assert sorted(found.centroids[:, 0].tolist()) == [0.5, 10.5, 50.0]


def test_a_lonely_point_is_never_taken_from_its_cluster():
    points = np.array([[0.0], [1.0], [100.0]], np.float32)
    start = np.array([[0.0], [90.0], [1000.0]], np.float32)  # 100 is farthest, and alone

    found = fitted(points, 3, start=start, tol=0.0)

    assert found.inertia == 0.0
    assert sorted(found.centroids[:, 0].tolist()) == [0.0, 1.0, 100.0]


@pytest.mark.parametrize("n_copies", [1, 40])
def test_as_many_clusters_as_distinct_points(n_copies):
    distinct = np.round(blobs(n=12) * 64) / 64  # in whole units: the sums round nothing
    points = np.tile(distinct, (n_copies, 1))

    found = fitted(points, 12)

    assert found.inertia == 0.0
    assert np.bincount(found.labels).tolist() == [n_copies] * 12


def test_fewer_distinct_points_than_clusters_is_said():
    points = np.tile(blobs(n=5), (10, 1))

    with pytest.raises(FewerPointsError, match="6 clusters, but only 5 distinct") as raised:
        fitted(points, 6)

    assert raised.value.n_distinct == 5
    assert raised.value.n_clusters == 6


def test_distinct_points_are_counted():
    points = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 2.0]], np.float32)

    assert n_distinct(points) == 2
    assert n_distinct(points, at_most=1) == 1
    assert n_distinct(points[:0]) == 0


def test_seeds_are_distinct_points_even_if_the_sample_repeats_one(monkeypatch):
    monkeypatch.setattr("pipeline.clustering.seeding.MIN_SEED_POINTS", 1)
    monkeypatch.setattr("pipeline.clustering.seeding.SEED_POINTS_PER_CLUSTER", 1)
    points = np.concatenate([np.ones((500, 2), np.float32), blobs(n=4, d=2)])

    chosen = seeds(points, 5, kernels=KERNELS, seed=0)

    assert n_distinct(chosen) == 5
    assert {row.tobytes() for row in chosen} <= {row.tobytes() for row in points}


def test_spherical_centroids_are_unit_vectors():
    points = on_sphere(blobs(spread=1.0))

    found = fitted(points, 8, spherical=True, max_component=1.0)

    lengths = np.linalg.norm(found.centroids.astype(np.float64), axis=1)
    assert np.allclose(lengths, 1.0, rtol=0, atol=2.0**-23)
    assert found.labels.tolist() == naive.assign(points, found.centroids)[0]


def test_a_cluster_whose_mean_is_zero_keeps_its_centroid_on_the_sphere():
    points = np.array([[1, 0], [-1, 0]], np.float32)
    start = np.array([[0, 1]], np.float32)

    found = fitted(points, 1, start=start, spherical=True, max_component=1.0)

    assert found.centroids.tolist() == [[0.0, 1.0]]


def test_the_last_pass_allowed_still_gives_exact_labels():
    points = blobs(spread=2.0)

    found = fitted(points, 20, max_iterations=1, tol=0.0)

    assert not found.has_converged
    assert found.labels.tolist() == naive.assign(points, found.centroids)[0]


def test_inertia_is_the_sum_of_squared_distances():
    points, centroids = blobs(n=30), blobs(n=4, seed=1)

    assert inertia(points, centroids, KERNELS) == pytest.approx(
        sum(naive.assign(points, centroids)[1]), rel=1e-12
    )


@pytest.mark.parametrize("n_calls", [0, 3, 30])
def test_a_fit_can_be_cancelled(n_calls):
    answers = iter([False] * n_calls + [True])

    with pytest.raises(FitCancelledError):
        fitted(blobs(spread=2.0), 20, tol=0.0, is_cancelled=lambda: next(answers))


def test_arguments_that_contradict_each_other_are_refused():
    points = blobs()

    with pytest.raises(ValueError, match="0 clusters"):
        fitted(points, 0)
    with pytest.raises(ValueError, match="a start of"):
        fitted(points, 5, start=points[:4])


def test_weights_count_like_copies():
    points = blobs(n=60, d=3, spread=1.0)
    n_copies = np.random.default_rng(0).integers(1, 5, len(points))
    copies, start = np.repeat(points, n_copies, axis=0), points[:6].copy()

    weighed = fitted(points, 6, start=start, weights=n_copies.astype(np.float64), tol=0.0)
    copied = fitted(copies, 6, start=start, tol=0.0)

    np.testing.assert_allclose(weighed.centroids, copied.centroids, rtol=0, atol=1e-6)
    assert weighed.inertia == pytest.approx(copied.inertia, rel=1e-6)
    assert np.repeat(weighed.labels, n_copies).tolist() == copied.labels.tolist()
    assert weighed.inertia == pytest.approx(
        inertia(points, weighed.centroids, KERNELS, n_copies.astype(np.float64))
    )


def test_seeds_stand_where_the_weight_is():
    points = np.concatenate([blobs(n=500, d=2, k=5, seed=1), blobs(n=500, d=2, k=5, seed=2) + 50])
    weights = np.repeat([1.0, 2.0**-16], 500)

    chosen = seeds(points.astype(np.float32), 5, kernels=KERNELS, seed=0, weights=weights)

    assert np.count_nonzero(chosen[:, 0] > 25) <= 1


def test_means_are_told_for_labels_and_stay_where_nobody_is():
    points, before = blobs(n=40, k=4), blobs(n=5, seed=3)
    labels = np.where(np.arange(40) < 30, np.arange(40) % 3, -1).astype(np.int32)

    found = centroids_of(
        points, labels, before, kernels=KERNELS, max_component=256.0, spherical=False
    )

    for label in range(3):
        np.testing.assert_allclose(found[label], points[labels == label].mean(axis=0), atol=1e-5)
    assert found[3:].tobytes() == before[3:].tobytes()


def test_a_number_of_clusters_or_auto():
    assert ClusteringPolicy(clusters="auto", min=3, max=9, half_life_s=86_400.0).clusters == "auto"


@pytest.mark.parametrize(
    "given",
    [
        {"clusters": 0},
        {"clusters": 50_001},
        {"min": 0},
        {"min": 9, "max": 8},
        {"max": 50_001},
        {"half_life_s": 0.0},
        {"half_life_s": float("nan")},
        {"seed": -1},
    ],
)
def test_policy_refuses_what_cannot_be_obeyed(given):
    with pytest.raises(ConfigError, match=f"clustering.{next(iter(given))} is"):
        ClusteringPolicy(**given)
