"""Bytes of a snapshot: written whole or not at all; lengths before memory, checksums before use."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, Final, cast
from zlib import crc32

from pipeline.errors import PipelineError, RecordError
from pipeline.messages.codec import json_value

CRC: Final = Struct("<I")


class SnapshotError(PipelineError):
    """A snapshot cannot be used, or not be written; the topics still have everything."""


class CheckedFile:
    """Is written beside the file that is there, and takes its place at the end.

    Parameters
    ----------
    suffix
        Of the unfinished file's name: nobody else may write one with it.

    Attributes
    ----------
    checksum
        Of the checksums of all that was written.

    Raises
    ------
    OSError
        From every method. `abandon` it then.
    """

    def __init__(self, path: Path, suffix: str) -> None:
        self.path, self.checksum = path, 0
        self._unfinished = path.with_name(f"{path.name}.{suffix}")
        self._file: BinaryIO = self._unfinished.open("wb")

    def write(self, *pieces: Any) -> None:
        """Write pieces, and behind them the checksum of all of them."""
        checksum = 0
        for piece in pieces:
            self._file.write(piece)
            checksum = crc32(piece, checksum)
        last = CRC.pack(checksum)
        self._file.write(last)
        self.checksum = crc32(last, self.checksum)

    def size_after(self, n_bytes: int) -> int:
        """Bytes that the file has once so many more, and their checksum, are written."""
        return self._file.tell() + n_bytes + CRC.size

    def finish(self) -> None:
        """It has the other's place, for good once this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._unfinished.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else the old name may come back with a power cut
        finally:
            os.close(folder)

    def abandon(self) -> None:
        """Leave nothing of it behind; the file that was there stays."""
        with suppress(OSError):  # what is buffered may not fit, which is why it is abandoned
            self._file.close()
        self._unfinished.unlink(missing_ok=True)


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
