"""Compiled loops of the portable twin: labels.

A kernel is a free function; its parameters say which way each array flows. Pointers to code are
arguments, not constants, so that what is compiled can be kept on disk.
"""
# mypy: ignore-errors
# (numba types these functions by their arguments, the intrinsics by their signatures)

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.kernels import basics, deciding
from pipeline.kernels.basics import canonical as canonical
from pipeline.kernels.basics import compiled as compiled
from pipeline.kernels.basics import compiler, floats, least, place_of, take, unowned
from pipeline.kernels.bounds import Borders, BoundedModel
from pipeline.kernels.cpu.prefix import Prefix
from pipeline.kernels.cpu.ways import Results
from pipeline.kernels.deciding import decide, round_up, write, write_alone

FEW = 48  # records up to which packing for the product costs more than its speed saves
LENGTHEN = 1.0 + 2.0**-22  # an upper bound of a length, after the rounding of its rows

_take = take
_compiled = compiler(basics, deciding)


@intrinsic
def _scores_by_sgemm(typingctx, sgemm, factor, n_clusters, n, n_dims, centred, z, scores, n_padded):
    """scores (n, n_padded) = factor z (n, d) · centred (K, d)ᵀ, all by address.

    The pointer is an argument, not a constant, so that the compiled code can be kept on disk.
    """

    def generate(context, builder, signature, args):
        sgemm, factor, n_clusters, n, n_dims, centred, z, scores, n_padded = args
        byte, word, real = ir.IntType(8), ir.IntType(32), ir.FloatType()

        def at(value):
            place = cgutils.alloca_once(builder, value.type)
            builder.store(value, place)
            return builder.bitcast(place, byte.as_pointer())

        def size(value):
            return at(builder.trunc(value, word))

        def array(value):
            return builder.inttoptr(value, byte.as_pointer())

        kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer()] * 13)
        builder.call(
            builder.inttoptr(sgemm, kind.as_pointer()),
            [
                at(ir.Constant(byte, ord("T"))),
                at(ir.Constant(byte, ord("N"))),
                size(n_clusters),
                size(n),
                size(n_dims),
                at(factor),
                array(centred),
                size(n_dims),
                array(z),
                size(n_dims),
                at(ir.Constant(real, 0.0)),
                array(scores),
                size(n_padded),
            ],
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, *[types.int64] * 7), generate


@_compiled(fastmath={"reassoc", "nsz", "contract"})
def _centre(
    points,  #  IN   (n_points, n_dims)  float32
    middle,  #  IN   (n_dims,)           float32
    i,
    z,  #       OUT  (n_dims,)           float32
):
    """z = x - m, rounded; returns |x - m|² within n_dims·2**-53 of itself, in any order."""
    total = 0.0
    for j in range(middle.size):
        gap = np.float64(points[i, j]) - np.float64(middle[j])
        z[j] = np.float32(gap)
        total += gap * gap
    return total


@_compiled(fastmath={"reassoc", "nsz", "contract"})
def _scores_by_loop(
    factor,
    z,  #        IN   (n, n_dims)           float32
    n,
    centred,  #  IN   (n_clusters, n_dims)  float32
    scores,  #   OUT  (n, n_padded)         float32
):
    """What `_scores_by_sgemm` does, for few rows: four at a time, each centroid read once."""
    n_clusters, n_dims = centred.shape
    i = 0
    while i + 4 <= n:
        for k in range(n_clusters):
            a = b = c = d = np.float32(0.0)
            for j in range(n_dims):
                w = centred[k, j]
                a += z[i, j] * w
                b += z[i + 1, j] * w
                c += z[i + 2, j] * w
                d += z[i + 3, j] * w
            scores[i, k] = factor * a
            scores[i + 1, k] = factor * b
            scores[i + 2, k] = factor * c
            scores[i + 3, k] = factor * d
        i += 4
    while i < n:
        for k in range(n_clusters):
            a = np.float32(0.0)
            for j in range(n_dims):
                a += z[i, j] * centred[k, j]
            scores[i, k] = factor * a
        i += 1


@_compiled()
def _products(
    sgemm,
    factor,
    z,  #       IN   (n_tile, n_dims)  float32
    n,
    rows,  #    IN   (n_rows, n_dims)  float32
    scores,  #  OUT  (n_tile, >= n_rows)  float32: factor z · rows
):
    if n <= FEW:
        _scores_by_loop(factor, z, n, rows, scores)
    else:
        _scores_by_sgemm(
            sgemm,
            factor,
            rows.shape[0],
            n,
            rows.shape[1],
            rows.ctypes.data,
            z.ctypes.data,
            scores.ctypes.data,
            scores.shape[1],
        )


@_compiled(fastmath={"reassoc", "nsz", "contract"})
def _across(
    y,  #  IN  (r,)  float32
    length,
    prefix,  #  IN  Prefix
):
    """2 |z_⊥|, rounded up; ``length`` is |z|."""
    square = 0.0
    for j in range(y.size):
        square += np.float64(y[j]) * np.float64(y[j])
    along = max(0.0, np.sqrt(square) * (1.0 - 2.0**-30) - prefix.loss * length)
    rest = np.sqrt(max(0.0, length * length - along * along / prefix.stretch))
    return round_up(2.0 * rest * LENGTHEN)


@_compiled(fastmath={"nnan", "nsz", "contract"})
def _lower(
    row,  #      INOUT  (n_padded,)    float32: -2 z·w becomes L, +inf beyond n_clusters
    floors,  #   IN     (n_clusters,)  float32
    reaches,  #  IN     (n_clusters,)  float32
    slope,  #    float32: A |z|, rounded up
    tails,  #    IN     (n_clusters,)  float32; empty without a prefix
    across,  #   float32: 2 |z_⊥|, rounded up
):
    """The label of the least L."""
    n_clusters = floors.size
    if tails.size:
        for k in range(n_clusters):
            row[k] = (floors[k] + row[k]) - slope * reaches[k] - across * tails[k]
    else:
        for k in range(n_clusters):
            row[k] = (floors[k] + row[k]) - slope * reaches[k]
    row[n_clusters:] = np.inf
    return place_of(row, least(row))


@_compiled()
def _assign_tile(
    sgemm,
    points,  #   IN   (n_points, n_dims)  float32
    start,
    n,
    model,  #    IN   BoundedModel
    prefix,  #   IN   Prefix
    borders,  #  IN   Borders
    z,  #        scratch (n_tile, n_dims)     float32
    y,  #        scratch (n_tile, n_rotated)  float32
    scores,  #   scratch (n_tile, n_padded)   float32
    found,  #    scratch (n_padded,)          int32
    lowers,  #   scratch (n_padded,)          float32
    results,  #  OUT  Results
):
    """Label records start to start + n; returns how many centroids were compared."""
    centroids, max_length, n_rotated = model.centroids, model.max_length, y.shape[1]
    n_clusters, n_dims = centroids.shape
    x_start, c, stride = points.ctypes.data, centroids.ctypes.data, 4 * n_dims
    if n_clusters == 1:
        for i in range(start, start + n):
            write_alone(i, x_start + i * stride, c, n_dims, results)
        return n
    lengths_squared = np.empty(n, np.float64)
    n_bounded = 0
    for i in range(n):
        lengths_squared[i] = _centre(points, model.middle, start + i, z[i])
        if np.sqrt(lengths_squared[i]) <= max_length:
            n_bounded += 1
    if n_bounded and n_rotated:
        _products(sgemm, np.float32(1.0), z, n, prefix.basis, y)
        _products(sgemm, np.float32(-2.0), y, n, prefix.parts, scores)
    elif n_bounded:
        _products(sgemm, np.float32(-2.0), z, n, model.centred, scores)
    with_second, with_margin = results.second_labels.size > 0, results.margins.size > 0
    across = np.float32(0.0)
    n_compared = 0
    for i in range(n):
        row = scores[i]
        length = np.sqrt(lengths_squared[i]) * LENGTHEN
        if length <= max_length:
            steep = round_up(model.slope * length + model.tilt)
            if n_rotated:
                across = _across(y[i], length, prefix)
            label = _lower(row, model.floors, model.reaches, steep, prefix.tails, across)
            # what is left of |z|² after its own rounding
            shift = lengths_squared[i] * (1.0 - (n_dims + 8) * 2.0**-51)
        else:  # nothing is known, so everything is a candidate
            row[:n_clusters] = -np.inf
            row[n_clusters:] = np.inf
            label, shift = 0, 0.0
        x = x_start + (start + i) * stride
        decided = decide(
            x, c, n_dims, label, shift, row, found, lowers, None, with_second, with_margin
        )
        n_compared += write(
            start + i, decided, shift, n_dims, row, model.reaches, borders, results
        )  # fmt: skip
    return n_compared


@_compiled()
def assign_share(
    sgemm, address, n_points, n_tile, share, model, prefix, borders, room, results
):  # fmt: skip
    """Label tiles until all are taken: a thread that gets no core leaves them to the others.

    The last five are plain tuples: one with names costs half a microsecond of every call.
    """
    own_model, own_prefix = BoundedModel(*unowned(model)), Prefix(*unowned(prefix))
    own_borders, own_results = Borders(*unowned(borders)), Results(*unowned(results))
    scratch, taken, compared = unowned(room)
    n_clusters, n_dims = own_model.centroids.shape
    n_padded, n_rotated = -(-n_clusters // 16) * 16, own_prefix.basis.shape[0]
    points = carray(floats(address), (n_points, n_dims))
    size = n_tile * (n_dims + n_rotated + n_padded)
    mine = scratch[share * size : (share + 1) * size]
    middle, last = n_tile * n_dims, n_tile * (n_dims + n_rotated)
    z = mine[:middle].reshape(n_tile, n_dims)
    y = mine[middle:last].reshape(n_tile, n_rotated)
    scores = mine[last:].reshape(n_tile, n_padded)
    found, lowers = np.empty(n_padded, np.int32), np.empty(n_padded, np.float32)
    n_compared = 0
    start = take(taken.ctypes.data) * n_tile
    while start < n_points:
        n = min(n_tile, n_points - start)
        n_compared += _assign_tile(
            sgemm, points, start, n, own_model, own_prefix, own_borders, z, y, scores, found,
            lowers, own_results,
        )  # fmt: skip
        start = take(taken.ctypes.data) * n_tile
    compared[share] = n_compared


@_compiled(parallel=True)
def assign_parallel(
    sgemm, address, n_points, n_tile, threads, model, prefix, borders, room, results
):  # fmt: skip
    """`assign_share` on each thread."""
    for share in prange(threads):
        assign_share(
            sgemm, address, n_points, n_tile, share, model, prefix, borders, room, results
        )  # fmt: skip
