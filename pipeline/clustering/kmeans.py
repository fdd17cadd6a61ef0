"""K-means above the kernels: greedy k-means++, Lloyd to convergence, empty clusters relocated.

Whatever touches every point goes through `Kernels.assign` and `Kernels.accumulate`, whose
results are exact, so a fit depends on its arguments alone: not on threads, nor on the twin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.forgetting import MAX_HALF_LIFE_S
from pipeline.errors import ConfigError, PipelineError
from pipeline.kernels.contract import (
    WEIGHT_UNIT,
    Assignment,
    Kernels,
    Labels,
    Points,
    Sums,
    Weights,
)

MAX_CLUSTERS = 50_000
MAX_POINTS = 2**23 - 1  # the sums of more rows may not fit their integers
MIN_SEED_POINTS = 10_000  # more make no better start, Lloyd sees all of them anyway
SEED_POINTS_PER_CLUSTER = 8
MAX_SEED_WORK = 2**36  # components read while seeding: about 10 s on two cores


@dataclass(frozen=True, slots=True)
class ClusteringPolicy:
    """How many clusters there are to be, and which of the equally good fits it is."""

    clusters: int | Literal["auto"] = 500
    """How many, fewer where there are fewer distinct items; auto: as many as tests tell apart."""
    min: int = 2
    """The least that auto takes."""
    max: int = MAX_CLUSTERS
    """The most that auto takes."""
    half_life_s: float | None = None
    """An item so much older than another counts half as much; null: all count alike."""
    seed: int = 0
    """The same seed and items give the same model."""

    def __post_init__(self) -> None:
        if self.clusters != "auto" and not 1 <= self.clusters <= MAX_CLUSTERS:
            raise ConfigError(
                f"clustering.clusters is {self.clusters}, but must be auto or in 1..{MAX_CLUSTERS}"
            )
        for name in ("min", "max"):
            if not 1 <= getattr(self, name) <= MAX_CLUSTERS:
                raise ConfigError(
                    f"clustering.{name} is {getattr(self, name)}, but must be in 1..{MAX_CLUSTERS}"
                )
        if self.min > self.max:
            raise ConfigError(
                f"clustering.min is {self.min}, but must be at most clustering.max, {self.max}"
            )
        if self.half_life_s is not None and not 0.001 <= self.half_life_s <= MAX_HALF_LIFE_S:
            raise ConfigError(
                f"clustering.half_life_s is {self.half_life_s}, but must be null or in "
                f"0.001..{MAX_HALF_LIFE_S:.0f}"
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
    """Their sum; of points with weights, the weighted one."""
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
    weights: Weights | None = None,
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
    weights : (n_points,) float64, optional
        How much each point counts, above 0 and at most `MAX_WEIGHT`; without any, all alike.
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
        centroids = seeds(
            points,
            n_clusters,
            kernels=kernels,
            seed=seed,
            weights=weights,
            on_seed=stop_if_cancelled,
        )
    else:
        centroids = start.astype(np.float32, order="C")
    tolerance = tol * _mean_variance(points, kernels, weights)
    labels = np.full(n_points, -1, np.int32)
    sums = Sums.zeros(
        n_clusters, n_dims, max_component=max_component, is_weighted=weights is not None
    )
    for n_iterations in range(1, max_iterations + 1):
        stop_if_cancelled()
        found = kernels.assign(kernels.load(centroids), points)
        if on_pass is not None:
            on_pass(n_iterations, _weighted(found.distances_squared, weights))
        settled = _relocated(found, n_clusters, weights)
        changed = np.flatnonzero(settled != labels)
        if not len(changed):
            return _fit(centroids, found, n_iterations, weights, has_converged=True)
        _move(sums, points, labels, settled, changed, kernels, weights)
        labels = settled
        before, centroids = centroids, _means(sums, centroids, spherical=spherical)
        shift = float(np.square(centroids.astype(np.float64) - before).sum())
        if shift == 0.0 and settled is found.labels:  # the fixed point: `found` is its argmin
            return _fit(centroids, found, n_iterations, weights, has_converged=True)
        if shift <= tolerance:
            stop_if_cancelled()
            # the labels returned are those of the centroids returned, not of those before
            found = kernels.assign(kernels.load(centroids), points)
            if np.bincount(found.labels, minlength=n_clusters).all():
                return _fit(centroids, found, n_iterations + 1, weights, has_converged=True)
    found = kernels.assign(kernels.load(centroids), points)
    return _fit(centroids, found, max_iterations + 1, weights, has_converged=False)


def inertia(
    points: Points, centroids: Points, kernels: Kernels, weights: Weights | None = None
) -> float:
    """The sum of the squared distances to the nearest centroid, each times its weight."""
    return _weighted(kernels.assign(kernels.load(centroids), points).distances_squared, weights)


def centroids_of(
    points: Points,
    labels: Labels,
    before: Points,
    *,
    kernels: Kernels,
    max_component: float,
    spherical: bool,
    weights: Weights | None = None,
) -> Points:
    """Where the clusters' means are; of one without members, or without a mean, ``before``."""
    sums = Sums.zeros(*before.shape, max_component=max_component, is_weighted=weights is not None)
    nowhere, everyone = np.full(len(points), -1, np.int32), np.arange(len(points))
    _move(sums, points, nowhere, labels, everyone, kernels, weights)
    return _means(sums, before, spherical=spherical)


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
    weights: Weights | None = None,
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
    sample, heaviness = points, weights
    if n_sample < len(points):
        rows = np.sort(rng.choice(len(points), n_sample, replace=False))
        sample, heaviness = points[rows], None if weights is None else weights[rows]
    affordable = MAX_SEED_WORK // (n_clusters * sample.size)
    n_trials = max(1, min(2 + int(math.log(n_clusters)), affordable))

    chosen = np.empty((n_clusters, points.shape[1]), np.float32)
    first = rng.integers(len(sample)) if heaviness is None else _draw(heaviness, 1, rng)[0]
    chosen[0] = sample[first]
    nearest = _distances_squared(sample, chosen[:1], kernels)
    for k in range(1, n_clusters):
        on_seed()
        if not nearest.any() and sample is not points:  # the sample repeats itself: look at all
            sample, heaviness = points, weights
            nearest = _distances_squared(sample, chosen[:k], kernels)
        best_left, best = math.inf, nearest
        heights = nearest if heaviness is None else nearest * heaviness
        for row in np.unique(_draw(heights, n_trials, rng)):
            candidate = np.minimum(
                nearest, _distances_squared(sample, sample[row : row + 1], kernels)
            )
            left = _weighted(candidate, heaviness)
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


def _weighted(distances_squared: NDArray[np.float64], weights: Weights | None) -> float:
    return float((distances_squared if weights is None else distances_squared * weights).sum())


def _mean_variance(points: Points, kernels: Kernels, weights: Weights | None) -> float:
    """Of a component; through the kernels, as float64 copies of all points are too large."""
    if weights is None:
        mean = points.mean(axis=0, dtype=np.float64).astype(np.float32)
        return inertia(points, mean[None, :], kernels) / points.size
    total = float(weights.sum())
    mean = (np.einsum("i,ij->j", weights, points) / total).astype(np.float32)
    spread: float = inertia(points, mean[None, :], kernels, weights) / (total * points.shape[1])
    return spread


def _move(
    sums: Sums,
    points: Points,
    before: Labels,
    after: Labels,
    changed: NDArray[np.intp],
    kernels: Kernels,
    weights: Weights | None,
) -> None:
    """Take the points whose label has changed out where they were, and in where they are."""
    is_all = len(changed) == len(points)
    rows = points if is_all else points[changed]
    heaviness = weights if weights is None or is_all else weights[changed]
    kernels.accumulate(
        sums,
        rows,
        before[changed],
        rows,
        after[changed],
        old_weights=heaviness,
        new_weights=heaviness,
    )


def _means(sums: Sums, before: Points, *, spherical: bool) -> Points:
    """Where the members' means are; ``before`` where there is none."""
    if sums.weights is None:
        has_mean, divisors = sums.counts > 0, np.maximum(sums.counts, 1).astype(np.float64)
    else:
        has_mean, divisors = sums.weights > 0, np.maximum(sums.weights, 1) * WEIGHT_UNIT
    means = sums.sums * sums.unit / divisors[:, None]
    if spherical:
        lengths = np.sqrt(np.square(means).sum(axis=1))
        has_mean &= lengths > 0.0
        means /= np.where(lengths > 0.0, lengths, 1.0)[:, None]
    return np.where(has_mean[:, None], means.astype(np.float32), before)


def _relocated(found: Assignment, n_clusters: int, weights: Weights | None) -> Labels:
    """Labels in which every cluster has a member, as far as there are points off a centroid.

    An empty cluster gets the point that adds most to the inertia, then the lower row; but not
    the last member of another. Any other choice may let the inertia grow. Without an empty
    cluster these are the labels themselves.
    """
    counts = np.bincount(found.labels, minlength=n_clusters)
    empty = np.flatnonzero(counts == 0).tolist()
    if not empty:
        return found.labels
    labels = found.labels.copy()
    shares = found.distances_squared if weights is None else found.distances_squared * weights
    for row in np.argsort(-shares, kind="stable").tolist():
        if not empty or shares[row] == 0.0:
            break
        if counts[labels[row]] > 1:
            counts[labels[row]] -= 1
            labels[row] = empty.pop(0)
    return labels


def _fit(
    centroids: Points,
    found: Assignment,
    n_iterations: int,
    weights: Weights | None,
    *,
    has_converged: bool,
) -> Fit:
    return Fit(
        centroids=centroids,
        labels=found.labels,
        distances_squared=found.distances_squared,
        inertia=_weighted(found.distances_squared, weights),
        n_iterations=n_iterations,
        has_converged=has_converged,
    )
