"""What is right: canonical distances to all centroids, one after the other, and nothing clever.

Shares nothing with the kernels: plain loops over the definition (`pipeline.kernels.contract`),
which are compared with the same definition in NumPy before they are believed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from pipeline.kernels.contract import Points

LANES = 32


class Truth(NamedTuple):
    """Of each point."""

    labels: NDArray[np.int32]
    distances_squared: NDArray[np.float64]
    second_labels: NDArray[np.int32]
    second_distances_squared: NDArray[np.float64]
    margins: NDArray[np.float64]
    """Distance to the border of the cell, as float64 computes it; +inf where there is no border."""
    slacks: NDArray[np.float64]
    """How far float64 may be off there."""


def nearest(points: Points, centroids: Points, *, margin: bool = False) -> Truth:
    """Compare every point with every centroid; borders only where ``margin`` asks for them."""
    n = len(points)
    truth = Truth(
        np.empty(n, np.int32), np.empty(n), np.empty(n, np.int32), np.empty(n),
        np.full(n, np.inf), np.zeros(n),
    )  # fmt: skip
    between = np.zeros((1, 1))
    if margin:
        between = np.sqrt(_between(np.ascontiguousarray(centroids)))
    _nearest(np.ascontiguousarray(points), np.ascontiguousarray(centroids), between, *truth)
    return truth


def canonical(rows: Points, other: Points) -> NDArray[np.float64]:
    """(n,) canonical squared distances of rows (n, d) to one row (d,), in NumPy."""
    n, n_dims = rows.shape
    squares = np.zeros((n, -(-n_dims // LANES) * LANES))
    squares[:, :n_dims] = np.square(rows.astype(np.float64) - other.astype(np.float64))
    sums = np.zeros((n, LANES))
    for start in range(0, squares.shape[1], LANES):
        sums = sums + squares[:, start : start + LANES]
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return sums[:, 0]


def check_itself(n_dims: int) -> None:
    """The compiled loop gives the bits of the definition in NumPy."""
    rng = np.random.default_rng(n_dims)
    points = rng.standard_normal((20, n_dims)).astype(np.float32)
    centroids = rng.standard_normal((7, n_dims)).astype(np.float32)
    distances = np.stack([canonical(points, c) for c in centroids], axis=1)
    truth = nearest(points, centroids)
    assert (truth.labels == distances.argmin(axis=1)).all()
    assert (truth.distances_squared == distances.min(axis=1)).all()
    assert (truth.second_distances_squared == np.sort(distances, axis=1)[:, 1]).all()


@njit(nogil=True, cache=True)
def _canonical(x, c, lanes):
    n_dims = x.size
    n_whole = n_dims // 32 * 32
    for lane in range(32):
        lanes[lane] = 0.0
    for start in range(0, n_whole, 32):
        for lane in range(32):
            gap = np.float64(x[start + lane]) - np.float64(c[start + lane])
            lanes[lane] += gap * gap
    for lane in range(n_dims - n_whole):
        gap = np.float64(x[n_whole + lane]) - np.float64(c[n_whole + lane])
        lanes[lane] += gap * gap
    width = 16
    while width > 0:
        for lane in range(width):
            lanes[lane] += lanes[lane + width]
        width //= 2
    return lanes[0]


@njit(nogil=True, parallel=True, cache=True)
def _between(centroids):
    """(K, K) canonical squared distances of rows (K, d)."""
    n_clusters = len(centroids)
    found = np.empty((n_clusters, n_clusters))
    for i in prange(n_clusters):
        lanes = np.empty(32)
        for k in range(n_clusters):
            found[i, k] = _canonical(centroids[i], centroids[k], lanes)
    return found


@njit(nogil=True, parallel=True, cache=True)
def _nearest(
    points,  #            IN   (n, d)  float32
    centroids,  #         IN   (K, d)  float32
    between,  #           IN   (K, K)  float64, or (1, 1): no borders are wanted
    labels,  #            OUT  (n,)    int32
    distances,  #         OUT  (n,)    float64
    second_labels,  #     OUT  (n,)    int32
    second_distances,  #  OUT  (n,)    float64
    margins,  #           OUT  (n,)    float64
    slacks,  #            OUT  (n,)    float64
):
    n_clusters = len(centroids)
    for i in prange(len(points)):
        lanes = np.empty(32)
        all_distances = np.empty(n_clusters)
        best, second, label, second_label = np.inf, np.inf, -1, -1
        for k in range(n_clusters):
            distance = _canonical(points[i], centroids[k], lanes)
            all_distances[k] = distance
            if distance < best:
                second, second_label = best, label
                best, label = distance, k
            elif distance < second:
                second, second_label = distance, k
        labels[i], distances[i] = label, best
        second_labels[i], second_distances[i] = second_label, second
        if len(between) == n_clusters and n_clusters > 1:
            for k in range(n_clusters):
                apart = between[label, k]
                if k == label or apart == 0.0:  # of two equal centroids the lower label has all
                    continue
                margin = (all_distances[k] - best) / (2.0 * apart)
                if margin < margins[i]:
                    margins[i] = margin
                    rounding = (points.shape[1] + 16) * 2.0**-52
                    slacks[i] = rounding * ((all_distances[k] + best) / (2.0 * apart) + margin)
