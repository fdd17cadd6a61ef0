"""Which new cluster is which old one: ids are carried over by the members they share.

What else became of clusters is told by thresholds on the overlap, both ways ("MONIC: modeling and
monitoring cluster transitions", 2006, section 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pipeline.kernels.contract import Labels

MIN_OVERLAP = 0.25
"""An heir holds so much of the old cluster, or consists of it by so much: less is no identity."""
MIN_PART = 0.5
"""A part of a split came from one cluster by so much, and so much of each went into a merger."""


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Old clusters and new ones, matched so that as many items as can be keep their cluster."""

    heirs: NDArray[np.int32]
    """(n_new,) the old label that a new cluster takes over; -1: it is born."""
    overlap: NDArray[np.int64]
    """(n_old, n_new) items in both."""
    similarity: NDArray[np.float64]
    """(n_new,) Jaccard index of an heir and what it takes over; NaN where it is born."""
    parents: Mapping[int, tuple[int, ...]]
    """New label of a born cluster -> the old ones its members came from, most first."""
    successors: Mapping[int, tuple[int, ...]]
    """Old label of a retired cluster -> the new ones that took its members, most first."""
    moved: float
    """The share of items whose cluster is not the heir of the one they had; 0 without items."""
    splits: Mapping[int, tuple[int, ...]]
    """Old label -> the new ones, at least two, that have ``MIN_PART`` of their members from it;
    the heir first, then most first."""
    merges: Mapping[int, tuple[int, ...]]
    """New label -> the old ones, at least two, that have ``MIN_PART`` of their members in it; the
    one it takes over first, then most first."""

    def reordered(self, order: NDArray[np.intp]) -> Alignment:
        """The same with new label ``i`` standing for what was new label ``order[i]``."""
        place = {int(old): new for new, old in enumerate(order)}

        def placed(of_old: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
            return {old: tuple(place[new] for new in news) for old, news in of_old.items()}

        return Alignment(
            heirs=self.heirs[order],
            overlap=self.overlap[:, order],
            similarity=self.similarity[order],
            parents={place[label]: parents for label, parents in self.parents.items()},
            successors=placed(self.successors),
            moved=self.moved,
            splits=placed(self.splits),
            merges={place[label]: merged for label, merged in self.merges.items()},
        )


def align(old_labels: Labels, new_labels: Labels, n_old: int, n_new: int) -> Alignment:
    """Match clusters by the number of items they share, as a whole ("Hungarian method", 1955).

    Greedy matching would let one large cluster take an id that two others needed. A pair that
    shares less than ``MIN_OVERLAP`` of both its clusters is not matched.

    Parameters
    ----------
    old_labels, new_labels : (n_items,) int32
        Of the same items; -1: in no cluster.
    """
    shared = _shared(old_labels, new_labels, n_old, n_new)
    smaller = np.minimum(shared.old_sizes[:, None], shared.new_sizes)
    weights = np.where(shared.overlap >= MIN_OVERLAP * smaller, shared.overlap, 0)
    return _told(shared, _matched(weights))


def aligned(
    old_labels: Labels, new_labels: Labels, n_old: int, heirs: NDArray[np.int32]
) -> Alignment:
    """What became of clusters whose heirs are given: a rollback knows them by their ids.

    Parameters
    ----------
    old_labels, new_labels : (n_items,) int32
        Of the same items; -1: in no cluster.
    heirs : (n_new,) int32
        The old label that each new cluster takes over; -1: none.
    """
    return _told(_shared(old_labels, new_labels, n_old, len(heirs)), heirs)


class _Shared(NamedTuple):
    overlap: NDArray[np.int64]  # (n_old, n_new) items in both
    old_sizes: NDArray[np.int64]  # (n_old,)
    new_sizes: NDArray[np.int64]  # (n_new,)


def _shared(old_labels: Labels, new_labels: Labels, n_old: int, n_new: int) -> _Shared:
    both = (old_labels >= 0) & (new_labels >= 0)
    pairs = old_labels[both].astype(np.int64) * n_new + new_labels[both]
    return _Shared(
        np.bincount(pairs, minlength=n_old * n_new).reshape(n_old, n_new),
        np.bincount(old_labels[old_labels >= 0], minlength=n_old),
        np.bincount(new_labels[new_labels >= 0], minlength=n_new),
    )


def _told(shared: _Shared, heirs: NDArray[np.int32]) -> Alignment:
    overlap, old_sizes, new_sizes = shared
    similarity, n_kept = np.full(len(new_sizes), np.nan), 0
    for new in np.flatnonzero(heirs >= 0).tolist():
        n_both = int(overlap[heirs[new], new])
        n_either = int(old_sizes[heirs[new]]) + int(new_sizes[new]) - n_both
        similarity[new] = n_both / n_either if n_either else 1.0  # both empty: nothing has changed
        n_kept += n_both
    n_items = int(overlap.sum())
    heir_of = {old: new for new, old in enumerate(heirs.tolist()) if old >= 0}
    retired = sorted(set(range(len(old_sizes))) - heir_of.keys())
    came_from = (overlap > 0) & (overlap >= MIN_PART * new_sizes)
    went_into = (overlap > 0) & (overlap >= MIN_PART * old_sizes[:, None])
    return Alignment(
        heirs=heirs,
        overlap=overlap,
        similarity=similarity,
        parents={new: _most_first(overlap[:, new]) for new in np.flatnonzero(heirs < 0).tolist()},
        successors={old: _most_first(overlap[old]) for old in retired},
        moved=1.0 - n_kept / n_items if n_items else 0.0,
        splits={
            old: _most_first(np.where(came_from[old], overlap[old], 0), heir_of.get(old))
            for old in np.flatnonzero(came_from.sum(axis=1) > 1).tolist()
        },
        merges={
            new: _most_first(np.where(went_into[:, new], overlap[:, new], 0), int(heirs[new]))
            for new in np.flatnonzero(went_into.sum(axis=0) > 1).tolist()
        },
    )


def _matched(weights: NDArray[np.int64]) -> NDArray[np.int32]:
    """(n_new,) the old label matched with each new one, -1: none; the sum of weights is largest.

    A pair that nobody competes for is one by itself: most are, and the method's cost is cubic.
    """
    heirs = np.full(weights.shape[1], -1, np.int32)
    n_takers, n_choices = (weights > 0).sum(axis=1), (weights > 0).sum(axis=0)
    sole = n_takers == 1
    favourite = weights.argmax(axis=1) if weights.size else np.zeros(len(weights), np.intp)
    sole[sole] = n_choices[favourite[sole]] == 1
    heirs[favourite[sole]] = np.flatnonzero(sole)
    olds = np.flatnonzero((n_takers > 0) & ~sole)
    news = np.flatnonzero((n_choices > 0) & (heirs < 0))
    rest = weights[np.ix_(olds, news)]
    for old, new in zip(*linear_sum_assignment(rest, maximize=True), strict=True):
        if rest[old, new]:
            heirs[news[new]] = olds[old]
    return heirs


def _most_first(counts: NDArray[np.int64], first: int | None = None) -> tuple[int, ...]:
    """Places of what is not zero: ``first`` if it is there, the largest, then the lower label."""
    order = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
    if first in order:
        order.remove(first)
        order.insert(0, first)
    return tuple(order)
