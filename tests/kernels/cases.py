"""Points and centroids that are hard to tell apart, or hard to compute with; all of them small.

The simulator of CUDA runs every thread of the device as one of Python, so it gets fewer points.
"""

from __future__ import annotations

import os

import numpy as np

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
MANY = 13 if SIMULATED else 33  # no multiple of a block


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d), np.float32)


def plain(n=MANY, d=33, k=7):
    return normal(n, d), normal(k, d, 1)


def duplicated_centroids():
    points, centroids = plain(k=3)
    return points, np.concatenate([centroids, centroids, centroids])


def points_on_centroids():
    centroids = normal(9, 33)
    return np.concatenate([centroids, centroids[::-1]]), centroids


def scaled(factor):
    points, centroids = plain()
    return points * np.float32(factor), centroids * np.float32(factor)


def far_from_zero(offset=10.0):
    points, centroids = plain()
    return points + np.float32(offset), centroids + np.float32(offset)


def heavy_tails():
    rng = np.random.default_rng(2)
    return (
        rng.standard_t(2, (MANY, 40)).astype(np.float32),
        rng.standard_t(2, (8, 40)).astype(np.float32),
    )


def near_ties():
    """Three directions, four centroids each, the last bit of one component between them."""
    points = normal(MANY, 16) + np.float32(100.0)
    centroids = np.repeat(normal(3, 16, 1) + np.float32(100.0), 4, axis=0)
    for k in range(12):
        centroids[k, k] = np.nextafter(centroids[k, k], np.float32(np.inf if k % 2 else -np.inf))
    return points, centroids


def near_ties_far_out():
    """The same around two opposite places: there is no middle to which all are near."""
    points, centroids = near_ties()
    sign = np.float32(-1.0)
    return np.concatenate([points, sign * points]), np.concatenate([centroids, sign * centroids])


def one_gap(size=1e-4):
    """Points half way between two centroids, up to a small difference."""
    rng = np.random.default_rng(3)
    centroids = normal(6, 48)
    a, b = centroids[rng.integers(0, 3, MANY)], centroids[rng.integers(3, 6, MANY)]
    lean = rng.uniform(-size, size, (MANY, 1))
    return (a + (b - a) * (0.5 + lean)).astype(np.float32), centroids


def one_huge_centroid():
    points, centroids = plain()
    centroids[2, 3] = 3e38
    return points, centroids


def huge_points():
    points, centroids = plain()
    points[5], points[6, 0] = -3e38, 1e30
    return points, centroids


CASES = {
    "plain": plain,
    "no points": lambda: plain(n=0),
    "one point": lambda: plain(n=1),
    "31 points": lambda: plain(n=31),
    "33 points": lambda: plain(n=33),
    "one cluster": lambda: plain(k=1),
    "two clusters": lambda: plain(k=2),
    "one dimension": lambda: plain(d=1),
    "32 dimensions": lambda: plain(d=32),
    "duplicated centroids": duplicated_centroids,
    "points on centroids": points_on_centroids,
    "scaled by 1e-3": lambda: scaled(1e-3),
    "scaled by 1e3": lambda: scaled(1e3),
    "scaled by 1e-30": lambda: scaled(1e-30),
    "scaled by 1e-42": lambda: scaled(1e-42),
    "scaled by 1e20": lambda: scaled(1e20),
    "scaled by 1e37": lambda: scaled(1e37),
    "offset of 10": far_from_zero,
    "offset of 1e6": lambda: far_from_zero(1e6),
    "heavy tails": heavy_tails,
    "near ties": near_ties,
    "near ties far out": near_ties_far_out,
    "gaps of 1e-4": one_gap,
    "gaps of 1e-7": lambda: one_gap(1e-7),
    "one huge centroid": one_huge_centroid,
    "huge points": huge_points,
    "all the same": lambda: (np.ones((5, 33), np.float32), np.ones((4, 33), np.float32)),
}
