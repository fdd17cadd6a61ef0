"""What the compiled loops of the CPU twins stand on: how they are kept, rows by address.

A kernel is a free function; its parameters say which way each array flows.
"""
# mypy: ignore-errors
# (numba types these functions by their arguments, the intrinsics by their signatures)

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16  # float32 of a wide register; rows of scores are padded to them


def compiler(*modules: ModuleType) -> Callable[..., Any]:
    """A decorator like ``njit`` that keeps its results on disk, where there is a disk for that.

    Compiled code is kept by the file of its function alone. Code of the ``modules`` that it calls
    is inside it, so their files are made part of what says whether it is still fresh.
    """

    def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
        def decorate(function: Callable[..., Any]) -> Any:
            try:
                kept = njit(cache=True, nogil=True, **options)(function)
            except RuntimeError:  # neither the package's folder nor the user's can be written
                return njit(nogil=True, **options)(function)
            index = getattr(getattr(kept, "_cache", None), "_cache_file", None)
            if hasattr(index, "_source_stamp") and hasattr(index, "_load_index"):
                index._source_stamp = (index._source_stamp, *map(_digest, modules))
                index._load_index = _forgiving(index._load_index)
            return kept

        return decorate

    return compiled


def _forgiving(load: Callable[[], Any]) -> Callable[[], Any]:
    """An index that names a class which is no more, as after an upgrade, is as good as none.

    numba reads the types in it before it looks whether the file is fresh.
    """

    def forgiving() -> Any:
        try:
            return load()
        except (AttributeError, ImportError):
            return {}

    return forgiving


def _digest(module: ModuleType) -> bytes:
    path = Path(str(module.__file__))
    return hashlib.sha256(path.read_bytes()).digest() if path.exists() else b""  # in an archive


compiled = compiler()


@intrinsic
def canonical(typingctx, x, c, n_dims):
    """Canonical squared distance of two rows by address; c = 0 stands for the zero vector.

    Written as 32 lanes because a compiler that is left to find them may also contract them; and a
    function of its own, because inside a large one the compiler lets the loop ask each time whether
    c is 0, which takes four times as long.
    """
    lanes = 32

    def emit(builder, x, c, n_dims):
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

    def generate(context, builder, signature, args):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.DoubleType(), [word] * 3)
        helper = cgutils.get_or_insert_function(builder.module, kind, "eddy_canonical")
        if helper.is_declaration:
            helper.linkage = "internal"
            helper.attributes.add("noinline")
            own = ir.IRBuilder(helper.append_basic_block("entry"))
            own.ret(emit(own, *helper.args))
        return builder.call(helper, args)

    return types.float64(types.int64, types.int64, types.int64), generate


@intrinsic
def floats(typingctx, address):
    """A pointer to float32 from an address."""

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def unowned(typingctx, value):
    """The same array, or tuple with arrays in it, without the count of who refers to it.

    Counting is an atomic addition for each array and call, a tenth of the time of a record. Its
    owner must live as long as this: the caller's argument does, a local variable does not, as it
    ends with its last use.
    """

    def bare(context, builder, kind, item):
        if isinstance(kind, types.Array):
            view = context.make_array(kind)(context, builder, value=item)
            view.meminfo = cgutils.get_null_value(view.meminfo.type)
            view.parent = cgutils.get_null_value(view.parent.type)
            return view._getvalue()
        if isinstance(kind, types.BaseTuple):
            parts = enumerate(kind.types)
            items = [bare(context, builder, k, builder.extract_value(item, i)) for i, k in parts]
            return context.make_tuple(builder, kind, items)
        return item

    def generate(context, builder, signature, args):
        return bare(context, builder, value, args[0])

    return value(value), generate


@intrinsic
def take(typingctx, counter):
    """The number at an address, which is one more for the next taker, whichever thread that is."""

    def generate(context, builder, signature, args):
        place = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.int64), generate


@intrinsic
def _least_at(typingctx, row, n_vectors):
    """The smallest of n_vectors times 16 float32 by address; no NaN.

    Written as lanes because a compiler that is left to find them does not.
    """

    def generate(context, builder, signature, args):
        row, n_vectors = args
        real, word = ir.FloatType(), ir.IntType(32)
        reals = ir.VectorType(real, LANES)
        found = cgutils.alloca_once_value(builder, ir.Constant(reals, [np.inf] * LANES))
        start = builder.inttoptr(row, reals.as_pointer())
        with cgutils.for_range(builder, n_vectors) as loop:
            value = builder.load(builder.gep(start, [loop.index]), align=4)
            before = builder.load(found)
            is_less = builder.fcmp_ordered("<", value, before)
            builder.store(builder.select(is_less, value, before), found)
        vector, width = builder.load(found), LANES
        while width > 1:
            width //= 2
            places = ir.VectorType(word, width)
            nothing = ir.Constant(vector.type, ir.Undefined)
            low = ir.Constant(places, list(range(width)))
            high = ir.Constant(places, list(range(width, 2 * width)))
            a = builder.shuffle_vector(vector, nothing, low)
            b = builder.shuffle_vector(vector, nothing, high)
            vector = builder.select(builder.fcmp_ordered("<", a, b), a, b)
        return builder.extract_element(vector, word(0))

    return types.float32(types.int64, types.int64), generate


@compiled()
def least(
    row,  #  IN  (n_padded,)  float32
):
    """The smallest value."""
    return _least_at(row.ctypes.data, row.size // LANES)


@intrinsic
def _hits(typingctx, row, index, limit):
    """Which of 16 float32 by address, the ``index``-th such, are not above the limit: as bits."""

    def generate(context, builder, signature, args):
        row, index, limit = args
        reals, bits = ir.VectorType(ir.FloatType(), LANES), ir.IntType(LANES)
        place = builder.gep(builder.inttoptr(row, reals.as_pointer()), [index])
        first = builder.insert_element(
            ir.Constant(reals, ir.Undefined), limit, ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        limits = builder.shuffle_vector(first, ir.Constant(reals, ir.Undefined), zeros)
        is_hit = builder.fcmp_ordered("<=", builder.load(place, align=4), limits)
        return builder.zext(builder.bitcast(is_hit, bits), ir.IntType(64))

    return types.int64(types.int64, types.int64, types.float32), generate


@intrinsic
def _lowest_bit(typingctx, bits):
    """The place of the lowest bit of a number that is not 0."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@compiled()
def collect(
    row,  #    IN   (n_padded,)  float32
    limit,
    found,  #  OUT  (n_padded,)  int32: the places of all that are not above the limit
):
    """How many they are."""
    n, at = 0, row.ctypes.data
    for vector in range(row.size // LANES):
        bits = _hits(at, vector, limit)
        while bits:
            found[n] = vector * LANES + _lowest_bit(bits)
            n += 1
            bits &= bits - 1
    return n


@compiled()
def place_of(
    row,  #  IN  (n_padded,)  float32
    value,
):
    """The first place of the smallest value, which is known."""
    at, vector = row.ctypes.data, 0
    bits = _hits(at, vector, value)
    while not bits:
        vector += 1
        bits = _hits(at, vector, value)
    return vector * LANES + _lowest_bit(bits)


@intrinsic
def prefetch(typingctx, address, n_bytes):
    """Have lines of memory brought nearer; there may be none, and nobody waits."""

    def generate(context, builder, signature, args):
        address, n_bytes = args
        word, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        line = ir.Constant(ir.IntType(64), 64)
        with cgutils.for_range(builder, builder.udiv(n_bytes, line)) as loop:
            place = builder.add(address, builder.mul(loop.index, line))
            # to read, of middling use, data
            hints = [ir.Constant(word, hint) for hint in (0, 2, 1)]
            builder.call(fetch, [builder.inttoptr(place, byte), *hints])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate
