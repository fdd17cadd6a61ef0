"""Slow, obvious versions that the real ones are held against. The product imports none of it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def squared_distance(x, c):
    """Canonical, one pair: 32 running sums in ascending order, then folded in halves."""
    gaps = [a - b for a, b in zip(x.tolist(), c.tolist(), strict=True)]
    terms = [gap * gap for gap in gaps]  # not gap**2: a power may be off by a bit
    sums = [0.0] * 32
    for i, term in enumerate(terms):
        sums[i % 32] = sums[i % 32] + term
    while len(sums) > 1:
        half = len(sums) // 2
        sums = [low + high for low, high in zip(sums[:half], sums[half:], strict=True)]
    return sums[0]


def nearest_two(x, centroids):
    """((distance², label), (distance², label)) of one point; the second (inf, -1) where K = 1."""
    ranked = sorted((squared_distance(x, c), label) for label, c in enumerate(centroids))
    return (*ranked, (float("inf"), -1))[:2]


def assign(points, centroids):
    """Labels, squared distances, second labels, second squared distances: lists."""
    pairs = [nearest_two(x, centroids) for x in points]
    return (
        [first[1] for first, _ in pairs],
        [first[0] for first, _ in pairs],
        [second[1] for _, second in pairs],
        [second[0] for _, second in pairs],
    )


def is_margin(low, x, centroids, label):
    """Whether ``low`` is at most the distance of x to each border of its cell, in fractions.

    To centroid j that is ``(r_j - r_a) / (2 |c_j - c_a|)``; an equal one is none.
    """
    rows = [[Fraction(value) for value in row] for row in (x.tolist(), *centroids.tolist())]
    here, own = rows[0], rows[1 + label]

    def square(a, b):
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))

    nearest = square(here, own)
    for other in rows[1:]:
        between = square(other, own)
        if between and low > 0.0:
            room = square(here, other) - nearest
            if math.isinf(low) or room < 0 or 4 * between * Fraction(low) ** 2 > room**2:
                return False
    return low >= 0.0


def statistics(points, labels, n_clusters, *, max_component):
    """Count, sums and square total of each cluster, in the integers of Python.

    ``round`` of a float rounds halves to even, as ``rint`` does.
    """
    unit, square_unit = max_component * 2.0**-40, max_component**2 * 2.0**-48
    n_dims = points.shape[1]
    zero = np.zeros(n_dims, np.float32)
    counts = [0] * n_clusters
    sums = [[0] * n_dims for _ in range(n_clusters)]
    squares = [0] * n_clusters
    for x, label in zip(points, labels, strict=True):
        if label < 0:
            continue
        counts[label] += 1
        squares[label] += round(squared_distance(x, zero) / square_unit)
        for i, value in enumerate(x.tolist()):
            sums[label][i] += round(value / unit)
    return counts, sums, squares


def square_totals(squares):
    """The squares of `Sums` put together again."""
    return [(int(high) << 32) + int(low) for high, low in squares]


def weighted_statistics(points, labels, weights, n_clusters, *, max_component):
    """Count, sums, square total and weight of each cluster: `statistics` where items have weights.

    The product of a component and a weight is rounded to float64, and then to an integer.
    """
    unit, square_unit = max_component * 2.0**-32, max_component**2 * 2.0**-40
    n_dims = points.shape[1]
    zero = np.zeros(n_dims, np.float32)
    counts, squares, totals = [0] * n_clusters, [0] * n_clusters, [0] * n_clusters
    sums = [[0] * n_dims for _ in range(n_clusters)]
    for x, label, weight in zip(points, labels, weights.tolist(), strict=True):
        if label < 0:
            continue
        counts[label] += 1
        totals[label] += round(weight * 2**31)
        squares[label] += round(squared_distance(x, zero) * weight / square_unit)
        for i, value in enumerate(x.tolist()):
            sums[label][i] += round(value * weight / unit)
    return counts, sums, squares, totals


def weight(timestamp_ms, *, half_life_s, landmark_ms):
    """What an item of that time weighs; 1 without a time."""
    if timestamp_ms is None or timestamp_ms < 0:
        return 1.0
    age = Fraction(timestamp_ms - landmark_ms, round(half_life_s * 1000))
    steps = math.floor(1024 * min(max(age, Fraction(-16)), Fraction(8)) + Fraction(1, 2))
    doublings, part = divmod(steps, 1024)
    return round(2.0 ** (part / 1024) * 2**15) * 2.0 ** (doublings - 15)
