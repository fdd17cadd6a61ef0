"""How good a clustering is: a few numbers from statistics and bounds, without a pass over members.

All formulas are pure, and hold for weighted statistics as well: a count is then a sum of weights.
Only the silhouette needs distances, for which a sample of the members does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quality:
    """What operators see of a model's state; numbers that nothing defines are None."""

    n_members: int
    n_clusters: int
    n_empty: int
    inertia_per_member: float | None
    """Mean squared distance of a member to its centroid, now."""
    inertia_at_fit: float | None
    """The same when the model was fitted, of the items that it was fitted on."""
    silhouette: float | None
    """Simplified, of a sample; -1 to 1."""
    size_cv: float
    """Coefficient of variation of the sizes; 0: all alike."""
    size_entropy: float
    """Entropy of the sizes, 1: all alike; 0: one cluster has everything."""
    churn: float
    """Reassignments caused by records, per record."""
    staleness: float
    """Share of members whose label is not proved under the newest model."""
    shift: Shift
    """How far centroids are from where they were fitted."""

    @property
    def inertia_growth(self) -> float:
        """By which share the inertia per member has grown since the fit; 0 where nothing is known.

        Growth from nothing is infinite: at the fit every member lay on its centroid.
        """
        if self.inertia_per_member is None or self.inertia_at_fit is None:
            return 0.0
        if self.inertia_at_fit == 0.0:
            return math.inf if self.inertia_per_member > 0.0 else 0.0
        return self.inertia_per_member / self.inertia_at_fit - 1.0


class Shift(NamedTuple):
    """Over clusters, in units of each cluster's own spread at the fit."""

    mean: float = 0.0
    p95: float = 0.0
    max: float = 0.0


def assess(
    counts: NDArray[np.int64],
    weights: Floats,
    mean_squares: Floats,
    shift: Floats,
    *,
    inertia_at_fit: float | None,
    silhouette: float | None = None,
    n_records: int = 0,
    n_reassigned: int = 0,
    n_unproven: int = 0,
) -> Quality:
    """All of it, from the statistics of each cluster.

    Parameters
    ----------
    counts : (n_clusters,) int64
        Members now.
    weights : (n_clusters,) float64
        The same, or what they weigh where items fade.
    mean_squares : (n_clusters,) float64
        `mean_squared_distances` to the centroids of now.
    shift : (n_clusters,) float64
        `shifts`.
    inertia_at_fit
        Per item that the model was fitted on.
    n_records, n_reassigned
        Of some time: all records of it, and the reassignments that they caused.
    """
    n_members = int(counts.sum())
    return Quality(
        n_members=n_members,
        n_clusters=len(counts),
        n_empty=int(np.count_nonzero(counts == 0)),
        inertia_per_member=inertia_per_member(weights, mean_squares),
        inertia_at_fit=inertia_at_fit,
        silhouette=silhouette,
        size_cv=size_cv(counts),
        size_entropy=size_entropy(counts),
        churn=churn(n_reassigned, n_records),
        staleness=staleness(n_unproven, n_members),
        shift=shift_summary(shift),
    )


def mean_squared_distances(
    weights: Floats, means: Floats, squares: Floats, centroids: NDArray[np.float32]
) -> Floats:
    """Of the members to the centroid, from what they add up to: the mean of ``|x - c|²``.

    Parameters
    ----------
    weights : (n_clusters,) float64
        Counts, or sums of weights.
    means : (n_clusters, n_dims) float64
    squares : (n_clusters,) float64
        Sums of ``|x|²``, weighted alike.
    centroids : (n_clusters, n_dims) float32
        Any; not only the means.

    Returns
    -------
    (n_clusters,) float64
        Never below 0; 0 without members.

    Notes
    -----
    ``mean |x - c|² = mean |x|² - 2 c·m + |c|²`` with the mean m: the decomposition of the moment
    of inertia (Huygens and Steiner). What cancels leaves an error of some ``2**-52 |x|²`` and
    half a unit of the squares, which is why it is cut at 0.
    """
    c = centroids.astype(np.float64)
    there = weights > 0.0
    mean_squares = squares / np.where(there, weights, 1.0)
    crossed = np.einsum("ij,ij->i", c, 2.0 * means - c)
    found: Floats = np.where(there, np.maximum(mean_squares - crossed, 0.0), 0.0)
    return found


def inertia_per_member(weights: Floats, mean_squares: Floats) -> float | None:
    """The mean squared distance over all members of all clusters; None without members."""
    total = float(weights.sum())
    return float(weights @ mean_squares) / total if total > 0.0 else None


def simplified_silhouette(
    distances_squared: Floats, second_distances_squared: Floats
) -> float | None:
    """Mean of ``(b - a) / max(a, b)`` over points: a to the own centroid, b to the next one.

    Parameters
    ----------
    distances_squared, second_distances_squared : (n_points,) float64
        To the nearest centroid and to the runner-up, squared.

    Returns
    -------
    float or None
        In [0, 1] where every point is in its nearest cluster. A point as near to both has 0, also
        where it lies on both. None without points, or with a single cluster: it needs two.

    Notes
    -----
    "Evolutionary algorithms for clustering gene-expression data", 2004: distances to centroids
    instead of means of distances to all members, so O(n K) and not O(n²).
    """
    a, b = np.sqrt(distances_squared), np.sqrt(second_distances_squared)
    if not len(a) or np.isinf(b).any():
        return None
    larger = np.maximum(a, b)
    return float(np.mean((b - a) / np.where(larger > 0.0, larger, 1.0)))


def size_cv(counts: NDArray[np.int64]) -> float:
    """Coefficient of variation: standard deviation of the sizes over their mean; 0 without members.

    Empty clusters count. With K clusters it is at most ``sqrt(K - 1)``: one has everything.
    """
    mean = float(counts.mean()) if len(counts) else 0.0
    return float(counts.std()) / mean if mean > 0.0 else 0.0


def size_entropy(counts: NDArray[np.int64]) -> float:
    """``-sum p log p / log K`` of the shares p ("A mathematical theory of communication", 1948).

    1 where all clusters are alike, also without members or with a single cluster.
    """
    total = float(counts.sum())
    if len(counts) < 2 or total == 0.0:
        return 1.0
    shares = counts[counts > 0] / total
    return abs(float(shares @ np.log(shares))) / math.log(len(counts))


def churn(n_reassigned: int, n_records: int) -> float:
    """Reassignments caused by records, per record; 0 without records."""
    return n_reassigned / n_records if n_records else 0.0


def staleness(n_unproven: int, n_members: int) -> float:
    """Share of members whose label no bound proves under the newest model; 0 without members.

    An upper bound of the share that is not in its nearest centroid: an unproven label may be right.
    """
    return n_unproven / n_members if n_members else 0.0


def shifts(
    centroids: NDArray[np.float32], fitted: NDArray[np.float32], spreads_squared: Floats
) -> Floats:
    """How far centroids are from where they were fitted, in units of their own spread.

    Parameters
    ----------
    centroids, fitted : (n_clusters, n_dims) float32
    spreads_squared : (n_clusters,) float64
        Mean squared distances of the members at the fit.

    Returns
    -------
    (n_clusters,) float64
        A shift over the root of the spread. NaN where a cluster had no spread, and so no unit.
    """
    lengths = np.sqrt(np.square(centroids.astype(np.float64) - fitted).sum(axis=1))
    units = np.sqrt(spreads_squared)
    there = units > 0.0
    found: Floats = np.where(there, lengths / np.where(there, units, 1.0), np.nan)
    return found


def shift_summary(found: Floats) -> Shift:
    """Mean, 95th percentile and maximum of `shifts`; those without a unit are left out."""
    known = found[~np.isnan(found)]
    if not len(known):
        return Shift()
    return Shift(float(known.mean()), float(np.percentile(known, 95)), float(known.max()))
