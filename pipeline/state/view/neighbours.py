"""Which vectors are nearest to one: rows are proposed, measured again, and the nearest told.

Who proposes may do so while the view goes on: from what stood there a moment ago. What is proposed
is measured by the canonical float64 distance while nobody changes anything, and ties go to the
smaller id. So a distance that is told is exact, whoever proposed the row; and the proposals of
`ExactSearch` hold all of the nearest. `pipeline.state.view.neighbour_graph` has those that hold
most.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.nearby import squared_distances
from pipeline.state.view.items import Items

BLOCK_ROWS = 65_536
"""Rows of one product: the squared distances of a block stay in the cache."""
TO_SPARE = 6
"""Rows proposed beyond those that are wanted: some may have gone meanwhile."""
_ROUNDING = float(np.finfo(np.float32).eps)

T = TypeVar("T")


class Neighbour(NamedTuple):
    """A row, and how far its vector is."""

    row: int
    distance_squared: float


class Proposed(NamedTuple):
    """Rows that are near, each once."""

    rows: NDArray[np.intp]
    n_core: int
    """The nearest of them stand first, as far as the proposer knows; the others might be nearer."""
    is_all: bool
    """There is nothing else to propose."""


class Proposer(Protocol):
    """What of a search goes without holding anybody up."""

    index: str
    """By what rows are found: exact, faiss."""
    effort: int | None
    """Of an index that has such a thing."""

    def take(self, n_wanted: int) -> Proposed:
        """At least so many near rows, if there are; of a later call, more."""
        ...


def warm_up() -> None:
    """Have the loop of distances compiled, or read from the disk: else the first search waits."""
    point = np.zeros(1, np.float32)
    squared_distances(point[None], np.zeros(1, np.intp), point, np.empty(1))


def nearest(
    items: Items,
    proposer: Proposer,
    query: NDArray[np.float32],
    limit: int,
    *,
    without: int = -1,
    max_squared: float = np.inf,
    looking: Callable[[], AbstractContextManager[object]] = nullcontext,
    tell: Callable[[list[Neighbour]], T],
) -> T:
    """What ``tell`` says of the nearest rows, the nearest first; ties by id.

    Parameters
    ----------
    query : (n_dims,) float32
        In the form that vectors are stored in.
    without
        A row that is not meant.
    max_squared
        Farther ones are left out.
    looking
        Holds off whoever changes the items: around the measuring and ``tell``.
    """
    n_wanted = limit + TO_SPARE
    while True:
        proposed = proposer.take(n_wanted)
        with looking():
            rows = proposed.rows
            is_one = items.has_vector(rows) & (rows != without)
            if proposed.is_all or np.count_nonzero(is_one[: proposed.n_core]) >= limit:
                return tell(_measured(items, rows[is_one], query, limit, max_squared))
        n_wanted *= 4


def measured(
    vectors: NDArray[np.float32], rows: NDArray[np.intp], query: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(n,) canonical squared distances of rows; of vectors of another length all are infinite."""
    if vectors.shape[1] != len(query):
        return np.full(len(rows), np.inf)
    squared = np.empty(len(rows))
    squared_distances(vectors, rows, query, squared)
    return squared


def _measured(
    items: Items,
    rows: NDArray[np.intp],
    query: NDArray[np.float32],
    limit: int,
    max_squared: float,
) -> list[Neighbour]:
    squared = measured(items.vectors, rows, query)
    is_near = squared <= max_squared
    if np.count_nonzero(is_near) > limit:
        is_near &= squared <= np.partition(squared, limit - 1)[limit - 1]
    rows, squared = rows[is_near], squared[is_near]
    found = sorted(zip(squared.tolist(), items.names(rows), rows.tolist(), strict=True))
    return [Neighbour(row, distance) for distance, _, row in found[:limit]]


class ExactSearch:
    """Scans all rows of `Items`; squared norms are kept beside them, four bytes a row.

    float32 proposes and float64 decides: one product of the matrix with the query gives squared
    distances with a known error, and everything that it cannot exclude is proposed.
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

    def proposer(
        self, query: NDArray[np.float32], rows: NDArray[np.intp] | None = None
    ) -> Proposer:
        """Of the nearest to a query; ``rows``: only among these, each once."""
        if rows is not None:
            return _Chosen(self._items.vectors, rows, query)
        n = min(self._items.n_rows, len(self._norms))
        return _Scan(self._items.vectors[:n], self._norms[:n], query)


class _Chosen:
    """Among some rows, by their exact distances of that moment."""

    index = "exact"
    effort: int | None = None

    def __init__(
        self, vectors: NDArray[np.float32], rows: NDArray[np.intp], query: NDArray[np.float32]
    ) -> None:
        self._vectors, self._rows, self._query = vectors, rows, query
        self._squared: NDArray[np.float64] | None = None

    def take(self, n_wanted: int) -> Proposed:
        rows = self._rows
        if n_wanted >= len(rows):
            return Proposed(rows, len(rows), True)
        if self._squared is None:
            self._squared = measured(self._vectors, rows, self._query)
        border = np.partition(self._squared, n_wanted - 1)[n_wanted - 1]
        near = rows[self._squared <= border]
        return Proposed(near, len(near), False)


class _Scan:
    """All rows, by their approximate distances of that moment."""

    index = "exact"
    effort: int | None = None

    def __init__(
        self,
        vectors: NDArray[np.float32],
        norms: NDArray[np.float32],
        query: NDArray[np.float32],
    ) -> None:
        self._vectors, self._norms, self._query = vectors, norms, query
        self._error = 0.0
        self._approximate: NDArray[np.float32] | None = None

    def take(self, n_wanted: int) -> Proposed:
        n = len(self._vectors)
        if n_wanted >= n:
            return Proposed(np.arange(n), n, True)
        if self._approximate is None:
            self._approximate = self._scanned()
        approximate = self._approximate
        border = np.partition(approximate, n_wanted - 1)[n_wanted - 1]
        rows = np.flatnonzero(approximate <= float(border) + 2.0 * self._error)
        is_core = approximate[rows] <= border
        ordered = np.concatenate((rows[is_core], rows[~is_core]))
        return Proposed(ordered, int(np.count_nonzero(is_core)), len(rows) == n)

    def _scanned(self) -> NDArray[np.float32]:
        """Approximate squared distances, but for the query's own square; sets the error.

        ``|x|² - 2 x.q``: each term is a sum of n_dims products, off by at most ``n_dims * eps``
        of what its magnitudes add up to.
        """
        query, n = self._query, len(self._vectors)
        square = float(np.dot(query.astype(np.float64), query.astype(np.float64)))
        approximate = np.empty(n, np.float32)
        doubled = query * np.float32(-2.0)
        for start in range(0, n, BLOCK_ROWS):
            part = slice(start, min(n, start + BLOCK_ROWS))
            np.dot(self._vectors[part], doubled, out=approximate[part])
            approximate[part] += self._norms[part]
        largest = float(self._norms.max(initial=0.0))
        # |x.q| <= (|x|² + |q|²) / 2, so all magnitudes together are at most twice their sum
        self._error = 4.0 * (len(query) + 8) * _ROUNDING * (largest + square)
        return approximate
