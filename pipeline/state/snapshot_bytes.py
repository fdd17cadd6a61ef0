"""Bytes of a snapshot that are read with care: lengths before memory, checksums before use."""

from __future__ import annotations

from struct import Struct
from typing import Any, BinaryIO, Final, cast
from zlib import crc32

from pipeline.errors import PipelineError, RecordError
from pipeline.messages.codec import json_value

CRC: Final = Struct("<I")


class SnapshotError(PipelineError):
    """A snapshot cannot be used, or not be written; the topics still have everything."""


def parse(text: bytes) -> Any:
    try:
        return json_value(text)
    except (RecordError, ValueError) as error:
        raise SnapshotError(f"what should be JSON in it is not: {error}") from error


def is_offset(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(x, str) for x in value)


def is_entry(value: object, n_rows: int) -> bool:
    match value:
        case [int(position), dict()]:
            return 0 <= position < n_rows
    return False


def read_checked(file: BinaryIO, n_bytes: int, n_left: int) -> tuple[bytes, bytes]:
    """So many bytes, which their checksum follows, and that."""
    if n_bytes + CRC.size > n_left:
        raise SnapshotError(f"a part of it is to have {n_bytes} bytes, but {n_left} are left")
    body = read_exactly(file, n_bytes)
    crc = read_exactly(file, CRC.size)
    check_sum(crc, crc32(body), "a part")
    return body, crc


def read_exactly(file: BinaryIO, n_bytes: int) -> bytes:
    body = bytearray(n_bytes)
    view, n_read = memoryview(body), 0
    while n_read < n_bytes:
        n = cast("Any", file).readinto(view[n_read:])
        if not n:
            raise SnapshotError("it ends before it should")
        n_read += n
    return cast("bytes", body)


def check_sum(told: bytes, found: int, what: str) -> None:
    if CRC.unpack(told)[0] != found:
        raise SnapshotError(f"the checksum of {what} of it is wrong: it was damaged")
