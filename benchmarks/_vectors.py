"""Real embeddings for the benchmarks of arithmetic, and centroids that few passes have found.

Of the full Debian set (``--folder``), else of the slice that ships with ``eddy demo``. More
dimensions come from an isometric lift, which keeps every distance, and 5 % of noise energy over
all of them: without it the lift would have a rank that no real embedding of its width has.
"""

from __future__ import annotations

import json
import lzma
from collections import defaultdict
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks._debian import read, states
from benchmarks._workload import make_workload
from pipeline.kernels.contract import Points

NOISE_ENERGY: Final = 0.05
LLOYD_PASSES: Final = 4
CHUNK: Final = 4096


class Vectors:
    """Embeddings of texts, by the number of dimensions that is wanted."""

    def __init__(self, folder: Path | None, seed: int) -> None:
        if folder is not None and not folder.is_dir():
            raise SystemExit(f"{folder} is no folder with the full Debian set")
        self.folder = folder
        self.seed = seed
        self.packages = read(folder)
        self.texts: Points = self.packages.vectors
        self._lifted: dict[int, Points] = {self.texts.shape[1]: self.texts}

    @property
    def told(self) -> str:
        """What the points are, for the head of a table."""
        kind = "the slice that ships" if self.folder is None else "full set"
        return f"Debian package descriptions, {kind}: {len(self.texts)} texts"

    def of(self, n_dims: int) -> Points:
        """(n_texts, n_dims), of unit length."""
        if n_dims not in self._lifted:
            self._lifted = {self.texts.shape[1]: self.texts, n_dims: lifted(self.texts, n_dims)}
        return self._lifted[n_dims]

    def sample(self, n: int, n_dims: int, seed: int = 0) -> Points:
        """``n`` distinct points: texts, and where there are more points, texts with noise."""
        rng = np.random.default_rng([self.seed, 3, seed])
        if n_dims == self.texts.shape[1] and n > len(self.texts) and self.folder is None:
            return make_workload(n, n_dims, self.seed).items
        held = self.of(n_dims)
        if n <= len(held):
            return held[rng.permutation(len(held))[:n]]
        points = held[rng.integers(len(held), size=n)]
        points += rng.standard_normal(points.shape, np.float32) * np.float32(
            (NOISE_ENERGY / n_dims) ** 0.5
        )
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        return points

    def living(self) -> Points:
        """One vector for each package that lives at the end."""
        *_, last = states(self.packages)
        return self.texts[last.rows]

    def tenants(self, least: int, most: int) -> list[Points]:
        """What each maintainer's packages say; the slice has no maintainers, but sections."""
        *_, last = states(self.packages)
        owners: dict[str, list[int]] = defaultdict(list)
        maintainer = self._maintainers()
        for name, row, section in zip(last.names, last.rows, last.sections, strict=True):
            owners[maintainer.get(name, str(section))].append(row)
        return [
            self.texts[rows] for _, rows in sorted(owners.items()) if least <= len(rows) <= most
        ]

    def _maintainers(self) -> dict[str, str]:
        path = None if self.folder is None else self.folder / "nodes.jsonl.xz"
        if path is None or not path.exists():
            return {}
        with lzma.open(path, "rb") as file:
            nodes = [json.loads(line) for line in file]
        return {node["node_id"]: node["maintainer"] for node in nodes}


def lifted(points: Points, n_dims: int, seed: int = 0) -> Points:
    """Turned into ``n_dims`` dimensions, with noise, to unit length."""
    rng = np.random.default_rng([seed, 4])
    turn = np.linalg.qr(rng.standard_normal((n_dims, points.shape[1])))[0].astype(np.float32)
    found = points @ turn.T
    found += rng.standard_normal(found.shape, np.float32) * np.float32(
        (NOISE_ENERGY / n_dims) ** 0.5
    )
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return np.ascontiguousarray(found)


def centroids_of(points: Points, n_clusters: int, seed: int, passes: int = LLOYD_PASSES) -> Points:
    """A few passes of Lloyd from random points, in NumPy, so that nothing measured made them."""
    rng = np.random.default_rng([seed, 5])
    centroids = points[rng.choice(len(points), n_clusters, replace=False)].copy()
    for _ in range(passes):
        labels = nearest(points, centroids)
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels, minlength=n_clusters)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        has = counts > 0
        sums = np.add.reduceat(points[order], starts[has], axis=0, dtype=np.float64)
        centroids[has] = sums / counts[has, None]
    return centroids


def nearest(points: Points, centroids: Points) -> NDArray[np.intp]:
    """By a float32 product."""
    squares = np.square(centroids).sum(axis=1)
    return np.concatenate(
        [
            (squares - 2.0 * (points[start : start + CHUNK] @ centroids.T)).argmin(axis=1)
            for start in range(0, len(points), CHUNK)
        ]
    )
