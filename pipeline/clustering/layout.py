"""Where clusters stand on a map: two coordinates each, so that near clusters stand near each other.

A new epoch is laid out anew: by classical scaling ("Theory and methods of scaling", Torgerson 1958;
"Some distance properties of latent root and vector methods", Gower 1966), which for euclidean
distances is the projection onto the two longest principal axes. Then stress, the sum of (distance
on the map - distance of the centroids)² over all pairs, is brought down by majorisation
("Applications of convex analysis to multidimensional scaling", de Leeuw 1977; "Graph drawing by
stress majorization", Gansner, Koren and North 2004, with equal weights: in many dimensions
distances are so alike that weighing them by their length hardly tells them apart, and equal weights
need no system to be solved). It is turned onto the layout of the epoch before by the clusters that
both have (orthogonal Procrustes; "A generalized solution of the orthogonal Procrustes problem",
Schönemann 1966). Where most clusters survive, they take the places that they had instead, newcomers
find theirs among them, and a term for the way from there is added to stress, as anchors are ("A
quantitative comparison of stress-minimization approaches for offline dynamic graph drawing",
Brandes and Mader 2011): of 64 clusters with 14 in heaps that there were not before, the 50 others
move by 0.07 of the map's radius (median) and not by 0.13, at 2 % more stress, *measured*.

Within an epoch, places are `N_STEPS` steps from the layout of the epoch, with a weaker anchor to
it, for the centroids as they are now. No step before counts: so the places depend on the epoch's
layout and on these centroids alone, and on them continuously, and whoever skipped revisions has the
same places.

What replicas have in common
----------------------------
The layout of an epoch follows from the fitted centroids and from the layout of the epoch before as
it was in its last revision; all of that stands in the topic of models as long as the epoch is kept.
Processes that began with the same oldest epoch therefore agree, up to the last bits of their
libraries' sums. One that began later does not know the epochs that were dropped before it began: it
lays the oldest one out that it finds as if there had been none before. Its map is as good, and
holds still as well; but it may be turned or mirrored against the others', and where stress has
several minima of about one depth, be another of them, until all have begun anew.

Cost: O(n_clusters²) a step. A revision of 500 clusters takes 0.05 s of one core, of 2,000 0.4 s;
a new epoch 0.5 s and 3.6 s. Of more than `MAX_MAJORISED` clusters the projection itself is the map,
by the same axes for a whole epoch: O(n_clusters n_dims), 3 ms a revision at 5,000 x 384.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Centroids = NDArray[np.float32] | NDArray[np.float64]

MAX_MAJORISED = 2048
"""Clusters of which all pairs are looked at."""
MAX_PAIRS = 60_000_000
"""That a layout within an epoch may look at, over all steps together: some tenths of a second."""
N_STEPS = 30
"""Fewer where `MAX_PAIRS` allows no more; it depends on the number of clusters alone."""
SETTLING = 5
"""So many times as many steps are taken once, for a new epoch."""
ROOM = 0.9
"""How much of the map a layout takes up when its scale is chosen."""
LEAST_ROOM = 0.5
"""A layout that takes up less of the map than this gets another scale with a new epoch."""
MIN_SURVIVORS = 3
"""With fewer, or if most clusters are new, nobody's place is worth keeping."""
LOYALTY_TO_BEFORE = 1.0
"""How much survivors of a new epoch keep to their places: see `_majorised`."""
LOYALTY = 0.1
"""How much all clusters keep to the layout of their epoch while centroids move."""
TRAPPED = 1.25
"""A layout whose stress is so many times that of one begun anew is given up for it."""
_BLOCK = 64
_AXES_TRIED, _AXES_ROUNDS = 8, 40


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Clusters on a map.

    ``points`` are in the unit of the distances of the centroids; `places` is what is shown.
    """

    clusters: Sequence[str]
    points: Floats  # (n_clusters, 2)
    origin: Floats  # (2,) of the points, the middle of the map
    scale: float
    """From points to places."""
    axes: Floats | None = None  # (n_dims, 2): the points are projections onto these
    shift: Floats | None = None  # (2,) added to a projection

    @property
    def places(self) -> Floats:
        """(n_clusters, 2) within a circle of radius 1 about the origin."""
        places: Floats = (self.points - self.origin) * self.scale
        return places


def epoch_layout(
    clusters: Sequence[str],
    fitted: Centroids,
    *,
    is_cosine: bool = False,
    before: Layout | None = None,
) -> Layout:
    """Lay out a new epoch.

    Parameters
    ----------
    clusters
        (n_clusters,) their names, at least one.
    fitted : (n_clusters, n_dims)
        The centroids at the fit, finite.
    is_cosine
        Distances on the map stand for cosine distances of unit vectors, else for euclidean ones.
    before
        The layout of the epoch before, by its last centroids; None: there is none.
    """
    axes, middle = _principal_axes(fitted)
    if len(clusters) > MAX_MAJORISED:
        return _projected(clusters, fitted, axes, middle, before)
    wanted = distances(fitted, is_cosine=is_cosine)
    start = (fitted.astype(np.float64) - middle) @ axes
    start *= _best_scale(start, wanted)
    anew = _majorised(start, wanted, SETTLING * _n_steps(len(clusters)))
    mine, theirs = _shared(clusters, before)
    if before is None or len(mine) == 0:
        return _framed(Layout(clusters, anew, anew.mean(axis=0), 1.0), None)
    known = before.points[theirs]
    # another embedding model, or a coarser one, has other distances: then the unit is another one
    unit = _best_scale(known, wanted[np.ix_(mine, mine)])
    before = Layout(before.clusters, before.points * unit, before.origin * unit,
                    before.scale / unit)  # fmt: skip
    known = known * unit
    turn, shift = _turned(anew[mine], known)
    anew = anew @ turn + shift
    points = anew
    if len(mine) >= MIN_SURVIVORS and 2 * len(mine) >= len(clusters):
        kept = _kept(anew, wanted, mine, known)
        if stress(kept, wanted) <= TRAPPED * stress(anew, wanted):
            points = kept
    return _framed(Layout(clusters, points, before.origin, before.scale), before)


def revised_layout(layout: Layout, centroids: Centroids, *, is_cosine: bool = False) -> Layout:
    """The layout of an epoch once its centroids have moved.

    Parameters
    ----------
    layout
        As `epoch_layout` made it, whatever came between.
    centroids : (n_clusters, n_dims)
        In the order of the layout's clusters.
    """
    if layout.axes is not None and layout.shift is not None:
        points = centroids.astype(np.float64) @ layout.axes + layout.shift
    else:
        wanted = distances(centroids, is_cosine=is_cosine)
        points = _majorised(layout.points, wanted, _n_steps(len(wanted)), loyalty=LOYALTY)
    farthest = _radius(points, layout.origin)
    scale = min(layout.scale, 1.0 / farthest) if farthest > 0.0 else layout.scale
    return Layout(layout.clusters, points, layout.origin, scale, layout.axes, layout.shift)


def distances(centroids: Centroids, *, is_cosine: bool = False) -> Floats:
    """(n_clusters, n_clusters) between all centroids, in the model's metric."""
    rows = centroids.astype(np.float64)
    squares = np.einsum("ij,ij->i", rows, rows)
    found = rows @ rows.T
    found *= -2.0
    found += squares
    found += squares[:, None]
    np.maximum(found, 0.0, out=found)
    np.fill_diagonal(found, 0.0)
    if is_cosine:
        found *= 0.5
    else:
        np.sqrt(found, out=found)
    return found


def stress(points: Floats, wanted: Floats) -> float:
    """Squared differences of distances, over squared distances: 0 where the map is exact."""
    total = lost = 0.0
    for start in range(0, len(points), _BLOCK):
        rows = wanted[start : start + _BLOCK]
        lost += float(np.square(rows - _apart(points[start : start + _BLOCK], points)).sum())
        total += float(np.square(rows).sum())
    return lost / total if total > 0.0 else 0.0


# --- what it is made of ---------------------------------------------------------------------------


def _n_steps(n_clusters: int) -> int:
    return max(2, min(N_STEPS, MAX_PAIRS // (n_clusters * n_clusters)))


def _principal_axes(centroids: Centroids) -> tuple[Floats, Floats]:
    """(n_dims, 2) the longest axes of the centroids, and (n_dims,) their mean.

    By subspace iteration from a fixed beginning: all that it costs is products with the centroids.
    """
    rows = centroids.astype(np.float64)
    middle: Floats = rows.mean(axis=0)
    rows -= middle
    n_dims = rows.shape[1]
    n_tried = min(_AXES_TRIED, n_dims)
    tried = np.random.default_rng(0).standard_normal((n_dims, n_tried))
    tried = np.linalg.qr(tried)[0]
    for _ in range(_AXES_ROUNDS):
        tried = np.linalg.qr(rows.T @ (rows @ tried))[0]
    projected = rows @ tried
    _, turns = np.linalg.eigh(projected.T @ projected)
    axes = np.zeros((n_dims, 2))
    found = tried @ turns[:, ::-1][:, :2]
    axes[:, : found.shape[1]] = found
    # an axis has no direction of its own: the longest component points up
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    axes *= np.where(signs == 0.0, 1.0, signs)
    return axes, middle


def _shared(
    clusters: Sequence[str], before: Layout | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the clusters stand that both have, here and there."""
    at = {} if before is None else {cluster: i for i, cluster in enumerate(before.clusters)}
    pairs = [(i, at[cluster]) for i, cluster in enumerate(clusters) if cluster in at]
    found = np.array(pairs, np.intp).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _projected(
    clusters: Sequence[str], fitted: Centroids, axes: Floats, middle: Floats, before: Layout | None
) -> Layout:
    """A layout that is the projection onto the axes, turned onto the one before."""
    points = (fitted.astype(np.float64) - middle) @ axes
    mine, theirs = _shared(clusters, before)
    known = np.empty((0, 2)) if before is None else before.points[theirs]
    turn, shift = _turned(points[mine], known)
    axes = axes @ turn
    points = points @ turn + shift
    return _framed(Layout(clusters, points, shift, 1.0, axes, shift - middle @ axes), before)


def _kept(anew: Floats, wanted: Floats, mine: NDArray[np.intp], known: Floats) -> Floats:
    """(n, 2) survivors about where they were known to be, newcomers where they belong by them."""
    n = len(anew)
    points = anew.copy()
    points[mine] = known
    free = np.setdiff1d(np.arange(n), mine)
    n_steps = SETTLING * _n_steps(n)
    if len(free):
        points = _majorised(points, wanted, n_steps, free=free)
    loyalty = np.zeros(n)
    loyalty[mine] = LOYALTY_TO_BEFORE
    return _majorised(points, wanted, n_steps, loyalty=loyalty)


def _turned(points: Floats, onto: Floats) -> tuple[Floats, Floats]:
    """The turn, perhaps with a mirror, and the shift after it, that bring points nearest to others.

    `points @ turn + shift`; identity where there are none.
    """
    if not len(points):
        return np.eye(2), np.zeros(2)
    middle, target = points.mean(axis=0), onto.mean(axis=0)
    left, _, right = np.linalg.svd((points - middle).T @ (onto - target))
    turn: Floats = left @ right
    return turn, target - middle @ turn


def _framed(layout: Layout, before: Layout | None) -> Layout:
    """With the scale and the origin of before, as long as all stand on the map and use it."""
    points = layout.points
    if before is not None:
        reach = _radius(points, before.origin) * before.scale
        if LEAST_ROOM <= reach <= 1.0:
            return Layout(layout.clusters, points, before.origin, before.scale, layout.axes,
                          layout.shift)  # fmt: skip
    origin = 0.5 * (points.min(axis=0) + points.max(axis=0))
    radius = _radius(points, origin)
    scale = ROOM / radius if radius > 0.0 else 1.0
    return Layout(layout.clusters, points, origin, scale, layout.axes, layout.shift)


def _radius(points: Floats, origin: Floats) -> float:
    return float(np.hypot(*(points - origin).T).max())


def _best_scale(points: Floats, wanted: Floats) -> float:
    """What points have to be multiplied by to come nearest to the distances; 1 if nothing does."""
    both = own = 0.0
    for start in range(0, len(points), _BLOCK):
        apart = _apart(points[start : start + _BLOCK], points)
        both += float((apart * wanted[start : start + _BLOCK]).sum())
        own += float(np.square(apart).sum())
    return both / own if both > 0.0 and own > 0.0 else 1.0


def _apart(some: Floats, points: Floats) -> Floats:
    """(n_some, n) distances on the map."""
    along = some[:, 0, None] - points[:, 0]
    across = some[:, 1, None] - points[:, 1]
    along *= along
    across *= across
    along += across
    apart: Floats = np.sqrt(along, out=along)
    return apart


def _majorised(
    points: Floats,
    wanted: Floats,
    n_steps: int,
    *,
    loyalty: Floats | float = 0.0,
    free: NDArray[np.intp] | None = None,
) -> Floats:
    """Steps of majorisation, none of which makes stress and loyalty together larger.

    The mean stays where it is where nobody is loyal, or all are alike.

    All but the last go twice as far as the minimum of the majorant: there it is as high as where
    they began, so stress is no higher, and half as many steps are needed ("Multidimensional scaling
    with restrictions on the configuration", de Leeuw and Heiser 1980).

    Parameters
    ----------
    points : (n, 2)
    wanted : (n, n)
        The distances that those on the map shall be like.
    loyalty : (n,)
        How much of its own place each point keeps: 0 nothing, 1 as much as all distances ask for.
    free
        The points that may move, without loyalty; None: all.
    """
    n = len(points)
    moving = np.arange(n) if free is None else free
    if n < 2:
        return points
    homes, shares = points, 1.0 / (n + n * np.broadcast_to(loyalty, n))[:, None]
    is_loyal = bool(np.any(loyalty))
    points = points.copy()
    tiny = 1e-12 * (float(wanted.max()) or 1.0)
    for step in range(n_steps):
        pulled = np.empty((len(moving), 2))
        for start in range(0, len(moving), _BLOCK):
            rows = moving[start : start + _BLOCK]
            ratios = _apart(points[rows], points)
            ratios += tiny  # two that stand in one place pull nowhere, and nothing jumps near that
            np.divide(wanted[rows], ratios, out=ratios)
            # the own ratio is 0 / tiny, so it counts in neither
            pulled[start : start + _BLOCK] = (
                ratios.sum(axis=1)[:, None] * points[rows] - ratios @ points
            )
        if free is None and not is_loyal:
            nearer = pulled / n + points.mean(axis=0)
        elif free is None:
            pulled += (1.0 / shares - n) * homes
            total = (pulled * shares).sum(axis=0) / (1.0 - shares.sum())
            nearer = (pulled + total) * shares
        else:
            still = points.sum(axis=0) - points[moving].sum(axis=0)
            pulled += still
            nearer = (pulled + pulled.sum(axis=0) / (n - len(moving))) / n
        if step < n_steps - 1:
            nearer += nearer - points[moving]
        points[moving] = nearer
    return points
