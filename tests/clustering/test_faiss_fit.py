"""faiss as the second twin of the fit: the same laws, another way there."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from pipeline.clustering.faiss_fit import fit_faiss
from pipeline.clustering.kmeans import FewerPointsError, fit, inertia
from pipeline.kernels.cpu.twin import CpuKernels
from tests import naive

pytest.importorskip("faiss", reason="the extra search is not installed")

KERNELS = CpuKernels()
GIVEN = {"kernels": KERNELS, "max_component": 256.0}
TWINS = pytest.mark.parametrize("fitted", [fit, fit_faiss])


def blobs(n=600, d=8, k=6, seed=0, spread=0.3):
    rng = np.random.default_rng(seed)
    places = rng.standard_normal((k, d)) * 3
    points = places[np.arange(n) % k] + spread * rng.standard_normal((n, d))
    return points.astype(np.float32)


@TWINS
@pytest.mark.parametrize("kind", ["plain", "weights", "spherical", "start"])
def test_labels_are_the_argmin_and_every_cluster_has_a_member(fitted, kind):
    points, given = blobs(n=150, spread=2.0), dict(GIVEN)
    weights = None
    if kind == "weights":
        weights = given["weights"] = np.random.default_rng(0).uniform(0.1, 9.0, len(points))
    if kind == "spherical":
        points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
        given["spherical"] = True
    if kind == "start":
        given["start"] = points[:11]

    found = fitted(points, 11, seed=1, **given)

    labels, distances, _, _ = naive.assign(points, found.centroids)
    assert found.labels.tolist() == labels
    assert found.distances_squared.tolist() == distances
    assert np.bincount(found.labels, minlength=11).all()
    assert found.inertia == pytest.approx(inertia(points, found.centroids, KERNELS, weights))


@TWINS
def test_the_same_seed_gives_the_same_bytes(fitted):
    points = blobs(spread=2.0)

    one, again, other = (fitted(points, 13, seed=seed, **GIVEN) for seed in (3, 3, 4))

    assert one.centroids.tobytes() == again.centroids.tobytes()
    assert one.centroids.tobytes() != other.centroids.tobytes()


@TWINS
def test_as_many_clusters_as_distinct_points(fitted):
    points = np.tile(np.round(blobs(n=12) * 64) / 64, (40, 1))

    found = fitted(points, 12, seed=0, **GIVEN)

    assert found.inertia == pytest.approx(0.0, abs=1e-8)
    assert np.bincount(found.labels).tolist() == [40] * 12


@TWINS
def test_weights_pull(fitted):
    points = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
    weights = np.array([3.0, 1.0, 1.0, 3.0])

    found = fitted(points, 2, seed=0, weights=weights, **GIVEN)

    assert sorted(found.centroids[:, 0].tolist()) == pytest.approx([0.25, 10.75])


@TWINS
def test_arguments_that_contradict_each_other_are_refused(fitted):
    points = blobs()

    with pytest.raises(ValueError, match="0 clusters"):
        fitted(points, 0, seed=0, **GIVEN)
    with pytest.raises(ValueError, match="a start of"):
        fitted(points, 5, seed=0, start=points[:4], **GIVEN)
    with pytest.raises(FewerPointsError, match="6 clusters, but only 5 distinct"):
        fitted(np.tile(blobs(n=5), (10, 1)), 6, seed=0, **GIVEN)


@pytest.mark.parametrize(("k", "spread"), [(6, 1.0), (25, 2.0)])
def test_both_end_at_the_same_inertia(k, spread):
    points = blobs(n=1500, d=16, k=k, spread=spread)

    ours, theirs = (
        [twin(points, k, seed=s, start=points[s : s + k], **GIVEN).inertia for s in range(5)]
        for twin in (fit, fit_faiss)
    )

    assert statistics.median(theirs) == pytest.approx(statistics.median(ours), rel=0.01)
