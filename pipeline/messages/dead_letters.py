"""A record that cannot be used, kept with the reason, so that it can be mended and sent again.

Key, value and headers stay as they were; ``eddy.errors.*`` headers, all UTF-8 text, say where the
record stood and what is wrong with it. What could make the dead letter larger than its topic
takes, 64 KiB above the limit, is left out, and its length told instead: a value that is too large,
a key above 512 bytes, headers above 32 KiB.

`read_letter` is the counterpart. Anybody may write to a topic, so it trusts nothing that it reads.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.errors import Reason, RecordError
from pipeline.messages.policy import MAX_KEY_BYTES
from pipeline.messages.records import Headers, Outgoing, Record

PREFIX = "eddy.errors."
MAX_MESSAGE_BYTES = 1024
MAX_HEADER_BYTES = 32 * 1024
REDRIVEN = "eddy-redriven"
"""The header of a record that came back: topic, partition and offset of its dead letter."""
_PARTS = ("key", "value", "headers")
_MAX_DIGITS = 19  # of an int64


def dead_letter(record: Record, *, topic: str, to: str, error: RecordError, stage: str) -> Outgoing:
    """What goes to the topic of dead letters.

    Parameters
    ----------
    topic, to
        The full names of the input and of the topic of its dead letters.
    stage
        Where it was found: ``decode``, or ``assign``.
    """
    told = {
        "topic": topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "stage": stage,
        "exception.class.name": error.reason.value,
        "exception.message": _cut(str(error)),
    }
    if record.timestamp_ms is not None:
        told["timestamp"] = str(record.timestamp_ms)
    key, value = record.key, record.value
    # those of an earlier time, if it comes again from here, would only grow
    kept: Headers = tuple(pair for pair in record.headers if not pair[0].startswith(PREFIX))
    if error.reason is Reason.TOO_LARGE and value is not None:
        told["value.bytes"] = str(len(value))
        value = None
    if key is not None and len(key) > MAX_KEY_BYTES:
        told["key.bytes"] = str(len(key))
        key = None
    header_bytes = sum(len(name.encode()) + len(text or b"") for name, text in kept)
    if header_bytes > MAX_HEADER_BYTES:
        told["headers.bytes"] = str(header_bytes)
        kept = ()
    headers = tuple((PREFIX + name, text.encode("utf-8", "replace")) for name, text in told.items())
    return Outgoing(to, record.partition, key, value, kept + headers)


class Letter(NamedTuple):
    """A dead letter, read back: what it tells of itself, None where it does not."""

    partition: int
    offset: int
    """Where the letter stands."""
    reason: str | None
    message: str | None
    stage: str | None
    source_topic: str | None
    source_partition: int | None
    source_offset: int | None
    """Where the record stood."""
    timestamp_ms: int | None
    """Of the record, as its producer gave it."""
    written_at_ms: int | None
    left_out: dict[str, int]
    """What the letter does not hold, of key, value and headers, and how many bytes it had."""
    headers: Headers
    """The record's own."""

    @property
    def place(self) -> str:
        """As commands take it: 3:17."""
        return f"{self.partition}:{self.offset}"


def read_letter(record: Record) -> Letter:
    """What a record of the topic of dead letters says; never raises, whoever wrote it."""
    told = {
        name[len(PREFIX) :]: (text or b"").decode("utf-8", "backslashreplace")
        for name, text in record.headers
        if name.startswith(PREFIX)
    }
    lengths = {part: _number(told.get(f"{part}.bytes")) for part in _PARTS}
    return Letter(
        partition=record.partition,
        offset=record.offset,
        reason=told.get("exception.class.name"),
        message=told.get("exception.message"),
        stage=told.get("stage"),
        source_topic=told.get("topic"),
        source_partition=_number(told.get("partition")),
        source_offset=_number(told.get("offset")),
        timestamp_ms=_number(told.get("timestamp")),
        written_at_ms=record.timestamp_ms,
        left_out={part: n for part, n in lengths.items() if n is not None},
        headers=tuple(pair for pair in record.headers if not pair[0].startswith(PREFIX)),
    )


def redriven_place(record: Record) -> str | None:
    """The dead letter that an input record came back from, as its header says it; None: none."""
    for name, text in reversed(record.headers):
        if name == REDRIVEN:
            return (text or b"").decode("utf-8", "backslashreplace")
    return None


def redriven(record: Record, letter: Letter, *, dead_letters: str) -> Outgoing:
    """The record of a letter, as it goes back to its partition of the input.

    ``record`` is the letter as the topic holds it; the letter must say where it comes from.
    """
    assert letter.source_topic is not None and letter.source_partition is not None
    own = tuple(pair for pair in letter.headers if pair[0] != REDRIVEN)
    came_from = f"{dead_letters}/{letter.partition}/{letter.offset}".encode()
    return Outgoing(
        letter.source_topic,
        letter.source_partition,
        record.key,
        record.value,
        (*own, (REDRIVEN, came_from)),
    )


def _number(text: str | None) -> int | None:
    """A count or an offset; None for anything else."""
    if text is None or not (text.isascii() and text.removeprefix("-").isdigit()):
        return None
    return int(text) if len(text) <= _MAX_DIGITS + 1 else None


def _cut(message: str) -> str:
    return message.encode("utf-8", "replace")[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore")
