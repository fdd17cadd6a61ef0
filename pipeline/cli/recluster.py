"""``eddy recluster``: a command into the topic, and on request the answer to it."""

from __future__ import annotations

import getpass
import socket
import threading
import time
import uuid
from typing import Annotated, Final

import typer
from rich.markup import escape

from pipeline.cli.context import invocation
from pipeline.cli.options import flag
from pipeline.cli.output import count, out, print_json, printable, waiting
from pipeline.cli.signals import stop_event
from pipeline.config import Config
from pipeline.errors import FatalError, RecordError, TopicError, TransientError
from pipeline.messages.codec import decode_lifecycle
from pipeline.messages.commands import Command, encode_command
from pipeline.messages.events import Lifecycle, LifecycleType
from pipeline.messages.records import Outgoing
from pipeline.streams.contract import Broker, Reader

app = typer.Typer(add_completion=False)

_PARTITION: Final = 0
_REJECTED = _NO_ANSWER = 1
_INTERRUPTED: Final = 130
_RETRY_S: Final = 1.0


@app.command()
def recluster(
    ctx: typer.Context,
    force: Annotated[bool, flag("--force", help="Publish even without a gain.")] = False,
    cold: Annotated[
        bool, flag("--cold", help="Start from nothing instead of the present centroids.")
    ] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Kept with the command.")] = None,
    wait: Annotated[bool, flag("--wait", help="Wait for the outcome, and print it.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long --wait waits.")
    ] = 600.0,
    as_json: Annotated[bool, flag("--json", help="One line of JSON an event.")] = False,
) -> int:
    """Ask for a new model.

    The reclusterer fits one, and publishes it if it is better than the present one by
    recluster.min_gain. With --wait the exit code is 1 if it was not, or if no answer came.
    """
    config, broker = invocation(ctx).config, invocation(ctx).broker()
    topics = config.topics
    missing = {topics.commands, topics.lifecycle} - broker.topics(
        [topics.commands, topics.lifecycle]
    ).keys()
    if missing:
        raise TopicError(f"{min(missing)} does not exist: run eddy topics create")
    # before the command is written: its answer can only be later
    starts = {p: log.high for p, log in broker.ranges(topics.lifecycle).items()}
    command = Command(
        id=str(uuid.uuid4()),
        type="recluster",
        requested_by=_who(),
        reason=reason,
        cold=cold,
        force=force,
    )
    key, value = encode_command(command)
    producer = broker.producer()
    producer.write(Outgoing(topics.commands, _PARTITION, key, value))
    producer.flush()
    if not wait:
        if as_json:
            print_json({"command": command.id})
        else:
            out.print(f"asked for a new model; command {command.id}", soft_wrap=True)
        return 0

    reader = broker.reader(topics.lifecycle, starts)
    try:
        with stop_event() as stop, waiting("waiting for the new model"):
            answer = _answer(broker, config, reader, command.id, time.monotonic() + timeout, stop)
    finally:
        reader.close()
    if stop.is_set():
        return _INTERRUPTED
    if not answer:
        raise FatalError(
            f"no answer to command {command.id} within {timeout:g} s: look whether eddy "
            "reclusterer runs; the command stays in its topic"
        )
    return _tell(answer, as_json=as_json)


def _answer(
    broker: Broker,
    config: Config,
    reader: Reader,
    command: str,
    deadline: float,
    stop: threading.Event,
) -> list[Lifecycle]:
    """All events that the command caused; empty when none came in time.

    They are one transaction, so once the first is seen the others are readable up to the end.
    """
    events: list[Lifecycle] = []
    goal: int | None = None
    while not stop.is_set() and time.monotonic() < deadline:
        try:
            records = reader.read(1000, timeout_s=0.2)
        except TransientError:
            stop.wait(_RETRY_S)
            continue
        for record in records:
            if record.value is None:
                continue
            try:
                event = decode_lifecycle(record.value)
            except RecordError:
                continue  # nothing of ours, so no answer
            if event.command == command:
                events.append(event)
        if events and goal is None:
            goal = broker.ranges(config.topics.lifecycle)[_PARTITION].high
        if goal is not None and reader.positions[_PARTITION] >= goal:
            break
    return events


def _tell(events: list[Lifecycle], *, as_json: bool) -> int:
    main = next(
        (e for e in events if e.type in (LifecycleType.INSTALLED, LifecycleType.REJECTED)),
        events[0],
    )
    rejected = main.type == LifecycleType.REJECTED
    if as_json:
        for event in events:
            print_json(event._asdict())
        return _REJECTED if rejected else 0
    version = f"{main.epoch}.{main.revision}"
    if rejected:
        why = escape(printable(main.reason or "no reason given"))
        out.print(f"[yellow]not published[/]: {why}; model {version} stays", soft_wrap=True)
        return _REJECTED
    out.print(f"[green]published[/] model [bold]{version}[/]{_gain(main)}", soft_wrap=True)
    for kind in (
        LifecycleType.BORN,
        LifecycleType.SPLIT,
        LifecycleType.MERGED,
        LifecycleType.RETIRED,
    ):
        names = [event.cluster or "" for event in events if event.type == kind]
        if names:
            shown = ", ".join(names[:8]) + (", ..." if names[8:] else "")
            out.print(f"  {kind:<8} {count(len(names)):>4}  [dim]{escape(shown)}[/]")
    return 0


def _gain(event: Lifecycle) -> str:
    words = ""
    if event.inertia_before and event.inertia_after is not None:
        words += f", inertia {event.inertia_after / event.inertia_before - 1:+.2%}"
    if event.moved is not None:
        words += f", {event.moved:.1%} of the sampled items moved"
    return words


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container's user without a name
        return socket.gethostname()
