"""What the figures stand beside: scikit-learn from scratch, and who lies near whom.

Both depend on nothing but what lives after a release, and both take minutes: they are kept in a
folder. A piece is computed by whoever misses it first, so several processes may fill it together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from benchmarks._debian import State
from benchmarks._figures import N_NEIGHBOURS, distances_squared, neighbours

N_INIT = 3


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """A fit from scratch, the best of three starts."""

    labels: NDArray[np.intp]  # (n,) in the order of the state's names
    inertia: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Peers:
    """Computes what is not in the folder; without one, what it is asked for."""

    vectors: NDArray[np.float32]
    """Of all texts."""
    folder: Path | None = None
    threads: int = 1

    def fit(self, state: State, n_clusters: int) -> Peer:
        """``KMeans(n_init=3, random_state=0)`` of what lives."""

        def compute() -> dict[str, Any]:
            began = time.perf_counter()
            points = self.vectors[state.rows]
            with threadpool_limits(self.threads):  # on a busy machine more of them are slower
                found = KMeans(n_clusters, n_init=N_INIT, random_state=0).fit(points)
            inertia = distances_squared(points, found.cluster_centers_, found.labels_).sum()
            return {
                "labels": found.labels_.astype(np.int32),
                "inertia": inertia,  # in float64, as Eddy's
                "seconds": time.perf_counter() - began,
            }

        name = f"kmeans-{n_clusters}-init{N_INIT}-sklearn-{sklearn.__version__}"
        held = self._held(name, state, compute)
        return Peer(held["labels"].astype(np.intp), float(held["inertia"]), float(held["seconds"]))

    def neighbours(self, state: State) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(n,) the vector of each item, and (n_texts, 10) the nearest others that live.

        A vector is named by the first text that has it, so items with one vector count once.
        Rows of texts that nobody has are -1.
        """
        first = self._first_of_equals()

        def compute() -> dict[str, Any]:
            live = np.unique(first[state.rows])
            return {"live": live, "near": live[neighbours(self.vectors[live])]}

        held = self._held(f"neighbours-{N_NEIGHBOURS}", state, compute)
        near = np.full((len(self.vectors), N_NEIGHBOURS), -1, np.intp)
        near[held["live"], : held["near"].shape[1]] = held["near"]
        return first[state.rows], near

    def _first_of_equals(self) -> NDArray[np.intp]:
        """(n_texts,) the first row with the same vector."""
        rows = np.ascontiguousarray(self.vectors)
        as_bytes = rows.view(f"V{rows.itemsize * rows.shape[1]}").ravel()
        _, first, places = np.unique(as_bytes, return_index=True, return_inverse=True)
        return first[places].astype(np.intp)

    def _held(
        self, name: str, state: State, compute: Callable[[], dict[str, Any]]
    ) -> Mapping[str, Any]:
        if self.folder is None:
            return compute()
        told = sha256(self.vectors[state.rows].data).hexdigest()[:16]
        path = self.folder / f"{name}-{state.release}-{told}.npz"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{time.time_ns()}.npz")
            np.savez(part, **compute())
            part.replace(path)  # never half of one
        with np.load(path) as file:
            return dict(file)
