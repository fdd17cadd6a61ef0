"""The one door of faiss: centroids that it trains, and labels that are probably right.

Nothing here is exact, and nothing uses it unless it is asked for. A fit by faiss gets its labels
from an exact twin (`pipeline.clustering.faiss_fit`); labels from an index over the centroids come
with the share of them that is right, measured on points of the caller's.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.errors import ConfigError
from pipeline.kernels.contract import Kernels, Labels, Points, Weights

IndexKind = Literal["hnsw", "ivf"]
"""A graph of neighbours, or cells of centroids of which the nearest are searched."""

LINKS = 32  # of a centroid in the graph
MAX_TRAINING_POINTS = 2**31 - 1  # faiss would draw a sample, and draws it itself


class Training(NamedTuple):
    """What faiss found."""

    centroids: Points  # (n_clusters, n_dims)
    inertias: NDArray[np.float64]
    """(n_iterations,) of the centroids before each pass, summed in float32."""


@dataclass(frozen=True, slots=True, eq=False)
class ApproximateModel:
    """An index over centroids, for many of them (5 000 to 100 000)."""

    centroids: Points  # (n_clusters, n_dims)
    index: Any
    threads: int

    @classmethod
    def of(
        cls,
        centroids: Points,
        *,
        kind: IndexKind = "hnsw",
        effort: int = 64,
        threads: int = 1,
        seed: int = 0,
    ) -> ApproximateModel:
        """Build the index.

        Parameters
        ----------
        centroids : (n_clusters, n_dims) float32
        effort
            Candidates that a search of the graph keeps, or cells that it looks into: more take
            longer and are right more often (`recall`).
        threads
            Of faiss, in building and searching.

        Raises
        ------
        ConfigError
            faiss is not installed.
        """
        if effort < 1:
            raise ValueError(f"effort is {effort}, but must be at least 1")
        if kind not in ("hnsw", "ivf"):
            raise ValueError(f"kind is {kind!r}, but must be hnsw or ivf")
        build = _graph if kind == "hnsw" else _cells
        with threadpool_limits(threads):
            index = build(library(), centroids, effort, seed)
        return cls(centroids.copy(), index, threads)

    def labels(self, points: Points) -> Labels:
        """(n_points,) a near centroid of each point, mostly the nearest; -1: none was found."""
        if not len(points):
            return np.empty(0, np.int32)
        with threadpool_limits(self.threads):
            _, found = self.index.search(points, 1)
        labels: Labels = found[:, 0].astype(np.int32)
        return labels

    def recall(self, points: Points, kernels: Kernels) -> float:
        """The share of some points whose label is the exact one; of no points it is 1."""
        if not len(points):
            return 1.0
        exact = kernels.assign(kernels.load(self.centroids), points).labels
        return float(np.count_nonzero(self.labels(points) == exact)) / len(points)


class Tried(NamedTuple):
    """An effort, and what it is good for."""

    effort: int
    recall: float


def least_effort(
    model: ApproximateModel,
    points: Points,
    kernels: Kernels,
    *,
    min_recall: float,
    efforts: Sequence[int] = (16, 32, 64, 128, 256, 512),
) -> Tried:
    """Set the model to the least of the efforts with this recall on a sample, or to the last.

    Parameters
    ----------
    points : (n_points, n_dims) float32
        The sample; some thousand tell a recall to a percent.
    """
    exact = kernels.assign(kernels.load(model.centroids), points).labels
    tried = Tried(0, 0.0)
    for effort in efforts:
        _set_effort(model.index, effort)
        right = np.count_nonzero(model.labels(points) == exact)
        tried = Tried(effort, float(right) / max(1, len(points)))
        if tried.recall >= min_recall:
            break
    return tried


def train(
    points: Points,
    n_clusters: int,
    *,
    seed: int,
    max_iterations: int,
    start: Points | None = None,
    weights: Weights | None = None,
    spherical: bool = False,
    threads: int = 1,
) -> Training:
    """K-means by faiss, on all points: some of them to begin with, then so many passes of Lloyd.

    Raises
    ------
    ConfigError
        faiss is not installed.
    """
    faiss = library()
    trainer = faiss.Kmeans(
        points.shape[1],
        n_clusters,
        niter=max_iterations,
        seed=_seed(seed),
        spherical=spherical,
        min_points_per_centroid=1,
        max_points_per_centroid=max(1, MAX_TRAINING_POINTS // n_clusters),
    )
    with threadpool_limits(threads):  # of its BLAS too, which ours may have set to one
        trainer.train(
            points,
            weights=None if weights is None else weights.astype(np.float32),
            init_centroids=start,
        )
    centroids = np.ascontiguousarray(trainer.centroids, np.float32).reshape(n_clusters, -1)
    return Training(centroids, np.asarray(trainer.obj, np.float64))


@cache
def library() -> ModuleType:
    """The module ``faiss``.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise ConfigError(
            "faiss is not installed, which a fit by faiss and approximate labels need: "
            "pip install 'eddy-stream[search]'"
        ) from error


def _graph(faiss: ModuleType, centroids: Points, effort: int, seed: int) -> Any:
    """ "Efficient and robust approximate nearest neighbor search using HNSW graphs", 2016."""
    index = faiss.IndexHNSWFlat(centroids.shape[1], LINKS)
    index.hnsw.efConstruction = max(2 * LINKS, effort)
    index.hnsw.efSearch = effort
    index.hnsw.rng = faiss.RandomGenerator(_seed(seed))
    index.add(centroids)
    return index


def _cells(faiss: ModuleType, centroids: Points, effort: int, seed: int) -> Any:
    """Centroids of centroids; "Video Google: a text retrieval approach", 2003, made it common."""
    n_clusters, n_dims = centroids.shape
    n_cells = max(1, min(n_clusters, round(4 * n_clusters**0.5)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(n_dims), n_dims, n_cells)
    index.cp.seed = _seed(seed)
    index.cp.min_points_per_centroid = 1
    index.train(centroids)
    index.nprobe = min(effort, n_cells)
    index.add(centroids)
    return index


def _set_effort(index: Any, effort: int) -> None:
    if hasattr(index, "hnsw"):
        index.hnsw.efSearch = effort
    else:
        index.nprobe = min(effort, index.nlist)


def _seed(seed: int) -> int:
    """faiss takes a positive C int."""
    return seed % (2**31 - 1) + 1
