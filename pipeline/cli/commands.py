"""A command into its topic, and on request the answer to it: the same for every verb that asks."""

from __future__ import annotations

import getpass
import socket
import threading
import time
import uuid
from typing import Annotated, Any, Final

import typer

from pipeline.cli.options import flag
from pipeline.cli.outcome import tell
from pipeline.cli.output import out, print_json, waiting
from pipeline.cli.signals import stop_event
from pipeline.config import Config
from pipeline.errors import FatalError, RecordError, TopicError, TransientError
from pipeline.messages.codec import decode_lifecycle
from pipeline.messages.commands import Command, CommandType, encode_command
from pipeline.messages.events import Lifecycle
from pipeline.messages.records import Outgoing
from pipeline.streams.contract import Broker, Reader

_PARTITION: Final = 0
_INTERRUPTED: Final = 130
_RETRY_S: Final = 1.0
WAIT_S: Final = 600.0
"""What ``--wait`` waits by default: a fit of a large sample takes minutes."""

ReasonOption = Annotated[str | None, typer.Option("--reason", help="Kept with the command.")]
WaitOption = Annotated[bool, flag("--wait", help="Wait for the outcome, and print it.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0, metavar="SECONDS", help="How long --wait waits.")
]
JsonOption = Annotated[bool, flag("--json", help="One line of JSON an event.")]


def new_command(kind: CommandType, reason: str | None, **fields: Any) -> Command:
    """A command of whoever runs this process, under an id of its own."""
    return Command(
        id=str(uuid.uuid4()), type=kind, requested_by=_who(), reason=reason or None, **fields
    )


def ask(
    broker: Broker, config: Config, command: Command, *, wait: bool, timeout_s: float, as_json: bool
) -> int:
    """Write the command; with ``wait``, print what came of it.

    Returns
    -------
    int
        The exit code: 1 when it was rejected.

    Raises
    ------
    TopicError
        The topic of the commands, or of the answers, is missing: nothing was written.
    FatalError
        No answer came in time.
    """
    topics = config.topics
    needed = {topics.commands, topics.lifecycle}
    missing = needed - broker.topics(sorted(needed)).keys()
    if missing:
        raise TopicError(f"{min(missing)} does not exist: run eddy topics create")
    # before the command is written: its answer can only be later
    starts = {p: log.high for p, log in broker.ranges(topics.lifecycle).items()}
    key, value = encode_command(command)
    producer = broker.producer()
    producer.write(Outgoing(topics.commands, _PARTITION, key, value))
    producer.flush()
    if not wait:
        if as_json:
            print_json({"command": command.id})
        else:
            out.print(f"asked {_matter(command)}; command {command.id}", soft_wrap=True)
        return 0

    reader = broker.reader(topics.lifecycle, starts)
    try:
        with stop_event() as stop, waiting(f"asked {_matter(command)}"):
            deadline = time.monotonic() + timeout_s
            answer = _answer(broker, config, reader, command.id, deadline, stop)
    finally:
        reader.close()
    if stop.is_set():
        return _INTERRUPTED
    if not answer:
        raise FatalError(
            f"no answer to command {command.id} within {timeout_s:g} s: look whether eddy "
            "reclusterer runs; the command stays in its topic"
        )
    return tell(command, answer, as_json=as_json)


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


def _matter(command: Command) -> str:
    """What was asked, as the rest of a sentence that begins with ``asked``."""
    match command.type:
        case CommandType.ROLLBACK:
            return f"to go back to epoch {command.epoch}"
        case CommandType.SPLIT:
            return f"to split {command.cluster}"
        case CommandType.MERGE:
            return f"to merge {', '.join(command.clusters)}"
        case CommandType.LABEL:
            return f"to label {command.cluster}"
        case _:
            return "for a new model"


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container's user without a name
        return socket.gethostname()
