"""A graph of neighbours by faiss: points in, the mostly nearest ones of a query out.

"Efficient and robust approximate nearest neighbor search using hierarchical navigable small world
graphs", 2016, algorithms 1, 2 and 5. faiss takes nothing out of it, so who forgets points builds
another some day. Points are held as float16: half the memory, and no answer depends on it, since
who asks measures what is found again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.approximate import library
from pipeline.kernels.contract import Points

LINKS = 32
"""Of a point, twice as many on the ground floor."""
BUILD_EFFORT = 128
"""Candidates for the links of a new point. At a million rows, twenty each of them copies of one
with noise, a graph of 64 did not come to a recall of 0.99 with 1 024 candidates in a search; one of
128 finds 0.9995 with 128, and takes twice as long to build."""


class NeighbourGraph:
    """Points are numbered in the order in which they are added.

    Two threads may search at a time; while one adds, nobody else may do anything.

    Raises
    ------
    ConfigError
        faiss is not installed.
    """

    def __init__(self, n_dims: int, *, seed: int = 0) -> None:
        self._faiss = faiss = library()
        half = faiss.ScalarQuantizer.QT_fp16
        self._index: Any = faiss.IndexHNSWSQ(n_dims, half, LINKS)
        self._index.hnsw.efConstruction = BUILD_EFFORT
        self._index.hnsw.rng = faiss.RandomGenerator(seed % (2**31 - 1) + 1)
        self._index.train(np.zeros((1, n_dims), np.float32))  # float16 has nothing to learn

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def n_bytes(self) -> int:
        """Bytes that it holds, without room to grow."""
        graph = self._index.hnsw
        links = 4 * graph.neighbors.size() + 8 * graph.offsets.size() + 4 * graph.levels.size()
        return int(2 * len(self) * self._index.d + links)

    def add(self, points: Points, *, threads: int = 1) -> None:
        """Add points (n, n_dims) float32; with several threads no two graphs are the same."""
        self._faiss.omp_set_num_threads(threads)  # of the thread that calls
        self._index.add(points)

    def search(self, point: NDArray[np.float32], n_wanted: int, effort: int) -> NDArray[np.int64]:
        """(at most n_wanted,) numbers of points near to one (n_dims,), the nearest first.

        Parameters
        ----------
        effort
            Candidates that are kept on the way: more take longer, and find more of the nearest.
        """
        chosen = self._faiss.SearchParametersHNSW(efSearch=max(effort, n_wanted))
        _, found = self._index.search(point[None], n_wanted, params=chosen)
        numbers: NDArray[np.int64] = found[0]
        return numbers[numbers >= 0]
