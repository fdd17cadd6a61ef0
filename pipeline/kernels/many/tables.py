"""What the compiled loops of many small problems pass to each other, and their scratch."""
# mypy: ignore-errors
# (numba types these functions by their arguments)

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.basics import compiled

N_TILE = 64  # rows scored at once; a multiple of 4


class Places(NamedTuple):
    """Which problem comes when, and where its results go."""

    order: NDArray[np.int64]  # (n_problems,): the largest first, so that no thread ends late
    rows: NDArray[np.int64]  # (n_problems,)
    clusters: NDArray[np.int64]  # (n_problems,)


class Settings(NamedTuple):
    """What holds for all fits of a call."""

    max_iterations: int
    tol: float
    spherical: int


class Model(NamedTuple):
    """Centroids, or candidates for seeds, and what bounds their distances: scratch."""

    rows: NDArray[np.float32]  # (n_clusters, n_dims): w = c - m, rounded
    lengths: NDArray[np.float64]  # (n_clusters,): |w|, rounded up
    below: NDArray[np.float64]  # (n_clusters,): |w|² less all that it may be wrong by
    above: NDArray[np.float64]  # (n_clusters,): and more
    scores: NDArray[np.float32]  # (N_TILE, n_clusters): z·w
    lows: NDArray[np.float64]  # (N_TILE, n_clusters): below the distances, less |z|²
    limits: NDArray[np.float64]  # (N_TILE,): what is lower may be the least


class Space(NamedTuple):
    """What a fit needs beside its results: scratch."""

    middle: NDArray[np.float32]  # (n_dims,): m
    z: NDArray[np.float32]  # (n_rows, n_dims): x - m, rounded
    squares: NDArray[np.float64]  # (n_rows,): |z|²
    lengths: NDArray[np.float64]  # (n_rows,): |z|, rounded up
    slacks: NDArray[np.float64]  # (n_rows,): what |z|² may be wrong by
    products: NDArray[np.float32]  # (n_rows, n_trials): with the candidates for a seed
    nearest: NDArray[np.float64]  # (n_rows,)
    candidate: NDArray[np.float64]  # (n_rows,)
    best: NDArray[np.float64]  # (n_rows,)
    found: NDArray[np.int32]  # (n_rows,)
    settled: NDArray[np.int32]  # (n_rows,)
    drawn: NDArray[np.int64]  # (max(n_clusters, n_trials),)
    means: NDArray[np.float64]  # (n_dims,)
    weights: NDArray[np.int64]  # (n_clusters,): in units
    sums: NDArray[np.int64]  # (n_clusters, n_dims): in units


@compiled()
def model_of(n_clusters, n_dims):
    """Scratch, with the room that `products` asks for."""
    width = (n_clusters + 1) // 2 * 2
    return Model(
        np.zeros((width, n_dims), np.float32),
        np.empty(n_clusters, np.float64),
        np.empty(n_clusters, np.float64),
        np.empty(n_clusters, np.float64),
        np.empty((N_TILE, width), np.float32),
        np.empty((N_TILE, n_clusters), np.float64),
        np.empty(N_TILE, np.float64),
    )


@compiled()
def space_of(n_rows, n_clusters, n_trials, n_dims):
    """Scratch, with the room that `products` asks for."""
    n = (n_rows + 3) // 4 * 4
    return Space(
        np.empty(n_dims, np.float32),
        np.zeros((n, n_dims), np.float32),
        np.empty(n, np.float64),
        np.empty(n, np.float64),
        np.empty(n, np.float64),
        np.empty((n, (n_trials + 1) // 2 * 2), np.float32),
        np.empty(n, np.float64),
        np.empty(n, np.float64),
        np.empty(n, np.float64),
        np.empty(n, np.int32),
        np.empty(n, np.int32),
        np.empty(max(n_clusters, n_trials), np.int64),
        np.empty(n_dims, np.float64),
        np.empty(n_clusters, np.int64),
        np.empty((n_clusters, n_dims), np.int64),
    )
