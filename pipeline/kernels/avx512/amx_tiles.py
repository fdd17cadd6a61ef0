"""Compiled: products on the matrix unit of a processor with AMX.

A tile is a register of 16 rows of 64 bytes. One instruction multiplies 16 records by 16
centroids over 64 bytes of their dimensions: 64 of int8, summed in int32, or 32 of bfloat16, summed
in float32. Four tiles hold sums, of 32 records and 32 centroids, so that each operand that is
loaded is used twice.

Operands are those of the AVX-512 twin (`pipeline.kernels.avx512.packing`): a tile of centroids is
16 groups of 4 bytes of one vector of a panel, which the matrix unit reads with the panel's stride.
"""
# mypy: ignore-errors
# (numba types these functions by their arguments, the intrinsics by their signatures)

from __future__ import annotations

from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.kernels.basics import compiled

TILE_ROWS = 16
TILE_BYTES = 64  # of a row


def _byte_pointer(builder, address):
    return builder.inttoptr(address, ir.IntType(8).as_pointer())


def _call(builder, name, *args):
    kind = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), args)


def _tile(number):
    return ir.Constant(ir.IntType(8), number)


@intrinsic
def _start_tiles(typingctx, starts):
    """The address of room for two tiles, which ends with the calling function; None for None."""

    def generate(context, builder, signature, args):
        if isinstance(starts, types.NoneType):
            return context.get_dummy_value()
        place = cgutils.alloca_once(
            builder, ir.ArrayType(ir.IntType(8), 2 * TILE_ROWS * TILE_BYTES)
        )
        place.align = TILE_BYTES
        return builder.ptrtoint(place, ir.IntType(64))

    return (starts if isinstance(starts, types.NoneType) else types.int64)(starts), generate


@intrinsic
def words(typingctx, address):
    """A pointer to int32 from an address."""

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.IntType(32).as_pointer())

    return types.CPointer(types.int32)(types.int64), generate


@intrinsic
def _open_tiles(typingctx):
    """Eight whole tiles on this thread; `_close_tiles` gives them back."""

    def generate(context, builder, signature, args):
        # palette 1, then bytes a row from byte 16 and rows from byte 48
        layout = [1] + [0] * 15 + [TILE_BYTES, 0] * 8 + [0] * 16 + [TILE_ROWS] * 8 + [0] * 8
        kind = ir.ArrayType(ir.IntType(8), len(layout))
        place = cgutils.alloca_once_value(builder, ir.Constant(kind, layout))
        _call(builder, "ldtilecfg", builder.bitcast(place, ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _close_tiles(typingctx):
    """A thread without tiles has less to save when it is switched."""

    def generate(context, builder, signature, args):
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


def _block(n_down, n_across):
    """Scores of ``n_down`` tiles of records and ``n_across`` of centroids, 1 or 2 each."""

    @intrinsic
    def multiply_block(
        typingctx, rows, row_stride, panel, panel_stride, n_steps, start, scores, score_stride
    ):
        """``n_steps`` times 64 bytes of dimensions.

        int8 where there is a ``start``: the address of a tile for each tile of records, with which
        sums begin. bfloat16 where it is None.
        """
        is_int8 = not isinstance(start, types.NoneType)

        def generate(context, builder, signature, args):
            rows, row_stride, panel, panel_stride, n_steps, start, scores, score_stride = args

            def number(value):
                return ir.Constant(ir.IntType(64), value)

            def load(tile, address, stride):
                _call(builder, "tileloadd64", _tile(tile), _byte_pointer(builder, address), stride)

            places = [(down, across) for down in range(n_down) for across in range(n_across)]
            for down, across in places:
                if is_int8:
                    of_records = builder.add(start, number(down * TILE_ROWS * TILE_BYTES))
                    load(2 * down + across, of_records, number(TILE_BYTES))
                else:
                    _call(builder, "tilezero", _tile(2 * down + across))
            with cgutils.for_range(builder, n_steps) as loop:
                step = builder.mul(loop.index, number(TILE_BYTES))
                down_panel = builder.mul(step, builder.sdiv(panel_stride, number(4)))
                for down in range(n_down):
                    offset = builder.add(step, builder.mul(row_stride, number(down * TILE_ROWS)))
                    load(4 + down, builder.add(rows, offset), row_stride)
                for across in range(n_across):
                    offset = builder.add(down_panel, number(across * TILE_BYTES))
                    load(6 + across, builder.add(panel, offset), panel_stride)
                for down, across in places:  # records are signed, centroids are not
                    operands = (2 * down + across, 4 + down, 6 + across)
                    product = "tdpbsud" if is_int8 else "tdpbf16ps"
                    _call(builder, product, *(_tile(tile) for tile in operands))
            for down, across in places:
                offset = builder.mul(score_stride, number(down * TILE_ROWS))
                offset = builder.add(offset, number(across * TILE_BYTES))
                target = _byte_pointer(builder, builder.add(scores, offset))
                _call(builder, "tilestored64", _tile(2 * down + across), target, score_stride)
            return context.get_dummy_value()

        word = types.int64
        return types.void(word, word, word, word, word, start, word, word), generate

    return multiply_block


_one_by_one, _one_by_two, _two_by_one, _two_by_two = (
    _block(down, across) for down in (1, 2) for across in (1, 2)
)


@compiled()
def multiply_tiles(
    rows,  #          IN   address of (n, row_stride) bytes
    row_stride,  #    bytes
    n,  #             a multiple of 16
    panels,  #        IN   address of panels of 64 centroids, the last one shorter
    n_vectors,  #     of 16 centroids
    n_groups,  #      of 4 bytes of a row, in whole steps of 16
    scores,  #        OUT  address of (n, 16 * n_vectors) int32 or float32
    score_stride,  #  bytes
    starts,  #        IN   address of (n,) int32: what each sum begins with; bfloat16: None
):
    """scores = records times centroids."""
    n_steps = n_groups // TILE_ROWS
    start_tiles = _start_tiles(starts)
    _open_tiles()
    for at in range(0, n, 2 * TILE_ROWS):
        if starts is not None:
            _spread(starts, at, n, start_tiles)
        row = rows + at * row_stride
        for first in range(0, n_vectors, 4):
            width = min(4, n_vectors - first)
            panel = panels + first * TILE_BYTES * n_groups
            stride = width * TILE_BYTES
            for vector in range(0, width, 2):
                centroids = panel + vector * TILE_BYTES
                out = scores + at * score_stride + (first + vector) * TILE_BYTES
                left = centroids, stride, n_steps, start_tiles, out, score_stride
                if at + TILE_ROWS < n:
                    if vector + 1 < width:
                        _two_by_two(row, row_stride, *left)
                    else:
                        _two_by_one(row, row_stride, *left)
                elif vector + 1 < width:
                    _one_by_two(row, row_stride, *left)
                else:
                    _one_by_one(row, row_stride, *left)
    _close_tiles()


@compiled()
def _spread(starts, first, n, tiles):
    """Two tiles, in whose rows the starts stand 16 times."""
    source = carray(words(starts), n)
    target = carray(words(tiles), (2 * TILE_ROWS, TILE_BYTES // 4))
    for i in range(2 * TILE_ROWS):
        target[i, :] = source[first + i] if first + i < n else 0
