"""SipHash-1-3 of bytes at an address.

Who does not know its key cannot make many messages of one hash (Aumasson and Bernstein, SipHash: a
fast short-input PRF, 2012). It is what Python has for bytes.
"""
# mypy: ignore-errors
# (numba types these functions by their arguments, the intrinsics by their signatures)

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from pipeline.kernels.basics import compiled

_C0 = np.uint64(0x736F6D6570736575)
_C1 = np.uint64(0x646F72616E646F6D)
_C2 = np.uint64(0x6C7967656E657261)
_C3 = np.uint64(0x7465646279746573)
_FF = np.uint64(0xFF)


@intrinsic
def word(typingctx, address):
    """8 bytes at any address."""

    def generate(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(types.int64), generate


@intrinsic
def bytes_at(typingctx, address):
    """A pointer to bytes from an address."""

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(types.int64), generate


@compiled(inline="always")
def _rotate(x, n):
    return (x << np.uint64(n)) | (x >> np.uint64(64 - n))


@compiled()
def _round(v0, v1, v2, v3):
    v0 += v1
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 += v3
    v3 = _rotate(v3, 16) ^ v2
    v0 += v3
    v3 = _rotate(v3, 21) ^ v0
    v2 += v1
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


@compiled()
def hashed(address, n_bytes, key_0, key_1):
    """SipHash-1-3 of bytes by address; the key as two words."""
    k0, k1 = np.uint64(key_0), np.uint64(key_1)
    v0, v1, v2, v3 = k0 ^ _C0, k1 ^ _C1, k0 ^ _C2, k1 ^ _C3
    end = address + (n_bytes & ~7)
    while address < end:
        m = word(address)
        v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ m)
        v0 ^= m
        address += 8
    m = np.uint64(n_bytes) << np.uint64(56)
    n_rest = n_bytes & 7
    rest = carray(bytes_at(address), (n_rest,))
    for i in range(n_rest):
        m |= np.uint64(rest[i]) << np.uint64(8 * i)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ m)
    v0 ^= m
    v2 ^= _FF
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3
