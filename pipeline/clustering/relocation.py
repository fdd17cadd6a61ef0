"""Out of a local optimum: centroids that hardly help jump into clusters that need another one.

Lloyd only moves a centroid a little; it never takes one from a region that has too many to one that
has too few. A stream changes which regions those are, so a warm start inherits the mistake, and
keeps it. That one takes the cheapest centroid away and divides the cluster that gains most is the
idea of "I-k-means-+: an iterative clustering algorithm based on an enhanced version of the
k-means", 2018; that several jump at once, fewer from round to round, is that of "Breathing
k-means", 2020. What a jump costs and what it saves is worked out here, to the first step of Lloyd.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.kmeans import Fit
from pipeline.kernels.contract import Kernels, Labels, Points, Weights

MAX_ROUNDS = 60
MAX_FAILURES = 6
"""Jumps that did not pay, in a row and each by itself, after which there is none that does."""
MIN_GAIN = 0.0002
"""A round that saves less of the inertia is not worth its moves."""
JUMPERS = 5
"""At most one centroid of so many jumps in a round."""
MAX_JUMPERS = 200
CANDIDATES = 4
"""So many times more clusters are looked at than can jump, or be jumped into."""
SPARE_CANDIDATES = 8
COST_SHARE = 0.8
"""What a jump saves must be above this share of its cost: fitting lowers the one, raises the other.
"""
BACKUP_SHARE = 0.2
"""A cluster that would get so much of another's members is one that it relies on."""

Divide = Callable[[Points, Weights | None], Fit | None]
"""Two clusters of points; None where they all lie in one place."""


def improved(
    points: Points,
    found: Fit,
    *,
    kernels: Kernels,
    refit: Callable[[Points], Fit],
    divide: Divide,
    weights: Weights | None = None,
) -> Fit:
    """Let centroids jump and fit again, as long as it pays; ``found`` if it never does.

    When a round does not pay, half as many jump; when a single jump does not, it is the next best
    one's turn. The same attempts come again on the same points, so a fit that starts from the
    result ends near it.

    Parameters
    ----------
    points : (n_points, n_dims) float32
    refit
        Fits the points from given centroids.
    divide
        Fits two clusters to some of the points.
    weights : (n_points,) float64, optional
        As `pipeline.clustering.kmeans.fit` got them.
    """
    n_jumpers = min(max(1, len(found.centroids) // JUMPERS), MAX_JUMPERS)
    gains = _Gains(points, divide, weights)
    failed: set[tuple[bytes, bytes]] = set()
    n_failures = 0
    for _ in range(MAX_ROUNDS if len(found.centroids) > 1 else 0):
        jumps = _jumps(points, found, n_jumpers, kernels, gains, failed)
        if not jumps:
            break
        candidate = refit(_jumped(found.centroids, jumps))
        if candidate.inertia < (1.0 - MIN_GAIN) * found.inertia:
            found, n_failures = candidate, 0
        elif len(jumps) > 1:
            n_jumpers = len(jumps) // 2
        else:
            n_failures += 1
            if n_failures == MAX_FAILURES:
                break
            failed.add(_key(found.centroids, jumps[0]))
    return found


def resized(
    points: Points,
    centroids: Points,
    n_wanted: int,
    *,
    kernels: Kernels,
    divide: Divide,
    weights: Weights | None = None,
) -> Points:
    """So many centroids, and as many of the given ones as can be: a start for a fit.

    The cheapest to do without are removed, or the clusters divided that gain most. It ends with
    fewer than ``n_wanted`` where no cluster can be divided any more.
    """
    gains = _Gains(points, divide, weights)
    while len(centroids) != n_wanted:
        clusters = _Clusters.of(points, centroids, kernels, weights)
        if len(centroids) > n_wanted:
            at_once = max(1, len(centroids) // JUMPERS)
            surplus = min(len(centroids) - n_wanted, at_once)
            centroids = np.delete(centroids, list(_removable(clusters, surplus)), axis=0)
            continue
        missing = min(n_wanted - len(centroids), len(centroids))
        best = [one for one in gains.of(clusters, missing) if one.saved > 0.0][:missing]
        if not best:
            break
        centroids = centroids.copy()
        for one in best:
            centroids[one.label] = one.halves[0]
        centroids = np.concatenate([centroids, np.stack([one.halves[1] for one in best])])
    return centroids


class _Loss(NamedTuple):
    """What the inertia gains when a centroid goes, and its members go where they are next."""

    label: int
    cost: float
    backups: frozenset[int]
    """Clusters that it relies on for that: they must stay."""


class _Division(NamedTuple):
    """What the inertia loses when a cluster is divided, and the centroids of its halves."""

    label: int
    saved: float
    halves: Points


class _Jump(NamedTuple):
    jumper: int
    target: int
    halves: Points


@dataclass(frozen=True, slots=True, eq=False)
class _Clusters:
    """Points by their cluster, and where they would go next."""

    points: Points
    weights: Weights | None
    centroids: Points
    distances_squared: NDArray[np.float64]
    second_labels: Labels
    second_distances_squared: NDArray[np.float64]
    rows: NDArray[np.intp]  # (n_points,) ordered by cluster
    starts: NDArray[np.int64]  # (n_clusters + 1,) where each begins in them
    sizes: NDArray[np.float64]  # (n_clusters,) weight of the members
    errors: NDArray[np.float64]  # (n_clusters,) their part of the inertia

    @classmethod
    def of(
        cls, points: Points, centroids: Points, kernels: Kernels, weights: Weights | None
    ) -> _Clusters:
        both = kernels.assign(kernels.load(centroids), points, second=True)
        assert both.second_labels is not None
        assert both.second_distances_squared is not None
        n = len(centroids)
        counts = np.bincount(both.labels, minlength=n)
        heaviness = np.ones(len(points)) if weights is None else weights
        return cls(
            points=points,
            weights=weights,
            centroids=centroids,
            distances_squared=both.distances_squared,
            second_labels=both.second_labels,
            second_distances_squared=both.second_distances_squared,
            rows=np.argsort(both.labels, kind="stable"),
            starts=np.concatenate([[0], np.cumsum(counts)]),
            sizes=np.bincount(both.labels, heaviness, n).astype(np.float64),
            errors=np.bincount(both.labels, heaviness * both.distances_squared, n).astype(
                np.float64
            ),
        )

    def members(self, label: int) -> NDArray[np.intp]:
        return self.rows[self.starts[label] : self.starts[label + 1]]

    def losses(self, n: int) -> list[_Loss]:
        """The cheapest centroids to do without; of the ``n`` that are so at first sight."""
        extra = self.second_distances_squared - self.distances_squared
        if self.weights is not None:
            extra = extra * self.weights
        ordered = np.concatenate([[0.0], np.cumsum(extra[self.rows])])
        at_first_sight = ordered[self.starts[1:]] - ordered[self.starts[:-1]]
        cheapest = np.argsort(at_first_sight, kind="stable")[:n].tolist()
        return sorted((self._loss(label, extra) for label in cheapest), key=lambda one: one.cost)

    def _loss(self, label: int, extra: NDArray[np.float64]) -> _Loss:
        """Exactly after one step of Lloyd, for means: centroids that get members move to meet them.

        Points of weight ``w`` with mean ``m`` that join a cluster of weight ``v`` and mean ``c``
        add ``w*v / (w+v) * |m-c|**2`` to the inertia, and not ``w * |m-c|**2``.
        """
        members = self.members(label)
        members = members[np.argsort(self.second_labels[members], kind="stable")]
        if not len(members):
            return _Loss(label, 0.0, frozenset())
        backups, first = np.unique(self.second_labels[members], return_index=True)
        heaviness = np.ones(len(members)) if self.weights is None else self.weights[members]
        sizes = np.add.reduceat(heaviness, first)
        wide = self.points[members] * heaviness[:, None]
        means = np.add.reduceat(wide, first, axis=0) / sizes[:, None]
        apart = np.square(means - self.centroids[backups]).sum(axis=1)
        met = sizes**2 / (sizes + self.sizes[backups]) * apart
        relied_on = backups[sizes >= BACKUP_SHARE * sizes.sum()]
        cost = float(extra[members].sum() - met.sum())
        return _Loss(label, cost, frozenset(relied_on.tolist()))


@dataclass(slots=True, eq=False)
class _Gains:
    """What divisions save, with what is known already: most clusters stay from round to round."""

    points: Points
    divide: Divide
    weights: Weights | None
    known: dict[tuple[bytes, int], tuple[float, Points]] = field(default_factory=dict)

    def of(self, clusters: _Clusters, n: int) -> list[_Division]:
        """The best first; of those with the largest errors."""
        largest = np.argsort(-clusters.errors, kind="stable")[: CANDIDATES * n + SPARE_CANDIDATES]
        found = [self._of(clusters, label) for label in largest.tolist()]
        return sorted(found, key=lambda one: -one.saved)

    def _of(self, clusters: _Clusters, label: int) -> _Division:
        members = clusters.members(label)
        key = clusters.centroids[label].tobytes(), len(members)
        if key not in self.known:
            heaviness = None if self.weights is None else self.weights[members]
            halves = self.divide(self.points[members], heaviness) if len(members) > 1 else None
            if halves is None:
                self.known[key] = 0.0, clusters.centroids[[label, label]]
            else:
                saved = float(clusters.errors[label]) - halves.inertia
                self.known[key] = saved, halves.centroids
        return _Division(label, *self.known[key])


def _jumps(
    points: Points,
    found: Fit,
    n: int,
    kernels: Kernels,
    gains: _Gains,
    failed: Collection[tuple[bytes, bytes]],
) -> list[_Jump]:
    """At most ``n``, no two of which meddle with each other: the most promising pairs."""
    clusters = _Clusters.of(points, found.centroids, kernels, gains.weights)
    divisions = gains.of(clusters, n)
    jumps: list[_Jump] = []
    gone: set[int] = set()
    kept: set[int] = set()
    for loss in clusters.losses(CANDIDATES * n + SPARE_CANDIDATES):
        if len(jumps) == n:
            break
        if loss.label in kept or loss.backups & gone:
            continue
        for division in divisions:
            jump = _Jump(loss.label, division.label, division.halves)
            is_free = division.label not in gone | kept | {loss.label}
            if is_free and _key(found.centroids, jump) not in failed:
                break
        else:
            break
        if division.saved <= COST_SHARE * loss.cost:
            break
        jumps.append(jump)
        gone.add(loss.label)
        kept |= {division.label} | loss.backups
    return jumps


def _jumped(centroids: Points, jumps: list[_Jump]) -> Points:
    start = centroids.copy()
    for jump in jumps:
        start[jump.target], start[jump.jumper] = jump.halves
    return start


def _removable(clusters: _Clusters, n: int) -> Iterator[int]:
    """At least one and at most ``n`` labels that do not rely on each other, the cheapest first."""
    gone: set[int] = set()
    kept: set[int] = set()
    for loss in clusters.losses(CANDIDATES * n + SPARE_CANDIDATES):
        if len(gone) == n:
            break
        if loss.label not in kept and not loss.backups & gone:
            gone.add(loss.label)
            kept |= loss.backups
            yield loss.label


def _key(centroids: Points, jump: _Jump) -> tuple[bytes, bytes]:
    return centroids[jump.jumper].tobytes(), centroids[jump.target].tobytes()
