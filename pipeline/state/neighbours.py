"""Which vectors are nearest to one: the exact scan.

float32 proposes and float64 decides: one product of the matrix with the query gives squared
distances with a known error, everything that it cannot exclude is measured by the canonical
float64 distance, and ties go to the smaller id. So the answer depends on nothing but the vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.state.view_items import Items

BLOCK_ROWS = 65_536
"""Rows of one product: the squared distances of a block stay in the cache."""
_ROUNDING = float(np.finfo(np.float32).eps)


class Neighbour(NamedTuple):
    """A row, and how far its vector is."""

    row: int
    distance_squared: float


class ExactSearch:
    """Scans the rows of `Items`; squared norms are kept beside them, four bytes a row.

    Parameters
    ----------
    items
        With vectors.
    """

    def __init__(self, items: Items) -> None:
        self._items = items
        self._norms = np.empty(0, np.float32)

    def note(self, rows: NDArray[np.intp]) -> None:
        """The vectors of these rows are others now."""
        if not len(rows):
            return
        capacity = len(self._items.vectors)
        if len(self._norms) < capacity:
            grown = np.zeros(capacity, np.float32)
            grown[: len(self._norms)] = self._norms
            self._norms = grown
        vectors = self._items.vectors[rows]
        self._norms[rows] = np.einsum("ij,ij->i", vectors, vectors)

    def nearest(
        self,
        query: NDArray[np.float32],
        limit: int,
        *,
        rows: NDArray[np.intp] | None = None,
        without: int = -1,
        max_squared: float = np.inf,
    ) -> list[Neighbour]:
        """The nearest rows, the nearest first.

        Parameters
        ----------
        query : (n_dims,) float32
            In the form that vectors are stored in.
        rows : (n,) intp, optional
            Only among these; None: all.
        without
            A row that is not meant.
        max_squared
            Farther ones are left out.
        """
        items = self._items
        candidates = np.arange(items.n_rows) if rows is None else rows
        candidates = candidates[items.has_vector(rows) & (candidates != without)]
        if not len(candidates):
            return []
        approximate, error = self._scan(query, None if rows is None else candidates)
        if rows is None:
            approximate = approximate[candidates]
        wanted = min(limit, len(candidates))
        border = float(np.partition(approximate, wanted - 1)[wanted - 1])
        chosen = candidates[approximate <= min(border, max_squared) + 2.0 * error]
        exact = _squared(items.vectors, chosen, query)
        found = sorted(
            (squared, items.name(row), row)
            for squared, row in zip(exact.tolist(), chosen.tolist(), strict=True)
            if squared <= max_squared
        )
        return [Neighbour(row, squared) for squared, _, row in found[:limit]]

    def _scan(
        self, query: NDArray[np.float32], rows: NDArray[np.intp] | None
    ) -> tuple[NDArray[np.float32], float]:
        """Approximate squared distances, and how far one may be off.

        ``|x|² - 2 x.q + |q|²``: each term is a sum of n_dims products, off by at most
        ``n_dims * eps`` of what its magnitudes add up to.
        """
        items = self._items
        square = float(np.dot(query.astype(np.float64), query.astype(np.float64)))
        if rows is None:
            n = items.n_rows
            approximate = np.empty(n, np.float32)
            for start in range(0, n, BLOCK_ROWS):
                part = slice(start, min(n, start + BLOCK_ROWS))
                np.dot(items.vectors[part], query, out=approximate[part])
            norms = self._norms[:n]
        else:
            approximate = items.vectors[rows] @ query
            norms = self._norms[rows]
        approximate *= -2.0
        approximate += norms
        approximate += np.float32(square)
        largest = float(norms.max(initial=0.0))
        # |x.q| <= (|x|² + |q|²) / 2, so all magnitudes together are at most twice their sum
        error = 4.0 * (len(query) + 8) * _ROUNDING * (largest + square)
        return approximate, error


def _squared(
    vectors: NDArray[np.float32], rows: NDArray[np.intp], query: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(n,) squared distances in float64: 32 running sums, as everywhere in the product."""
    totals = np.empty(len(rows))
    n_dims = len(query)
    wide = query.astype(np.float64)
    for start in range(0, len(rows), 4096):
        part = vectors[rows[start : start + 4096]].astype(np.float64)
        part -= wide
        part *= part
        sums = np.zeros((len(part), 32))
        for at in range(0, n_dims, 32):
            piece = part[:, at : at + 32]
            sums[:, : piece.shape[1]] += piece
        width = 16
        while width:
            sums = sums[:, :width] + sums[:, width:]
            width //= 2
        totals[start : start + len(part)] = sums[:, 0]
    return totals
