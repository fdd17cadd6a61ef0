"""Whether points are two heaps or one: a valley on a line that was found without them.

The points are dealt into two hands. One hand finds the line, between two means; the other is
projected on it, and Hartigan's dip test says how rare such a valley is among points with one mode.
Then the hands change places. Whatever is log-concave stays so on every line, in every slice and in
every convex cell: so neither the walls of a cell of k-means nor the choice of the slice count as
evidence. (Normality, the test of "Learning the k in k-means", 2003, is refuted by the walls alone.)

The dip on a line is from "Dip-means: an incremental clustering method for estimating the number of
clusters", 2012; the other hand, the slice and what is done with them are not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.dip import dip_p_value
from pipeline.kernels.contract import Points

MAX_PASSES = 30
POWER_STEPS = 8
"""Of the power iteration; a start of Lloyd needs no exact axis."""

Wide = NDArray[np.float64]  # (n, n_dims)
Means = tuple[NDArray[np.float64], NDArray[np.float64]]
Division = Callable[[Wide], Means | None]


def p_value(points: Wide, is_left: NDArray[np.bool_], divide: Division) -> float:
    """How likely the valley between the two sides that ``divide`` finds is, were they one heap.

    Parameters
    ----------
    points : (n, n_dims) float64
    is_left : (n,) bool
        In which hand each is; independent of where it lies.
    divide
        Two means for one hand, or None if it cannot be divided.

    Returns
    -------
    float
        Twice the smaller figure of both hands; 1 where there is too little to say.
    """
    left, right = points[is_left], points[~is_left]
    smallest = 1.0
    for seen, unseen in ((left, right), (right, left)):
        means = divide(seen) if len(seen) > 1 else None
        if means is not None:
            smallest = min(smallest, _unseen_p_value(seen, unseen, means))
    return min(1.0, 2.0 * smallest)


def _unseen_p_value(seen: Wide, unseen: Wide, means: Means) -> float:
    """The dip test of the unseen points in a slice on the line.

    The slice lies around the middle and has as many of the seen points on either side: beside a
    large heap the dip does not notice a small one.
    """
    axis = means[1] - means[0]
    middle = 0.5 * float((axis * (means[0] + means[1])).sum())
    heights = along(seen, axis) - middle
    below, above = np.sort(-heights[heights <= 0.0]), np.sort(heights[heights > 0.0])
    n_each = min(len(below), len(above))
    if not n_each:
        return 1.0
    lowest = -below[n_each - 1] if n_each < len(below) else -np.inf
    highest = above[n_each - 1] if n_each < len(above) else np.inf
    tested = along(unseen, axis) - middle
    return dip_p_value(tested[(tested >= lowest) & (tested <= highest)])


def two_means(points: Wide) -> Means | None:
    """The better 2-means of two starts, principal axis and farthest pair; None for one point."""
    mean = points.mean(axis=0)
    centred = points - mean
    lengths = np.square(centred).sum(axis=1)
    if not lengths.any():
        return None
    farthest = centred[lengths.argmax()]
    opposite = centred[np.square(centred - farthest).sum(axis=1).argmax()]
    axis = farthest
    for _ in range(POWER_STEPS):
        axis = _summed(centred, along(centred, axis))
        axis /= np.sqrt(np.square(axis).sum()) or 1.0
    across = opposite - farthest
    best: tuple[float, Means] | None = None
    for is_right in (
        along(centred, axis) > 0.0,
        along(centred, across) > 0.5 * float((across * (opposite + farthest)).sum()),
    ):
        found = _lloyd(centred, is_right)
        if found is not None and (best is None or found[0] > best[0]):
            best = found
    return None if best is None else (best[1][0] + mean, best[1][1] + mean)


def _lloyd(centred: Wide, is_right: NDArray[np.bool_]) -> tuple[float, Means] | None:
    """What two means take off the inertia, and the means."""
    found = None
    for _ in range(MAX_PASSES):
        means = side_means(centred, is_right)
        if means is None:
            break
        left, right = means
        n_right = int(is_right.sum())
        n_left = len(centred) - n_right
        gain = n_right * float(np.square(right).sum()) + n_left * float(np.square(left).sum())
        found = gain, means
        before = is_right
        middle = 0.5 * float(((right - left) * (right + left)).sum())
        is_right = along(centred, right - left) > middle
        if (is_right == before).all():
            break
    return found


def side_means(points: Wide, is_right: NDArray[np.bool_]) -> Means | None:
    """The means of both sides; None if one has no point."""
    n_right = int(is_right.sum())
    n_left = len(points) - n_right
    if not n_left or not n_right:
        return None
    right = _summed(points, is_right.astype(np.float64))
    return (points.sum(axis=0) - right) / n_left, right / n_right


def along(points: Wide, axis: NDArray[np.float64]) -> NDArray[np.float64]:
    """The product of each point and an axis; not by BLAS, whose sums depend on its threads."""
    heights: NDArray[np.float64] = np.einsum("ij,j->i", points, axis)
    return heights


def _summed(points: Wide, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.einsum("i,ij->j", weights, points)
    return total


def lots(points: Points, seed: int) -> NDArray[np.uint64]:
    """(n_points,) a random number for each point, drawn from its content.

    An item draws the same whatever else there is, so its part in a test stays the same from one
    fit to the next. Copies of a point draw different ones.
    """
    rng = np.random.default_rng(seed)
    factors = rng.integers(2**63, size=points.shape[1], dtype=np.uint64) * np.uint64(2)
    factors += np.uint64(1)  # odd: no bit of a component is lost
    drawn = np.empty(len(points), np.uint64)
    for first in range(0, len(points), 4_096):
        block = points[first : first + 4_096].view(np.uint32).astype(np.uint64)
        drawn[first : first + 4_096] = (block * factors).sum(axis=1, dtype=np.uint64)
    order = np.argsort(drawn, kind="stable")
    ordered, positions = drawn[order], np.arange(len(points))
    is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(points)]
    nth = positions - np.maximum.accumulate(np.where(is_first, positions, 0))
    drawn[order] += nth.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio
    for shift, factor in ((29, 0x9FB21C651E98DF25), (32, 0xD6E8FEB86659FD93), (32, 1)):
        drawn = (drawn ^ (drawn >> np.uint64(shift))) * np.uint64(factor)
    return drawn
