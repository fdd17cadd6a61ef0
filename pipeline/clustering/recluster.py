"""A full reclustering as a decision on arrays: fit, align, judge. Publishing is somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.alignment import Alignment, align, aligned
from pipeline.clustering.fitting import FitSettings, Fitting
from pipeline.clustering.kmeans import centroids_of
from pipeline.clustering.profile import Profiles, profiles
from pipeline.errors import PipelineError
from pipeline.kernels.contract import Assignment, Kernels, Points, Weights

__all__ = ["Candidate", "FitSettings", "merge_clusters", "propose", "restated", "split_cluster"]


class IndivisibleError(PipelineError):
    """All members of a cluster that are in the sample lie in one place, or there are none."""

    def __init__(self, n_members: int) -> None:
        super().__init__(
            "the cluster cannot be split: its members in the sample must lie in two places at "
            f"least, and there {'is' if n_members == 1 else 'are'} {n_members}"
            + (", all in one" if n_members > 1 else "")
        )


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """New centroids, and whose heirs they are.

    Of a fit, clusters are ordered: heirs in the order of the incumbent, then the newborn.
    """

    centroids: Points  # (n_clusters, n_dims)
    profiles: Profiles
    """Of the points, each counted once."""
    alignment: Alignment
    inertia_before: float | None
    """Of the same points under the incumbent; None without one."""
    inertia_after: float
    gain: float
    """The share of the incumbent's inertia that the candidate saves; 0 without one."""
    n_iterations: int
    """Passes over the points, of all fits together."""
    is_comparable: bool
    """Whether the gain judges the fit: as many clusters as the incumbent has, and none of them
    split or merged by a test, which has judged already."""
    is_converged: bool = True
    """Whether the fit came to its end; ``max_iterations`` may have come first."""

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
    weights: Weights | None = None,
    on_pass: Callable[[int, float], None] | None = None,
    is_cancelled: Callable[[], bool] | None = None,
    at: Callable[[str], None] = lambda phase: None,
) -> Candidate:
    """Fit ``points``, align the clusters found with the incumbent's, and say what they save.

    Warm from the incumbent's centroids, resized where another number of clusters is wanted, then
    bettered by relocation. Cold without an incumbent, when told so, and where the warm start did
    not converge well. Fewer distinct points than clusters give as many clusters as there are
    points.

    All rows fit, and all judge. Rows held out from the candidate would not be held out from the
    incumbent, whose centroids follow all members between two fits: its cells have formed around
    those rows, also where its centroids are taken as means of the others, and it looks better on
    them than it is. Measured on a real stream, against items that neither had seen, that judge
    told 0.4 to 0.6 % of the inertia too little, as much as a recluster saves; this one is 0.2 %
    off. With few points a cluster and nothing to find in them, it tells a percent too much.

    Parameters
    ----------
    points : (n, n_dims) float32, n >= 1
        Rows ordered by item id, so that the same items give the same result.
    incumbent : (n_old, n_dims) float32, optional
    weights : (n,) float64, optional
        How much each point counts, as `pipeline.clustering.kmeans.fit` takes it.
    on_pass
        Called with the number of passes so far, and the inertia before the last one.
    at
        Told what begins: ``fit``, ``align``, ``judge``; a time is its affair.

    Raises
    ------
    FitCancelledError
    """
    at("fit")
    fitting = Fitting(settings, kernels, on_pass, is_cancelled)
    found, is_changed = fitting.best(points, weights, None if is_cold else incumbent)
    at("align")
    before = None if incumbent is None else kernels.assign(kernels.load(incumbent), points)
    n_new, n_old = len(found.centroids), 0 if incumbent is None else len(incumbent)
    old_labels = np.full(len(points), -1, np.int32) if before is None else before.labels
    alignment = align(old_labels, found.labels, n_old, n_new)
    order = _order(alignment.heirs)
    at("judge")
    inertia_before = None if before is None else _inertia(before, weights)
    return Candidate(
        centroids=found.centroids[order],
        profiles=profiles(found.labels, found.distances_squared, n_new).reordered(order),
        alignment=alignment.reordered(order),
        inertia_before=inertia_before,
        inertia_after=found.inertia,
        gain=_gain(inertia_before, found.inertia),
        n_iterations=fitting.n_passes,
        is_comparable=incumbent is not None and n_old == n_new and not is_changed,
        is_converged=found.has_converged,
    )


def split_cluster(
    points: Points,
    incumbent: Points,
    label: int,
    settings: FitSettings,
    *,
    kernels: Kernels,
    weights: Weights | None = None,
    is_cancelled: Callable[[], bool] | None = None,
    at: Callable[[str], None] = lambda phase: None,
) -> Candidate:
    """Two clusters for one; the others stay where they are.

    The half with more members takes the label over, the other one comes last.

    Raises
    ------
    IndivisibleError
    FitCancelledError
    """
    at("fit")
    labels = kernels.assign(kernels.load(incumbent), points).labels
    members = np.flatnonzero(labels == label)
    fitting = Fitting(settings, kernels, None, is_cancelled)
    halves = fitting.divided(points[members], _rows(weights, members), settings.max_iterations)
    if halves is None:
        raise IndivisibleError(len(members))
    larger = int(np.bincount(halves.labels, minlength=2).argmax())
    centroids = np.concatenate([incumbent, halves.centroids[1 - larger][None]])
    centroids[label] = halves.centroids[larger]
    heirs = np.append(np.arange(len(incumbent)), -1).astype(np.int32)
    return restated(points, centroids, incumbent, heirs, kernels=kernels, weights=weights, at=at)


def merge_clusters(
    points: Points,
    incumbent: Points,
    labels: Sequence[int],
    settings: FitSettings,
    *,
    kernels: Kernels,
    weights: Weights | None = None,
    at: Callable[[str], None] = lambda phase: None,
) -> Candidate:
    """One cluster for several, at the mean of their members; the others stay where they are.

    The one with the most members goes on, then the lower label; the rest retire.

    Raises
    ------
    ValueError
        Fewer than two different labels.
    """
    merged = np.unique(np.asarray(labels, np.int64))
    if len(merged) < 2:
        raise ValueError(f"{len(merged)} clusters are to be merged, but it takes two")
    at("fit")
    found = kernels.assign(kernels.load(incumbent), points).labels
    counts = np.bincount(found, minlength=len(incumbent))[merged]
    heir = int(merged[counts.argmax()])
    inside = np.where(np.isin(found, merged), np.int32(heir), np.int32(-1))
    centroids = centroids_of(
        points,
        inside,
        incumbent,
        kernels=kernels,
        max_component=settings.max_component,
        spherical=settings.spherical,
        weights=weights,
    )
    heirs = np.setdiff1d(np.arange(len(incumbent)), merged[merged != heir]).astype(np.int32)
    return restated(
        points, centroids[heirs], incumbent, heirs, kernels=kernels, weights=weights, at=at
    )


def restated(
    points: Points,
    centroids: Points,
    incumbent: Points,
    heirs: NDArray[np.int32],
    *,
    kernels: Kernels,
    weights: Weights | None = None,
    at: Callable[[str], None] = lambda phase: None,
) -> Candidate:
    """Given centroids as they are, with given heirs: somebody else has decided.

    Parameters
    ----------
    centroids : (n_new, n_dims) float32
        They stay in this order.
    heirs : (n_new,) int32
        The label of the incumbent that each takes over; -1: none.
    """
    at("align")
    before = kernels.assign(kernels.load(incumbent), points)
    after = kernels.assign(kernels.load(centroids), points)
    alignment = aligned(before.labels, after.labels, len(incumbent), heirs)
    at("judge")
    then, now = _inertia(before, weights), _inertia(after, weights)
    return Candidate(
        centroids=centroids,
        profiles=profiles(after.labels, after.distances_squared, len(centroids)),
        alignment=alignment,
        inertia_before=then,
        inertia_after=now,
        gain=_gain(then, now),
        n_iterations=0,
        is_comparable=len(centroids) == len(incumbent),
    )


def _rows(weights: Weights | None, rows: NDArray[np.intp]) -> Weights | None:
    return None if weights is None else weights[rows]


def _inertia(found: Assignment, weights: Weights | None) -> float:
    distances = found.distances_squared
    return float((distances if weights is None else distances * weights).sum())


def _gain(before: float | None, after: float) -> float:
    return 1.0 - after / before if before else 0.0  # no incumbent, or nothing left to save


def _order(heirs: NDArray[np.int32]) -> NDArray[np.intp]:
    """Heirs first, in the order of the incumbent: a tie goes where it went before."""
    return np.lexsort((np.arange(len(heirs)), np.where(heirs < 0, np.iinfo(np.int32).max, heirs)))
