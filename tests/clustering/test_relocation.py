"""A centroid that hardly helps jumps to where one is missing."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.clustering.kmeans import FewerPointsError, fit, inertia
from pipeline.clustering.relocation import improved, resized
from pipeline.kernels.cpu.twin import CpuKernels

KERNELS = CpuKernels(threads=1)


def blobs(rng, centres, n_each=80):
    return np.concatenate(
        [rng.normal(c, 0.1, (n_each, len(c))) for c in np.asarray(centres, float)]
    ).astype(np.float32)


def fitted(points, start, weights=None):
    given = {"kernels": KERNELS, "seed": 0, "max_component": 256.0}
    return fit(points, len(start), start=start, weights=weights, **given)


def divide(points, weights):
    try:
        given = {"kernels": KERNELS, "seed": 0, "max_component": 256.0}
        return fit(points, 2, weights=weights, max_iterations=10, **given)
    except FewerPointsError:
        return None


def bettered(points, found, weights=None):
    return improved(
        points,
        found,
        kernels=KERNELS,
        refit=lambda start: fitted(points, start, weights),
        divide=divide,
        weights=weights,
    )


def sized(points, centroids, n_wanted, weights=None):
    return resized(points, centroids, n_wanted, kernels=KERNELS, divide=divide, weights=weights)


def test_two_centroids_in_one_blob_and_one_between_two_are_set_right():
    points = blobs(np.random.default_rng(0), [(0, 0), (10, 0), (12, 0)])
    stuck = fitted(points, np.array([[-0.1, 0], [0.1, 0], [11, 0]], np.float32))

    found = bettered(points, stuck)

    assert stuck.inertia > 100  # Lloyd alone stays where it was put
    assert found.inertia < 10
    assert sorted(round(float(x)) for x in found.centroids[:, 0]) == [0, 10, 12]


def test_twins_are_not_both_taken_away():
    # each of the two at 0 is cheap to do without only as long as the other stays
    places = [(0, 0), (10, 0), (12, 0), (20, 0), (22, 0), (40, 0), (50, 0), (60, 0), (70, 0)]
    points = blobs(np.random.default_rng(0), places)
    start = [(-0.1, 0), (0.1, 0), (11, 0), (21, 0), (40, 0), (50, 0), (60, 0), (70, 0), (70.1, 0)]
    stuck = fitted(points, np.array(start, np.float32))

    found = bettered(points, stuck)

    assert sorted(round(float(x)) for x in found.centroids[:, 0]) == [x for x, _ in places]


def test_points_that_hardly_count_get_no_centroid_of_their_own():
    rng = np.random.default_rng(0)
    points = blobs(rng, [(0, 0), (3, 0), (100, 0), (130, 0)])
    weights = np.repeat([1.0, 1.0, 2.0**-16, 2.0**-16], 80)
    start = np.array([[1.5, 0], [100, 0], [130, 0]], np.float32)

    alike = bettered(points, fitted(points, start))
    weighed = bettered(points, fitted(points, start, weights), weights)

    assert sorted(round(float(x)) for x in alike.centroids[:, 0])[1:] == [100, 130]
    assert sorted(round(float(x)) for x in weighed.centroids[:, 0]) == [0, 3, 115]


@pytest.mark.parametrize("seed", range(4))
def test_it_never_makes_a_fit_worse_and_stays_where_it_ended(seed):
    points = np.random.default_rng(seed).standard_normal((400, 4)).astype(np.float32)
    first = fit(points, 25, kernels=KERNELS, seed=seed, max_component=256.0)

    once = bettered(points, first)
    again = bettered(points, fitted(points, once.centroids))

    assert once.inertia <= first.inertia
    assert again.inertia >= 0.999 * once.inertia


@pytest.mark.parametrize("n_clusters", [1, 2])
def test_few_clusters_and_points_in_one_place_are_left_alone(n_clusters):
    points = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    first = fit(points, n_clusters, kernels=KERNELS, seed=0, max_component=256.0)

    found = bettered(points, first)

    assert found.inertia == first.inertia


# Another number of clusters


def test_the_cheapest_centroids_go_and_the_others_stay_as_they_were():
    points = blobs(np.random.default_rng(0), [(0, 0), (10, 0), (20, 0)])
    start = np.array([[-0.1, 0], [0.1, 0], [10, 0], [20, 0], [20.1, 0], [500, 0]], np.float32)

    found = sized(points, start, 3)

    assert sorted(round(float(x)) for x in found[:, 0]) == [0, 10, 20]
    assert {row.tobytes() for row in found} <= {row.tobytes() for row in start}


def test_clusters_that_gain_most_are_divided():
    points = blobs(np.random.default_rng(0), [(0, 0), (10, 0), (12, 0), (30, 0), (34, 0)])
    start = np.array([[0, 0], [11, 0], [32, 0]], np.float32)

    found = sized(points, start, 5)

    assert sorted(round(float(x)) for x in found[:, 0]) == [0, 10, 12, 30, 34]
    assert found[0].tobytes() == start[0].tobytes()


@pytest.mark.parametrize("n_wanted", [1, 2, 7, 20, 31, 60])
def test_there_are_as_many_as_wanted_and_nearly_as_good_as_cold_ones(n_wanted):
    points = np.random.default_rng(1).standard_normal((400, 4)).astype(np.float32)
    found = sized(points, points[:20].copy(), n_wanted)

    cold = fit(points, n_wanted, kernels=KERNELS, seed=0, max_component=256.0)

    assert len(found) == n_wanted
    assert fitted(points, found).inertia < 1.1 * cold.inertia
    assert inertia(points, found, KERNELS) < 2.0 * cold.inertia


def test_where_nothing_can_be_divided_there_are_fewer():
    points = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)

    assert len(sized(points, np.eye(3, dtype=np.float32)[:2], 9)) == 3
