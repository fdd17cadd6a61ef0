"""What float32 can prove about distances, prepared once per model; the twins share it.

With ``z = x - m`` and ``w = c - m`` (m is any vector; the mean centroid keeps norms small)

    D(x, c_k) = |z|² + s_k,    s_k = |w_k|² - 2 z·w_k

and the float32 value

    L_k = floor_k - 2 fl(z·w_k) - fl(A |z|) reach_k

is below ``s_k`` whatever the order of the sums, because it is lowered by everything that
rounding can do: ``A |z| |w_k| + B |w_k|²`` with A = 2γ + 12u, B = 5u, γ = du / (1 - du) and
u = 2**-24. γ is the product in any order ("Accuracy and Stability of Numerical Algorithms",
2002, eq. 3.5), 4u the rounding of both operands, the rest the two subtractions and the last
term itself, with room to spare.

So one canonical distance excludes every k with ``L_k + |z|²`` above it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.contract import Points

UNIT = 2.0**-24  # relative error of one float32 operation, round to nearest
TINY = 2.0**-124  # more than a product or a sum loses below the normal float32 numbers
MAX_SCORE = 1e37  # float32 ends at 3.4e38
MAX_DIMS = 2**20  # γ must stay far below 1
MAX_TABLE = 2**20  # pairs of centroids whose distance is kept: 4 MiB


class BoundedModel(NamedTuple):
    """Centroids, and what is needed for a lower bound of every distance to them."""

    centroids: Points  # (n_clusters, n_dims): c, as given
    middle: NDArray[np.float32]  # (n_dims,): m
    centred: Points  # (n_clusters, n_dims): w, rounded
    floors: NDArray[np.float32]  # (n_clusters,): |w|² - B |w|², rounded down
    reaches: NDArray[np.float32]  # (n_clusters,): |w|, rounded up
    slope: float  # A
    tilt: float  # added to A |z|: what is lost below the normal numbers
    max_length: float
    """A point with a longer |z| may overflow float32 and must be compared canonically."""


def bounded(centroids: Points) -> BoundedModel:
    """Prepare centroids (n_clusters, n_dims); they are copied."""
    n_dims = centroids.shape[1]
    exact = centroids.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # a huge model gets no bound below
        middle = exact.mean(axis=0).astype(np.float32)
        exact -= middle
        centred = exact.astype(np.float32)
        lengths_squared = np.einsum("ij,ij->i", exact, exact)
        lengths = np.sqrt(lengths_squared) * (1.0 + 4.0 * UNIT)
        floors = lengths_squared * (1.0 - 5.0 * UNIT) - (2 * n_dims + 8) * TINY * (1.0 + lengths)
        longest = float(lengths.max())
        gamma = n_dims * UNIT / (1.0 - n_dims * UNIT)
        room = MAX_SCORE - longest**2
        max_length = min(room / max(2.0 * longest, 1.0), MAX_SCORE**0.5)
        return BoundedModel(
            centroids=centroids.copy(),
            middle=middle,
            centred=centred,
            floors=np.nextafter(floors.astype(np.float32), np.float32(-np.inf)),
            reaches=np.nextafter(lengths.astype(np.float32), np.float32(np.inf)),
            slope=1.0001 * 2.0 * gamma + 12.0 * UNIT,
            tilt=n_dims * TINY,
            max_length=max_length if room > 0.0 and n_dims <= MAX_DIMS else -1.0,
        )


class Borders(NamedTuple):
    """What is needed for a lower bound of the distance to the border between two cells."""

    firsts: NDArray[np.int32]  # (n_clusters,): the lowest label with an equal centroid
    inverses: NDArray[np.float32]
    """(n_clusters, n_clusters): 1 / (2 |c_j - c_k|), rounded down; or, with too many clusters,
    (0, 0), and ``|w_j| + |w_k|`` stands for the distance."""


NO_BORDERS = Borders(np.zeros(0, np.int32), np.zeros((0, 0), np.float32))
"""For a call that does not ask."""


def borders(centroids: Points) -> Borders:
    """Prepare centroids (n_clusters, n_dims) for margins.

    The squared distances ``|w_j|² + |w_k|² - 2 w_j·w_k``, in float64, are raised by what rounding
    can do to them in any order: ``(2d + 32) 2**-53 (|w_j| + |w_k|)²`` is twice over for the
    product and the squares (γ as above), the differences and the rest. For centroids that are
    nearly the same this is most of what is left, which costs nothing but sharpness.
    """
    n_clusters, n_dims = centroids.shape
    labels: dict[bytes, int] = {}
    positive = centroids + np.float32(0.0)  # -0 is 0
    firsts = [labels.setdefault(row.tobytes(), k) for k, row in enumerate(positive)]
    if n_clusters**2 > MAX_TABLE:
        return Borders(np.array(firsts, np.int32), NO_BORDERS.inverses)
    exact = centroids.astype(np.float64)
    exact -= exact.mean(axis=0)
    squares = np.einsum("ij,ij->i", exact, exact)
    lengths = np.sqrt(squares)
    pairs = exact @ exact.T
    pairs *= -2.0
    pairs += squares
    pairs += squares[:, None]
    sums = np.add.outer(lengths, lengths)
    pairs += (2 * n_dims + 32) * 2.0**-53 * np.square(sums, out=sums)
    with np.errstate(divide="ignore"):
        inverses = (0.5 - 2.0**-20) / np.sqrt(np.maximum(pairs, 0.0))
    return Borders(
        np.array(firsts, np.int32),
        np.minimum(inverses, 1e37).astype(np.float32),  # an equal centroid is no border anyway
    )
