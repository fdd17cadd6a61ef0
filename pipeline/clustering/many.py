"""Thousands of small models in one call: a tenant each, tens to thousands of points.

A fit of a hundred points is over before a library has looked at its arguments. So a batch is
handed over whole, where the twin takes batches, and a thread does a problem from beginning to
end. Each gets the bytes that `pipeline.clustering.kmeans.fit` gives it alone, whatever stands
beside it; what is too large for one thread, and every problem where the twin takes no batches,
is fitted by `fit` itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.clustering.kmeans import FewerPointsError, Fit, fit
from pipeline.clustering.seeding import MAX_SEED_WORK, MIN_SEED_POINTS, seed_of
from pipeline.kernels.contract import (
    Assignment,
    Kernels,
    Labels,
    ManyFits,
    ManyKernels,
    Points,
    Problems,
    Sums,
    Weights,
)

Starts = NDArray[np.int64]  # (n_problems + 1,): rows starts[p] to starts[p + 1] are those of p


@dataclass(frozen=True, slots=True, eq=False)
class FitMany:
    """A clustering of each problem; arrays by row in the order of the rows."""

    centroids: Points  # (all clusters, n_dims)
    centroid_starts: Starts  # (n_problems + 1,): fewer clusters than asked for where there are
    # fewer distinct rows, and none where there are no rows
    labels: Labels  # (n_points,): within the problem, from 0
    distances_squared: NDArray[np.float64]  # (n_points,): canonical
    inertias: NDArray[np.float64]  # (n_problems,)
    n_iterations: NDArray[np.int64]  # (n_problems,): 0 without rows
    has_converged: NDArray[np.bool_]  # (n_problems,)

    @property
    def n_clusters(self) -> NDArray[np.int64]:
        """(n_problems,): of each problem."""
        return np.diff(self.centroid_starts)


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Arguments of `fit_many`, one for each problem."""

    points: Points
    starts: Starts
    wanted: NDArray[np.int64]  # (n_problems,): clusters, no more than rows
    seeds: NDArray[np.integer]  # (n_problems,)
    max_component: NDArray[np.float64]  # (n_problems,)
    weights: Weights | None
    n_init: int
    max_iterations: int
    tol: float
    spherical: bool


def problem_seeds(seed: int, n_problems: int) -> NDArray[np.uint64]:
    """The seed of each problem: it depends on ``seed`` and its number, not on how many follow."""
    state = np.random.SeedSequence(seed).generate_state(n_problems, np.uint64)
    return state.astype(np.uint64, copy=False)


def fit_many(
    points: Points,
    starts: Starts,
    n_clusters: ArrayLike,
    *,
    kernels: Kernels,
    seed: int | NDArray[np.integer],
    max_component: ArrayLike,
    n_init: int = 1,
    weights: Weights | None = None,
    max_iterations: int = 300,
    tol: float = 1e-4,
    spherical: bool = False,
) -> FitMany:
    """`fit` of every problem, from greedy k-means++.

    Parameters
    ----------
    points : (n_points, n_dims) float32
        Grouped by problem.
    starts : (n_problems + 1,) int64
        Rows ``starts[p]`` to ``starts[p + 1]`` are those of problem p; it may have none.
    n_clusters : int or (n_problems,) int
        At least 1. A problem with fewer distinct rows gets as many as those are.
    seed : int or (n_problems,) int
        One for all is spread by `problem_seeds`.
    max_component : float or (n_problems,) float
        A power of two, which no component of the problem is above.
    n_init
        So many starts each; the one with the least inertia is kept, the earlier of equal ones.
    weights, max_iterations, tol, spherical
        See `fit`.

    Raises
    ------
    ValueError
        Arguments that contradict each other.
    """
    _check_starts(starts, len(points), "points")
    n_problems = len(starts) - 1
    wanted = np.broadcast_to(np.asarray(n_clusters, np.int64), n_problems)
    batch = _Batch(
        points=points,
        starts=starts,
        wanted=np.minimum(wanted, np.diff(starts)),
        seeds=np.asarray(seed) if np.ndim(seed) else problem_seeds(int(seed), n_problems),
        max_component=np.broadcast_to(np.asarray(max_component, np.float64), n_problems),
        weights=weights,
        n_init=n_init,
        max_iterations=max_iterations,
        tol=tol,
        spherical=spherical,
    )
    if n_problems and wanted.min() < 1:
        raise ValueError(f"{wanted.min()} clusters in a problem, but there must be at least 1")
    if n_init < 1:
        raise ValueError(f"n_init is {n_init}, but must be at least 1")
    if batch.seeds.shape != (n_problems,):
        raise ValueError(f"seeds of {batch.seeds.shape} for {n_problems} problems")
    return _packed(_fitted(batch, kernels), batch)


def assign_many(
    points: Points,
    starts: Starts,
    centroids: Points,
    centroid_starts: Starts,
    *,
    kernels: Kernels,
) -> Assignment:
    """`Kernels.assign` of the rows of each problem to its own centroids.

    Labels count within a problem, from 0. Of problem p are the rows ``starts[p]`` to
    ``starts[p + 1]`` and the centroids ``centroid_starts[p]`` to ``centroid_starts[p + 1]``; one
    without rows may have no centroids either.

    Raises
    ------
    ValueError
        Arguments that contradict each other.
    """
    _check_starts(starts, len(points), "points")
    _check_starts(centroid_starts, len(centroids), "centroids")
    if len(starts) != len(centroid_starts):
        raise ValueError(f"{len(starts) - 1} problems, but models of {len(centroid_starts) - 1}")
    if points.shape[1] != centroids.shape[1]:
        raise ValueError(f"points of {points.shape[1]}, but centroids of {centroids.shape[1]}")
    if ((np.diff(starts) > 0) & (np.diff(centroid_starts) == 0)).any():
        raise ValueError("a problem has points, but no centroids")
    if isinstance(kernels, ManyKernels):
        return kernels.assign_many(points, starts, centroids, centroid_starts)
    n_points = len(points)
    found = Assignment(
        np.empty(n_points, np.int32), np.empty(n_points, np.float64), np.empty(n_points, np.float32)
    )
    for p in np.flatnonzero(np.diff(starts)).tolist():
        rows = slice(starts[p], starts[p + 1])
        model = kernels.load(centroids[centroid_starts[p] : centroid_starts[p + 1]])
        own = kernels.assign(model, points[rows])
        found.labels[rows], found.distances_squared[rows] = own.labels, own.distances_squared
        found.gaps[rows] = own.gaps
    return found


def _check_starts(starts: Starts, n_rows: int, what: str) -> None:
    if starts.ndim != 1 or starts.dtype != np.int64 or not len(starts):
        raise ValueError(f"the starts of {what} are {starts.dtype} {starts.shape}")
    if starts[0] != 0 or starts[-1] != n_rows or (np.diff(starts) < 0).any():
        raise ValueError(f"the starts of {what} do not rise from 0 to {n_rows}")


def _n_trials(n_clusters: int) -> NDArray[np.int64]:
    """Candidates that a step of `pipeline.clustering.seeding` draws, for each number of seeds."""
    return np.array([2 + int(math.log(max(k, 1))) for k in range(n_clusters + 1)], np.int64)


def _fitted(batch: _Batch, kernels: Kernels) -> ManyFits:
    """What is small together, the rest alone."""
    if not isinstance(kernels, ManyKernels):
        return _fit_alone(batch, kernels)
    is_small = _is_small(batch)
    together = _fit_together(_only(batch, is_small), kernels)
    if is_small.all():
        return together
    alone = _fit_alone(_only(batch, ~is_small), kernels)
    of_row = np.repeat(is_small, np.diff(batch.starts))
    of_cluster = np.repeat(is_small, batch.wanted)
    centroids = np.empty((len(of_cluster), batch.points.shape[1]), np.float32)
    centroids[of_cluster], centroids[~of_cluster] = together.centroids, alone.centroids
    return ManyFits(
        centroids,
        np.where(of_row, together.labels, alone.labels),
        np.where(of_row, together.distances_squared, alone.distances_squared),
        *(np.where(is_small, a, b) for a, b in zip(together[3:], alone[3:], strict=True)),
    )


def _only(batch: _Batch, these: NDArray[np.bool_]) -> _Batch:
    """The others want no clusters, and get none."""
    return replace(batch, wanted=np.where(these, batch.wanted, 0))


def _is_small(batch: _Batch) -> NDArray[np.bool_]:
    """Whether all rows take part in the choice of seeds, as they do in a batch."""
    n_rows = np.diff(batch.starts)
    n_trials = _n_trials(int(batch.wanted.max(initial=0)))[batch.wanted]
    work = batch.wanted * n_rows * batch.points.shape[1] * n_trials
    is_small: NDArray[np.bool_] = (n_rows <= MIN_SEED_POINTS) & (work <= MAX_SEED_WORK)
    return is_small


def _problems(batch: _Batch) -> Problems:
    """Each start of each problem, with its random numbers in the order in which `fit` draws."""
    is_weighted = batch.weights is not None
    n_rows, wanted = (
        np.tile(np.diff(batch.starts), batch.n_init),
        np.tile(batch.wanted, batch.n_init),
    )
    n_trials = _n_trials(int(wanted.max(initial=0)))
    n_numbers = np.maximum(wanted - 1, 0) * n_trials[wanted] + (is_weighted & (wanted > 0))
    lasts = np.cumsum(n_numbers)
    first_numbers = lasts - n_numbers
    numbers, first_seeds = np.empty(n_numbers.sum()), np.full(len(wanted), -1, np.int64)
    seeds = [seed_of(s, number) for number in range(batch.n_init) for s in batch.seeds.tolist()]
    for p in np.flatnonzero(wanted).tolist():
        rng = np.random.default_rng(seeds[p])
        if not is_weighted:
            first_seeds[p] = rng.integers(n_rows[p])
        rng.random(out=numbers[first_numbers[p] : lasts[p]])
    sizes, which = np.unique(batch.max_component, return_inverse=True)
    sums = [Sums.zeros(0, 0, max_component=size, is_weighted=is_weighted) for size in sizes]
    units = np.array([(s.unit, s.square_unit) for s in sums]).reshape(-1, 2)[which]
    return Problems(
        first_rows=np.tile(batch.starts[:-1], batch.n_init),
        n_rows=n_rows,
        n_clusters=wanted,
        units=np.tile(units, (batch.n_init, 1)),
        first_seeds=first_seeds,
        first_numbers=first_numbers,
        numbers=numbers,
        n_trials=n_trials,
    )


def _fit_together(batch: _Batch, kernels: ManyKernels) -> ManyFits:
    found = kernels.fit_many(
        batch.points,
        _problems(batch),
        weights=batch.weights,
        max_iterations=batch.max_iterations,
        tol=batch.tol,
        spherical=batch.spherical,
    )
    return _best(found, batch)


def _best(found: ManyFits, batch: _Batch) -> ManyFits:
    """The start with the least inertia of each problem, the earlier of equal ones."""
    if batch.n_init == 1:
        return found
    n_problems = len(batch.wanted)
    best = found.inertias.reshape(batch.n_init, n_problems).argmin(axis=0)
    of_problem = best * n_problems + np.arange(n_problems)
    n_rows, n_clusters = len(batch.points), int(batch.wanted.sum())
    of_row = np.repeat(best, np.diff(batch.starts)) * n_rows + np.arange(n_rows)
    of_cluster = np.repeat(best, batch.wanted) * n_clusters + np.arange(n_clusters)
    return ManyFits(
        centroids=found.centroids[of_cluster],
        labels=found.labels[of_row],
        distances_squared=found.distances_squared[of_row],
        n_clusters=found.n_clusters[of_problem],
        inertias=found.inertias[of_problem],
        n_iterations=found.n_iterations[of_problem],
        has_converged=found.has_converged[of_problem],
    )


def _fit_alone(batch: _Batch, kernels: Kernels) -> ManyFits:
    """One problem after the other; those that want no clusters get none."""
    n_problems, n_points = len(batch.wanted), len(batch.points)
    found = ManyFits(
        centroids=np.zeros((int(batch.wanted.sum()), batch.points.shape[1]), np.float32),
        labels=np.full(n_points, -1, np.int32),
        distances_squared=np.zeros(n_points, np.float64),
        n_clusters=np.zeros(n_problems, np.int64),
        inertias=np.zeros(n_problems, np.float64),
        n_iterations=np.zeros(n_problems, np.int64),
        has_converged=np.ones(n_problems, np.bool_),
    )
    first_clusters = np.cumsum(batch.wanted) - batch.wanted
    for p in np.flatnonzero(batch.wanted).tolist():
        rows = slice(batch.starts[p], batch.starts[p + 1])
        own = _fit(batch, p, rows, kernels)
        n_clusters = len(own.centroids)
        found.centroids[first_clusters[p] : first_clusters[p] + n_clusters] = own.centroids
        found.labels[rows], found.distances_squared[rows] = own.labels, own.distances_squared
        found.n_clusters[p], found.inertias[p] = n_clusters, own.inertia
        found.n_iterations[p], found.has_converged[p] = own.n_iterations, own.has_converged
    return found


def _fit(batch: _Batch, p: int, rows: slice, kernels: Kernels) -> Fit:
    """Of one problem, with as many clusters as it has distinct rows for."""
    n_clusters = int(batch.wanted[p])
    while True:
        try:
            return fit(
                batch.points[rows],
                n_clusters,
                kernels=kernels,
                seed=int(batch.seeds[p]),
                max_component=float(batch.max_component[p]),
                n_init=batch.n_init,
                weights=None if batch.weights is None else batch.weights[rows],
                max_iterations=batch.max_iterations,
                tol=batch.tol,
                spherical=batch.spherical,
            )
        except FewerPointsError as fewer:
            n_clusters = fewer.n_distinct


def _packed(found: ManyFits, batch: _Batch) -> FitMany:
    """Without the room for clusters that there are not."""
    centroids = found.centroids
    if (found.n_clusters < batch.wanted).any():
        first_clusters = np.cumsum(batch.wanted) - batch.wanted
        place = np.arange(len(centroids)) - np.repeat(first_clusters, batch.wanted)
        centroids = centroids[place < np.repeat(found.n_clusters, batch.wanted)]
    return FitMany(
        centroids=centroids,
        centroid_starts=np.concatenate([np.zeros(1, np.int64), np.cumsum(found.n_clusters)]),
        labels=found.labels,
        distances_squared=found.distances_squared,
        inertias=found.inertias,
        n_iterations=found.n_iterations,
        has_converged=found.has_converged,
    )
