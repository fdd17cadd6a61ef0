"""The figures of `make quality`, against the words that define them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._figures import (
    N_NEIGHBOURS,
    agreement,
    distances_squared,
    kept_when_aligned,
    n_stale,
    neighbours,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_member_that_lies_nearer_to_another_centroid_is_stale(rng):
    points, centroids = rng.standard_normal((2, 50, 8)).astype(np.float32)
    gaps = points[:, None].astype(np.float64) - centroids
    labels = np.square(gaps).sum(axis=2).argmin(axis=1)
    assert n_stale(points, centroids, labels) == 0

    labels[7] = (labels[7] + 1) % 50

    assert n_stale(points, centroids, labels) == 1


def test_a_member_between_two_centroids_is_stale_in_neither():
    points = np.zeros((1, 2), np.float32)
    centroids = np.array([[1, 0], [-1, 0]], np.float32)

    assert [n_stale(points, centroids, np.array([label])) for label in (0, 1)] == [0, 0]


def test_distances_are_those_to_the_own_centroid():
    points = np.array([[0, 0], [3, 4]], np.float32)

    assert distances_squared(points, points, np.array([1, 1])).tolist() == [25.0, 0.0]


def test_clusters_that_only_changed_their_names_keep_everybody(rng):
    before = rng.integers(0, 6, 200)

    assert kept_when_aligned(before, (before + 2) % 6).all()


def test_the_smaller_part_of_a_split_cluster_is_not_kept():
    before, after = np.zeros(10, int), np.array([1] * 7 + [0] * 3)

    assert kept_when_aligned(before, after).tolist() == [True] * 7 + [False] * 3


def test_agreement_of_equal_partitions_is_one_and_of_one_cluster_is_known():
    sections = np.array(["a", "a", "b", "b"])

    assert agreement(np.array([3, 3, 1, 1]), sections) == pytest.approx(
        {"purity": 1.0, "nmi": 1.0, "bcubed_f1": 1.0}
    )
    # all in one: precision is 1/2, recall 1
    assert agreement(np.zeros(4, int), sections) == pytest.approx(
        {"purity": 0.5, "nmi": 0.0, "bcubed_f1": 2 / 3}
    )


def test_neighbours_are_the_nearest_others_by_exact_distance(rng):
    vectors = rng.standard_normal((300, 5)).astype(np.float32)
    exact = np.square(vectors[:, None].astype(np.float64) - vectors).sum(axis=2)
    np.fill_diagonal(exact, np.inf)

    assert (neighbours(vectors) == exact.argsort(axis=1, kind="stable")[:, :N_NEIGHBOURS]).all()


def test_the_few_there_are_are_all_neighbours():
    vectors = np.eye(4, dtype=np.float32)

    assert neighbours(vectors)[2].tolist() == [0, 1, 3]
