"""What ``eddy top`` shows: one frame of it, from what the server said last."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pipeline.cli.lines import drift_line, lifecycle_line
from pipeline.cli.output import count, printable
from pipeline.messages.events import Drift, Lifecycle, LifecycleType

if TYPE_CHECKING:
    from pipeline.client.results import Cluster, LifecycleEvent, Signal, Stats

MIN_WIDTH: Final = 80
N_EVENTS: Final = 5
N_ALARMS: Final = 4
_SPARKS: Final = "▁▂▃▄▅▆▇█"
_BLOCKS: Final = " ▏▎▍▌▋▊▉█"
_DRIFT_CELLS: Final = 8
"""Of the bar; the threshold is its end."""
_WIDE: Final = 100
"""From here on there is room for what the last hour was like."""
_FRAME_LINES: Final = 9
"""Of a frame without clusters, events and alarms."""
_LATE_S: Final = 1.0
_CLOCK: Final = 12
"""Cells of the time in a line."""


@dataclass(frozen=True, slots=True)
class Board:
    """What the server said."""

    url: str
    stats: Stats
    clusters: Sequence[Cluster]
    """The first of them, in the order that was asked for."""
    sort: str
    lifecycle: Sequence[LifecycleEvent]
    """The newest first."""
    signals: Sequence[Signal]
    """The last word on each."""
    rates: Sequence[float]
    """Changes a second at the last looks, the newest last."""
    sparklines: dict[str, tuple[int, ...]]
    """Cluster -> items gained, bucket by bucket of an hour."""
    silent_s: float = 0.0
    """Since when the server does not answer; 0: it does."""
    is_live: bool = True
    """Whether events come over a stream."""


def frame(board: Board, width: int, height: int | None, now: datetime.datetime) -> RenderableType:
    """One frame; ``height`` None: as long as it takes."""
    width = max(width, MIN_WIDTH)
    alarms = [signal for signal in board.signals if signal.state == "raised"]
    alarms.sort(key=lambda signal: -_ratio(signal))
    n_rows = len(board.clusters)
    if height is not None:
        spent = _FRAME_LINES + min(N_EVENTS, len(board.lifecycle)) + min(N_ALARMS, len(alarms))
        n_rows = max(3, min(n_rows, height - spent))
    parts: list[RenderableType] = [
        _head(board, width, now), _numbers(board, width), Text(),
        _clusters(board, n_rows, width), _rest(board, n_rows),
    ]  # fmt: skip
    parts += [_rule("alarms"), *_alarms(alarms, width)]
    parts += [_rule("what became of clusters"), *_events(board.lifecycle, width)]
    return Group(*parts)


def bar(share: float, n_cells: int) -> str:
    """A bar of eighths of a cell: at most ``n_cells`` long, never empty for more than nothing."""
    eighths = round(min(max(share, 0.0), 1.0) * n_cells * 8)
    if share > 0.0:
        eighths = max(eighths, 1)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_BLOCKS[rest] if rest else "")


def spark(numbers: Sequence[float], n_cells: int) -> str:
    """The last numbers as a line of small bars, against the largest of them."""
    shown = list(numbers)[-n_cells:]
    top = max(shown, default=0.0)
    if top <= 0.0:
        return _SPARKS[0] * len(shown)
    return "".join(_SPARKS[min(7, int(8 * max(n, 0.0) / top))] for n in shown)


# --- parts ----------------------------------------------------------------------------------------


def _head(board: Board, width: int, now: datetime.datetime) -> Text:
    left = Text.assemble(("eddy", "bold cyan"))
    left.append(f"  {board.url}", style="dim")
    right = Text()
    if board.silent_s:
        right.append(f"no answer for {board.silent_s:.0f} s", style="bold red")
    elif not board.is_live:
        right.append("reconnecting", style="yellow")
    else:
        right.append("● ", style="green").append("live", style="dim")
    right.append(f"   {now:%H:%M:%S}", style="dim")
    return _apart(left, right, width)


def _numbers(board: Board, width: int) -> Text:
    stats, lag = board.stats, sum(board.stats.lag_records.values())
    told = [
        ("model", "none yet" if stats.model is None else str(stats.model), "bold"),
        ("items", count(stats.items), "bold"),
        ("clusters", count(stats.clusters_live), "bold"),
        ("changes", f"{_rate(stats.changes_per_s)}/s", "bold"),
        ("lag", count(lag), "bold yellow" if lag > 1000 else "bold"),
    ]
    if stats.delay_p50_s is not None and stats.delay_p99_s is not None:
        is_late = stats.delay_p99_s > _LATE_S
        half = f"{_duration(stats.delay_p50_s)}, " if width >= _WIDE else ""
        shown = f"{half}p99 {_duration(stats.delay_p99_s)}"
        told.append(("delay", shown, "bold yellow" if is_late else "bold"))
    line = _named(told, "   ")
    if cell_len(line.plain) > width:
        line = _named(told, "  ")
    while cell_len(line.plain) > width:  # the last are the least
        told.pop()
        line = _named(told, "  ")
    room = width - cell_len(line.plain) - 3
    if room >= 6 and len(board.rates) > 1:
        line.append("   ").append(spark(board.rates, min(room, 30)), style="cyan")
    return line


def _named(told: Sequence[tuple[str, str, str]], between: str) -> Text:
    line = Text()
    for name, value, style in told:
        line.append(between if line else "").append(f"{name} ", style="dim").append(value, style)
    return line


def _clusters(board: Board, n_rows: int, width: int) -> Table:
    is_wide = width >= _WIDE
    shown = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0), width=width)
    mark = {"size": "items", "growth": "hour", "drift": "drift"}.get(board.sort)
    columns = ("cluster", "what", "items", "", "hour", *(["gained"] if is_wide else []), "drift")
    for name in columns:
        right = name in ("items", "hour")
        title = f"{name} ↓" if name and name == mark else name
        shown.add_column(
            title, justify="right" if right else "left", no_wrap=True, overflow="ellipsis",
            ratio=1 if name == "what" else None, min_width=8 if name == "" else None,
        )  # fmt: skip
    largest = max((one.share for one in board.clusters), default=0.0) or 1.0
    for one in board.clusters[:n_rows]:
        cells: list[RenderableType] = [
            Text(one.cluster, style="bold"), _what(one), Text(count(one.size)),
            Text(f"{bar(one.share / largest, 10 if is_wide else 8)}", style="blue"),
            _growth(one.growth),
        ]  # fmt: skip
        if is_wide:
            gained = board.sparklines.get(one.cluster, ())
            cells.append(Text(spark(gained, 12) if any(gained) else "", style="green"))
        shown.add_row(*cells, _drift(one.drift))
    return shown


def _what(one: Cluster) -> Text:
    """What it is called; else who is typical of it."""
    if one.label:
        return Text(printable(one.label))
    return Text(printable(one.exemplar or ""), style="italic dim")


def _growth(growth: int) -> Text:
    if not growth:
        return Text("·", style="dim")
    return Text(f"{growth:+,}".replace(",", "\N{NO-BREAK SPACE}"), "green" if growth > 0 else "red")


def _drift(ratio: float | None) -> Text:
    """How near to an alarm: the bar is full at the threshold."""
    if ratio is None:
        return Text("·", style="dim")
    style = "red" if ratio >= 1.0 else "yellow" if ratio >= 0.7 else "green"
    line = Text(f"{bar(ratio, _DRIFT_CELLS):<{_DRIFT_CELLS}}", style=style)
    line.append(f" {min(ratio, 99.99):>5.2f}", style=f"bold {style}" if ratio >= 1.0 else "dim")
    return line


def _rest(board: Board, n_rows: int) -> Text:
    left = board.stats.clusters - min(n_rows, len(board.clusters))
    if not board.clusters:
        return Text("no clusters yet: the first model is fitted when there are items", style="dim")
    return Text(f"and {count(left)} more" if left > 0 else "", style="dim")


def _alarms(alarms: Sequence[Signal], width: int) -> list[Text]:
    if not alarms:
        return [Text("none", style="dim")]
    lines = [_short(drift_line(_drift_of(one)), width) for one in alarms[:N_ALARMS]]
    if len(alarms) > N_ALARMS:
        lines[-1] = Text(f"and {count(len(alarms) - N_ALARMS + 1)} more", style="dim")
    return lines


def _events(events: Sequence[LifecycleEvent], width: int) -> list[Text]:
    if not events:
        return [Text("nothing yet", style="dim")]
    lines = []
    for event in events[:N_EVENTS]:
        try:
            told = _lifecycle_of(event)
        except ValueError:  # of a newer server
            lines.append(Text(f"{printable(event.type)} {event.cluster or ''}"))
            continue
        lines.append(_short(lifecycle_line(told), width))
    return lines


# --- small things ---------------------------------------------------------------------------------


def _rule(title: str) -> Rule:
    return Rule(Text(title, style="dim"), align="left", style="dim", characters="─")


def _apart(left: Text, right: Text, width: int) -> Text:
    room = width - cell_len(right.plain) - 2
    left.truncate(room, overflow="ellipsis")
    return left + Text(" " * (width - cell_len(left.plain) - cell_len(right.plain))) + right


def _short(line: Text, width: int) -> Text:
    """A line of ``eddy watch`` without the fractions of a second, in one row."""
    rest = line[_CLOCK:]
    rest.style = ""
    found = Text.assemble((line.plain[:_CLOCK].partition(".")[0], "dim"), rest)
    found.truncate(width, overflow="ellipsis")
    return found


def _rate(rate: float) -> str:
    return f"{rate:.1f}" if 0.0 < rate < 10.0 else count(round(rate))


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < _LATE_S else f"{seconds:.1f} s"


def _ratio(signal: Signal) -> float:
    return signal.statistic / signal.threshold if signal.threshold else 0.0


def _drift_of(signal: Signal) -> Drift:
    return Drift(
        signal.id, signal.state, signal.scope, signal.cluster, signal.signal, signal.statistic,
        signal.threshold, signal.effect, signal.arl0, signal.window, signal.model.epoch,
        signal.model.revision, _ms(signal.occurred_at), signal.clusters,
    )  # fmt: skip


def _lifecycle_of(event: LifecycleEvent) -> Lifecycle:
    return Lifecycle(
        event.id, LifecycleType(event.type), event.model.epoch, event.model.revision,
        _ms(event.occurred_at), event.cluster, event.parents, event.children, event.size,
        event.similarity, event.label, event.command, event.reason, event.inertia_before,
        event.inertia_after, event.moved,
    )  # fmt: skip


def _ms(moment: datetime.datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)
