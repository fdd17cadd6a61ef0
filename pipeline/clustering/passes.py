"""Exact labels, pass after pass, without looking at the points that cannot have changed theirs.

Every point has two bounds in real numbers: its own centroid is at most ``upper`` away, every other
one at least ``lower``. When centroids move, the triangle inequality adds the own centroid's step to
``upper`` and takes the longest step of the others from ``lower``; while ``lower > upper`` the label
stands ("Making k-means even faster", 2010). `Assignment.gaps` gives both for nothing.

One centroid that moves far spoils that for everybody, so with many clusters those who are left are
first compared with the few centroids that moved farthest (the *movers*), and only for the rest the
longest step counts that is left: two groups of centroids, chosen anew in each pass ("Yinyang
k-means", 2015, has many that stay).

What pays was measured on 45 756 real embeddings (384 dimensions), two threads: the CPU time of all
passes of Lloyd, from greedy k-means++ to convergence, as a share of that with nothing skipped.

==================================  ==================  ==================
twin                                K = 58, 127 passes  K = 500, 45 passes
==================================  ==================  ==================
cpu: one bound                      0.40                0.68
cpu: an eighth of them first        0.43                0.49
avx512: one bound                   0.52                0.80
avx512: an eighth of them first     0.65                0.74
==================================  ==================  ==================

Groups that stay, one bound a point and group, would be models of their own that get gathered rows.
They leave fewer pairs to compare: at K = 500, of 50 groups, 9 % at pass 15 and 0.6 % at pass 40; of
8 groups, 25 % and 7 %. But a call with 10 centroids takes 4 times its share of a call with all 500
(1.4 times with 62), for its rows are read, centred and measured all the same; every row is gathered
for each of its doubtful groups; and the first pass costs 3.7 (1.4) of the plain ones. Those counts
times these times are the same as with movers up to pass 25, and less only after it, when a tenth of
the work is left. A faster product makes it worse for small calls.

Why the label is then the canonical argmin
------------------------------------------
Bounds found from canonical distances are widened by `ROUNDING`, R, relative; a canonical distance
is off by less than R / 64 (:mod:`pipeline.clustering.proofs`). Steps are rounded up by R, sums of
bounds up and down by more than their rounding, so the bounds hold in real numbers, and more: what
R adds to ``lower`` is left of it at every later pass. So ``lower > upper`` says that every other
centroid is farther by a relative R / 4 at least, hence by its canonical distance, strictly: there
is no tie to break. Bounds that fail cost a comparison and change nothing; so results do not depend
on the twin whose gaps they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.means import Gatherer
from pipeline.clustering.proofs import ROUNDING, distances_moved, largest_other
from pipeline.kernels.contract import Assignment, Kernels, Labels, Points

UP, DOWN = 1.0 + 2.0**-52, 1.0 - 2.0**-52  # more than the rounding of one sum
MIN_WORK = 2**24
"""n·K·d below which a pass over everything costs less than the bounds."""
MAX_DOUBTFUL = 0.8
"""A share of points from which on all are compared: to gather rows is not free."""
MIN_CLUSTERS_WITH_MOVERS = 256
MOVERS = 8
"""One of so many centroids is a mover."""

_Bounds = NDArray[np.float64]


class Passes:
    """The nearest centroid of each point, for centroids that move from call to call.

    Parameters
    ----------
    points : (n_points, n_dims) float32
        Not modified meanwhile, nor copied as a whole.
    """

    def __init__(self, points: Points, n_clusters: int, *, kernels: Kernels) -> None:
        self._points, self._kernels = points, kernels
        self._gatherer = Gatherer(points.shape[1])
        self._skips = points.size * n_clusters >= MIN_WORK
        self._centroids: Points | None = None
        self._labels = np.empty(0, np.int32)
        self._upper, self._lower = np.empty(0), np.empty(0)
        self.found: Assignment | None = None
        """Of the last call, where it has looked at all points."""

    def labels(self, centroids: Points) -> Labels:
        """The canonical argmin of each point; the caller keeps the array, and does not write."""
        if self._centroids is None or not self._skips:
            return self.all(centroids).labels
        steps = distances_moved(self._centroids, centroids) * (1.0 + ROUNDING)
        if not steps.any():
            self._centroids = centroids
            return self._labels
        upper = (self._upper + steps[self._labels]) * UP
        lower = (self._lower - largest_other(steps)[self._labels]) * DOWN
        doubtful = np.flatnonzero(lower <= upper)
        if len(doubtful) > MAX_DOUBTFUL * len(self._points):
            return self.all(centroids).labels
        before = self._lower[doubtful]
        self.found, self._centroids = None, centroids
        self._labels, self._upper, self._lower = self._labels.copy(), upper, lower
        if len(centroids) >= MIN_CLUSTERS_WITH_MOVERS:
            doubtful = self._by_movers(doubtful, before, steps)
        if len(doubtful):
            self._compare(doubtful)
        return self._labels

    def all(self, centroids: Points) -> Assignment:
        """Everything about each point; nothing is skipped, unless it was done just before."""
        if self.found is not None and centroids is self._centroids:
            return self.found
        found = self._kernels.assign(self._kernels.load(centroids), self._points)
        self.found, self._centroids, self._labels = found, centroids, found.labels
        if self._skips:
            self._upper, self._lower = _bounds(found)
        return found

    def _by_movers(
        self, doubtful: NDArray[np.intp], before: _Bounds, steps: _Bounds
    ) -> NDArray[np.intp]:
        """Compare with the movers those for whom this may be enough; which are left to compare?

        ``before`` are the lower bounds (n_doubtful,) before these steps.
        """
        assert self._centroids is not None
        n_movers = len(steps) // MOVERS
        order = np.argsort(-steps, kind="stable")
        movers = np.sort(order[:n_movers])  # as among all, the lower label wins a tie
        lower = (before - steps[order[n_movers]]) * DOWN
        may_be_enough = lower > self._upper[doubtful]
        left = [doubtful[~may_be_enough]]
        candidates, lower = doubtful[may_be_enough], lower[may_be_enough]
        is_mover = np.zeros(len(steps), np.bool_)
        is_mover[movers] = True
        model = self._kernels.load(self._centroids[movers])
        n_done = 0
        for rows, points in self._gatherer.blocks(self._points, candidates):
            found = self._kernels.assign(model, points)
            own = self._labels[rows]
            upper, second = _bounds(found)
            # whoever's centroid is a mover knows the two nearest of them; the others keep their
            # centroid, if the nearest mover is farther
            knows = is_mover[own]
            labels = np.where(knows, movers[found.labels], own).astype(np.int32)
            nearest = np.sqrt(found.distances_squared) * (1.0 - ROUNDING)
            slow = lower[n_done : n_done + len(rows)]
            n_done += len(rows)
            bound = np.minimum(slow, np.where(knows, second, nearest))
            upper = np.where(knows, upper, self._upper[rows])
            is_proven = bound > upper
            proven = rows[is_proven]
            self._labels[proven] = labels[is_proven]
            self._upper[proven], self._lower[proven] = upper[is_proven], bound[is_proven]
            left.append(rows[~is_proven])
        return np.sort(np.concatenate(left))

    def _compare(self, doubtful: NDArray[np.intp]) -> None:
        """With all centroids."""
        assert self._centroids is not None
        model = self._kernels.load(self._centroids)
        for rows, points in self._gatherer.blocks(self._points, doubtful):
            found = self._kernels.assign(model, points)
            self._labels[rows] = found.labels
            self._upper[rows], self._lower[rows] = _bounds(found)


def _bounds(found: Assignment) -> tuple[_Bounds, _Bounds]:
    upper = np.sqrt(found.distances_squared) * (1.0 + ROUNDING)
    lower = np.sqrt(found.distances_squared + found.gaps) * (1.0 - ROUNDING)
    return upper, lower
