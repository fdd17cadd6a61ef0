"""How good the newest model is, from what the assigners have published; no vector is read."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.cli.model.standing import Standing
from pipeline.clustering.quality import (
    Quality,
    churn,
    inertia_per_member,
    mean_squared_distances,
    shift_summary,
    shifts,
    size_cv,
    size_entropy,
    staleness,
)
from pipeline.messages.model import Model

_MAX_CLUSTERS: Final = 5000
"""Above it the silhouette is left out: every centroid is held against every other."""
_BLOCK: Final = 512


def measure(model: Model, standing: Standing) -> Quality:
    """The quality of the newest model over all published members.

    Churn is that of the partitions' present owners; stale are the members of partitions that have
    not been held against this model yet.
    """
    totals, manifest = standing.totals, model.manifest
    clusters = manifest.clusters
    counts, weights = totals.counts(clusters), totals.weights(clusters)
    means, squares = totals.means(clusters), totals.squares(clusters)
    mean_squares = mean_squared_distances(weights, means, squares, model.centroids)
    heads = standing.heads.values()
    n_members = sum(head.members for head in heads)
    n_swept = sum(standing.heads[p].members for p in standing.swept)
    found = shifts(model.centroids, model.fitted, model.mean_squared_distances)
    return Quality(
        n_members=n_members,
        n_clusters=len(clusters),
        n_empty=int((counts == 0).sum()) if n_members else 0,
        inertia_per_member=inertia_per_member(weights, mean_squares),
        inertia_at_fit=manifest.fitted_inertia / max(manifest.fitted_items, 1),
        silhouette=_silhouette(model, weights, means, squares, mean_squares),
        size_cv=size_cv(counts),
        size_entropy=size_entropy(counts),
        churn=churn(sum(h.reassigned for h in heads), sum(h.records for h in heads)),
        staleness=staleness(n_members - n_swept, n_members),
        shift=shift_summary(found),
    )


def quality_as_json(quality: Quality) -> dict[str, Any]:
    """For machines; null: not known."""
    is_known = quality.n_members > 0
    return {
        "inertia_per_member": quality.inertia_per_member,
        "inertia_per_member_at_fit": quality.inertia_at_fit,
        "silhouette_of_means": quality.silhouette,
        "size_cv": quality.size_cv if is_known else None,
        "size_entropy": quality.size_entropy if is_known else None,
        "empty": quality.n_empty if is_known else None,
        "churn": quality.churn if is_known else None,
        "stale": quality.staleness if is_known else None,
        "shift": quality.shift._asdict(),
    }


def quality_lines(quality: Quality) -> list[tuple[str, str]]:
    """For people: what is measured, and a phrase that says what of."""
    inertia = f"{quality.inertia_at_fit:.4g} per item at the fit"
    if quality.inertia_per_member is not None:
        inertia += f", {quality.inertia_per_member:.4g} per member now"
        if quality.inertia_at_fit:
            inertia += f" ({quality.inertia_growth:+.1%})"
    lines = [("inertia", inertia)]
    if quality.silhouette is not None:
        lines.append(("silhouette", f"{quality.silhouette:.2f}, of clusters as wholes"))
    if not quality.n_members:
        return lines
    evenness, deviation = f"{quality.size_entropy:.0%}", f"{quality.size_cv:.2g}"
    sizes = f"evenness {evenness}; sizes deviate by {deviation} of their mean"
    if quality.n_empty:
        sizes += f", {quality.n_empty} empty"
    shift = f"mean {quality.shift.mean:.2g}, at most {quality.shift.max:.2g} of a spread"
    lines += [
        ("balance", sizes),
        ("shift", f"{shift} since the fit"),
        ("churn", f"{quality.churn:.2%} of the records moved their item"),
    ]
    if quality.staleness:
        stale = f"{quality.staleness:.1%} of the members are not held against it yet"
        lines.append(("stale", f"[yellow]{stale}[/]"))
    return lines


def _silhouette(
    model: Model,
    weights: NDArray[np.float64],
    means: NDArray[np.float64],
    squares: NDArray[np.float64],
    mean_squares: NDArray[np.float64],
) -> float | None:
    """The simplified silhouette of clusters as wholes, weighted by what is in them.

    a and b are the root mean squared distances of a cluster's members to its own centroid and to
    the one that is next for them as a whole; both follow from the statistics. Coarser than the
    silhouette of single members, and never below it by much where clusters are round.
    """
    n_clusters = len(weights)
    inside = np.flatnonzero(weights > 0.0)
    if not 2 <= n_clusters <= _MAX_CLUSTERS or not len(inside):
        return None
    centroids = model.centroids.astype(np.float64)
    norms = (centroids * centroids).sum(axis=1)
    total = 0.0
    for start in range(0, len(inside), _BLOCK):
        here = inside[start : start + _BLOCK]
        away = (squares[here] / weights[here])[:, None] - 2.0 * (means[here] @ centroids.T) + norms
        away[np.arange(len(here)), here] = np.inf
        a, b = np.sqrt(mean_squares[here]), np.sqrt(np.maximum(away.min(axis=1), 0.0))
        larger = np.maximum(a, b)
        total += float(weights[here] @ ((b - a) / np.where(larger > 0.0, larger, 1.0)))
    return total / float(weights.sum())
