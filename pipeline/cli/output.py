"""What a command says to people and to programs.

Results go to stdout, everything about the work itself (progress, remarks, errors) to stderr, so
that ``eddy ... --json | jq`` sees results only.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.console import Console, JustifyMethod
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

out: Final = Console(highlight=False)
err: Final = Console(stderr=True, highlight=False)


_OBEYED: Final = re.compile("[\x7f-\x9f]")
"""DEL and the C1 controls, which JSON lets stand; some terminals obey them as they do an escape."""


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """One line of JSON on stdout, at once: a pipe behind it may be waiting."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # outside of strings JSON has none of them, and in one this is the same character
    print(_OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", line), flush=True)


def printable(text: str) -> str:
    """The text without anything a terminal would obey: ids and messages are strangers' bytes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def some(names: Iterable[str], n: int = 4) -> str:
    """The first few of them, in one line."""
    listed = list(names)
    return ", ".join(printable(name) for name in listed[:n]) + (", ..." if listed[n:] else "")


def count(number: int) -> str:
    """A count as people read it: ``12 345``, with a space that does not break."""
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def table(*columns: str, right: Sequence[str] = (), flowing: Sequence[str] = ()) -> Table:
    """An empty table in the one style of all commands.

    Columns in ``right`` hold numbers; those in ``flowing`` hold words, and take further lines
    where there is no room for them beside the others.
    """
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for column in columns:
        justify: JustifyMethod = "right" if column in right else "left"
        made.add_column(column, justify=justify, no_wrap=column not in flowing)
    return made


def day_and_time(ms: int | None) -> str:
    """Local time to the minute; with the year only when it is another than this one's."""
    if ms is None:
        return "no time"
    moment = datetime.datetime.fromtimestamp(ms / 1000).astimezone()
    is_this_year = moment.year == datetime.datetime.now().year
    return moment.strftime("%b %d %H:%M" if is_this_year else "%Y-%m-%d")


def age(ms: int | None) -> str:
    """When, and how long ago."""
    if ms is None:
        return "at an unknown time"
    when = datetime.datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    seconds = max(0.0, time.time() - ms / 1000)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{when}, {seconds / size:.0f} {unit} ago"
    return f"{when}, {seconds:.0f} s ago"


class RateColumn(ProgressColumn):
    """Records per second, over the last moments."""

    def render(self, task: Task) -> Text:
        """The rate, or nothing before there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{count(round(speed))}/s" if speed else "", style="cyan")


def progress() -> Progress:
    """A bar on stderr: only on a terminal, and gone when it is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(compact=True),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def waiting(what: str) -> Progress:
    """A wheel with a clock beside a wait of unknown length; use as a context manager."""
    wheel = Progress(
        SpinnerColumn(style="cyan"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    wheel.add_task(what, total=None)
    return wheel
