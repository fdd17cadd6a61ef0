"""Compiled kernels of the CUDA twin: labels and statistics.

Three of them label a point. `centre_points` subtracts the middle; `nearest_by_bound` finds in
float32 tiles which centroid has the least lower bound (`pipeline.kernels.bounds`), and the next
least; `decide`, a warp a point, compares canonically what the bounds leave open. A canonical
sum is a warp: thread t has the running sum t, and the fold is the tree of the halves. Fewer
threads have several running sums each, which the simulator needs: it takes milliseconds a thread.

Only the launch sizes know the simulator, and three operations: NVVM may contract a product and
a sum into one rounding, so they are asked for by name.
"""
# mypy: ignore-errors
# (numba types the kernels by their arguments)

from __future__ import annotations

import operator

import numpy as np
from numba import cuda, float32, float64, int32
from numba.core import config
from numba.cuda import libdevice

SIMULATED = bool(config.ENABLE_CUDASIM)
LANES = 32  # running sums of a canonical distance
THREADS = 1 if SIMULATED else 32  # that share them; divides LANES
OWN_LANES = LANES // THREADS
SIDE = 2 if SIMULATED else 16  # a block of the tile kernel has SIDE x SIDE threads,
OWN = 4  # each with OWN x OWN scores,
TILE = SIDE * OWN  # so it scores TILE points against TILE centroids,
DEPTH = 16  # with so many dimensions at a time in shared memory
LENGTHEN = 1.0 + 2.0**-22  # more than the rounding of a length, or to float32
MAX_GAP = 3e38  # about the largest float32

if SIMULATED:  # Python rounds each operation by itself
    _add, _times, _rint = operator.add, operator.mul, np.rint
else:
    _add, _times, _rint = libdevice.dadd_rn, libdevice.dmul_rn, libdevice.rint


@cuda.jit(device=True)
def _synchronise():
    if THREADS > 1:
        cuda.syncthreads()


@cuda.jit(device=True)
def folded(sums, lanes):
    """Canonical fold of the running sums of all threads; every thread gets the total."""
    thread = cuda.threadIdx.x
    for own in range(OWN_LANES):
        lanes[thread + own * THREADS] = sums[own]
    _synchronise()
    width = LANES // 2
    while width > 0:
        for lane in range(thread, width, THREADS):
            lanes[lane] = _add(lanes[lane], lanes[lane + width])
        _synchronise()
        width //= 2
    total = lanes[0]
    _synchronise()  # the next fold writes where this one is still read
    return total


@cuda.jit(device=True)
def _canonical(x, i, c, k, lanes):
    """Canonical squared distance of row i of x and row k of c, by a warp; k = -1: to zero."""
    sums = cuda.local.array(OWN_LANES, float64)
    for own in range(OWN_LANES):
        total = 0.0
        for j in range(cuda.threadIdx.x + own * THREADS, x.shape[1], LANES):
            gap = float64(x[i, j])
            if k >= 0:
                gap -= float64(c[k, j])
            total = _add(total, _times(gap, gap))
        sums[own] = total
    return folded(sums, lanes)


@cuda.jit(device=True)
def _limit(distance, shift, relative):
    """The bound above which a centroid is proven to be further away than a canonical distance."""
    return distance * (1.0 + relative) - shift + (distance + shift) * 2.0**-50


@cuda.jit
def centre_points(
    points,  #           IN   (n_points, n_dims)  float32
    middle,  #           IN   (n_dims,)           float32
    slope,
    tilt,
    z,  #                OUT  (n_points, n_dims)  float32: x - m
    lengths_squared,  #  OUT  (n_points,)         float64: |x - m|²
    slopes,  #           OUT  (n_points,)         float32: A |z|, rounded up
):
    """One warp centres one point."""
    lanes = cuda.shared.array(LANES, float64)
    sums = cuda.local.array(OWN_LANES, float64)
    i = cuda.blockIdx.x
    for own in range(OWN_LANES):
        total = 0.0
        for j in range(cuda.threadIdx.x + own * THREADS, points.shape[1], LANES):
            gap = float64(points[i, j]) - float64(middle[j])
            z[i, j] = float32(gap)
            total += gap * gap
        sums[own] = total
    total = folded(sums, lanes)
    if cuda.threadIdx.x == 0:
        lengths_squared[i] = total
        slopes[i] = float32((slope * total**0.5 * LENGTHEN + tilt) * LENGTHEN)


@cuda.jit(device=True)
def score_tile(
    z,  #        IN   (n_points, n_dims)    float32
    centred,  #  IN   (n_clusters, n_dims)  float32
    start,
    k_start,
    xs,  #       scratch (DEPTH, TILE) float32, shared
    cs,  #       scratch (DEPTH, TILE) float32, shared
    scores,  #   OUT  (OWN, OWN)            float32: z·w, of this thread
):
    """A block multiplies TILE points by TILE centroids; rows past the end count as zeros."""
    thread = cuda.threadIdx.x
    column, row = thread % SIDE, thread // SIDE
    n_points, n_dims = z.shape
    n_clusters = centred.shape[0]
    for a in range(OWN):
        for b in range(OWN):
            scores[a, b] = float32(0.0)
    for j_start in range(0, n_dims, DEPTH):
        for place_in_tile in range(thread, TILE * DEPTH, SIDE * SIDE):
            r, j = place_in_tile // DEPTH, place_in_tile % DEPTH
            x = float32(0.0)
            c = float32(0.0)
            if j_start + j < n_dims:
                if start + r < n_points:
                    x = z[start + r, j_start + j]
                if k_start + r < n_clusters:
                    c = centred[k_start + r, j_start + j]
            xs[j, r] = x
            cs[j, r] = c
        cuda.syncthreads()
        for j in range(DEPTH):
            for a in range(OWN):
                x = xs[j, row * OWN + a]
                for b in range(OWN):
                    scores[a, b] += x * cs[j, column * OWN + b]
        cuda.syncthreads()


@cuda.jit
def nearest_by_bound(
    z,  #           IN   (n_points, n_dims)    float32
    centred,  #     IN   (n_clusters, n_dims)  float32
    floors,  #      IN   (n_clusters,)         float32
    reaches,  #     IN   (n_clusters,)         float32
    slopes,  #      IN   (n_points,)           float32
    labels,  #      OUT  (n_points,)           int32: of the least bound
    next_least,  #  OUT  (n_points,)           float32
):
    """A block takes TILE points through all centroids; a thread has OWN x OWN scores at a time."""
    xs = cuda.shared.array((DEPTH, TILE), float32)
    cs = cuda.shared.array((DEPTH, TILE), float32)
    firsts = cuda.shared.array((TILE, SIDE), float32)
    seconds = cuda.shared.array((TILE, SIDE), float32)
    places = cuda.shared.array((TILE, SIDE), int32)
    scores = cuda.local.array((OWN, OWN), float32)
    first = cuda.local.array(OWN, float32)
    second = cuda.local.array(OWN, float32)
    place = cuda.local.array(OWN, int32)
    n_points = z.shape[0]
    n_clusters = centred.shape[0]
    thread = cuda.threadIdx.x
    column, row = thread % SIDE, thread // SIDE
    start = cuda.blockIdx.x * TILE
    infinity = float32(np.inf)
    for a in range(OWN):
        first[a] = infinity
        second[a] = infinity
        place[a] = 0
    for k_start in range(0, n_clusters, TILE):
        score_tile(z, centred, start, k_start, xs, cs, scores)
        for b in range(OWN):
            k = k_start + column * OWN + b
            if k < n_clusters:
                for a in range(OWN):
                    i = start + row * OWN + a
                    if i < n_points:
                        bound = floors[k] - float32(2.0) * scores[a, b] - slopes[i] * reaches[k]
                        if bound < first[a]:
                            second[a] = first[a]
                            first[a] = bound
                            place[a] = k
                        elif bound < second[a]:
                            second[a] = bound
    for a in range(OWN):
        firsts[row * OWN + a, column] = first[a]
        seconds[row * OWN + a, column] = second[a]
        places[row * OWN + a, column] = place[a]
    cuda.syncthreads()
    for r in range(thread, TILE, SIDE * SIDE):
        if start + r < n_points:
            least = infinity
            following = infinity
            label = 0
            for s in range(SIDE):
                if firsts[r, s] < least:
                    following = min(least, seconds[r, s])
                    least = firsts[r, s]
                    label = places[r, s]
                else:
                    following = min(following, firsts[r, s])
            labels[start + r] = label
            next_least[start + r] = following


@cuda.jit
def decide(
    points,  #            IN   (n_points, n_dims)    float32
    middle,  #            IN   (n_dims,)             float32
    lengths_squared,  #   IN   (n_points,)           float64
    slopes,  #            IN   (n_points,)           float32
    proposed,  #          IN   (n_points,)           int32
    next_least,  #        IN   (n_points,)           float32, times
    unit,
    centroids,  #         IN   (n_clusters, n_dims)  float32
    centred,  #           IN   (n_clusters, n_dims)  float32
    floors,  #            IN   (n_clusters,)         float32
    reaches,  #           IN   (n_clusters,)         float32
    max_length,
    with_second,
    labels,  #            OUT  (n_points,)           int32
    distances,  #         OUT  (n_points,)           float64
    gaps,  #              OUT  (n_points,)           float32
    second_labels,  #     OUT  (n_points,)           int32
    second_distances,  #  OUT  (n_points,)           float64
    n_doubtful,  #        INOUT  (1,)                int32: so many were left open
):
    """One warp decides one point; all its threads go the same way."""
    lanes = cuda.shared.array(LANES, float64)
    dots = cuda.local.array(OWN_LANES, float64)
    i = cuda.blockIdx.x
    n_dims = points.shape[1]
    n_clusters = centroids.shape[0]
    relative = 4.0 * (n_dims / 32.0 + 8.0) * 2.0**-53
    length_squared = lengths_squared[i]
    is_bounded = length_squared**0.5 * LENGTHEN <= max_length
    shift = length_squared * (1.0 - (n_dims + 8) * 2.0**-51)
    proposal = proposed[i] if is_bounded else 0
    label = proposal
    best = _canonical(points, i, centroids, label, lanes)
    second_label = -1
    second = np.inf
    rest = float64(next_least[i]) * unit  # the least bound of the centroids that are not compared
    if with_second or not is_bounded or rest <= _limit(best, shift, relative):
        if cuda.threadIdx.x == 0 and not with_second:
            cuda.atomic.add(n_doubtful, 0, 1)
        rest = np.inf
        limit = np.inf if with_second else _limit(best, shift, relative)
        for k in range(n_clusters):
            if k == proposal:
                continue
            if is_bounded:
                for own in range(OWN_LANES):
                    dot = 0.0
                    for j in range(cuda.threadIdx.x + own * THREADS, n_dims, LANES):
                        z = float32(float64(points[i, j]) - float64(middle[j]))
                        dot += float64(z) * float64(centred[k, j])
                    dots[own] = dot
                score = float32(-2.0 * folded(dots, lanes))
                bound = float64(floors[k] + score - slopes[i] * reaches[k])
                if bound > limit:
                    rest = min(rest, bound)
                    continue
            distance = _canonical(points, i, centroids, k, lanes)
            if distance < best or (distance == best and k < label):
                second = best
                second_label = label
                best = distance
                label = k
            elif distance < second or (distance == second and k < second_label):
                second = distance
                second_label = k
            limit = _limit(second if with_second else best, shift, relative)
    if cuda.threadIdx.x == 0:
        labels[i] = label
        distances[i] = best
        second_labels[i] = second_label
        second_distances[i] = second
        gap = np.inf
        if n_clusters > 1:
            uncompared = (rest + shift) * (1.0 - relative) - shift * 2.0**-50
            gap = min(second * (1.0 - relative), uncompared) - best * (1.0 + relative)
            # rounded down by more than the rounding to float32, whose denormal numbers are left out
            gap = min(gap * (1.0 - 2.0**-22), MAX_GAP) if gap > 2.0**-100 else 0.0
        gaps[i] = float32(gap)


@cuda.jit(device=True)
def _add_row(points, i, label, sign, per_unit, per_square_unit, counts, sums, squares, lanes):
    """One warp adds one row; integers may arrive in any order."""
    for j in range(cuda.threadIdx.x, points.shape[1], THREADS):
        component = np.int64(_rint(float64(points[i, j]) * per_unit))
        cuda.atomic.add(sums, (label, j), sign * component)
    total = _canonical(points, i, points, -1, lanes)
    if cuda.threadIdx.x == 0:
        square = np.int64(_rint(total * per_square_unit))
        cuda.atomic.add(counts, label, np.int64(sign))
        cuda.atomic.add(squares, (label, 0), sign * (square >> 32))
        cuda.atomic.add(squares, (label, 1), sign * (square & np.int64(0xFFFFFFFF)))


@cuda.jit
def accumulate(
    points,  #   IN     (n_rows, n_dims)      float32
    labels,  #   IN     (n_rows,)             int32
    sign,
    per_unit,
    per_square_unit,
    counts,  #   INOUT  (n_clusters,)         int64
    sums,  #     INOUT  (n_clusters, n_dims)  int64
    squares,  #  INOUT  (n_clusters, 2)       int64
):
    """One block is one row."""
    lanes = cuda.shared.array(LANES, float64)
    i = cuda.blockIdx.x
    label = labels[i]
    if label >= 0:
        _add_row(
            points, i, label, sign, per_unit, per_square_unit, counts, sums, squares, lanes
        )  # fmt: skip


@cuda.jit
def accumulate_weighted(
    points,  #   IN     (n_rows, n_dims)      float32
    labels,  #   IN     (n_rows,)             int32
    weights,  #  IN     (n_rows,)             float64
    sign,
    per_unit,
    per_square_unit,
    counts,  #   INOUT  (n_clusters,)         int64
    sums,  #     INOUT  (n_clusters, n_dims)  int64
    squares,  #  INOUT  (n_clusters, 2)       int64
):
    """One block is one row; its weight times a power of two is exact, and rounds no product."""
    lanes = cuda.shared.array(LANES, float64)
    i = cuda.blockIdx.x
    label = labels[i]
    if label >= 0:
        _add_row(
            points, i, label, sign, weights[i] * per_unit, weights[i] * per_square_unit,
            counts, sums, squares, lanes,
        )  # fmt: skip
