"""What clusters looked like when they were fitted: the measure for what comes later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.contract import Labels

LEVELS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
"""Which quantiles of the distances are kept: close together where the far members are."""


@dataclass(frozen=True, slots=True, eq=False)
class Profiles:
    """How many members each cluster had, and how far they lay from its centroid.

    Distances are roots of the canonical squared ones, under every metric. All are zero without
    members.
    """

    counts: NDArray[np.int64]  # (n_clusters,)
    mean_squared_distances: NDArray[np.float64]  # (n_clusters,)
    mean_distances: NDArray[np.float64]  # (n_clusters,)
    quantiles: NDArray[np.float32]  # (n_clusters, len(LEVELS)), ascending in each row

    def reordered(self, order: NDArray[np.intp]) -> Profiles:
        """The same with new label ``i`` standing for what was label ``order[i]``."""
        return Profiles(
            self.counts[order],
            self.mean_squared_distances[order],
            self.mean_distances[order],
            self.quantiles[order],
        )


def profiles(labels: Labels, distances_squared: NDArray[np.float64], n_clusters: int) -> Profiles:
    """Describe clusters by the distances of their members.

    Parameters
    ----------
    labels : (n_points,) int32
        -1: in no cluster.
    distances_squared : (n_points,) float64
        Canonical, to the own centroid.
    """
    inside = labels >= 0
    if not inside.all():
        labels, distances_squared = labels[inside], distances_squared[inside]
    distances = np.sqrt(distances_squared)
    counts = np.bincount(labels, minlength=n_clusters).astype(np.int64)
    divisors = np.maximum(counts, 1)
    return Profiles(
        counts=counts,
        mean_squared_distances=np.bincount(labels, distances_squared, n_clusters) / divisors,
        mean_distances=np.bincount(labels, distances, n_clusters) / divisors,
        quantiles=_quantiles(labels, distances, counts),
    )


def typicality(
    quantiles: NDArray[np.float32], distances: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The share of a cluster's members at the fit that lay at least as far out as each point.

    Linear between the quantiles that are kept; 1 at or below the nearest member, 0 beyond the
    farthest. A value near 0 is a point such as the cluster had never seen.

    Parameters
    ----------
    quantiles : (n_points, len(LEVELS)) float32
        Of each point's own cluster.
    distances : (n_points,) float64
        Roots of canonical squared distances to the centroid, under every metric.

    Returns
    -------
    (n_points,) float64
        It means nothing where a cluster had no members, or their distances are not known.
    """
    levels, rows = np.array(LEVELS), np.arange(len(distances))
    # of equal quantiles the first counts: members that lie as far out are not nearer
    after = np.count_nonzero(quantiles < distances[:, None], axis=1)
    low, high = np.maximum(after - 1, 0), np.minimum(after, len(LEVELS) - 1)
    near = quantiles[rows, low].astype(np.float64)
    width = quantiles[rows, high] - near
    way = np.divide(distances - near, width, out=np.zeros(len(rows)), where=width > 0.0)
    nearer = levels[low] + way * (levels[high] - levels[low])
    nearer[after == 0] = 0.0
    nearer[after == len(LEVELS)] = 1.0
    shares: NDArray[np.float64] = 1.0 - nearer
    return shares


def _quantiles(
    labels: Labels, distances: NDArray[np.float64], counts: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The quantiles at ``LEVELS``, linear between neighbours, of all clusters in one sort."""
    if not len(labels):
        return np.zeros((len(counts), len(LEVELS)), np.float32)
    ascending = distances[np.lexsort((distances, labels))]
    starts = np.cumsum(counts) - counts
    steps = np.array(LEVELS) * np.maximum(counts - 1, 0)[:, None]  # places within the cluster
    whole = np.floor(steps).astype(np.int64)
    last = len(ascending) - 1
    low = np.minimum(starts[:, None] + whole, last)  # an empty cluster may begin past the end
    high = np.minimum(low + (steps > whole), last)
    near = ascending[low]
    found = near + (ascending[high] - near) * (steps - whole)
    found[counts == 0] = 0.0
    quantiles: NDArray[np.float32] = found.astype(np.float32)
    return quantiles
