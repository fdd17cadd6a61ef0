"""Compiled loops of the CPU twins: distances between points, summed by cluster.

Distances are taken from differences, never from norms and products: nothing cancels, so an
offset costs no digit and a duplicate is at 0. It is no slower: the difference goes where the
processor has units to spare. 240 x 256 pairs on one core of an EPYC (Zen 5): 0.22 ms at d = 384
and 0.56 ms at d = 1024; the product alone, by the sgemm of OpenBLAS, 0.37 and 0.99 ms.
"""
# mypy: ignore-errors
# (numba types these functions by their arguments, the intrinsics by their signatures)

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.kernels import basics
from pipeline.kernels.basics import LANES, canonical, compiler, floats, take
from pipeline.kernels.features import features

compiled = compiler(basics)

IS_WIDE = "avx512f" in features()
N_VECTORS = 4 if IS_WIDE else 1  # 24 sums in 32 registers of 512 bits, or
N_ROWS = 6  # 12 in 16 of 256 bits
N_COLUMNS = LANES * N_VECTORS
N_TILE = 48  # rows; a multiple of N_ROWS
N_BLOCK = 320  # points at most: fewer fill panels badly, more leave threads without a tile
N_RUN, N_RUNS = 20, 6  # see `_squared_distances`


@intrinsic
def _squared_distances(typingctx, rows, n_dims, panel, partial, total, out, stride):
    """out (N_ROWS, N_COLUMNS) = squared distances of rows to the columns of a panel, by address.

    A rounding is at most u = 2**-24. The sum of `N_RUN` squares is within (N_RUN + 2) u of
    itself, that of `N_RUNS` such sums within N_RUNS - 1 more, and those are added in float64;
    with the rounding to float32, and half of it all for the root, which adds one, a distance is
    within (20 + 5 + 2 + 1) u / 2 + u = 15 u, below 2**-20. Whether a multiplication and an
    addition are fused is left to the processor; the bound holds for both.
    """

    def generate(context, builder, signature, args):
        rows, n_dims, panel, partial, total, out, stride = args
        word, real, double = ir.IntType(64), ir.FloatType(), ir.DoubleType()
        reals, doubles = ir.VectorType(real, LANES), ir.VectorType(double, LANES)
        nothing = ir.Constant(reals, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        places = [(r, v) for r in range(N_ROWS) for v in range(N_VECTORS)]
        fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(reals, [reals] * 3), f"llvm.fmuladd.v{LANES}f32"
        )

        def n(value):
            return ir.Constant(word, value)

        def pointer(start, offset, kind):
            return builder.inttoptr(builder.add(start, offset), kind.as_pointer())

        def lesser(a, b):
            return builder.select(builder.icmp_signed("<", a, b), a, b)

        starts = [builder.add(rows, builder.mul(n_dims, n(4 * r))) for r in range(N_ROWS)]
        zeros = cgutils.get_null_value(reals)
        sums = {place: cgutils.alloca_once_value(builder, zeros) for place in places}
        partials, totals, outs = {}, {}, {}
        for r, v in places:
            i = (r * N_VECTORS + v) * LANES
            partials[r, v] = pointer(partial, n(4 * i), reals)
            totals[r, v] = pointer(total, n(8 * i), doubles)
            away = builder.mul(builder.add(builder.mul(n(r), stride), n(LANES * v)), n(4))
            outs[r, v] = pointer(out, away, reals)

        def add_run(first, last, into, is_first):
            """Dimensions first to last: in registers, then into a place in memory."""
            for place in places:
                builder.store(zeros, sums[place])
            with cgutils.for_range_slice(builder, first, last, n(1), word) as (j, _):
                along = builder.mul(j, n(4 * N_COLUMNS))
                columns = [
                    builder.load(
                        pointer(panel, builder.add(along, n(4 * LANES * v)), reals), align=4
                    )
                    for v in range(N_VECTORS)
                ]
                for r in range(N_ROWS):
                    x = builder.load(pointer(starts[r], builder.mul(j, n(4)), real))
                    x = builder.insert_element(nothing, x, ir.Constant(ir.IntType(32), 0))
                    x = builder.shuffle_vector(x, nothing, everywhere)
                    for v in range(N_VECTORS):
                        gap = builder.fsub(columns[v], x)
                        more = builder.call(fused, [gap, gap, builder.load(sums[r, v])])
                        builder.store(more, sums[r, v])
            for place in places:
                value = builder.load(sums[place])
                if not is_first:
                    value = builder.fadd(builder.load(into[place], align=4), value)
                builder.store(value, into[place], align=4)

        def add_runs(first, last):
            end = lesser(builder.add(first, n(N_RUN)), last)
            add_run(first, end, partials, True)
            rest = builder.add(builder.sub(last, end), n(N_RUN - 1))
            with cgutils.for_range(builder, builder.sdiv(rest, n(N_RUN))) as loop:
                start = builder.add(end, builder.mul(loop.index, n(N_RUN)))
                add_run(start, lesser(builder.add(start, n(N_RUN)), last), partials, False)

        with builder.if_else(builder.icmp_signed("<=", n_dims, n(N_RUN))) as (is_one, is_more):
            with is_one:
                add_run(n(0), n_dims, outs, True)
            with is_more:
                for place in places:
                    builder.store(cgutils.get_null_value(doubles), totals[place], align=8)
                size = N_RUN * N_RUNS
                n_parts = builder.sdiv(builder.add(n_dims, n(size - 1)), n(size))
                with cgutils.for_range(builder, n_parts) as loop:
                    first = builder.mul(loop.index, n(size))
                    add_runs(first, lesser(builder.add(first, n(size)), n_dims))
                    for place in places:
                        part = builder.fpext(builder.load(partials[place], align=4), doubles)
                        before = builder.load(totals[place], align=8)
                        builder.store(builder.fadd(before, part), totals[place], align=8)
                for place in places:
                    value = builder.fptrunc(builder.load(totals[place], align=8), reals)
                    builder.store(value, outs[place], align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


class Job(NamedTuple):
    """What all passes have in common."""

    address: int
    """Of the points, (n_points, n_dims) float32."""
    n_dims: int
    scale: float
    """A power of two that brings components below 2**TOP."""
    floor: float
    """Squared distances below it, scaled, are recomputed."""
    starts: np.ndarray  # (n_clusters + 1,) int64
    blocks: np.ndarray  # (n_blocks, 4) int64: points first to last, clusters first to last
    rows: np.ndarray  # (n_rows,) int64
    clusters: np.ndarray  # (n_rows,) int64, of the rows
    tiles: np.ndarray  # (n_tiles, 2) int64: rows first to last; where all are rows, the blocks
    is_mirrored: bool
    """All points are rows, in order: what is summed along the columns counts as well."""


class Totals(NamedTuple):
    """What the passes write."""

    own: np.ndarray  # (n_rows,) float64
    others: np.ndarray  # (n_rows,) float64
    running: np.ndarray  # (n_rows,) float64: of a cluster that has more blocks
    mirrored: np.ndarray  # (n_blocks, N_BLOCK) float64, or empty: columns to a block of rows


@compiled()
def extremes(
    address,  #  of (size,) float32
    size,
):
    """The largest magnitude, and the smallest that is not 0, as bits; those of 0: there is none."""
    values = carray(bits(address), (size,))
    largest, smallest = np.uint32(0), np.uint32(2**32 - 1)
    for i in range(size):
        magnitude = values[i] & np.uint32(2**31 - 1)
        largest = max(largest, magnitude)
        smallest = min(smallest, magnitude - np.uint32(1))  # of 0: what is above all others
    return largest, np.uint32(smallest + np.uint32(1))


@intrinsic
def bits(typingctx, address):
    """A pointer to uint32 from an address."""

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.IntType(32).as_pointer())

    return types.CPointer(types.uint32)(types.int64), generate


@compiled()
def _scale(
    row,  #  IN   (n_dims,)  float32
    scale,
    out,  #  OUT  (n_dims,)  float32
):
    for j in range(out.size):
        out[j] = np.float32(np.float64(row[j]) * scale)


@compiled()
def pack(
    job,  #     IN   Job
    first,
    last,
    panels,  #  OUT  (n_panels, n_dims, N_COLUMNS)  float32
):
    """Points first to last as columns, scaled; what else is in the last panel is never used."""
    points = carray(floats(job.address), (last, job.n_dims))
    scaled = np.zeros((N_COLUMNS, job.n_dims), np.float32)
    for p in range((last - first + N_COLUMNS - 1) // N_COLUMNS):
        start = first + p * N_COLUMNS
        n = min(N_COLUMNS, last - start)
        for c in range(n):
            _scale(points[start + c], job.scale, scaled[c])
        for j in range(job.n_dims):
            for c in range(N_COLUMNS):
                panels[p, j, c] = scaled[c, j]


@compiled()
def _roots(
    squares,  #  IN   (n,)  float32
    roots,  #    OUT  (n,)  float64
    floor,
):
    """Distances, and how many of them are to be recomputed."""
    n_low = 0
    for c in range(roots.size):
        square = squares[c]
        roots[c] = np.float64(np.sqrt(square))
        n_low += np.int64(square < floor)
    return n_low


@compiled()
def _recompute(
    job,  #      IN     Job
    row,
    first,
    squares,  #  IN     (n,)  float32
    roots,  #    INOUT  (n,)  float64
):
    """Distances to points that are too near for float32, as everything beside them is huge."""
    stride = 4 * job.n_dims
    for c in range(roots.size):
        if squares[c] < job.floor:
            x, y = job.address + row * stride, job.address + (first + c) * stride
            roots[c] = np.sqrt(canonical(x, y, job.n_dims)) * job.scale


@compiled(fastmath={"reassoc", "nsz"})
def _sum(values):
    total = 0.0
    for i in range(values.size):
        total += values[i]
    return total


@compiled()
def _add_along_row(
    job,  #    IN   Job
    b,
    i,
    roots,  #  IN   (n,)  float64
    sums,  #   OUT  Totals
):
    """Row i to each cluster of block b, of which there are several, or a part of one."""
    first, last, cluster, end = job.blocks[b]
    own = job.clusters[i]
    for k in range(cluster, end):
        start, stop = job.starts[k], job.starts[k + 1]
        total = _sum(roots[max(start, first) - first : min(stop, last) - first])
        if k == own:
            sums.own[i] += total
            continue
        total += sums.running[i]
        if stop <= last:
            sums.others[i] = min(sums.others[i], total / (stop - start))
            sums.running[i] = 0.0
        else:
            sums.running[i] = total


@compiled()
def _close_cluster(
    size,
    column_sums,  #  INOUT  (n,)  float64
    least,  #        INOUT  (n,)  float64
):
    """All members have been rows: what the columns added up is a sum to the cluster."""
    for c in range(least.size):
        least[c] = min(least[c], column_sums[c] / size)
        column_sums[c] = 0.0


@compiled()
def _add_tile(
    job,  #     IN   Job
    b,
    t,
    panels,  #  IN   (n_panels, n_dims, N_COLUMNS)  float32
    sums,  #    OUT  Totals
):
    """Tile t of the rows against block b of the columns."""
    n_dims = job.n_dims
    first, last = job.blocks[b, 0], job.blocks[b, 1]
    n_columns = last - first
    n_panels = (n_columns + N_COLUMNS - 1) // N_COLUMNS
    points = carray(floats(job.address), (job.starts[-1], n_dims))
    z = np.zeros((N_TILE, n_dims), np.float32)
    squares = np.empty((N_TILE, N_BLOCK), np.float32)
    partial = np.empty(N_ROWS * N_COLUMNS, np.float32)
    total = np.empty(N_ROWS * N_COLUMNS, np.float64)
    roots, column_sums = np.empty(n_columns, np.float64), np.zeros(n_columns, np.float64)
    is_mirrored = job.is_mirrored and t < b  # against itself, the rows have said it all
    start, stop = job.tiles[t]
    least = sums.mirrored[t if is_mirrored else 0, :n_columns]
    if is_mirrored:
        least[:] = np.inf
    for tile in range(start, stop, N_TILE):
        n = min(N_TILE, stop - tile)
        for r in range(n):
            _scale(points[job.rows[tile + r]], job.scale, z[r])
        for p in range(n_panels):
            for r in range(0, n, N_ROWS):
                _squared_distances(
                    z.ctypes.data + 4 * r * n_dims,
                    n_dims,
                    panels.ctypes.data + 4 * p * n_dims * N_COLUMNS,
                    partial.ctypes.data,
                    total.ctypes.data,
                    squares.ctypes.data + 4 * (r * N_BLOCK + p * N_COLUMNS),
                    N_BLOCK,
                )
        for r in range(n):
            i = tile + r
            if _roots(squares[r], roots, job.floor):
                _recompute(job, job.rows[i], first, squares[r], roots)
            _add_along_row(job, b, i, roots, sums)
            if is_mirrored:
                for c in range(n_columns):
                    column_sums[c] += roots[c]
                k = job.clusters[i]
                if i + 1 == job.starts[k + 1] and start <= job.starts[k]:
                    _close_cluster(i + 1 - job.starts[k], column_sums, least)
    if is_mirrored and job.starts[job.blocks[t, 2] + 1] - job.starts[job.blocks[t, 2]] > N_BLOCK:
        least[:] = column_sums  # not a mean yet: a part of one cluster


@compiled()
def add_share(job, b, n_tiles, taken, panels, sums):
    """Tiles of rows against block b until all are taken."""
    t = take(taken.ctypes.data)
    while t < n_tiles:
        _add_tile(job, b, t, panels, sums)
        t = take(taken.ctypes.data)


@compiled()
def gather(
    job,  #   IN     Job
    b,
    sums,  #  INOUT  Totals
):
    """What block b, as columns, has got from the blocks before it, in their order."""
    first, last = job.blocks[b, 0], job.blocks[b, 1]
    parts = np.zeros(last - first, np.float64)
    for t in range(b):
        k = job.blocks[t, 2]
        size = job.starts[k + 1] - job.starts[k]
        ends = job.blocks[t, 1] == job.starts[k + 1]
        for c in range(last - first):
            value = sums.mirrored[t, c]
            if size > N_BLOCK:
                parts[c] += value
                if not ends:
                    continue
                value = parts[c] / size
                parts[c] = 0.0
            sums.others[first + c] = min(sums.others[first + c], value)
    for c in range(last - first):  # of a cluster that has not ended: it is the block's own
        sums.own[first + c] += parts[c]
