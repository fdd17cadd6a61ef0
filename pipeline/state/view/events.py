"""Lifecycle, alarms and commands, as the server knows them: each a bounded log, and what stands.

All three topics have one partition, so an event's offset is its place in all of time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.errors import RecordError
from pipeline.messages.codec import decode_drift, decode_lifecycle
from pipeline.messages.commands import Command, decode_command
from pipeline.messages.events import Drift, Lifecycle, LifecycleType
from pipeline.messages.records import Record

MAX_EVENTS = 100_000
"""Lifecycle events that are kept, some 400 bytes each."""
MAX_ALARMS = 10_000
MAX_COMMANDS = 10_000
CLEARED = 0.9999
"""The most that a signal without an alarm is told to be of its threshold."""


class KeptLifecycle(NamedTuple):
    """A lifecycle event, and where it stands."""

    offset: int
    event: Lifecycle


class KeptAlarm(NamedTuple):
    """An alarm, and where it stands."""

    offset: int
    alarm: Drift


@dataclass(slots=True)
class Origin:
    """What the log says of a cluster's beginning and end."""

    born_at_ms: int | None = None
    born_in: int | None = None
    """The epoch."""
    parents: tuple[str, ...] = ()
    retired_at_ms: int | None = None
    retired_in: int | None = None
    successors: tuple[str, ...] = ()
    """Who took its members; of one that is not retired: nobody."""


class LifecycleLog:
    """The newest events, and where each cluster came from and went to."""

    def __init__(self, n_events: int = MAX_EVENTS) -> None:
        self._events: deque[KeptLifecycle] = deque(maxlen=n_events)
        self._about: dict[str, list[KeptLifecycle]] = {}
        """Cluster -> those of the events that name it."""
        self._origins: dict[str, Origin] = {}
        self._max_origins = n_events
        self._next = 0
        self.n_ignored = 0

    def fold(self, record: Record) -> Lifecycle | None:
        """Take the next event in; None if it is none of ours, or was read already."""
        if record.value is None or record.offset < self._next:
            return None
        self._next = record.offset + 1
        try:
            event = decode_lifecycle(record.value)
        except RecordError:
            self.n_ignored += 1
            return None
        self._keep(KeptLifecycle(record.offset, event))
        if event.cluster is not None:
            self._note(event.cluster, event)
        return event

    def origin(self, cluster: str) -> Origin | None:
        """What is known of a cluster; None: nothing."""
        return self._origins.get(cluster)

    def newest(
        self,
        *,
        kinds: frozenset[str] | None = None,
        cluster: str | None = None,
        since_ms: int | None = None,
        before: int | None = None,
    ) -> Iterator[KeptLifecycle]:
        """Those that fit, the newest first; ``before``: below this offset."""
        for kept in reversed(self._events if cluster is None else self._about.get(cluster, [])):
            event = kept.event
            if before is not None and kept.offset >= before:
                continue
            if kinds is not None and event.type not in kinds:
                continue
            if since_ms is not None and (event.occurred_at_ms or 0) < since_ms:
                continue
            yield kept

    def _keep(self, kept: KeptLifecycle) -> None:
        if len(self._events) == self._events.maxlen:  # the oldest goes, here and there
            for cluster in _named_by(self._events[0].event):
                about = self._about[cluster]
                del about[0]
                if not about:
                    del self._about[cluster]
        self._events.append(kept)
        for cluster in _named_by(kept.event):
            self._about.setdefault(cluster, []).append(kept)

    def _note(self, cluster: str, event: Lifecycle) -> None:
        origin = self._origins.get(cluster)
        if origin is None:
            if len(self._origins) >= self._max_origins:  # the oldest is forgotten, as its event is
                del self._origins[next(iter(self._origins))]
            origin = self._origins[cluster] = Origin()
        if event.type is LifecycleType.BORN:
            origin.born_at_ms, origin.born_in = event.occurred_at_ms, event.epoch
            origin.parents = event.parents
        elif event.type is LifecycleType.RETIRED:
            origin.retired_at_ms, origin.retired_in = event.occurred_at_ms, event.epoch
            origin.successors = event.children
        elif event.type is LifecycleType.RESTORED:
            origin.retired_at_ms = origin.retired_in = None
            origin.successors = ()


def _named_by(event: Lifecycle) -> set[str]:
    own = () if event.cluster is None else (event.cluster,)
    return {*own, *event.parents, *event.children}


class DriftBoard:
    """The newest alarms, and the last word on each signal."""

    def __init__(self, n_alarms: int = MAX_ALARMS) -> None:
        self._alarms: deque[KeptAlarm] = deque(maxlen=n_alarms)
        self._last: dict[tuple[str | None, str], Drift] = {}
        self._max_last = n_alarms
        self._next = 0
        self.n_ignored = 0

    def fold(self, record: Record) -> Drift | None:
        """Take the next alarm in; None if it is none of ours, or was read already."""
        if record.value is None or record.offset < self._next:
            return None
        self._next = record.offset + 1
        try:
            alarm = decode_drift(record.value)
        except RecordError:
            self.n_ignored += 1
            return None
        self._alarms.append(KeptAlarm(record.offset, alarm))
        self._last.pop((alarm.cluster, alarm.signal), None)  # so the dict is in order of time
        self._last[alarm.cluster, alarm.signal] = alarm
        if len(self._last) > self._max_last:
            del self._last[next(iter(self._last))]
        return alarm

    def standing(self, cluster: str | None) -> list[Drift]:
        """The last word on each signal of a cluster, or of the model as a whole."""
        return [alarm for (about, _), alarm in self._last.items() if about == cluster]

    @property
    def mark(self) -> int:
        """Another number whenever another alarm has come."""
        return self._next

    def ratios(self) -> dict[str, float]:
        """Cluster -> the largest statistic / threshold of its signals, by the last word on each.

        At 1 and above an alarm stands, below it none does: one that was cleared because its effect
        had become small may still have a larger statistic, and is told as just below 1.
        """
        found: dict[str, float] = {}
        for (cluster, _), alarm in self._last.items():
            if cluster is None or not alarm.threshold > 0.0:
                continue
            ratio = alarm.statistic / alarm.threshold
            ratio = max(ratio, 1.0) if alarm.state == "raised" else min(ratio, CLEARED)
            found[cluster] = max(found.get(cluster, 0.0), ratio)
        return found

    def all_standing(self) -> list[Drift]:
        """The last word on every signal of everything there was an alarm of."""
        return list(self._last.values())

    def newest(
        self,
        *,
        state: str | None = None,
        cluster: str | None = None,
        since_ms: int | None = None,
        before: int | None = None,
    ) -> Iterator[KeptAlarm]:
        """Alarms that fit, the newest first; ``before``: below this offset."""
        for kept in reversed(self._alarms):
            alarm = kept.alarm
            if before is not None and kept.offset >= before:
                continue
            if state is not None and alarm.state != state:
                continue
            if since_ms is not None and (alarm.occurred_at_ms or 0) < since_ms:
                continue
            if cluster is None or cluster == alarm.cluster or cluster in alarm.clusters:
                yield kept


@dataclass(slots=True)
class Asked:
    """A command, and what came of it."""

    command: Command
    offset: int
    asked_at_ms: int | None
    value: bytes
    """As it was asked: a second asking is the same one, or another."""
    answers: list[Lifecycle] = field(default_factory=list)
    """In order; empty: none yet. They are one transaction."""


class CommandLog:
    """The newest commands, by id."""

    def __init__(self, n_commands: int = MAX_COMMANDS) -> None:
        self._asked: dict[str, Asked] = {}
        self._max = n_commands
        self._early: dict[str, list[Lifecycle]] = {}
        """Answers to commands that are not read yet."""
        self._next = 0
        self.n_ignored = 0

    def fold(self, record: Record) -> None:
        """Take the next command in."""
        if record.offset < self._next:
            return
        self._next = record.offset + 1
        try:
            command = decode_command(record)
        except RecordError:
            self.n_ignored += 1  # the reclusterer counts, logs and skips it
            return
        if command.id in self._asked:
            return  # a repetition is ignored
        answers = self._early.pop(command.id, [])
        self._asked[command.id] = Asked(
            command, record.offset, record.timestamp_ms, record.value or b"", answers
        )
        if len(self._asked) > self._max:
            del self._asked[next(iter(self._asked))]

    def answer(self, event: Lifecycle) -> None:
        """An event that a command caused."""
        if event.command is None:
            return
        asked = self._asked.get(event.command)
        if asked is not None:
            asked.answers.append(event)
            return
        self._early.setdefault(event.command, []).append(event)
        if len(self._early) > self._max:
            del self._early[next(iter(self._early))]

    def find(self, command_id: str) -> Asked | None:
        """The command of an id; None if it is not known (any more)."""
        return self._asked.get(command_id)

    def newest(self, before: int | None = None) -> Iterator[Asked]:
        """Commands, the newest first; ``before``: below this offset."""
        for asked in reversed(self._asked.values()):
            if before is None or asked.offset < before:
                yield asked
