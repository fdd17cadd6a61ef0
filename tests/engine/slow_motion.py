"""Tier 2 in slow motion: partitions that sweep row by row, and who folds what they say."""

from __future__ import annotations

import numpy as np

from pipeline.clustering.centroids import CentroidPolicy
from pipeline.engine.revision import next_revision
from pipeline.engine.totals import Totals
from pipeline.messages.codec import encode_head, encode_statistics, head_key, statistics_key
from pipeline.messages.events import Head, StatisticsRow
from pipeline.messages.records import Record
from tests import naive

MAX_COMPONENT = 256.0
AT_MS = 99
EXACT = CentroidPolicy(tolerance=0.0)


def nearest(point, model):
    return naive.nearest_two(point, model.centroids)[0][1]


class Partition:
    """What an assigner does to one partition, in slow motion."""

    def __init__(self, number, points, labels, model):
        self.number, self.points, self.labels = number, points, list(labels)
        self.n_dims = points.shape[1]
        self.model, self.swept_to = model, model.manifest
        self.to_sweep = []
        self.n_applied = self.offset = 0

    def install(self, model):
        if model is not self.model:
            self.model = model
            self.to_sweep = list(range(len(self.points)))

    def sweep(self, n=1_000_000):
        """The next slice; done when all were looked at since the last model came."""
        for _ in range(min(n, len(self.to_sweep))):
            row = self.to_sweep.pop()
            self.labels[row] = nearest(self.points[row], self.model)
        if not self.to_sweep:
            self.swept_to = self.model.manifest

    def apply(self, row, vector):
        """A record of an item."""
        self.points[row] = vector
        self.labels[row] = nearest(vector, self.model)
        self.n_applied += 1

    def statistics(self):
        """All clusters and the head, as records."""
        clusters = self.model.manifest.clusters
        counts, sums, squares = naive.statistics(
            self.points, self.labels, len(clusters), max_component=MAX_COMPONENT
        )
        said = [
            (
                statistics_key(self.number, cluster),
                encode_statistics(
                    StatisticsRow(
                        self.model.manifest.epoch, count, *divmod(square, 2**32), 0, 0.0, 0.0,
                        np.array(total, np.int64),
                    )
                ),
            )
            for cluster, count, total, square in zip(clusters, counts, sums, squares, strict=True)
        ]  # fmt: skip
        head = Head(
            self.swept_to.epoch, self.swept_to.revision, 0, self.n_applied, len(self.points), 0, 0
        )
        said.append((head_key(self.number), encode_head(head)))
        records = [
            Record(self.number, self.offset + i, key, value) for i, (key, value) in enumerate(said)
        ]
        self.offset += len(records)
        return records


class Site:
    """Some partitions, and the process that folds what they say."""

    def __init__(self, partitions, model, *, rule=None, policy=EXACT):
        self.partitions, self.model, self.rule = partitions, model, rule
        self.policy = policy
        self.totals = Totals(len(partitions), model.centroids.shape[1], max_component=MAX_COMPONENT)
        self.totals.opened()
        self.n_revisions = 0

    def fold(self, records):
        """Statistics arrive; a revision may follow. Without a rule it always does."""
        self.totals.fold(records)
        if not self.totals.are_swept_to(self.model.manifest.epoch):
            return False
        if self.rule is None:
            found = next_revision(self.model, self.totals, self.policy, AT_MS)
        else:
            found = self.rule.propose(self.model, self.totals, AT_MS)
        if found is None:
            return False
        self.model = found
        self.n_revisions += 1
        if self.rule is not None:
            self.rule.published(found)
        return True

    def inertia(self):
        return sum(
            naive.squared_distance(x, self.model.centroids[label])
            for partition in self.partitions
            for x, label in zip(partition.points, partition.labels, strict=True)
        )

    def check_rest(self):
        """Every member in its nearest centroid, every centroid the mean of its members."""
        sums, counts = np.zeros(self.model.centroids.shape), np.zeros(len(self.model.centroids))
        for partition in self.partitions:
            for x, label in zip(partition.points, partition.labels, strict=True):
                assert label == nearest(x, self.model)
                sums[label] += x
                counts[label] += 1
        for label in np.flatnonzero(counts):
            mean = sums[label] / counts[label]
            spread = self.policy.tolerance * 20 + 1e-5
            assert np.abs(self.model.centroids[label] - mean).max() <= spread
