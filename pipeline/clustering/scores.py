"""Scores that need means and no pairs of points: Davies-Bouldin and Calinski-Harabasz.

All in float64 and in chunks: no copy of all points, and no array with a side for points and
another for clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.grouping import CHUNK, Floats, Groups, grouped, squared_distances


def davies_bouldin(points: NDArray[Any], labels: NDArray[Any]) -> float:
    """How much a cluster is like the one it is most like, on average; 0 or more, lower is better.

    Alike are two whose members are far from their mean, compared with the distance of the means.

    Parameters
    ----------
    points : (n_points, n_dims) of real numbers
        Finite; not modified.
    labels : (n_points,) integers
        Any, also negative or with gaps.

    Raises
    ------
    ValueError
        Fewer than two clusters, as many as points, or arrays that are no points and labels.

    Notes
    -----
    "A cluster separation measure", 1979: the mean over i of ``max_j (s_i + s_j) / d(m_i, m_j)``
    with s the mean distance to the mean m. Two clusters whose means coincide are not compared,
    as in scikit-learn. Unlike there, a tiny unit does not make it 0.
    """
    groups = _grouped(points, labels)
    means = _means(groups)
    spreads = np.zeros(len(means))
    for rows, chunk in groups.chunks():
        groups.add(rows, np.sqrt(_squares(groups, rows, chunk, means)), spreads)
    spreads /= groups.sizes
    means = means - means.mean(axis=0)
    total = 0.0
    size = max(1, CHUNK // len(means))
    for start in range(0, len(means), size):
        distances = np.sqrt(squared_distances(means[start : start + size], means))
        own = np.arange(len(distances))
        distances[own, start + own] = 0.0
        likeness = spreads[start : start + size, None] + spreads
        there = distances > 0.0
        np.divide(likeness, distances, out=likeness, where=there)
        total += float(np.where(there, likeness, 0.0).max(axis=1).sum())
    return total / len(means)


def calinski_harabasz(points: NDArray[Any], labels: NDArray[Any]) -> float:
    """Variance between the clusters over that within them; higher is better.

    Parameters and errors are those of `davies_bouldin`.

    Notes
    -----
    "A dendrite method for cluster analysis", 1974: ``(B / (K - 1)) / (W / (n - K))``. Where
    every point lies on the mean of its cluster it is 1, as in scikit-learn.
    """
    groups = _grouped(points, labels)
    means = _means(groups)
    sizes = groups.sizes
    n_points, n_clusters = len(groups.points), len(means)
    within = 0.0
    for rows, chunk in groups.chunks():
        within += float(_squares(groups, rows, chunk, means).sum())
    gaps = means - (sizes @ means) / n_points
    between = float(sizes @ np.einsum("ij,ij->i", gaps, gaps))
    if within == 0.0:
        return 1.0
    return between * (n_points - n_clusters) / (within * (n_clusters - 1))


def _grouped(points: NDArray[Any], labels: NDArray[Any]) -> Groups:
    groups = grouped(points, labels)
    if len(groups.sizes) == len(groups.points):
        raise ValueError(
            f"{len(groups.points)} points, and each is a cluster: there is nothing within one"
        )
    return groups


def _means(groups: Groups) -> Floats:
    """(n_clusters, n_dims) of the rows as `Groups.chunks` gives them."""
    sums = np.zeros((len(groups.sizes), groups.points.shape[1]))
    for rows, chunk in groups.chunks():
        groups.add(rows, chunk, sums)
    found: Floats = sums / groups.sizes[:, None]
    return found


def _squares(groups: Groups, rows: slice, chunk: Floats, means: Floats) -> Floats:
    """(n_rows,) squared distances of some rows to the means of their clusters."""
    gaps = chunk - means[groups.ranks[rows]]
    found: Floats = np.einsum("ij,ij->i", gaps, gaps)
    return found
