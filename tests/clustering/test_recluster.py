"""A candidate is fitted, aligned and judged on points that nobody has fitted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.clustering.kmeans import FitCancelledError, fit, inertia
from pipeline.clustering.profile import profiles
from pipeline.clustering.recluster import (
    FitSettings,
    IndivisibleError,
    merge_clusters,
    propose,
    restated,
    split_cluster,
)
from pipeline.kernels.cpu.twin import CpuKernels

KERNELS = CpuKernels(threads=1)
SETTINGS = FitSettings(5, 0, 300, 256.0, spherical=False)
PLACES = np.array([(0, 0), (10, 0), (20, 0), (30, 0), (40, 0)], float)


def blobs(places=PLACES, n_each=60, seed=0, spread=0.5):
    rng = np.random.default_rng(seed)
    rows = [rng.normal(place, spread, (n_each, 2)) for place in np.asarray(places, float)]
    return np.concatenate(rows).astype(np.float32)


def cloud(n=3000, d=8, seed=0):
    """Nothing to find: many optima of nearly the same inertia."""
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def proposed(points, incumbent=None, settings=SETTINGS, **given):
    return propose(points, incumbent, settings, kernels=KERNELS, **given)


def settings(n_clusters, **given):
    return dataclasses.replace(SETTINGS, n_clusters=n_clusters, **given)


def places(centroids):
    return sorted(round(float(x)) for x in centroids[:, 0])


# Fits


def test_a_first_model_has_only_newborn_clusters_and_describes_its_members():
    points = blobs()

    found = proposed(points)

    assert places(found.centroids) == [0, 10, 20, 30, 40]
    assert found.alignment.heirs.tolist() == [-1] * 5
    assert found.inertia_before is None
    assert found.gain == 0.0
    assert not found.is_comparable
    assert found.is_converged
    nearest = KERNELS.assign(KERNELS.load(found.centroids), points)
    described = profiles(nearest.labels, nearest.distances_squared, 5)
    assert found.profiles.counts.tolist() == described.counts.tolist()
    assert found.profiles.quantiles.tolist() == described.quantiles.tolist()
    assert found.inertia_after == pytest.approx(nearest.distances_squared.sum())


@pytest.mark.parametrize(("n", "n_clusters"), [(300, 20), (3000, 20)])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_points_again_gain_nothing(n, n_clusters, seed):
    points = cloud(n, seed=seed)
    first = proposed(points, settings=settings(n_clusters))

    again = proposed(points, first.centroids, settings(n_clusters))

    assert again.is_comparable
    assert not again.beats_incumbent(0.005)
    assert again.inertia_before == pytest.approx(first.inertia_after)


def test_the_gain_is_what_items_that_nobody_has_seen_gain():
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 10, (40, 2))
    points, unseen = (blobs(centres, n_each=50, seed=seed, spread=0.3) for seed in (1, 2))
    incumbent = fit(points, 40, kernels=KERNELS, seed=3, max_component=256.0).centroids

    found = proposed(points, incumbent, settings(40))

    there = 1 - inertia(unseen, found.centroids, KERNELS) / inertia(unseen, incumbent, KERNELS)
    assert found.gain > 0.005
    assert found.gain == pytest.approx(there, abs=0.03)


def test_a_better_place_is_found():
    points = blobs(n_each=400)
    stuck = np.array([[0, 0], [0.2, 0], [15, 0], [30, 0], [40, 0]], np.float32)

    found = proposed(points, stuck)

    assert places(found.centroids) == [0, 10, 20, 30, 40]
    assert found.is_comparable
    assert found.gain > 0.9
    assert found.beats_incumbent(0.005)
    assert found.inertia_before == pytest.approx(inertia(points, stuck, KERNELS))


def test_a_model_that_fell_behind_its_members_is_beaten():
    points = blobs(n_each=400)
    behind = (PLACES + np.array([0.0, 0.4])).astype(
        np.float32
    )  # every label is right, no centroid is

    found = proposed(points, behind)

    assert found.alignment.moved == 0.0
    assert found.beats_incumbent(0.005)


def test_centroids_published_are_the_means_of_all_rows():
    points = blobs(n_each=400)
    found = proposed(points, proposed(points).centroids)

    labels = KERNELS.assign(KERNELS.load(found.centroids), points).labels

    for label, centroid in enumerate(found.centroids):
        np.testing.assert_allclose(centroid, points[labels == label].mean(axis=0), atol=1e-4)


def test_heirs_keep_the_order_of_the_incumbent():
    points = blobs()
    incumbent = PLACES[[3, 0, 4, 1, 2]].astype(np.float32)

    found = proposed(points, incumbent)

    assert found.alignment.heirs.tolist() == [0, 1, 2, 3, 4]
    assert [round(float(x)) for x in found.centroids[:, 0]] == [30, 0, 40, 10, 20]
    assert found.alignment.moved == 0.0


@pytest.mark.parametrize(("n_wanted", "n_kept"), [(4, 4), (6, 5)])
def test_another_number_of_clusters_keeps_the_ids_of_those_that_stay(n_wanted, n_kept):
    incumbent = proposed(blobs()).centroids

    found = proposed(blobs(), incumbent, settings(n_wanted))

    assert len(found.centroids) == n_wanted
    assert np.count_nonzero(found.alignment.heirs >= 0) == n_kept
    assert not found.is_comparable
    assert found.beats_incumbent(0.9)


def test_a_hopeless_warm_start_gives_way_to_a_cold_one():
    rng = np.random.default_rng(0)
    points = blobs(rng.uniform(0, 100, (30, 2)), n_each=40, spread=0.1)
    lost = points[:30].copy()  # all in one place

    found = proposed(points, lost, settings(30))
    cold = proposed(points, None, settings(30))

    assert found.inertia_after <= 1.01 * cold.inertia_after


def test_fewer_distinct_points_give_fewer_clusters():
    points = np.repeat(PLACES[:3].astype(np.float32), 9, axis=0)

    assert len(proposed(points).centroids) == 3
    assert len(proposed(points, PLACES.astype(np.float32)).centroids) == 3


def test_cosine_gives_unit_centroids():
    points = cloud(400)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    told = settings(12, spherical=True, max_component=1.0)
    first = proposed(points, settings=told)

    found = proposed(points, first.centroids, told)
    parts = split_cluster(points, found.centroids, 3, told, kernels=KERNELS)
    whole = merge_clusters(points, parts.centroids, [3, 12], told, kernels=KERNELS)

    for one in (first, found, parts, whole):
        np.testing.assert_allclose(np.linalg.norm(one.centroids, axis=1), 1.0, atol=1e-6)


def test_points_that_count_little_are_clustered_little():
    points = blobs(places=[(0, 0), (3, 0), (100, 0), (130, 0)])
    weights = np.repeat([1.0, 1.0, 2.0**-16, 2.0**-16], 60)

    alike = proposed(points, settings=settings(3))
    weighed = proposed(points, settings=settings(3), weights=weights)

    assert places(alike.centroids)[1:] == [100, 130]
    assert places(weighed.centroids) == [0, 3, 115]
    assert weighed.profiles.counts.tolist().count(120) == 1  # each point counts once


def test_equal_weights_change_nothing_but_the_units():
    points = cloud(2000)
    incumbent = points[:10].copy()

    plain = proposed(points, incumbent, settings(10))
    weighed = proposed(points, incumbent, settings(10), weights=np.full(2000, 4.0))

    np.testing.assert_allclose(weighed.centroids, plain.centroids, atol=1e-4)
    assert weighed.gain == pytest.approx(plain.gain, abs=1e-6)
    assert weighed.inertia_after == pytest.approx(4.0 * plain.inertia_after, rel=1e-6)


def test_the_same_arguments_give_the_same_bytes():
    points, incumbent = cloud(2000), cloud(20, seed=5)

    one, two = (proposed(points, incumbent, settings(20)) for _ in range(2))

    assert one.centroids.tobytes() == two.centroids.tobytes()
    assert one.gain == two.gain


def test_progress_counts_the_passes_of_all_fits():
    passes = []

    found = proposed(
        cloud(2000), cloud(20, seed=5), settings(20), on_pass=lambda n, _: passes.append(n)
    )

    assert passes == sorted(passes)
    assert passes[0] == 1
    assert len(passes) <= passes[-1] <= found.n_iterations


@pytest.mark.parametrize("n_calls", [0, 5, 60])
def test_a_proposal_can_be_cancelled(n_calls):
    answers = iter([False] * n_calls + [True])

    with pytest.raises(FitCancelledError):
        proposed(cloud(2000), cloud(20, seed=5), settings(20), is_cancelled=lambda: next(answers))


def test_running_out_of_passes_is_told():
    found = proposed(cloud(2000), settings=settings(20, max_iterations=1))

    assert not found.is_converged


# As many as tests tell apart

AUTO = settings(500, is_auto=True, min_clusters=2, max_clusters=50)


def test_auto_finds_the_number_and_then_leaves_it_alone():
    points = blobs(n_each=100)

    found = proposed(points, settings=AUTO)
    again = proposed(points, found.centroids, AUTO)

    assert places(found.centroids) == [0, 10, 20, 30, 40]
    assert again.is_comparable
    assert not again.beats_incumbent(0.005)


def test_auto_publishes_what_a_test_has_changed():
    points = blobs(n_each=100)
    incumbent = fit(points, 4, kernels=KERNELS, seed=0, max_component=256.0).centroids

    found = proposed(points, incumbent, AUTO)

    assert places(found.centroids) == [0, 10, 20, 30, 40]
    assert found.beats_incumbent(0.9)
    assert np.count_nonzero(found.alignment.heirs >= 0) == 4


@pytest.mark.parametrize(("least", "most", "expected"), [(2, 3, 3), (8, 20, 8)])
def test_auto_stays_within_its_limits(least, most, expected):
    told = dataclasses.replace(AUTO, min_clusters=least, max_clusters=most)

    found = proposed(blobs(n_each=100), PLACES.astype(np.float32), told)

    assert len(found.centroids) == expected


# What somebody asked for


def test_a_split_leaves_the_others_and_the_larger_half_keeps_the_id():
    points = np.concatenate([blobs(), blobs([(24, 0)], n_each=20, seed=1)])
    incumbent = np.array([[0, 0], [10, 0], [21, 0], [30, 0], [40, 0]], np.float32)

    found = split_cluster(points, incumbent, 2, SETTINGS, kernels=KERNELS)

    assert [round(float(x)) for x in found.centroids[:, 0]] == [0, 10, 20, 30, 40, 24]
    assert found.alignment.heirs.tolist() == [0, 1, 2, 3, 4, -1]
    assert found.alignment.splits == {2: (2, 5)}
    kept = [0, 1, 3, 4]
    assert found.centroids[kept].tobytes() == incumbent[kept].tobytes()
    assert not found.is_comparable


@pytest.mark.parametrize(("n_copies", "said"), [(0, "there are 0"), (1, "is 1"), (7, "all in one")])
def test_a_cluster_in_one_place_cannot_be_split(n_copies, said):
    points = np.concatenate([blobs(), np.full((n_copies, 2), 500.0, np.float32)])
    incumbent = np.append(PLACES, [(500.0, 0.0)], axis=0).astype(np.float32)

    with pytest.raises(IndivisibleError, match=said):
        split_cluster(points, incumbent, 5, SETTINGS, kernels=KERNELS)


def test_a_split_can_be_cancelled():
    with pytest.raises(FitCancelledError):
        split_cluster(
            blobs(), PLACES.astype(np.float32), 0, SETTINGS, kernels=KERNELS,
            is_cancelled=lambda: True,
        )  # fmt: skip


def test_a_merger_stands_at_the_mean_and_the_largest_goes_on():
    points = np.concatenate([blobs(), blobs(PLACES[3:4], n_each=60, seed=1)])
    incumbent = PLACES.astype(np.float32)

    found = merge_clusters(points, incumbent, [4, 3, 4], SETTINGS, kernels=KERNELS)

    assert found.alignment.heirs.tolist() == [0, 1, 2, 3]
    assert found.alignment.merges == {3: (3, 4)}
    np.testing.assert_allclose(
        found.centroids[3], points[points[:, 0] > 25].mean(axis=0), atol=1e-4
    )
    assert found.centroids[:3].tobytes() == incumbent[:3].tobytes()


def test_a_merger_weighs_its_members():
    points, incumbent = blobs(), PLACES.astype(np.float32)
    weights = np.repeat([1.0, 1.0, 1.0, 3.0, 1.0], 60)

    found = merge_clusters(points, incumbent, [3, 4], SETTINGS, kernels=KERNELS, weights=weights)

    assert found.centroids[3][0] == pytest.approx(32.5, abs=0.2)


def test_a_merger_takes_two():
    with pytest.raises(ValueError, match="it takes two"):
        merge_clusters(blobs(), PLACES.astype(np.float32), [1, 1], SETTINGS, kernels=KERNELS)


def test_given_centroids_stay_as_they_are_with_the_heirs_given():
    points, incumbent = blobs(), PLACES.astype(np.float32)
    centroids, heirs = incumbent[[4, 0, 2]] + np.float32(1.0), np.array([4, -1, 2], np.int32)

    found = restated(points, centroids, incumbent, heirs, kernels=KERNELS)

    assert found.centroids.tobytes() == centroids.tobytes()
    assert found.alignment.heirs.tolist() == [4, -1, 2]
    assert found.profiles.counts.sum() == len(points)
    assert found.inertia_before == pytest.approx(inertia(points, incumbent, KERNELS))
    assert found.inertia_after == pytest.approx(inertia(points, centroids, KERNELS))
