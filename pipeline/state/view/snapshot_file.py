"""The server's view as a file: named arrays and JSON, each with its checksum.

    header   magic, format version, length, JSON, CRC-32
    part     tag, lengths   JSON (name, dtype, shape), CRC-32   bytes, CRC-32
    ...
    footer   tag, parts, size of the file, checksum of all checksums, CRC-32

Like a partition's snapshot (`pipeline.state.snapshot`): little-endian, nothing is pickled, a length
is compared with the size of the file before anything of it is allocated, files are read and not
mapped, and a new one takes the place of the old one only once it is on disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, Final
from zlib import crc32

import numpy as np

from pipeline.messages.codec import json_bytes
from pipeline.state.snapshot_bytes import (
    CRC,
    CheckedFile,
    SnapshotError,
    check_sum,
    parse,
    read_checked,
    read_exactly,
)

VERSION: Final = 1
"""Another one also where the same records are folded into something else."""
MAGIC: Final = b"EDDYVIEW"

_HEADER: Final = Struct("<8sII")  #  magic, version, bytes of JSON
_PART: Final = Struct("<4sIQ")  #    tag, bytes of JSON, bytes of the body
_FOOTER: Final = Struct("<4sIQQ")  # tag, checksum of all checksums, parts, size
_PART_TAG: Final = b"PART"
_END_TAG: Final = b"DONE"
_KINDS: Final = "iufb"
"""Of numpy's dtypes: whole numbers, fractions, truths; never objects."""

Part = Any
"""An array of numbers, a list of bytes, or what JSON can hold."""


class ViewWriter:
    """Writes beside the file that is there, and takes its place at the end.

    Parameters
    ----------
    header
        What JSON can hold; `open_view` gives it back.
    suffix
        Of the unfinished file's name: nobody else may write one with it.

    Raises
    ------
    OSError
        From every method. `abandon` it then.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], *, suffix: str = "tmp") -> None:
        self._n_parts = 0
        self._file = CheckedFile(path, suffix)
        text = json_bytes(header)
        self._file.write(_HEADER.pack(MAGIC, VERSION, len(text)), text)

    def add(self, name: str, part: Part) -> None:
        """Write a part; there may be several of one name, which are told in this order."""
        dtype, shape = None, None
        body: list[Any] = []
        match part:
            case np.ndarray():
                array = np.ascontiguousarray(part)
                array = array.astype(array.dtype.newbyteorder("<"), copy=False)
                dtype, shape = array.dtype.str, list(part.shape)
                body = [array.reshape(-1).view(np.uint8).data]
            case [bytes(), *_]:
                dtype, shape = "bytes", [len(part)]
                lengths = np.fromiter(map(len, part), "<i8", len(part))
                body = [lengths.view(np.uint8).data, b"".join(part)]
            case _:
                body = [json_bytes(part)]
        text = json_bytes({"name": name, "dtype": dtype, "shape": shape})
        n_bytes = sum(len(piece) for piece in body)
        self._file.write(_PART.pack(_PART_TAG, len(text), n_bytes), text)
        self._file.write(*body)
        self._n_parts += 1

    def finish(self) -> int:
        """Make it the snapshot, for good once this returns; how many bytes it has."""
        size = self._file.size_after(_FOOTER.size)
        self._file.write(_FOOTER.pack(_END_TAG, self._file.checksum, self._n_parts, size))
        self._file.finish()
        return size

    def abandon(self) -> None:
        """Leave nothing of it behind; the snapshot that was there stays."""
        self._file.abandon()


class ViewFile:
    """A snapshot whose header and footer are good; `open_view` makes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb", buffering=0) as file:
                self._look(file)
        except OSError as error:
            raise _unreadable(path, error) from error

    header: Mapping[str, Any]
    n_bytes: int

    def parts(self) -> Iterator[tuple[str, Part]]:
        """All parts by name, each verified before it is handed out.

        Raises
        ------
        SnapshotError
            Also after some parts: those are then not to be used.
        """
        try:
            with self._path.open("rb", buffering=0) as file:
                yield from self._read(file)
        except OSError as error:
            raise _unreadable(self._path, error) from error

    def _look(self, file: BinaryIO) -> None:
        size, last = os.fstat(file.fileno()).st_size, _FOOTER.size + CRC.size
        if size < _HEADER.size + CRC.size + last:
            raise SnapshotError(f"it has {size} bytes, which is too short for a snapshot")
        start = read_exactly(file, _HEADER.size)
        magic, version, n_header = _HEADER.unpack(start)
        if magic != MAGIC:
            raise SnapshotError("it does not begin as a view does")
        if version != VERSION:
            raise SnapshotError(f"it is of format version {version}, and this is {VERSION}")
        self._first = _HEADER.size + n_header + CRC.size
        if self._first + last > size:
            raise SnapshotError(f"its header is to have {n_header} bytes, but it has {size}")
        text = read_exactly(file, n_header)
        check_sum(read_exactly(file, CRC.size), crc32(text, crc32(start)), "the header")
        file.seek(size - last)
        footer, _ = read_checked(file, _FOOTER.size, size)
        tag, self._checksum, self._n_parts, n_bytes = _FOOTER.unpack(footer)
        if tag != _END_TAG or n_bytes != size:
            raise SnapshotError("it does not end as it should: it was cut off, or added to")
        header = parse(text)
        if not isinstance(header, dict):
            raise SnapshotError("its header does not say what it should")
        self.header, self.n_bytes = header, size

    def _read(self, file: BinaryIO) -> Iterator[tuple[str, Part]]:
        end = self.n_bytes - _FOOTER.size - CRC.size
        if os.fstat(file.fileno()).st_size != self.n_bytes:
            raise SnapshotError("the file was changed while it was read")
        at, n_parts = self._first, 0
        checksum = crc32(read_exactly(file, self._first)[-CRC.size :])
        while at < end:
            head = read_exactly(file, min(_PART.size, end - at))
            if len(head) < _PART.size:
                raise SnapshotError(f"what stands at byte {at} is no part")
            tag, n_text, n_body = _PART.unpack(head)
            n_bytes = _PART.size + n_text + n_body + 2 * CRC.size
            if tag != _PART_TAG or at + n_bytes > end:
                raise SnapshotError(f"what stands at byte {at} is no part")
            text = read_exactly(file, n_text)
            crc = read_exactly(file, CRC.size)
            check_sum(crc, crc32(text, crc32(head)), "a part")
            body, body_crc = read_checked(file, n_body, end - at)
            checksum = crc32(body_crc, crc32(crc, checksum))
            at, n_parts = at + n_bytes, n_parts + 1
            yield _decoded(parse(text), body)
        if (n_parts, checksum) != (self._n_parts, self._checksum):
            raise SnapshotError("the parts are not those that the footer counts")


def open_view(path: Path) -> ViewFile:
    """Look at a view's header and footer; its parts are verified as they are read.

    Raises
    ------
    SnapshotError
        It cannot be read, was cut off or damaged, or has another version.
    """
    return ViewFile(path)


def _decoded(told: Any, body: bytes) -> tuple[str, Part]:
    try:
        name, dtype, shape = told["name"], told["dtype"], told["shape"]
        if dtype is None:
            return name, parse(body)
        if dtype == "bytes":
            return name, _split(body, shape[0])
        kind = np.dtype(dtype)
        if kind.kind not in _KINDS or prod(shape) * kind.itemsize != len(body):
            raise SnapshotError(f"{name} in it is not as long as it says")
        return name, np.frombuffer(body, kind).reshape(shape)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SnapshotError(f"a part of it does not say what it is: {error}") from error


def _split(body: bytes, n: int) -> list[bytes]:
    lengths = np.frombuffer(body, "<i8", n)
    ends = (8 * n + np.cumsum(lengths)).tolist()
    if (lengths < 0).any() or (ends[-1] if ends else 0) != len(body):
        raise SnapshotError("a list in it is not as long as it says")
    whole = bytes(body)
    return [whole[a:b] for a, b in zip([8 * n, *ends[:-1]], ends, strict=True)]


def _unreadable(path: Path, error: OSError) -> SnapshotError:
    return SnapshotError(f"{path} cannot be read: {error.strerror or error}")
