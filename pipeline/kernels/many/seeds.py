"""Compiled loops of the CPU twins: where a small fit begins.

Greedy k-means++ as `pipeline.clustering.seeding` has it, operation by operation where it decides.
"""
# mypy: ignore-errors
# (numba types these functions by their arguments)

from __future__ import annotations

import numpy as np

from pipeline.kernels import basics
from pipeline.kernels.basics import canonical, compiler
from pipeline.kernels.many import loops, tables
from pipeline.kernels.many.loops import TINY, know, products, slope_of
from pipeline.kernels.many.tables import N_TILE

compiled = compiler(basics, loops, tables)


@compiled()
def n_distinct(x, n, at_most, firsts):
    """How many different rows there are, up to ``at_most``; ``firsts`` is scratch."""
    n_found = 0
    for i in range(n):
        if n_found == at_most:
            break
        is_new = True
        for k in range(n_found):
            j = 0
            while j < x.shape[1] and x[i, j] == x[firsts[k], j]:
                j += 1
            if j == x.shape[1]:
                is_new = False
                break
        if is_new:
            firsts[n_found] = i
            n_found += 1
    return n_found


@compiled()
def _draw(heights, last, at):
    """The first index whose height is above ``at``, but at most ``last``, which has a weight."""
    low, high = 0, heights.size
    while low < high:
        middle = (low + high) // 2
        if heights[middle] > at:
            high = middle
        else:
            low = middle + 1
    return min(low, last)


@compiled()
def _heights(
    values,  #   IN   (n,)  float64
    weights,  #  IN   (n,)  float64
    heights,  #  OUT  (n,)  float64
):
    """Running sums of the products; returns the last index that has one above zero."""
    total, last = 0.0, 0
    for i in range(values.size):
        share = values[i] * weights[i]
        total += share
        heights[i] = total
        if share > 0.0:
            last = i
    return last


@compiled()
def _sort_distinct(values, n):
    """Sort the first ``n`` in place; returns how many different ones there are, in front."""
    n_distinct = 0
    for t in range(n):
        value, place = values[t], n_distinct
        while place > 0 and values[place - 1] > value:
            place -= 1
        if place > 0 and values[place - 1] == value:
            continue
        for later in range(n_distinct, place, -1):
            values[later] = values[later - 1]
        values[place] = value
        n_distinct += 1
    return n_distinct


@compiled()
def _nearer(x, n, row, t, n_dims, left_at_most, is_bounded, weights, model, space):
    """Distances to the nearest seed or to candidate t, a row; returns the inertia that it leaves.

    A sum of what is not negative only grows: a candidate that is worse already is given up.
    """
    steepness, left = slope_of(n_dims), 0.0
    below, length = model.below[t], model.lengths[t]
    for start in range(0, n, N_TILE):
        n_here = min(N_TILE, n - start)
        for i in range(start, start + n_here):
            nearest = space.nearest[i]
            lower = -np.inf
            if is_bounded:
                steep = steepness * space.lengths[i] + n_dims * TINY
                score = -2.0 * np.float64(space.products[i, t])
                lower = space.squares[i] - space.slacks[i] + (below + score - steep * length)
            if lower <= nearest:
                nearest = min(nearest, canonical(x + 4 * i * n_dims, x + 4 * row * n_dims, n_dims))
            space.candidate[i] = nearest
            left += nearest * weights[i]
        if left >= left_at_most:
            return np.inf
    return left


@compiled()
def seed(
    rows,  #       IN   (n, n_dims)  float32
    first,  #      a row; -1: the first number draws it
    numbers,  #    IN   (1 + (n_clusters - 1) * n_trials,)  float64, at least
    n_trials,
    weights,  #    IN   (n,)  float64
    is_bounded,
    model,  #      scratch Model
    space,  #      scratch Space, centred
    centroids,  #  OUT  (n_clusters, n_dims)  float32
):
    """Greedy k-means++; there are as many distinct rows as clusters."""
    n, n_dims = rows.shape
    x, taken, drawn = rows.ctypes.data, 0, space.drawn
    if first < 0:
        for i in range(n):
            space.best[i] = 1.0
        last = _heights(space.best[:n], weights, space.candidate[:n])
        first = _draw(space.candidate[:n], last, numbers[0] * space.candidate[n - 1])
        taken = 1
    for j in range(n_dims):
        centroids[0, j] = rows[first, j]
    for i in range(n):
        space.nearest[i] = canonical(x + 4 * i * n_dims, x + 4 * first * n_dims, n_dims)
    for k in range(1, centroids.shape[0]):
        heights = space.candidate[:n]
        last = _heights(space.nearest[:n], weights, heights)
        for t in range(n_trials):
            drawn[t] = _draw(heights, last, numbers[taken + t] * heights[n - 1])
        taken += n_trials
        n_drawn = _sort_distinct(drawn, n_trials)
        if is_bounded:
            for t in range(n_drawn):
                for j in range(n_dims):
                    model.rows[t, j] = space.z[drawn[t], j]
                know(model, t, n_dims, space.squares[drawn[t]])
            products(space.z, n, model.rows, n_drawn, space.products)
        best_left, row = np.inf, drawn[0]
        for t in range(n_drawn):
            left = _nearer(x, n, drawn[t], t, n_dims, best_left, is_bounded, weights, model, space)
            if left < best_left:
                best_left, row = left, drawn[t]
                for i in range(n):
                    space.best[i] = space.candidate[i]
        for i in range(n):
            space.nearest[i] = space.best[i]
        for j in range(n_dims):
            centroids[k, j] = rows[row, j]
