"""Centroids in low precision, laid out for wide products, and what that rounding can do.

Rows of records are operands row by row, filled with zeros to 64 bytes. Centroids are *panels* of
up to 64: for every group of 4 bytes of the dimensions up to 4 vectors of 16 lanes, a lane for each
centroid. One step of a product takes a group: 4 dimensions of int8, or 2 of bfloat16. Centroids
of int8 are stored without a sign, 128 above what they are, because the instruction multiplies
unsigned with signed; the sum of a record then starts at -128 times the sum of its components.

The bound
---------
With ``z = x - m`` and ``w = c - m`` as in `pipeline.kernels.bounds`, a hat for the operands, which
are exact real numbers (an integer times a scale, or a bfloat16), and D = |z|² + s_k,

    s_k = |w_k|² - 2 z·w_k,    |z·w_k - ẑ·ŵ_k| <= |z - ẑ| |w_k| + |ẑ| |w_k - ŵ_k|.

An int8 product is exact in int32 for n_dims <= 2**17: its sum is below 127² 2**17 < 2**31, and what
wraps around on the way comes back. That of bfloat16 adds ``γ |ẑ| |ŵ_k|``, γ = 2du / (1 - 2du): each
product is exact, each addition may truncate, 2**-23. Then the score is made in float32 from
the raw product by at most 6 roundings, the lowering included, of values that are not above

    V_k = |w_k|² + (6 |ẑ| + 2 |z - ẑ|) |w_k| + 2 |ẑ_⊥| |v_k|,

since no residual is longer than what was rounded; 8u V_k is taken away. So with

    floor_k = |w_k|² (1 - 8u) - `TILT`,    score_k = floor_k - 2 ẑ·ŵ_k,
    L_k = score_k - a reach_k - b error_k - c tail_k,
    a = 2 |z - ẑ| + 2γ |ẑ| + 8u (6 |ẑ| + 2 |z - ẑ|),    b = 2 |ẑ| (1 + γ),    c = 2 |ẑ_⊥| (1 + 8u)

and reach_k = |w_k|, error_k = |w_k - ŵ_k|, tail_k = 0, L_k is below s_k. TILT is what can be lost
below the normal float32 numbers, for lengths that `is_packable` allows.

The prefix
----------
Let G (r, d) be any matrix of operands; its rows nearly are orthonormal. The part of w_k that its
rows can express is ``Gᵀu_k``, ``u_k = (GGᵀ)⁻¹ G w_k``, and the rest, v_k, is orthogonal to them. So

    ẑ·w_k = y·u_k + ẑ_⊥·v_k,    y = Gẑ,    |ẑ_⊥|² = |ẑ|² - yᵀ(GGᵀ)⁻¹y <= |ẑ|² - |y|² / λ,

λ the largest eigenvalue of GGᵀ: the rounding of G costs nothing, as it is another basis, and
nothing else. y is rounded to operands once more, and the bound above holds with y and u_k in
place of z and w_k and with three things added: ``|z - ẑ| |w_k|``, ``|ẑ_⊥| |v_k|``, and what v_k
still has in the rows of G, a relative LEAK, as u_k is a float64.

What a prefix of int8 leaves, a few centroids in a hundred, is looked at again with all dimensions,
in int8 as well, by the bound without a prefix: a product of 16 instructions at n_dims = 1024, where
a canonical distance takes 600 and a line of memory for each 16 of its components.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.bounds import UNIT
from pipeline.kernels.contract import Points

ROW_ALIGN = 64  # bytes of a row of operands
PANEL = 64  # centroids
LANES = 16
MAX_DIMS = 2**17
TILT = 2.0**-100
LEAK = 2.0**-30
BLOCK = 2**20  # float64 components that are packed at once
MIN_LENGTH, MAX_LENGTH = 2.0**-30, 2.0**40  # of the longest centroid

Words = NDArray[np.uint32]
Doubles = NDArray[np.float64]


class Int8Panels(NamedTuple):
    """Centroids for ``vpdpbusd``."""

    words: Words  # (n_vectors * n_groups * 16,)


class Bf16Panels(NamedTuple):
    """Centroids for ``vdpbf16ps``."""

    words: Words


Panels = Int8Panels | Bf16Panels
"""Another product for the same operands has a class of its own below one of these."""


class AmxInt8Panels(Int8Panels):
    """Centroids for ``tdpbsud``."""

    __slots__ = ()


class AmxBf16Panels(Bf16Panels):
    """Centroids for ``tdpbf16ps``."""

    __slots__ = ()


class Packed(NamedTuple):
    """What belongs to panels."""

    centroids: Points  # (n_clusters, n_dims): c, as given
    middle: NDArray[np.float32]  # (n_padded_dims,): m, then zeros
    tables: NDArray[np.float32]
    """(5, n_padded): floors, -2 times the scales of the operands, reaches, errors, tails."""
    row_bytes: int  # of a row of operands of z
    n_groups: int  # of 4 bytes of a row that meets the panels
    rotation: Words  # panels of the rows of G; empty without a prefix
    rotation_scales: NDArray[np.float32]  # (r,): of the rows of G
    n_rotated: int  # r; 0 without a prefix
    gamma: float  # of the product with the panels
    rotation_gamma: float  # of that with ``rotation``, times the Frobenius norm of G
    stretch: float  # λ, rounded up
    rows: NDArray[np.uint8]
    """(n_clusters, n_padded_dims) behind a prefix of int8: operands of w, stored as in panels, for
    those centroids that the prefix leaves; else (0, 0)."""
    row_tables: NDArray[np.float32]
    """(4, len(rows)): floors, -2 times the scales, reaches and errors of ``rows``."""


def is_int8(panels: Any) -> bool:
    """Whether a compiled function's argument of this type holds int8 operands."""
    return issubclass(panels.instance_class, Int8Panels)


def is_packable(centroids: Points) -> bool:
    """Whether nothing overflows, and underflow costs no more than `TILT`."""
    if centroids.shape[1] > MAX_DIMS:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        centred = centroids - centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
        longest = float(np.sqrt(np.einsum("ij,ij->i", centred, centred).max()))
    return MIN_LENGTH <= longest <= MAX_LENGTH


def pack(
    centroids: Points, kind: type[Panels], basis: NDArray[np.float32] | None = None
) -> tuple[Panels, Packed] | None:
    """Prepare centroids (n_clusters, n_dims) that are packable; they are kept, not copied.

    The panels are of w, or behind a prefix of u.

    Parameters
    ----------
    kind
        The class of the panels.
    basis : (r, n_dims) float32
        Rows that nearly are orthonormal, r a multiple of 64: makes it a prefix. None comes back
        where they are too far from it to prove anything.
    """
    n_clusters, n_dims = centroids.shape
    n_padded_dims = _padded(n_dims, PANEL)
    n_bytes = 1 if issubclass(kind, Int8Panels) else 2
    middle = np.zeros(n_padded_dims, np.float32)
    middle[:n_dims] = centroids.mean(axis=0, dtype=np.float64)
    turn = None if basis is None else _turn(basis, n_padded_dims, kind)
    if turn is not None and not turn.is_sound:
        return None
    n_inner = n_padded_dims if turn is None else len(turn.scales)
    words = _aligned((_padded(n_clusters, LANES) * n_inner * n_bytes // 4,)).view(np.uint32)
    tables = _aligned((5, _padded(n_clusters, LANES)))
    tables[0] = np.inf
    n_rows = n_clusters if turn is not None and n_bytes == 1 else 0
    kept = _aligned((n_rows * n_padded_dims // 4,)).view(np.uint8)
    kept = kept.reshape(n_rows, n_padded_dims if n_rows else 0)
    row_tables = np.empty((4, n_rows), np.float32)
    block = max(PANEL, BLOCK // n_padded_dims // PANEL * PANEL)
    for first in range(0, n_clusters, block):
        rows = centroids[first : first + block]
        wide = np.zeros((len(rows), n_padded_dims))
        np.subtract(rows, middle[:n_dims], out=wide[:, :n_dims], dtype=np.float64)
        squares = np.einsum("ij,ij->i", wide, wide)
        reaches, tails, operands = np.sqrt(squares), np.zeros(len(rows)), wide
        columns = slice(first, first + len(rows))
        floors = _down(squares * (1.0 - 8.0 * UNIT) - TILT)
        if n_rows:
            kept[columns], rounded, scales = _stored(wide, kind)
            row_tables[0, columns], row_tables[1, columns] = floors, -2.0 * scales
            row_tables[2, columns] = _up(reaches * (1.0 + 2.0**-40))
            row_tables[3, columns] = _up(np.linalg.norm(wide - rounded, axis=1) * (1.0 + 2.0**-40))
        if turn is not None:
            operands, rest, leaks = turn.parts(wide)
            if not (leaks <= LEAK / 8.0 * reaches).all():
                return None
            tails = rest + 2.0**-36 * reaches
            reaches = np.maximum(reaches, np.linalg.norm(operands, axis=1))
        laid, rounded, scales = _panels(operands, kind)
        start = first * n_inner * n_bytes // 4
        words[start : start + len(laid)] = laid
        errors = np.linalg.norm(operands - rounded, axis=1)
        tables[0, columns] = floors
        tables[1, columns] = -2.0 * scales
        for table, values in zip(tables[2:], (reaches, errors, tails), strict=True):
            table[columns] = _up(values * (1.0 + 2.0**-40))
    packed = Packed(
        centroids=centroids,
        middle=middle,
        tables=tables,
        row_bytes=n_padded_dims * n_bytes,
        n_groups=n_inner * n_bytes // 4,
        rotation=np.zeros(0, np.uint32) if turn is None else turn.words,
        rotation_scales=np.zeros(0, np.float32) if turn is None else turn.scales,
        n_rotated=0 if turn is None else n_inner,
        gamma=_gamma(kind, n_inner),
        rotation_gamma=0.0 if turn is None else turn.gamma,
        stretch=1.0 if turn is None else turn.stretch,
        rows=kept,
        row_tables=row_tables,
    )
    return kind(words), packed


class _Turn(NamedTuple):
    """G, and what it makes of centroids."""

    words: Words  # its panels
    scales: NDArray[np.float32]  # (n_rotated,)
    rows: Doubles  # (r, n_padded_dims): G
    gram: Doubles  # (r, r): GGᵀ
    gamma: float
    stretch: float
    is_sound: bool

    def parts(self, wide: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """u (n, n_rotated) of some w, |v|, and how long what v has in the rows of G may be."""
        products = wide @ self.rows.T
        parts = np.zeros((len(wide), len(self.scales)))
        inner = parts[:, : len(self.rows)]
        inner[:] = np.linalg.solve(self.gram, products.T).T
        leaks = np.linalg.norm(products - inner @ self.gram, axis=1)
        return parts, np.linalg.norm(wide - inner @ self.rows, axis=1), leaks


def _turn(basis: NDArray[np.float32], n_padded_dims: int, kind: type[Panels]) -> _Turn:
    padded = np.zeros((_padded(len(basis), PANEL), n_padded_dims))
    padded[: len(basis), : basis.shape[1]] = basis
    words, rounded, scales = _panels(padded, kind)
    rows = rounded[: len(basis)]
    gram = rows @ rows.T
    values = np.linalg.eigvalsh(gram)
    return _Turn(
        words=words,
        scales=scales.astype(np.float32),
        rows=rows,
        gram=gram,
        gamma=_gamma(kind, n_padded_dims) * float(np.linalg.norm(rows)) * 1.001,
        stretch=float(values[-1]) * (1.0 + 2.0**-30),
        is_sound=bool(values[0] > 0.5 and values[-1] < 2.0),
    )


def _gamma(kind: type[Panels], n_dims: int) -> float:
    if issubclass(kind, Int8Panels):
        return 0.0
    most = 2.0 * n_dims * UNIT
    return 1.001 * most / (1.0 - most)


def _panels(rows: Doubles, kind: type[Panels]) -> tuple[Words, Doubles, Doubles]:
    """Rows (n, n_padded_dims) as panels, what they are after rounding, and their scales (n,)."""
    n, n_dims = rows.shape
    padded = np.zeros((_padded(n, LANES), n_dims))
    padded[:n] = rows
    stored, rounded, scales = _stored(padded, kind)
    groups = stored.view(np.uint32)
    n_groups = groups.shape[1]
    words = _aligned((groups.size,)).view(np.uint32)
    for first in range(0, len(padded), PANEL):
        part = groups[first : first + PANEL]
        lanes = part.reshape(-1, LANES, n_groups).transpose(2, 0, 1)
        words[first * n_groups : first * n_groups + part.size] = lanes.ravel()
    return words, rounded[:n], scales[:n]


def _stored(rows: Doubles, kind: type[Panels]) -> tuple[NDArray[Any], Doubles, Doubles]:
    """Operands of rows, what they are after rounding, and their scales."""
    if issubclass(kind, Int8Panels):
        largest = np.maximum(np.abs(rows).max(axis=1), 2.0**-60)
        scales = (largest / 127.0).astype(np.float32).astype(np.float64)
        whole = np.rint(rows / scales[:, None]).clip(-127.0, 127.0)
        return (whole + 128.0).astype(np.uint8), whole * scales[:, None], scales
    stored = _bf16(rows.astype(np.float32))
    rounded = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return stored, rounded, np.ones(len(rows))


def _bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest, ties to even; what the instruction would read as zero is zero."""
    values = np.where(np.abs(values) < 2.0**-126, np.float32(0.0), values)
    bits = values.view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits >> np.uint32(16)).astype(np.uint16)


def _padded(n: int, step: int) -> int:
    return -(-n // step) * step


def _aligned(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Zeros that begin where a register's line of the cache does."""
    n_bytes = 4 * int(np.prod(shape))
    room = np.zeros(n_bytes + ROW_ALIGN, np.uint8)
    start = -room.ctypes.data % ROW_ALIGN
    return room[start : start + n_bytes].view(np.float32).reshape(shape)


def _down(values: Doubles) -> NDArray[np.float32]:
    return np.nextafter(values.astype(np.float32), np.float32(-np.inf))


def _up(values: Doubles) -> NDArray[np.float32]:
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))
