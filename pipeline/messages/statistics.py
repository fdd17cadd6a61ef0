"""What a partition's members of one cluster add up to, as bytes.

``EDS1`` is 64 bytes, little-endian, and then the sums: magic (4), dims u32, epoch u64, count,
high and low word of the squares, landed (i64 each), distance and squared distance (f64 each).
Where weights fade, the sum of the weights stands behind the sums as one more i64, and that is
what tells the units of all of them.
"""

from __future__ import annotations

import struct

import numpy as np

from pipeline.errors import Reason, RecordError
from pipeline.messages.events import StatisticsRow

_HEADER = struct.Struct("<4sIQqqqqdd")
_WEIGHT = struct.Struct("<q")
_MAGIC = b"EDS1"


def statistics_key(partition: int, cluster_id: str) -> bytes:
    """The key of a cluster's statistics in one partition."""
    return f"{partition}/{cluster_id}".encode()


def head_key(partition: int) -> bytes:
    """The key of a partition's head."""
    return str(partition).encode()


def encode_statistics(row: StatisticsRow) -> bytes:
    """``EDS1``."""
    sums = np.ascontiguousarray(row.sums, dtype="<i8")
    header = _HEADER.pack(
        _MAGIC, sums.size, row.epoch, row.count, row.square_high, row.square_low,
        row.landed, row.distance, row.distance_squared,
    )  # fmt: skip
    return header + sums.tobytes() + (b"" if row.weight is None else _WEIGHT.pack(row.weight))


def decode_statistics(value: bytes) -> StatisticsRow:
    """The counterpart of `encode_statistics`; the sums are the caller's."""
    if len(value) < _HEADER.size or value[:4] != _MAGIC:
        raise RecordError(Reason.DECODE, f"{len(value)} bytes are no {_MAGIC!r}")
    header = _HEADER.unpack_from(value)
    n_dims, (epoch, count, high, low, landed, distance, squared) = header[1], header[2:]
    end = _HEADER.size + 8 * n_dims
    if len(value) not in (end, end + _WEIGHT.size):
        message = f"{len(value)} bytes, but {n_dims} sums make {end}, or 8 more with a weight"
        raise RecordError(Reason.DECODE, message)
    sums = np.frombuffer(value, "<i8", n_dims, offset=_HEADER.size).astype(np.int64)
    weight = None if len(value) == end else _WEIGHT.unpack_from(value, end)[0]
    return StatisticsRow(epoch, count, high, low, landed, distance, squared, sums, weight)
