"""Bytes <-> what a target takes: records with headers, texts; any bytes at all are some.

A blob is a length, u16 little-endian, and so many bytes, or as many as are left. So what a fuzzer
cuts and pastes stays a frame, and golden files can be written as one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from pipeline.messages.records import Headers, Record

NAMES = (
    "content-type",
    "embedding-model",
    "eddy-metadata",
    "eddy-timestamp",
    "eddy-offset",
    "traceparent",
)
MAX_RECORDS, MAX_HEADERS = 6, 4
_NULL = 0xFFFF


class Frame:
    """Hands out the parts of some bytes; at their end, empty ones."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def byte(self) -> int:
        return (self._take(1) or b"\0")[0]

    def rest(self) -> bytes:
        return self._take(len(self._data))

    def blob(self) -> bytes | None:
        length = int.from_bytes(self._take(2), "little")
        return None if length == _NULL else self._take(length)

    def text(self) -> str:
        return (self.blob() or b"").decode("utf-8", "replace")

    def records(self) -> list[Record]:
        n = self.byte() % (MAX_RECORDS + 1)
        return [self.record(offset) for offset in range(n)]

    def record(self, offset: int = 0) -> Record:
        key, value = self.blob(), self.blob()
        n_headers = self.byte() % (MAX_HEADERS + 1)
        headers = tuple((self._name(), self.blob()) for _ in range(n_headers))
        return Record(0, offset, key, value, None, headers)

    def _name(self) -> str:
        number = self.byte()
        return NAMES[number] if number < len(NAMES) else f"x-{number}"

    def _take(self, n: int) -> bytes:
        taken = self._data[self._at : self._at + n]
        self._at += len(taken)
        return taken


def blob(value: bytes | None) -> bytes:
    """The bytes of which a frame hands this out."""
    if value is None:
        return struct.pack("<H", _NULL)
    return struct.pack("<H", len(value)) + value


def record_frame(record: Record) -> bytes:
    """The counterpart of `Frame.record`."""
    known: Headers = tuple(pair for pair in record.headers if pair[0] in NAMES)[:MAX_HEADERS]
    headers = b"".join(bytes([NAMES.index(name)]) + blob(value) for name, value in known)
    return blob(record.key) + blob(record.value) + bytes([len(known)]) + headers


def records_frame(records: Iterable[Record]) -> bytes:
    """The counterpart of `Frame.records`."""
    chosen = list(records)[-MAX_RECORDS:]
    return bytes([len(chosen)]) + b"".join(map(record_frame, chosen))
