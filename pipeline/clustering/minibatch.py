"""K-means of a stream, batch by batch: no row is kept, and none has to come twice.

A centroid is the mean of all points that it was nearest to when they came, so a point moves it by
one part in as many as there were: "Web-scale k-means clustering", 2010, algorithm 1, whose steps
of one point are taken together for a batch. It ends near what Lloyd finds, not there (about 2 %
more inertia on real embeddings): where the rows can be read again, in memory or mapped from a file,
`pipeline.clustering.kmeans.fit` is the better choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.kmeans import FewerPointsError, Fit, FitCancelledError, relocated
from pipeline.clustering.means import Tally
from pipeline.clustering.seeding import (
    MIN_SEED_POINTS,
    SEED_POINTS_PER_CLUSTER,
    lots,
    n_distinct,
    seeds,
    total,
    weighted,
)
from pipeline.kernels.contract import Kernels, Points, Weights

MIN_GAIN = 1e-3
"""An epoch that saves less of the inertia is the last."""


class MiniBatch:
    """Centroids that learn from one batch after the other.

    Parameters
    ----------
    centroids : (n_clusters, n_dims) float32 or float64
        Where they begin; float64 are the `means` of an earlier one that is to be continued.
    masses : (n_clusters,) float64, optional
        How much they weigh; without any, nothing: the first points of a cluster decide its place.
    max_component
        A power of two; no component of a batch is larger.
    spherical
        Centroids are unit vectors; the points must be.

    Notes
    -----
    The same batches give the same bytes, whatever the twin and its threads. Points may be given
    in other batches, but then they meet other centroids.
    """

    def __init__(
        self,
        centroids: Points | NDArray[np.float64],
        *,
        kernels: Kernels,
        max_component: float,
        masses: NDArray[np.float64] | None = None,
        spherical: bool = False,
    ) -> None:
        self._kernels, self._max_component = kernels, max_component
        self._spherical = spherical
        self._means = centroids.astype(np.float64)
        # points, or their weights, that made the mean
        self._masses = np.zeros(len(centroids)) if masses is None else masses.copy()
        self._places = centroids.astype(np.float32, order="C")

    @property
    def centroids(self) -> Points:
        """(n_clusters, n_dims) float32."""
        return self._places.copy()

    @property
    def means(self) -> NDArray[np.float64]:
        """(n_clusters, n_dims) the centroids before they were rounded."""
        return self._means.copy()

    @property
    def masses(self) -> NDArray[np.float64]:
        """(n_clusters,) how many points each has learnt from, or how much they weighed."""
        return self._masses.copy()

    def step(self, points: Points, weights: Weights | None = None) -> float:
        """Learn from a batch; its inertia around the centroids as they were.

        A cluster that no point has ever come to takes one that adds most to the inertia.

        Parameters
        ----------
        points : (n_points, n_dims) float32
        weights : (n_points,) float64, optional
            Above 0 and at most `MAX_WEIGHT`; without any, each counts as 1.
        """
        found = self._kernels.assign(self._kernels.load(self._places), points)
        labels = relocated(found, len(self._places), weights, is_needless=self._masses > 0.0)
        tally = Tally(
            points,
            len(self._places),
            kernels=self._kernels,
            max_component=self._max_component,
            weights=weights,
        )
        tally.move(np.full(len(points), -1, np.int32), labels)
        come = tally.masses()
        here = come > 0.0
        self._masses += come
        gaps = tally.sums()[here] - come[here, None] * self._means[here]
        self._means[here] += gaps / self._masses[here, None]
        places = self._means
        if self._spherical:
            lengths = np.sqrt(np.add.accumulate(np.square(places), axis=1)[:, -1:])
            places = np.where(lengths > 0.0, places / np.where(lengths > 0.0, lengths, 1.0), places)
        self._places = places.astype(np.float32)
        return weighted(found.distances_squared, weights)


def fit_batches(
    batches: Iterable[Points],
    n_clusters: int,
    *,
    kernels: Kernels,
    seed: int,
    max_component: float,
    start: Points | None = None,
    n_epochs: int = 10,
    spherical: bool = False,
    on_pass: Callable[[int, float], None] | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Fit:
    """`MiniBatch` over all batches, some times over, then one exact assignment.

    It ends after ``n_epochs``, or when one has saved less than a thousandth of the inertia.

    Parameters
    ----------
    batches
        Of (n_points, n_dims) float32; iterated over again and again, and each time the same.
    start : (n_clusters, n_dims) float32, optional
        Without one, greedy k-means++ on a sample, which costs a reading of its own.
    on_pass
        Called after each epoch with its number and the inertia that its batches had when they came.
    is_cancelled
        Asked before each batch.

    Returns
    -------
    Fit
        Labels and distances are of all rows, in the order of the batches. There may be clusters
        without a member, as nobody has seen all points at once.

    Raises
    ------
    FewerPointsError
        Fewer distinct points than clusters in the sample.
    FitCancelledError
    ValueError
        ``batches`` can be read only once, or there is nothing in them.
    """
    if iter(batches) is batches:
        raise ValueError("batches that can be read only once: let a MiniBatch learn from them")

    def each() -> Iterator[Points]:
        for batch in batches:
            if is_cancelled is not None and is_cancelled():
                raise FitCancelledError("the fit was cancelled")
            yield batch

    if start is None:
        n_wanted = max(MIN_SEED_POINTS, SEED_POINTS_PER_CLUSTER * n_clusters)
        sample = _sample(each(), n_wanted, seed)
        n_found = n_distinct(sample, at_most=n_clusters)
        if n_found < n_clusters:
            raise FewerPointsError(n_found, n_clusters)
        start = seeds(sample, n_clusters, kernels=kernels, seed=seed)
    model = MiniBatch(start, kernels=kernels, max_component=max_component, spherical=spherical)
    before = np.inf
    has_converged = False
    n_epoch = 0
    while n_epoch < n_epochs and not has_converged:
        n_epoch += 1
        left = total(np.array([model.step(batch) for batch in each()]))
        if on_pass is not None:
            on_pass(n_epoch, left)
        has_converged = left >= (1.0 - MIN_GAIN) * before
        before = left
    ready = kernels.load(model.centroids)
    found = [kernels.assign(ready, batch) for batch in each()]
    if not found:
        raise ValueError("there are no batches")
    distances_squared = np.concatenate([one.distances_squared for one in found])
    return Fit(
        centroids=model.centroids,
        labels=np.concatenate([one.labels for one in found]),
        distances_squared=distances_squared,
        inertia=total(distances_squared),
        n_iterations=n_epoch + 1,
        has_converged=has_converged,
    )


def _sample(batches: Iterable[Points], n_wanted: int, seed: int) -> Points:
    """So many rows, each as likely as any other, whatever batches they come in; in their order."""
    kept: Points | None = None
    drawn = np.empty(0)
    n_seen = 0
    for batch in batches:
        drawn = np.concatenate([drawn, lots(seed, 0, len(batch), first=n_seen)])
        n_seen += len(batch)
        rows = np.sort(np.argsort(drawn, kind="stable")[:n_wanted])
        n_kept = 0 if kept is None else len(kept)
        new = batch[rows[rows >= n_kept] - n_kept]
        kept = new if kept is None else np.concatenate([kept[rows[rows < n_kept]], new])
        drawn = drawn[rows]
    if kept is None:
        raise ValueError("there are no batches")
    return kept
