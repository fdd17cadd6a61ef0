"""A server whose view is as full as a benchmark wants it, without a broker that was ever so full.

Rows are Debian's descriptions; beyond as many as there are, copies with noise, scaled to length 1.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks._debian import read
from pipeline.config import Config, ServerPolicy
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.codec import encode_assignment, encode_change, encode_lifecycle
from pipeline.messages.events import Cause, ChangeType, ClusterChange, Lifecycle, LifecycleType
from pipeline.messages.manifest import Manifest
from pipeline.messages.model import N_QUANTILES, Model, digest, model_records
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy
from pipeline.messages.records import Record
from pipeline.services.server.desk import Desk
from pipeline.services.server.process import Server
from pipeline.services.server.reports import ServerReports
from pipeline.streams.memory import MemoryBroker
from pipeline.streams.topics import TopicPolicy, expected_topics
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import Metrics

N_CLUSTERS: Final = 500
LARGE_CLUSTER: Final = 5000
"""Members of one of them."""
N_CHANGES: Final = 20_000
N_LIFECYCLE: Final = 5000
SLICE: Final = 10_000


def rows_of(folder: Path | None, n: int, noise: float) -> NDArray[np.float32]:
    """(n, n_dims) real rows, and copies of them."""
    real = np.ascontiguousarray(read(folder).vectors, np.float32)[:n]
    found = np.empty((n, real.shape[1]), np.float32)
    found[: len(real)] = real
    rng = np.random.default_rng(3)
    for start in range(len(real), n, len(real)):
        part = found[start : start + len(real)]
        part[:] = real[: len(part)]
        part += rng.normal(0.0, noise, part.shape).astype(np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def cluster_of(i: int, n: int) -> str:
    """One cluster of five thousand, spread over everything; the others are alike."""
    return "c0" if i % max(1, n // LARGE_CLUSTER) == 0 else f"c{1 + i % (N_CLUSTERS - 1)}"


def stood_up(vectors: NDArray[np.float32], port: int = 0) -> Server:
    """A server whose view is full."""
    n, n_dims = vectors.shape
    embedding = EmbeddingPolicy(dimensions=n_dims, metric="cosine")
    config = Config(
        topics=TopicPolicy(partitions=6), embedding=embedding, server=ServerPolicy(port=port),
    )  # fmt: skip
    broker = MemoryBroker()
    broker.create_topics(expected_topics(config.topics, config.limits.max_record_bytes))
    for record in model_records(
        _model(vectors[:: max(1, n // N_CLUSTERS)][:N_CLUSTERS]), config.topics.model,
        previous=None, drop=[],
    ):  # fmt: skip
        broker.append(record.topic, record.partition, record.key, record.value, record.headers)
    reports = ServerReports(get_logger(), Metrics("server"), Health("server", poll_timeout_s=1))
    server = Server(
        config, broker, CpuKernels(threads=1), input_is_compacted=True, reports=reports,
        clock=lambda: 1000.0 * time.monotonic(),
    )  # fmt: skip
    while server.follower.step() or not server.follower.is_caught_up:
        pass
    _fill(server.desk, vectors)
    return server


def _model(centroids: NDArray[np.float32]) -> Model:
    k, n_dims = centroids.shape
    manifest = Manifest(
        epoch=1, revision=0, metric="cosine", dimensions=n_dims, embedding_model=None,
        clusters=tuple(f"c{i}" for i in range(k)), max_component=1.0, input_policy="compact",
        digest=digest(centroids), next_cluster_number=k, fitted_items=k, fitted_inertia=1.0,
        fitted_offsets=(0,) * 6, created_at_ms=0,
    )  # fmt: skip
    ones, quantiles = np.ones(k), np.ones((k, N_QUANTILES), np.float32)
    return Model(manifest, centroids, np.ones(k, np.int64), ones, ones, quantiles, centroids)


def _fill(desk: Desk, vectors: NDArray[np.float32]) -> None:
    view, n, now_ms = desk.view, len(vectors), int(time.time() * 1000)
    view.items.reserve(n)
    for start in range(0, n, SLICE):
        numbers = range(start, min(n, start + SLICE))
        keys = [b"item-%d" % i for i in numbers]
        records = [
            Record(i % 6, i, key,
                   encode_assignment(cluster_of(i, n), i % 1000 / 1000, 0, 1, 0, i % 6, i), now_ms)
            for i, key in zip(numbers, keys, strict=True)
        ]  # fmt: skip
        with desk.changed:
            view.fold_assignments(records)
            rows = view.items.give(keys, vectors[start : start + SLICE], are_copies=False)
            desk.noted(rows)
            for i, row in zip(numbers, rows.tolist(), strict=True):
                view.items.metadata.put(row, {"section": f"s{i % 40}"})
    changes = []
    for i in range(N_CHANGES):
        change = ClusterChange(
            f"in/{i % 6}/{i}", ChangeType.REASSIGNED, f"item-{i % n}", f"c{i % N_CLUSTERS}",
            f"c{(i + 7) % N_CLUSTERS}", Cause.RECORD, 1.0, 0.5, 0.5, 1, 0, "in", i % 6, i, now_ms,
        )  # fmt: skip
        changes.append(Record(i % 6, i, b"", encode_change(change, EventPolicy())[0], now_ms))
    with desk.changed:
        view.fold_changes(changes)
        view.fold_lifecycle([_lifecycle(i, now_ms) for i in range(N_LIFECYCLE)])


def _lifecycle(i: int, now_ms: int) -> Record:
    event = Lifecycle(
        f"epoch-1/{i}", LifecycleType.SPLIT, 1, 0, now_ms, f"c{i % N_CLUSTERS}",
        children=(f"c{(i + 1) % N_CLUSTERS}", f"c{(i + 2) % N_CLUSTERS}"), size=i,
    )  # fmt: skip
    return Record(0, i, event.key, encode_lifecycle(event, EventPolicy())[0], now_ms)
