"""Tier 2 at the reclusterer: what the partitions say of their clusters in, revisions out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from pipeline.clustering.centroids import CentroidPolicy
from pipeline.clustering.quality import Quality, assess, mean_squared_distances, shifts
from pipeline.engine.revision import RevisionRule
from pipeline.engine.totals import Totals
from pipeline.errors import TransientError
from pipeline.messages.model import Model
from pipeline.streams.contract import Broker, Reader
from pipeline.streams.topics import TopicPolicy

SLICE_RECORDS = 4000
SLICE_WAIT_S = 0.1
QUALITY_AGE_S = 1.0
"""It takes a pass over all sums, so it is not asked of them at every turn."""


@dataclass(slots=True)
class Following:
    """Reads `cluster-stats` from its beginning, and goes on following it."""

    broker: Broker
    topics: TopicPolicy
    totals: Totals
    policy: CentroidPolicy
    on_head: Callable[[int | None], None]
    """Called after each head with its timestamp, in milliseconds."""
    _reader: Reader | None = None
    _rule: RevisionRule = field(init=False)
    _has_news: bool = False
    """Whether a head came since the totals were last looked at."""
    _published_s: float = float("-inf")
    _quality: Quality | None = None
    _quality_s: float = float("-inf")
    _quality_epoch: int = 0

    def __post_init__(self) -> None:
        self._rule = RevisionRule(self.policy)

    def begin(self) -> Generator[int, None, None]:
        """Read the topic to the end that it has now, in slices."""
        self._reader = self.broker.reader(self.topics.statistics)
        while not self._reader.at_end:
            with suppress(TransientError):  # the broker is away; the reader goes on
                self._take(SLICE_WAIT_S)
            yield 1
        self.totals.opened()

    def read(self) -> int:
        """Take one slice in; how many records it had."""
        return self._take(0.0)

    def _take(self, timeout_s: float) -> int:
        assert self._reader is not None, "begin first"
        records = self._reader.read(SLICE_RECORDS, timeout_s=timeout_s)
        start = 0
        for end, record in enumerate(records, 1):
            if b"/" not in (record.key or b"/"):  # a head: what it brings may close a window
                self.totals.fold(records[start:end])
                self._has_news, start = True, end
                self.on_head(record.timestamp_ms)
        self.totals.fold(records[start:])
        return len(records)

    def revision(self, model: Model, created_at_ms: int, *, now_s: float) -> Model | None:
        """The next revision, if it is time and a centroid moves; again until it is `published`.

        ``now_s`` is of a clock that never goes back, here and below: one that was set back would
        hold the next revision up for just as long.
        """
        if not self._has_news or now_s - self._published_s < self.policy.min_interval_s:
            return None
        found = self._rule.propose(model, self.totals, created_at_ms)
        self._has_news = found is not None
        return found

    def published(self, revision: Model, *, now_s: float) -> None:
        """What `revision` returned last is the newest model."""
        self._rule.published(revision)
        self._has_news, self._published_s = False, now_s

    def quality(self, model: Model, *, now_s: float, silhouette: float | None) -> Quality:
        """How good the clustering is, at most `QUALITY_AGE_S` ago."""
        is_old = now_s - self._quality_s >= QUALITY_AGE_S
        if self._quality is None or is_old or self._quality_epoch != model.manifest.epoch:
            self._quality = self._assessed(model, silhouette)
            self._quality_s, self._quality_epoch = now_s, model.manifest.epoch
        return self._quality

    def _assessed(self, model: Model, silhouette: float | None) -> Quality:
        """What the members say counts under their own epoch only; before, the fit speaks."""
        manifest = model.manifest
        ids = manifest.clusters
        spreads = model.mean_squared_distances
        shift = shifts(model.centroids, model.fitted, spreads)
        at_fit = manifest.fitted_inertia / manifest.fitted_items if manifest.fitted_items else None
        if not self.totals.are_swept_to(manifest.epoch):
            weights = model.counts.astype(np.float64)
            return assess(
                model.counts, weights, spreads, shift, inertia_at_fit=at_fit, silhouette=silhouette
            )
        weights = self.totals.weights(ids)
        means, squares = self.totals.means(ids), self.totals.squares(ids)
        return assess(
            self.totals.counts(ids),
            weights,
            mean_squared_distances(weights, means, squares, model.centroids),
            shift,
            inertia_at_fit=at_fit,
            silhouette=silhouette,
        )

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
