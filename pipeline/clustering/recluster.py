"""A full reclustering as a decision on arrays: fit, align, judge. Publishing is somebody else's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.alignment import Alignment, align
from pipeline.clustering.kmeans import FewerPointsError, Fit, fit
from pipeline.clustering.relocation import improved
from pipeline.kernels.contract import Kernels, Points


@dataclass(frozen=True, slots=True)
class FitSettings:
    """What a fit is told besides its points."""

    n_clusters: int
    seed: int
    max_iterations: int
    max_component: float
    spherical: bool
    """Cosine: centroids are unit vectors."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """New centroids, and whose heirs they are.

    Clusters are ordered: heirs in the order of the incumbent, then the newborn.
    """

    centroids: Points  # (n_clusters, n_dims)
    counts: NDArray[np.int64]  # (n_clusters,) of the points
    mean_squared_distances: NDArray[np.float64]  # (n_clusters,); 0 without members
    alignment: Alignment
    inertia_before: float | None
    """Of the same points under the incumbent; None without one."""
    inertia_after: float
    n_iterations: int
    is_comparable: bool
    """Whether the inertias judge the fit: both models have the same number of clusters."""

    @property
    def gain(self) -> float:
        """The share of the incumbent's inertia that the candidate saves."""
        if not self.inertia_before:  # none, or nothing left to save
            return 0.0
        return 1.0 - self.inertia_after / self.inertia_before

    def beats_incumbent(self, min_gain: float) -> bool:
        """Whether it is worth the moves it costs."""
        return not self.is_comparable or self.gain >= min_gain


def propose(
    points: Points,
    incumbent: Points | None,
    settings: FitSettings,
    *,
    kernels: Kernels,
    is_cold: bool = False,
    on_pass: Callable[[int, float], None] | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Candidate:
    """Fit ``points``, and align the clusters found with the incumbent's.

    Warm from the incumbent's centroids; cold without one, for another number of clusters, or
    when told so. Fewer distinct points than clusters give as many clusters as there are points.

    Parameters
    ----------
    points : (n, n_dims) float32, n >= 1
        Rows ordered by item id, so that the same items give the same result.
    incumbent : (n_old, n_dims) float32, optional
    """
    before = None if incumbent is None else kernels.assign(kernels.load(incumbent), points)
    is_warm = incumbent is not None and len(incumbent) == settings.n_clusters and not is_cold

    def run(n_clusters: int, start: Points | None) -> Fit:
        return fit(
            points,
            n_clusters,
            kernels=kernels,
            seed=settings.seed,
            start=start,
            max_iterations=settings.max_iterations,
            max_component=settings.max_component,
            spherical=settings.spherical,
            on_pass=on_pass,
            is_cancelled=is_cancelled,
        )

    try:
        found = run(settings.n_clusters, incumbent if is_warm else None)
    except FewerPointsError as error:
        found = run(error.n_distinct, None)
    found = improved(points, found, kernels=kernels, refit=lambda start: run(len(start), start))
    n_new, n_old = len(found.centroids), 0 if incumbent is None else len(incumbent)

    old_labels = np.full(len(points), -1, np.int32) if before is None else before.labels
    alignment = align(old_labels, found.labels, n_old, n_new)
    counts = np.bincount(found.labels, minlength=n_new).astype(np.int64)
    squared = np.bincount(found.labels, found.distances_squared, n_new)
    return _ordered(
        Candidate(
            centroids=found.centroids,
            counts=counts,
            mean_squared_distances=squared / np.maximum(counts, 1),
            alignment=alignment,
            inertia_before=None if before is None else float(before.distances_squared.sum()),
            inertia_after=found.inertia,
            n_iterations=found.n_iterations,
            is_comparable=incumbent is not None and n_old == n_new,
        )
    )


def _ordered(candidate: Candidate) -> Candidate:
    """Heirs first, in the order of the incumbent: a tie goes where it went before."""
    alignment = candidate.alignment
    heirs = alignment.heirs
    order = np.lexsort((np.arange(len(heirs)), np.where(heirs < 0, np.iinfo(np.int32).max, heirs)))
    return Candidate(
        centroids=candidate.centroids[order],
        counts=candidate.counts[order],
        mean_squared_distances=candidate.mean_squared_distances[order],
        alignment=alignment.reordered(order),
        inertia_before=candidate.inertia_before,
        inertia_after=candidate.inertia_after,
        n_iterations=candidate.n_iterations,
        is_comparable=candidate.is_comparable,
    )
