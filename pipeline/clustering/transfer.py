"""Clusters of one embedding, found again in another: ids go over by the items that both have.

Vectors of two embedding models cannot be compared, and neither can centroids. What two fits have in
common are items: of those with a vector of both models it is known in which cluster they were, and
in which they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pipeline.clustering.alignment import align
from pipeline.clustering.fitting import FitSettings
from pipeline.clustering.recluster import Candidate, propose
from pipeline.kernels.contract import Kernels, Labels, Points, Weights


def transferred(
    points: Points,
    old_labels: Labels,
    n_old: int,
    settings: FitSettings,
    *,
    kernels: Kernels,
    weights: Weights | None = None,
    on_pass: Callable[[int, float], None] | None = None,
    is_cancelled: Callable[[], bool] | None = None,
    at: Callable[[str], None] = lambda phase: None,
) -> Candidate:
    """Fit ``points`` cold, and align the clusters found with those that their items had.

    Nothing is judged: two embeddings have no inertia in common.

    Parameters
    ----------
    points : (n, n_dims) float32, n >= 1
        Vectors of the next embedding model, ordered by item id.
    old_labels : (n,) int32
        Of the same items, by their vectors of the model that stands; -1: an item has none.
    n_old
        Clusters that those labels speak of.
    weights : (n,) float64, optional
    at
        As `pipeline.clustering.recluster.propose` takes it.

    Raises
    ------
    FitCancelledError
    """
    found = propose(
        points,
        None,
        settings,
        kernels=kernels,
        is_cold=True,
        weights=weights,
        on_pass=on_pass,
        is_cancelled=is_cancelled,
        at=at,
    )
    at("align")
    labels = kernels.assign(kernels.load(found.centroids), points).labels
    n_new = len(found.centroids)
    has_both = old_labels >= 0
    alignment = align(old_labels[has_both], labels[has_both], n_old, n_new)
    # heirs first, in the order of the incumbent: as in every fit, and so by one rule for ties
    born = np.where(alignment.heirs < 0, np.iinfo(np.int32).max, alignment.heirs)
    order = np.lexsort((np.arange(n_new), born))
    return replace(
        found,
        centroids=found.centroids[order],
        profiles=found.profiles.reordered(order),
        alignment=alignment.reordered(order),
        inertia_before=None,
        is_comparable=False,
    )
