"""Compiled loops of an index of ids: bytes to rows, by open addressing.

A slot is 8 bytes: 32 bits of the id's hash and its row; 0 is empty. The place of an id is the high
bits of its hash, then linear probing (Knuth, The Art of Computer Programming 3, 6.4, Algorithms L
and R), so a table of twice the size holds the same order and is filled in one pass from the old
one. An id lies in an arena of bytes behind its length; ``starts`` says where for each row, ``~``
of it where the row is free, whose next id takes the same place if it is not longer.

Ids are the user's. Against ids crafted to collide, the hash has a key that is drawn for each
process (:mod:`pipeline.kernels.siphash`).

All arrays are found through one, ``table``, because a call pays for each argument. Nothing grows
here: who finds no room returns, and the caller makes some and goes on.
"""
# mypy: ignore-errors
# (numba types these functions by their arguments, the intrinsics by their signatures)

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from pipeline.kernels import basics, siphash
from pipeline.kernels.basics import compiler, prefetch
from pipeline.kernels.siphash import bytes_at, hashed, word

# places in `table`, (N_FIELDS,) int64: addresses of arrays, then how much they hold
SLOTS, STARTS, ARENA, FREE = range(4)  # uint64, int64, uint8, int32
N_SLOTS, N_STARTS, N_ARENA = range(4, 7)  # room: slots (a power of 2), rows, bytes
N_ITEMS, N_ROWS, N_FREE, N_USED, N_LIVE = range(7, 12)  # N_LIVE: bytes of ids that are there
KEY_0, KEY_1 = range(12, 14)  # of the hash
N_FIELDS = 14

HEADER = 4  # bytes of an id's length before it
FULL = 3, 4  # a table fuller than 3/4 probes longer than a growth costs
ABSENT = -1
AHEAD = 8  # ids hashed, and their slots asked for, before the first of them is looked at

_LOW = np.uint64(0xFFFFFFFF)
_ZERO, _HALF = np.uint64(0), np.uint64(32)

compiled = compiler(basics, siphash)


def _pointer_to(kind, name):
    def function(typingctx, address):
        def generate(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(types.CPointer(kind)))

        return types.CPointer(kind)(types.int64), generate

    function.__name__ = function.__qualname__ = name
    return intrinsic(function)


_slots_at = _pointer_to(types.uint64, "_slots_at")
_starts_at = _pointer_to(types.int64, "_starts_at")
_free_at = _pointer_to(types.int32, "_free_at")


@intrinsic
def _length(typingctx, address):
    """4 bytes at any address."""

    def generate(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        return builder.zext(builder.load(pointer, align=1), ir.IntType(64))

    return types.int64(types.int64), generate


@intrinsic
def _set_length(typingctx, address, length):
    """Write 4 bytes to any address."""

    def generate(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        builder.store(builder.trunc(args[1], ir.IntType(32)), pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def _copy(typingctx, to, origin, n_bytes):
    """Copy bytes that do not overlap."""

    def generate(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, byte, ir.IntType(64), ir.IntType(1)])
        copy = builder.module.globals.get("llvm.memcpy.p0.p0.i64") or ir.Function(
            builder.module, kind, "llvm.memcpy.p0.p0.i64"
        )
        to, origin, n_bytes = args
        pointers = [builder.inttoptr(x, byte) for x in (to, origin)]
        builder.call(copy, [*pointers, n_bytes, ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@compiled()
def _tag(table, address, n_bytes):
    """The half of the hash that is kept."""
    return hashed(address, n_bytes, table[KEY_0], table[KEY_1]) >> _HALF


@compiled()
def _is_same(a, b, n_bytes):
    """Whether the bytes at two addresses are the same."""
    i = 0
    while i + 8 <= n_bytes:
        if word(a + i) != word(b + i):
            return False
        i += 8
    x, y = carray(bytes_at(a), (n_bytes,)), carray(bytes_at(b), (n_bytes,))
    while i < n_bytes:
        if x[i] != y[i]:
            return False
        i += 1
    return True


@compiled()
def _shift(n_slots):
    """By how much a tag is moved to be a place."""
    bits = 0
    while (1 << bits) < n_slots:
        bits += 1
    return np.uint64(32 - bits)


@compiled()
def _probe(table, shift, tag, address, n_bytes):
    """Where the id's slot is, or the empty one in which its search ends."""
    n_slots = table[N_SLOTS]
    slots = carray(_slots_at(table[SLOTS]), (n_slots,))
    starts = carray(_starts_at(table[STARTS]), (table[N_STARTS],))
    place = np.int64(tag >> shift)
    while True:
        slot = slots[place]
        if slot == _ZERO:
            return place
        if slot >> _HALF == tag:
            at = table[ARENA] + starts[np.int64(slot & _LOW) - 1]
            if _length(at) == n_bytes and _is_same(at + HEADER, address, n_bytes):
                return place
        place = (place + 1) & (n_slots - 1)


@compiled()
def find_one(
    table,  #  IN  (N_FIELDS,)  int64
    key,  #    IN  bytes
):
    """The row of an id, or -1."""
    address = np.frombuffer(key, np.uint8).ctypes.data if len(key) > 0 else table[ARENA]
    tag = _tag(table, address, len(key))
    place = _probe(table, _shift(table[N_SLOTS]), tag, address, len(key))
    slots = carray(_slots_at(table[SLOTS]), (table[N_SLOTS],))
    return np.int64(slots[place] & _LOW) - 1


@compiled()
def find(
    table,  #    IN   (N_FIELDS,)  int64
    blob,  #     IN   bytes: the ids one after another
    lengths,  #  IN   (n,)  int64
    rows,  #     OUT  (n,)  int64: -1 where an id is not there
):
    """The rows of ids."""
    n, shift = lengths.size, _shift(table[N_SLOTS])
    address = np.frombuffer(blob, np.uint8).ctypes.data if len(blob) > 0 else table[ARENA]
    slots = carray(_slots_at(table[SLOTS]), (table[N_SLOTS],))
    ahead = address
    for i in range(n + AHEAD):
        # tags wait in `rows`: by the time that an id's slot is read, it has come from memory
        if i < n:
            tag = _tag(table, ahead, lengths[i])
            prefetch(table[SLOTS] + 8 * np.int64(tag >> shift), 64)
            rows[i] = np.int64(tag)
            ahead += lengths[i]
        j = i - AHEAD
        if j >= 0:
            place = _probe(table, shift, np.uint64(rows[j]), address, lengths[j])
            rows[j] = np.int64(slots[place] & _LOW) - 1
            address += lengths[j]


@compiled()
def put(
    table,  #    INOUT  (N_FIELDS,)  int64
    blob,  #     IN     bytes: the ids one after another
    lengths,  #  IN     (n,)  int64
    begin,  #    the first id to put
    rows,  #     OUT    (n,)  int64
):
    """Give ids a row; returns how many have one, fewer than n where there was no room."""
    n, shift = lengths.size, _shift(table[N_SLOTS])
    address = np.frombuffer(blob, np.uint8).ctypes.data if len(blob) > 0 else table[ARENA]
    slots = carray(_slots_at(table[SLOTS]), (table[N_SLOTS],))
    starts = carray(_starts_at(table[STARTS]), (table[N_STARTS],))
    free = carray(_free_at(table[FREE]), (table[N_STARTS],))
    for i in range(begin):
        address += lengths[i]
    ahead = address
    for i in range(begin, n + AHEAD):
        if i < n:
            tag = _tag(table, ahead, lengths[i])
            prefetch(table[SLOTS] + 8 * np.int64(tag >> shift), 64)
            rows[i] = np.int64(tag)
            ahead += lengths[i]
        j = i - AHEAD
        if j < begin:
            continue
        n_bytes, tag = lengths[j], np.uint64(rows[j])
        place = _probe(table, shift, tag, address, n_bytes)
        if slots[place] != _ZERO:
            rows[j] = np.int64(slots[place] & _LOW) - 1
            address += n_bytes
            continue
        if FULL[1] * (table[N_ITEMS] + 1) > FULL[0] * table[N_SLOTS]:
            return j
        start, row = ABSENT, table[N_ROWS]
        if table[N_FREE] > 0:
            row = np.int64(free[table[N_FREE] - 1])
            if _length(table[ARENA] + ~starts[row]) >= n_bytes:
                start = ~starts[row]
        elif row == table[N_STARTS]:
            return j
        if start == ABSENT:
            start = table[N_USED]
            if start + HEADER + n_bytes > table[N_ARENA]:
                return j
            table[N_USED] += HEADER + n_bytes
        if table[N_FREE] > 0:
            table[N_FREE] -= 1
        else:
            table[N_ROWS] += 1
        _set_length(table[ARENA] + start, n_bytes)
        _copy(table[ARENA] + start + HEADER, address, n_bytes)
        starts[row] = start
        slots[place] = (tag << _HALF) | np.uint64(row + 1)
        table[N_ITEMS] += 1
        table[N_LIVE] += HEADER + n_bytes
        rows[j] = row
        address += n_bytes
    return n


@compiled()
def remove(
    table,  #    INOUT  (N_FIELDS,)  int64
    blob,  #     IN     bytes: the ids one after another
    lengths,  #  IN     (n,)  int64
    rows,  #     OUT    (n,)  int64: the rows that they had
):
    """Free the rows of ids; returns how many, fewer than n where one is not there."""
    shift, mask = _shift(table[N_SLOTS]), table[N_SLOTS] - 1
    address = np.frombuffer(blob, np.uint8).ctypes.data if len(blob) > 0 else table[ARENA]
    slots = carray(_slots_at(table[SLOTS]), (table[N_SLOTS],))
    starts = carray(_starts_at(table[STARTS]), (table[N_STARTS],))
    free = carray(_free_at(table[FREE]), (table[N_STARTS],))
    for i in range(lengths.size):
        n_bytes = lengths[i]
        hole = _probe(table, shift, _tag(table, address, n_bytes), address, n_bytes)
        if slots[hole] == _ZERO:
            return i
        row = np.int64(slots[hole] & _LOW) - 1
        at = (hole + 1) & mask
        while slots[at] != _ZERO:  # whoever was pushed beyond the hole may move into it
            home = np.int64(slots[at] >> _HALF >> shift)
            if (at - home) & mask >= (at - hole) & mask:
                slots[hole] = slots[at]
                hole = at
            at = (at + 1) & mask
        slots[hole] = _ZERO
        starts[row] = ~starts[row]
        free[table[N_FREE]] = row
        table[N_FREE] += 1
        table[N_ITEMS] -= 1
        table[N_LIVE] -= HEADER + n_bytes
        rows[i] = row
        address += n_bytes
    return lengths.size


@compiled()
def refill(
    slots,  #   IN     (n,)   uint64
    larger,  #  INOUT  (2n,)  uint64: zeros, then the same rows
):
    """Move the slots into a table of another size."""
    shift, mask = _shift(larger.size), larger.size - 1
    for i in range(slots.size):
        if slots[i] != _ZERO:
            place = np.int64(slots[i] >> _HALF >> shift)
            while larger[place] != _ZERO:
                place = (place + 1) & mask
            larger[place] = slots[i]


@compiled()
def measure(
    table,  #    IN   (N_FIELDS,)  int64
    rows,  #     IN   (n,)  int64, occupied
    lengths,  #  OUT  (n,)  int64
):
    """How long ids are; returns the sum."""
    starts = carray(_starts_at(table[STARTS]), (table[N_STARTS],))
    total = 0
    for i in range(rows.size):
        lengths[i] = _length(table[ARENA] + starts[rows[i]])
        total += lengths[i]
    return total


@compiled()
def gather(
    table,  #  IN   (N_FIELDS,)  int64
    rows,  #   IN   (n,)  int64, occupied
    blob,  #   OUT  (as many as `measure` says,)  uint8: the ids one after another
):
    """Copy ids out."""
    starts = carray(_starts_at(table[STARTS]), (table[N_STARTS],))
    to = blob.ctypes.data
    for i in range(rows.size):
        at = table[ARENA] + starts[rows[i]]
        _copy(to, at + HEADER, _length(at))
        to += _length(at)


@compiled()
def compact(
    table,  #  INOUT  (N_FIELDS,)  int64
    arena,  #  OUT    (>= HEADER + N_LIVE,)  uint8, zeros: the ids that are there
):
    """Copy the live ids into another arena; free rows share the empty place at its beginning."""
    starts = carray(_starts_at(table[STARTS]), (table[N_STARTS],))
    to, used = arena.ctypes.data, HEADER
    for row in range(table[N_ROWS]):
        if starts[row] < 0:
            starts[row] = ~0
            continue
        at = table[ARENA] + starts[row]
        n_bytes = HEADER + _length(at)
        _copy(to + used, at, n_bytes)
        starts[row] = used
        used += n_bytes
    table[N_USED] = used
