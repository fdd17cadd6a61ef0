"""Compiled loops of the CPU twins: thousands of small problems, one after the other on a thread.

A thread takes a problem and does all of it: seeds, passes, statistics. What decides is what
decides in a fit alone (`canonical`, sums in integers, sums of floats in order), so the bytes are
the same; float32 only excludes, by the bound that `pipeline.kernels.bounds` derives, here in
float64 and two-sided, as a pass needs labels and no distances.

A product of such a size is over before a library's has packed its operands: the loop below is
1.1 to 3.5 times as fast as OpenBLAS at 100 to 1000 rows of 384, 4 to 64 columns.
"""
# mypy: ignore-errors
# (numba types these functions by their arguments)

from __future__ import annotations

import numpy as np
from numba import carray

from pipeline.kernels import basics, deciding
from pipeline.kernels.basics import canonical, compiler, floats, take
from pipeline.kernels.deciding import relative_error, round_down
from pipeline.kernels.many import tables
from pipeline.kernels.many.tables import N_TILE, model_of, space_of

UNIT = 2.0**-24  # relative error of one float32 operation
TINY = 2.0**-124  # more than a product or a sum loses below the normal float32 numbers
LENGTHEN = 1.0 + 2.0**-22  # an upper bound of a length, after the rounding of its rows
MAX_LENGTH = 1e18  # products of longer rows may overflow float32: all is compared canonically
MAX_DIMS = 2**20  # the error of a product must stay far below 1
ANY_ORDER = {"reassoc", "nsz", "contract"}  # only where the bound has room for it

compiled = compiler(basics, deciding, tables)


@compiled()
def slack_of(n_dims, square, length):
    """What a squared length, float64 sums of it, and a canonical one may be wrong by together."""
    return square * ((n_dims + 16) * 2.0**-50) + (2 * n_dims + 8) * TINY * (1.0 + length)


@compiled()
def slope_of(n_dims):
    """A of `bounds`, without the float32 operations that are float64 ones here."""
    gamma = n_dims * UNIT / (1.0 - n_dims * UNIT)
    return 1.0001 * 2.0 * gamma + 8.0 * UNIT


@compiled(fastmath=ANY_ORDER)
def centred(
    rows,  #     IN   (n, n_dims)  float32
    middle,  #   IN   (n_dims,)    float32
    z,  #        OUT  (n, n_dims)  float32
    squares,  #  OUT  (n,)         float64
):
    """z = x - m, rounded, and |x - m|²."""
    for i in range(rows.shape[0]):
        total = 0.0
        for j in range(middle.size):
            gap = np.float64(rows[i, j]) - np.float64(middle[j])
            total += gap * gap
            z[i, j] = np.float32(gap)
        squares[i] = total


@compiled(fastmath=ANY_ORDER)
def _squares(
    rows,  #     IN   (n, n_dims)  float32
    squares,  #  OUT  (n,)         float64
):
    """What `centred` says of |x|² with m = 0."""
    for i in range(rows.shape[0]):
        total = 0.0
        for j in range(rows.shape[1]):
            value = np.float64(rows[i, j])
            total += value * value
        squares[i] = total


@compiled()
def mean_of(
    rows,  #    IN   (n, n_dims)  float32
    n,
    middle,  #  OUT  (n_dims,)    float32
):
    """About the middle of the rows; any point would do."""
    for j in range(middle.size):
        middle[j] = 0.0
    for i in range(n):
        for j in range(middle.size):
            middle[j] += rows[i, j]
    for j in range(middle.size):
        middle[j] /= np.float32(n)


@compiled()
def measure(
    centroids,  #  IN   (n_clusters, n_dims)  float32
    middle,  #     IN   (n_dims,)             float32
    model,  #      OUT  Model
):
    """Prepare centroids; can their products be bounded?"""
    n_clusters, n_dims = centroids.shape
    longest = 0.0
    centred(centroids, middle, model.rows, model.below)
    for k in range(n_clusters):
        know(model, k, n_dims, model.below[k])
        longest = max(longest, model.lengths[k])
        if not model.lengths[k] <= MAX_LENGTH:
            longest = np.inf
    return longest <= MAX_LENGTH and n_dims <= MAX_DIMS


@compiled()
def _measure_near(
    centroids,  #  IN   (n_clusters, n_dims)  float32
    middle,  #     OUT  (n_dims,)             float32
    model,  #      OUT  Model
):
    """`measure` about zero, or about their mean where they are far from it for their distances.

    To centre the rows costs a third of a call. Not doing it, the bound is at most some 60 times as
    wide, and still 0.3 % of a squared distance at 384 dimensions.
    """
    n_clusters, n_dims = centroids.shape
    mean_of(centroids, n_clusters, middle)
    is_measured = measure(centroids, middle, model)
    offset, spread = 0.0, 0.0
    for j in range(n_dims):
        offset += np.float64(middle[j]) * np.float64(middle[j])
    for k in range(n_clusters):
        spread = max(spread, model.lengths[k])
    if not offset <= 16.0 * spread * spread:
        return is_measured, True
    for j in range(n_dims):
        middle[j] = 0.0
    return measure(centroids, middle, model), False


@compiled()
def know(model, k, n_dims, square):
    """Enter a centroid by its squared length."""
    length = np.sqrt(square) * LENGTHEN
    slack = slack_of(n_dims, square, length)
    model.lengths[k] = length
    model.below[k] = square - slack
    model.above[k] = square + slack


@compiled(fastmath=ANY_ORDER)
def products(
    z,  #       IN   (n, n_dims)           float32; readable to a multiple of 4 rows
    n,
    w,  #       IN   (n_clusters, n_dims)  float32; readable to a multiple of 2
    n_clusters,
    scores,  #  OUT  (n, n_clusters)       float32; writable likewise
):
    """z·w of all pairs: eight sums at once keep both multipliers of a core busy."""
    for i in range(0, n, 4):
        for k in range(0, n_clusters, 2):
            a = b = c = d = e = f = g = h = np.float32(0.0)
            for j in range(z.shape[1]):
                u, v = w[k, j], w[k + 1, j]
                a += z[i, j] * u
                b += z[i + 1, j] * u
                c += z[i + 2, j] * u
                d += z[i + 3, j] * u
                e += z[i, j] * v
                f += z[i + 1, j] * v
                g += z[i + 2, j] * v
                h += z[i + 3, j] * v
            scores[i, k], scores[i, k + 1] = a, e
            scores[i + 1, k], scores[i + 1, k + 1] = b, f
            scores[i + 2, k], scores[i + 2, k + 1] = c, g
            scores[i + 3, k], scores[i + 3, k + 1] = d, h


@compiled(fastmath={*ANY_ORDER, "nnan"})
def _bound(
    scores,  #   IN   (n, n_clusters)  float32
    n,
    lengths,  #  IN   (n_clusters,)    float64
    below,  #    IN   (n_clusters,)    float64
    above,  #    IN   (n_clusters,)    float64
    lows,  #     OUT  (n, n_clusters)  float64
    limits,  #   IN   (n,)  float64: what a length is to be multiplied by; OUT the least bound
):
    """Bounds of all distances, less |z|²: each from below, of a row the least from above."""
    for i in range(n):
        least, steep = np.inf, limits[i]
        for k in range(lengths.size):
            score, reach = -2.0 * np.float64(scores[i, k]), steep * lengths[k]
            lows[i, k] = below[k] + score - reach
            high = above[k] + score + reach
            least = high if high < least else least
        limits[i] = least


@compiled()
def _label(
    x,  #          address of the rows
    n,
    centroids,  #  address of the centroids
    n_clusters,
    n_dims,
    lows,  #       IN   (n, n_clusters)  float64
    limits,  #     IN   (n,)  float64
    labels,  #     OUT  (n,)  int32
):
    """The canonical argmin among those that are below the limit of their row."""
    for i in range(n):
        row, limit = x + 4 * i * n_dims, limits[i]
        label, n_candidates, best = 0, 0, np.inf
        for k in range(n_clusters):
            if lows[i, k] <= limit:
                if n_candidates == 1:  # the first one is not compared until there is another
                    best = canonical(row, centroids + 4 * label * n_dims, n_dims)
                if n_candidates:
                    distance = canonical(row, centroids + 4 * k * n_dims, n_dims)
                    if distance < best:
                        best, label = distance, k
                else:
                    label = k
                n_candidates += 1
        labels[i] = label


@compiled()
def _label_tile(
    x,  #          address of the rows
    n,
    centroids,  #  IN   (n_clusters, n_dims)  float32
    z,  #          IN   (n, n_dims)  float32
    lengths,  #    IN   (n,)  float64
    slacks,  #     IN   (n,)  float64
    is_bounded,
    model,  #      INOUT  Model; its ``lows`` are left for gaps
    labels,  #     OUT  (n,)  int32
):
    """Label up to `N_TILE` rows."""
    n_clusters, n_dims = centroids.shape
    scores, lows, limits = model.scores, model.lows, model.limits
    if is_bounded:
        slope = slope_of(n_dims)
        products(z, n, model.rows, n_clusters, scores)
        for i in range(n):
            limits[i] = slope * lengths[i] + n_dims * TINY
        reach = model.lengths[:n_clusters]
        _bound(scores, n, reach, model.below, model.above, lows, limits)
        for i in range(n):
            limits[i] += 2.0 * slacks[i]
    else:
        for i in range(n):
            limits[i] = np.inf
            for k in range(n_clusters):
                lows[i, k] = -np.inf
    _label(x, n, centroids.ctypes.data, n_clusters, n_dims, lows, limits, labels)


@compiled()
def _lengths(
    n,
    n_dims,
    squares,  #  IN   (n,)  float64
    lengths,  #  OUT  (n,)  float64: rounded up
    slacks,  #   OUT  (n,)  float64
):
    """Of centred rows; can products of them be bounded?"""
    is_bounded = n_dims <= MAX_DIMS
    for i in range(n):
        lengths[i] = np.sqrt(squares[i]) * LENGTHEN
        slacks[i] = slack_of(n_dims, squares[i], lengths[i])
        if not lengths[i] <= MAX_LENGTH:
            is_bounded = False
    return is_bounded


@compiled()
def centre(rows, space):
    """Rows less about their mean; can products of them be bounded?"""
    n, n_dims = rows.shape
    mean_of(rows, n, space.middle)
    centred(rows, space.middle, space.z, space.squares)
    return _lengths(n, n_dims, space.squares, space.lengths, space.slacks)


@compiled()
def label_all(
    x,  #          address of the rows
    n,
    centroids,  #  IN   (n_clusters, n_dims)  float32
    can_bound,  #  can the products of the rows be?
    model,  #      scratch Model
    space,  #      IN   Space, centred
    labels,  #     OUT  (n,)  int32
):
    """A pass over the rows of a fit."""
    n_dims = centroids.shape[1]
    is_bounded = can_bound and measure(centroids, space.middle, model)
    for start in range(0, n, N_TILE):
        last = min(start + N_TILE, n)
        _label_tile(
            x + 4 * start * n_dims,
            last - start,
            centroids,
            space.z[start:],
            space.lengths[start:last],
            space.slacks[start:last],
            is_bounded,
            model,
            labels[start:last],
        )


@compiled()
def _assign_problem(
    points,  #     IN   (n, n_dims)           float32
    centroids,  #  IN   (n_clusters, n_dims)  float32
    labels,  #     OUT  (n,)                  int32
    distances,  #  OUT  (n,)                  float64
    gaps,  #       OUT  (n,)                  float32
    space,  #      scratch Space of N_TILE rows
    model,  #      scratch Model
):
    """Label the rows of one problem."""
    n_clusters, n_dims = centroids.shape
    x, c = points.ctypes.data, centroids.ctypes.data
    relative = relative_error(n_dims)
    is_measured, is_far = _measure_near(centroids, space.middle, model)
    for start in range(0, labels.size, N_TILE):
        last = min(start + N_TILE, labels.size)
        n, tile, z = last - start, x + 4 * start * n_dims, space.z
        if is_far or n % 4:  # `products` reads to a multiple of 4
            centred(points[start:last], space.middle, z, space.squares)
        else:
            z = points[start:last]
            _squares(z, space.squares)
        is_bounded = _lengths(n, n_dims, space.squares, space.lengths, space.slacks)
        _label_tile(
            tile,
            n,
            centroids,
            z,
            space.lengths,
            space.slacks,
            is_bounded and is_measured,
            model,
            labels[start:last],
        )
        for i in range(n):
            label = labels[start + i]
            best = canonical(tile + 4 * i * n_dims, c + 4 * label * n_dims, n_dims)
            other = np.inf
            for k in range(n_clusters):
                if k != label:
                    other = min(other, model.lows[i, k])
            gap = other + (space.squares[i] - space.slacks[i]) - best * (1.0 + relative)
            distances[start + i] = best
            gaps[start + i] = round_down(gap) if n_clusters > 1 else np.inf


@compiled()
def assign_share(address, n_dims, starts, centroids_address, centroid_starts, most, taken, results):
    """Problems until all are taken."""
    labels, distances, gaps = results
    points = carray(floats(address), (starts[-1], n_dims))
    centroids = carray(floats(centroids_address), (centroid_starts[-1], n_dims))
    space = space_of(N_TILE, 1, 1, n_dims)
    model = model_of(most, n_dims)
    p = take(taken.ctypes.data)
    while p < starts.size - 1:
        first, last = starts[p], starts[p + 1]
        if first < last:
            _assign_problem(
                points[first:last],
                centroids[centroid_starts[p] : centroid_starts[p + 1]],
                labels[first:last],
                distances[first:last],
                gaps[first:last],
                space,
                model,
            )
        p = take(taken.ctypes.data)
