"""A centroid that hardly helps jumps to where one is missing."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.clustering.kmeans import fit
from pipeline.clustering.relocation import improved
from pipeline.kernels.cpu import CpuKernels

KERNELS = CpuKernels(threads=1)


def blobs(rng, centres, n_each=80):
    return np.concatenate(
        [rng.normal(c, 0.1, (n_each, len(c))) for c in np.asarray(centres, float)]
    ).astype(np.float32)


def refit(points):
    def run(start):
        return fit(points, len(start), kernels=KERNELS, seed=0, max_component=256.0, start=start)

    return run


def test_two_centroids_in_one_blob_and_one_between_two_are_set_right():
    points = blobs(np.random.default_rng(0), [(0, 0), (10, 0), (12, 0)])
    stuck = refit(points)(np.array([[-0.1, 0], [0.1, 0], [11, 0]], np.float32))

    found = improved(points, stuck, kernels=KERNELS, refit=refit(points))

    assert stuck.inertia > 100  # Lloyd alone stays where it was put
    assert found.inertia < 10
    assert sorted(round(float(x)) for x in found.centroids[:, 0]) == [0, 10, 12]


@pytest.mark.parametrize("seed", range(5))
def test_it_never_makes_a_fit_worse_and_stays_where_it_ended(seed):
    points = np.random.default_rng(seed).standard_normal((400, 4)).astype(np.float32)
    first = fit(points, 25, kernels=KERNELS, seed=seed, max_component=256.0)

    once = improved(points, first, kernels=KERNELS, refit=refit(points))
    again = improved(points, refit(points)(once.centroids), kernels=KERNELS, refit=refit(points))

    assert once.inertia <= first.inertia
    assert again.inertia >= 0.999 * once.inertia


@pytest.mark.parametrize("n_clusters", [1, 2])
def test_few_clusters_and_points_in_one_place_are_left_alone(n_clusters):
    points = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    first = fit(points, n_clusters, kernels=KERNELS, seed=0, max_component=256.0)

    found = improved(points, first, kernels=KERNELS, refit=refit(points))

    assert found.inertia == first.inertia
