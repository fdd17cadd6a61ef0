"""K-means above the kernels: greedy k-means++, Lloyd to convergence, empty clusters relocated.

Whatever touches every point goes through `Kernels.assign` and `Kernels.accumulate`, whose
results are exact, so a fit depends on its arguments alone: not on threads, nor on the twin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, PipelineError
from pipeline.kernels.contract import Assignment, Kernels, Labels, Points, Sums

MAX_CLUSTERS = 50_000
MAX_POINTS = 2**23 - 1  # the sums of more rows may not fit their integers
MIN_SEED_POINTS = 10_000  # more make no better start, Lloyd sees all of them anyway
SEED_POINTS_PER_CLUSTER = 8
MAX_SEED_WORK = 2**36  # components read while seeding: about 10 s on two cores


@dataclass(frozen=True, slots=True)
class ClusteringPolicy:
    """How many clusters there are to be, and which of the equally good fits it is."""

    clusters: int = 500
    """Fewer where there are fewer distinct items."""
    seed: int = 0
    """The same seed and items give the same model."""

    def __post_init__(self) -> None:
        if not 1 <= self.clusters <= MAX_CLUSTERS:
            raise ConfigError(
                f"clustering.clusters is {self.clusters}, but must be in 1..{MAX_CLUSTERS}"
            )
        if self.seed < 0:
            raise ConfigError(f"clustering.seed is {self.seed}, but must not be below 0")


class FewerPointsError(PipelineError):
    """There are fewer distinct points than clusters; a fit of ``n_distinct`` clusters is possible.

    The caller decides, as clusters that stand on one point have no order between them.
    """

    def __init__(self, n_distinct: int, n_clusters: int) -> None:
        super().__init__(f"{n_clusters} clusters, but only {n_distinct} distinct points")
        self.n_distinct = n_distinct
        self.n_clusters = n_clusters


class FitCancelledError(PipelineError):
    """The caller asked for an end before there was a result."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A clustering of the points it was given."""

    centroids: Points  # (n_clusters, n_dims)
    labels: Labels  # (n_points,): the exact argmin over these very centroids
    distances_squared: NDArray[np.float64]  # (n_points,): canonical
    inertia: float
    """Their sum."""
    n_iterations: int
    """Passes over all points."""
    has_converged: bool
    """False: ``max_iterations`` ended it."""


def fit(
    points: Points,
    n_clusters: int,
    *,
    kernels: Kernels,
    seed: int,
    max_component: float,
    start: Points | None = None,
    max_iterations: int = 300,
    tol: float = 1e-4,
    spherical: bool = False,
    on_pass: Callable[[int, float], None] | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Fit:
    """Lloyd's algorithm from ``start``, or from greedy k-means++.

    It ends when no label changes, or when the centroids' shift, squared and summed, is at most
    ``tol`` times the mean variance of a component. Every cluster of a converged fit has a member.

    Parameters
    ----------
    points : (n_points, n_dims) float32
        No component is larger than ``max_component``, a power of two.
    start : (n_clusters, n_dims) float32, optional
        A warm start; not modified.
    spherical
        Centroids are unit vectors; the points must be. A cluster whose mean is zero keeps its
        centroid.
    on_pass
        Called after each pass with its number and the inertia of the centroids before it.
    is_cancelled
        Asked before each pass and each seed.

    Raises
    ------
    FewerPointsError
        Fewer distinct points than clusters.
    FitCancelledError
    ValueError
        Arguments that contradict each other.
    """
    n_points, n_dims = points.shape
    if n_clusters < 1 or n_points > MAX_POINTS:
        raise ValueError(f"{n_clusters} clusters of {n_points} points, at most {MAX_POINTS}")
    if start is not None and start.shape != (n_clusters, n_dims):
        raise ValueError(f"a start of {start.shape} for {n_clusters} clusters of {n_dims}")
    n_found = n_distinct(points, at_most=n_clusters)
    if n_found < n_clusters:
        raise FewerPointsError(n_found, n_clusters)

    def stop_if_cancelled() -> None:
        if is_cancelled is not None and is_cancelled():
            raise FitCancelledError("the fit was cancelled")

    if start is None:
        centroids = seeds(points, n_clusters, kernels=kernels, seed=seed, on_seed=stop_if_cancelled)
    else:
        centroids = start.astype(np.float32, order="C")
    tolerance = tol * _mean_variance(points, kernels)
    labels = np.full(n_points, -1, np.int32)
    sums = Sums.zeros(n_clusters, n_dims, max_component=max_component)
    for n_iterations in range(1, max_iterations + 1):
        stop_if_cancelled()
        found = kernels.assign(kernels.load(centroids), points)
        if on_pass is not None:
            on_pass(n_iterations, float(found.distances_squared.sum()))
        settled = _relocated(found, n_clusters)
        changed = np.flatnonzero(settled != labels)
        if not len(changed):
            return _fit(centroids, found, n_iterations, has_converged=True)
        rows = points if len(changed) == n_points else points[changed]
        kernels.accumulate(sums, rows, labels[changed], rows, settled[changed])
        labels = settled
        before, centroids = centroids, _means(sums, centroids, spherical=spherical)
        shift = float(np.square(centroids.astype(np.float64) - before).sum())
        if shift == 0.0 and settled is found.labels:  # the fixed point: `found` is its argmin
            return _fit(centroids, found, n_iterations, has_converged=True)
        if shift <= tolerance:
            stop_if_cancelled()
            # the labels returned are those of the centroids returned, not of those before
            found = kernels.assign(kernels.load(centroids), points)
            if np.bincount(found.labels, minlength=n_clusters).all():
                return _fit(centroids, found, n_iterations + 1, has_converged=True)
    found = kernels.assign(kernels.load(centroids), points)
    return _fit(centroids, found, max_iterations + 1, has_converged=False)


def inertia(points: Points, centroids: Points, kernels: Kernels) -> float:
    """The sum of the squared distances to the nearest centroid."""
    return float(kernels.assign(kernels.load(centroids), points).distances_squared.sum())


def n_distinct(points: Points, *, at_most: int | None = None) -> int:
    """How many different rows there are; counting ends at ``at_most``."""
    limit = len(points) if at_most is None else at_most
    seen: set[bytes] = set()
    for row in points:
        if len(seen) >= limit:
            break
        seen.add(blake2b((row + np.float32(0.0)).tobytes(), digest_size=16).digest())  # -0 is 0
    return len(seen)


def seeds(
    points: Points,
    n_clusters: int,
    *,
    kernels: Kernels,
    seed: int,
    on_seed: Callable[[], None] = lambda: None,
) -> Points:
    """Greedy k-means++ on a sample: distinct points, far from each other and yet typical.

    Each step draws some candidates with probability proportional to the squared distance to the
    nearest seed, and keeps the one that leaves the least inertia.
    "k-means++: the advantages of careful seeding", 2007, section 2.2 and its last remark.

    There must be at least ``n_clusters`` distinct points.
    """
    rng = np.random.default_rng(seed)
    n_sample = min(len(points), max(MIN_SEED_POINTS, SEED_POINTS_PER_CLUSTER * n_clusters))
    sample = points
    if n_sample < len(points):
        sample = points[np.sort(rng.choice(len(points), n_sample, replace=False))]
    affordable = MAX_SEED_WORK // (n_clusters * sample.size)
    n_trials = max(1, min(2 + int(math.log(n_clusters)), affordable))

    chosen = np.empty((n_clusters, points.shape[1]), np.float32)
    chosen[0] = sample[rng.integers(len(sample))]
    nearest = _distances_squared(sample, chosen[:1], kernels)
    for k in range(1, n_clusters):
        on_seed()
        if not nearest.any() and sample is not points:  # the sample repeats itself: look at all
            sample = points
            nearest = _distances_squared(sample, chosen[:k], kernels)
        best_left, best = math.inf, nearest
        for row in np.unique(_draw(nearest, n_trials, rng)):
            candidate = np.minimum(
                nearest, _distances_squared(sample, sample[row : row + 1], kernels)
            )
            left = float(candidate.sum())
            if left < best_left:
                best_left, best = left, candidate
                chosen[k] = sample[row]
        nearest = best
    return chosen


def _draw(weights: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices, drawn with a probability proportional to their weight; never one without any."""
    heights = np.cumsum(weights)
    drawn = np.searchsorted(heights, rng.random(n) * heights[-1], side="right")
    last = int(np.flatnonzero(weights)[-1])  # a product may round up to the whole height
    indices: NDArray[np.int64] = np.minimum(drawn, last)
    return indices


def _distances_squared(points: Points, seeds: Points, kernels: Kernels) -> NDArray[np.float64]:
    return kernels.assign(kernels.load(seeds), points).distances_squared


def _mean_variance(points: Points, kernels: Kernels) -> float:
    """Of a component; through the kernels, as float64 copies of all points are too large."""
    mean = points.mean(axis=0, dtype=np.float64).astype(np.float32)
    return inertia(points, mean[None, :], kernels) / points.size


def _means(sums: Sums, before: Points, *, spherical: bool) -> Points:
    """Where the members' means are; ``before`` where there is none."""
    means = sums.sums * sums.unit / np.maximum(sums.counts, 1)[:, None]
    has_mean = sums.counts > 0
    if spherical:
        lengths = np.sqrt(np.square(means).sum(axis=1))
        has_mean &= lengths > 0.0
        means /= np.where(lengths > 0.0, lengths, 1.0)[:, None]
    return np.where(has_mean[:, None], means.astype(np.float32), before)


def _relocated(found: Assignment, n_clusters: int) -> Labels:
    """Labels in which every cluster has a member, as far as there are points off a centroid.

    An empty cluster gets the point farthest from its own centroid, then the lower row; but not
    the last member of another. Any other choice may let the inertia grow. Without an empty
    cluster these are the labels themselves.
    """
    counts = np.bincount(found.labels, minlength=n_clusters)
    empty = np.flatnonzero(counts == 0).tolist()
    if not empty:
        return found.labels
    labels = found.labels.copy()
    for row in np.argsort(-found.distances_squared, kind="stable").tolist():
        if not empty or found.distances_squared[row] == 0.0:
            break
        if counts[labels[row]] > 1:
            counts[labels[row]] -= 1
            labels[row] = empty.pop(0)
    return labels


def _fit(centroids: Points, found: Assignment, n_iterations: int, *, has_converged: bool) -> Fit:
    return Fit(
        centroids=centroids,
        labels=found.labels,
        distances_squared=found.distances_squared,
        inertia=float(found.distances_squared.sum()),
        n_iterations=n_iterations,
        has_converged=has_converged,
    )
