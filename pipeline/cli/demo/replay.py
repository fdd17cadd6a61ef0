"""The users of a demo: one produces changes of packages, one reads what became of them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from pipeline.cli.demo.debian import Change, Packages
from pipeline.cli.demo.view import View
from pipeline.config import Config
from pipeline.errors import FatalError
from pipeline.messages.commands import Command, CommandType, encode_command
from pipeline.messages.events import Lifecycle, LifecycleType
from pipeline.messages.records import Outgoing
from pipeline.messages.vectors import encode_vector
from pipeline.streams.contract import Broker

_LIMIT_S: Final = 180.0
_POLL_S: Final = 0.01
_BY_KEY: Final = -1
_BACKLOG: Final = 2000
"""Records from which on their rate says something."""


class StoppedError(Exception):
    """Somebody pressed Ctrl-C."""


class Replay:
    """Produces at a given rate, and follows all topics meanwhile.

    Parameters
    ----------
    stop
        Once set, whatever is going on ends with `StoppedError`.
    check
        Called while waiting; raises when a service is beyond help.
    """

    def __init__(
        self,
        broker: Broker,
        config: Config,
        packages: Packages,
        stop: threading.Event,
        check: Callable[[], None],
    ) -> None:
        self.view = View(broker, config.topics)
        self.rows: dict[str, int] = {}
        """Live package -> row of its vector."""
        self.n_produced = 0
        self.rate: float | None = None
        """Records a second, while the last backlog was worked off."""
        self._broker = broker
        self._producer = broker.producer()
        self._config = config
        self._packages = packages
        self._stop = stop
        self._check = check
        self._checked_at = 0.0

    def close(self) -> None:
        """Free the readers."""
        self.view.close()

    def produce(
        self,
        changes: Sequence[Change],
        *,
        rate: int | None = None,
        on_progress: Callable[[int], None] = lambda n: None,
    ) -> None:
        """Write the changes, so many a second (None: at once); all are acknowledged at the end."""
        started = time.monotonic()
        for n, change in enumerate(changes):
            if rate is not None:
                while time.monotonic() < started + n / rate:
                    self._look()
                    on_progress(n)
            self._write(change)
            if rate is None and n % 500 == 0:
                self._look()
                on_progress(n)
        self._producer.flush()
        on_progress(len(changes))

    def wait_for_all(self, on_progress: Callable[[int], None]) -> None:
        """Return once everything produced is applied, and seen here."""

        n_before = self.view.n_applied
        seen: list[tuple[float, int]] = []

        def is_done() -> bool:
            n_applied = self.view.n_applied
            on_progress(n_applied)
            if n_applied > (seen[-1][1] if seen else n_before):
                seen.append((time.monotonic(), n_applied))
            return n_applied >= self.n_produced

        self.wait_for(is_done, "the assigner to apply what was produced")
        self._see_all_changes()
        if len(seen) > 1 and seen[-1][1] - seen[0][1] >= _BACKLOG:
            # from the first that was seen: how long the assigner took to start is no rate
            self.rate = (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])

    def wait_for(self, is_done: Callable[[], bool], what: str) -> float:
        """Follow the topics until it is so; how long that took."""
        started = time.monotonic()
        while not is_done():
            self._look()
            if time.monotonic() - started > _LIMIT_S:
                raise FatalError(f"waited {_LIMIT_S:g} s for {what}")
        return time.monotonic() - started

    def recluster(self, *, is_cold: bool = False) -> tuple[list[Lifecycle], float]:
        """Ask for a new model, gain or not; what became of it once every member is held against it.

        Also how long it took, from the command to the end of the sweep.
        """
        started = time.monotonic()
        command = Command(
            id=str(uuid.uuid4()),
            type=CommandType.RECLUSTER,
            requested_by="eddy demo",
            cold=is_cold,
            force=True,
        )
        key, value = encode_command(command)
        self._producer.write(Outgoing(self._config.topics.commands, 0, key, value))
        self._producer.flush()
        answer: list[Lifecycle] = []

        def is_done() -> bool:
            answer[:] = [event for event in self.view.lifecycle if event.command == command.id]
            model = self.view.model
            if not answer or model is None or not self.view.is_swept:
                return False
            return model.manifest.epoch >= answer[0].epoch

        self.wait_for(is_done, "the new model")
        seconds = time.monotonic() - started
        self._see_all_changes()
        if any(event.type == LifecycleType.REJECTED for event in answer):
            raise FatalError(f"the new model was rejected: {answer[0].reason}")
        return answer, seconds

    def _see_all_changes(self) -> None:
        """What is committed in one topic may be read a moment later in another."""
        ends = self._broker.ranges(self._config.topics.changes)
        self.wait_for(lambda: self.view.has_read_changes_to(ends), "the change events")

    def _write(self, change: Change) -> None:
        topic, key = self._config.topics.input, change.package.encode()
        if change.row < 0:
            self.rows.pop(change.package, None)
            value = None
        else:
            self.rows[change.package] = change.row
            vector = np.ascontiguousarray(self._packages.vectors[change.row])
            value = encode_vector(vector)
        self.view.sent[change.package] = time.monotonic()
        self._producer.write(Outgoing(topic, _BY_KEY, key, value))
        self.n_produced += 1

    def _look(self) -> None:
        if self._stop.is_set():
            raise StoppedError
        now = time.monotonic()
        if now > self._checked_at + 0.2:
            self._checked_at = now
            self._check()
        self.view.poll(_POLL_S)
