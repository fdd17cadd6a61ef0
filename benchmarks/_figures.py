"""Figures of a clustering, each written the plain way, in float64, and by nothing of Eddy's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import normalized_mutual_info_score

AT_ONCE = 4096
N_NEIGHBOURS = 10
N_CANDIDATES = 32
"""Of float32; their exact distances decide."""


def distances_squared(
    points: NDArray[np.float32], centroids: NDArray[np.float32], labels: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(n,) from each point to the centroid of its label."""
    found = np.empty(len(points))
    for at in range(0, len(points), AT_ONCE):
        some = slice(at, at + AT_ONCE)
        gaps = points[some].astype(np.float64) - centroids[labels[some]]
        found[some] = np.einsum("ij,ij->i", gaps, gaps)
    return found


def n_stale(
    points: NDArray[np.float32], centroids: NDArray[np.float32], labels: NDArray[np.intp]
) -> int:
    """How many points lie nearer to another centroid than to their own.

    The product proposes another centroid, differences decide: what the product says of two that
    are equally far is noise.
    """
    own, wide = distances_squared(points, centroids, labels), centroids.astype(np.float64)
    norms, n = np.einsum("ij,ij->i", wide, wide), 0
    for at in range(0, len(points), AT_ONCE):
        some = slice(at, at + AT_ONCE)
        nearest = (norms - 2.0 * (points[some].astype(np.float64) @ wide.T)).argmin(axis=1)
        n += int((distances_squared(points[some], centroids, nearest) < own[some]).sum())
    return n


def contingency(
    one: NDArray[np.intp], other: NDArray[np.intp], shape: tuple[int, int] | None = None
) -> NDArray[np.int64]:
    """(n_one, n_other) how many have each pair of labels."""
    n_one, n_other = shape or (int(one.max()) + 1, int(other.max()) + 1)
    counts = np.bincount(one * n_other + other, minlength=n_one * n_other)
    return counts.reshape(n_one, n_other).astype(np.int64)


def kept_when_aligned(before: NDArray[np.intp], after: NDArray[np.intp]) -> NDArray[np.bool_]:
    """(n,) whether each item's new label is the heir of its old one.

    Heirs by the best matching of overlaps over all of them: Kuhn, "The Hungarian method for the
    assignment problem", 1955.
    """
    table = contingency(before, after)
    olds, news = linear_sum_assignment(table, maximize=True)
    heir = np.full(len(table), -1)
    heir[olds] = news
    kept: NDArray[np.bool_] = heir[before] == after
    return kept


def agreement(labels: NDArray[np.intp], sections: NDArray[np.str_]) -> dict[str, float]:
    """How clusters and sections go together.

    Purity and normalised mutual information: Manning et al., "Introduction to Information
    Retrieval", 2008, 16.3. B-cubed: Amigó et al., "A comparison of extrinsic clustering
    evaluation metrics", 2009, where an item's share of companions is averaged over items.
    """
    _, truth = np.unique(sections, return_inverse=True)
    table = contingency(labels, truth).astype(np.float64)
    n = table.sum()
    squares, clusters, classes = table**2, table.sum(axis=1), table.sum(axis=0)
    precision = float((squares / np.maximum(clusters, 1.0)[:, None]).sum() / n)
    recall = float((squares / np.maximum(classes, 1.0)).sum() / n)
    return {
        "purity": float(table.max(axis=1).sum() / n),
        "nmi": float(normalized_mutual_info_score(truth, labels)),
        "bcubed_f1": 2.0 * precision * recall / (precision + recall),
    }


def neighbours(vectors: NDArray[np.float32]) -> NDArray[np.intp]:
    """(n, N_NEIGHBOURS) the nearest other vectors of each of n distinct ones, the nearest first.

    float32 proposes, float64 decides; of two that are equally far, the lower row counts.
    """
    n = len(vectors)
    n_candidates = min(N_CANDIDATES, n - 1)
    found = np.empty((n, min(N_NEIGHBOURS, n - 1)), np.intp)
    norms = np.einsum("ij,ij->i", vectors, vectors)
    for at in range(0, n, AT_ONCE // 4):
        some = np.arange(at, min(at + AT_ONCE // 4, n))
        scores = norms - 2.0 * (vectors[some] @ vectors.T)
        scores[np.arange(len(some)), some] = np.inf
        chosen = np.argpartition(scores, n_candidates - 1, axis=1)[:, :n_candidates]
        gaps = vectors[chosen].astype(np.float64) - vectors[some][:, None]
        exact = np.einsum("ijk,ijk->ij", gaps, gaps)
        order = np.lexsort((chosen, exact), axis=1)[:, : found.shape[1]]
        found[some] = np.take_along_axis(chosen, order, axis=1)
    return found
