"""How far a point may move before its label can change, for the CUDA twin.

The border between the cells of centroids a and j is a plane; a point of cell a stands

    (D_j - D_a) / (2 |c_j - c_a|)

away from it, and the least of these over j is its margin. The canonical distance D_a is known
by then, and a second sweep over the tiles gives lower bounds L_j + |z|² of the D_j
(`pipeline.kernels.bounds`), so every term is a lower bound. It is lowered by four times what
canonical sums may be off, at the point and wherever it may move to: a label that a canonical
comparison gives after a shorter move is then still a.
"""
# mypy: ignore-errors
# (numba types the kernels by their arguments)

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, float64, int32
from numpy.typing import NDArray

from pipeline.kernels.bounds import UNIT
from pipeline.kernels.cuda.loops import (
    DEPTH,
    LENGTHEN,
    MAX_GAP,
    OWN,
    SIDE,
    TILE,
    score_tile,
)

MAX_TABLE = 2**25  # pairs of centroids whose distances are kept: 128 MiB, K up to 5 792
MAX_STEEPNESS = 1e30  # of equal centroids, whose true one is infinite


def steepness(
    centred: NDArray[np.float32], centroids: NDArray[np.float32], *, max_table: int = MAX_TABLE
) -> NDArray[np.float32]:
    """1 / (2 |c_j - c_a|) of every pair, rounded down: (n_clusters, n_clusters) float32.

    More pairs than ``max_table`` give one row, 1 / (4 |w_j|): the lesser of two is below what the
    pair has.

    ``|w_j|² + |w_a|² - 2 w_j·w_a`` in float32 is raised by all that rounding can do, as in
    `pipeline.kernels.bounds`, the rounding of w included; that costs equal centroids most, and
    a distance half as long as w one part in a thousand.

    The diagonal, and every centroid equal to another, has no border, as the lower label wins
    wherever a point goes: there it is as negative as can be. So is the difference of the two
    distances, lowered by its bound; and their product is no least one.
    """
    n_clusters, n_dims = centred.shape
    exact = centred.astype(np.float64)
    squares = np.einsum("ij,ij->i", exact, exact)
    if n_clusters**2 > max_table:
        with np.errstate(over="ignore"):
            row = (1.0 - 2.0**-20) / (4.0 * np.sqrt(squares) + 1.0 / MAX_STEEPNESS)
        return np.asarray(row[None], np.float32)
    gamma = n_dims * UNIT / (1.0 - min(n_dims * UNIT, 0.5))
    raised = (squares * (1.0 + 4.0 * gamma + 16.0 * UNIT) + n_dims * 2.0**-120).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        pairs = centred @ centred.T
        pairs *= np.float32(-2.0)
        pairs += raised
        pairs += raised[:, None]
        np.sqrt(pairs, out=pairs)
        pairs *= np.float32(2.0 * LENGTHEN)
        np.divide(np.float32(1.0 - 2.0**-22), pairs, out=pairs)
    np.nan_to_num(pairs, copy=False, nan=0.0, posinf=MAX_STEEPNESS)  # a huge model: no margin
    np.minimum(pairs, np.float32(MAX_STEEPNESS), out=pairs)
    _, group = np.unique(centroids, axis=0, return_inverse=True)
    pairs[group.ravel()[:, None] == group.ravel()] = -MAX_STEEPNESS
    return pairs


@cuda.jit(device=True)
def head_start(distance, length_squared, n_dims):
    """What L_j must exceed, with its sign turned: float32, rounded down.

    With t for it, ``L_j + t`` is at most D_j - D_a less what canonical sums may be off.
    """
    relative = 4.0 * (n_dims / 32.0 + 8.0) * 2.0**-53
    shift = length_squared * (1.0 - (n_dims + 8) * 2.0**-51 - 2.0**-49)
    start = shift - distance * (1.0 + 8.0 * relative)
    return float32(start - abs(start) * 2.0**-22 - 2.0**-120)


@cuda.jit(device=True)
def steep_row(steep, label, n_clusters):
    """Which row of the table belongs to a label, and what limits its values."""
    if steep.shape[0] == n_clusters:
        return label, float32(np.inf)
    return int32(0), steep[0, label]


@cuda.jit(device=True)
def margin_of(least):
    """The least product of a difference and a steepness, in float64, rounded down."""
    if not least > 2.0**-100:  # denormal numbers are left out, and so is what is no number
        return float32(0.0)
    return float32(min(least * (1.0 - 2.0**-21), MAX_GAP))


@cuda.jit
def nearest_border(
    z,  #                IN   (n_points, n_dims)         float32
    centred,  #          IN   (n_clusters, n_dims)       float32
    floors,  #           IN   (n_clusters,)              float32
    reaches,  #          IN   (n_clusters,)              float32
    slopes,  #           IN   (n_points,)                float32
    lengths_squared,  #  IN   (n_points,)                float64
    labels,  #           IN   (n_points,)                int32
    distances,  #        IN   (n_points,)                float64
    steep,  #            IN   (n_clusters or 1, n_clusters)  float32
    max_length,
    margins,  #          OUT  (n_points,)                float32
):
    """`nearest_by_bound` once more, with another question."""
    xs = cuda.shared.array((DEPTH, TILE), float32)
    cs = cuda.shared.array((DEPTH, TILE), float32)
    found = cuda.shared.array((TILE, SIDE), float32)
    scores = cuda.local.array((OWN, OWN), float32)
    least = cuda.local.array(OWN, float32)
    starts = cuda.local.array(OWN, float32)
    n_points, n_dims = z.shape
    n_clusters = centred.shape[0]
    thread = cuda.threadIdx.x
    column, row = thread % SIDE, thread // SIDE
    start = cuda.blockIdx.x * TILE
    infinity = float32(np.inf)
    for a in range(OWN):
        i = start + row * OWN + a
        least[a] = infinity
        starts[a] = float32(0.0)
        if i < n_points:
            starts[a] = head_start(distances[i], lengths_squared[i], n_dims)
    for k_start in range(0, n_clusters, TILE):
        score_tile(z, centred, start, k_start, xs, cs, scores)
        for b in range(OWN):
            k = k_start + column * OWN + b
            if k < n_clusters:
                for a in range(OWN):
                    i = start + row * OWN + a
                    if i < n_points and labels[i] != k:
                        bound = floors[k] - float32(2.0) * scores[a, b] - slopes[i] * reaches[k]
                        row_label, most = steep_row(steep, labels[i], n_clusters)
                        factor = min(steep[row_label, k], most)
                        least[a] = min(least[a], (bound + starts[a]) * factor)
    for a in range(OWN):
        found[row * OWN + a, column] = least[a]
    cuda.syncthreads()
    for r in range(thread, TILE, SIDE * SIDE):
        i = start + r
        if i < n_points:
            border = infinity
            for s in range(SIDE):
                border = min(border, found[r, s])
            is_bounded = math.sqrt(lengths_squared[i]) * LENGTHEN <= max_length
            if n_clusters == 1:
                margins[i] = infinity
            elif is_bounded:
                margins[i] = margin_of(float64(border))
            else:
                margins[i] = float32(0.0)
