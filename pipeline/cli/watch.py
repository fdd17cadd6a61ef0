"""``eddy watch``: the change events as they come, one line each."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.text import Text

from pipeline.cli.context import invocation
from pipeline.cli.options import flag
from pipeline.cli.output import err, out, printable
from pipeline.cli.signals import stop_event
from pipeline.errors import RecordError, TopicError, TransientError
from pipeline.messages.codec import decode_change
from pipeline.messages.events import Cause, ChangeType, ClusterChange
from pipeline.messages.records import Record
from pipeline.streams.contract import Reader

app = typer.Typer(add_completion=False)

_MARKS: Final = {
    ChangeType.ASSIGNED: ("+", "green"),
    ChangeType.REASSIGNED: ("~", "yellow"),
    ChangeType.REMOVED: ("-", "red"),
}
_CAUSES: Final = {Cause.RECORD: "", Cause.MODEL: "new model", Cause.LOST: "tombstone lost"}
_ITEM_WIDTH: Final = 32
_RETRY_S: Final = 1.0
_TIMED_OUT: Final = 1


@app.command()
def watch(
    ctx: typer.Context,
    item: Annotated[str | None, typer.Option("--item", help="Only this item.")] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Only what leaves or enters this cluster.")
    ] = None,
    from_beginning: Annotated[
        bool, flag("--from-beginning", help="Also what the topic holds already.")
    ] = False,
    number: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="End after so many events.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="End after so long; exit code 1 below --count."
        ),
    ] = None,
    as_json: Annotated[bool, flag("--json", help="The events as they are, one a line.")] = False,
) -> int:
    """Follow the change events: which item moved to which cluster.

    Only committed events are seen, each once. Columns: when it happened, + assigned ~ reassigned
    - removed, the item, its clusters, the confidence of the choice, and the model.
    """
    config, broker = invocation(ctx).config, invocation(ctx).broker()
    topic = config.topics.changes
    if topic not in broker.topics([topic]):
        raise TopicError(f"{topic} does not exist: run eddy topics create")
    starts = None
    if not from_beginning:
        starts = {p: log.high for p, log in broker.ranges(topic).items()}
    deadline = None if timeout is None else time.monotonic() + timeout
    n_shown = 0
    if err.is_terminal and not as_json:
        err.print(f"[dim]following {topic}; Ctrl-C ends[/]")
    with stop_event() as stop:
        reader = broker.reader(topic, starts)
        try:
            while not stop.is_set() and (deadline is None or time.monotonic() < deadline):
                for record in _read(reader, stop):
                    change = _change(record)
                    if change is None or not _is_wanted(change, item, cluster):
                        continue
                    _show(change, record, as_json=as_json)
                    n_shown += 1
                    if n_shown == number:
                        return 0
        finally:
            reader.close()
    return _TIMED_OUT if number is not None and not stop.is_set() else 0


def change_line(change: ClusterChange) -> Text:
    """One event for people."""
    mark, colour = _MARKS[change.type]
    item = printable(change.item)
    if len(item) > _ITEM_WIDTH:
        item = item[: _ITEM_WIDTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
    line = Text(_clock_time(change.occurred_at_ms), style="dim")
    line.append(f"  {mark} ", style=f"bold {colour}")
    line.append(f"{item:<{_ITEM_WIDTH}}  ", style="bold")
    before = change.from_cluster or ""
    after = change.to_cluster or "gone"
    arrow = "\N{RIGHTWARDS ARROW}" if before else " "
    line.append(f"{before:>7} {arrow} ", style="dim")
    line.append(f"{after:<7}", style=colour)
    confidence = "" if change.confidence is None else f"{change.confidence:.0%}"
    line.append(f"  {confidence:>4}")
    line.append(f"  {change.epoch}.{change.revision}", style="dim")
    if _CAUSES[change.cause]:
        line.append(f"  {_CAUSES[change.cause]}", style="italic dim")
    return line


def _show(change: ClusterChange, record: Record, *, as_json: bool) -> None:
    if as_json:
        print((record.value or b"").decode(), flush=True)
    else:
        out.print(change_line(change), soft_wrap=True)


def _read(reader: Reader, stop: threading.Event) -> Sequence[Record]:
    try:
        return reader.read(1000, timeout_s=0.2)
    except TransientError as error:
        err.print(f"[yellow]waiting: {escape(printable(str(error)))}[/]", soft_wrap=True)
        stop.wait(_RETRY_S)
        return ()


def _change(record: Record) -> ClusterChange | None:
    """The event; None for what is none of ours, which is said once per record."""
    if record.value is None:
        return None
    try:
        return decode_change(record.value)
    except RecordError as error:
        where = f"partition {record.partition} offset {record.offset}"
        err.print(
            f"[yellow]no event at {where}: {escape(printable(str(error)))}[/]", soft_wrap=True
        )
        return None


def _is_wanted(change: ClusterChange, item: str | None, cluster: str | None) -> bool:
    if item is not None and change.item != item:
        return False
    return cluster is None or cluster in (change.from_cluster, change.to_cluster)


def _clock_time(ms: int | None) -> str:
    """Local time of day, with the day only when it is another than today's."""
    if ms is None:
        return f"{'no time':<12}"
    moment = datetime.datetime.fromtimestamp(ms / 1000).astimezone()
    form = "%H:%M:%S.%f" if moment.date() == datetime.datetime.now().date() else "%b %d %H:%M"
    return f"{moment.strftime(form)[:12]:<12}"
