"""K-means above the kernels: Lloyd to convergence, empty clusters relocated.

Whatever touches every point goes through `Kernels.assign` and `Kernels.accumulate`, whose
results are exact, so a fit depends on its arguments alone: not on threads, nor on the twin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.forgetting import MAX_HALF_LIFE_S
from pipeline.clustering.means import Tally
from pipeline.clustering.passes import Passes
from pipeline.clustering.seeding import Init, begin, n_distinct, seed_of, total, weighted
from pipeline.errors import ConfigError, PipelineError
from pipeline.kernels.contract import Assignment, Kernels, Labels, Points, Weights

MAX_CLUSTERS = 50_000


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
    init: Init = "k-means++",
    n_init: int = 1,
    weights: Weights | None = None,
    max_iterations: int = 300,
    tol: float = 1e-4,
    spherical: bool = False,
    on_pass: Callable[[int, float], None] | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Fit:
    """Lloyd's algorithm from ``start``, or from the best of ``n_init`` starts of its own.

    It ends when no label changes, or when the centroids' shift, squared and summed, is at most
    ``tol`` times the mean variance of a component. Every cluster of a converged fit has a member.

    Parameters
    ----------
    points : (n_points, n_dims) float32
        No component is larger than ``max_component``, a power of two. May be mapped from a file
        that is larger than the memory: a fit needs about 100 bytes a row of its own,
        and copies no more rows at once than the sample for the seeds.
    start : (n_clusters, n_dims) float32, optional
        A warm start, and the only one; not modified.
    init
        How a cold start is made: :mod:`pipeline.clustering.seeding`.
    n_init
        So many cold starts are fitted, each with a seed of its own (`seeding.seed_of`); the least
        inertia wins, the earlier start on ties.
    weights : (n_points,) float64, optional
        How much each point counts, above 0 and at most `MAX_WEIGHT`; without any, all alike.
    spherical
        Centroids are unit vectors; the points must be. A cluster whose mean is zero keeps its
        centroid.
    on_pass
        Called after each pass with its number and the inertia of the centroids before it, which
        may be off by a rounding.
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
    points = np.asarray(points)  # a slice of a mapped file is slow to make, a slice of this is not
    check_fit(points, n_clusters, start)
    if n_init < 1:
        raise ValueError(f"n_init is {n_init}, but must be at least 1")

    def stop_if_cancelled() -> None:
        if is_cancelled is not None and is_cancelled():
            raise FitCancelledError("the fit was cancelled")

    best: Fit | None = None
    n_passes = 0
    for number in range(n_init if start is None else 1):
        if start is None:
            centroids = begin(
                init,
                points,
                n_clusters,
                kernels=kernels,
                seed=seed_of(seed, number),
                weights=weights,
                on_seed=stop_if_cancelled,
            )
        else:
            centroids = start.astype(np.float32, order="C")
        found = _lloyd(
            points,
            centroids,
            Tally(
                points, n_clusters, kernels=kernels, max_component=max_component, weights=weights
            ),
            kernels=kernels,
            weights=weights,
            max_iterations=max_iterations,
            tol=tol,
            spherical=spherical,
            on_pass=None if on_pass is None else _counted(on_pass, n_passes),
            stop_if_cancelled=stop_if_cancelled,
        )
        n_passes += found.n_iterations
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None
    return best


def _counted(on_pass: Callable[[int, float], None], n_before: int) -> Callable[[int, float], None]:
    return lambda number, left: on_pass(n_before + number, left)


def check_fit(points: Points, n_clusters: int, start: Points | None) -> None:
    """What `fit` raises about its arguments, it raises here."""
    n_dims = points.shape[1]
    if n_clusters < 1:
        raise ValueError(f"{n_clusters} clusters of {len(points)} points")
    if start is not None and start.shape != (n_clusters, n_dims):
        raise ValueError(f"a start of {start.shape} for {n_clusters} clusters of {n_dims}")
    n_found = n_distinct(points, at_most=n_clusters)
    if n_found < n_clusters:
        raise FewerPointsError(n_found, n_clusters)


def _lloyd(
    points: Points,
    centroids: Points,
    tally: Tally,
    *,
    kernels: Kernels,
    weights: Weights | None,
    max_iterations: int,
    tol: float,
    spherical: bool,
    on_pass: Callable[[int, float], None] | None,
    stop_if_cancelled: Callable[[], None],
) -> Fit:
    n_clusters, tolerance = len(centroids), 0.0
    passes = Passes(points, n_clusters, kernels=kernels)
    labels = np.full(len(points), -1, np.int32)
    for n_iterations in range(1, max_iterations + 1):
        stop_if_cancelled()
        nearest = settled = passes.labels(centroids)
        if not np.bincount(nearest, minlength=n_clusters).all():
            settled = relocated(passes.all(centroids), n_clusters, weights)
        n_changed = tally.move(labels, settled)
        if on_pass is not None:
            left = passes.found and weighted(passes.found.distances_squared, weights)
            on_pass(n_iterations, tally.inertia(centroids) if left is None else left)
        if not n_changed:
            return _fit(centroids, passes, n_iterations, weights, has_converged=True)
        labels = settled
        if n_iterations == 1:
            tolerance = tol * tally.mean_variance()
        before, centroids = centroids, tally.means(centroids, spherical=spherical)
        shift = total(np.square(centroids.astype(np.float64) - before))
        if shift == 0.0 and settled is nearest:  # the fixed point: these are its argmin
            return _fit(centroids, passes, n_iterations, weights, has_converged=True)
        if shift <= tolerance:
            stop_if_cancelled()
            # the labels returned are those of the centroids returned, not of those before
            if np.bincount(passes.labels(centroids), minlength=n_clusters).all():
                return _fit(centroids, passes, n_iterations + 1, weights, has_converged=True)
    return _fit(centroids, passes, max_iterations + 1, weights, has_converged=False)


def inertia(
    points: Points, centroids: Points, kernels: Kernels, weights: Weights | None = None
) -> float:
    """The sum of the squared distances to the nearest centroid, each times its weight."""
    return weighted(kernels.assign(kernels.load(centroids), points).distances_squared, weights)


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
    tally = Tally(
        points, len(before), kernels=kernels, max_component=max_component, weights=weights
    )
    tally.move(np.full(len(points), -1, np.int32), labels)
    return tally.means(before, spherical=spherical)


def relocated(
    found: Assignment,
    n_clusters: int,
    weights: Weights | None,
    is_needless: NDArray[np.bool_] | None = None,
) -> Labels:
    """Labels in which every cluster has a member, as far as there are points off a centroid.

    An empty cluster gets the point that adds most to the inertia, then the lower row; but not
    the last member of another. Any other choice may let the inertia grow. Without an empty
    cluster these are the labels themselves. ``is_needless`` (n_clusters,) are to stay empty.
    """
    counts = np.bincount(found.labels, minlength=n_clusters)
    is_empty = counts == 0 if is_needless is None else (counts == 0) & ~is_needless
    empty = np.flatnonzero(is_empty).tolist()
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
    passes: Passes,
    n_iterations: int,
    weights: Weights | None,
    *,
    has_converged: bool,
) -> Fit:
    found = passes.all(centroids)
    return Fit(
        centroids=centroids,
        labels=found.labels,
        distances_squared=found.distances_squared,
        inertia=weighted(found.distances_squared, weights),
        n_iterations=n_iterations,
        has_converged=has_converged,
    )
