"""Compiled loops of the CPU twin: labels.

A kernel is a free function; its parameters say which way each array flows. The intrinsics
stand in the file of the loops that use them and all else is an argument, because the cache
on disk notices that this file has changed, and would not notice a change elsewhere.
"""
# mypy: ignore-errors
# (numba types these functions by their arguments, the intrinsics by their signatures)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

FEW = 48  # records up to which packing for the product costs more than its speed saves
LENGTHEN = 1.0 + 2.0**-22  # an upper bound of a length, after the rounding of its rows


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``njit`` with the result kept on disk, where there is a disk to keep it on."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's can be written
            return njit(nogil=True, **options)(function)

    return decorate


@intrinsic
def _scores_by_sgemm(typingctx, sgemm, n_clusters, n, n_dims, centred, z, scores):
    """scores (n, K) = -2 z (n, d) · centred (K, d)ᵀ, all by address.

    The pointer is an argument, not a constant, so that the compiled code can be kept on disk.
    """

    def generate(context, builder, signature, args):
        sgemm, n_clusters, n, n_dims, centred, z, scores = args
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
                at(ir.Constant(real, -2.0)),
                array(centred),
                size(n_dims),
                array(z),
                size(n_dims),
                at(ir.Constant(real, 0.0)),
                array(scores),
                size(n_clusters),
            ],
        )
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


@intrinsic
def canonical(typingctx, x, c, n_dims):
    """Canonical squared distance of two rows by address; c = 0 stands for the zero vector.

    Written as 32 lanes because a compiler that is left to find them may also contract them.
    """
    lanes = 32

    def generate(context, builder, signature, args):
        x, c, n_dims = args
        word, real, double = ir.IntType(64), ir.FloatType(), ir.DoubleType()
        reals, doubles = ir.VectorType(real, lanes), ir.VectorType(double, lanes)
        mask_type = ir.VectorType(ir.IntType(1), lanes)
        size = ir.Constant(word, lanes)
        zeros = ir.Constant(reals, [0.0] * lanes)
        sums = cgutils.alloca_once_value(builder, ir.Constant(doubles, [0.0] * lanes))
        to_zero = builder.icmp_signed("==", c, ir.Constant(word, 0))
        # then x is read in its place, and not used
        c_start = builder.select(to_zero, x, c)

        def pointer(start, first):
            address = builder.add(start, builder.mul(first, ir.Constant(word, 4)))
            return builder.inttoptr(address, reals.as_pointer())

        def add(xs, cs):
            cs = builder.select(to_zero, zeros, cs)
            gaps = builder.fsub(builder.fpext(xs, doubles), builder.fpext(cs, doubles))
            builder.store(builder.fadd(builder.load(sums), builder.fmul(gaps, gaps)), sums)

        n_blocks = builder.sdiv(n_dims, size)
        with cgutils.for_range(builder, n_blocks) as loop:
            first = builder.mul(loop.index, size)
            xs = builder.load(pointer(x, first), align=4)
            cs = builder.load(pointer(c_start, first), align=4)
            add(xs, cs)
        rest = builder.srem(n_dims, size)
        with builder.if_then(builder.icmp_signed(">", rest, ir.Constant(word, 0)), likely=False):
            first = builder.mul(n_blocks, size)
            words = ir.VectorType(word, lanes)
            spread = cgutils.get_null_value(words)
            for lane in range(lanes):
                spread = builder.insert_element(spread, rest, ir.Constant(ir.IntType(32), lane))
            mask = builder.icmp_signed("<", ir.Constant(words, list(range(lanes))), spread)
            masked = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(reals, [reals.as_pointer(), ir.IntType(32), mask_type, reals]),
                f"llvm.masked.load.v{lanes}f32.p0",
            )
            align = ir.Constant(ir.IntType(32), 4)
            xs = builder.call(masked, [pointer(x, first), align, mask, zeros])
            cs = builder.call(masked, [pointer(c_start, first), align, mask, zeros])
            add(xs, cs)
        total = builder.load(sums)
        width = lanes
        while width > 1:
            width //= 2
            places = ir.VectorType(ir.IntType(32), width)
            low = ir.Constant(places, list(range(width)))
            high = ir.Constant(places, list(range(width, 2 * width)))
            nothing = ir.Constant(total.type, ir.Undefined)
            total = builder.fadd(
                builder.shuffle_vector(total, nothing, low),
                builder.shuffle_vector(total, nothing, high),
            )
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.float64(types.int64, types.int64, types.int64), generate


@intrinsic
def floats(typingctx, address):
    """A pointer to float32 from an address."""

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(types.int64), generate


@compiled(fastmath={"reassoc", "nsz", "contract"})
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


@compiled(fastmath={"reassoc", "nsz", "contract"})
def _scores_by_loop(
    z,  #        IN   (n, n_dims)           float32
    n,
    centred,  #  IN   (n_clusters, n_dims)  float32
    scores,  #   OUT  (n, n_clusters)       float32
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
            scores[i, k] = np.float32(-2.0) * a
            scores[i + 1, k] = np.float32(-2.0) * b
            scores[i + 2, k] = np.float32(-2.0) * c
            scores[i + 3, k] = np.float32(-2.0) * d
        i += 4
    while i < n:
        for k in range(n_clusters):
            a = np.float32(0.0)
            for j in range(n_dims):
                a += z[i, j] * centred[k, j]
            scores[i, k] = np.float32(-2.0) * a
        i += 1


@compiled()
def _least_two(
    row,  #      IN   (n_clusters,) float32 -2 z·w; OUT L
    floors,  #   IN   (n_clusters,) float32
    reaches,  #  IN   (n_clusters,) float32
    slope,  #    float32: A |z|, rounded up
    first,  #    scratch (16,) float32
    second,  #   scratch (16,) float32
    place,  #    scratch (16,) int32
):
    """Lower the scores to L; the label of the smallest, and the two smallest values."""
    n_clusters = row.size
    n_whole = n_clusters // 16 * 16
    first[:] = np.inf
    second[:] = np.inf
    place[:] = 0
    for start in range(0, n_whole, 16):
        for lane in range(16):
            value = (floors[start + lane] + row[start + lane]) - slope * reaches[start + lane]
            row[start + lane] = value
            before = first[lane]
            larger = before if before > value else value
            second[lane] = larger if larger < second[lane] else second[lane]
            place[lane] = start if value < before else place[lane]
            first[lane] = value if value < before else before
    least, next_least, label = np.float32(np.inf), np.float32(np.inf), np.int64(0)
    for lane in range(16 if n_whole else 0):
        value = first[lane]
        if value < least:
            next_least = min(least, second[lane])
            least = value
            label = place[lane] + lane
        else:
            next_least = min(next_least, value)
    for k in range(n_whole, n_clusters):
        value = (floors[k] + row[k]) - slope * reaches[k]
        row[k] = value
        if value < least:
            next_least = least
            least = value
            label = np.int64(k)
        else:
            next_least = min(next_least, value)
    return label, least, next_least


@compiled()
def _round_down(value):
    """A float32 bound that is not above ``value``, nor below zero, where gaps begin."""
    return max(np.float32(0.0), np.nextafter(np.float32(value), np.float32(-np.inf)))


@compiled()
def _index_of(row, value, but):
    """The first place of ``value`` that is not ``but``; -1: none."""
    for k in range(row.size):
        if k != but and row[k] == value:
            return k
    return -1


@compiled()
def _limit(distance, shift, relative):
    """The L above which a centroid is proven to be further away than a canonical distance."""
    return distance * (1.0 + relative) - shift + (distance + shift) * 2.0**-50


@compiled()
def _assign_tile(
    sgemm,
    points,  #   IN   (n_points, n_dims)  float32
    start,
    n,
    model,  #    IN   BoundedModel
    z,  #        scratch (n_tile, n_dims)      float32
    scores,  #   scratch (n_tile, n_clusters)  float32
    results,  #  OUT  _Results
):
    """Label records start to start + n; every comparison that decides is canonical."""
    centroids, centred, max_length = model.centroids, model.centred, model.max_length
    labels, distances, gaps, second_labels, second_distances = results
    n_clusters, n_dims = centroids.shape
    x_start, c_start, stride = points.ctypes.data, centroids.ctypes.data, 4 * n_dims
    with_second = second_labels.size > 0
    if n_clusters == 1:  # nothing to find: seeds are drawn by such calls, thousands in a row
        for i in range(start, start + n):
            labels[i] = 0
            distances[i] = canonical(x_start + i * stride, c_start, n_dims)
            gaps[i] = np.inf
            if with_second:
                second_labels[i] = -1
                second_distances[i] = np.inf
        return
    relative = 4.0 * (n_dims / 32.0 + 8.0) * 2.0**-53  # of a canonical sum, four times over
    lengths_squared = np.empty(n, np.float64)
    first16, second16 = np.empty(16, np.float32), np.empty(16, np.float32)
    place16 = np.empty(16, np.int32)
    n_bounded = 0
    for i in range(n):
        lengths_squared[i] = _centre(points, model.middle, start + i, z[i])
        if np.sqrt(lengths_squared[i]) <= max_length:
            n_bounded += 1
    if n_bounded == 0:
        pass
    elif n <= FEW:
        _scores_by_loop(z, n, centred, scores)
    else:
        _scores_by_sgemm(
            sgemm,
            n_clusters,
            n,
            n_dims,
            centred.ctypes.data,
            z.ctypes.data,
            scores.ctypes.data,
        )
    for i in range(n):
        x = x_start + (start + i) * stride
        row = scores[i]
        length_squared = lengths_squared[i]
        length = np.sqrt(length_squared) * LENGTHEN
        label, next_least = 0, np.float32(-np.inf)
        bounded = length <= max_length
        if bounded:
            steep = np.nextafter(np.float32(model.slope * length + model.tilt), np.float32(np.inf))
            label, _, next_least = _least_two(
                row, model.floors, model.reaches, steep, first16, second16, place16
            )
        else:
            row[:] = -np.inf  # nothing is known, so everything is a candidate
        # what is left of |z|² after its own rounding: L + shift is below the distance
        shift = length_squared * (1.0 - (n_dims + 8) * 2.0**-51)
        best = canonical(x, c_start + label * stride, n_dims)
        second, second_label = np.inf, -1
        rest = np.float64(next_least)  # the least L of the centroids that are not compared
        if with_second or rest <= _limit(best, shift, relative):
            first_label = label
            other_label = -1
            if with_second:  # any other one bounds the runner-up; the next by L does it well
                other_label = _index_of(row, next_least, label)
            if other_label >= 0:
                second = canonical(x, c_start + other_label * stride, n_dims)
                second_label = other_label
                if second < best or (second == best and second_label < label):
                    best, second = second, best
                    label, second_label = second_label, label
            limit = _limit(second if with_second else best, shift, relative)
            rest = np.inf
            for k in range(n_clusters):
                if k in (first_label, other_label):
                    continue
                lower = np.float64(row[k])
                if lower > limit:
                    rest = min(rest, lower)
                    continue
                distance = canonical(x, c_start + k * stride, n_dims)
                if distance < best or (distance == best and k < label):
                    second, second_label = best, label
                    best, label = distance, k
                elif distance < second or (distance == second and k < second_label):
                    second, second_label = distance, k
                limit = _limit(second if with_second else best, shift, relative)
        labels[start + i] = label
        distances[start + i] = best
        uncompared = (rest + shift) * (1.0 - relative) - shift * 2.0**-50
        other = min(second * (1.0 - relative), uncompared)
        gaps[start + i] = _round_down(other - best * (1.0 + relative))
        if with_second:
            second_labels[start + i] = second_label
            second_distances[start + i] = second


@intrinsic
def _take(typingctx, counter):
    """The number at an address, which is one more for the next taker, whichever thread that is."""

    def generate(context, builder, signature, args):
        place = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.int64), generate


@compiled()
def assign_share(sgemm, address, n_points, n_tile, taken, share, model, scratch, results):
    """Label tiles until all are taken: a thread that gets no core leaves them to the others."""
    n_clusters, n_dims = model.centroids.shape
    points = carray(floats(address), (n_points, n_dims))
    size = n_tile * (n_dims + n_clusters)
    mine = scratch[share * size : (share + 1) * size]
    z = mine[: n_tile * n_dims].reshape(n_tile, n_dims)
    scores = mine[n_tile * n_dims :].reshape(n_tile, n_clusters)
    start = _take(taken.ctypes.data) * n_tile
    while start < n_points:
        n = min(n_tile, n_points - start)
        _assign_tile(sgemm, points, start, n, model, z, scores, results)
        start = _take(taken.ctypes.data) * n_tile


@compiled(parallel=True)
def assign_parallel(sgemm, address, n_points, n_tile, taken, threads, model, scratch, results):
    """`assign_share` on each thread."""
    for share in prange(threads):
        assign_share(sgemm, address, n_points, n_tile, taken, share, model, scratch, results)
