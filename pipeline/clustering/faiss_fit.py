"""The second twin of a fit: faiss trains, our kernels say who belongs where.

Nothing of the project needs it. It is there for who has faiss on a device that we have no kernel
for, and as a peer in tests: two fits that share no line end at the same inertia, within what a
different start changes.
"""

from __future__ import annotations

import numpy as np

from pipeline.clustering.kmeans import Fit, check_fit, fit
from pipeline.clustering.seeding import weighted
from pipeline.kernels.approximate import train
from pipeline.kernels.contract import Kernels, Points, Weights


def fit_faiss(
    points: Points,
    n_clusters: int,
    *,
    kernels: Kernels,
    seed: int,
    max_component: float,
    start: Points | None = None,
    weights: Weights | None = None,
    max_iterations: int = 25,
    tol: float = 1e-4,
    spherical: bool = False,
    threads: int = 1,
) -> Fit:
    """K-means by faiss, then one exact assignment.

    The same as `pipeline.clustering.kmeans.fit` but for the way there: random points to begin with,
    float32 sums, always ``max_iterations`` passes, and a result that depends on the version of
    faiss. Where that leaves a cluster without a member, which is rare, our own passes go on from
    there, as they know what to do about it.

    Parameters
    ----------
    points : (n_points, n_dims) float32
        No component is larger than ``max_component``, a power of two.
    start : (n_clusters, n_dims) float32, optional
    weights : (n_points,) float64, optional
        Above 0 and at most `MAX_WEIGHT`; faiss uses them as float32.
    tol
        A fit whose last pass saved no more than this share of the inertia has converged.
    threads
        Of faiss.

    Raises
    ------
    ConfigError
        faiss is not installed.
    FewerPointsError
        Fewer distinct points than clusters.
    ValueError
        Arguments that contradict each other.
    """
    points = np.asarray(points)
    check_fit(points, n_clusters, start)
    trained = train(
        points,
        n_clusters,
        seed=seed,
        max_iterations=max_iterations,
        start=start,
        weights=weights,
        spherical=spherical,
        threads=threads,
    )
    inertias = trained.inertias
    has_converged = len(inertias) > 1 and bool(inertias[-2] - inertias[-1] <= tol * inertias[-2])
    centroids = trained.centroids
    found = kernels.assign(kernels.load(centroids), points)
    if not np.bincount(found.labels, minlength=n_clusters).all():
        return fit(
            points,
            n_clusters,
            kernels=kernels,
            seed=seed,
            max_component=max_component,
            start=centroids,
            weights=weights,
            max_iterations=max_iterations,
            tol=tol,
            spherical=spherical,
        )
    return Fit(
        centroids=centroids,
        labels=found.labels,
        distances_squared=found.distances_squared,
        inertia=weighted(found.distances_squared, weights),
        n_iterations=len(inertias) + 1,
        has_converged=has_converged,
    )
