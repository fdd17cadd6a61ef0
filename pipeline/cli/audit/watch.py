"""Waiting for the moment at which everything that was written is applied and swept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.errors import TopicError, TransientError
from pipeline.messages.records import Record
from pipeline.streams.contract import Broker, Range, Reader
from pipeline.streams.topics import TopicPolicy

READ_RECORDS = 4000
_GRACE_S = 10.0
"""What a look may take however short the time is: a first read of everything needs it."""

Marks = tuple[Mapping[int, int | None], Mapping[str, Mapping[int, Range]]]


class Watch:
    """Follows input, model and heads until nothing is left to do."""

    def __init__(
        self, broker: Broker, topics: TopicPolicy, group_id: str, clock: Callable[[], float]
    ) -> None:
        found = broker.topics(topics.names)
        missing = [name for name in topics.names if name not in found]
        if missing:
            raise TopicError(f"{', '.join(missing)} does not exist: run eddy topics create")
        self.broker = broker
        self.topics = topics
        self.group_id = group_id
        self.model_missing = False
        """Whether the last look found nothing to hold anything against."""
        self._clock = clock
        self._readers: dict[str, Reader] = {}
        self._last: dict[int, int] = {}
        self._heads: dict[int, dict[str, Any]] = {}
        self._version: tuple[int, int] | None = None

    def close(self) -> None:
        """Free the readers."""
        for reader in self._readers.values():
            reader.close()

    def marks(self) -> Marks:
        """What must be the same before and after reading."""
        names = (
            self.topics.input,
            self.topics.changes,
            self.topics.assignments,
            self.topics.vectors,
            self.topics.statistics,
            self.topics.model,
            self.topics.lifecycle,
            self.topics.dead_letters,
        )
        committed = self.broker.committed(self.group_id, self.topics.input)
        return committed, {name: self.broker.ranges(name) for name in names}

    def look(self, *, deadline: float) -> list[str]:
        """Why it is not quiet yet, one sentence each; empty: it is.

        Raises
        ------
        TransientError
            The broker is away, or a transaction is pending.
        """
        until = max(deadline, self._clock() + _GRACE_S)
        committed = self.broker.committed(self.group_id, self.topics.input)
        for record in self._news(self.topics.model, None, until):
            if record.key == b"manifest" and record.value is not None:
                manifest = json.loads(record.value)
                self._version = (int(manifest["epoch"]), int(manifest["revision"]))
        self.model_missing = self._version is None
        if self._version is None:
            return ["there is no model yet"]
        for record in self._news(self.topics.statistics, None, until):
            key = (record.key or b"").decode("utf-8", "replace")
            if key == str(record.partition) and record.value is not None:
                self._heads[record.partition] = json.loads(record.value)
        starts = {
            partition: offset for partition, offset in committed.items() if offset is not None
        }
        if len(starts) == len(committed):
            for record in self._news(self.topics.input, starts, until):
                self._last[record.partition] = record.offset
        reasons = [
            self._reason(partition, offset, self._version)
            for partition, offset in sorted(committed.items())
        ]
        return [reason for reason in reasons if reason is not None]

    def _reason(self, partition: int, committed: int | None, newest: tuple[int, int]) -> str | None:
        head = self._heads.get(partition)
        if committed is None or head is None:
            return f"partition {partition}: no assigner has begun with it"
        last = self._last.get(partition, -1)
        if last >= committed:
            return (
                f"partition {partition}: applied up to offset {committed}, "
                f"but there are records up to {last}"
            )
        if head["model"] is None:
            return f"partition {partition}: its members were not checked by any model yet"
        swept_to = (int(head["model"]["epoch"]), int(head["model"]["revision"]))
        if swept_to != newest:
            return (
                f"partition {partition}: swept to model {swept_to[0]}.{swept_to[1]}, "
                f"the newest is {newest[0]}.{newest[1]}"
            )
        if int(head["next"]) != committed:
            return (
                f"partition {partition}: its head stands at {head['next']}, "
                f"the committed offset at {committed}"
            )
        return None

    def _news(self, topic: str, starts: Mapping[int, int] | None, until: float) -> Iterator[Record]:
        """What came since the last look, up to the present end."""
        reader = self._readers.get(topic)
        if reader is None:
            reader = self._readers[topic] = self.broker.reader(topic, starts)
        highs = {partition: span.high for partition, span in self.broker.ranges(topic).items()}
        while True:
            yield from reader.read(READ_RECORDS, timeout_s=0.1)
            positions = reader.positions
            if reader.at_end and all(positions[p] >= high for p, high in highs.items()):
                return
            if self._clock() >= until:
                raise TransientError(f"{topic} could not be read to its end in time")
