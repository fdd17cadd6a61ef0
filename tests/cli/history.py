"""A small, correct history of topics, written with struct and json alone.

The naive assigner of these tests: one record at a time, float64, no code of the product. What it
writes is what the promises say; a test then breaks one of them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.cli.verify import verify
from pipeline.messages.policy import EmbeddingPolicy, LimitPolicy
from pipeline.messages.records import Outgoing
from pipeline.streams.contract import GroupMember, TopicSettings
from pipeline.streams.memory import MemoryBroker
from pipeline.streams.topics import TopicPolicy, expected_topics

LANDMARK_MS, HALF_LIFE_MS = 1_772_366_400_000, 3_600_000
FADING = {"half_life_s": 3600.0, "landmark": "2026-03-01T12:00:00.000Z"}
N_DIMS = 40  # more than one round of 32 sums, and no multiple of it
GROUP = "eddy.assigner"


def edv1(vector, sequence=0, *, dtype=0):
    numbers = np.asarray(vector, "<f2" if dtype else "<f4")
    return struct.pack("<4sBBHIQ", b"EDV1", dtype, 0, 0, numbers.size, sequence) + numbers.tobytes()


def canonical(x):
    """Sum of squares in the published order, one element at a time."""
    lanes = [0.0] * 32
    for i, value in enumerate(np.asarray(x, np.float64).tolist()):
        lanes[i % 32] += value * value
    for half in (16, 8, 4, 2, 1):
        lanes = [lanes[i] + lanes[i + half] for i in range(half)]
    return lanes[0]


def rounded(x):
    return float(f"{np.float32(x):.7g}")


@dataclass
class Item:
    vector: np.ndarray
    cluster: str
    offset: int
    sequence: int
    timestamp_ms: int


@dataclass
class History:
    """Topics in memory, and the assigner that fills them."""

    policy: str = "compact"
    metric: str = "euclidean"
    limits: LimitPolicy = field(default_factory=LimitPolicy)
    n_partitions: int = 2
    forgetting: dict[str, Any] | None = None
    """As the manifests have it. This assigner knows whole half-lives after the landmark only."""

    def __post_init__(self) -> None:
        self.broker = MemoryBroker()
        self.topics = TopicPolicy(partitions=self.n_partitions)
        self.embedding = EmbeddingPolicy(dimensions=N_DIMS, metric=self.metric)
        for settings in expected_topics(self.topics, self.limits.max_record_bytes):
            if settings.name == self.topics.input:
                config = {**settings.config, "cleanup.policy": self.policy}
                settings = TopicSettings(settings.name, settings.n_partitions, config)
            self.broker.create_topics([settings])
        self.stream = self.broker.stream(GroupMember(self.topics.input, GROUP, "eddy-test"))
        for partition in self.stream.poll(0, timeout_s=0).assigned:
            self.stream.start(partition, 0)
        self.items: dict[int, dict[str, Item]] = {p: {} for p in range(self.n_partitions)}
        self.next_offsets = dict.fromkeys(range(self.n_partitions), 0)
        self.version = (0, 0)
        self.centroids: dict[str, np.ndarray] = {}
        self.retired: set[str] = set()
        self.n_produced = 0

    # what users do

    def produce(self, item, vector, sequence=0, *, partition=0, headers=()):
        """Write a record; ``vector`` may be the bytes of a value. Some are older, some timeless."""
        self.n_produced += 1
        age = self.n_produced % 23 - 10
        timestamp_ms = -1 if age == 0 else LANDMARK_MS - age * HALF_LIFE_MS
        value = edv1(vector, sequence) if isinstance(vector, np.ndarray) else vector
        key = item.encode() if isinstance(item, str) else item
        return self.broker.append(self.topics.input, partition, key, value, headers, timestamp_ms)

    # what the reclusterer does

    def install(self, epoch, revision, centroids):
        """Publish a model, and sweep to it."""
        self.retired |= self.centroids.keys() - centroids.keys()
        self.centroids = {name: np.asarray(c, np.float32) for name, c in centroids.items()}
        self.version = (epoch, revision)
        matrix = np.stack(list(self.centroids.values()))
        manifest = json.dumps(
            {
                "epoch": epoch,
                "revision": revision,
                "metric": self.metric,
                "dimensions": N_DIMS,
                "embedding_model": None,
                "clusters": list(self.centroids),
                "max_component": self.embedding.largest_component,
                "input_policy": self.policy,
                "digest": hashlib.sha256(matrix.astype("<f4").tobytes()).hexdigest(),
                "next_cluster_number": 1000,
                "fitted_on": {"items": 0, "inertia": 0.0, "offsets": [0] * self.n_partitions},
                "forgetting": self.forgetting,
                "created_at": "2026-03-01T12:00:00.000Z",
            }
        ).encode()
        for name, centroid in self.centroids.items():
            value = edv1(centroid, revision) + struct.pack("<Qdd9f", 1, 0.5, 0.5, *[0.5] * 9)
            self.append(self.topics.model, 0, f"{epoch}/{name}", value)
        self.append(self.topics.model, 0, str(epoch), manifest)
        self.append(self.topics.model, 0, "manifest", manifest)
        for partition, items in self.items.items():
            for name, item in items.items():
                cluster, *_ = self.nearest(item.vector)
                if cluster != item.cluster:
                    self.event(partition, name, item.cluster, cluster, "model", item.offset)
                    item.cluster = cluster
                    self.assignment(partition, name, item)

    # what the assigner does

    def stored(self, vector):
        if self.metric != "cosine":
            return vector
        return (vector.astype(np.float64) / np.sqrt(canonical(vector))).astype(np.float32)

    def nearest(self, vector):
        squared = {
            name: canonical(vector.astype(np.float64) - c) for name, c in self.centroids.items()
        }
        order = sorted(squared, key=squared.__getitem__)
        shown = {n: s / 2 if self.metric == "cosine" else s**0.5 for n, s in squared.items()}
        second = shown[order[1]] if len(order) > 1 else None
        return order[0], shown[order[0]], second

    def apply(self, bad=()):
        """Take in what was produced; ``bad`` says the reason of each record that is no good."""
        reasons = dict(bad)
        outgoing: list[Outgoing] = []
        self._out = outgoing
        for record in self.stream.poll(10_000, timeout_s=0).records:
            place = (record.partition, record.offset)
            self.next_offsets[record.partition] = record.offset + 1
            if place in reasons:
                self._dead_letter(record, reasons[place])
            else:
                self._take(record)
        self._out = None
        self.stream.commit(outgoing, self.next_offsets)

    def _take(self, record):
        partition, items = record.partition, self.items[record.partition]
        name = record.key.decode()
        before = items.get(name)
        came_from = before.cluster if before else None
        if record.value is None:
            if before:
                del items[name]
                self.event(partition, name, came_from, None, "record", record.offset)
                self.append(self.topics.assignments, partition, name, None)
                self.append(self.topics.vectors, partition, name, None)
            return
        sequence = struct.unpack_from("<Q", record.value, 12)[0]
        if before and sequence and sequence <= before.sequence:
            self._keep(partition, name)
            return
        vector = self.stored(np.frombuffer(record.value, "<f4", offset=20))
        cluster = self.nearest(vector)[0]
        item = Item(vector, cluster, record.offset, sequence, record.timestamp_ms)
        items[name] = item
        if item.cluster != came_from:
            self.event(partition, name, came_from, item.cluster, "record", record.offset)
        self.assignment(partition, name, item)
        if self.policy != "compact":
            self._keep(partition, name)
        elif before:
            self.append(self.topics.vectors, partition, name, None)

    def _keep(self, partition, name):
        item = self.items[partition][name]
        headers = ()
        if item.timestamp_ms >= 0:
            headers = (("eddy-timestamp", str(item.timestamp_ms).encode()),)
        self.append(self.topics.vectors, partition, name, edv1(item.vector), headers)

    def _dead_letter(self, record, reason):
        headers = {
            "topic": self.topics.input,
            "partition": str(record.partition),
            "offset": str(record.offset),
            "exception.class.name": reason,
        }
        self.append(
            self.topics.dead_letters,
            record.partition,
            record.key,
            record.value,
            (
                *record.headers,
                *((f"eddy.errors.{name}", text.encode()) for name, text in headers.items()),
            ),
        )
        name = (record.key or b"").decode("utf-8", "replace")
        if name in self.items[record.partition]:
            self._keep(record.partition, name)

    def event(self, partition, item, came_from, to, cause, offset, **other):
        epoch, revision = self.version
        place = f"{self.topics.input}/{partition}/{offset}"
        value = {
            "id": f"model/{epoch}.{revision}/{item}" if cause == "model" else place,
            "type": "assigned" if came_from is None else "removed" if to is None else "reassigned",
            "item": item,
            "from": came_from,
            "to": to,
            "cause": cause,
            "distance": 1.0,
            "margin": 1.0,
            "confidence": 0.5,
            "model": {"epoch": epoch, "revision": revision},
            "source": {"topic": self.topics.input, "partition": partition, "offset": offset},
            "occurred_at": None,
        } | other
        self.append(self.topics.changes, partition, item, json.dumps(value).encode())

    def assignment(self, partition, name, item, **other):
        _, distance, _ = self.nearest(item.vector)
        value: dict[str, Any] = {
            "cluster": item.cluster,
            "distance": rounded(distance),
            "sequence": item.sequence,
            "model": {"epoch": self.version[0], "revision": self.version[1]},
            "source": {"partition": partition, "offset": item.offset},
        }
        self.append(self.topics.assignments, partition, name, json.dumps(value | other).encode())

    def publish(self):
        """Statistics of all clusters, and the heads."""
        for partition, items in self.items.items():
            for name in self.centroids:
                members = [item for item in items.values() if item.cluster == name]
                self.append(
                    self.topics.statistics, partition, f"{partition}/{name}", self.eds1(members)
                )
            for name in self.retired:
                self.append(self.topics.statistics, partition, f"{partition}/{name}", None)
            self.head(partition)

    def head(self, partition, **other):
        value = {
            "model": {"epoch": self.version[0], "revision": self.version[1]},
            "since": 0,
            "next": self.next_offsets[partition],
            "members": len(self.items[partition]),
            "records": self.next_offsets[partition],
            "reassigned": 0,
        } | other
        self.append(self.topics.statistics, partition, str(partition), json.dumps(value).encode())

    def weight(self, item):
        if self.forgetting is None or item.timestamp_ms < 0:
            return 1.0
        halvings, rest = divmod(LANDMARK_MS - item.timestamp_ms, HALF_LIFE_MS)
        assert rest == 0
        return 2.0 ** -max(-8, min(16, halvings))

    def eds1(self, members, *, add=0, add_weight=0):
        coarser = 1 if self.forgetting is None else 2**8
        unit = self.embedding.largest_component * 2.0**-40 * coarser
        square_unit = self.embedding.largest_component**2 * 2.0**-48 * coarser
        sums = [0] * N_DIMS
        high = low = 0
        for item in members:
            for i, x in enumerate(item.vector.tolist()):
                sums[i] += int(np.rint(x * self.weight(item) / unit))
            square = int(np.rint(canonical(item.vector) * self.weight(item) / square_unit))
            high, low = high + (square >> 32), low + (square & 0xFFFFFFFF)
        sums[-1] += add
        head = struct.pack(
            "<4sIQqqqqdd", b"EDS1", N_DIMS, self.version[0], len(members), high, low, 0, 0.0, 0.0
        )
        tail = b""
        if self.forgetting is not None:
            total = sum(int(self.weight(item) * 2**31) for item in members)
            tail = struct.pack("<q", total + add_weight)
        return head + struct.pack(f"<{N_DIMS}q", *sums) + tail

    _out: list[Outgoing] | None = None

    def append(self, topic, partition, key, value, headers=()):
        key = key.encode() if isinstance(key, str) else key
        if self._out is None:
            self.broker.append(topic, partition, key, value, headers)
        else:
            self._out.append(Outgoing(topic, partition, key, value, headers))


def judge(history, *, timeout_s=0.5, progress=None):
    ticks = itertools.count()
    return verify(
        history.broker,
        history.topics,
        history.embedding,
        history.limits,
        group_id=GROUP,
        timeout_s=timeout_s,
        clock=lambda: next(ticks) / 100,
        sleep=lambda _: None,
        progress=progress,
    )


def broken(history):
    """The names of the checks that object."""
    report = judge(history)
    assert report.problem is None, (report.problem, report.reasons)
    return {tally.name for tally in report.checks if tally.n_broken}


def vectors(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, N_DIMS)).astype(np.float32)


def told(**kwargs):
    """A history with everything in it that may happen; quiet, and right."""
    history = History(**kwargs)
    x = vectors(40)
    history.install(1, 0, {f"c{k + 1}": history.stored(v) for k, v in enumerate(vectors(5, 1))})
    for i in range(30):
        history.produce(f"item-{i}", x[i], partition=i % 2)
    history.apply()
    history.produce("item-0", x[30], 7)  # changed, with a sequence
    history.produce("item-2", None)  # removed
    history.produce("item-4", x[31])
    history.produce("item-4", None)
    history.produce("item-4", x[32])  # came back
    history.produce("item-9", x[33], partition=1)
    history.produce("nobody", None, partition=1)
    history.apply()
    history.produce("item-0", x[34], 6)  # stale
    wrong = history.produce("item-6", np.full(N_DIMS, np.nan, np.float32))
    short = history.produce("item-7", b"EDV", partition=1)
    history.apply(bad={(0, wrong): "not_finite", (1, short): "decode"})
    shifted = {f"c{k + 2}": history.stored(v) for k, v in enumerate(vectors(5, 2))}
    history.install(2, 0, shifted)
    history.install(2, 1, {name: history.stored(c * 0.9 + 0.01) for name, c in shifted.items()})
    history.produce("item-8", x[35])
    history.apply()
    history.publish()
    return history


def another(history, item):
    return next(name for name in history.centroids if name != history.items[0][item].cluster)


def events(history, partition=0):
    return history.broker.records(history.topics.changes, partition)
