"""Vectors as bytes and as rows of a matrix.

``EDV1`` is 20 bytes, little-endian, and then the vector: magic (4), dtype u8 (0 = float32,
1 = float16), flags u8 (0), reserved u16 (0), dims u32, sequence u64.

A batch is read as a whole: one join, one view, one comparison of all headers. Only a batch that
fails is searched, record by record, and what is good in it takes the same way again; so one bad
record never touches its neighbours.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Reason, RecordError
from pipeline.messages.halves import round_to_half

HEADER = struct.Struct("<4sBBHIQ")
MAGIC = b"EDV1"
FLOAT32, FLOAT16 = 0, 1
_HEADER_WORDS = HEADER.size // 4
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


class Rows(NamedTuple):
    """What could be read of several values; ``positions`` says which those are."""

    positions: list[int]
    """Ascending."""
    matrix: NDArray[np.float32]  # (len(positions), n_dims), C order, ours, not yet judged
    sequences: list[int]
    errors: dict[int, RecordError]
    """By position, of the others."""


def encode_vector(vector: NDArray[np.float32], sequence: int = 0) -> bytes:
    """One vector as ``EDV1`` in float32."""
    row = np.ascontiguousarray(vector, dtype="<f4")
    return HEADER.pack(MAGIC, FLOAT32, 0, 0, row.size, sequence) + row.tobytes()


def decode_vector(value: bytes, n_dims: int) -> tuple[NDArray[np.float32], int]:
    """One ``EDV1`` value -> its vector (n_dims,), unchanged, and its sequence; or RecordError."""
    matrix, sequences = decode_vectors([value], n_dims)
    return matrix[0], sequences[0]


def decode_vectors(values: Sequence[bytes], n_dims: int) -> tuple[NDArray[np.float32], list[int]]:
    """``EDV1`` values that we wrote -> (n, n_dims) and their sequences, bit by bit as written.

    Nothing is normalised again: that could turn a last bit, and a stored vector is final.

    Raises
    ------
    RecordError
        The first value that is no such vector.
    """
    rows = read_native(values, n_dims)
    for error in rows.errors.values():
        raise error
    return rows.matrix, rows.sequences


def read_native(values: Sequence[bytes], n_dims: int) -> Rows:
    """Read ``EDV1`` values."""
    if not values:
        return Rows([], np.empty((0, n_dims), np.float32), [], {})
    whole = _read_uniform(values, n_dims)
    if whole is not None:
        return Rows(list(range(len(values))), *whole, {})

    errors: dict[int, RecordError] = {}
    positions: dict[int, list[int]] = {FLOAT32: [], FLOAT16: []}
    for position, value in enumerate(values):
        try:
            positions[_checked_dtype(value, n_dims)].append(position)
        except RecordError as error:
            errors[position] = error.kept()
    parts = []
    if positions[FLOAT32]:
        part = _read_uniform([values[i] for i in positions[FLOAT32]], n_dims)
        assert part is not None, "every header was checked"
        parts.append(Rows(positions[FLOAT32], *part, {}))
    if positions[FLOAT16]:
        parts.append(_read_halves(positions[FLOAT16], values, n_dims))
    return merge(parts, n_dims, errors)


def read_raw(values: Sequence[bytes], n_dims: int) -> Rows:
    """Read bare little-endian float32 values; they have no sequence."""
    row_bytes = 4 * n_dims
    positions = list(range(len(values)))
    errors: dict[int, RecordError] = {}
    if set(map(len, values)) - {row_bytes}:
        positions = []
        for position, value in enumerate(values):
            if len(value) == row_bytes:
                positions.append(position)
            elif len(value) % 4 or not value:
                message = f"{len(value)} bytes are no float32 vector"
                errors[position] = RecordError(Reason.DECODE, message)
            else:
                errors[position] = dimension_error(len(value) // 4, n_dims)
        values = [values[i] for i in positions]
    # a bytearray is writable and ours, so its view needs no copy
    joined = bytearray().join(values)
    matrix = np.frombuffer(joined, "<f4").reshape(-1, n_dims).astype(np.float32, copy=False)
    return Rows(positions, matrix, [0] * len(positions), errors)


def merge(parts: Sequence[Rows], n_dims: int, errors: dict[int, RecordError]) -> Rows:
    """Put rows that were read apart back into one order."""
    if len(parts) == 1 and not errors:
        return parts[0]
    positions: list[int] = []
    sequences: list[int] = []
    merged = dict(errors)
    for part in parts:
        positions += part.positions
        sequences += part.sequences
        merged |= part.errors
    order = np.argsort(np.array(positions, np.int64), kind="stable")
    matrices = [part.matrix for part in parts] or [np.empty((0, n_dims), np.float32)]
    return Rows(
        [positions[i] for i in order],
        np.concatenate(matrices)[order],
        [sequences[i] for i in order],
        merged,
    )


def dimension_error(got: int, expected: int) -> RecordError:
    """The sentence for a vector of another length."""
    return RecordError(Reason.DIMENSION, f"{got} dimensions, but expected {expected}")


def float32_row(numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round finite numbers to float32; RecordError where that has no such number."""
    worst = float(np.abs(numbers).max(initial=0.0))
    if worst > _LARGEST_FLOAT32:
        message = f"a component of magnitude {worst:.4g} does not fit into float32"
        raise RecordError(Reason.OUT_OF_RANGE, message)
    return numbers.astype(np.float32)


def stored_form(
    matrix: NDArray[np.float32], *, cosine: bool, largest: float, is_half: bool = False
) -> tuple[NDArray[np.float32], dict[int, RecordError]]:
    """Judge components and bring the vectors into the form they are stored in.

    Parameters
    ----------
    matrix : (n, n_dims) float32
        Owned by the callee from now on.
    cosine
        Normalise to unit length.
    largest
        The largest magnitude of a component, of the *stored* vector: under cosine, where it is 1,
        a unit vector never has a larger one, so a long vector is as good as a short one.
    is_half
        Round to float16 in the end. ``largest`` is at most 2**15 then, so nothing overflows.

    Returns
    -------
    (n, n_dims) float32
        Rows with an error hold anything.
    dict
        Row -> why the vector cannot be used.
    """
    if not len(matrix):
        return matrix, {}
    with np.errstate(all="ignore"):  # signalling NaNs raise flags on the way to their dead letter
        limit = _LARGEST_FLOAT32 if cosine else largest
        # NaN survives min and max and fails both comparisons
        usable = bool(matrix.min() >= -limit) and bool(matrix.max() <= limit)
        errors = {} if usable else _search(matrix, limit)
        if not cosine:
            return round_to_half(matrix) if is_half else matrix, errors
        unit, norms = unit_rows(matrix)
        if is_half:
            round_to_half(unit)
    for row in np.flatnonzero(norms == 0.0).tolist():
        message = "the zero vector has no direction, so no cosine distance"
        errors.setdefault(row, RecordError(Reason.ZERO_VECTOR, message))
    return unit, errors


def unit_rows(
    matrix: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Scale rows to unit length in float64, round to float32; also their lengths before, float64.

    A row's bits depend on the row alone: not on its neighbours, nor on the width of a processor's
    registers, as those of a library's reduction may. So the order of additions is written out: 32
    running sums, element i into sum ``i mod 32``, which then fold 16 + 16, ..., 1 + 1. (Squares
    of float32 are exact in float64.)
    """
    n_rows, n_dims = matrix.shape
    sums = np.zeros((n_rows, 32))
    for start in range(0, n_dims, 32):
        part = matrix[:, start : start + 32].astype(np.float64)
        part *= part
        sums[:, : part.shape[1]] += part
    width = 16
    while width:
        sums = sums[:, :width] + sums[:, width:]
        width //= 2
    norms = np.sqrt(sums[:, 0])
    divisors = np.where(norms == 0.0, 1.0, norms)
    unit = np.empty_like(matrix)
    np.divide(matrix, divisors[:, None], out=unit, dtype=np.float64, casting="same_kind")
    return unit, norms


def _search(matrix: NDArray[np.float32], limit: float) -> dict[int, RecordError]:
    """Row -> the first thing wrong with it: a component that is no number, or one too large."""
    errors = {}
    bad = ~(np.abs(matrix) <= limit)
    for row in np.flatnonzero(bad.any(axis=1)).tolist():
        values = matrix[row]
        unfit = np.flatnonzero(~np.isfinite(values))
        if unfit.size:
            at = int(unfit[0])
            message = f"component {at} is {values[at]}, but must be finite"
            errors[row] = RecordError(Reason.NOT_FINITE, message)
            continue
        at = int(np.abs(values).argmax())
        message = f"component {at} has magnitude {abs(values[at]):.4g}, above {limit:g}"
        errors[row] = RecordError(Reason.OUT_OF_RANGE, message)
    return errors


def _read_uniform(
    values: Sequence[bytes], n_dims: int
) -> tuple[NDArray[np.float32], list[int]] | None:
    """Matrix and sequences if all values are faultless float32, else None."""
    row_bytes = HEADER.size + 4 * n_dims
    if set(map(len, values)) != {row_bytes}:
        return None
    words = np.frombuffer(b"".join(values), "<u4").reshape(len(values), row_bytes // 4)
    expected = np.frombuffer(HEADER.pack(MAGIC, FLOAT32, 0, 0, n_dims, 0), "<u4")[:3]
    if (words[:, :3] != expected).any():
        return None
    sequences: list[int] = words[:, 3:_HEADER_WORDS].copy().view("<u8")[:, 0].tolist()
    # a copy always: the joined bytes are read-only, and rows shall be contiguous
    matrix = words[:, _HEADER_WORDS:].copy().view("<f4").astype(np.float32, copy=False)
    return matrix, sequences


def _read_halves(positions: list[int], values: Sequence[bytes], n_dims: int) -> Rows:
    """Values whose headers were checked, in float16."""
    joined = b"".join([values[i][HEADER.size :] for i in positions])
    with np.errstate(all="ignore"):
        matrix = np.frombuffer(joined, "<f2").reshape(-1, n_dims).astype(np.float32)
    sequences = [int.from_bytes(values[i][12:20], "little") for i in positions]
    return Rows(positions, matrix, sequences, {})


def _checked_dtype(value: bytes, n_dims: int) -> int:
    """The dtype of a faultless ``EDV1`` value; RecordError for any other."""
    if value[:4] != MAGIC:
        message = f"begins with {value[:4]!r}, but must begin with {MAGIC!r}"
        raise RecordError(Reason.DECODE, message)
    if len(value) < HEADER.size:
        message = f"{len(value)} bytes, but the header alone has {HEADER.size}"
        raise RecordError(Reason.DECODE, message)
    _, dtype, flags, reserved, dims, _ = HEADER.unpack_from(value)
    if dtype not in (FLOAT32, FLOAT16):
        message = f"dtype is {dtype}, but must be 0 (float32) or 1 (float16)"
        raise RecordError(Reason.DECODE, message)
    if flags or reserved:
        message = f"flags are {flags} and reserved is {reserved}, but both must be 0"
        raise RecordError(Reason.DECODE, message)
    expected = HEADER.size + dims * (4 if dtype == FLOAT32 else 2)
    if len(value) != expected:
        message = f"{len(value)} bytes, but a header that names {dims} dimensions makes {expected}"
        raise RecordError(Reason.DECODE, message)
    if dims != n_dims:
        raise dimension_error(dims, n_dims)
    return int(dtype)
