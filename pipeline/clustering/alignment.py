"""Which new cluster is which old one: ids are carried over by the members they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pipeline.kernels.contract import Labels


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

    def reordered(self, order: NDArray[np.intp]) -> Alignment:
        """The same with new label ``i`` standing for what was new label ``order[i]``."""
        place = {int(old): new for new, old in enumerate(order)}
        return Alignment(
            heirs=self.heirs[order],
            overlap=self.overlap[:, order],
            similarity=self.similarity[order],
            parents={place[label]: parents for label, parents in self.parents.items()},
            successors={
                label: tuple(place[new] for new in heirs)
                for label, heirs in self.successors.items()
            },
            moved=self.moved,
        )


def align(old_labels: Labels, new_labels: Labels, n_old: int, n_new: int) -> Alignment:
    """Match clusters by the number of items they share, as a whole ("Hungarian method", 1955).

    Greedy matching would let one large cluster take an id that two others needed. Clusters
    that share nothing are not matched.

    Parameters
    ----------
    old_labels, new_labels : (n_items,) int32
        Of the same items; -1: in no cluster.
    """
    both = (old_labels >= 0) & (new_labels >= 0)
    pairs = old_labels[both].astype(np.int64) * n_new + new_labels[both]
    overlap = np.bincount(pairs, minlength=n_old * n_new).reshape(n_old, n_new)
    old_sizes = np.bincount(old_labels[old_labels >= 0], minlength=n_old)
    new_sizes = np.bincount(new_labels[new_labels >= 0], minlength=n_new)

    heirs = np.full(n_new, -1, np.int32)
    similarity = np.full(n_new, np.nan)
    for old, new in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
        shared = int(overlap[old, new])
        if shared:
            heirs[new] = old
            similarity[new] = shared / (int(old_sizes[old]) + int(new_sizes[new]) - shared)
    n_kept = int(np.count_nonzero(heirs[new_labels[both]] == old_labels[both]))
    retired = sorted(set(range(n_old)) - set(heirs.tolist()))
    return Alignment(
        heirs=heirs,
        overlap=overlap,
        similarity=similarity,
        parents={new: _most_first(overlap[:, new]) for new in np.flatnonzero(heirs < 0).tolist()},
        successors={old: _most_first(overlap[old]) for old in retired},
        moved=1.0 - n_kept / int(both.sum()) if both.any() else 0.0,
    )


def _most_first(counts: NDArray[np.int64]) -> tuple[int, ...]:
    """Places of what is not zero: the largest first, then the lower label."""
    order = np.argsort(-counts, kind="stable")
    return tuple(int(label) for label in order if counts[label])
