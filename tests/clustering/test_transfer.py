"""Ids go over to another embedding by the items that have both, and by nothing else."""

from __future__ import annotations

import numpy as np

from pipeline.clustering.fitting import FitSettings
from pipeline.clustering.transfer import transferred
from pipeline.kernels.cpu.twin import CpuKernels

KERNELS = CpuKernels(threads=1)
SETTINGS = FitSettings(
    n_clusters=4, seed=0, max_iterations=50, max_component=256.0, spherical=False
)


def blobs(n_each=20, n_dims=5, seed=0):
    """Four clusters in a space of their own: (points, which of the four)."""
    rng = np.random.default_rng(seed)
    centres = 20 * np.eye(4, n_dims)
    which = np.repeat(np.arange(4), n_each)
    points = centres[which] + rng.standard_normal((4 * n_each, n_dims))
    return points.astype(np.float32), which.astype(np.int32)


def run(points, old_labels, n_old=4, settings=SETTINGS):
    return transferred(points, old_labels, n_old, settings, kernels=KERNELS)


def found(candidate, points):
    return KERNELS.assign(KERNELS.load(candidate.centroids), points).labels


def test_clusters_that_hold_the_same_items_keep_their_label():
    points, which = blobs()

    candidate = run(points, which)

    assert candidate.alignment.heirs.tolist() == [0, 1, 2, 3]
    assert found(candidate, points).tolist() == which.tolist()
    assert candidate.alignment.moved == 0.0


def test_control_shuffled_labels_carry_no_identity_over():
    points, which = blobs()

    candidate = run(points, np.random.default_rng(3).permutation(which))

    assert candidate.alignment.moved > 0.5


def test_items_without_an_old_vector_say_nothing():
    points, which = blobs()
    some = which.copy()
    some[np.arange(len(some)) % 4 != 0] = -1  # a quarter has both

    candidate = run(points, some)

    assert candidate.alignment.heirs.tolist() == [0, 1, 2, 3]
    assert found(candidate, points).tolist() == which.tolist()
    assert int(candidate.profiles.counts.sum()) == len(points)


def test_what_was_no_cluster_before_is_born_behind_the_heirs():
    points, which = blobs()
    old = which.copy()
    old[which == 1] = -1
    old[which > 1] -= 1  # three clusters, and a fourth that is new

    candidate = run(points, old, n_old=3)

    assert candidate.alignment.heirs.tolist() == [0, 1, 2, -1]
    assert set(found(candidate, points)[which == 1].tolist()) == {3}
    assert not candidate.is_comparable
    assert candidate.inertia_before is None


def test_nothing_in_common_is_all_new():
    points, which = blobs()

    candidate = run(points, np.full(len(which), -1, np.int32))

    assert candidate.alignment.heirs.tolist() == [-1] * 4
