"""A small engine with a model of its own, for tests that need no broker."""

from __future__ import annotations

import numpy as np

from pipeline.engine.cluster_engine import ClusterEngine, Restored
from pipeline.engine.setting import EngineSettings
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.codec import encode_vector
from pipeline.messages.model import N_QUANTILES, Manifest, Model, digest
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy, LimitPolicy
from pipeline.messages.records import Record
from pipeline.state.members import Members
from pipeline.streams.topics import TopicPolicy

KERNELS = CpuKernels(threads=1)
TOPICS = TopicPolicy(input="in", prefix="t.", partitions=2)
WEST_EAST = np.array([[-1, 0], [1, 0]], np.float32)


def model(centroids=WEST_EAST, *, epoch=1, clusters=None, counts=None, quantiles=None, **fields):
    """A model over ``centroids``; clusters are named by their place unless told otherwise."""
    centroids = np.asarray(centroids, np.float32)
    names = clusters or tuple(f"c{i + 1}" for i in range(len(centroids)))
    known = {
        "epoch": epoch, "revision": 0, "metric": "euclidean", "dimensions": centroids.shape[1],
        "embedding_model": None, "clusters": tuple(names), "max_component": 256.0,
        "input_policy": "compact", "digest": digest(centroids), "next_cluster_number": 100,
        "fitted_items": 2, "fitted_inertia": 1.0, "fitted_offsets": (0, 0), "created_at_ms": 7,
    }  # fmt: skip
    zeros = np.zeros(len(centroids))
    if quantiles is None:
        quantiles = np.zeros((len(centroids), N_QUANTILES))
    return Model(
        Manifest(**{**known, **fields}), centroids,
        np.array(zeros if counts is None else counts, np.int64), zeros, zeros,
        np.array(quantiles, np.float32), centroids,
    )  # fmt: skip


def engine(*, compacted=True, metadata=(), max_items=1000, first=None, n_partitions=1):
    """An engine under the first model, owning empty partitions 0, 1, ..."""
    first = first or model(input_policy="compact" if compacted else "delete")
    made = ClusterEngine(
        EngineSettings(
            TOPICS,
            EmbeddingPolicy(
                dimensions=first.centroids.shape[1],
                metric=first.manifest.metric,
                max_component=first.manifest.max_component,
            ),
            LimitPolicy(max_items_per_partition=max_items),
            EventPolicy(metadata=metadata),
            compacted,
        ),
        KERNELS,
    )
    made.install_model(first)
    for p in range(n_partitions):
        made.adopt(Restored(p, 0, Members(first.centroids.shape[1]), [], {}, set(), 0))
    return made


def record(offset, item, vector, *, sequence=0, partition=0, headers=()):
    """A native record; ``vector`` None removes, bytes are taken as they are."""
    value = vector
    if vector is not None and not isinstance(vector, bytes):
        value = encode_vector(np.asarray(vector, np.float32), sequence)
    return Record(partition, offset, item.encode(), value, 1000 + offset, tuple(headers))


def write(made, records):
    """Prepare and install, as after a commit; what went out."""
    changes = made.prepare(records)
    made.install(changes)
    return changes.outgoing


def of_topic(outgoing, topic):
    return [out for out in outgoing if out.topic == topic]
