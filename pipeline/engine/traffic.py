"""What landed in the partitions between two moments, from counters that only grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.messages.events import Head


class Landed(NamedTuple):
    """The counters of one cluster in one partition, since its owner began."""

    n_records: int = 0
    distance: float = 0.0
    distance_squared: float = 0.0


NOTHING = Landed()


@dataclass(frozen=True, slots=True, eq=False)
class TrafficWindow:
    """What landed between two moments; arrays in the order asked for."""

    landed: NDArray[np.int64]
    """(n_clusters,) records."""
    distances: NDArray[np.float64]
    """(n_clusters,) of those records to the centroid of their time, summed."""
    distances_squared: NDArray[np.float64]
    """(n_clusters,)"""
    n_records: int
    """All records, also those that landed nowhere: tombstones, stale ones, dead letters."""
    n_reassigned: int
    """Records that took their item to another cluster."""


class Window:
    """Adds up what counters grew by, until somebody takes it."""

    def __init__(self) -> None:
        self._landed: dict[str, Landed] = {}
        self.n_records = 0
        self._n_reassigned = 0

    def count_head(self, before: Head | None, now: Head) -> None:
        """A head after another of the same owner; ``before`` None: the owner's first."""
        self.n_records += now.records - (0 if before is None else before.records)
        self._n_reassigned += now.reassigned - (0 if before is None else before.reassigned)

    def count_cluster(self, cluster_id: str, before: Landed, now: Landed) -> None:
        """A row after another of the same owner."""
        if now.n_records < before.n_records:  # a counter that fell began anew
            before = NOTHING
        so_far = self._landed.get(cluster_id, NOTHING)
        self._landed[cluster_id] = Landed(
            so_far.n_records + now.n_records - before.n_records,
            so_far.distance + (now.distance - before.distance),
            so_far.distance_squared + (now.distance_squared - before.distance_squared),
        )

    def take(self, cluster_ids: Sequence[str]) -> TrafficWindow:
        """What there is; a new window begins."""
        found = [self._landed.get(cluster_id, NOTHING) for cluster_id in cluster_ids]
        window = TrafficWindow(
            landed=np.array([landed.n_records for landed in found], np.int64),
            distances=np.array([landed.distance for landed in found], np.float64),
            distances_squared=np.array([landed.distance_squared for landed in found], np.float64),
            n_records=self.n_records,
            n_reassigned=self._n_reassigned,
        )
        self._landed = {}
        self.n_records = self._n_reassigned = 0
        return window
