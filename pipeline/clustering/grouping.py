"""Points and their labels as a score takes them: checked, sorted, in chunks of float64.

A score is a ratio of distances. So points may be scaled and shifted first, which keeps squares
within their range and digits where they are needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.contract import Points

Floats = NDArray[np.float64]

CHUNK = 2**18  # components in float64 at a time: 2 MiB
CANCELLED = 2.0**-20  # of both squared norms; a squared distance below it has lost digits


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Points by cluster: labels renumbered as 0 to n_clusters - 1, in their order."""

    points: NDArray[Any]
    """(n_points, n_dims) finite; float32 or float64."""
    ranks: NDArray[np.intp]
    """(n_points,) the cluster of each."""
    starts: NDArray[np.int64]
    """(n_clusters + 1,) where each cluster begins when points are sorted by cluster."""
    scale: float
    """A power of two that brings components below 1."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(n_clusters,) one at least."""
        return np.diff(self.starts)

    def chunks(self) -> Iterator[tuple[slice, Floats]]:
        """All rows in float64, scaled, the first one subtracted: an offset is gone, exactly."""
        first = self.points[0].astype(np.float64) * self.scale
        for rows in self.slices():
            yield rows, self.points[rows].astype(np.float64) * self.scale - first

    def slices(self, n_wide: int = 1) -> Iterator[slice]:
        """All rows, as many at a time as fit a chunk, with ``n_wide`` numbers for each."""
        n_points, n_dims = self.points.shape
        size = max(1, CHUNK // max(n_dims, n_wide))
        for start in range(0, n_points, size):
            yield slice(start, min(start + size, n_points))

    def add(self, rows: slice, values: Floats, sums: Floats) -> None:
        """``sums`` (n_clusters, ...) plus the ``values`` of some rows, each to its cluster."""
        ranks = self.ranks[rows]
        order = np.argsort(ranks, kind="stable")
        edges = np.flatnonzero(np.diff(ranks[order], prepend=-1))
        sums[ranks[order][edges]] += np.add.reduceat(values[order], edges, axis=0)

    def sorted_points(self) -> Points:
        """(n_points, n_dims) float32, by cluster; distances as they were, times a power of two.

        Float32 as it is. From float64 the mean is subtracted before it is rounded, so that a
        large offset costs no digit.
        """
        if self.points.dtype == np.float32:
            if (np.diff(self.ranks) >= 0).all():
                return np.ascontiguousarray(self.points)
            return np.ascontiguousarray(self.points[self.order()])
        middle = sum(chunk.sum(axis=0) for _, chunk in self.chunks()) / len(self.points)
        places = np.empty(len(self.points), np.intp)
        places[self.order()] = np.arange(len(places))
        found = np.empty(self.points.shape, np.float32)
        for rows, chunk in self.chunks():
            found[places[rows]] = chunk - middle
        return found

    def order(self) -> NDArray[np.intp]:
        """(n_points,) rows by cluster, and as they were within it."""
        return np.argsort(self.ranks, kind="stable")


def grouped(points: NDArray[Any], labels: NDArray[Any]) -> Groups:
    """Points and labels, once they are fit for a score.

    Parameters
    ----------
    points : (n_points, n_dims) of real numbers
        Not modified; maybe on disk.
    labels : (n_points,) integers
        Any, also negative or with gaps.

    Raises
    ------
    ValueError
        Shapes do not match, a number is not finite, a label is not an integer, or there are
        fewer than two clusters.
    """
    points, labels = np.asanyarray(points), np.asarray(labels)
    if points.ndim != 2 or points.dtype.kind not in "fiub" or not points.shape[1]:
        raise ValueError(
            f"points are {points.dtype} of shape {points.shape}, but must be rows of real numbers"
        )
    if labels.shape != points.shape[:1]:
        raise ValueError(f"labels have shape {labels.shape}, but must be ({len(points)},)")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype}, but must be integers")
    found, ranks, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(found) < 2:
        raise ValueError(f"a score compares clusters, but there are {len(found)} of them")
    if points.dtype not in (np.float32, np.float64):
        points = points.astype(np.float32 if points.dtype == np.float16 else np.float64)
    largest = 0.0
    size = max(1, CHUNK // points.shape[1])
    for start in range(0, len(points), size):
        part = points[start : start + size]
        largest = max(largest, float(part.max()), -float(part.min()))
        if not np.isfinite(part).all():
            raise ValueError("points have a component that is NaN or infinite")
    exponent = math.frexp(largest)[1]
    return Groups(
        points,
        ranks.reshape(-1).astype(np.intp),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        math.ldexp(1.0, -max(exponent, -1000)) if largest else 1.0,
    )


def squared_distances(points: Floats, centroids: Floats) -> Floats:
    """Of each point to each centroid, by a product; where that cancels, by differences.

    Parameters
    ----------
    points : (n_points, n_dims) float64
    centroids : (n_clusters, n_dims) float64

    Returns
    -------
    (n_points, n_clusters) float64
        Good to a relative ``n_dims * 2**-31``; never below 0.
    """
    norms = np.einsum("ij,ij->i", points, points)
    centroid_norms = np.einsum("ij,ij->i", centroids, centroids)
    both = norms[:, None] + centroid_norms
    found: Floats = both - 2.0 * (points @ centroids.T)
    rows, columns = np.nonzero(found <= CANCELLED * both)
    size = max(1, CHUNK // points.shape[1])
    for start in range(0, len(rows), size):
        part, other = rows[start : start + size], columns[start : start + size]
        gaps = points[part] - centroids[other]
        found[part, other] = np.einsum("ij,ij->i", gaps, gaps)
    return found
