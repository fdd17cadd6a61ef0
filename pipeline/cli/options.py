"""Options and arguments that look the same in every verb."""

from __future__ import annotations

import datetime
from typing import Any, Final

import typer

from pipeline.errors import UsageError

TIME_HELP: Final = "ISO 8601, local where it names no zone, or milliseconds since 1970"
_MAX_DIGITS: Final = 18


def flag(*names: str, help: str) -> Any:
    """An option without a value; Typer's help would call it ``<bool>``."""
    return typer.Option(*names, metavar="", help=help)


def moment_ms(text: str, option: str) -> int:
    """A time as people write it, in milliseconds since 1970; `UsageError` for what is none."""
    # a year or a day alone is digits, too, and nobody means the first seconds of 1970
    if text.isascii() and text.isdigit() and len("20260301") < len(text) <= _MAX_DIGITS:
        return int(text)
    try:
        moment = datetime.datetime.fromisoformat(text)
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"{option} is {text!r}, but must be a time: {TIME_HELP}") from error


def places(words: list[str], of: str) -> dict[int, int]:
    """Partition -> offset of words like ``0:120``, which commas may join; `UsageError` else."""
    found: dict[int, int] = {}
    for word in ",".join(words).split(",") if words else []:
        partition, offset = place(word, of)
        if partition in found:
            raise UsageError(f"{of} names partition {partition} twice")
        found[partition] = offset
    return found


def place(word: str, of: str) -> tuple[int, int]:
    """Partition and offset of a word like ``3:17``; `UsageError` for another."""
    partition, colon, offset = word.strip().partition(":")
    numbers = [n for n in (partition, offset) if n.isascii() and n.isdigit()]
    if not colon or len(numbers) < 2 or max(map(len, numbers)) > _MAX_DIGITS:
        raise UsageError(f"{of} is {word!r}, but must be PARTITION:OFFSET, as 3:17")
    return int(partition), int(offset)
