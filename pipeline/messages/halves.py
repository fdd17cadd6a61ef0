"""Numbers of 16 bits: vectors rounded to float16 where they come in, widened where they are read.

With ``state.dtype: float16`` a decoded vector is rounded before anybody looks at it, and goes on as
float32 that has no more digits than float16 holds. So all that is computed is computed from what
is stored: labels and statistics are as exact over the stored vectors as they are without.

numpy makes no use of the processor's own conversion, and converts number by number. A batch of
4000 x 384 costs 4.6 ms to float16 and back, and 1.5 ms here; to widen it 2.0 and 0.6 ms (Zen 5,
numpy 2.4).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LARGEST_COMPONENT: Final = 2.0**15
"""The largest bound of components, a power of two, up to which every number rounds to a float16;
the largest of these is 65504."""
LEAST_COMPONENT: Final = 2.0**-14
"""The smallest normal float16: a bound below it would leave fewer than 11 digits to all."""
BLOCK: Final = 2**16
"""Numbers at a time: few calls, and what they pass on stays in the cache."""

_SIGN, _EXPONENT = np.uint32(0x8000_0000), np.uint32(0x7F80_0000)
_LEAST_NORMAL = np.float32(LEAST_COMPONENT).view(np.uint32)
_SHIFT = np.uint32((13 << 23) | (1 << 22))  # times 2**13, and half as much again
_WIDE = np.uint32(0x8FFF_E000).view(np.int32)  # sign, exponent and digits of a float16, moved up
_REBIAS = np.float32(2.0**112)  # 127 - 15: what the two exponents begin with


def round_to_half(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the nearest float16, ties to even, in place; bit by bit what numpy's cast says.

    Parameters
    ----------
    matrix : (n, n_dims) float32
        C order, writable. Numbers up to 65504 in magnitude; of others nothing is promised.

    Returns
    -------
    (n, n_dims) float32
        The same array.
    """
    assert matrix.flags.c_contiguous, "what is reshaped would be a copy"
    flat = matrix.reshape(-1)
    exponents, signs = (np.empty(min(BLOCK, flat.size), np.uint32) for _ in range(2))
    for start in range(0, flat.size, BLOCK):
        part = flat[start : start + BLOCK]
        bits, exponent, sign = part.view(np.uint32), exponents[: len(part)], signs[: len(part)]
        np.bitwise_and(bits, _SIGN, out=sign)
        # 1.5 * 2**(e + 13): float32 of that size are as far apart as float16 of exponent e, so the
        # sum is rounded as wanted, and taking it off again is exact
        np.bitwise_and(bits, _EXPONENT, out=exponent)
        np.maximum(exponent, _LEAST_NORMAL, out=exponent)
        np.add(exponent, _SHIFT, out=exponent)
        np.add(part, exponent.view(np.float32), out=part)
        np.subtract(part, exponent.view(np.float32), out=part)
        np.bitwise_or(bits, sign, out=bits)  # of what became zero
    return matrix


def widened(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Vectors as float32, which every float16 is; float32 is passed through as it is.

    Parameters
    ----------
    vectors : (n, n_dims) float32 or float16
        Finite. Float16 may lie in any order.

    Returns
    -------
    (n, n_dims) float32
        C order, where anything was to be done.
    """
    if vectors.dtype == np.float32:
        return vectors
    wide = np.empty(vectors.shape, np.float32)
    narrow = np.ascontiguousarray(vectors).reshape(-1).view(np.int16)
    flat = wide.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        part = flat[start : start + BLOCK]
        bits = part.view(np.int32)
        np.copyto(bits, narrow[start : start + BLOCK])  # the sign goes up, and fills what is above
        np.left_shift(bits, 13, out=bits)
        np.bitwise_and(bits, _WIDE, out=bits)
        np.multiply(part, _REBIAS, out=part)  # exact, also of those below the smallest normal
    return wide
