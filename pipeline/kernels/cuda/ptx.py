"""Instructions that numba-cuda has no function for, as inline PTX; the only file that writes any.

A kernel sees functions of arrays and indices, in elements, so that nothing else knows how
numba-cuda lays out an array. Names and fragments are those of "Parallel Thread Execution ISA",
9.0, chapters 9.7.9 (``cp.async``) and 9.7.14 (``mma``, ``ldmatrix``). All threads of a warp call
`load_matrices` and `multiply_add` together.

Numba's simulator knows no PTX: the tests put functions of Python in the place of these.
"""
# mypy: ignore-errors
# (numba types what these make)

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.cuda.extending import intrinsic

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_WORDS = types.UniTuple(types.uint32, 4)
_REALS = types.UniTuple(types.float32, 4)

_MULTIPLY = (
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
    "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
)
_LOAD_MATRICES = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0,$1,$2,$3}, [$4];"
_TO_SHARED = "{ .reg .u64 t; cvta.to.shared.u64 t, $1; cvt.u32.u64 $0, t; }"


def _place(context, builder, kind, array, index):
    """Byte address of element ``index`` of a C-ordered array, as a 64-bit integer."""
    start = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
    wide = builder.sext(index, _I64) if index.type.width < 64 else index
    offset = builder.mul(wide, ir.Constant(_I64, kind.dtype.bitwidth // 8))
    return builder.add(builder.ptrtoint(start, _I64), offset)


def _shared_place(context, builder, kind, array, index):
    """The same in shared memory, whose addresses have 32 bits.

    The start is converted by itself: it does not change in a loop, and the compiler sees that.
    """
    start = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
    convert = ir.InlineAsm(ir.FunctionType(_I32, [_I64]), _TO_SHARED, "=r,l", side_effect=False)
    narrow = builder.trunc(index, _I32) if index.type.width > 32 else index
    offset = builder.mul(narrow, ir.Constant(_I32, kind.dtype.bitwidth // 8))
    return builder.add(builder.call(convert, [builder.ptrtoint(start, _I64)]), offset)


def _four(context, builder, kind, struct):
    return context.make_tuple(builder, kind, [builder.extract_value(struct, i) for i in range(4)])


def _statement(text):
    """An instruction without operands, which moves no memory access across itself."""

    @intrinsic
    def state(typingctx):
        def generate(context, builder, signature, args):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(ir.InlineAsm(kind, text, "~{memory}", side_effect=True), [])
            return context.get_dummy_value()

        return types.void(), generate

    return state


@intrinsic
def multiply_add(typingctx, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
    """A (16 x 16) times B (16 x 8) plus C (16 x 8), a fragment a thread: four float32.

    A and B are fp16, two to a 32-bit word, A by rows, B by columns.
    """

    def generate(context, builder, signature, args):
        result = ir.LiteralStructType([_F32] * 4)
        kind = ir.FunctionType(result, [_I32] * 6 + [_F32] * 4)
        operands = "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f"
        call = ir.InlineAsm(kind, _MULTIPLY, operands, side_effect=False)
        return _four(context, builder, signature.return_type, builder.call(call, args))

    return _REALS(*[types.uint32] * 6, *[types.float32] * 4), generate


@intrinsic
def load_matrices(typingctx, shared, index):
    """Four 8 x 8 matrices of 16-bit elements: thread i says where row i mod 8 of matrix i/8 begins.

    A row is 16 bytes, aligned. Thread i gets elements 2 (i mod 4) and the next of row i/4 of each
    matrix in a word: a fragment of `multiply_add`.
    """

    def generate(context, builder, signature, args):
        place = _shared_place(context, builder, signature.args[0], *args)
        kind = ir.FunctionType(ir.LiteralStructType([_I32] * 4), [_I32])
        operands = "=r,=r,=r,=r,r,~{memory}"
        call = ir.InlineAsm(kind, _LOAD_MATRICES, operands, side_effect=True)
        return _four(context, builder, signature.return_type, builder.call(call, [place]))

    return _WORDS(shared, index), generate


@intrinsic
def copy_16(typingctx, shared, to, array, index):
    """16 aligned bytes from global to shared memory, past the registers; there after a wait."""

    def generate(context, builder, signature, args):
        target = _shared_place(context, builder, signature.args[0], *args[:2])
        source = _place(context, builder, signature.args[2], *args[2:])
        kind = ir.FunctionType(ir.VoidType(), [_I32, _I64])
        text = "cp.async.cg.shared.global [$0], [$1], 16;"
        builder.call(ir.InlineAsm(kind, text, "r,l,~{memory}", side_effect=True), [target, source])
        return context.get_dummy_value()

    return types.void(shared, to, array, index), generate


end_group = _statement("cp.async.commit_group;")
"""The copies since the last call are a group."""

wait_but_one = _statement("cp.async.wait_group 1;")
"""All groups of this thread have arrived but the newest."""

wait_all = _statement("cp.async.wait_group 0;")
"""All groups of this thread have arrived."""


@intrinsic
def load_4(typingctx, array, index):
    """Four float32 by one load of 16 aligned bytes that no thread of this kernel writes."""

    def generate(context, builder, signature, args):
        place = _place(context, builder, signature.args[0], *args)
        kind = ir.FunctionType(ir.LiteralStructType([_F32] * 4), [_I64])
        text = "ld.global.nc.v4.f32 {$0,$1,$2,$3}, [$4];"
        call = ir.InlineAsm(kind, text, "=f,=f,=f,=f,l", side_effect=False)
        return _four(context, builder, signature.return_type, builder.call(call, [place]))

    return _REALS(array, index), generate


@intrinsic
def store_2(typingctx, array, index, first, second):
    """Two 32-bit words by one store of 8 aligned bytes."""

    def generate(context, builder, signature, args):
        place = _place(context, builder, signature.args[0], *args[:2])
        kind = ir.FunctionType(ir.VoidType(), [_I64, _I32, _I32])
        text = "st.global.v2.u32 [$0], {$1,$2};"
        call = ir.InlineAsm(kind, text, "l,r,r,~{memory}", side_effect=True)
        builder.call(call, [place, *args[2:]])
        return context.get_dummy_value()

    return types.void(array, index, types.uint32, types.uint32), generate


@intrinsic
def to_half(typingctx, value):
    """The fp16 next to a float32, ties to even, as bits."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(16), [_F32])
        call = ir.InlineAsm(kind, "cvt.rn.f16.f32 $0, $1;", "=h,f", side_effect=False)
        return builder.call(call, args)

    return types.uint16(types.float32), generate


@intrinsic
def from_half(typingctx, bits):
    """The float32 that an fp16 is."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(_F32, [ir.IntType(16)])
        call = ir.InlineAsm(kind, "cvt.f32.f16 $0, $1;", "=f,h", side_effect=False)
        return builder.call(call, args)

    return types.float32(types.uint16), generate
