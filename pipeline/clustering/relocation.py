"""Out of a local optimum: centroids that hardly help jump into clusters that need another one.

Lloyd only moves a centroid a little; it never takes one from a region that has too many to one that
has too few. A stream changes which regions those are, so a warm start inherits the mistake, and
keeps it. The idea is that of "Breathing K-Means", 2020, with utility and error as there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.clustering.kmeans import Fit
from pipeline.kernels.contract import Kernels, Points

MAX_ROUNDS = 8
MIN_GAIN = 0.0005
"""A round that saves less of the inertia is not worth its moves, and the last one."""
JUMPERS = 20
"""One centroid of so many jumps in a round, at least one."""


def improved(
    points: Points, found: Fit, *, kernels: Kernels, refit: Callable[[Points], Fit]
) -> Fit:
    """Let centroids jump and fit again, as long as it pays; ``found`` if it never does.

    It ends with an attempt that did not pay. The same attempt comes again on the same points, so
    a fit that starts from the result stays there.

    Parameters
    ----------
    points : (n_points, n_dims) float32
    refit
        Fits the points from given centroids.
    """
    n_clusters = len(found.centroids)
    n_jumpers = min(max(1, n_clusters // JUMPERS), n_clusters // 2)
    if not n_jumpers or not found.inertia:
        return found
    for _ in range(MAX_ROUNDS):
        start = _jumped(points, found, n_jumpers, kernels)
        candidate = refit(start)
        if candidate.inertia > (1.0 - MIN_GAIN) * found.inertia:
            break
        found = candidate
    return found


def _jumped(points: Points, found: Fit, n_jumpers: int, kernels: Kernels) -> Points:
    """The centroids, of which the least useful stand beside those with the largest error."""
    n_clusters = len(found.centroids)
    both = kernels.assign(kernels.load(found.centroids), points, second=True)
    assert both.second_distances_squared is not None
    extra = both.second_distances_squared - found.distances_squared
    utilities = np.bincount(found.labels, extra, n_clusters)  # what the inertia gains without it
    errors = np.bincount(found.labels, found.distances_squared, n_clusters)
    counts = np.bincount(found.labels, minlength=n_clusters)

    by_utility = np.argsort(utilities, kind="stable")
    jumpers = by_utility[:n_jumpers]
    others = np.setdiff1d(np.arange(n_clusters), jumpers)
    targets = others[np.argsort(-errors[others], kind="stable")][:n_jumpers]
    start = found.centroids.copy()
    for jumper, target in zip(jumpers.tolist(), targets.tolist(), strict=True):
        centroid = found.centroids[target].astype(np.float64)
        members = np.flatnonzero(found.labels == target)
        farthest = points[members[found.distances_squared[members].argmax()]]
        direction = farthest - centroid
        length = np.sqrt(np.square(direction).sum())
        if length == 0.0:
            continue  # all members in one point: there is nothing to divide
        spread = np.sqrt(errors[target] / counts[target])
        step = direction / length * (spread / 2.0)
        start[jumper], start[target] = centroid + step, centroid - step
    return start
