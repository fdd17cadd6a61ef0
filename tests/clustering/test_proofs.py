"""What a proof promises: no move of the centroids that it bears makes another one nearest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clustering.proofs import drifted, largest_other, proofs
from pipeline.kernels.cpu.twin import CpuKernels
from tests import naive

KERNELS = CpuKernels(threads=1)


def proven_now(points, centroids, drift):
    """Labels, and a proof for each."""
    found = KERNELS.assign(KERNELS.load(centroids), points)
    return found.labels, proofs(found.distances_squared, found.gaps, drift[found.labels])


@given(
    seed=st.integers(0, 2**32),
    n_dims=st.sampled_from([1, 2, 5, 33]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    offset=st.sampled_from([0.0, 10.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_proven_label_is_the_canonical_argmin_after_any_moves(seed, n_dims, scale, offset):
    rng = np.random.default_rng(seed)
    n_clusters = int(rng.integers(1, 6))
    points = rng.integers(-4, 5, (20, n_dims)) * scale + offset
    points = points.astype(np.float32)
    centroids = (rng.integers(-4, 5, (n_clusters, n_dims)) * scale + offset).astype(np.float32)
    drift = np.zeros(n_clusters)
    labels, proof = proven_now(points, centroids, drift)

    for _ in range(8):
        moved = centroids.copy()
        who = rng.random(n_clusters) < 0.5
        step = rng.standard_normal((n_clusters, n_dims)) * scale * 10.0 ** rng.uniform(-4, 0)
        moved[who] += step[who].astype(np.float32)
        drift, centroids = drifted(drift, centroids, moved), moved
        proven = proof > drift[labels]

        assert naive.assign(points[proven], centroids)[0] == labels[proven].tolist()


def test_a_proof_bears_all_that_the_triangle_inequality_grants_and_no_more():
    points = np.array([[0.0]], np.float32)
    centroids = np.array([[-1.0], [3.0]], np.float32)  # the slack is 2
    labels, proof = proven_now(points, centroids, np.zeros(2))

    def after(*places):
        drift = drifted(np.zeros(2), centroids, np.array(places, np.float32)[:, None])
        return bool(proof[0] > drift[labels[0]])

    assert after(-1.0, 3.0)
    assert after(-2.0, 2.0625)
    assert after(-1.0, 1.0625)
    assert not after(-2.0, 2.0)  # as near as each other: the tie rule decides
    assert not after(-1.0, 0.5)


def test_a_tie_is_never_proven():
    points = np.array([[0.0], [0.0]], np.float32)
    centroids = np.array([[-1.0], [1.0]], np.float32)

    labels, proof = proven_now(points, centroids, np.zeros(2))

    assert not (proof > 0.0).any()
    assert labels.tolist() == [0, 0]


def test_with_a_single_cluster_every_label_is_proven_for_ever():
    points = np.array([[0.0], [5.0]], np.float32)
    centroids = np.array([[1.0]], np.float32)
    _, proof = proven_now(points, centroids, np.zeros(1))

    drift = drifted(np.zeros(1), centroids, np.array([[200.0]], np.float32))

    assert (proof > drift[0]).all()


def test_who_does_not_move_drifts_by_the_largest_move_of_the_others():
    centroids = np.zeros((4, 2), np.float32)
    moved = np.array([[3, 4], [0, 0], [0, 1], [0, 0]], np.float32)

    assert drifted(np.zeros(5), centroids, moved) == pytest.approx([6, 5, 6, 5, 0], rel=1e-9)


def test_nobody_drifts_when_nothing_moves():
    centroids = np.ones((3, 2), np.float32)

    assert drifted(np.full(3, 0.1), centroids, centroids).tolist() == [0.1] * 3


@pytest.mark.parametrize(
    ("moves", "others"), [([2.0], [0.0]), ([1.0, 3.0, 2.0], [3.0, 2.0, 3.0]), ([4.0, 4.0], [4, 4])]
)
def test_the_largest_other(moves, others):
    assert largest_other(np.array(moves)).tolist() == others
