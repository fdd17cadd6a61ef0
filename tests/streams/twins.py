"""What the contract suite asks of a twin beside the contract, and the twin in memory.

A reader can be shown what is undecided only while somebody holds a transaction open, and a log
that begins above 0 only after its retention: `Twin` is what each twin does about that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Protocol, TypeVar

from pipeline.messages.records import Outgoing
from pipeline.streams.contract import Broker, TopicSettings
from pipeline.streams.memory import OFFSETS, MemoryBroker

T = TypeVar("T")

DEADLINE_S = 30.0


class OpenTransaction(Protocol):
    """Records, and perhaps offsets, that are written but not decided."""

    def commit(self) -> None: ...

    def abort(self) -> None: ...


class Twin(Protocol):
    """A broker, and what a test does to it from outside."""

    @property
    def broker(self) -> Broker: ...

    def name(self, what: str) -> str:
        """A name that no other test has."""
        ...

    def begin(
        self,
        transactional_id: str,
        outgoing: Iterable[Outgoing],
        *,
        group_id: str | None = None,
        topic: str | None = None,
        next_offsets: Mapping[int, int] | None = None,
    ) -> OpenTransaction:
        """Write in a transaction and leave it open; the offsets are of a group without members."""
        ...

    def truncate(self, topic: str, partition: int, before: int) -> None:
        """Let the log of a partition begin at ``before``."""
        ...

    def nowhere(self) -> Broker:
        """A cluster that does not answer."""
        ...


class MemoryTransaction:
    def __init__(self, broker: MemoryBroker, transactional_id: str) -> None:
        self.coordinator = broker._coordinator
        self.coordinator.take_over(transactional_id)
        self.transaction = self.coordinator.begin(transactional_id)

    def commit(self) -> None:
        self.coordinator.end(self.transaction, commits=True)

    def abort(self) -> None:
        self.coordinator.end(self.transaction, commits=False)


class MemoryTwin:
    """Implements `Twin`."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self._numbers = count()

    def name(self, what: str) -> str:
        return f"{what}-{next(self._numbers)}"

    def begin(
        self,
        transactional_id: str,
        outgoing: Iterable[Outgoing],
        *,
        group_id: str | None = None,
        topic: str | None = None,
        next_offsets: Mapping[int, int] | None = None,
    ) -> MemoryTransaction:
        opened = MemoryTransaction(self.broker, transactional_id)
        for record in outgoing:
            self.broker._write(opened.transaction, record)
        if next_offsets is not None:
            group = self.broker._group(group_id or "", topic or "")
            group.pending[opened.transaction] = dict(next_offsets)
            opened.transaction.places[OFFSETS] = None
        return opened

    def truncate(self, topic: str, partition: int, before: int) -> None:
        self.broker.truncate(topic, partition, before)

    def nowhere(self) -> MemoryBroker:
        broker = MemoryBroker()
        broker.is_away = True
        return broker


def eventually(ask: Callable[[], T | None], what: str) -> T:
    """Ask until the answer is true; the asking itself is what waits."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
    raise AssertionError(f"not within {DEADLINE_S} s: {what}")


def make_topic(twin: Twin, what: str, n_partitions: int = 1, **config: str) -> str:
    """A new topic; ``retention_ms`` stands for ``retention.ms``."""
    name = twin.name(what)
    settings = {key.replace("_", "."): value for key, value in config.items()}
    twin.broker.create_topics([TopicSettings(name, n_partitions, settings)])
    return name
