"""An engine for two embedding models, and what is asked of it."""

from __future__ import annotations

import numpy as np

from pipeline.engine.cluster_engine import ClusterEngine, Restored
from pipeline.engine.setting import EngineSettings
from pipeline.messages.codec import decode_change
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy, LimitPolicy, NextEmbedding
from pipeline.state.members import Members
from tests.engine.house import KERNELS, TOPICS, model, of_topic, record

OLD_MODEL = model(embedding_model="old")
NORTH_SOUTH = np.array([[0, 0, 1], [0, 0, -1]], np.float32)
NEW_MODEL = model(
    NORTH_SOUTH, epoch=2, embedding_model="new", embedding_since=2, fitted_offsets=(10, 0)
)
NAMED = (("embedding-model", b"new"),)
WEST, EAST = [-1, 0], [1, 0]
NORTH, SOUTH = [0, 0, 1], [0, 0, -1]


def engine(*, max_items=1000, first=OLD_MODEL, embedding=None):
    made = ClusterEngine(
        EngineSettings(
            TOPICS,
            embedding or EmbeddingPolicy(dimensions=2, model="old", next=NextEmbedding("new", 3)),
            LimitPolicy(max_items_per_partition=max_items),
            EventPolicy(metadata=("kind",)),
            True,
        ),
        KERNELS,
    )
    made.install_model(first)
    made.adopt(Restored(0, 0, Members(first.manifest.dimensions), [], {}, set(), 0))
    return made


def new(offset, item, vector, **fields):
    return record(offset, item, vector, headers=NAMED, **fields)


def sweep(made, *, max_rows=100):
    """All slices until the sweep is done; what each wrote."""
    slices = []
    while made.partitions[0].to_sweep:
        changes = made.sweep(0, max_rows=max_rows)
        made.install(changes)
        slices.append(changes.outgoing)
    return slices


def events(outgoing):
    return [decode_change(out.value) for out in of_topic(outgoing, TOPICS.changes)]


def steps(outgoing):
    return [(e.item, e.from_cluster, e.to_cluster) for e in events(outgoing)]


def copies(outgoing):
    """(key, whether it is a null) of what was written to `item-vectors`, in order."""
    return [(out.key, out.value is None) for out in of_topic(outgoing, TOPICS.vectors)]


def lose(made):
    changes = made.lose_ghosts(0)
    made.install(changes)
    return changes.outgoing
