"""A stream is learnt batch by batch, each centroid being the mean of what came to it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.clustering import minibatch
from pipeline.clustering.kmeans import FewerPointsError, FitCancelledError, fit
from pipeline.clustering.minibatch import MiniBatch, fit_batches
from pipeline.kernels.cpu.twin import CpuKernels
from tests import naive

KERNELS = CpuKernels()
GIVEN = {"kernels": KERNELS, "max_component": 64.0}


def blobs(n=2000, d=6, k=8, seed=0, spread=0.4):
    rng = np.random.default_rng(seed)
    places = rng.standard_normal((k, d)) * 3
    points = places[rng.integers(0, k, n)] + spread * rng.standard_normal((n, d))
    return points.astype(np.float32)


def batches_of(points, size=256):
    return [points[start : start + size] for start in range(0, len(points), size)]


def test_a_centroid_is_the_mean_of_all_that_came_to_it():
    points = blobs(n=400)
    model = MiniBatch(points[:8], **GIVEN)
    came: list[list[np.ndarray]] = [[] for _ in range(8)]

    for batch in batches_of(points, 100):
        labels, distances, _, _ = naive.assign(batch, model.centroids)
        assert model.step(batch) == pytest.approx(sum(distances), rel=1e-12)
        for label, row in zip(labels, batch, strict=True):
            came[label].append(row.astype(np.float64))

    assert model.masses.tolist() == [len(rows) for rows in came]
    for centroid, rows in zip(model.centroids, came, strict=True):
        np.testing.assert_allclose(centroid, np.mean(rows, axis=0), rtol=1e-5, atol=1e-6)


def test_the_same_batches_give_the_same_bytes_whatever_the_threads(monkeypatch):
    monkeypatch.setattr("pipeline.kernels.cpu.twin.SERIAL_WORK", 0)
    monkeypatch.setattr("pipeline.kernels.cpu.twin.SERIAL_ROWS", 0)
    points = blobs()
    places = []

    for threads in 1, 2:
        model = MiniBatch(points[:8], kernels=CpuKernels(threads), max_component=64.0)
        for batch in batches_of(points):
            model.step(batch)
        places.append(model.centroids.tobytes())

    assert places[0] == places[1]


def test_weights_count_like_copies():
    points = blobs(n=200)
    n_copies = np.random.default_rng(0).integers(1, 4, len(points))
    weighed, copied = (MiniBatch(points[:5], **GIVEN) for _ in range(2))

    left = weighed.step(points, n_copies.astype(np.float64))
    of_copies = copied.step(np.repeat(points, n_copies, axis=0))

    assert left == pytest.approx(of_copies, rel=1e-9)
    np.testing.assert_allclose(weighed.centroids, copied.centroids, atol=1e-6)
    assert weighed.masses.tolist() == copied.masses.tolist()


def test_a_cluster_that_nobody_came_to_takes_a_far_point_once():
    points = np.array([[0.0], [1.0], [30.0]], np.float32)
    model = MiniBatch(np.array([[0.0], [60.0]], np.float32), **GIVEN)

    model.step(points[:2])  # nobody near 60, and 1 is the farther one
    assert model.masses.tolist() == [1.0, 1.0]
    model.step(np.array([[0.0], [0.1], [0.2]], np.float32))  # it may stay empty now

    assert model.masses.tolist() == [4.0, 1.0]


def test_an_empty_batch_changes_nothing():
    model = MiniBatch(blobs(n=4), **GIVEN)
    before = model.centroids

    assert model.step(np.empty((0, 6), np.float32)) == 0.0
    assert model.centroids.tobytes() == before.tobytes()


def test_spherical_centroids_are_unit_vectors():
    points = blobs()
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    model = MiniBatch(points[:8], **GIVEN, spherical=True)

    for batch in batches_of(points):
        model.step(batch)

    assert np.allclose(np.linalg.norm(model.centroids, axis=1), 1.0, atol=1e-6)


def test_batches_are_fitted_nearly_as_well_as_the_whole():
    points = blobs()
    left = []

    found = fit_batches(
        batches_of(points), 8, seed=0, **GIVEN, on_pass=lambda n, value: left.append((n, value))
    )

    assert found.labels.tolist() == naive.assign(points, found.centroids)[0]
    assert found.inertia == pytest.approx(found.distances_squared.sum(), rel=1e-12)
    assert found.inertia < 1.02 * fit(points, 8, seed=0, **GIVEN).inertia
    assert [n for n, _ in left] == list(range(1, found.n_iterations))
    assert found.has_converged


def test_where_rows_are_cut_does_not_change_the_start(monkeypatch):
    monkeypatch.setattr(minibatch, "MIN_SEED_POINTS", 50)
    points = blobs(n=700)
    samples = [minibatch._sample(batches_of(points, size), 50, seed=3) for size in (7, 100, 700)]

    assert {sample.tobytes() for sample in samples} == {samples[0].tobytes()}
    assert samples[0].shape == (50, 6)
    assert samples[0].tobytes() != minibatch._sample([points], 50, seed=4).tobytes()


def test_what_cannot_be_read_again_is_refused():
    points = blobs()

    with pytest.raises(ValueError, match="only once"):
        fit_batches(iter(batches_of(points)), 8, seed=0, **GIVEN)
    with pytest.raises(ValueError, match="no batches"):
        fit_batches([], 8, seed=0, **GIVEN)
    with pytest.raises(ValueError, match="no batches"):
        fit_batches([], 8, seed=0, start=points[:8], **GIVEN)


def test_fewer_distinct_points_than_clusters_is_said():
    with pytest.raises(FewerPointsError, match="8 clusters, but only 3 distinct"):
        fit_batches([np.tile(blobs(n=3), (9, 1))] * 2, 8, seed=0, **GIVEN)


def test_a_fit_of_batches_can_be_cancelled():
    answers = iter([False] * 12 + [True])

    with pytest.raises(FitCancelledError):
        fit_batches(batches_of(blobs()), 8, seed=0, **GIVEN, is_cancelled=lambda: next(answers))
