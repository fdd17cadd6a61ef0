"""Silhouettes: how much nearer a point is to its own cluster than to the next one.

"Silhouettes: a graphical aid to the interpretation and validation of cluster analysis", 1987:
``(b - a) / max(a, b)`` with a the mean distance to the *other* members of the own cluster, b the
least mean distance to the members of another. A point that is alone in its cluster has 0, and so
has one whom nothing tells apart; with a single cluster there is none. Distances are plain ones.
Exact takes O(n² n_dims) time and O(n) memory beside the points; a sample of the points, each
against all others, estimates the mean in less, and says how well.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.grouping import Floats, Groups, grouped, squared_distances
from pipeline.clustering.quality import simplified_silhouette
from pipeline.kernels.contract import Kernels, Points, Separation

SAME = 2.0**-98  # 1 - cos; directions are rounded to some 2**-52, whose square this is above
Metric = Literal["euclidean", "cosine"]


class Estimate(NamedTuple):
    """A mean of all points, known from some of them."""

    value: float
    """Unbiased."""
    low: float
    high: float
    confidence: float
    """How often an interval drawn like this has the mean in it, for samples that are not tiny."""


def silhouette_samples(
    points: NDArray[Any],
    labels: NDArray[Any],
    *,
    kernels: Kernels,
    metric: Metric = "euclidean",
) -> Floats:
    """The silhouette of each point.

    Parameters
    ----------
    points : (n_points, n_dims) of real numbers
        Finite; not modified. From float64 the mean is subtracted, and the rest kept as float32.
    labels : (n_points,) integers
        Any, also negative or with gaps. Where every point is a cluster, all have 0.
    metric
        ``euclidean``; ``cosine``: 1 - cos, which is a sum over clusters in O(n K n_dims).

    Returns
    -------
    (n_points,) float64
        In [-1, 1]; no other array has n_points times more than n_dims entries.

    Raises
    ------
    ValueError
        Fewer than two clusters, arrays that are no points and labels, or, where only the
        direction counts, a point that has none.
    """
    groups = grouped(points, labels)
    found = np.empty(len(groups.points))
    found[groups.order()] = _scores(groups, np.arange(len(found)), kernels, metric)
    return found


def silhouette(
    points: NDArray[Any],
    labels: NDArray[Any],
    *,
    kernels: Kernels,
    metric: Metric = "euclidean",
) -> float:
    """The mean of `silhouette_samples`, which see."""
    return float(silhouette_samples(points, labels, kernels=kernels, metric=metric).mean())


def sampled_silhouette(
    points: NDArray[Any],
    labels: NDArray[Any],
    n_sample: int,
    *,
    kernels: Kernels,
    seed: int,
    confidence: float = 0.95,
    metric: Metric = "euclidean",
) -> Estimate:
    """The mean silhouette from a sample of the points, each of them against all points.

    Parameters
    ----------
    points, labels, metric
        Those of `silhouette_samples`.
    n_sample
        How many points, drawn from each cluster by its share; more where there are so many
        clusters that two of each are more, as fewer show no spread. All, and it is exact.
    confidence
        Of the interval, in (0, 1).

    Raises
    ------
    ValueError
        As `silhouette_samples`; ``n_sample`` below 1, or ``confidence`` out of its range.

    Notes
    -----
    "Sampling techniques", 1977, chapter 5: strata without replacement. The mean of each cluster
    is weighted by its size, and so is its variance, less the share that was seen of it; the
    interval takes the estimate to be normal. Clusters of one are known: 0.
    """
    if n_sample < 1:
        raise ValueError(f"n_sample is {n_sample}, but must be at least 1")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}, but must be between 0 and 1")
    groups = grouped(points, labels)
    sizes = groups.sizes
    drawn = _shares(sizes, n_sample)
    rows = _draw(groups, drawn, seed)
    scores = _scores(groups, rows, kernels, metric)
    first = np.cumsum(drawn) - drawn
    there = drawn > 0
    sizes, drawn, first = sizes[there], drawn[there], first[there]
    n_points = len(groups.points)
    if not len(first):
        return Estimate(0.0, 0.0, 0.0, confidence)
    means = np.add.reduceat(scores, first) / drawn
    gaps = scores - np.repeat(means, drawn)
    variances = np.add.reduceat(gaps * gaps, first) / (drawn - 1)
    weights = sizes / n_points
    value = float(weights @ means)
    variance = float(weights**2 @ (variances / drawn * (1.0 - drawn / sizes)))
    reach = NormalDist().inv_cdf((1.0 + confidence) / 2.0) * variance**0.5
    return Estimate(value, max(value - reach, -1.0), min(value + reach, 1.0), confidence)


def simplified(points: Points, centroids: Points, *, kernels: Kernels) -> float | None:
    """The mean of all points, with distances to centroids instead of members: O(n K n_dims).

    Parameters
    ----------
    points : (n_points, n_dims) float32
        Each belongs to its nearest centroid.
    centroids : (n_clusters, n_dims) float32

    Returns
    -------
    float or None
        See `pipeline.clustering.quality.simplified_silhouette`.
    """
    found = kernels.assign(kernels.load(centroids), points, second=True)
    assert found.second_distances_squared is not None
    return simplified_silhouette(found.distances_squared, found.second_distances_squared)


def _scores(groups: Groups, rows: NDArray[np.int64], kernels: Kernels, metric: Metric) -> Floats:
    """(n_rows,) silhouettes of some points, which are numbered as they come by cluster."""
    if metric == "cosine":
        separation = _cosine_separations(groups, rows)
    elif metric == "euclidean":
        separation = kernels.separations(groups.sorted_points(), groups.starts, rows)
    else:
        raise ValueError(f"metric is {metric!r}, but must be euclidean or cosine")
    sizes = groups.sizes[np.searchsorted(groups.starts, rows, side="right") - 1]
    a, b = separation.own / np.maximum(sizes - 1, 1), separation.others
    larger = np.maximum(a, b)
    is_told_apart = (sizes > 1) & (larger > 0.0)
    found: Floats = np.where(is_told_apart, (b - a) / np.where(is_told_apart, larger, 1.0), 0.0)
    return found


def _shares(sizes: NDArray[np.int64], n_sample: int) -> NDArray[np.int64]:
    """(n_clusters,) how many of each to draw: none of one, of others at least two."""
    counted = np.where(sizes > 1, sizes, 0)
    edges = np.rint(np.cumsum(counted) * (n_sample / max(int(counted.sum()), 1)))
    shares = np.diff(edges, prepend=0.0).astype(np.int64)
    found: NDArray[np.int64] = np.minimum(np.maximum(shares, 2), counted)
    return found


def _draw(groups: Groups, drawn: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """So many of each cluster, by cluster: those with the least of as many random numbers."""
    sizes = groups.sizes
    keys = np.random.default_rng(seed).random(len(groups.points))
    shuffled = np.lexsort((keys, np.repeat(np.arange(len(sizes)), sizes)))
    places = np.arange(len(keys)) - np.repeat(groups.starts[:-1], sizes)
    found: NDArray[np.int64] = shuffled[places < np.repeat(drawn, sizes)]
    return found


def _cosine_separations(groups: Groups, rows: NDArray[np.int64]) -> Separation:
    """Sums and least means of 1 - cos, half the squared distance of unit vectors.

    The mean squared distance of a vector to the members of a cluster is its squared distance to
    their mean and theirs, on average, to it (Huygens and Steiner): nothing cancels.
    """
    sizes, starts, order = groups.sizes, groups.starts, groups.order()
    middle = np.zeros(groups.points.shape[1])
    for part in groups.slices():
        middle += _directions(groups, part).sum(axis=0) / len(order)
    sums, spreads = np.zeros((len(sizes), groups.points.shape[1])), np.zeros(len(sizes))
    for part in groups.slices():
        vectors = _directions(groups, part) - middle
        groups.add(part, vectors, sums)
    means = sums / sizes[:, None]
    for part in groups.slices():
        vectors = _directions(groups, part) - middle
        gaps = vectors - means[groups.ranks[part]]
        groups.add(part, np.einsum("ij,ij->i", gaps, gaps), spreads)
    spreads /= sizes
    own, others = np.empty(len(rows)), np.empty(len(rows))
    homes = np.searchsorted(starts, rows, side="right") - 1
    for part in groups.slices(len(sizes)):
        if part.start >= len(rows):
            break
        vectors = _directions(groups, order[rows[part]]) - middle
        halves = (squared_distances(vectors, means) + spreads) / 2.0
        halves[halves < SAME] = 0.0
        here = np.arange(len(halves)), homes[part]
        own[part] = halves[here] * sizes[homes[part]]
        halves[here] = np.inf
        others[part] = halves.min(axis=1)
    return Separation(own, others)


def _directions(groups: Groups, rows: slice | NDArray[np.int64]) -> Floats:
    """Some points, in float64 and of length 1."""
    found: Floats = groups.points[rows].astype(np.float64)
    largest = np.abs(found).max(axis=1, keepdims=True)
    if not largest.all():
        raise ValueError("a point is zero, and has no direction: there is no cosine of it")
    found /= largest
    found /= np.sqrt(np.einsum("ij,ij->i", found, found))[:, None]
    return found
