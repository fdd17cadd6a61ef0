"""`eddy`, called as a function on brokers in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pipeline.cli.context import Twins
from pipeline.cli.main import main
from pipeline.kernels.cpu import CpuKernels
from pipeline.messages.codec import (
    encode_change,
    encode_head,
    encode_lifecycle,
    encode_statistics,
    head_key,
    statistics_key,
)
from pipeline.messages.events import (
    Cause,
    ChangeType,
    ClusterChange,
    Head,
    Lifecycle,
    LifecycleType,
    StatisticsRow,
)
from pipeline.messages.model import Manifest, Model, digest, model_records
from pipeline.messages.policy import EventPolicy
from pipeline.streams.memory import MemoryBroker
from pipeline.streams.topics import TopicPolicy

TOPICS = TopicPolicy()
NO_MS = 1_772_366_400_123


@dataclass
class Console:
    """A shell with a broker behind it."""

    capture: pytest.CaptureFixture[str]
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    flags: tuple[str, ...] = ("--set", "embedding.dimensions=3")
    out: str = ""
    err: str = ""

    def __call__(self, *arguments: str) -> int:
        """Run one command; what it wrote is in `out` and `err`."""
        twins = Twins(
            broker=lambda config, on_error: self.broker, kernels=lambda config: CpuKernels()
        )
        code = main([*self.flags, *arguments], twins=twins)
        self.out, self.err = self.capture.readouterr()
        return code

    @property
    def lines(self) -> list[Any]:
        """What it wrote, as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def change(item: str = "a", **fields: Any) -> ClusterChange:
    """An event; each field may be another."""
    given: dict[str, Any] = {
        "id": "embedding-changes/0/0",
        "type": ChangeType.REASSIGNED,
        "item": item,
        "from_cluster": "c1",
        "to_cluster": "c2",
        "cause": Cause.RECORD,
        "distance": 0.5,
        "margin": 0.1,
        "confidence": 0.17,
        "epoch": 7,
        "revision": 31,
        "topic": "embedding-changes",
        "partition": 0,
        "offset": 0,
        "occurred_at_ms": NO_MS,
    }
    return ClusterChange(**(given | fields))


def write_change(broker: MemoryBroker, event: ClusterChange, envelope: Any = "plain") -> None:
    value, headers = encode_change(event, EventPolicy(envelope=envelope))
    broker.append(TOPICS.changes, 0, event.item.encode(), value, headers)


def write_lifecycle(broker: MemoryBroker, kind: LifecycleType, **fields: Any) -> None:
    event = Lifecycle(
        **{
            "id": f"7/{fields.get('cluster') or 'model'}/{kind}",
            "type": kind,
            "epoch": 7,
            "revision": 0,
            "occurred_at_ms": NO_MS,
        }
        | fields
    )
    value, headers = encode_lifecycle(event, EventPolicy())
    broker.append(TOPICS.lifecycle, 0, event.key, value, headers)


def write_model(
    broker: MemoryBroker, clusters: Sequence[str], counts: Sequence[int], **fields: Any
) -> Model:
    """A model of three dimensions, cluster i at (i, 0, 0)."""
    centroids = np.zeros((len(clusters), 3), np.float32)
    centroids[:, 0] = np.arange(len(clusters))
    given: dict[str, Any] = {
        "epoch": 7,
        "revision": 0,
        "metric": "euclidean",
        "dimensions": 3,
        "embedding_model": None,
        "clusters": tuple(clusters),
        "max_component": 256.0,
        "input_policy": "compact",
        "digest": digest(centroids),
        "next_cluster_number": 100,
        "fitted_items": sum(counts),
        "fitted_inertia": 10.0,
        "fitted_offsets": (0,) * TOPICS.partitions,
        "created_at_ms": NO_MS,
    }
    model = Model(
        Manifest(**(given | fields)),
        centroids,
        np.array(counts, np.int64),
        np.full(len(clusters), 0.25),
    )
    for record in model_records(model, TOPICS.model, previous=None, drop=[]):
        broker.append(record.topic, record.partition, record.key, record.value)
    return model


def write_sizes(broker: MemoryBroker, partition: int, epoch: int, **counts: int) -> None:
    """Statistics of one partition, and its head."""
    for cluster, n in counts.items():
        row = StatisticsRow(epoch, n, 0, 0, 0, 0.0, 0.0, np.zeros(3, np.int64))
        key = statistics_key(partition, cluster)
        broker.append(TOPICS.statistics, partition, key, encode_statistics(row))
    head = Head(epoch, 0, 0, 0, sum(counts.values()), 0, 0)
    broker.append(TOPICS.statistics, partition, head_key(partition), encode_head(head))
