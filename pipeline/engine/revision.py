"""Centroids follow their members: when the next revision may be published, and what it says.

Why this comes to an end
------------------------
While records are applied, a revision may be made of whatever the partitions say: that is k-means
of a stream, and there is nothing it could arrive at.

When no record was applied anywhere since the last revision, the next one waits until the heads of
all partitions name that one. Every member then stands in its exactly nearest centroid, and the
totals are those of this very assignment: one turn is one pass of Lloyd's algorithm over all members
("Least squares quantization in PCM", 1982). Each half of a turn lowers the inertia or changes
nothing, there are finitely many assignments, so it ends; and where it ends, every member sits in
its nearest centroid, and every centroid is within the tolerance of the mean of its members.

Without that wait it need not end. A sweep always lags a little; if totals of revision r - 1 made
revision r + 1 while members were being swept to r, the even revisions would be one run of Lloyd and
the odd ones another, each over the assignments of the other's past, and two runs may end in two
different optima: every item between them would move to and fro for ever.

What is left are last bits: a centroid is rounded to float32, a sum to its unit, and under cosine
the mean is normalised, so two assignments may follow each other in a circle whose inertia differs
by less than the arithmetic. So a revision that equals an earlier one of the same rest is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.centroids import CentroidPolicy
from pipeline.clustering.quality import mean_squared_distances
from pipeline.engine.epoch import revised
from pipeline.engine.totals import Totals
from pipeline.messages.model import Model

AT_ONCE = 256  # clusters whose means are in memory together
MAX_REMEMBERED = 1000  # revisions of one rest: the longest circle that is noticed


def next_revision(
    model: Model,
    totals: Totals,
    policy: CentroidPolicy,
    created_at_ms: int,
    *,
    clusters: Collection[str] | None = None,
) -> Model | None:
    """The model with the centroids where their members are now; None if none moved.

    A centroid moves if it is farther from its members' mean than ``policy.tolerance`` times their
    root mean squared distance to it. A cluster without members keeps its centroid; so does, under
    cosine, one whose mean is zero, since that has no direction.

    Parameters
    ----------
    model
        The newest; not modified.
    clusters
        Where to look; None: at all. Others have not changed since they were looked at, says the
        caller. Those that the model does not have are passed over.
    """
    manifest = model.manifest
    wanted = None if clusters is None else set(clusters)
    labels = np.array(
        [i for i, c in enumerate(manifest.clusters) if wanted is None or c in wanted], np.intp
    )
    moved: dict[int, NDArray[np.float32]] = {}
    for start in range(0, len(labels), AT_ONCE):
        some = labels[start : start + AT_ONCE]
        names = [manifest.clusters[label] for label in some.tolist()]
        found = _followed(
            model.centroids[some], totals, names, policy.tolerance, manifest.metric == "cosine"
        )
        moved |= {int(some[i]): row for i, row in found.items()}
    return revised(model, moved, created_at_ms) if moved else None


def _followed(
    centroids: NDArray[np.float32],
    totals: Totals,
    cluster_ids: list[str],
    tolerance: float,
    spherical: bool,
) -> dict[int, NDArray[np.float32]]:
    """The new centroids of those that move, by their place."""
    weights, means = totals.weights(cluster_ids), totals.means(cluster_ids)
    spreads_squared = mean_squared_distances(weights, means, totals.squares(cluster_ids), centroids)
    goes = weights > 0.0
    if spherical:
        lengths = np.sqrt(np.einsum("ij,ij->i", means, means))
        goes &= lengths > 0.0
        means /= np.where(lengths > 0.0, lengths, 1.0)[:, None]
    targets = means.astype(np.float32)
    gaps = targets.astype(np.float64)
    gaps -= centroids
    distances = np.sqrt(np.einsum("ij,ij->i", gaps, gaps))
    goes &= distances > tolerance * np.sqrt(spreads_squared)
    return {i: targets[i] for i in np.flatnonzero(goes).tolist()}


class _Moment(NamedTuple):
    """A state of the totals; what changes later is looked at again."""

    epoch: int
    mark: int
    next_offset: int


@dataclass(slots=True, eq=False)
class RevisionRule:
    """Makes revisions when their time has come; the module says when, and why.

    Ask `propose` when heads brought news, and tell `published` once the transaction of what it
    returned is committed: until then, asking again looks at the same clusters again. It remembers
    nothing that must survive: a process that starts anew waits for all heads once.
    """

    policy: CentroidPolicy
    _looked_at: _Moment | None = None
    """Clusters that have not changed since are where they should be."""
    _proposed: _Moment | None = None
    _published_at: _Moment | None = None
    _rest: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_REMEMBERED))
    """Digests of the revisions since records were last applied."""

    def is_due(self, model: Model, totals: Totals) -> bool:
        """Whether a revision may be made of these totals.

        The heads of all partitions must name the model's epoch. Where no record was applied
        since the last revision, or nobody knows, they must name the newest one.
        """
        manifest, last = model.manifest, self._published_at
        is_moving = (
            last is not None
            and last.epoch == manifest.epoch
            and last.next_offset != totals.next_offset
        )
        return totals.are_swept_to(manifest.epoch, None if is_moving else manifest.revision)

    def propose(self, model: Model, totals: Totals, created_at_ms: int) -> Model | None:
        """The next revision of the newest model; None if it is not due, or nothing moves."""
        if not self.policy.enabled or not self.is_due(model, totals):
            return None
        now = _Moment(model.manifest.epoch, totals.mark, totals.next_offset)
        last = self._looked_at
        clusters = None
        if last is not None and last.epoch == now.epoch:
            clusters = totals.changed_since(last.mark)
        found = next_revision(model, totals, self.policy, created_at_ms, clusters=clusters)
        if found is None or (self._is_same_rest(now) and found.manifest.digest in self._rest):
            self._looked_at = now
            return None
        self._proposed = now
        return found

    def published(self, model: Model) -> None:
        """What `propose` returned last is the newest model now."""
        now = self._proposed
        assert now is not None, "nothing was proposed"
        if not self._is_same_rest(now):
            self._rest.clear()
        self._rest.append(model.manifest.digest)
        self._looked_at = self._published_at = now
        self._proposed = None

    def _is_same_rest(self, now: _Moment) -> bool:
        last = self._published_at
        return last is not None and last.epoch == now.epoch and last.next_offset == now.next_offset
