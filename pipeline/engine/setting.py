"""What every part of the engine is told: policies, the model, and the table of labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.forgetting import Decay
from pipeline.clustering.profile import typicality
from pipeline.errors import TopicError
from pipeline.kernels.contract import Kernels, Labels
from pipeline.messages.embedding import in_force
from pipeline.messages.manifest import Manifest
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
    writes_dead_letters: bool = True
    """False: they are only counted, for whoever reads an input again whose letters are written."""

    def under(self, manifest: Manifest) -> EngineSettings:
        """The same under a model: it says whose vectors are good, of the models configured."""
        embedding = in_force(self.embedding, manifest.embedding_model, manifest.embedding_since)
        return self if embedding == self.embedding else replace(self, embedding=embedding)


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
    is_profiled: NDArray[np.bool_]
    """(n_clusters,) whether it is known how far the members lay at the fit."""
    decay: Decay | None
    """How members fade; by the manifest, never the configuration: all owners count alike."""

    @classmethod
    def of(cls, model: Model, kernels: Kernels) -> LoadedModel:
        device, decay = kernels.load(model.centroids), decay_of(model.manifest)
        return cls(model, device, model.is_profiled, decay)

    @property
    def version(self) -> Version:
        return version_of(self.model)

    def is_revised_by(self, model: Model) -> bool:
        """Whether a newer model only moves the centroids of this one."""
        mine, its = self.model.manifest, model.manifest
        return (
            mine.epoch == its.epoch
            and mine.clusters == its.clusters
            and self.decay == decay_of(its)
        )

    def is_comparable_with(self, model: Model) -> bool:
        """Whether both are of one embedding model."""
        return self.model.manifest.embedding_since == model.manifest.embedding_since

    def typicality(
        self, labels: Labels, distances_squared: NDArray[np.float64]
    ) -> list[float | None]:
        """How usual points are for their clusters, as these were at the fit; None: not known.

        Parameters
        ----------
        labels, distances_squared : (n,)
            The clusters that the points are in, and the canonical squared distances to them.
        """
        shares = typicality(self.model.quantiles[labels], np.sqrt(distances_squared)).tolist()
        known = self.is_profiled[labels].tolist()
        return [share if told else None for share, told in zip(shares, known, strict=True)]


def check_model(manifest: Manifest, settings: EngineSettings) -> None:
    """Whether a model is of the vectors that are good here; TopicError if it is not."""
    wanted = settings.embedding
    is_named_late = manifest.embedding_model is None and manifest.embedding_since is None
    for name, got, expected in (
        ("dimensions", manifest.dimensions, wanted.dimensions),
        ("metric", manifest.metric, wanted.metric),
        ("max_component", manifest.max_component, wanted.largest_component),
        ("model", wanted.model if is_named_late else manifest.embedding_model, wanted.model),
    ):
        if got == expected:
            continue
        told = (
            f"the model in {settings.topics.model} has {name} {got!r}, but the configuration "
            f"says {expected!r}"
        )
        if manifest.embedding_since is not None:
            told += f"; it took over with epoch {manifest.embedding_since}: set embedding.{name}"
            raise TopicError(f"{told} to it")
        raise TopicError(
            f"{told}; it is for the life of a prefix: set embedding.{name} back, or begin anew "
            "with another topics.prefix"
        )
    if manifest.input_policy == "compact" and not settings.input_is_compacted:
        now = "no longer exactly compact"
    elif manifest.input_policy != "compact" and settings.input_is_compacted:
        now = "exactly compact now"
    else:
        return
    raise TopicError(
        f"the cleanup policy of {settings.topics.input} was {manifest.input_policy!r} "
        f"when the first model was made, and is {now}; set it back"
    )


def decay_of(manifest: Manifest) -> Decay | None:
    """How the members of a model fade; None: they do not."""
    if manifest.half_life_s is None or manifest.landmark_ms is None:
        return None
    return Decay(manifest.half_life_s, manifest.landmark_ms)


def version_of(model: Model) -> Version:
    """Which model it is."""
    return Version(model.manifest.epoch, model.manifest.revision)


def shown(distances_squared: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """From canonical squared distances to those that users see.

    Under cosine the vectors have length 1, so 1 - cos is half the squared distance.
    """
    return distances_squared / 2.0 if metric == "cosine" else np.sqrt(distances_squared)
