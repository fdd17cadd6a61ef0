"""Where a fit begins: distinct points, far from each other and yet typical.

Sums that decide something are taken in order (`total`): no library promises the order of its
own, and a choice between seeds must not depend on a version, nor on how rows are cut into chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.contract import WEIGHT_UNIT, Kernels, Points, Weights

MIN_SEED_POINTS = 10_000  # more make no better start, Lloyd sees all of them anyway
SEED_POINTS_PER_CLUSTER = 8
MAX_SEED_WORK = 2**36  # components read while seeding: about 10 s on two cores
N_ROUNDS = 5
OVERSAMPLING = 2.0  # candidates a round and cluster
BLOCK_ROWS = 2**20  # of which a lot is drawn at once

Init = Literal["k-means++", "k-means||", "random"]
"""Greedy k-means++ on a sample; k-means|| on all points; some of the points."""


def begin(
    init: Init,
    points: Points,
    n_clusters: int,
    *,
    kernels: Kernels,
    seed: int,
    weights: Weights | None = None,
    on_seed: Callable[[], None] = lambda: None,
) -> Points:
    """Where a cold fit begins: (n_clusters, n_dims) different points.

    There must be at least ``n_clusters`` distinct points.
    """
    if init == "random":
        return random_seeds(points, n_clusters, seed=seed, weights=weights)
    if init not in ("k-means++", "k-means||"):
        raise ValueError(f"init is {init!r}, but must be k-means++, k-means|| or random")
    draw = seeds if init == "k-means++" else parallel_seeds
    return draw(points, n_clusters, kernels=kernels, seed=seed, weights=weights, on_seed=on_seed)


def seed_of(seed: int, number: int) -> int:
    """The seed of one of several starts; of the first it is the seed itself."""
    if number == 0:
        return seed
    return int.from_bytes(blake2b(f"{seed} {number}".encode(), digest_size=8).digest(), "big")


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
    return _greedy(
        sample,
        n_clusters,
        kernels=kernels,
        rng=rng,
        weights=heaviness,
        on_seed=on_seed,
        everything=(points, weights),
    )


def parallel_seeds(
    points: Points,
    n_clusters: int,
    *,
    kernels: Kernels,
    seed: int,
    weights: Weights | None = None,
    keys: NDArray[np.uint64] | None = None,
    on_seed: Callable[[], None] = lambda: None,
) -> Points:
    """Many candidates from few passes over all points, then greedy k-means++ among them.

    In each of 5 rounds every point is taken with probability proportional to its squared distance
    to the nearest candidate, ``2 * n_clusters`` of them together; the next round measures against
    the new ones only. A candidate counts as much as the points that are nearest to it.
    "Scalable k-means++", 2012, algorithm 2, with the parameters of its section 5.

    Whether a point is taken is decided by a hash of (seed, round, key), so it does not matter in
    which order, in which chunks or by whom it is asked.

    There must be at least ``n_clusters`` distinct points.

    Parameters
    ----------
    keys : (n_points,) uint64, optional
        What a point is known by; by default its row.
    """
    n_points = len(points)
    drawn = lots(seed, 0, n_points, keys)
    first = int(np.argmin(drawn if weights is None else -np.log1p(-drawn) / weights))
    candidates = points[first : first + 1].copy()
    nearest = _distances_squared(points, candidates, kernels)
    owners = np.zeros(n_points, np.int64)
    number = 0
    while number < N_ROUNDS or n_distinct(candidates, at_most=n_clusters) < n_clusters:
        on_seed()
        number += 1
        heights = nearest if weights is None else nearest * weights
        height = total(heights)
        if height == 0.0:  # a candidate stands on every point
            break
        odds = heights * (OVERSAMPLING * n_clusters / height)
        taken = np.flatnonzero(lots(seed, number, n_points, keys) < odds)
        if not len(taken):
            taken = np.array([heights.argmax()])
        model = kernels.load(points[taken])
        found = kernels.assign(model, points)
        nearer = found.distances_squared < nearest
        owners[nearer] = found.labels[nearer] + len(candidates)
        np.minimum(nearest, found.distances_squared, out=nearest)
        candidates = np.concatenate([candidates, points[taken]])
    units = np.ones(n_points) if weights is None else np.rint(weights / WEIGHT_UNIT)
    masses = np.zeros(len(candidates), np.int64)
    np.add.at(masses, owners, units.astype(np.int64))  # whole numbers, as they add up in any order
    return _greedy(
        candidates,
        n_clusters,
        kernels=kernels,
        rng=np.random.default_rng(seed),
        weights=masses.astype(np.float64),
        on_seed=on_seed,
    )


def random_seeds(
    points: Points, n_clusters: int, *, seed: int, weights: Weights | None = None
) -> Points:
    """Distinct points in a random order, one as likely as the other, or as its weight says.

    There must be at least ``n_clusters`` distinct points.
    """
    drawn = lots(seed, 0, len(points))
    order = np.argsort(drawn if weights is None else -np.log1p(-drawn) / weights, kind="stable")
    chosen: list[NDArray[np.float32]] = []
    seen: set[bytes] = set()
    for row in order.tolist():
        key = _key(points[row])
        if key not in seen:
            seen.add(key)
            chosen.append(points[row])
        if len(chosen) == n_clusters:
            break
    return np.stack(chosen)


def n_distinct(points: Points, *, at_most: int | None = None) -> int:
    """How many different rows there are; counting ends at ``at_most``."""
    limit = len(points) if at_most is None else at_most
    seen: set[bytes] = set()
    for row in points:
        if len(seen) >= limit:
            break
        seen.add(_key(row))
    return len(seen)


def _key(row: NDArray[np.float32]) -> bytes:
    return blake2b((row + np.float32(0.0)).tobytes(), digest_size=16).digest()  # -0 is 0


def lots(
    seed: int,
    number: int,
    n_points: int,
    keys: NDArray[np.uint64] | None = None,
    *,
    first: int = 0,
) -> NDArray[np.float64]:
    """For each point a number in 0..1, 1 excluded: a hash of the seed, a number, and its key.

    Without keys it is the row, and the first row is ``first``. The mixing function is that of
    "Fast splittable pseudorandom number generators", 2014.
    """
    salt = blake2b(f"{seed} {number}".encode(), digest_size=8, person=b"eddy lots").digest()
    drawn = np.empty(n_points)
    for start in range(0, n_points, BLOCK_ROWS):
        block = slice(start, min(start + BLOCK_ROWS, n_points))
        if keys is None:
            words = np.arange(first + block.start, first + block.stop, dtype=np.uint64)
        else:
            words = keys[block].astype(np.uint64)
        words = words * np.uint64(0x9E3779B97F4A7C15) + np.frombuffer(salt, ">u8")[0]
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        words ^= words >> np.uint64(31)
        drawn[block] = (words >> np.uint64(11)) * 2.0**-53
    return drawn


def _greedy(
    sample: Points,
    n_clusters: int,
    *,
    kernels: Kernels,
    rng: np.random.Generator,
    weights: NDArray[np.float64] | None,
    on_seed: Callable[[], None],
    everything: tuple[Points, Weights | None] | None = None,
) -> Points:
    """Greedy k-means++; of ``everything``, once the sample has no other point any more."""
    affordable = MAX_SEED_WORK // (n_clusters * sample.size)
    n_trials = max(1, min(2 + int(math.log(n_clusters)), affordable))

    chosen = np.empty((n_clusters, sample.shape[1]), np.float32)
    first = rng.integers(len(sample)) if weights is None else _draw(weights, 1, rng)[0]
    chosen[0] = sample[first]
    nearest = _distances_squared(sample, chosen[:1], kernels)
    for k in range(1, n_clusters):
        on_seed()
        if everything is not None and not nearest.any():
            (sample, weights), everything = everything, None
            nearest = _distances_squared(sample, chosen[:k], kernels)
        best_left, best = math.inf, nearest
        heights = nearest if weights is None else nearest * weights
        for row in np.unique(_draw(heights, n_trials, rng)):
            candidate = np.minimum(
                nearest, _distances_squared(sample, sample[row : row + 1], kernels)
            )
            left = weighted(candidate, weights)
            if left < best_left:
                best_left, best = left, candidate
                chosen[k] = sample[row]
        nearest = best
    return chosen


def total(values: NDArray[np.float64]) -> float:
    """The sum of the values one after the other; 0 of none."""
    return float(np.add.accumulate(values.ravel())[-1]) if values.size else 0.0


def weighted(values: NDArray[np.float64], weights: Weights | None) -> float:
    """`total` of the values, each times its weight."""
    return total(values if weights is None else values * weights)


def _draw(weights: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices, drawn with a probability proportional to their weight; never one without any."""
    heights = np.add.accumulate(weights)
    drawn = np.searchsorted(heights, rng.random(n) * heights[-1], side="right")
    last = int(np.flatnonzero(weights)[-1])  # a product may round up to the whole height
    indices: NDArray[np.int64] = np.minimum(drawn, last)
    return indices


def _distances_squared(points: Points, seeds: Points, kernels: Kernels) -> NDArray[np.float64]:
    return kernels.assign(kernels.load(seeds), points).distances_squared
