"""What every part of the engine is told: policies, the model, and the table of labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.contract import Kernels
from pipeline.messages.model import Model
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy, LimitPolicy
from pipeline.state.members import Version
from pipeline.streams.topics import TopicPolicy


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What does not change while a process lives."""

    topics: TopicPolicy
    embedding: EmbeddingPolicy
    limits: LimitPolicy
    events: EventPolicy
    input_is_compacted: bool
    """Whether the input's policy is exactly `compact`: then it stores the vectors, but for those
    it cannot give back; else all of them are written to `item-vectors`."""


@dataclass(slots=True)
class ClusterTable:
    """Label <-> cluster id, for the clusters of the model and the retired ones behind them.

    A label is an index into arrays and changes with the model; an id never does.
    """

    ids: list[str] = field(default_factory=list)
    n_live: int = 0
    """The first ``n_live`` labels are those of the model; nothing is assigned to the others."""

    def __len__(self) -> int:
        return len(self.ids)

    def followed_by(self, live: Iterable[str]) -> tuple[ClusterTable, NDArray[np.int32]]:
        """The table of the next model, and for each label of this one its label there."""
        ids = list(live)
        n_live = len(ids)
        ids += sorted(set(self.ids) - set(ids), key=cluster_number)
        at = {cluster_id: label for label, cluster_id in enumerate(ids)}
        moved = np.array([at[cluster_id] for cluster_id in self.ids], np.int32)
        return ClusterTable(ids, n_live), moved


def cluster_number(cluster_id: str) -> int:
    """The number in ``c<number>``."""
    return int(cluster_id[1:])


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """The model that is assigned to, as the device has it."""

    model: Model
    device: Any  # belongs to the kernels

    @classmethod
    def of(cls, model: Model, kernels: Kernels) -> LoadedModel:
        return cls(model, kernels.load(model.centroids))

    @property
    def version(self) -> Version:
        return Version(self.model.manifest.epoch, self.model.manifest.revision)


def shown(distances_squared: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """From canonical squared distances to those that users see.

    Under cosine the vectors have length 1, so 1 - cos is half the squared distance.
    """
    return distances_squared / 2.0 if metric == "cosine" else np.sqrt(distances_squared)
