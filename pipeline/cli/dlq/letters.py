"""Dead letters for people and programs: what strangers wrote, shown without obeying it."""

from __future__ import annotations

import base64
import struct
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from pipeline.cli.output import age, count, day_and_time, out, printable, table
from pipeline.errors import RecordError
from pipeline.messages.codec import json_value, timestamp
from pipeline.messages.dead_letters import Letter
from pipeline.messages.records import Record
from pipeline.messages.vectors import FLOAT16, FLOAT32, HEADER, MAGIC

UNKNOWN: Final = "unknown"
"""The reason of a letter that tells none: it is not one of ours."""
_SHOWN_BYTES: Final = 32
_SHOWN_NUMBERS: Final = 8
_SHOWN_CHARACTERS: Final = 400
_KEY_CHARACTERS: Final = 32
_FORMS: Final = {FLOAT32: ("float32", "f", 4), FLOAT16: ("float16", "e", 2)}


def reason_of(letter: Letter) -> str:
    """The reason, fit for a terminal."""
    return _text(letter.reason) or UNKNOWN


def shown_bytes(value: bytes | None) -> str | None:
    """Bytes as text; what is no text, and what a terminal would obey, as escapes."""
    return None if value is None else printable(value.decode("utf-8", "backslashreplace"))


def letters_table() -> Table:
    """Empty, for `add_letter`."""
    return table("letter", "source", "when", "reason", "key", "message", flowing=["message"])


def add_letter(shown: Table, letter: Letter, key: bytes | None) -> None:
    """One row for a letter."""
    name = shown_bytes(key)
    if name is None:
        name = "(left out)" if "key" in letter.left_out else "(none)"
    if len(name) > _KEY_CHARACTERS:
        name = name[: _KEY_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"
    source = "" if letter.source_offset is None else _source(letter)
    when = day_and_time(letter.written_at_ms)
    cells = (letter.place, source, when, reason_of(letter), name, _text(letter.message) or "")
    shown.add_row(*(escape(cell) for cell in cells))


def letter_line(letter: Letter, key: bytes | None) -> dict[str, Any]:
    """A letter as one object of ``eddy dlq list --json``."""
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": reason_of(letter),
        "message": _text(letter.message),
        "stage": _text(letter.stage),
        "source": {
            "topic": _text(letter.source_topic),
            "partition": letter.source_partition,
            "offset": letter.source_offset,
        },
        "key": shown_bytes(key),
        "left_out": letter.left_out,
        "timestamp": timestamp(letter.timestamp_ms),
        "written_at": timestamp(letter.written_at_ms),
    }


def letter_whole(letter: Letter, record: Record) -> dict[str, Any]:
    """A letter in full, for ``eddy dlq show --json``; bytes beside the text as base64."""
    value = record.value
    return {
        **letter_line(letter, record.key),
        "key_base64": _base64(record.key),
        "headers": [
            {"name": printable(name), "text": shown_bytes(text), "base64": _base64(text)}
            for name, text in letter.headers
        ],
        "value": None if value is None else {**portrait_of(value), "base64": _base64(value)},
    }


def print_letter(letter: Letter, record: Record) -> None:
    """A letter in full."""
    facts = [
        ("letter", f"{letter.place}, written {age(letter.written_at_ms)}"),
        ("reason", reason_of(letter)),
        ("message", _text(letter.message) or "(none)"),
        ("stage", _text(letter.stage) or "(none)"),
        ("source", f"{_text(letter.source_topic) or '(unknown)'} {_source(letter)}"),
        ("produced", age(letter.timestamp_ms)),
        ("key", _key_line(letter, record.key)),
    ]
    facts += [
        ("header", f"{printable(n)}: {_cut(shown_bytes(t) or '')}") for n, t in letter.headers
    ]
    facts += [("header", "(left out)")] if "headers" in letter.left_out else []
    facts += _value_facts(letter, record.value)
    for name, said in facts:
        out.print(f"[bold]{name:<9}[/] {escape(said)}", soft_wrap=True)


def portrait_of(value: bytes) -> dict[str, Any]:
    """What a value looks like: its length, its first bytes, and what it says if we can read it.

    Returns
    -------
    dict
        ``bytes``; ``head``, hex; ``form``: ``edv1``, ``json`` or None; of the first ``vector``
        with ``dtype``, ``dims``, ``sequence``, ``fits`` (whether the length is that of so many
        numbers) and the first ``numbers``; of the second ``text``, cut.
    """
    told: dict[str, Any] = {
        "bytes": len(value),
        "head": value[:_SHOWN_BYTES].hex(" "),
        "form": None,
    }
    if value.startswith(MAGIC) and len(value) >= HEADER.size:
        return told | {"form": "edv1", "vector": _vector(value)}
    try:
        json_value(value)
    except RecordError:
        return told
    return told | {"form": "json", "text": _cut(shown_bytes(value) or "")}


def _vector(value: bytes) -> dict[str, Any]:
    _, dtype, flags, _, n_dims, sequence = HEADER.unpack_from(value)
    name, letter, size = _FORMS.get(dtype, (f"unknown {dtype}", "", 0))
    body = value[HEADER.size :]
    n = min(_SHOWN_NUMBERS, len(body) // size, n_dims) if size else 0
    numbers = struct.unpack_from(f"<{n}{letter}", body) if n else ()
    return {
        "dtype": name,
        "flags": flags,
        "dims": n_dims,
        "sequence": sequence,
        "fits": bool(size) and len(body) == n_dims * size,
        "numbers": [f"{x:.7g}" for x in numbers],  # text: JSON knows no NaN
    }


def _value_facts(letter: Letter, value: bytes | None) -> list[tuple[str, str]]:
    if value is None:
        n = letter.left_out.get("value")
        is_left_out = f"(left out: {count(n)} bytes)" if n is not None else ""
        return [("value", is_left_out or "(none: a tombstone)")]
    told = portrait_of(value)
    facts = [("value", f"{count(len(value))} bytes: {told['head'] or '(empty)'}")]
    if told["form"] == "json":
        facts.append(("as JSON", told["text"]))
    elif told["form"] == "edv1":
        vector = told["vector"]
        fits = "" if vector["fits"] else ", and the length is another than that of so many numbers"
        facts.append(
            (
                "as EDV1",
                f"{vector['dims']} numbers of {vector['dtype']}, sequence {vector['sequence']}"
                f"{fits}: {' '.join(vector['numbers'])} ...",
            )
        )
    return facts


def _key_line(letter: Letter, key: bytes | None) -> str:
    if key is None:
        n = letter.left_out.get("key")
        return "(none)" if n is None else f"(left out: {count(n)} bytes)"
    return _cut(shown_bytes(key) or "(empty)")


def _source(letter: Letter) -> str:
    if letter.source_partition is None or letter.source_offset is None:
        return "(unknown)"
    return f"{letter.source_partition}:{letter.source_offset}"


def _text(said: str | None) -> str | None:
    return None if said is None else printable(said)


def _cut(text: str) -> str:
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return text[:_SHOWN_CHARACTERS] + "\N{HORIZONTAL ELLIPSIS}"


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
