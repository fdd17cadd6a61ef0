"""``eddy watch``: change events as they come, or lineage and alarms, one line each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.text import Text

from pipeline.cli.context import invocation
from pipeline.cli.lines import change_line, drift_line, lifecycle_line
from pipeline.cli.options import flag
from pipeline.cli.output import err, out, printable
from pipeline.cli.signals import stop_event
from pipeline.errors import RecordError, TopicError, TransientError, UsageError
from pipeline.messages.codec import decode_change, decode_drift, decode_lifecycle
from pipeline.messages.events import ClusterChange, Drift, Lifecycle
from pipeline.messages.records import Record
from pipeline.streams.contract import Broker, Reader
from pipeline.streams.topics import TopicPolicy

app = typer.Typer(add_completion=False)

_READ_S: Final = 0.2
_RETRY_S: Final = 1.0
_TIMED_OUT: Final = 1


@dataclass(frozen=True, slots=True)
class _Kind:
    """One topic of events, and how they are read, chosen and shown."""

    topic: Callable[[TopicPolicy], str]
    decode: Callable[[bytes], Any]
    line: Callable[[Any], Text]
    clusters: Callable[[Any], set[str | None]]
    """The clusters an event is about."""


def _of_change(event: ClusterChange) -> set[str | None]:
    return {event.from_cluster, event.to_cluster}


def _of_lifecycle(event: Lifecycle) -> set[str | None]:
    return {event.cluster, *event.parents, *event.children}


def _of_drift(event: Drift) -> set[str | None]:
    return {event.cluster, *event.clusters}


_CHANGES: Final = _Kind(lambda t: t.changes, decode_change, change_line, _of_change)
_LIFECYCLE: Final = _Kind(lambda t: t.lifecycle, decode_lifecycle, lifecycle_line, _of_lifecycle)
_DRIFT: Final = _Kind(lambda t: t.drift, decode_drift, drift_line, _of_drift)


@app.command()
def watch(
    ctx: typer.Context,
    item: Annotated[str | None, typer.Option("--item", help="Only this item.")] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Only what leaves or enters this cluster.")
    ] = None,
    lifecycle: Annotated[
        bool, flag("--lifecycle", help="What becomes of clusters, instead of items.")
    ] = False,
    drift: Annotated[
        bool, flag("--drift", help="Drift alarms, raised and cleared, instead of items.")
    ] = False,
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
    - removed, the item, its clusters, the confidence of the choice, and the model; behind it
    what is unusual. --lifecycle and --drift may be given together.
    """
    kinds = [kind for kind, asked in ((_LIFECYCLE, lifecycle), (_DRIFT, drift)) if asked]
    kinds = kinds or [_CHANGES]
    if item is not None and kinds != [_CHANGES]:
        raise UsageError("--item is for change events: neither lineage nor alarms name items")
    config, broker = invocation(ctx).config, invocation(ctx).broker()
    deadline = None if timeout is None else time.monotonic() + timeout
    n_shown = 0
    with stop_event() as stop, ExitStack() as stack:
        readers = []
        for kind in kinds:
            topic = kind.topic(config.topics)
            reader = stack.enter_context(closing(_open(broker, topic, from_beginning)))
            readers.append((kind, reader))
            if err.is_terminal and not as_json:
                err.print(f"[dim]following {topic}; Ctrl-C ends[/]")
        while not stop.is_set() and (deadline is None or time.monotonic() < deadline):
            for kind, event, record in _events(readers, stop):
                if not _is_wanted(kind, event, item, cluster):
                    continue
                if as_json:
                    print((record.value or b"").decode(), flush=True)
                else:
                    out.print(kind.line(event), soft_wrap=True)
                n_shown += 1
                if n_shown == number:
                    return 0
    return _TIMED_OUT if number is not None and not stop.is_set() else 0


def _open(broker: Broker, topic: str, from_beginning: bool) -> Reader:
    if topic not in broker.topics([topic]):
        raise TopicError(f"{topic} does not exist: run eddy topics create")
    starts: Mapping[int, int] | None = None
    if not from_beginning:
        starts = {p: log.high for p, log in broker.ranges(topic).items()}
    return broker.reader(topic, starts)


def _events(
    readers: list[tuple[_Kind, Reader]], stop: threading.Event
) -> Iterator[tuple[_Kind, Any, Record]]:
    """What came now in each of the topics; what is no event of ours is said once per record."""
    for kind, reader in readers:
        try:
            records = reader.read(1000, timeout_s=_READ_S / len(readers))
        except TransientError as error:
            err.print(f"[yellow]waiting: {escape(printable(str(error)))}[/]", soft_wrap=True)
            stop.wait(_RETRY_S)
            continue
        for record in records:
            if record.value is None:
                continue
            try:
                event = kind.decode(record.value)
            except RecordError as error:
                where = f"partition {record.partition} offset {record.offset}"
                problem = escape(printable(str(error)))
                err.print(f"[yellow]no event at {where}: {problem}[/]", soft_wrap=True)
                continue
            yield kind, event, record


def _is_wanted(kind: _Kind, event: Any, item: str | None, cluster: str | None) -> bool:
    if item is not None and event.item != item:
        return False
    return cluster is None or cluster in kind.clusters(event)
