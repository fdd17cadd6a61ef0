"""A few directions in which centroids differ most, to exclude most of them by a short product.

Along r directions the product of a record and a centroid is known, up to rounding; across them it
is at most the product of what is left of the two lengths. So r (d + K) products replace d K, and
where the spectrum of the centroids falls quickly, as that of text embeddings does, few centroids
are left to be compared. Elsewhere nearly all are: how many, is counted on records before a
prefix is made, and every r is priced.

Any directions are right, only the best are quick: they are found by a few rounds of subspace
iteration ("Finding structure with randomness", 2011, algorithm 4.4) on some of the centroids, and
then turned at random among themselves, so that no component is large and small scales of integers
fit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.bounds import TINY, UNIT, BoundedModel
from pipeline.kernels.contract import Points
from pipeline.kernels.cpu.ways import FLOAT32_NS, comparison_ns

STEP = 64  # directions: what one block of operands holds
MAX_DIRECTIONS = 256
MAX_CENTROIDS = 4096  # that the directions are made of
SAMPLE = 64  # records that are looked at
ROUNDS = 3
GAIN = 0.9  # of the time without; below it the change is worth it
LEAK = 2.0**-30
ROUNDING = {"int8": 0.0085, "bf16": 0.0017, "float32": 0.0}
"""|z - ẑ| / |z| of operands, about: what a bound loses before the prefix does."""
BLOCK = 2**20  # float64 components that are taken at once
OVERHEAD_NS = 2e7  # of making a prefix, beside its products


def n_until_prefix(n_clusters: int, n_dims: int, product_ns: float) -> float:
    """Records of n_dims after which a prefix may have saved what it costs; +inf: never."""
    short = 2 * STEP
    comparisons = 3.0
    saved = (n_dims * n_clusters - short * (n_dims + n_clusters)) * product_ns
    saved -= comparisons * comparison_ns(n_dims)
    if saved <= 0.0 or n_dims < 2 * STEP:
        return float("inf")
    some = min(n_clusters, MAX_CENTROIDS)
    n_products = (2 * ROUNDS * n_dims + SAMPLE) * some * MAX_DIRECTIONS
    n_products += 6 * n_clusters * n_dims * short  # to pack it, in float64
    return (n_products * FLOAT32_NS + OVERHEAD_NS) / saved


def basis_for(
    centroids: Points, points: Points, *, product_ns: float, look_ns: float, plain_ns: float,
    rounding: float,
) -> NDArray[np.float32] | None:  # fmt: skip
    """The rows of a prefix (r, n_dims), nearly orthonormal; None: it would not pay.

    Parameters
    ----------
    points : (n, n_dims)
        Some records such as will be searched for.
    product_ns
        What the product of two components takes.
    look_ns
        What a centroid takes that the prefix leaves.
    plain_ns
        What a record takes without a prefix.
    rounding
        |z - ẑ| / |z| of the operands, about.
    """
    n_clusters, n_dims = centroids.shape
    middle = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
    some = centroids[:: -(-n_clusters // MAX_CENTROIDS)] - middle
    directions = _directions(some, min(MAX_DIRECTIONS, n_dims // STEP * STEP))
    rows = points[:: -(-len(points) // SAMPLE)] - middle
    left = _left(rows, some, directions, rounding)
    best, best_ns = None, GAIN * plain_ns
    for r, share in left.items():
        ns = r * (n_dims + n_clusters) * product_ns + share * n_clusters * look_ns
        ns += comparison_ns(n_dims)
        if ns < best_ns:
            best, best_ns = r, ns
    return None if best is None else turned(directions[:best])


def some_basis(centroids: Points, n: int) -> NDArray[np.float32]:
    """A prefix of n rows, or n_dims, of whatever use."""
    middle = centroids.mean(axis=0, dtype=np.float64)
    rows = centroids - middle
    rows /= max(np.abs(rows).max(), 2.0**-1000)  # neither huge nor tiny
    return turned(_directions(rows.astype(np.float32), n))


def _directions(rows: Points, most: int) -> NDArray[np.float32]:
    """Those of the greatest variance, the greatest first: (r, n_dims) float32."""
    n_dims = rows.shape[1]
    n = min(most, n_dims)
    found = np.random.default_rng(0).standard_normal((n_dims, n), np.float32)
    for _ in range(ROUNDS):
        found = np.linalg.qr(rows.T @ (rows @ found))[0]
    parts = rows @ found
    order = np.linalg.eigh(parts.T @ parts)[1][:, ::-1]
    return np.ascontiguousarray((found @ order).T)


def _left(
    rows: Points, centred: Points, directions: NDArray[np.float32], rounding: float
) -> dict[int, float]:
    """For every r the share of centroids that it leaves to compare, besides the nearest."""
    ys, us = rows @ directions.T, centred @ directions.T
    squares, lengths = np.square(rows).sum(axis=1), np.square(centred).sum(axis=1)
    distances = (squares[:, None] + lengths) - 2.0 * (rows @ centred.T)
    nearest = distances.min(axis=1, keepdims=True)
    inner = np.zeros_like(distances)
    far, tails = squares.copy(), lengths.copy()
    reach = np.sqrt(squares)[:, None] * np.sqrt(lengths)
    shares = {}
    for r in range(STEP, len(directions) + 1, STEP):
        part = slice(r - STEP, r)
        inner += ys[:, part] @ us[:, part].T
        far -= np.square(ys[:, part]).sum(axis=1)
        tails -= np.square(us[:, part]).sum(axis=1)
        across = np.sqrt(np.maximum(far, 0.0))[:, None] * np.sqrt(np.maximum(tails, 0.0))
        bounds = squares[:, None] + lengths - 2.0 * (inner + across + 3.0 * rounding * reach)
        shares[r] = float((bounds <= nearest).mean()) - 1.0 / distances.shape[1]
    return shares


def turned(directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same subspace, no direction before another."""
    turn = np.random.default_rng(1).standard_normal((len(directions),) * 2)
    rows: NDArray[np.float32] = (np.linalg.qr(turn)[0] @ directions).astype(np.float32)
    return rows


class Prefix(NamedTuple):
    """What the portable twin needs for a search behind a prefix."""

    basis: NDArray[np.float32]  # (r, n_dims): G
    parts: NDArray[np.float32]  # (n_clusters, r): u, rounded
    tails: NDArray[np.float32]  # (n_clusters,): |v|, rounded up
    loss: float  # of y, relative to |z|
    stretch: float  # λ, rounded up


NO_PREFIX = Prefix(
    np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32), np.zeros(0, np.float32), 0.0, 1.0
)
"""For a search without."""


def prefixed(model: BoundedModel, basis: NDArray[np.float32]) -> tuple[BoundedModel, Prefix] | None:
    """A search of float32 operands behind a prefix; None, where nothing can be proven.

    The bound of `pipeline.kernels.avx512.packing`, in the words of `pipeline.kernels.bounds`: with
    ``w_k = Gᵀu_k + v_k``, y = Gz and float32 values for all of them

        |z·w_k - fl(y·u_k)| <= |z_⊥| |v_k| + (u + γ_d |G| + 2u + γ_r) · 1.02 |z| max(|w_k|, |u_k|)

    with |G| the Frobenius norm, γ_d |G| |z| what the products of y may lose, and G so near to
    orthonormal rows that |y| <= 1.01 |z|. The slope has room for it twice.
    """
    if model.max_length <= 0.0:
        return None
    n_clusters, n_dims = model.centroids.shape
    rows = basis.astype(np.float64)
    gram = rows @ rows.T
    values = np.linalg.eigvalsh(gram)
    if not (values[0] > 0.98 and values[-1] < 1.02):
        return None
    loss = 1.01 * n_dims * UNIT / (1.0 - n_dims * UNIT) * float(np.linalg.norm(rows))
    gamma = len(basis) * UNIT / (1.0 - len(basis) * UNIT)
    rounded = np.empty((n_clusters, len(basis)), np.float32)
    floors, reaches, tails = np.empty((3, n_clusters), np.float32)
    block = max(1, BLOCK // n_dims)
    for first in range(0, n_clusters, block):
        some = slice(first, first + block)
        wide = model.centroids[some].astype(np.float64) - model.middle
        products = wide @ rows.T
        parts = np.linalg.solve(gram, products.T).T
        lengths = np.linalg.norm(wide, axis=1)
        leaks = np.linalg.norm(products - parts @ gram, axis=1)
        if not (leaks <= LEAK / 8.0 * lengths).all():
            return None
        rest = np.linalg.norm(wide - parts @ rows, axis=1) + 2.0**-36 * lengths
        reach = np.maximum(lengths, np.linalg.norm(parts, axis=1))
        lost = (2 * n_dims + 8) * TINY * (1.0 + lengths)
        rounded[some] = parts
        floors[some] = np.square(lengths) * (1.0 - 8.0 * UNIT) - lost
        reaches[some] = reach * (1.0 + 4.0 * UNIT)
        tails[some] = rest * (1.0 + 8.0 * UNIT)
    infinity = np.float32(np.inf)
    narrow = model._replace(
        floors=np.nextafter(floors, -infinity),
        reaches=np.nextafter(reaches, infinity),
        slope=2.0 * 1.03 * (loss + gamma + LEAK) + 24.0 * UNIT,
    )
    stretch = float(values[-1]) * (1.0 + 2.0**-30)
    return narrow, Prefix(basis.copy(), rounded, np.nextafter(tails, infinity), loss, stretch)
