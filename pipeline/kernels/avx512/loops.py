"""Compiled loops of the AVX-512 twin: labels by products in low precision.

Which operands those are is the type of the panels: `multiply` and `convert` have a version for
each, so another twin adds its own beside them and takes the rest.
"""
# mypy: ignore-errors
# (numba types these functions by their arguments)

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray, prange
from numba.extending import overload, register_jitable
from numpy.typing import NDArray

from pipeline.kernels import basics, deciding
from pipeline.kernels.avx512 import amx_tiles, intrinsics, packing
from pipeline.kernels.avx512.amx_tiles import TILE_ROWS, multiply_tiles
from pipeline.kernels.avx512.intrinsics import (
    centre,
    lower,
    multiply_rows,
    product_int8,
    rescale,
    to_bf16,
    to_int8,
)
from pipeline.kernels.avx512.packing import (
    LEAK,
    TILT,
    AmxBf16Panels,
    AmxInt8Panels,
    Packed,
    is_int8,
)
from pipeline.kernels.basics import compiler, floats, prefetch, take, unowned
from pipeline.kernels.bounds import UNIT, Borders
from pipeline.kernels.cpu.ways import Results
from pipeline.kernels.deciding import decide, sharpened, write, write_alone

MAX_SQUARE = np.float32(2.0**100)  # of |z|: above it a row is compared canonically throughout
LEAST = 2.0**-60  # of a scale, and added to every norm: what underflows is far below it
BLOCK = 64  # components of a row that are taken at once


class Lines(NamedTuple):
    """Where a thread works: rows of a tile, and one row of what is needed once."""

    q: NDArray[np.uint8]  # (n_tile, row_bytes): operands
    y: NDArray[np.float32]  # (n_tile * n_rotated,)
    scores: NDArray[np.float32]  # (n_tile, n_padded)
    z: NDArray[np.float32]  # (n_padded_dims,)
    padded: NDArray[np.float32]  # (n_padded_dims,)
    starts: NDArray[np.int32]  # (2, n_tile): of the products of ẑ, and of ŷ
    scales: NDArray[np.float32]  # (2, n_tile)
    lengths: NDArray[np.float64]
    """(n_tile, 6): |z|², |z - ẑ|, |ẑ|; behind a prefix |z - ẑ| + |y - ŷ|, |ŷ|, |ẑ_⊥|."""
    found: NDArray[np.int32]  # (n_padded,)
    lowers: NDArray[np.float32]  # (n_padded,)


class Closer(NamedTuple):
    """What a look at the centroids that a prefix leaves takes (`deciding.sharpened`).

    Arrays are addresses, as each array costs its share of every call.
    """

    rows: int  # (n_clusters, n_bytes)  uint8; 0: there is no closer look
    n_bytes: int
    tables: int  # (4, n_clusters)  float32
    n_clusters: int
    q: int  # (n_bytes,)  int8: operands of z
    scale: float
    start: int
    a: float
    b: float


compiled = compiler(amx_tiles, intrinsics, basics, deciding, packing)


def convert(panels, z, n_blocks, top, q):
    """Operands q of z; all by address, n_blocks of 64 components, of which none is above ``top``.

    Returns their scale, |z - scale q|² and |scale q|² as sums of chains, and the int32 at which
    their products begin.
    """
    raise NotImplementedError("exists only compiled")


@overload(convert)
def _convert(panels, z, n_blocks, top, q):
    if is_int8(panels):

        def convert_to_int8(panels, z, n_blocks, top, q):
            scale = max(top, np.float32(LEAST)) / np.float32(127.0)
            rest, square, start = to_int8(z, n_blocks, np.float32(1.0) / scale, scale, q)
            return scale, rest, np.float64(square) * np.float64(scale) ** 2, start

        return convert_to_int8

    def convert_to_bf16(panels, z, n_blocks, top, q):
        rest, square = to_bf16(z, n_blocks, q)
        return np.float32(1.0), rest, np.float64(square), np.int32(0)

    return convert_to_bf16


def multiply(panels, rows, row_bytes, n, words, n_vectors, n_groups, scores, score_bytes, starts):
    """Raw products of n rows with all panels, which begin at ``words``; all by address.

    ``scores`` gets int32 or float32, as the kind of ``panels`` has it.
    """
    raise NotImplementedError("exists only compiled")


@overload(multiply)
def _multiply(
    panels, rows, row_bytes, n, words, n_vectors, n_groups, scores, score_bytes, starts
):  # fmt: skip
    def multiply_in_registers(
        panels, rows, row_bytes, n, words, n_vectors, n_groups, scores, score_bytes, starts
    ):
        for first in range(0, n_vectors, 4):
            width = min(4, n_vectors - first)
            panel, column = words + first * n_groups * 64, scores + first * 64
            i = 0
            while i < n:
                row, score, start = rows + i * row_bytes, column + i * score_bytes, starts + 4 * i
                if n - i >= 6:
                    multiply_rows(
                        panels, 6, width, row, row_bytes, panel, n_groups, score, score_bytes, start
                    )
                    i += 6
                elif n - i >= 3:
                    multiply_rows(
                        panels, 3, width, row, row_bytes, panel, n_groups, score, score_bytes, start
                    )
                    i += 3
                else:
                    multiply_rows(
                        panels, 1, width, row, row_bytes, panel, n_groups, score, score_bytes, start
                    )
                    i += 1

    if panels.instance_class not in (AmxInt8Panels, AmxBf16Panels):
        return multiply_in_registers
    in_registers = register_jitable(multiply_in_registers)
    # a type, not a value: tiles of float32 begin with nothing
    begin = register_jitable((lambda at: at) if is_int8(panels) else (lambda at: None))

    def multiply_in_tiles(
        panels, rows, row_bytes, n, words, n_vectors, n_groups, scores, score_bytes, starts
    ):
        whole = n // TILE_ROWS * TILE_ROWS
        if whole:
            multiply_tiles(
                rows, row_bytes, whole, words, n_vectors, n_groups, scores, score_bytes,
                begin(starts),
            )  # fmt: skip
        if whole < n:
            rows, scores = rows + whole * row_bytes, scores + whole * score_bytes
            starts, n = starts + 4 * whole, n - whole
            in_registers(
                panels, rows, row_bytes, n, words, n_vectors, n_groups, scores, score_bytes, starts
            )

    return multiply_in_tiles


@overload(sharpened)
def _sharpened(closer, row, found, n, limit):
    if getattr(closer, "instance_class", None) is not Closer:
        return None

    def sharpened_by_int8(closer, row, found, n, limit):
        if n < 2 or closer.rows == 0:  # one is compared either way
            return n
        tables = carray(floats(closer.tables), (4, closer.n_clusters))
        n_bytes, scale, n_left = closer.n_bytes, np.float64(closer.scale), 0
        for j in range(n):
            k = np.int64(found[j])
            at = closer.rows + k * n_bytes
            raw = product_int8(closer.q, at, n_bytes // BLOCK) + closer.start
            score = np.float64(raw) * (scale * tables[1, k]) + tables[0, k]
            bound = np.float32(score - closer.a * tables[2, k] - closer.b * tables[3, k])
            row[k] = max(row[k], bound)
            found[n_left] = k
            n_left += row[k] <= limit
        return n_left

    return sharpened_by_int8


@compiled()
def _centred(
    x,
    n_dims,
    packed,
    padded,  #  scratch (n_padded_dims,)  float32
    z,  #       OUT     (n_padded_dims,)  float32, by address
):
    """`centre` of a row by address, which may end where memory ends."""
    if n_dims < packed.middle.size:
        row = carray(floats(x), n_dims)
        for j in range(n_dims):
            padded[j] = row[j]
        padded[n_dims:] = 0.0
        x = padded.ctypes.data
    return centre(x, packed.middle.ctypes.data, packed.middle.size // BLOCK, z)


@compiled()
def _chain_error(n_dims):
    """Relative, of a sum of squares of n_dims components, a multiple of 64; twice over."""
    return 2.0 * (n_dims / 64.0 + 8.0) * UNIT


@compiled()
def _length(square, n_dims):
    """The root of a sum of squares, rounded up."""
    return np.sqrt(np.float64(square) * (1.0 + _chain_error(n_dims))) + LEAST


@compiled()
def _rotated(
    panels,
    packed,
    y,  #  INOUT  (n_rotated,)  raw products become components, and these operands; by address
    scale,
    length,
):
    """Operands of ŷ, their scale and start, and |y - ŷ|, |ŷ|, |ẑ_⊥|, rounded up.

    ``scale`` is that of ẑ, ``length`` |ẑ|. A component of y has three roundings, and what its
    product lost.
    """
    n_dims = packed.n_rotated
    scales = packed.rotation_scales.ctypes.data
    top, square = rescale(panels, y, n_dims // BLOCK, scale, scales)
    loss = 4.0 * UNIT * _length(square, n_dims) + packed.rotation_gamma * length + LEAST
    shortest = max(0.0, np.sqrt(np.float64(square) * (1.0 - _chain_error(n_dims))) - loss)
    tail = np.sqrt(max(0.0, length * length - shortest * shortest / packed.stretch))
    # in place: what is written is never ahead of what is read
    scale, rest, square, start = convert(panels, y, n_dims // BLOCK, top, y)
    error = _length(rest, n_dims) + loss
    return scale, start, error, _length(square, n_dims), tail * (1.0 + UNIT) + LEAST


@compiled()
def _slopes(gamma, error, length, tail, whole):
    """a, b, c of `pipeline.kernels.avx512.packing`, up; ``whole`` is |ẑ| behind a prefix."""
    a = 2.0 * (error + gamma * length + LEAK * whole)
    a += 8.0 * UNIT * (6.0 * length + 2.0 * error)
    b = 2.0 * length * (1.0 + gamma)
    c = 2.0 * tail * (1.0 + 8.0 * UNIT)
    up = 1.0 + 4.0 * UNIT
    return np.float32(a * up), np.float32(b * up), np.float32(c * up)


@compiled(inline="always")
def _make_operands(x, n, panels, packed, lines):
    """Operands of ẑ for n records at address x; behind a prefix also of ŷ, which take its place."""
    n_dims, n_padded_dims = packed.centroids.shape[1], packed.middle.size
    n_rotated, row_bytes = packed.n_rotated, lines.q.shape[1]
    q, y = lines.q.ctypes.data, lines.y.ctypes.data
    starts, scales, lengths = lines.starts, lines.scales, lines.lengths
    z = lines.z.ctypes.data
    for i in range(n):
        top, square = _centred(x + 4 * i * n_dims, n_dims, packed, lines.padded, z)
        scale, rest, whole, begin = convert(
            panels, z, n_padded_dims // BLOCK, top, q + i * row_bytes
        )
        scales[0, i], starts[0, i] = scale, begin
        length = _length(square, n_padded_dims)
        lengths[i, 0] = square
        lengths[i, 1] = _length(rest, n_padded_dims) + 1.01 * UNIT * length
        lengths[i, 2] = _length(whole, n_padded_dims)
    if not n_rotated:
        return
    words, n_groups = packed.rotation.ctypes.data, row_bytes // 4
    multiply(
        panels, q, row_bytes, n, words, n_rotated // 16, n_groups, y, 4 * n_rotated,
        starts.ctypes.data,
    )  # fmt: skip
    for i in range(n):
        scale, begin, error, length, tail = _rotated(
            panels, packed, y + 4 * i * n_rotated, scales[0, i], lengths[i, 2]
        )
        scales[1, i], starts[1, i] = scale, begin
        lengths[i, 3], lengths[i, 4], lengths[i, 5] = lengths[i, 1] + error, length, tail


@compiled(inline="always")
def _bounds_of(i, panels, packed, lines):
    """Products of record i become L; the most promising label, and what is below |z|²."""
    lengths, scores = lines.lengths[i], lines.scores
    n_clusters, n_padded = packed.centroids.shape[0], scores.shape[1]
    square, whole = lengths[0], lengths[2]
    if not square <= MAX_SQUARE:  # nothing is known, so everything is a candidate
        scores[i, :n_clusters] = -np.inf
        scores[i, n_clusters:] = np.inf
        return 0, 0.0
    if packed.n_rotated:
        scale = lines.scales[1, i]
        a, b, tau = _slopes(packed.gamma, lengths[3], lengths[4], lengths[5], whole)
    else:
        scale = lines.scales[0, i]
        a, b, tau = _slopes(packed.gamma, lengths[1], whole, 0.0, 0.0)
    label = lower(
        panels, scores.ctypes.data + 4 * i * n_padded, n_padded // 16, packed.tables.ctypes.data,
        n_padded, scale, a, b, tau,
    )  # fmt: skip
    shrink = 1.0 - _chain_error(packed.middle.size) - 4.0 * UNIT
    return label, square * shrink - TILT


@compiled(inline="always")
def _closer(i, packed, lines):
    """For record i."""
    square, error, length = lines.lengths[i, 0], lines.lengths[i, 1], lines.lengths[i, 2]
    a, b, _ = _slopes(packed.gamma, error, length, 0.0, 0.0)
    is_near = packed.rows.size > 0 and square <= MAX_SQUARE
    return Closer(
        packed.rows.ctypes.data if is_near else 0,
        packed.rows.shape[1],
        packed.row_tables.ctypes.data,
        packed.rows.shape[0],
        lines.q.ctypes.data + i * lines.q.shape[1],
        lines.scales[0, i],
        lines.starts[0, i],
        a,
        b,
    )


@compiled()
def _assign_tile(
    address,
    start,
    n_points,
    ahead,  #    of the record with which this thread goes on, most likely
    panels,  #   IN   Panels
    packed,  #   IN   Packed
    borders,  #  IN   Borders
    owned,  #    scratch Lines
    results,  #  OUT  Results
):
    """Label a tile of the records at an address, from ``start`` on; how many were compared."""
    lines = Lines(*unowned(owned))
    n_clusters, n_dims = packed.centroids.shape
    c, stride, n_tile = packed.centroids.ctypes.data, 4 * n_dims, lines.scores.shape[0]
    x, n = address + start * stride, min(n_tile, n_points - start)
    if n_clusters == 1:
        for i in range(n):
            write_alone(start + i, x + i * stride, c, n_dims, results)
        return n
    _make_operands(x, n, panels, packed, lines)
    n_padded = packed.tables.shape[1]
    if packed.n_rotated:
        layer, rows, row_bytes = 1, lines.y.ctypes.data, 4 * packed.n_rotated
    else:
        layer, rows, row_bytes = 0, lines.q.ctypes.data, lines.q.shape[1]
    multiply(
        panels, rows, row_bytes, n, panels.words.ctypes.data, n_padded // 16, packed.n_groups,
        lines.scores.ctypes.data, 4 * n_padded, lines.starts[layer].ctypes.data,
    )  # fmt: skip
    n_compared = 0
    with_second, with_margin = results.second_labels.size > 0, results.margins.size > 0
    for i in range(n):
        row = lines.scores[i]
        label, shift = _bounds_of(i, panels, packed, lines)
        if ahead + i < n_points:
            prefetch(address + (ahead + i) * stride, stride)
        decided = decide(
            x + i * stride, c, n_dims, label, shift, row, lines.found, lines.lowers,
            _closer(i, packed, lines), with_second, with_margin,
        )  # fmt: skip
        n_compared += write(
            start + i, decided, shift, n_dims, row, packed.tables[2], borders, results
        )
    return n_compared


@compiled()
def assign_share(address, n_points, n_tile, share, threads, panels, packed, borders, room, results):
    """Label tiles until all are taken: a thread that gets no core leaves them to the others.

    The last four are plain tuples: one with names costs half a microsecond of every call.
    """
    own_panels, own = unowned(panels), Packed(*unowned(packed))
    own_borders, own_results = Borders(*unowned(borders)), Results(*unowned(results))
    scratch, taken, compared = unowned(room)
    n_padded_dims = own.middle.size
    n_padded, row_words, n_rotated = own.tables.shape[1], own.row_bytes // 4, own.n_rotated
    size = n_tile * (row_words + n_rotated + n_padded) + 2 * n_padded_dims
    size = -(-size // 16) * 16
    mine = scratch[share * size : (share + 1) * size]
    at_y = n_tile * row_words
    at_scores = at_y + n_tile * n_rotated
    at_z = at_scores + n_tile * n_padded
    lines = Lines(
        mine[:at_y].reshape(n_tile, row_words).view(np.uint8),
        mine[at_y:at_scores],
        mine[at_scores:at_z].reshape(n_tile, n_padded),
        mine[at_z : at_z + n_padded_dims],
        mine[at_z + n_padded_dims :],
        np.empty((2, n_tile), np.int32),
        np.empty((2, n_tile), np.float32),
        np.empty((n_tile, 6), np.float64),
        np.empty(n_padded, np.int32),
        np.empty(n_padded, np.float32),
    )
    n_compared = 0
    start = take(taken.ctypes.data) * n_tile
    while start < n_points:
        # to take the next tile now, so as to be sure of it, would keep it from the others
        ahead = start + threads * n_tile
        n_compared += _assign_tile(
            address, start, n_points, ahead, own_panels, own, own_borders, lines, own_results
        )
        start = take(taken.ctypes.data) * n_tile
    compared[share] = n_compared


@compiled(parallel=True)
def assign_parallel(address, n_points, n_tile, threads, panels, packed, borders, room, results):
    """`assign_share` on each thread."""
    for share in prange(threads):
        assign_share(
            address, n_points, n_tile, share, threads, panels, packed, borders, room, results
        )
