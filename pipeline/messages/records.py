"""What comes in: a record as the log holds it, and where it stood."""

from __future__ import annotations

from typing import NamedTuple

Headers = tuple[tuple[str, bytes | None], ...]


class Record(NamedTuple):
    """One record of a topic, untouched; a tombstone has no value."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None = None
    headers: Headers = ()


class Outgoing(NamedTuple):
    """One record to be written; ``topic`` is its full name.

    The partition is always explicit, so partitioners never matter.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None
