"""Fits and other work on the sample, run beside the loop: each ends in a candidate for an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.forgetting import Decay
from pipeline.clustering.kmeans import ClusteringPolicy
from pipeline.clustering.quality import simplified_silhouette
from pipeline.clustering.recluster import (
    Candidate,
    FitSettings,
    merge_clusters,
    propose,
    restated,
    split_cluster,
)
from pipeline.clustering.schedule import ReclusterPolicy, Trigger
from pipeline.clustering.transfer import transferred
from pipeline.kernels.contract import Kernels, Points, Weights
from pipeline.messages.commands import Command
from pipeline.messages.halves import widened
from pipeline.messages.model import Model
from pipeline.messages.policy import EmbeddingPolicy
from pipeline.services.reclusterer.sampling import SampleReader
from pipeline.services.spans import Phases
from pipeline.state.rows import NOWHERE
from pipeline.state.sample import Sample

SILHOUETTE_POINTS = 10_000  # an error of some 0.001


@dataclass(slots=True, eq=False)
class Job:
    """Work that is under way, and what its result will be judged and published by."""

    trigger: Trigger
    command: Command | None
    reason: str
    """As `installed` tells it."""
    offsets: Mapping[int, int]
    """Of the input, up to where the sample had read."""
    n_items: int
    future: Future[Candidate]
    phases: Phases
    """What it spends its time on."""
    cluster_ids: tuple[str, ...] | None = None
    """A rollback's: ids are taken as they are."""
    must_publish: bool = False
    """Somebody asked for just this: it is not held against the incumbent."""
    silhouette: float | None = None
    """Of the sample under the result, simplified."""
    embedding: EmbeddingPolicy | None = None
    """What takes over with it; None: the embedding model stays."""
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Nobody wants the result any more."""
        self.is_cancelled = True
        self.future.cancel()


Work = Callable[[Points, Weights | None, "Job"], Candidate]


@dataclass(slots=True)
class Workshop:
    """Begins jobs; one at a time is the caller's affair."""

    sampling: SampleReader
    settings: FitSettings
    kernels: Kernels
    executor: Executor
    half_life_s: float | None
    """What the next epoch's members fade by, and so those that it is fitted on."""
    clock: Callable[[], float]
    """Seconds since 1970."""

    def recluster(self, trigger: Trigger, command: Command | None, incumbent: Model | None) -> Job:
        """A full fit."""
        present = None if incumbent is None else incumbent.centroids

        def work(points: Points, weights: Weights | None, job: Job) -> Candidate:
            return propose(
                points,
                present,
                self.settings,
                kernels=self.kernels,
                is_cold=command is not None and command.cold,
                weights=weights,
                is_cancelled=lambda: job.is_cancelled,
                at=job.phases.at,
            )

        is_forced = command is not None and command.force
        return self._begin(trigger, command, trigger.value, work, must_publish=is_forced)

    def split(self, command: Command, incumbent: Model) -> Job:
        """One cluster in two; ValueError if there is none of that name."""
        label = incumbent.manifest.clusters.index(command.cluster or "")

        def work(points: Points, weights: Weights | None, job: Job) -> Candidate:
            return split_cluster(
                points,
                incumbent.centroids,
                label,
                self.settings,
                kernels=self.kernels,
                weights=weights,
                is_cancelled=lambda: job.is_cancelled,
                at=job.phases.at,
            )

        return self._begin(Trigger.COMMAND, command, "split", work, must_publish=True)

    def merge(self, command: Command, incumbent: Model) -> Job:
        """Several clusters in one; ValueError if there is one that is not."""
        labels = [incumbent.manifest.clusters.index(cluster) for cluster in command.clusters]

        def work(points: Points, weights: Weights | None, job: Job) -> Candidate:
            return merge_clusters(
                points,
                incumbent.centroids,
                labels,
                self.settings,
                kernels=self.kernels,
                weights=weights,
                at=job.phases.at,
            )

        return self._begin(Trigger.COMMAND, command, "merge", work, must_publish=True)

    def rollback(self, command: Command, to: Model, incumbent: Model) -> Job:
        """An older epoch's centroids and ids once more."""
        at = {cluster: label for label, cluster in enumerate(incumbent.manifest.clusters)}
        heirs = np.array([at.get(cluster, -1) for cluster in to.manifest.clusters], np.int32)
        job = self._restate(
            Trigger.COMMAND,
            command,
            f"rollback to epoch {to.manifest.epoch}",
            (to.centroids, incumbent.centroids, heirs),
        )
        job.cluster_ids = to.manifest.clusters
        return job

    def transfer(self, incumbent: Model, successors: Sample, embedding: EmbeddingPolicy) -> Job:
        """A fit on the vectors of the next embedding model; ids go over by the items with both."""
        sample, keys = self.sampling.sample, successors.snapshot()[0]
        rows = sample.find_all(keys)
        has_both = rows != NOWHERE
        vectors = widened(sample.vectors[rows[has_both]])

        def work(points: Points, weights: Weights | None, job: Job) -> Candidate:
            job.phases.at("align")
            old = self.kernels.assign(self.kernels.load(incumbent.centroids), vectors)
            old_labels = np.full(len(points), -1, np.int32)
            old_labels[has_both] = old.labels
            return transferred(
                points,
                old_labels,
                len(incumbent.centroids),
                self.settings,
                kernels=self.kernels,
                weights=weights,
                is_cancelled=lambda: job.is_cancelled,
                at=job.phases.at,
            )

        reason = Trigger.EMBEDDING
        job = self._begin(reason, None, reason.value, work, must_publish=True, sample=successors)
        job.embedding = embedding
        return job

    def grow(self, newborn: Points, incumbent: Model) -> Job:
        """The present clusters, and those that far items have founded."""
        n = len(incumbent.centroids)
        heirs = np.concatenate([np.arange(n), np.full(len(newborn), -1)]).astype(np.int32)
        centroids = np.concatenate([incumbent.centroids, newborn])
        return self._restate(
            Trigger.QUALITY, None, "births", (centroids, incumbent.centroids, heirs)
        )

    def _restate(
        self,
        trigger: Trigger,
        command: Command | None,
        reason: str,
        given: tuple[Points, Points, NDArray[np.int32]],
    ) -> Job:
        centroids, present, heirs = given

        def work(points: Points, weights: Weights | None, job: Job) -> Candidate:
            return restated(
                points,
                centroids,
                present,
                heirs,
                kernels=self.kernels,
                weights=weights,
                at=job.phases.at,
            )

        return self._begin(trigger, command, reason, work, must_publish=True)

    def _begin(
        self,
        trigger: Trigger,
        command: Command | None,
        reason: str,
        work: Work,
        *,
        must_publish: bool,
        sample: Sample | None = None,
    ) -> Job:
        phases = Phases(self.clock)
        phases.at("load")
        chosen = self.sampling.sample if sample is None else sample
        _, points, timestamps = chosen.snapshot()
        weights = None
        if self.half_life_s is not None:
            # any moment does as the landmark: only how they compare matters to a fit
            now_ms = int(self.clock() * 1000)
            weights = Decay(self.half_life_s, now_ms).weight(timestamps)
        job = Job(
            trigger=trigger,
            command=command,
            reason=reason,
            offsets=dict(self.sampling.positions),
            n_items=len(points),
            future=Future(),
            phases=phases,
            must_publish=must_publish,
        )
        job.future = self.executor.submit(self._run, work, points, weights, job)
        self.sampling.give_up()
        return job

    def _run(self, work: Work, points: Points, weights: Weights | None, job: Job) -> Candidate:
        candidate = work(points, weights, job)
        if weights is not None and len(points):
            # as many squares as items, whatever they weigh: what is divided by the items later
            scale, before = len(points) / float(weights.sum()), candidate.inertia_before
            candidate = replace(
                candidate,
                inertia_before=None if before is None else scale * before,
                inertia_after=scale * candidate.inertia_after,
            )
        some = points[: len(points) : max(1, len(points) // SILHOUETTE_POINTS)]
        found = self.kernels.assign(
            self.kernels.load(candidate.centroids), np.ascontiguousarray(some), second=True
        )
        assert found.second_distances_squared is not None
        job.silhouette = simplified_silhouette(
            found.distances_squared, found.second_distances_squared
        )
        job.phases.at(None)
        return candidate


def fit_settings(
    clustering: ClusteringPolicy, policy: ReclusterPolicy, embedding: EmbeddingPolicy
) -> FitSettings:
    """What a fit has to know of the configuration."""
    return FitSettings(
        n_clusters=clustering.min if clustering.clusters == "auto" else clustering.clusters,
        seed=clustering.seed,
        max_iterations=policy.max_iterations,
        max_component=embedding.largest_component,
        spherical=embedding.metric == "cosine",
        is_auto=clustering.clusters == "auto",
        min_clusters=clustering.min,
        max_clusters=clustering.max,
    )
