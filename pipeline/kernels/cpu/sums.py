"""Compiled loops of the CPU twin: statistics.

What `canonical` is can never change, so the cache on disk may miss it (`cpu.loops`).
"""
# mypy: ignore-errors
# (numba types these functions by their arguments)

from __future__ import annotations

import numpy as np
from numba import carray, prange, types
from numba.extending import overload

from pipeline.kernels.cpu.loops import canonical, compiled, floats


def scale_of(scale, side, row):
    """What turns a row into units: one number for all, or with weights (2, n_rows), old and new.

    A weight times a power of two is exact, so ``x * (w / unit)`` has the one rounding of
    ``x * w``. Which of the two it is, is a type: code without weights has no trace of them.
    """
    raise NotImplementedError("exists only compiled")


@overload(scale_of, inline="always")
def _scale_of(scale, side, row):
    if isinstance(scale, types.Float):
        return lambda scale, side, row: scale
    return lambda scale, side, row: scale[side, row]


@compiled()
def _accumulate_stripe(
    old,  #         IN     (n_rows, n_dims)      float32
    old_labels,  #  IN     (n_rows,)             int32
    new,  #         IN     (n_rows, n_dims)      float32
    new_labels,  #  IN     (n_rows,)             int32
    per_unit,  #    IN     `scale_of`
    first,
    last,
    sums,  #        INOUT  (n_clusters, n_dims)  int64
):
    """Dimensions first to last of every row: no two threads meet in one word.

    The loops run over slices, from 0: an index that might be negative is not vectorised, and takes
    five times as long.
    """
    for i in range(old_labels.size):
        was, now = old_labels[i], new_labels[i]
        if was >= 0:
            scale = scale_of(per_unit, 0, i)
            row, total = old[i, first:last], sums[was, first:last]
            for j in range(total.size):
                total[j] -= np.int64(np.rint(np.float64(row[j]) * scale))
        if now >= 0:
            scale = scale_of(per_unit, 1, i)
            row, total = new[i, first:last], sums[now, first:last]
            for j in range(total.size):
                total[j] += np.int64(np.rint(np.float64(row[j]) * scale))


@compiled()
def _square(row, n_dims, per_square_unit):
    """The squared norm of the row at an address, as it enters a sum."""
    return np.int64(np.rint(canonical(row, 0, n_dims) * per_square_unit))


@compiled()
def _accumulate_squares(
    old_squares,  #  IN     (n_rows,)        int64
    old_labels,  #   IN     (n_rows,)        int32
    new_squares,  #  IN     (n_rows,)        int64
    new_labels,  #   IN     (n_rows,)        int32
    counts,  #       INOUT  (n_clusters,)    int64
    squares,  #      INOUT  (n_clusters, 2)  int64
):
    """Counts and squared norms: one word each, so one thread does it."""
    low = np.int64(2**32 - 1)
    for i in range(old_labels.size):
        was, now = old_labels[i], new_labels[i]
        if was >= 0:
            counts[was] -= 1
            squares[was, 0] -= old_squares[i] >> 32
            squares[was, 1] -= old_squares[i] & low
        if now >= 0:
            counts[now] += 1
            squares[now, 0] += new_squares[i] >> 32
            squares[now, 1] += new_squares[i] & low


@compiled()
def _accumulate_share(
    share, old, old_labels, new, new_labels, per_unit, per_square_unit, threads, old_squares,
    new_squares, sums,
):  # fmt: skip
    """A stripe of the dimensions, then a share of the squared norms."""
    n_rows, n_dims = new.shape
    first, last = share * n_dims // threads, (share + 1) * n_dims // threads
    _accumulate_stripe(old, old_labels, new, new_labels, per_unit, first, last, sums)
    for i in range(share * n_rows // threads, (share + 1) * n_rows // threads):
        if old_labels[i] >= 0:
            row = old.ctypes.data + 4 * i * n_dims
            old_squares[i] = _square(row, n_dims, scale_of(per_square_unit, 0, i))
        if new_labels[i] >= 0:
            row = new.ctypes.data + 4 * i * n_dims
            new_squares[i] = _square(row, n_dims, scale_of(per_square_unit, 1, i))


@compiled()
def accumulate_serial(
    old_address, old_labels, new_address, new_labels, per_unit, per_square_unit, threads, counts,
    sums, squares,
):  # fmt: skip
    """`_accumulate_share` on the calling thread."""
    n_rows, n_dims = old_labels.size, sums.shape[1]
    old = carray(floats(old_address), (n_rows, n_dims))
    new = carray(floats(new_address), (n_rows, n_dims))
    old_squares, new_squares = np.empty(n_rows, np.int64), np.empty(n_rows, np.int64)
    for share in range(threads):
        _accumulate_share(
            share, old, old_labels, new, new_labels, per_unit, per_square_unit, threads,
            old_squares, new_squares, sums,
        )  # fmt: skip
    _accumulate_squares(old_squares, old_labels, new_squares, new_labels, counts, squares)


@compiled(parallel=True)
def accumulate_parallel(
    old_address, old_labels, new_address, new_labels, per_unit, per_square_unit, threads, counts,
    sums, squares,
):  # fmt: skip
    """`_accumulate_share` on each thread."""
    n_rows, n_dims = old_labels.size, sums.shape[1]
    old = carray(floats(old_address), (n_rows, n_dims))
    new = carray(floats(new_address), (n_rows, n_dims))
    old_squares, new_squares = np.empty(n_rows, np.int64), np.empty(n_rows, np.int64)
    for share in prange(threads):
        _accumulate_share(
            share, old, old_labels, new, new_labels, per_unit, per_square_unit, threads,
            old_squares, new_squares, sums,
        )  # fmt: skip
    _accumulate_squares(old_squares, old_labels, new_squares, new_labels, counts, squares)
