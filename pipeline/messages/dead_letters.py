"""A record that cannot be used, kept with the reason, so that it can be mended and sent again.

Key, value and headers stay as they were; ``eddy.errors.*`` headers, all UTF-8 text, say where the
record stood and what is wrong with it. What could make the dead letter larger than its topic
takes, 64 KiB above the limit, is left out, and its length told instead: a value that is too large,
a key above 512 bytes, headers above 32 KiB.
"""

from __future__ import annotations

from pipeline.errors import Reason, RecordError
from pipeline.messages.policy import MAX_KEY_BYTES
from pipeline.messages.records import Headers, Outgoing, Record

PREFIX = "eddy.errors."
MAX_MESSAGE_BYTES = 1024
MAX_HEADER_BYTES = 32 * 1024


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


def _cut(message: str) -> str:
    return message.encode("utf-8", "replace")[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore")
