"""How long a label stays proven while the centroids move: one number a member.

When a member is assigned, its nearest centroid ``a`` is nearer than every other one by a
*slack*: ``|x - c_j| - |x - c_a| >= slack`` for all j. By the triangle inequality a revision
takes at most ``|move of c_a| + max |move of c_j|`` of that away; what such steps add up to is
the *drift* of a label. As long as the drift since is below the slack, nobody else is nearer,
and no centroid has to be looked at ("Making k-means even faster", 2010, whose two bounds are
one number here because only their difference decides).

The drift of a label only grows, so a member stores ``proof = slack + drift then``, and is
proven while ``proof > drift now``: a revision adds to one number a cluster, none a member.

Why the label is then the canonical argmin
------------------------------------------
Let D be canonical distances squared (:mod:`pipeline.kernels.contract`), r the distances in real
numbers, ``l = sqrt(D_a)``, ``L = sqrt(D_a + gap)``, and R = `ROUNDING`. Canonical values are
off by a relative e = (n_dims / 32 + 8) * 2**-53 at most, which is below R / 64 for
n_dims <= 2**14; the gap is a lower bound up to 4e of what it is the difference of. So at the
assignment ``r_j >= L (1 - 3e)`` and ``r_a <= l + e L``. With a drift g since then, in real
numbers below the slack ``L (1 - R) - l``, and the few roundings of 2**-53 in computing that,

    r_j' - r_a' >= r_j - r_a - g > L (R - 5e)     and     r_a' <= r_a + g <= L (1 + e)

so ``r_j' (1 - e) > r_a' (1 + e)``, which needs ``R - 5e > 2e`` and a little, and therefore
``D_j' > D_a'``: strictly, so that no tie is left to be broken. Drift is rounded up and proofs
down at every step, hence ``proof > drift`` in floats is the same in real numbers.

Two sharper bounds were tried on 35 000 real members (K = 500, 384 dimensions) and not taken. A
radius of each cluster, to forget the moves of centroids that its members cannot reach, excludes
2.6 % of the pairs: in so many dimensions all distances are alike. And a revision after 100 changes
spends the proof of 62 % of the members, though 0.1 % move, because one small cluster makes a long
step; comparing everybody in doubt with the 16 longest steps alone would leave 21 %, but those
comparisons, and the own distance that they need, eat most of what it saves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.contract import Points

ROUNDING = 2.0**-36
"""Relative; far above what any order of summing squares can lose in 2**14 dimensions."""
UNPROVEN = -np.inf
BLOCK = 1024


def proofs(
    distances_squared: NDArray[np.float64],
    gaps: NDArray[np.float32],
    drift: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The proofs of labels that were found just now, rounded down.

    Parameters
    ----------
    distances_squared, gaps : (n,)
        As `pipeline.kernels.contract.Assignment` has them.
    drift : (n,) float64
        Of each point's label, now.
    """
    nearest = np.sqrt(distances_squared)
    others = np.sqrt(distances_squared + gaps)
    slacks = others * (1.0 - ROUNDING) - nearest  # in this order: others may be infinite
    found: NDArray[np.float64] = np.nextafter(slacks + drift, -np.inf)
    return found


def drifted(drift: NDArray[np.float64], before: Points, after: Points) -> NDArray[np.float64]:
    """The drift of every label after a revision, rounded up.

    Parameters
    ----------
    drift : (n_labels,) float64
        So far. The centroids are those of its first labels; the others stay as they are.
    before, after : (n_clusters, n_dims) float32
        The centroids, in the same order.
    """
    moves = distances_moved(before, after)
    steps = (moves + largest_other(moves)) * (1.0 + ROUNDING)
    grown = drift.copy()
    grown[: len(steps)] += steps
    moved = np.flatnonzero(steps)
    grown[moved] = np.nextafter(grown[moved], np.inf)
    return grown


def distances_moved(before: Points, after: Points) -> NDArray[np.float64]:
    """How far each of n centroids has moved, off by less than a relative `ROUNDING` / 4."""
    moves = np.zeros(len(before))
    for start in range(0, len(before), BLOCK):
        stop = start + BLOCK
        gaps = after[start:stop].astype(np.float64) - before[start:stop]
        moves[start:stop] = np.sqrt(np.square(gaps).sum(axis=1))
    return moves


def largest_other(moves: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each of n >= 1 numbers the largest one among the others; 0 where there is none."""
    largest = np.full(len(moves), moves.max())
    first = int(moves.argmax())
    largest[first] = np.delete(moves, first).max(initial=0.0)
    return largest
