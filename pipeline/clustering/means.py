"""The statistics of a fit: what its clusters hold, in integers, and the means of that.

Rows come through in blocks, so that a matrix may be a file that no memory holds; and more rows
than one `Sums` may take are summed in parts, each with integers of its own, which are only added
when a mean is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.seeding import total
from pipeline.kernels.contract import WEIGHT_UNIT, Kernels, Labels, Points, Sums, Weights

MAX_PART = 2**23 - 1  # rows; the sums of more may not fit their integers
BLOCK_BYTES = 2**22
"""Of rows gathered at once: fewer wake the threads more often than the copy takes, more leave the
caches. A fit of 45 756 x 384 took 1.3 times as long with 2**20, 1.1 times with 2**24."""


class Tally:
    """Which points are in which cluster, as sums.

    Parameters
    ----------
    points : (n_points, n_dims) float32
        Read only, and never copied as a whole.
    weights : (n_points,) float64, optional
    """

    def __init__(
        self,
        points: Points,
        n_clusters: int,
        *,
        kernels: Kernels,
        max_component: float,
        weights: Weights | None = None,
    ) -> None:
        self._points, self._weights, self._kernels = points, weights, kernels
        self._gatherer = Gatherer(points.shape[1])
        self._parts = [
            Sums.zeros(
                n_clusters,
                points.shape[1],
                max_component=max_component,
                is_weighted=weights is not None,
            )
            for _ in range(max(1, -(-len(points) // MAX_PART)))
        ]

    def move(self, before: Labels, after: Labels) -> int:
        """Take the points whose label has changed out where they were, and in where they are.

        A label of -1 is no cluster. Returns how many have changed.
        """
        n_changed = 0
        for number, sums in enumerate(self._parts):
            part = slice(number * MAX_PART, (number + 1) * MAX_PART)
            was, now, weights = before[part], after[part], None
            if self._weights is not None:
                weights = self._weights[part]
            changed = np.flatnonzero(was != now)
            n_changed += len(changed)
            for taken, rows in self._gatherer.blocks(self._points[part], changed):
                heaviness = None if weights is None else weights[taken]
                self._kernels.accumulate(
                    sums,
                    rows,
                    was[taken],
                    rows,
                    now[taken],
                    old_weights=heaviness,
                    new_weights=heaviness,
                )
        return n_changed

    def means(self, before: Points, *, spherical: bool) -> Points:
        """Where the members' means are; ``before`` where there is none."""
        divisors = self.masses()
        has_mean = divisors > 0.0
        means = self.sums() / np.where(has_mean, divisors, 1.0)[:, None]
        if spherical:
            lengths = np.sqrt(np.add.accumulate(np.square(means), axis=1)[:, -1])
            has_mean &= lengths > 0.0
            means /= np.where(lengths > 0.0, lengths, 1.0)[:, None]
        return np.where(has_mean[:, None], means.astype(np.float32), before)

    def mean_variance(self) -> float:
        """Of a component of all points that are in a cluster.

        The integers add up exactly; the difference of two floats that is left cancels no more
        digits than float32 components have.
        """
        parts = [sums.sums.sum(axis=0, keepdims=True) for sums in self._parts]
        divisor = total(self.masses())
        means = _folded(parts)[0] * self._parts[0].unit / divisor
        squares = total(self._squares()) / divisor
        return max(0.0, squares - total(np.square(means))) / len(means)

    def inertia(self, centroids: Points) -> float:
        """Of the points in their clusters, around these centroids; no point is read.

        It is off by a rounding of the squared norms, so it tells how a fit goes, and decides
        nothing.
        """
        places = centroids.astype(np.float64)
        shifts = 2.0 * self.sums() - self.masses()[:, None] * places
        return max(0.0, float(self._squares().sum() - np.vdot(places, shifts)))

    def sums(self) -> NDArray[np.float64]:
        """(n_clusters, n_dims) of the members, each times its weight."""
        return _folded([sums.sums for sums in self._parts]) * self._parts[0].unit

    def _squares(self) -> NDArray[np.float64]:
        high, low = (
            np.stack([sums.squares for sums in self._parts]).sum(axis=0).T.astype(np.float64)
        )
        squares: NDArray[np.float64] = (high * 2.0**32 + low) * self._parts[0].square_unit
        return squares

    def masses(self) -> NDArray[np.float64]:
        """(n_clusters,) how many members there are, or how much they weigh."""
        if self._weights is None:
            return _folded([sums.counts for sums in self._parts])
        weights = [sums.weights for sums in self._parts if sums.weights is not None]
        return _folded(weights) * WEIGHT_UNIT


class Gatherer:
    """Some rows of a matrix at a time, in one buffer, which is as warm as it can be."""

    def __init__(self, n_dims: int) -> None:
        self._n_block = max(1, BLOCK_BYTES // (4 * n_dims))
        self._buffer = np.empty((0, n_dims), np.float32)

    def blocks(
        self, points: Points, rows: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.intp], Points]]:
        """The numbers of some rows, and the points, which stay until the next block is asked for.

        All rows are nothing to gather: they come as they stand, in one.
        """
        if len(rows) == len(points):
            if len(rows):
                yield rows, points
            return
        if len(self._buffer) < min(len(rows), self._n_block):
            n_rows = min(len(points), self._n_block)
            self._buffer = np.empty((n_rows, points.shape[1]), np.float32)
        for start in range(0, len(rows), self._n_block):
            taken = rows[start : start + self._n_block]
            gathered = self._buffer[: len(taken)]
            np.take(points, taken, axis=0, out=gathered, mode="clip")  # other modes copy it first
            yield taken, gathered


def _folded(parts: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Their sum, rounded once: of high and low 32 bits apart, as int64 may not hold it."""
    if len(parts) == 1:
        return parts[0].astype(np.float64)
    high = np.zeros(parts[0].shape, np.int64)
    low = np.zeros(parts[0].shape, np.int64)
    for part in parts:
        high += part >> 32
        low += part & (2**32 - 1)
    folded: NDArray[np.float64] = high.astype(np.float64) * 2.0**32 + low
    return folded
