"""What members add up to, counted from nothing."""

from __future__ import annotations

import numpy as np

from pipeline.clustering.forgetting import Decay
from pipeline.kernels.contract import Kernels, Sums
from pipeline.state.members import PartitionState


def recount(
    state: PartitionState, decay: Decay | None, kernels: Kernels, *, max_component: float
) -> None:
    """Count every member where its label says, with its weight if weights fade.

    For a partition that was just read back, and for the moment when forgetting is switched on or
    off: the units differ, so the two cannot be mixed. About 2 s for 10**6 members of 1024
    dimensions on one core, in one piece.
    """
    members = state.members
    n_rows, n_dims = members.n_rows, members.vectors.shape[1]
    labels = members.labels[:n_rows].copy()
    labels[np.isnan(members.proofs[:n_rows])] = -1  # free rows
    weights = None
    if decay is not None:
        weights = members.weights[:n_rows] = decay.weight(members.timestamps[:n_rows])
    state.sums = Sums.zeros(
        len(state.sums.counts),
        n_dims,
        max_component=max_component,
        is_weighted=decay is not None,
    )
    vectors, nowhere = members.vectors[:n_rows], np.full(n_rows, -1, np.int32)
    kernels.accumulate(
        state.sums, vectors, nowhere, vectors, labels, old_weights=weights, new_weights=weights
    )
