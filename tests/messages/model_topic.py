"""Models, and a topic that holds them: what the tests of the fold stand on."""

from __future__ import annotations

import dataclasses

import numpy as np

from pipeline.messages.model import (
    Manifest,
    Model,
    digest,
    model_records,
)
from pipeline.messages.records import Record

D = 3
TOPIC = "eddy.cluster-model"


def model(epoch, revision, centroids, clusters=None):
    centroids = np.array(centroids, np.float32)
    names = tuple(clusters or (f"c{i + 1}" for i in range(len(centroids))))
    manifest = Manifest(
        epoch=epoch, revision=revision, metric="euclidean", dimensions=D, embedding_model=None,
        clusters=names, max_component=256.0, input_policy="compact", digest=digest(centroids),
        next_cluster_number=100, fitted_items=17, fitted_inertia=0.1 + 0.2,
        fitted_offsets=(4, 0), created_at_ms=1_772_366_400_123,
    )  # fmt: skip
    n = len(centroids)
    return Model(
        manifest, centroids, np.arange(n, dtype=np.int64), np.linspace(0, 1, n),
        np.linspace(0, 0.5, n), np.arange(9 * n, dtype=np.float32).reshape(n, 9) / 8, centroids,
    )  # fmt: skip


FIRST = model(1, 0, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
SECOND = model(2, 0, [[5, 0, 0], [0, 0, 6]], ["c3", "c4"])


class Topic:
    """A log that hands out records, and may be compacted."""

    def __init__(self):
        self.records = []

    def write(self, outgoing):
        start = len(self.records)
        self.records += [
            Record(0, start + i, o.key, o.value, None, o.headers) for i, o in enumerate(outgoing)
        ]
        return self.records[start:]

    def compacted(self):
        last = {record.key: record.offset for record in self.records}
        return [r for r in self.records if last[r.key] == r.offset and r.value is not None]


def history(*models):
    topic, previous = Topic(), None
    for one in models:
        topic.write(model_records(one, TOPIC, previous=previous))
        previous = one
    return topic


ARRAYS = [f.name for f in dataclasses.fields(Model) if f.name != "manifest"]


def same(a, b):
    return a.manifest == b.manifest and all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes()
        and getattr(a, name).dtype == getattr(b, name).dtype
        for name in ARRAYS
    )


def moved_to(old, revision, centroids):
    """A revision of ``old``: its fit stands."""
    new = model(old.manifest.epoch, revision, centroids, old.manifest.clusters)
    return dataclasses.replace(old, manifest=new.manifest, centroids=new.centroids)


MOVED = moved_to(FIRST, 1, [[1, 0, 0], [0, 2, 0], [0, 0, 1]])
