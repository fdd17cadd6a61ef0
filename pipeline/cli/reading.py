"""What stands in the topics now, read once: models, lineage, commands; clusters by name."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from pipeline.cli.output import some
from pipeline.config import Config
from pipeline.errors import FatalError, RecordError, TopicError, TransientError, UsageError
from pipeline.messages.codec import decode_lifecycle
from pipeline.messages.commands import Command, decode_command
from pipeline.messages.events import Lifecycle, LifecycleType
from pipeline.messages.model import Model, ModelFold
from pipeline.messages.records import Record
from pipeline.streams.contract import Broker

_LIMIT_S: Final = 60.0


def whole(broker: Broker, topic: str) -> Iterator[list[Record]]:
    """Everything that stands in a topic now; `TransientError` if that takes too long."""
    reader = broker.reader(topic)
    deadline = time.monotonic() + _LIMIT_S
    try:
        while not reader.at_end:
            if time.monotonic() > deadline:
                raise TransientError(f"{topic} could not be read within {_LIMIT_S:g} s")
            yield list(reader.read(10_000, timeout_s=0.2))
    finally:
        reader.close()


def onward(
    broker: Broker, topic: str, starts: Mapping[int, int] | None = None
) -> Iterator[Sequence[Record]]:
    """A topic from given offsets to the end that it has now, however large it is.

    None: all of it. `TransientError` once nothing has come for a minute.
    """
    reader = broker.reader(topic, starts)
    came_at = time.monotonic()
    try:
        while not reader.at_end:
            records = reader.read(10_000, timeout_s=0.2)
            if records:
                yield records
                came_at = time.monotonic()
            elif time.monotonic() - came_at > _LIMIT_S:
                raise TransientError(f"nothing of {topic} came within {_LIMIT_S:g} s")
    finally:
        reader.close()


def read_models(broker: Broker, config: Config) -> tuple[ModelFold, Model]:
    """All kept models, and the newest.

    Raises
    ------
    TopicError
        The topic is missing, or another version of Eddy wrote the model in a wire of its own.
    FatalError
        There is no model yet.
    """
    topic = config.topics.model
    if topic not in broker.topics([topic]):
        raise TopicError(f"{topic} does not exist: run eddy topics create")
    fold = ModelFold()
    for records in whole(broker, topic):
        fold.fold(records)
    fold.check_wire(topic)
    if fold.newest is None:
        raise FatalError(
            f"there is no model yet: eddy reclusterer makes the first one at "
            f"{config.recluster.bootstrap_items} items, or "
            f"{config.recluster.bootstrap_max_wait_s:g} s after the first record"
        )
    return fold, fold.newest


def read_lifecycle(broker: Broker, config: Config) -> list[Lifecycle]:
    """What retention has left of the lineage, the oldest first; empty without the topic."""
    topic = config.topics.lifecycle
    found: list[Lifecycle] = []
    if topic not in broker.topics([topic]):
        return found
    for records in whole(broker, topic):
        for record in records:
            if record.value is not None:
                try:
                    found.append(decode_lifecycle(record.value))
                except RecordError:
                    continue  # nothing of ours
    return found


def read_commands(broker: Broker, config: Config) -> dict[str, Command]:
    """The commands that retention has left, by id; empty without the topic."""
    topic = config.topics.commands
    found: dict[str, Command] = {}
    if topic not in broker.topics([topic]):
        return found
    for records in whole(broker, topic):
        for record in records:
            try:
                command = decode_command(record)
            except RecordError:
                continue  # the reclusterer has counted and skipped it
            found[command.id] = command
    return found


def known_cluster(
    name: str, model: Model, labels: Mapping[str, str], past: Iterable[Lifecycle]
) -> str:
    """The cluster of the newest model that is called so; `UsageError` with the nearest if none is.

    A label says which cluster is meant, but only an id names one: labels move and repeat.
    """
    clusters = model.manifest.clusters
    if name in clusters:
        return name
    said = f"{name} is no cluster of model {model.version}"
    called = [cluster for cluster in clusters if labels.get(cluster) == name]
    if called:
        raise UsageError(f"{said}, but the label of {some(called)}")
    ends = [
        event for event in past if event.cluster == name and event.type is LifecycleType.RETIRED
    ]
    if ends:
        last = ends[-1]
        heirs = f", and its members went to {some(last.children)}" if last.children else ""
        raise UsageError(f"{said}: it retired in epoch {last.epoch}{heirs}")
    number = name.removeprefix("c").removeprefix("C")
    near = difflib.get_close_matches(f"c{number}", clusters, 1, cutoff=0.0)
    raise UsageError(f"{said}; the nearest name is {near[0]}: eddy model show lists them all")
