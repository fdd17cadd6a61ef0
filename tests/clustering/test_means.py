"""Statistics in parts are those of the whole, and rows are gathered a block at a time."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.clustering import means
from pipeline.clustering.means import Gatherer, Tally
from pipeline.kernels.cpu.twin import CpuKernels

KERNELS = CpuKernels()


def cloud(n=300, d=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def tally(points, weights=None, n_clusters=4):
    return Tally(points, n_clusters, kernels=KERNELS, max_component=8.0, weights=weights)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_parts_add_up_to_the_same_bytes(monkeypatch, is_weighted):
    points, rng = cloud(), np.random.default_rng(1)
    weights = rng.uniform(0.01, 256.0, len(points)) if is_weighted else None
    nowhere = np.full(len(points), -1, np.int32)
    first, second = (rng.integers(-1, 4, len(points)).astype(np.int32) for _ in range(2))
    before = cloud(4)

    told = []
    for max_part in (10**6, 64):
        monkeypatch.setattr(means, "MAX_PART", max_part)
        one = tally(points, weights)
        one.move(nowhere, first)
        assert one.move(first, second) == np.count_nonzero(first != second)
        told.append(
            (
                one.means(before, spherical=False).tobytes(),
                one.means(before, spherical=True).tobytes(),
                one.mean_variance(),
                one.inertia(before),
                one.masses().tobytes(),
            )
        )

    assert told[0] == told[1]


def test_what_is_told_is_true():
    points = cloud(n=500) + np.float32(3.0)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, len(points))
    labels = (np.arange(500) % 4).astype(np.int32)
    one = tally(points, weights)
    centroids = cloud(4)

    one.move(np.full(500, -1, np.int32), labels)

    exact = points.astype(np.float64)
    mean = np.average(exact, axis=0, weights=weights)
    variance = np.average((exact - mean) ** 2, axis=0, weights=weights).mean()
    assert one.mean_variance() == pytest.approx(variance, rel=1e-8)
    inertia = (weights[:, None] * (exact - centroids[labels]) ** 2).sum()
    assert one.inertia(centroids) == pytest.approx(inertia, rel=1e-8)
    for k, place in enumerate(one.means(centroids, spherical=False)):
        mine = labels == k
        expected = np.average(exact[mine], axis=0, weights=weights[mine])
        np.testing.assert_allclose(place, expected, rtol=1e-6, atol=1e-6)


def test_equal_points_have_no_variance():
    points = np.full((100, 3), 0.1, np.float32)
    one = tally(points)

    one.move(np.full(100, -1, np.int32), np.zeros(100, np.int32))

    assert one.mean_variance() == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("n_rows", [0, 1, 7, 99, 100])
def test_rows_come_in_blocks(monkeypatch, n_rows):
    monkeypatch.setattr(means, "BLOCK_BYTES", 4 * 5 * 10)
    points = cloud(n=100)
    rows = np.sort(np.random.default_rng(0).permutation(100)[:n_rows])

    seen = [(taken.copy(), gathered.copy()) for taken, gathered in Gatherer(5).blocks(points, rows)]

    assert [row for taken, _ in seen for row in taken] == rows.tolist()
    for taken, gathered in seen:
        assert gathered.tobytes() == points[taken].tobytes()
        assert len(taken) <= 10 or n_rows == 100
