"""What a fit leaves: centroids in a frame, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.estimator.arrays import Frame, Rows, blocks
from pipeline.kernels.contract import Kernels, Labels, Points, Weights

CANCELLED = 1e-6  # a squared distance so small beside its terms has lost digits in a product


class Model:
    """Centroids, and the coordinates in which they and all rows are kept.

    Parameters
    ----------
    centroids : (n_clusters, n_dims) float32
        In the frame; not modified.
    masses : (n_clusters,) float64
        How many rows each was made of, or how much they weighed: what a later batch has to move.
    means : (n_clusters, n_dims) float64, optional
        The centroids before they were rounded, where batches have made them.
    """

    __slots__ = ("_loaded", "centroids", "frame", "masses", "means")

    def __init__(
        self,
        frame: Frame,
        centroids: Points,
        masses: NDArray[np.float64],
        means: NDArray[np.float64] | None = None,
    ) -> None:
        self.frame = frame
        self.centroids = centroids
        self.masses = masses
        self.means = means
        self._loaded: tuple[Kernels, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave behind what belongs to this process."""
        return Model, (self.frame, self.centroids, self.masses, self.means)

    def nearest(
        self, rows: Rows, kernels: Kernels, weights: Weights | None = None
    ) -> tuple[Labels, float]:
        """The nearest centroid of each row, and the inertia: (n_rows,) int32, and their sum."""
        labels, total, loaded = np.empty(len(rows), np.int32), 0.0, self._load(kernels)
        for part, points in self._parts(rows):
            found = kernels.assign(loaded, points)
            labels[part] = found.labels
            squared = found.distances_squared
            total += float(squared.sum() if weights is None else squared @ weights[part])
        return labels, total

    def distances(self, rows: Rows) -> NDArray[np.float64]:
        """(n_rows, n_clusters): one product in float64; what loses digits in it is done anew."""
        centroids = self.centroids.astype(np.float64)
        middle = centroids.mean(axis=0)
        centroids -= middle
        squares = np.square(centroids).sum(axis=1)
        distances = np.empty((len(rows), len(centroids)))
        for part in blocks(rows, max(centroids.shape)):
            points = self.frame.kept(rows[part]) - middle
            terms = np.square(points).sum(axis=1)[:, None] + squares
            squared = terms - 2.0 * (points @ centroids.T)
            pairs = np.argwhere(squared < CANCELLED * terms)
            for some in blocks(pairs, rows.shape[1]):
                i, k = pairs[some].T
                squared[i, k] = np.square(points[i] - centroids[k]).sum(axis=1)
            distances[part] = np.sqrt(squared)
        return distances

    def _load(self, kernels: Kernels) -> Any:
        """The centroids as the kernels take them: once, and again for others (after a fork)."""
        loaded = self._loaded
        if loaded is None or loaded[0] is not kernels:
            loaded = self._loaded = kernels, kernels.load(self.centroids)
        return loaded[1]

    def _parts(self, rows: Rows) -> Iterator[tuple[slice, Points]]:
        """Rows in the frame: all at once if they are so already, else in blocks."""
        is_kept = self.frame.offset is None and rows.dtype == np.float32
        if is_kept and rows.flags.c_contiguous:
            yield slice(0, len(rows)), self.frame.kept(rows)
            return
        for part in blocks(rows):
            yield part, self.frame.kept(rows[part])
