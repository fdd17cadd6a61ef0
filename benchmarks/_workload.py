"""Items and their updates for the benchmarks: real texts' embeddings, moved by real edits.

The points are the package descriptions that ship with `eddy demo` (384 dimensions, unit length).
An item is one of them with a little noise, because there are more items than texts; an update is
the item moved by the difference that a real edit made to some other text. For other dimensions
everything is turned by a random orthonormal map, which keeps all distances.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.cli.demo.debian import load
from pipeline.clustering.kmeans import fit
from pipeline.clustering.profile import profiles
from pipeline.kernels.contract import Kernels
from pipeline.messages.model import Manifest, Model, digest, model_records
from pipeline.messages.records import Outgoing
from pipeline.messages.vectors import encode_vector

NOISE = 0.05
"""Length of what tells apart two items of one text; a typical edit is 0.3 long."""
MAX_COMPONENT = 256.0
CHUNK = 20_000
FIT_PASSES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A population of items and an endless series of updates of them, the same for a seed."""

    items: NDArray[np.float32]  # (n_items, n_dims)
    edits: NDArray[np.float32]  # (n_edits, n_dims)
    seed: int

    def updates(self, n: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """``n`` updates in chunks: items (n_chunk,), new vectors (n_chunk, n_dims).

        Every item comes once in a round, in an order of that round's own.
        """
        rng = np.random.default_rng([self.seed, 1])
        order = np.zeros(0, np.intp)
        for start in range(0, n, CHUNK):
            n_chunk = min(CHUNK, n - start)
            while len(order) < n_chunk:
                order = np.concatenate([order, rng.permutation(len(self.items))])
            chosen, order = order[:n_chunk], order[n_chunk:]
            moved = self.items[chosen] + self.edits[rng.integers(len(self.edits), size=n_chunk)]
            yield chosen, moved


def make_workload(n_items: int, n_dims: int, seed: int) -> Workload:
    """Items and edits in ``n_dims`` (384 or more) dimensions."""
    packages = load()
    last: dict[str, int] = {}
    pairs = []
    for change in packages.changes:
        before = last.get(change.package, change.row)
        if change.row >= 0:
            if before != change.row:
                pairs.append((before, change.row))
            last[change.package] = change.row
    befores, afters = np.array(pairs).T
    rng = np.random.default_rng([seed, 0])
    texts = packages.vectors
    points = texts[rng.integers(len(texts), size=n_items)]
    points += rng.standard_normal(points.shape, np.float32) * (NOISE / points.shape[1] ** 0.5)
    edits = texts[afters] - texts[befores]
    if n_dims != texts.shape[1]:
        turn = np.linalg.qr(rng.standard_normal((n_dims, texts.shape[1])))[0].astype(np.float32)
        points, edits = points @ turn.T, edits @ turn.T
    return Workload(points, edits, seed)


def make_model(workload: Workload, n_clusters: int, n_partitions: int, kernels: Kernels) -> Model:
    """A few passes of k-means over the items, as the first epoch."""
    found = fit(
        workload.items, n_clusters, kernels=kernels, seed=workload.seed,
        max_component=MAX_COMPONENT, max_iterations=FIT_PASSES,
    )  # fmt: skip
    manifest = Manifest(
        epoch=1, revision=0, metric="euclidean", dimensions=workload.items.shape[1],
        embedding_model=None, clusters=tuple(f"c{i + 1}" for i in range(n_clusters)),
        max_component=MAX_COMPONENT, input_policy="compact", digest=digest(found.centroids),
        next_cluster_number=n_clusters + 1, fitted_items=len(workload.items),
        fitted_inertia=float(found.inertia), fitted_offsets=(0,) * n_partitions,
        created_at_ms=int(time.time() * 1000),
    )  # fmt: skip
    fitted = profiles(found.labels, found.distances_squared, n_clusters)
    return Model(
        manifest, found.centroids, fitted.counts, fitted.mean_squared_distances,
        fitted.mean_distances, fitted.quantiles, found.centroids,
    )  # fmt: skip


def model_outgoing(model: Model, topic: str) -> list[Outgoing]:
    """The records that publish it."""
    return model_records(model, topic)


def item_key(item: int) -> bytes:
    """The key of an item, of a length that package names have."""
    return b"package-%06d" % item


def input_record(topic: str, n_partitions: int, item: int, vector: NDArray[np.float32]) -> Outgoing:
    """A record of the input, in its partition for ever."""
    return Outgoing(topic, item % n_partitions, item_key(item), encode_vector(vector))


def save_sample(path: Path, model: Model, workload: Workload, n: int) -> None:
    """What the kernel alone is timed on."""
    vectors = np.concatenate([moved for _, moved in workload.updates(n)])
    np.savez(path, centroids=model.centroids, vectors=vectors)
