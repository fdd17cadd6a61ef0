"""New clusters between two fits: items far away from everything, once they have weight together.

An item is far if it lies beyond every member that its cluster had at the fit. Far items wait in a
buffer, each once, however often it speaks. A group of them becomes a cluster if it has weight, is
as narrow as clusters usually are, and each of its founders is clearly nearer to the others than to
the centroid it has now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.contract import Kernels, Points

FAR = 1.0
"""Times the farthest member at the fit. Of 13 000 package descriptions that a fit had not seen (K =
58 and 200, 14 fits) 40 to 270 are farther and found nothing; at 0.95, 300 to 1 000, and in 6 of the
14 a family of near copies did. Of a section withheld from the fit, at 1.0, games found 3 clusters
and rust 1 (K = 200), five others none: new is seldom far, and the next fit is there for that."""
MIN_WEIGHT = 16
"""Founders of a cluster: with fewer the next fit could not tell it from a neighbour and would take
it back."""
MAX_RATIO = 0.8
"""A founder's distance to the other founders' mean over that to its present centroid. Points with
nothing in common have 1 or more in many dimensions."""
MAX_ITEMS = 2_000
"""In the buffer; the search for groups takes a second for as many."""
MAX_PASSES = 10


class OutlierBuffer:
    """Items that are far from everything, and the newest vector of each.

    At most ``max_items``: the one whose last word is oldest gives way.
    """

    def __init__(self, n_dims: int, *, max_items: int = MAX_ITEMS) -> None:
        if max_items < 1:
            raise ValueError(f"a buffer of {max_items} items")
        self.n_dims = n_dims
        self.max_items = max_items
        self._vectors: dict[bytes, NDArray[np.float32]] = {}  # in the order of their last words

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, key: bytes) -> bool:
        return key in self._vectors

    def apply(self, keys: Sequence[bytes], vectors: Points, is_far: NDArray[np.bool_]) -> None:
        """Take in updates in their order; an item whose newest vector is not far leaves.

        Parameters
        ----------
        vectors : (n, n_dims) float32, copied
        is_far : (n,) bool
        """
        for key, vector, stays in zip(keys, vectors, is_far.tolist(), strict=True):
            self._vectors.pop(key, None)
            if stays:
                self._vectors[key] = vector.copy()
                if len(self._vectors) > self.max_items:
                    del self._vectors[next(iter(self._vectors))]

    def remove(self, keys: Iterable[bytes]) -> None:
        """Forget items: deleted ones, or the founders of a cluster; others are passed over."""
        for key in keys:
            self._vectors.pop(key, None)

    def snapshot(self) -> tuple[list[bytes], Points]:
        """Ids and a copy of their vectors, ordered by id: the same items give the same rows."""
        keys = sorted(self._vectors)
        vectors = np.empty((len(keys), self.n_dims), np.float32)
        for i, key in enumerate(keys):
            vectors[i] = self._vectors[key]
        return keys, vectors


@dataclass(frozen=True, slots=True, eq=False)
class Births:
    """Newborn clusters, the one with most founders first."""

    centroids: Points  # (n_born, n_dims): the means of the founders
    founders: tuple[NDArray[np.int64], ...]
    """Rows of the points, ascending; for each newborn, no row twice."""


def is_far(
    distances: NDArray[np.float64], farthest: NDArray[np.float64], *, far: float = FAR
) -> NDArray[np.bool_]:
    """Which points lie clearly beyond every member that their cluster had at the fit.

    A cluster without a known reach (0, or not finite) has no far points.
    """
    known = np.isfinite(farthest) & (farthest > 0.0)
    return known & (distances > far * np.where(known, farthest, 0.0))


def births(
    points: Points,
    distances: NDArray[np.float64],
    farthest: NDArray[np.float64],
    *,
    spread: float,
    kernels: Kernels,
    min_weight: int = MIN_WEIGHT,
    max_births: int | None = None,
    far: float = FAR,
    max_ratio: float = MAX_RATIO,
) -> Births | None:
    """The clusters that far items have founded, or None.

    The densest place first: the far items around one of them, then around their mean until that
    stays where it is.

    Parameters
    ----------
    points : (n, n_dims) float32
        One row an item, ordered by id.
    distances : (n,) float64
        To the nearest centroid of today: square roots of canonical ones.
    farthest : (n,) float64
        The largest distance at the fit of a member of that cluster.
    spread
        Root of the mean squared distance of members to their centroid, of a typical cluster.
    max_births
        What the limit of the number of clusters leaves; None: any.
    """
    if min_weight < 2:
        raise ValueError(f"{min_weight} founders are no group")
    candidates = np.flatnonzero(is_far(distances, farthest, far=far))
    found: list[NDArray[np.int64]] = []
    leaders = _by_company(points[candidates], spread, min_weight, kernels)
    free = np.ones(len(candidates), np.bool_)
    for leader in leaders:
        if max_births is not None and len(found) >= max_births:
            break
        if free[leader]:
            rows = candidates[free]
            seed = points[candidates[leader]]
            group = _grown(points[rows], distances[rows], seed, spread, max_ratio, kernels)
            if len(group) >= min_weight:
                founders = rows[group]
                found.append(founders)
                free &= ~np.isin(candidates, founders)
    if not found:
        return None
    found.sort(key=lambda rows: (-len(rows), int(rows[0])))
    means = [points[rows].mean(axis=0, dtype=np.float64) for rows in found]
    return Births(np.stack(means).astype(np.float32), tuple(found))


def _by_company(points: Points, spread: float, min_weight: int, kernels: Kernels) -> list[int]:
    """Points with enough others as near as two members are to each other, most of them first."""
    company = np.zeros(len(points), np.int64)
    if len(points) >= min_weight:
        for i in range(len(points)):
            # two members are twice as far from each other, squared, as from their mean
            near = _squared(points, points[i], kernels) <= 2.0 * spread**2
            company[i] = int(near.sum())
    order = np.argsort(-company, kind="stable")
    return [i for i in order.tolist() if company[i] >= min_weight]


def _grown(
    points: Points,
    distances: NDArray[np.float64],
    seed: NDArray[np.float32],
    spread: float,
    max_ratio: float,
    kernels: Kernels,
) -> NDArray[np.int64]:
    """The founders around a seed; none if they are no narrow group apart."""
    none = np.empty(0, np.int64)
    group = np.flatnonzero(_squared(points, seed, kernels) <= 2.0 * spread**2)
    for _ in range(MAX_PASSES):
        if len(group) < 2:
            return none
        centre = points[group].mean(axis=0, dtype=np.float64).astype(np.float32)
        from_centre = np.sqrt(_squared(points, centre, kernels))
        is_member = np.zeros(len(points), np.bool_)
        is_member[group] = True
        # of a member: to the mean of the others, as its own share draws the mean towards it
        own_share = np.where(is_member, len(group) / (len(group) - 1), 1.0)
        to_others = from_centre * own_share
        before = group
        group = np.flatnonzero((to_others <= max_ratio * distances) & (to_others <= 2.0 * spread))
        if np.array_equal(group, before):
            break
    if len(group) < 2:
        return none
    centre = points[group].mean(axis=0, dtype=np.float64).astype(np.float32)
    squared = _squared(points[group], centre, kernels) * (len(group) / (len(group) - 1)) ** 2
    return group if float(squared.mean()) <= spread**2 else none


def _squared(points: Points, centre: NDArray[np.float32], kernels: Kernels) -> NDArray[np.float64]:
    return kernels.assign(kernels.load(centre[None, :]), points).distances_squared
