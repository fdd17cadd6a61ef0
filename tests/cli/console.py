"""`eddy`, called as a function on brokers in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pipeline.cli.context import Twins
from pipeline.cli.main import main
from pipeline.kernels.contract import Sums
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.codec import (
    decode_statistics,
    encode_change,
    encode_drift,
    encode_head,
    encode_lifecycle,
    encode_statistics,
    head_key,
    statistics_key,
)
from pipeline.messages.commands import Command, decode_command
from pipeline.messages.events import (
    Cause,
    ChangeType,
    ClusterChange,
    Drift,
    Head,
    Lifecycle,
    LifecycleType,
    StatisticsRow,
)
from pipeline.messages.model import N_QUANTILES, Manifest, Model, digest, model_records
from pipeline.messages.policy import EventPolicy
from pipeline.messages.records import Outgoing
from pipeline.streams.memory import MemoryBroker
from pipeline.streams.memory_clients import MemoryProducer
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
    broker: MemoryBroker,
    clusters: Sequence[str],
    counts: Sequence[int],
    *,
    at: Sequence[float] | None = None,
    fitted_at: Sequence[float] | None = None,
    spread: float = 0.5,
    **fields: Any,
) -> Model:
    """A model of three dimensions, cluster i at (at[i], 0, 0), or at (i, 0, 0)."""
    centroids = np.zeros((len(clusters), 3), np.float32)
    centroids[:, 0] = np.arange(len(clusters)) if at is None else at
    fitted = centroids.copy()
    if fitted_at is not None:
        fitted[:, 0] = fitted_at
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
        np.full(len(clusters), spread**2),
        np.full(len(clusters), 0.4),
        np.tile(np.linspace(0, 1, N_QUANTILES, dtype=np.float32), (len(clusters), 1)),
        fitted,
    )
    for record in model_records(model, TOPICS.model, previous=None, drop=[]):
        broker.append(record.topic, record.partition, record.key, record.value)
    return model


def write_drift(broker: MemoryBroker, **fields: Any) -> None:
    given: dict[str, Any] = {
        "id": f"7.31/c12/occupancy/raised/{broker.ranges(TOPICS.drift)[0].high}",
        "state": "raised",
        "scope": "cluster",
        "cluster": "c12",
        "signal": "occupancy",
        "statistic": 9.31,
        "threshold": 8.72,
        "effect": 0.14,
        "arl0": 10_000,
        "window": 4096,
        "epoch": 7,
        "revision": 31,
        "occurred_at_ms": NO_MS,
    }
    alarm = Drift(**(given | fields))
    value, headers = encode_drift(alarm, EventPolicy())
    broker.append(TOPICS.drift, 0, alarm.key, value, headers)


def write_sizes(
    broker: MemoryBroker,
    partition: int,
    epoch: int,
    revision: int = 0,
    *,
    records: int = 0,
    reassigned: int = 0,
    **counts: int | None,
) -> None:
    """Statistics of one partition, and its head; None takes a cluster back.

    All members of cluster ``c<n>`` lie at (n, 1, 0).
    """
    for cluster, n in counts.items():
        value = None if n is None else encode_statistics(_members_at(epoch, cluster, n))
        broker.append(TOPICS.statistics, partition, statistics_key(partition, cluster), value)
    rows = {r.key: r.value for r in broker.records(TOPICS.statistics, partition)}
    rows.pop(head_key(partition), None)
    n_members = sum(decode_statistics(value).count for value in rows.values() if value)
    head = Head(epoch, revision, 0, 0, n_members, records, reassigned)
    broker.append(TOPICS.statistics, partition, head_key(partition), encode_head(head))


def _members_at(epoch: int, cluster: str, n: int) -> StatisticsRow:
    sums = Sums.zeros(1, 3, max_component=256.0)
    x = int(cluster.removeprefix("c"))
    square = round((x * x + 1) / sums.square_unit)
    whole = np.array([round(x / sums.unit), round(1 / sums.unit), 0], np.int64)
    high, low = n * (square >> 32), n * (square & 0xFFFFFFFF)
    return StatisticsRow(epoch, n, high, low, 0, 0.0, 0.0, n * whole)


class AnsweringBroker(MemoryBroker):
    """With a reclusterer behind it that answers at once."""

    def __init__(self, answer: Callable[[AnsweringBroker, Command], None]) -> None:
        super().__init__()
        self.answer = answer

    def producer(self) -> MemoryProducer:
        return _AnsweredProducer(self)


class _AnsweredProducer(MemoryProducer):
    def write(self, record: Outgoing) -> None:
        super().write(record)
        broker = self._broker
        assert isinstance(broker, AnsweringBroker)
        broker.answer(broker, commands(broker)[-1])


def commands(broker: MemoryBroker) -> list[Command]:
    return [decode_command(record) for record in broker.records(TOPICS.commands, 0)]
