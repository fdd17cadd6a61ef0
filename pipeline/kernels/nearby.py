"""Compiled: how far some rows of a matrix are from one point, without a copy of the rows."""
# mypy: ignore-errors
# (numba types these functions by their arguments, the intrinsic by its signature)

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.kernels import basics
from pipeline.kernels.basics import canonical, compiler

compiled = compiler(basics)

N_AHEAD = 4
"""Rows asked for before they are measured. 5 000 rows of 384 somewhere among a million, on one core
of an EPYC (Zen 5) at its best: 1.63 ms without, 0.34 ms so; gathered first, they took 1.5."""
LINE_BYTES = 64


@intrinsic
def _fetch(typingctx, address):
    """Ask for the cache line of an address; whoever wants it soon does not wait for it."""

    def generate(context, builder, signature, args):
        byte, word = ir.IntType(8), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        place = builder.inttoptr(args[0], byte.as_pointer())
        builder.call(function, [place, word(0), word(3), word(1)])  # to be read, and kept
        return context.get_dummy_value()

    return types.void(types.int64), generate


@compiled()
def squared_distances(vectors, rows, point, squared):
    """squared[i] = the canonical squared distance of vectors[rows[i]] to the point.

    Parameters
    ----------
    vectors : IN (n, n_dims) float32, C-contiguous
    rows : IN (n_rows,) int64, each within 0 and n
    point : IN (n_dims,) float32
    squared : OUT (n_rows,) float64
    """
    n_dims, n_rows = vectors.shape[1], len(rows)
    start, place = vectors.ctypes.data, point.ctypes.data
    for i in range(n_rows):
        if i + N_AHEAD < n_rows:
            ahead = start + 4 * n_dims * rows[i + N_AHEAD]
            for offset in range(0, 4 * n_dims, LINE_BYTES):
                _fetch(ahead + offset)
        squared[i] = canonical(start + 4 * n_dims * rows[i], place, n_dims)
