"""Compiled pieces of the AVX-512 twin that must be certain instructions, in wide registers.

Everything goes by address, rows of z in blocks of 64 float32: what lies beyond the dimensions is
zero. Each returned sum of squares is one of 64 chains: n_dims / 64 additions of terms that are not
negative, and 6 more, so that its relative error is below ``chain_error``.
"""
# mypy: ignore-errors
# (numba types these functions by their signatures)

from __future__ import annotations

from functools import partial

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.kernels.avx512.packing import is_int8

BYTE, HALF, WORD, LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
REAL = ir.FloatType()
BYTES, HALVES, WORDS, REALS = (ir.VectorType(kind, 16) for kind in (BYTE, HALF, WORD, REAL))
CHAINS = 4  # registers of one sum, so that an addition need not wait for the one before
FAR = 3.3e38


class _BFloat(ir.Type):
    """The one type of LLVM that llvmlite does not know."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self):
        return hash("bfloat")


def _load(builder, address, index, kind, align=4):
    """The vector or number of a kind that is ``index`` of them after an address."""
    place = builder.gep(builder.inttoptr(address, kind.as_pointer()), [index])
    return builder.load(place, align=align)


def _store(builder, value, address, index, align=4):
    place = builder.gep(builder.inttoptr(address, value.type.as_pointer()), [index])
    builder.store(value, place, align=align)


def _call(builder, name, kind, *args):
    signature = ir.FunctionType(kind, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


def _spread(builder, value, n=16):
    """A vector of a number."""
    kind = ir.VectorType(value.type, n)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, WORD(0))
    zeros = ir.Constant(ir.VectorType(WORD, n), [0] * n)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


def _reals(value):
    return ir.Constant(REALS, [value] * 16)


def _fma(builder, a, b, c):
    return _call(builder, "llvm.fma.v16f32", REALS, a, b, c)


def _chains(builder):
    """Places of a sum that begin at zero: several, so that no addition waits for the one before."""
    return [cgutils.alloca_once_value(builder, _reals(0.0)) for _ in range(CHAINS)]


def _indices(builder, block):
    """Each chain, and where the vector of a block that belongs to it lies."""
    first = builder.mul(block, LONG(CHAINS))
    return [(chain, builder.add(first, LONG(chain))) for chain in range(CHAINS)]


def _add_square(builder, value, place):
    builder.store(_fma(builder, value, value, builder.load(place)), place)


def _larger(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _smaller(builder, a, b):
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _keep_largest(builder, value, place):
    size = _call(builder, "llvm.fabs.v16f32", REALS, value)
    builder.store(_larger(builder, size, builder.load(place)), place)


def _most(builder, places):
    a, b, c, d = (builder.load(place) for place in places)
    vector = _larger(builder, _larger(builder, a, b), _larger(builder, c, d))
    return _folded(builder, vector, partial(_larger, builder))


def _sum(builder, places):
    """Of all lanes of all chains, in halves."""
    a, b, c, d = (builder.load(place) for place in places)
    vector = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
    return _folded(builder, vector, builder.fadd)


def _folded(builder, vector, combine):
    """All lanes, in halves."""
    width = 16
    while width > 1:
        width //= 2
        nothing = ir.Constant(vector.type, ir.Undefined)
        places = ir.VectorType(WORD, width)
        low = ir.Constant(places, list(range(width)))
        high = ir.Constant(places, list(range(width, 2 * width)))
        vector = combine(
            builder.shuffle_vector(vector, nothing, low),
            builder.shuffle_vector(vector, nothing, high),
        )
    return builder.extract_element(vector, WORD(0))


@intrinsic
def centre(typingctx, x, middle, n_blocks, z):
    """z = x - m, rounded; returns (the largest |z_j|, |z|²).

    By address; x, m and z are float32.
    """

    def generate(context, builder, signature, args):
        x, middle, n_blocks, z = args
        most, squares = _chains(builder), _chains(builder)
        with cgutils.for_range(builder, n_blocks) as loop:
            for chain, index in _indices(builder, loop.index):
                gap = builder.fsub(
                    _load(builder, x, index, REALS), _load(builder, middle, index, REALS)
                )
                _store(builder, gap, z, index)
                _keep_largest(builder, gap, most[chain])
                _add_square(builder, gap, squares[chain])
        found = [_most(builder, most), _sum(builder, squares)]
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(types.float32, 2)(*[types.int64] * 4), generate


@intrinsic
def to_int8(typingctx, z, n_blocks, per_scale, scale, q):
    """q = rint(z / scale) as int8; returns (|z - scale q|², |q|², -128 sum of q).

    By address; ``per_scale`` times z is at most 127 and a little.
    """

    def generate(context, builder, signature, args):
        z, n_blocks, per_scale, scale, q = args
        factor, minus = _spread(builder, per_scale), _spread(builder, builder.fneg(scale))
        rests, squares = _chains(builder), _chains(builder)
        total = cgutils.alloca_once_value(builder, ir.Constant(WORDS, [0] * 16))
        with cgutils.for_range(builder, n_blocks) as loop:
            for chain, index in _indices(builder, loop.index):
                value = _load(builder, z, index, REALS)
                whole = _call(builder, "llvm.rint.v16f32", REALS, builder.fmul(value, factor))
                number = builder.fptosi(whole, WORDS)
                _store(builder, builder.trunc(number, BYTES), q, index, align=1)
                _add_square(builder, _fma(builder, whole, minus, value), rests[chain])
                _add_square(builder, whole, squares[chain])
                builder.store(builder.add(builder.load(total), number), total)
        number = _call(builder, "llvm.vector.reduce.add.v16i32", WORD, builder.load(total))
        found = [_sum(builder, rests), _sum(builder, squares), builder.mul(number, WORD(-128))]
        return context.make_tuple(builder, signature.return_type, found)

    real, long = types.float32, types.int64
    return types.Tuple((real, real, types.int32))(long, long, real, real, long), generate


@intrinsic
def to_bf16(typingctx, z, n_blocks, q):
    """q = z as bfloat16, the nearest; returns (|z - q|², |q|²). By address."""

    def generate(context, builder, signature, args):
        z, n_blocks, q = args
        rests, squares = _chains(builder), _chains(builder)
        narrow_kind = ir.VectorType(_BFloat(), 16)
        with cgutils.for_range(builder, n_blocks) as loop:
            for chain, index in _indices(builder, loop.index):
                value = _load(builder, z, index, REALS)
                name = "llvm.x86.avx512bf16.cvtneps2bf16.512"
                narrow = builder.bitcast(_call(builder, name, narrow_kind, value), HALVES)
                _store(builder, narrow, q, index, align=2)
                high = builder.shl(builder.zext(narrow, WORDS), ir.Constant(WORDS, [16] * 16))
                high = builder.bitcast(high, REALS)
                _add_square(builder, builder.fsub(value, high), rests[chain])
                _add_square(builder, high, squares[chain])
        found = [_sum(builder, rests), _sum(builder, squares)]
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(types.float32, 2)(*[types.int64] * 3), generate


@intrinsic
def rescale(typingctx, panels, y, n_blocks, scale, scales):
    """y, raw products, become ``scale * scales[j]`` times themselves; (the largest |y_j|, |y|²).

    By address; the raw ones are int32 or float32, as the kind of ``panels`` has them.
    """
    is_whole = is_int8(panels)

    def generate(context, builder, signature, args):
        _, y, n_blocks, scale, scales = args
        factor = _spread(builder, scale)
        most, squares = _chains(builder), _chains(builder)
        with cgutils.for_range(builder, n_blocks) as loop:
            for chain, index in _indices(builder, loop.index):
                raw = _load(builder, y, index, WORDS if is_whole else REALS)
                raw = builder.sitofp(raw, REALS) if is_whole else raw
                own = builder.fmul(factor, _load(builder, scales, index, REALS))
                value = builder.fmul(raw, own)
                _store(builder, value, y, index)
                _keep_largest(builder, value, most[chain])
                _add_square(builder, value, squares[chain])
        found = [_most(builder, most), _sum(builder, squares)]
        return context.make_tuple(builder, signature.return_type, found)

    real, long = types.float32, types.int64
    return types.UniTuple(real, 2)(panels, long, long, real, long), generate


def _step(builder, is_whole, total, centroids, row):
    if is_whole:
        name = "llvm.x86.avx512.vpdpbusd.512"
        return _call(builder, name, WORDS, total, centroids, row)
    name, pairs = "llvm.x86.avx512bf16.dpbf16ps.512", ir.VectorType(_BFloat(), 32)
    centroids, row = builder.bitcast(centroids, pairs), builder.bitcast(row, pairs)
    return _call(builder, name, REALS, total, centroids, row)


@intrinsic(prefer_literal=True)
def multiply_rows(
    typingctx, panels, n_rows, n_vectors, rows, row_bytes, panel, n_groups, scores, score_bytes,
    starts,
):  # fmt: skip
    """n_rows (a literal) rows times one panel of n_vectors, 1 to 4, times 16 centroids.

    All else goes by address. A step takes 4 bytes of each row and of each centroid. 6 rows times
    4 vectors are 24 sums, which with 4 vectors of centroids and one of a row is what the 32
    registers hold.
    """
    height, is_whole = n_rows.literal_value, is_int8(panels)

    def block(builder, width, rows, row_bytes, panel, n_groups, scores, score_bytes, starts):
        def begin(i):
            return (
                _spread(builder, _load(builder, starts, LONG(i), WORD)) if is_whole else _reals(0.0)
            )

        own = [builder.add(rows, builder.mul(row_bytes, LONG(i))) for i in range(height)]
        sums = [
            [cgutils.alloca_once_value(builder, start) for _ in range(width)]
            for start in map(begin, range(height))
        ]
        with cgutils.for_range(builder, n_groups) as loop:
            first = builder.mul(loop.index, LONG(width))
            centroids = [
                _load(builder, panel, builder.add(first, LONG(j)), WORDS) for j in range(width)
            ]
            for row, totals in zip(own, sums, strict=True):
                value = _spread(builder, _load(builder, row, loop.index, WORD))
                for c, total in zip(centroids, totals, strict=True):
                    builder.store(_step(builder, is_whole, builder.load(total), c, value), total)
        for i, totals in enumerate(sums):
            base = builder.add(scores, builder.mul(score_bytes, LONG(i)))
            for j, total in enumerate(totals):
                _store(builder, builder.load(total), base, LONG(j))

    def generate(context, builder, signature, args):
        for width in range(1, 5):
            with builder.if_then(builder.icmp_signed("==", args[2], LONG(width))):
                block(builder, width, *args[3:])
        return context.get_dummy_value()

    return types.void(panels, n_rows, *[types.int64] * 8), generate


@intrinsic
def lower(typingctx, panels, scores, n_vectors, tables, n_padded, scale, a, b, c):
    """Raw products become L, in place; returns the label of the least score, before lowering.

    ``tables`` are five rows of n_padded float32 (`pipeline.kernels.avx512.packing`), by address:
    with ``score_k = floor_k + scale scale_k raw_k`` and ``L_k = score_k - a reach_k - b error_k -
    c tail_k``.
    """
    is_whole = is_int8(panels)

    def generate(context, builder, signature, args):
        _, scores, n_vectors, tables, n_padded, scale, a, b, c = args
        scale = _spread(builder, scale)
        down = [_spread(builder, builder.fneg(value)) for value in (a, b, c)]
        size = builder.mul(n_padded, LONG(4))
        starts = [builder.add(tables, builder.mul(size, LONG(row))) for row in range(5)]
        lanes = ir.Constant(WORDS, list(range(16)))
        best = cgutils.alloca_once_value(builder, _reals(FAR))
        place = cgutils.alloca_once_value(builder, lanes)
        here = cgutils.alloca_once_value(builder, lanes)
        with cgutils.for_range(builder, n_vectors) as loop:
            raw = _load(builder, scores, loop.index, WORDS if is_whole else REALS)
            raw = builder.sitofp(raw, REALS) if is_whole else raw
            floor, own, *losses = [_load(builder, row, loop.index, REALS) for row in starts]
            score = _fma(builder, raw, builder.fmul(scale, own), floor)
            is_less = builder.fcmp_ordered("<", score, builder.load(best))
            builder.store(builder.select(is_less, score, builder.load(best)), best)
            labels = builder.load(here)
            builder.store(builder.select(is_less, labels, builder.load(place)), place)
            builder.store(builder.add(labels, ir.Constant(WORDS, [16] * 16)), here)
            bound = score
            for factor, loss in zip(down, losses, strict=True):
                bound = _fma(builder, factor, loss, bound)
            _store(builder, bound, scores, loop.index)
        values = builder.load(best)
        top = _folded(builder, values, partial(_smaller, builder))
        is_top = builder.fcmp_ordered("==", values, _spread(builder, top))
        never = ir.Constant(WORDS, [2**31 - 1] * 16)
        label = _call(
            builder,
            "llvm.vector.reduce.smin.v16i32",
            WORD,
            builder.select(is_top, builder.load(place), never),
        )
        return builder.sext(label, LONG)

    real, long = types.float32, types.int64
    return long(panels, long, long, long, long, real, real, real, real), generate


@intrinsic
def product_int8(typingctx, q, c, n_blocks):
    """The raw product of one row and one centroid of int8, by address, in blocks of 64 bytes."""

    def generate(context, builder, signature, args):
        q, c, n_blocks = args
        total = cgutils.alloca_once(builder, WORDS)
        builder.store(ir.Constant(WORDS, [0] * 16), total)
        with cgutils.for_range(builder, n_blocks) as loop:
            row, centroid = (_load(builder, start, loop.index, WORDS) for start in (q, c))
            builder.store(_step(builder, True, builder.load(total), centroid, row), total)
        return _call(builder, "llvm.vector.reduce.add.v16i32", WORD, builder.load(total))

    long = types.int64
    return types.int32(long, long, long), generate
