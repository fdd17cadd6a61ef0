"""What a subscriber of Eddy's topics sees: every change, and the clusters as they are now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.messages.codec import (
    decode_assignment,
    decode_change,
    decode_drift,
    decode_head,
    decode_lifecycle,
    head_key,
)
from pipeline.messages.events import Cause, ClusterChange, Drift, Head, Lifecycle
from pipeline.messages.model import Model, ModelFold
from pipeline.streams.contract import Broker, Range, Reader
from pipeline.streams.topics import TopicPolicy

_READ_RECORDS = 2000


@dataclass(slots=True)
class View:
    """Follows the topics from their beginning; one thread calls `poll` again and again."""

    broker: Broker
    topics: TopicPolicy
    clock: Callable[[], float] = time.monotonic
    clusters: dict[str, str] = field(default_factory=dict)
    """Item -> its cluster."""
    changes: list[ClusterChange] = field(default_factory=list)
    """Events, until somebody takes them."""
    lifecycle: list[Lifecycle] = field(default_factory=list)
    """All of them."""
    alarms: list[Drift] = field(default_factory=list)
    """Raised and cleared, until somebody takes them."""
    n_applied: int = 0
    """Records of the input that were applied: each good one but a tombstone of nobody."""
    sent: dict[str, float] = field(default_factory=dict)
    """Item -> when its last record was produced; the caller fills it."""
    latencies_s: list[float] = field(default_factory=list)
    """From there to its event, seen at read_committed; for records that made one."""
    _heads: dict[int, Head] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)
    _models: ModelFold = field(default_factory=ModelFold)
    _readers: dict[str, Reader] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for topic in (
            self.topics.changes,
            self.topics.assignments,
            self.topics.statistics,
            self.topics.lifecycle,
            self.topics.drift,
            self.topics.model,
        ):
            self._readers[topic] = self.broker.reader(topic)

    def close(self) -> None:
        """Free the readers."""
        for reader in self._readers.values():
            reader.close()

    @property
    def model(self) -> Model | None:
        """The newest one."""
        return self._models.newest

    @property
    def is_swept(self) -> bool:
        """Whether every member was held against the newest model, in all partitions."""
        if self.model is None or len(self._heads) < self.topics.partitions:
            return False
        newest = (self.model.manifest.epoch, self.model.manifest.revision)
        return all((head.epoch, head.revision) == newest for head in self._heads.values())

    def has_read_changes_to(self, ends: Mapping[int, Range]) -> bool:
        """Whether every change event below these ends was seen."""
        positions = self._readers[self.topics.changes].positions
        return all(positions[partition] >= span.high for partition, span in ends.items())

    def take_changes(self) -> list[ClusterChange]:
        """The events since they were taken last."""
        taken, self.changes = self.changes, []
        return taken

    def take_alarms(self) -> list[Drift]:
        """The alarms since they were taken last."""
        taken, self.alarms = self.alarms, []
        return taken

    def poll(self, timeout_s: float) -> None:
        """Take in what came; waits for change events only."""
        for record in self._readers[self.topics.changes].read(_READ_RECORDS, timeout_s=timeout_s):
            assert record.value is not None
            change = decode_change(record.value)
            self.changes.append(change)
            if change.cause == Cause.RECORD and change.item in self.sent:
                self.latencies_s.append(self.clock() - self.sent.pop(change.item))
        for record in self._readers[self.topics.assignments].read(_READ_RECORDS, timeout_s=0):
            item = (record.key or b"").decode()
            if record.value is None:
                self.n_applied += self.clusters.pop(item, None) is not None
                self._places.pop(item, None)
                continue
            row = decode_assignment(record.value)
            self.n_applied += self._places.get(item) != row.offset
            self._places[item] = row.offset
            self.clusters[item] = row.cluster
        self._models.fold(self._readers[self.topics.model].read(_READ_RECORDS, timeout_s=0))
        for record in self._readers[self.topics.statistics].read(_READ_RECORDS, timeout_s=0):
            if record.key == head_key(record.partition) and record.value is not None:
                self._heads[record.partition] = decode_head(record.value)
        for record in self._readers[self.topics.lifecycle].read(_READ_RECORDS, timeout_s=0):
            if record.value is not None:
                self.lifecycle.append(decode_lifecycle(record.value))
        for record in self._readers[self.topics.drift].read(_READ_RECORDS, timeout_s=0):
            if record.value is not None:
                self.alarms.append(decode_drift(record.value))
