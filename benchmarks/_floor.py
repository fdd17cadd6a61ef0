"""The floor under a figure: what this machine's arithmetic and memory can do, measured.

Loops that do nothing but multiply and add in registers, and one that reads more than any cache
holds. As many threads as the contenders have run them at the same time, for their best of a few.
The clock and the neighbours change, so a floor is measured by the run that uses it.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from benchmarks._environment import features

ACCUMULATORS = 12  # more than latency times units; fewer than AVX2 has registers
SECONDS = 0.05
TRIES = 9
READ_BYTES = 2**27  # a thread


@dataclass(frozen=True, slots=True)
class Floor:
    """Peaks of all threads together."""

    fp32: float
    """FLOP a second, where a multiply-add is two."""
    int8: float | None
    """Operations a second of the int8 product (vpdpbusd); None: there is none."""
    bandwidth: float
    """Bytes a second, read from memory."""

    def seconds(self, flop: float, n_bytes: float, *, is_int8: bool = False) -> float:
        """The least time for so much work: arithmetic and memory at their peaks, side by side."""
        peak = self.int8 if is_int8 and self.int8 else self.fp32
        return max(flop / peak, n_bytes / self.bandwidth)

    def told(self) -> str:
        """For the head of a table."""
        int8 = "no int8 product" if self.int8 is None else f"int8 {self.int8 / 1e9:,.0f} Gop/s"
        return (
            f"measured peak: fp32 {self.fp32 / 1e9:,.0f} GFLOP/s, {int8}, "
            f"memory read {self.bandwidth / 1e9:,.0f} GB/s"
        )


def measured(threads: int, isa: str) -> Floor:
    """The peaks of ``threads`` threads; takes a second or two."""
    has = features() if isa == "native" else frozenset()
    lanes = 16 if "avx512f" in has else 4 if platform.machine() in ("arm64", "aarch64") else 8
    loop = {16: _fma_16, 8: _fma_8, 4: _fma_4}[lanes]
    with ThreadPoolExecutor(threads) as pool:
        fp32 = _peak(pool, threads, lambda n: loop(n, np.float32(0.5)), 2.0 * ACCUMULATORS * lanes)
        int8 = None
        if "avx512vnni" in has:
            int8 = _peak(pool, threads, lambda n: _dot_int8(n, np.int32(3)), ACCUMULATORS * 128.0)
        return Floor(fp32, int8, _bandwidth(pool, threads))


def _peak(
    pool: ThreadPoolExecutor, threads: int, loop: Callable[[int], object], work: float
) -> float:
    """Work a second; the loop does ``work`` a turn."""
    loop(1)
    n = max(1, int(100_000 * SECONDS / _timed(partial(loop, 100_000))))
    return _best(pool, [partial(loop, n)] * threads, n * work)


def _bandwidth(pool: ThreadPoolExecutor, threads: int) -> float:
    arrays = [np.ones(READ_BYTES // 4, np.float32) for _ in range(threads)]
    _read(arrays[0])
    return _best(pool, [partial(_read, array) for array in arrays], READ_BYTES)


def _best(pool: ThreadPoolExecutor, calls: list[Callable[[], object]], work: float) -> float:
    """Work a second of all calls, side by side; neighbours who take a core do not lower it."""
    tries = [sum(work / s for s in pool.map(_timed, calls)) for _ in range(TRIES)]
    return max(tries)


def _timed(call: Callable[[], object]) -> float:
    """Seconds of this thread's CPU time."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def _chains(context, builder, n, kind, first, step):
    """``n`` turns of ``step`` on each of the accumulators; their sum, so that none is dead."""
    places = [cgutils.alloca_once_value(builder, first) for _ in range(ACCUMULATORS)]
    with cgutils.for_range(builder, n):
        for place in places:
            builder.store(step(builder.load(place)), place)
    values = [builder.load(place) for place in places]
    add = builder.fadd if isinstance(kind.element, ir.FloatType) else builder.add
    total = values[0]
    for value in values[1:]:
        total = add(total, value)
    return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))


def _splat(builder, kind, value):
    vector = ir.Constant(kind, ir.Undefined)
    for lane in range(kind.count):
        vector = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), lane))
    return vector


def _fma_chains(lanes):
    @intrinsic
    def chains(typingctx, n, factor):
        def generate(context, builder, signature, args):
            kind = ir.VectorType(ir.FloatType(), lanes)
            factor = _splat(builder, kind, args[1])
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.v{lanes}f32"
            )
            return _chains(
                context, builder, args[0], kind, factor,
                lambda value: builder.call(fma, [value, factor, factor]),
            )  # fmt: skip

        return types.float32(types.int64, types.float32), generate

    @njit(nogil=True)
    def loop(n, factor):
        return chains(n, factor)

    return loop


_fma_16, _fma_8, _fma_4 = _fma_chains(16), _fma_chains(8), _fma_chains(4)


@intrinsic
def _dot_chains(typingctx, n, factor):
    def generate(context, builder, signature, args):
        kind, bytes_ = ir.VectorType(ir.IntType(32), 16), ir.VectorType(ir.IntType(8), 64)
        factor = _splat(builder, kind, args[1])
        operand = builder.bitcast(factor, bytes_)
        dot = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(kind, [kind, bytes_, bytes_]),
            "llvm.x86.avx512.vpdpbusd.512",
        )
        return _chains(
            context, builder, args[0], kind, factor,
            lambda value: builder.call(dot, [value, operand, operand]),
        )  # fmt: skip

    return types.int32(types.int64, types.int32), generate


@njit(nogil=True)
def _dot_int8(n, factor):
    return _dot_chains(n, factor)


@njit(nogil=True, fastmath=True)
def _read(array):
    total = np.float32(0.0)
    for i in range(array.size):
        total += array[i]
    return total
