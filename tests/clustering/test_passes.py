"""What is skipped changes no label: a fit equals, bit for bit, one that skips nothing."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clustering import passes
from pipeline.clustering.kmeans import fit
from pipeline.clustering.passes import Passes
from pipeline.kernels.cpu.twin import CpuKernels
from tests import naive

KERNELS = CpuKernels()
EVERYONE = 2**62


class Watched(CpuKernels):
    """A twin whose gaps are looser, or wrong, and that counts the points it is asked about."""

    def __init__(self, factor=1.0):
        super().__init__(threads=1)
        self.factor, self.n_asked = factor, 0

    def assign(self, model, points, **asked):
        self.n_asked += len(points)
        found = super().assign(model, points, **asked)
        with np.errstate(invalid="ignore"):  # an infinite gap, loosened to nothing
            return found._replace(gaps=np.nan_to_num(found.gaps * np.float32(self.factor)))


@pytest.fixture(autouse=True)
def skip_small_ones_too(monkeypatch):
    monkeypatch.setattr(passes, "MIN_WORK", 0)
    monkeypatch.setattr(passes, "MAX_DOUBTFUL", 1.0)
    monkeypatch.setattr(passes, "MIN_CLUSTERS_WITH_MOVERS", 8)
    monkeypatch.setattr("pipeline.clustering.means.BLOCK_BYTES", 2**11)


def cloud(n=400, d=6, seed=0, n_places=25):
    rng = np.random.default_rng(seed)
    places = rng.standard_normal((n_places, d)) * 2
    return (places[np.arange(n) % n_places] + rng.standard_normal((n, d))).astype(np.float32)


def on_sphere(points):
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def plain_lloyd(points, centroids, max_component, weights=None, spherical=False):
    """To the fixed point, with nothing skipped, and sums of whole numbers by hand."""
    unit = max_component * 2.0**-40 * (1 if weights is None else 256)
    heaviness = np.ones(len(points)) if weights is None else weights
    items = np.rint(points * heaviness[:, None] / unit).astype(np.int64)
    masses = np.rint(heaviness * 2.0**31).astype(np.int64)
    labels, n_passes = None, 0
    while True:
        n_passes += 1
        found = KERNELS.assign(KERNELS.load(centroids), points)
        counts = np.bincount(found.labels, minlength=len(centroids))
        assert counts.all(), "this test is not about empty clusters"
        if labels is not None and (found.labels == labels).all():
            return centroids, found, n_passes
        labels, before = found.labels, centroids
        means = np.empty(centroids.shape)
        for k in range(len(centroids)):
            mass = masses[labels == k].sum() * 2.0**-31
            means[k] = items[labels == k].sum(axis=0) * unit / mass
        if spherical:
            means /= np.array([[math.sqrt(sequential(row * row))] for row in means])
        centroids = means.astype(np.float32)
        if (centroids == before).all():
            return centroids, found, n_passes


def sequential(values):
    left = 0.0
    for value in values.tolist():
        left += value
    return left


@pytest.mark.parametrize("n_clusters", [3, 40])
@pytest.mark.parametrize("kind", ["plain", "weights", "spherical", "copies"])
def test_a_fit_equals_plain_lloyd_bit_for_bit(kind, n_clusters):
    points, weights = cloud(), None
    if kind == "weights":
        weights = np.random.default_rng(1).uniform(0.01, 200.0, len(points))
    if kind == "spherical":
        points = on_sphere(points)
    if kind == "copies":
        points = np.repeat(np.round(cloud(n=100)), 4, axis=0)  # ties all over
    start = np.unique(points, axis=0)[: 2 * n_clusters : 2].copy()
    is_spherical = kind == "spherical"

    centroids, found, n_passes = plain_lloyd(points, start, 16.0, weights, is_spherical)
    for factor in 1.0, 0.3, 0.0:
        ours = fit(
            points,
            n_clusters,
            kernels=Watched(factor),
            seed=0,
            max_component=16.0,
            start=start,
            weights=weights,
            tol=0.0,
            spherical=is_spherical,
        )
        assert ours.centroids.tobytes() == centroids.tobytes()
        assert ours.labels.tobytes() == found.labels.tobytes()
        assert ours.distances_squared.tobytes() == found.distances_squared.tobytes()
        assert ours.n_iterations == n_passes


def test_points_that_cannot_change_are_not_asked_about():
    points = cloud(n=1000)
    start = points[:40].copy()

    watched, plain = Watched(), Watched(factor=0.0)
    for twin in watched, plain:
        fit(points, 40, kernels=twin, seed=0, max_component=16.0, start=start, tol=0.0)

    assert watched.n_asked < 0.8 * plain.n_asked


def test_gaps_that_are_too_high_would_be_noticed():
    points = cloud(n=1000)
    given = {"seed": 0, "max_component": 16.0, "start": points[:40].copy(), "tol": 0.0}

    right = fit(points, 40, kernels=KERNELS, **given)
    wrong = fit(points, 40, kernels=Watched(factor=50.0), **given)

    assert right.centroids.tobytes() != wrong.centroids.tobytes()


def test_empty_clusters_are_relocated_as_if_nothing_were_skipped(monkeypatch):
    points = cloud(n=500)
    start = np.concatenate([points[:20], 90.0 + points[:6]])  # nobody is near to the last ones
    given = {"seed": 0, "max_component": 128.0, "start": start, "tol": 0.0}

    skipping = fit(points, 26, kernels=KERNELS, **given)
    monkeypatch.setattr(passes, "MIN_WORK", EVERYONE)
    plain = fit(points, 26, kernels=KERNELS, **given)

    assert np.bincount(plain.labels, minlength=26).all()
    assert skipping.centroids.tobytes() == plain.centroids.tobytes()
    assert skipping.labels.tobytes() == plain.labels.tobytes()
    assert skipping.n_iterations == plain.n_iterations


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_clusters=st.sampled_from([1, 2, 9, 33]),
    scale=st.sampled_from([0.0, 1e-6, 0.01, 0.3, 3.0]),
    n_far=st.integers(0, 3),
)
def test_labels_are_the_argmin_wherever_centroids_go(seed, n_clusters, scale, n_far):
    rng = np.random.default_rng(seed)
    points = np.round(cloud(n=30, d=3, seed=seed), 1)
    centroids = points[rng.integers(0, 30, n_clusters)]
    walk = Passes(points, n_clusters, kernels=KERNELS)

    for step in range(4):
        labels = walk.labels(centroids)
        if step % 2:
            assert walk.all(centroids).labels.tolist() == labels.tolist()
        assert labels.tolist() == naive.assign(points, centroids)[0]
        centroids = centroids + np.float32(scale) * rng.standard_normal(centroids.shape).astype(
            np.float32
        )
        centroids[rng.integers(0, n_clusters, n_far)] += np.float32(2.0)


def test_no_more_is_held_than_the_numbers_of_each_row(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "points.npy", rng.standard_normal((30_000, 128)).astype(np.float32))
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    monkeypatch.setattr("pipeline.clustering.seeding.MIN_SEED_POINTS", 500)

    tracemalloc.start()
    found = fit(mapped, 9, kernels=KERNELS, seed=1, max_component=16.0, max_iterations=3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found.n_iterations == 4
    assert peak < 100 * len(mapped) + 2**19  # a row has 512 bytes


def test_a_file_is_fitted_block_by_block_with_the_same_bytes(tmp_path, monkeypatch):
    points = cloud(n=900)
    np.save(tmp_path / "points.npy", points)
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    monkeypatch.setattr("pipeline.clustering.means.MAX_PART", 128)
    monkeypatch.setattr("pipeline.clustering.seeding.BLOCK_ROWS", 100)

    parts = [fit(mapped, 20, kernels=KERNELS, seed=1, max_component=16.0, init="k-means||")]
    monkeypatch.setattr("pipeline.clustering.means.MAX_PART", EVERYONE)
    parts.append(fit(points, 20, kernels=KERNELS, seed=1, max_component=16.0, init="k-means||"))

    assert parts[0].centroids.tobytes() == parts[1].centroids.tobytes()
    assert parts[0].labels.tobytes() == parts[1].labels.tobytes()
    assert parts[0].inertia == parts[1].inertia
