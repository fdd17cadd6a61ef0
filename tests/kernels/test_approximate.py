"""Approximate labels say how often they are right, and exist only where faiss does."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.kernels import approximate
from pipeline.kernels.approximate import ApproximateModel, least_effort, library
from pipeline.kernels.cpu.twin import CpuKernels

KERNELS = CpuKernels()
KINDS = pytest.mark.parametrize("kind", ["hnsw", "ivf"])


def scene(n_clusters=1500, n_points=400, d=12, seed=0):
    rng = np.random.default_rng(seed)
    centroids = rng.standard_normal((n_clusters, d)).astype(np.float32)
    return centroids, rng.standard_normal((n_points, d)).astype(np.float32)


def test_without_faiss_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    library.cache_clear()

    with pytest.raises(ConfigError, match=r"pip install 'eddy-stream\[search\]'"):
        ApproximateModel.of(scene()[0])


class TestWithFaiss:
    @pytest.fixture(autouse=True)
    def has_faiss(self):
        library.cache_clear()
        pytest.importorskip("faiss", reason="the extra search is not installed")

    @KINDS
    def test_recall_is_the_share_of_exact_labels(self, kind):
        centroids, points = scene()
        model = ApproximateModel.of(centroids, kind=kind, effort=4)

        labels = model.labels(points)

        exact = KERNELS.assign(KERNELS.load(centroids), points).labels
        assert labels.dtype == np.int32
        assert model.recall(points, KERNELS) == np.mean(labels == exact)
        assert 0.1 < model.recall(points, KERNELS) < 1.0
        assert model.labels(points[:0]).shape == (0,)
        assert model.recall(points[:0], KERNELS) == 1.0

    @KINDS
    def test_more_effort_is_right_more_often(self, kind):
        centroids, points = scene()

        low, high = (
            ApproximateModel.of(centroids, kind=kind, effort=effort).recall(points, KERNELS)
            for effort in (1, 256)
        )

        assert low < high
        assert high > 0.97

    @KINDS
    def test_the_least_effort_that_is_enough_is_found(self, kind):
        centroids, points = scene()
        model = ApproximateModel.of(centroids, kind=kind)

        tried = least_effort(model, points, KERNELS, min_recall=0.9)

        assert tried.recall >= 0.9
        assert model.recall(points, KERNELS) == tried.recall
        best = least_effort(model, points, KERNELS, min_recall=1.1, efforts=(1, 8))
        assert best.effort == 8  # the last, as none is enough

    @KINDS
    def test_few_centroids_are_no_problem(self, kind):
        points = scene()[1]

        for n_clusters in 1, 3:
            model = ApproximateModel.of(points[:n_clusters], kind=kind)
            assert model.recall(points, KERNELS) == 1.0

    def test_what_makes_no_sense_is_refused(self):
        with pytest.raises(ValueError, match="effort is 0"):
            ApproximateModel.of(scene()[0], effort=0)
        with pytest.raises(ValueError, match="kind is 'flat'"):
            ApproximateModel.of(scene()[0], kind="flat")

    def test_training_returns_what_the_inertia_was(self):
        points = scene(n_points=900)[1]

        found = approximate.train(points, 7, seed=0, max_iterations=9)

        assert found.centroids.shape == (7, 12)
        assert found.centroids.dtype == np.float32
        assert len(found.inertias) == 9
        assert (np.diff(found.inertias) <= 0.0).all()
