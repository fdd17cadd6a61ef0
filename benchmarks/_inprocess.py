"""Eddy in one process and one thread, on the broker in memory, with a clock that is told.

Assigners, reclusterer, engine and topics are the real ones; only the broker is the twin that the
simulation runs on, so that a history needs no Kafka and is the same every time. What came of
it is read from the topics, as any subscriber would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.kernels.contract import Kernels
from pipeline.messages.codec import (
    decode_assignment,
    decode_change,
    decode_head,
    decode_lifecycle,
)
from pipeline.messages.commands import Command, CommandType, encode_command
from pipeline.messages.events import Cause, Head, Lifecycle
from pipeline.messages.model import Model, ModelFold
from pipeline.messages.records import Outgoing, Record
from pipeline.messages.vectors import encode_vector
from pipeline.services.assigner.reports import AssignerReports
from pipeline.services.launch import COMPACT, new_assigner, new_reclusterer
from pipeline.services.reclusterer.reports import ReclustererReports
from pipeline.streams.memory import MemoryBroker
from pipeline.streams.topics import expected_topics
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import Metrics

QUIET_TURNS = 4
"""Turns without a commit after which nothing more will come, if the heads say so, too."""
MAX_TURNS = 5000
TURN_S = 1.0
CLEAN_EVERY = 25
"""Turns. Statistics are large and only the newest count: the cleaner keeps the memory small."""


class Inline(Executor):
    """Runs at once what a service runs beside its loop."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)
        return future


class RestlessError(Exception):
    """The services go on for ever."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What the topics say at one moment."""

    model: Model
    clusters: dict[str, str]
    """Item -> cluster id."""

    def labels(self, names: Iterable[str]) -> NDArray[np.intp]:
        """Of these items, by the order of the model's clusters."""
        label_of = {cluster: label for label, cluster in enumerate(self.model.manifest.clusters)}
        return np.array([label_of[self.clusters[name]] for name in names], np.intp)


@dataclass(slots=True)
class Moves:
    """Reassignments since they were last taken, by what caused them."""

    events: Counter[str] = field(default_factory=Counter)
    items: set[str] = field(default_factory=set)
    """Those that models moved."""


class InProcess:
    """A broker in memory, assigners and a reclusterer, and a subscriber.

    Parameters
    ----------
    config
        As a user would write it; nothing of it is replaced.
    n_assigners
    """

    def __init__(self, config: Config, kernels: Kernels, *, n_assigners: int = 2) -> None:
        self.config = config
        self.now_s = 1_000_000.0
        self.n_turns = 0
        topics = config.topics
        self.broker = MemoryBroker()
        self.broker.create_topics(expected_topics(topics, config.limits.max_record_bytes))
        self._producer = self.broker.producer()
        self.reclusterer = new_reclusterer(
            config,
            self.broker,
            kernels,
            input_policy=COMPACT,
            executor=Inline(),
            clock=self._clock,
            steady=self._clock,
            reports=ReclustererReports(
                get_logger(), Metrics("reclusterer"), Health("reclusterer", poll_timeout_s=1.0)
            ),
        )
        self.assigners = [
            new_assigner(
                config,
                self.broker,
                kernels,
                input_policy=COMPACT,
                name=f"a{i}",
                clock=self._clock,
                reports=AssignerReports(
                    get_logger(),
                    Metrics("assigner"),
                    Health("assigner", poll_timeout_s=1.0),
                    kernel=kernels.name,
                ),
            )
            for i in range(n_assigners)
        ]
        self.moves = Moves()
        self.lifecycle: list[Lifecycle] = []
        self._clusters: dict[str, str] = {}
        self._heads: dict[int, Head] = {}
        self._models = ModelFold()
        self._n_commands = 0
        self._readers = {
            name: (self.broker.reader(name), take)
            for name, take in (
                (topics.assignments, self._take_assignments),
                (topics.changes, self._take_changes),
                (topics.model, self._models.fold),
                (topics.lifecycle, self._take_lifecycle),
                (topics.statistics, self._take_statistics),
            )
        }

    def _clock(self) -> float:
        return self.now_s

    # --- users --------------------------------------------------------------------

    def write(self, name: str, vector: NDArray[np.float32] | None) -> None:
        """One record of the input; None removes the item."""
        value = None if vector is None else encode_vector(vector)
        self._producer.write(Outgoing(self.config.topics.input, -1, name.encode(), value))

    def command(self, *, force: bool = False, cold: bool = False) -> list[Lifecycle]:
        """Ask for a recluster, and wait until all is at rest; the answer and what came with it."""
        self._n_commands += 1
        command_id = f"command-{self._n_commands}"
        key, value = encode_command(
            Command(command_id, CommandType.RECLUSTER, force=force, cold=cold)
        )
        self.broker.append(self.config.topics.commands, 0, key, value)
        self.rest()
        return [event for event in self.lifecycle if event.command == command_id]

    # --- time ---------------------------------------------------------------------

    def turn(self) -> None:
        """Everybody does a step; a second passes."""
        self.now_s += TURN_S
        self.n_turns += 1
        self.reclusterer.step()
        for assigner in self.assigners:
            assigner.step()
        if self.n_turns % CLEAN_EVERY == 0:
            self._clean()

    def rest(self) -> None:
        """Turn until nothing commits, everything is read, and all are swept to the newest model.

        Raises
        ------
        RestlessError
        """
        n_quiet = 0
        for _ in range(MAX_TURNS):
            before = self.broker.n_commits
            self.turn()
            n_quiet = n_quiet + 1 if self.broker.n_commits == before else 0
            if n_quiet >= QUIET_TURNS and self._is_through():
                return
        raise RestlessError(f"no rest after {MAX_TURNS} turns; heads: {self._heads}")

    def _is_through(self) -> bool:
        """Whether the heads say that all records are applied, and all members swept."""
        self._follow()
        ranges = self.broker.ranges(self.config.topics.input)
        if self._models.newest is None:
            return not any(found.high for found in ranges.values())
        manifest = self._models.newest.manifest
        return len(self._heads) == len(ranges) and all(
            (head.epoch, head.revision) == (manifest.epoch, manifest.revision)
            and head.next_offset >= ranges[partition].high
            for partition, head in self._heads.items()
        )

    def _clean(self) -> None:
        topics = self.config.topics
        self._follow()
        for partition in range(topics.partitions):
            self.broker.compact(topics.statistics, partition, keep_tombstones=True)
        self.broker.compact(topics.model, 0, keep_tombstones=True)

    # --- a subscriber -------------------------------------------------------------

    def picture(self) -> Picture:
        """What the topics say now."""
        self._follow()
        model = self._models.newest
        assert model is not None, "there is no model yet"
        return Picture(model, dict(self._clusters))

    def taken_moves(self) -> Moves:
        """The moves since this was last asked."""
        self._follow()
        moves, self.moves = self.moves, Moves()
        return moves

    def _follow(self) -> None:
        for reader, take in self._readers.values():
            while records := reader.read(10_000, timeout_s=0.0):
                take(records)

    def _take_assignments(self, records: Iterable[Record]) -> None:
        for record in records:
            name = (record.key or b"").decode()
            if record.value is None:
                self._clusters.pop(name, None)
            else:
                self._clusters[name] = decode_assignment(record.value).cluster

    def _take_changes(self, records: Iterable[Record]) -> None:
        for record in records:
            assert record.value is not None
            change = decode_change(record.value)
            if change.type == "reassigned":
                self.moves.events[str(change.cause)] += 1
                if change.cause is Cause.MODEL:
                    self.moves.items.add(change.item)

    def _take_lifecycle(self, records: Iterable[Record]) -> None:
        self.lifecycle += [decode_lifecycle(r.value) for r in records if r.value is not None]

    def _take_statistics(self, records: Iterable[Record]) -> None:
        for record in records:
            if record.value is not None and b"/" not in (record.key or b""):
                self._heads[record.partition] = decode_head(record.value)
