"""Compiled loops of the CPU twins: small fits, thousands in a call.

Lloyd's passes as `pipeline.clustering.kmeans` has them, operation by operation where it decides.
"""
# mypy: ignore-errors
# (numba types these functions by their arguments)

from __future__ import annotations

import numpy as np
from numba import carray

from pipeline.kernels import basics, deciding
from pipeline.kernels.basics import canonical, compiler, floats, take
from pipeline.kernels.many import loops, seeds, tables
from pipeline.kernels.many.loops import centre, label_all
from pipeline.kernels.many.seeds import n_distinct, seed
from pipeline.kernels.many.tables import model_of, space_of

WEIGHT_UNITS = 2.0**31  # in a weight of 1

compiled = compiler(basics, deciding, loops, seeds, tables)


@compiled()
def _relocate(x, centroids, n, n_clusters, n_dims, weights, space):
    """``settled`` from ``found``: no cluster is empty, as far as there are rows off a centroid.

    Returns whether one was. Takes rows by their share of the inertia, then the lower one.
    """
    found, settled, counts, shares = space.found, space.settled, space.drawn, space.candidate
    for k in range(n_clusters):
        counts[k] = 0
    for i in range(n):
        counts[found[i]] += 1
        settled[i] = found[i]
    empty = 0
    while empty < n_clusters and counts[empty] > 0:
        empty += 1
    if empty == n_clusters:
        return False
    for i in range(n):
        place = centroids + 4 * found[i] * n_dims
        shares[i] = canonical(x + 4 * i * n_dims, place, n_dims) * weights[i]
    row = -1
    while empty < n_clusters:
        following = -1
        for i in range(n):
            is_later = row < 0 or shares[i] < shares[row] or (shares[i] == shares[row] and i > row)
            if is_later and (following < 0 or shares[i] > shares[following]):
                following = i
        row = following
        if row < 0 or shares[row] == 0.0:
            break
        if counts[settled[row]] > 1:
            counts[settled[row]] -= 1
            settled[row] = empty
            empty += 1
            while empty < n_clusters and counts[empty] > 0:
                empty += 1
    return True


@compiled()
def _move(rows, labels, per_unit, weights, space):
    """Take the rows whose label has changed out where they were, and in where they are."""
    n_changed = 0
    for i in range(labels.size):
        was, now = labels[i], space.settled[i]
        if was == now:
            continue
        n_changed += 1
        labels[i] = now
        row, scale = rows[i], weights[i] * per_unit
        weight = np.int64(np.rint(weights[i] * WEIGHT_UNITS))
        new = space.sums[now]
        space.weights[now] += weight
        if was < 0:
            for j in range(row.size):
                new[j] += np.int64(np.rint(np.float64(row[j]) * scale))
        else:
            old = space.sums[was]
            space.weights[was] -= weight
            for j in range(row.size):
                part = np.int64(np.rint(np.float64(row[j]) * scale))
                old[j] -= part
                new[j] += part
    return n_changed


@compiled()
def _mean_variance(rows, n_clusters, unit, square_unit, weights, space):
    """Of a component of all rows, from the statistics of the clusters that they are in."""
    n, n_dims = rows.shape
    weight, high, low = np.int64(0), np.int64(0), np.int64(0)
    for k in range(n_clusters):
        weight += space.weights[k]
    divisor = np.float64(weight) / WEIGHT_UNITS
    for i in range(n):
        square = canonical(rows.ctypes.data + 4 * i * n_dims, 0, n_dims)
        units = np.int64(np.rint(square * (weights[i] / square_unit)))
        high += units >> 32
        low += units & np.int64(2**32 - 1)
    squares = (np.float64(high) * 2.0**32 + np.float64(low)) * square_unit / divisor
    total = 0.0
    for j in range(n_dims):
        units = np.int64(0)
        for k in range(n_clusters):
            units += space.sums[k, j]
        mean = np.float64(units) * unit / divisor
        total += mean * mean
    return max(0.0, squares - total) / n_dims


@compiled()
def _shift(unit, spherical, space, centroids):
    """The centroids become means; returns by how much they moved, squared and summed."""
    n_clusters, n_dims = centroids.shape
    means, shift = space.means, 0.0
    for k in range(n_clusters):
        if space.weights[k] <= 0:
            continue
        row, sums, divisor = (
            centroids[k],
            space.sums[k],
            np.float64(space.weights[k]) / WEIGHT_UNITS,
        )
        for j in range(n_dims):
            means[j] = np.float64(sums[j]) * unit / divisor
        if spherical:
            square = 0.0
            for j in range(n_dims):
                square += means[j] * means[j]
            length = np.sqrt(square)
            if not length > 0.0:
                continue
            for j in range(n_dims):
                means[j] /= length
        for j in range(n_dims):
            mean = np.float32(means[j])
            gap = np.float64(mean) - np.float64(row[j])
            shift += gap * gap
            row[j] = mean
    return shift


@compiled()
def _is_anyone_missing(found, n_clusters, counts):
    """Has a cluster no member?"""
    for k in range(n_clusters):
        counts[k] = 0
    for i in range(found.size):
        counts[found[i]] = 1
    n_met = 0
    for k in range(n_clusters):
        n_met += counts[k]
    return n_met < n_clusters


@compiled()
def _lloyd(rows, weights, units, settings, is_bounded, model, space, labels, centroids):
    """Passes, which leave labels in ``space.found``; returns their number, and has it converged?"""
    n, n_dims = rows.shape
    n_clusters = centroids.shape[0]
    x, c, unit, tolerance = rows.ctypes.data, centroids.ctypes.data, units[0], 0.0
    found = space.found[:n]
    for k in range(n_clusters):
        space.weights[k] = 0
        for j in range(n_dims):
            space.sums[k, j] = 0
    for i in range(n):
        labels[i] = -1
    for n_iterations in range(1, settings.max_iterations + 1):
        label_all(x, n, centroids, is_bounded, model, space, found)
        had_empty = _relocate(x, c, n, n_clusters, n_dims, weights, space)
        if not _move(rows, labels, 1.0 / unit, weights, space):
            return n_iterations, True
        if n_iterations == 1:
            variance = _mean_variance(rows, n_clusters, unit, units[1], weights, space)
            tolerance = settings.tol * variance
        shift = _shift(unit, settings.spherical, space, centroids)
        if shift == 0.0 and not had_empty:  # the fixed point
            return n_iterations, True
        if shift <= tolerance:
            label_all(x, n, centroids, is_bounded, model, space, found)
            if not _is_anyone_missing(found, n_clusters, space.drawn):
                return n_iterations + 1, True
    label_all(x, n, centroids, is_bounded, model, space, found)
    return settings.max_iterations + 1, False


@compiled()
def _fit_problem(
    rows,  #       IN   (n, n_dims)  float32
    weights,  #    IN   (n,)         float64
    p,  #          of the problem
    problems,  #   IN   Problems
    settings,  #   IN   Settings
    model,  #      scratch Model
    space,  #      scratch Space
    centroids,  #  OUT  (n_clusters of the problem, n_dims)  float32
    labels,  #     OUT  (n,)  int32
    distances,  #  OUT  (n,)  float64
    results,  #    OUT  ManyFits: what is one number a problem
):
    """A fit from its seeds to its inertia."""
    n, n_dims = rows.shape
    n_clusters = n_distinct(rows, n, centroids.shape[0], space.drawn)
    results.n_clusters[p] = n_clusters
    if n_clusters == 0:
        return
    centroids = centroids[:n_clusters]
    is_bounded = centre(rows, space)
    seed(
        rows,
        problems.first_seeds[p],
        problems.numbers[problems.first_numbers[p] :],
        problems.n_trials[n_clusters],
        weights,
        is_bounded,
        model,
        space,
        centroids,
    )
    n_iterations, has_converged = _lloyd(
        rows, weights, problems.units[p], settings, is_bounded, model, space, labels, centroids
    )
    inertia = 0.0
    for i in range(n):
        labels[i] = space.found[i]
        centroid = centroids.ctypes.data + 4 * labels[i] * n_dims
        distances[i] = canonical(rows.ctypes.data + 4 * i * n_dims, centroid, n_dims)
        inertia += distances[i] * weights[i]
    results.inertias[p] = inertia
    results.n_iterations[p] = n_iterations
    results.has_converged[p] = has_converged


@compiled()
def fit_share(address, shape, most, weights, problems, places, settings, taken, results):
    """Problems until all are taken; ``most``: rows, clusters, trials of the largest."""
    points = carray(floats(address), shape)
    space = space_of(most[0], most[1], most[2], shape[1])
    model = model_of(max(most[1], most[2]), shape[1])
    ones = np.ones(most[0], np.float64)
    turn = take(taken.ctypes.data)
    while turn < places.order.size:
        p = places.order[turn]
        first, row, cluster = problems.first_rows[p], places.rows[p], places.clusters[p]
        last, row_after = first + problems.n_rows[p], row + problems.n_rows[p]
        cluster_after = cluster + problems.n_clusters[p]
        _fit_problem(
            points[first:last],
            weights[first:last] if weights.size else ones[: last - first],
            p,
            problems,
            settings,
            model,
            space,
            results.centroids[cluster:cluster_after],
            results.labels[row:row_after],
            results.distances_squared[row:row_after],
            results,
        )
        turn = take(taken.ctypes.data)
