"""How many clusters there are: a fit is split and merged until tests leave it alone.

K-means lowers the inertia with every split, also of one round heap, so inertia is no evidence. A
cluster is split where a valley runs through it (`pipeline.clustering.valleys`), at a stated level;
neighbours are merged where none runs between them, at a level far laxer; what is too light for any
test dies. In real data k-means itself works against the tests: it cuts wide heaps and joins narrow
ones, and so leaves some valleys inside whatever K is. The search therefore ends like that of
`pipeline.clustering.relocation`: with an attempt after which the tests asked for more, not less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.kmeans import Fit, FitCancelledError
from pipeline.clustering.valleys import along, lots, p_value, side_means, two_means
from pipeline.kernels.contract import Kernels, Points

SPLIT_LEVEL = 0.01
"""The probability that a round splits any cluster with one mode at all, however many there are.
Measured on one cluster: 0.008 of 4 000 uniform squares, the worst case; fewer of Gaussian,
heavy-tailed, skewed and cut ones, as their dip is far below the uniform's."""
MERGE_LEVEL = 0.05
"""Of a pair, uncorrected: with K = 100 five hundred times the level of a split, so that a split
is not taken back by the luck of the next test."""
MIN_MEMBERS = 8
"""A cluster with fewer dies: the two hands of a test would hold less than the dip test needs."""
MAX_TESTED = 4_000
"""Members that a test looks at: the dip of a valley one sees by eye is proven by a few hundred."""
MAX_UNREST_LEFT = 0.8
"""An attempt that leaves a larger share of the unrest is the last one, and is dropped. On real data
k-means and the tests never quite agree: 5 to 12 changes in 100 clusters stay wanted."""
MAX_REFITS = 6
MAX_ROUNDS = 20
MIN_UNREST = 0.05
"""A round that changes a smaller share of the clusters is the last before a fit: its passes move
more than that."""
N_NEIGHBOURS = 8
"""Clusters whose walls bound a merged cell; those farther away seldom touch it."""


def adapted(
    points: Points,
    found: Fit,
    *,
    min_clusters: int,
    max_clusters: int,
    kernels: Kernels,
    refit: Callable[[Points], Fit],
    seed: int,
    level: float = SPLIT_LEVEL,
    merge_level: float = MERGE_LEVEL,
    is_cancelled: Callable[[], bool] | None = None,
) -> Fit:
    """Split, merge and drop clusters and fit again, as long as the tests then ask for less.

    The same attempt comes again on the same points, so a search from the result stays there.

    Parameters
    ----------
    points : (n_points, n_dims) float32
    found
        Where to begin. Many small heaps in one cluster may look like a single one from afar: begin
        with more clusters than few.
    min_clusters, max_clusters
        Limits of the result, 1 <= min <= max; fewer than min only where points are too few.
    refit
        Fits the points from given centroids, which need not be unit vectors.
    seed
        In which hand of the tests a point is.
    level
        Probability that a round splits any cluster that has one mode.
    merge_level
        Neighbours are merged if a valley such as theirs is more frequent than that.
    is_cancelled
        Asked before each round.

    Returns
    -------
    Fit
        ``found`` itself if no attempt was better.

    Raises
    ------
    FitCancelledError
    """

    def round_of(centroids: Points) -> _Round:
        if is_cancelled is not None and is_cancelled():
            raise FitCancelledError("the search for the number of clusters was cancelled")
        cells = trial.cells(centroids)
        changes = _Round(centroids, min_clusters, max_clusters)
        for label in np.argsort(cells.counts, kind="stable").tolist():
            if cells.counts[label] < MIN_MEMBERS and changes.n_clusters > min_clusters:
                changes.replace([label])
        _split(trial, cells, changes, level)
        _merge(trial, cells, changes, merge_level)
        return changes

    trial = _Trial(points, kernels, seed)
    asked = round_of(found.centroids)
    for _ in range(MAX_REFITS):
        if not asked.n_changes:
            break
        candidate = refit(_searched(asked, round_of))
        wanted = round_of(candidate.centroids)
        if not wanted.is_better_than(asked):
            break
        found, asked = candidate, wanted
    return found


def _searched(changes: _Round, round_of: Callable[[Points], _Round]) -> Points:
    """Round after round without a fit in between: a fit takes longer than all of them."""
    for _ in range(MAX_ROUNDS):
        if changes.unrest <= MIN_UNREST:
            break
        changes = round_of(changes.result())
    return changes.result()


def _split(trial: _Trial, cells: _Cells, changes: _Round, level: float) -> None:
    """The clearest first, as far as the limit allows; below the other limit the widest, too."""
    tested = [k for k in range(len(cells.counts)) if k not in changes.taken]
    p_values = np.array([trial.split_p_value(cells, k) for k in tested])
    by_p_value = [tested[i] for i in np.argsort(p_values, kind="stable").tolist()]
    n_proven = int((p_values <= level / max(1, len(tested))).sum())
    widest = np.argsort(-cells.inertias, kind="stable").tolist()
    for i, label in enumerate([*by_p_value[:n_proven], *widest]):
        limit = changes.max_clusters if i < n_proven else changes.min_clusters
        if changes.n_clusters < limit and label not in changes.taken:
            halves = trial.halves(cells, label, MIN_MEMBERS if i < n_proven else 1)
            if halves is not None:
                changes.replace([label], *halves)


def _merge(trial: _Trial, cells: _Cells, changes: _Round, merge_level: float) -> None:
    """Each cluster and where its members would go without it; the most alike first."""
    pairs = {
        (min(label, others[0]), max(label, others[0]))
        for label, others in enumerate(cells.neighbours)
        if others
    }
    free = sorted(pair for pair in pairs if not changes.taken.intersection(pair))
    p_values = np.array([trial.pair_p_value(cells, *pair, merge_level) for pair in free])
    for i in np.argsort(-p_values, kind="stable").tolist():
        is_due = p_values[i] > merge_level or changes.n_clusters > changes.max_clusters
        is_free = not changes.taken.intersection(free[i])
        if is_due and is_free and changes.n_clusters > changes.min_clusters:
            changes.replace(list(free[i]), cells.merged(*free[i]))


@dataclass(slots=True)
class _Round:
    """What the tests ask for at once; a cluster takes part in one change at most."""

    centroids: Points
    min_clusters: int
    max_clusters: int
    taken: set[int] = field(default_factory=set)
    added: list[NDArray[np.float32]] = field(default_factory=list)
    n_changes: int = 0

    @property
    def n_clusters(self) -> int:
        """After the changes."""
        return len(self.centroids) - len(self.taken) + len(self.added)

    @property
    def unrest(self) -> float:
        """Changes per cluster."""
        return self.n_changes / len(self.centroids)

    @property
    def excess(self) -> int:
        """By how much the number of clusters breaks a limit."""
        n_clusters = len(self.centroids)
        return max(self.min_clusters - n_clusters, n_clusters - self.max_clusters, 0)

    def is_better_than(self, other: _Round) -> bool:
        """Nearer to the limits, or left in peace by the tests clearly more."""
        if self.excess != other.excess:
            return self.excess < other.excess
        return self.unrest < MAX_UNREST_LEFT * other.unrest

    def replace(self, labels: list[int], *centroids: NDArray[np.float32]) -> None:
        """These clusters by clusters at these centroids."""
        self.taken.update(labels)
        self.added.extend(centroids)
        self.n_changes += 1

    def result(self) -> Points:
        """Those that nothing happened to, in their order, then the new ones."""
        kept = [k for k in range(len(self.centroids)) if k not in self.taken]
        return np.concatenate([self.centroids[kept], *(c[None, :] for c in self.added)])


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """The members of each cluster, by label."""

    centroids: Points
    members: list[NDArray[np.int64]]
    """Rows of the points, in the order of their lots."""
    counts: NDArray[np.int64]
    inertias: NDArray[np.float64]
    neighbours: list[list[int]]
    """Which clusters are second to members, the most frequent first."""
    signatures: list[bytes]
    """Of the members: the same ones make the same test."""

    def merged(self, i: int, j: int) -> NDArray[np.float32]:
        """The centroid of the members of both."""
        weights = np.maximum(self.counts[[i, j]], 1)
        mean = np.average(self.centroids[[i, j]].astype(np.float64), axis=0, weights=weights)
        return mean.astype(np.float32)


class _Trial:
    """The tests, and what they said: most clusters are the same ones in the next round."""

    def __init__(self, points: Points, kernels: Kernels, seed: int) -> None:
        drawn = lots(points, seed)
        self.points = points
        self.kernels = kernels
        self.order = np.argsort(drawn, kind="stable")
        self.is_left = (drawn & np.uint64(1)).astype(np.bool_)
        self.p_values: dict[tuple[bytes, ...], float] = {}

    def cells(self, centroids: Points) -> _Cells:
        """Every point in its nearest cluster."""
        found = self.kernels.assign(self.kernels.load(centroids), self.points, second=True)
        assert found.second_labels is not None
        n_clusters = len(centroids)
        counts = np.bincount(found.labels, minlength=n_clusters).astype(np.int64)
        by_label = self.order[np.argsort(found.labels[self.order], kind="stable")]
        members = np.split(by_label, np.cumsum(counts)[:-1])
        neighbours = []
        for rows in members:
            seconds, frequencies = np.unique(found.second_labels[rows], return_counts=True)
            ranked = seconds[np.argsort(-frequencies, kind="stable")]
            neighbours.append(ranked[ranked >= 0].tolist())
        return _Cells(
            centroids=centroids,
            members=members,
            counts=counts,
            inertias=np.bincount(found.labels, found.distances_squared, n_clusters).astype(
                np.float64
            ),
            neighbours=neighbours,
            signatures=[blake2b(rows.tobytes(), digest_size=16).digest() for rows in members],
        )

    def halves(
        self, cells: _Cells, label: int, min_members: int
    ) -> list[NDArray[np.float32]] | None:
        """Two centroids for one; None if either would have too few of the members looked at."""
        points = self._wide(cells.members[label][:MAX_TESTED])
        means = two_means(points)
        if means is None:
            return None
        middle = 0.5 * float(((means[1] - means[0]) * (means[0] + means[1])).sum())
        n_right = int((along(points, means[1] - means[0]) > middle).sum())
        if min(n_right, len(points) - n_right) < min_members:
            return None
        return [mean.astype(np.float32) for mean in means]

    def split_p_value(self, cells: _Cells, label: int) -> float:
        """How likely the valley through a cluster is, were it one heap."""
        signature = (cells.signatures[label],)
        if signature not in self.p_values:
            rows = cells.members[label][:MAX_TESTED]
            self.p_values[signature] = p_value(self._wide(rows), self.is_left[rows], two_means)
        return self.p_values[signature]

    def pair_p_value(self, cells: _Cells, i: int, j: int, merge_level: float) -> float:
        """How likely a valley through the cell is that two clusters would share, were it one heap.

        That cell is more than their members. Where a heap is cut in many, the middle between two
        pieces belongs to others: every two alone look like two heaps. It is tested on the line
        between the two, and like any cluster, for it should not be split in the next round.
        """
        ranked = chain(*zip_longest(cells.neighbours[i], cells.neighbours[j], fillvalue=i))
        around = [k for k in dict.fromkeys(ranked) if k not in (i, j)][:N_NEIGHBOURS]
        signature = tuple(cells.signatures[k] for k in (i, j, *around))
        if signature in self.p_values:
            return self.p_values[signature]
        share = min(1.0, MAX_TESTED / max(1, int(cells.counts[i] + cells.counts[j])))
        near = [cells.members[k][: int(np.ceil(share * cells.counts[k]))] for k in (i, j, *around)]
        rows = np.concatenate(near)
        walls = np.concatenate([cells.merged(i, j)[None, :], cells.centroids[around]])
        inside = self.kernels.assign(self.kernels.load(walls), self.points[rows]).labels == 0
        rows = rows[inside]
        ends = cells.centroids[[i, j]].astype(np.float64)
        axis = ends[1] - ends[0]
        middle = 0.5 * float((axis * (ends[0] + ends[1])).sum())
        points, is_left = self._wide(rows), self.is_left[rows]
        smaller = p_value(
            points, is_left, lambda seen: side_means(seen, along(seen, axis) > middle)
        )
        if smaller > merge_level:  # else they stay two, whatever the other test says
            smaller = min(smaller, p_value(points, is_left, two_means))
        self.p_values[signature] = smaller
        return smaller

    def _wide(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.points[rows].astype(np.float64)
