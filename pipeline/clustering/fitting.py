"""Which fits are tried and which is taken: warm, warm with relocation, cold, or what tests say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

from pipeline.clustering.auto import adapted
from pipeline.clustering.kmeans import MAX_CLUSTERS, FewerPointsError, Fit, fit
from pipeline.clustering.relocation import improved, resized
from pipeline.clustering.seeding import n_distinct
from pipeline.kernels.contract import Kernels, Points, Weights

MAX_RELOCATED = 0.03
"""A warm start that relocation had to better by more stood in the wrong place."""
MAX_RESIZED = 0.1
"""So did one whose number of clusters had to change by more."""
MIN_COLD_ADVANTAGE = 0.005
"""A cold start moves most items: it is taken only if it saves so much more."""
DIVIDING_PASSES = 10  # what a division saves is known to some percent by then


@dataclass(frozen=True, slots=True)
class FitSettings:
    """What a fit is told besides its points."""

    n_clusters: int
    """Means nothing where ``is_auto``."""
    seed: int
    max_iterations: int
    max_component: float
    spherical: bool
    """Cosine: centroids are unit vectors."""
    is_auto: bool = False
    """As many clusters as tests tell apart, within the limits."""
    min_clusters: int = 2
    max_clusters: int = MAX_CLUSTERS


@dataclass(slots=True, eq=False)
class Fitting:
    """The fits of one proposal."""

    settings: FitSettings
    kernels: Kernels
    on_pass: Callable[[int, float], None] | None
    is_cancelled: Callable[[], bool] | None
    n_passes: int = 0

    def run(
        self, points: Points, weights: Weights | None, n_clusters: int, start: Points | None
    ) -> Fit:
        """Lloyd alone."""
        n_before = self.n_passes

        def passed(n: int, left: float) -> None:
            if self.on_pass is not None:
                self.on_pass(n_before + n, left)

        found = fit(
            points,
            n_clusters,
            kernels=self.kernels,
            seed=self.settings.seed,
            start=start,
            weights=weights,
            max_iterations=self.settings.max_iterations,
            max_component=self.settings.max_component,
            spherical=self.settings.spherical,
            on_pass=passed,
            is_cancelled=self.is_cancelled,
        )
        self.n_passes += found.n_iterations
        return found

    def best(
        self, points: Points, weights: Weights | None, incumbent: Points | None
    ) -> tuple[Fit, bool]:
        """What is proposed, and whether a test has changed what there was."""
        if self.settings.is_auto:
            return self._by_tests(points, weights, incumbent)
        return self._warm_or_cold(points, weights, incumbent), False

    def _warm_or_cold(
        self, points: Points, weights: Weights | None, incumbent: Points | None
    ) -> Fit:
        """Of a fixed number of clusters: warm, unless there is a reason."""
        n_clusters = n_distinct(points, at_most=self.settings.n_clusters)
        if incumbent is None:
            return self._relocated(points, weights, self.run(points, weights, n_clusters, None))
        start = self._resized(points, weights, incumbent, n_clusters)
        first = self.run(points, weights, len(start), start)
        warm = self._relocated(points, weights, first)
        has_begun_well = (
            first.has_converged
            and warm.inertia >= (1.0 - MAX_RELOCATED) * first.inertia
            and abs(len(incumbent) - n_clusters) <= MAX_RESIZED * n_clusters
        )
        if has_begun_well and len(start) == n_clusters:
            return warm
        cold = self._relocated(points, weights, self.run(points, weights, n_clusters, None))
        is_short = len(start) != n_clusters
        is_better = cold.inertia < (1.0 - MIN_COLD_ADVANTAGE) * warm.inertia
        return cold if is_short or is_better else warm

    def _by_tests(
        self, points: Points, weights: Weights | None, incumbent: Points | None
    ) -> tuple[Fit, bool]:
        """As many clusters as tests tell apart.

        Relocation has no say: it would divide what a test has just merged.
        """
        least, most = self.settings.min_clusters, self.settings.max_clusters
        if incumbent is None:  # many are merged more surely than few are split
            n_wanted, start = min(max(isqrt(len(points)), least), most), None
        else:
            n_wanted, start = min(max(len(incumbent), least), most), incumbent
        n_clusters = n_distinct(points, at_most=n_wanted)
        if start is not None:
            start = self._resized(points, weights, start, n_clusters)
            n_clusters = len(start)
        first = self.run(points, weights, n_clusters, start)
        found = adapted(
            points,
            first,
            min_clusters=least,
            max_clusters=most,
            kernels=self.kernels,
            refit=lambda centroids: self.run(points, weights, len(centroids), centroids),
            seed=self.settings.seed,
            is_cancelled=self.is_cancelled,
        )
        return found, found is not first

    def _relocated(self, points: Points, weights: Weights | None, found: Fit) -> Fit:
        return improved(
            points,
            found,
            kernels=self.kernels,
            refit=lambda start: self.run(points, weights, len(start), start),
            divide=self.divided,
            weights=weights,
        )

    def _resized(
        self, points: Points, weights: Weights | None, centroids: Points, n_clusters: int
    ) -> Points:
        return resized(
            points,
            centroids,
            n_clusters,
            kernels=self.kernels,
            divide=self.divided,
            weights=weights,
        )

    def divided(
        self, points: Points, weights: Weights | None, max_passes: int = DIVIDING_PASSES
    ) -> Fit | None:
        """Two clusters of some points; None where they lie in one place."""
        try:
            return fit(
                points,
                2,
                kernels=self.kernels,
                seed=self.settings.seed,
                weights=weights,
                max_iterations=max_passes,
                max_component=self.settings.max_component,
                spherical=self.settings.spherical,
                is_cancelled=self.is_cancelled,
            )
        except FewerPointsError:
            return None
