"""Which vectors are near to one, mostly the nearest: a graph of neighbours over rows of `Items`.

The graph takes points in and lets none go. So a row whose vector changes loses its node, and waits
for another; rows that wait are scanned beside every search, so nothing is missed for being new.
Nodes without a row are passed over, until they are so many that a graph is built anew. An item
takes 9 bytes here, and in the graph two bytes a dimension and some 272 for its links; a graph that
is built beside another takes the same again while it is built.

The owner sees to it that nobody searches the graph while something is added to it, and holds the
view for everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.graph import NeighbourGraph
from pipeline.state.view.items import Items
from pipeline.state.view.neighbours import TO_SPARE, ExactSearch, Proposed, Proposer, measured

N_NEAREST: Final = 10
"""Of how many the recall is told."""
EFFORTS: Final = (128, 192, 256, 384, 512, 768, 1024)
"""None below: at a million rows 48 did for the sample and found 0.987 for others; 128 finds 0.9995
in a third of a millisecond."""
ERRORS_TO_SPARE: Final = 2.0
"""With one, queries from elsewhere found 0.9895 of the nearest: own rows are a little easier."""
MAX_WAITING_SHARE: Final = 0.1
"""Of the rows: while more of them wait, a scan of all is as good."""
MAX_PROPOSED: Final = 2048
"""By a graph; who wants more is better off with a scan."""
N_NEAR: Final = 32
"""Rows that float32 proposes for the ten nearest of a sample."""
BLOCK_ROWS: Final = 8192
PICKED_ROWS: Final = 65_536
"""Looked at in one step for those that wait."""
MIN_SHARES: Final = 0.2
"""Of a sample: if fewer have a neighbour that stayed as it was, it says nothing."""
_GONE, _WAITS, _TAKEN = 0, 1, 2


class Tuned(NamedTuple):
    """What an effort is good for, as a sample of the graph's own rows has it."""

    effort: int
    recall: float
    """The share of the ten nearest that were found."""
    error: float
    """The standard error of that, as the sample has it."""


class Graph:
    """The nodes of some rows.

    Parameters
    ----------
    searching
        Keeps everybody from adding to the graph.
    """

    def __init__(
        self,
        items: Items,
        nodes: NeighbourGraph,
        *,
        searching: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.nodes, self._items, self._searching = nodes, items, searching
        self.effort = EFFORTS[-1]
        self._node_rows = np.full(1024, -1, np.int32)
        self._row_nodes = np.empty(0, np.int32)
        self._waits = np.empty(0, np.uint8)
        self._next = 0
        """Where rows were picked last: those behind it are looked at first."""
        self._fit()
        self.note(np.flatnonzero(items.has_vector()))

    def note(self, rows: NDArray[np.intp]) -> None:
        """The vectors of these rows are others now."""
        self._fit()
        nodes = self._row_nodes[rows]
        self._node_rows[nodes[nodes >= 0]] = -1
        self._row_nodes[rows] = -1
        self._waits[rows] = _WAITS

    @property
    def n_waiting(self) -> int:
        """Rows that are not in it yet."""
        return int(np.count_nonzero(self._waits))

    def waiting(self) -> NDArray[np.intp]:
        """The rows that are not in it yet, ascending."""
        return np.flatnonzero(self._waits)

    @property
    def n_idle(self) -> int:
        """Nodes of rows that are others by now, or gone."""
        known = self._items.has_vector()[: len(self._row_nodes)]
        known &= self._row_nodes[: len(known)] >= 0  # a row has one node, and a node one row
        return len(self.nodes) - int(np.count_nonzero(known))

    @property
    def n_bytes(self) -> int:
        """What all of it takes."""
        columns = self._node_rows, self._row_nodes, self._waits
        return self.nodes.n_bytes + sum(column.nbytes for column in columns)

    def pick(self, n: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Some rows that wait, and their vectors, to be added to the nodes in this order."""
        rows = self._waiting_from(n)
        is_there = self._items.has_vector(rows)
        self._waits[rows[~is_there]] = _GONE
        rows = rows[is_there]
        self._waits[rows] = _TAKEN
        return rows, self._items.vectors[rows]

    def _waiting_from(self, n: int) -> NDArray[np.intp]:
        """Some rows that wait, n at most; none if there are none.

        A part of the rows at a time: of a million that wait, each call would look at them all.
        """
        stop = len(self._waits)
        for first, last in ((self._next, stop), (0, self._next)):
            for start in range(first, last, PICKED_ROWS):
                part = self._waits[start : min(start + PICKED_ROWS, last)]
                rows = np.flatnonzero(part == _WAITS)[:n] + start
                if len(rows):
                    self._next = int(rows[-1]) + 1
                    return rows
        return np.empty(0, np.intp)

    def place(self, rows: NDArray[np.intp], first_node: int) -> None:
        """What was picked has been added; what was noted meanwhile waits on."""
        stop = first_node + len(rows)
        if stop > len(self._node_rows):
            grown = np.full(max(stop, len(self._node_rows) * 5 // 4), -1, np.int32)
            grown[: len(self._node_rows)] = self._node_rows
            self._node_rows = grown
        is_still = self._waits[rows] == _TAKEN
        nodes, rows = np.arange(first_node, stop)[is_still], rows[is_still]
        self._node_rows[nodes] = rows
        self._row_nodes[rows] = nodes
        self._waits[rows] = _GONE

    def is_settled(self, rows: NDArray[np.intp], n_nodes: int) -> NDArray[np.bool_]:
        """(n,) whether rows are as they were when there were so many nodes."""
        nodes = self._row_nodes[rows]
        settled: NDArray[np.bool_] = (nodes >= 0) & (nodes < n_nodes) & (self._waits[rows] == _GONE)
        return settled

    def rows_of(self, nodes: NDArray[np.int64]) -> NDArray[np.intp]:
        """The rows of nodes, in this order; of those that have one."""
        known = nodes[nodes < len(self._node_rows)]
        rows = self._node_rows[known]
        return rows[rows >= 0].astype(np.intp)

    def search(self, query: NDArray[np.float32], n: int, effort: int) -> NDArray[np.int64]:
        """Nodes near to a query, the nearest first."""
        with self._searching():
            return self.nodes.search(query, min(n, max(1, len(self.nodes))), effort)

    def proposer(
        self,
        query: NDArray[np.float32],
        exact: ExactSearch,
        looking: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Proposer:
        """Of rows near to a query; by the exact search, where that is as fast."""
        waiting = self.waiting()
        if len(waiting) > MAX_WAITING_SHARE * self._items.n_rows:
            return exact.proposer(query)
        return _ByGraph(self, self._items.vectors, waiting, query, exact.proposer(query), looking)

    def _fit(self) -> None:
        capacity = len(self._items.vectors)
        if len(self._waits) < capacity:
            waits, nodes = np.zeros(capacity, np.uint8), np.full(capacity, -1, np.int32)
            waits[: len(self._waits)], nodes[: len(self._waits)] = self._waits, self._row_nodes
            self._waits, self._row_nodes = waits, nodes


class _ByGraph:
    """Nodes that a search finds, and the nearest of the rows that wait."""

    index = "faiss"

    def __init__(
        self,
        graph: Graph,
        vectors: NDArray[np.float32],
        waiting: NDArray[np.intp],
        query: NDArray[np.float32],
        scan: Proposer,
        looking: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._graph, self._vectors, self._waiting = graph, vectors, waiting
        self._query, self._scan, self._looking = query, scan, looking
        self.effort: int | None = graph.effort

    def take(self, n_wanted: int) -> Proposed:
        if n_wanted > MAX_PROPOSED:
            self.index, self.effort = "exact", None
            return self._scan.take(n_wanted)
        nodes = self._graph.search(self._query, n_wanted, self._graph.effort)
        rows = self._waiting
        if len(rows) > n_wanted:
            squared = measured(self._vectors, rows, self._query)
            rows = rows[squared <= np.partition(squared, n_wanted - 1)[n_wanted - 1]]
        with self._looking():
            found = np.union1d(self._graph.rows_of(nodes), rows)
        return Proposed(found, len(found), False)


class Sample(NamedTuple):
    """Some of the rows, and what a search from each should find."""

    rows: NDArray[np.intp]
    vectors: NDArray[np.float32]
    """(n, n_dims) theirs."""
    neighbours: NDArray[np.intp]
    """(n, 10) the rows of the ten nearest others."""
    farthest: NDArray[np.float64]
    """(n,) squared distance to the last of them."""


def draw(items: Items, n: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Some rows that have a vector, and which do; with the view held."""
    known = items.has_vector()
    rows = np.flatnonzero(known)
    return np.random.default_rng(seed).choice(rows, min(n, len(rows)), replace=False), known


def sampled(
    vectors: NDArray[np.float32], rows: NDArray[np.intp], known: NDArray[np.bool_]
) -> Sample:
    """The nearest of rows by a pass over all vectors, which nobody has to wait for.

    Of more than ten other rows. float32 proposes `N_NEAR`, the canonical distance decides.

    Parameters
    ----------
    vectors : (n, n_dims) float32
    known : (n,) whether a row counts
    """
    queries = vectors[rows]
    best = [_Best.nothing() for _ in rows]
    squares = np.einsum("ij,ij->i", queries, queries)
    for start in range(0, len(known), BLOCK_ROWS):
        part = vectors[start : min(len(known), start + BLOCK_ROWS)]
        products = queries @ part.T
        products *= -2.0
        products += np.einsum("ij,ij->i", part, part)
        products += squares[:, None]
        products[:, ~known[start : start + len(part)]] = np.inf
        for i, row in enumerate(products):
            at = np.flatnonzero(row < best[i].border)
            if len(at):
                best[i] = best[i].joined(at + start, row[at])
    neighbours, farthest = np.empty((len(rows), N_NEAREST), np.intp), np.empty(len(rows))
    for i, (row, query) in enumerate(zip(rows.tolist(), queries, strict=True)):
        others = best[i].rows[best[i].rows != row]
        squared = measured(vectors, others, query)
        order = np.argsort(squared)[:N_NEAREST]
        neighbours[i], farthest[i] = others[order], squared[order[-1]]
    return Sample(rows, queries, neighbours, farthest)


class _Best(NamedTuple):
    """The nearest rows so far."""

    rows: NDArray[np.intp]
    squared: NDArray[np.float32]
    border: float

    @staticmethod
    def nothing() -> _Best:
        return _Best(np.empty(0, np.intp), np.empty(0, np.float32), np.inf)

    def joined(self, rows: NDArray[np.intp], squared: NDArray[np.float32]) -> _Best:
        rows, squared = np.concatenate((self.rows, rows)), np.concatenate((self.squared, squared))
        if len(rows) <= N_NEAR:
            return _Best(rows, squared, np.inf)
        at = np.argpartition(squared, N_NEAR - 1)[:N_NEAR]
        return _Best(rows[at], squared[at], float(squared[at].max()))


def tuned(
    graph: Graph,
    items: Items,
    sample: Sample,
    n_nodes: int,
    *,
    min_recall: float,
    looking: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Tuned:
    """The least effort that finds enough of the ten nearest, or the last that was tried.

    The recall counts as enough once it is so by `ERRORS_TO_SPARE` standard errors of its own: of
    the samples that just reach it, half are of graphs that do not. Rows that changed since the
    sample was drawn count neither way: they wait, and are scanned.

    Parameters
    ----------
    n_nodes
        Of the graph when the sample was drawn.
    """
    found = Tuned(0, 0.0, 0.0)
    for effort in EFFORTS:
        shares = []
        for i, (row, query) in enumerate(zip(sample.rows.tolist(), sample.vectors, strict=True)):
            n_wanted, near = N_NEAREST + TO_SPARE, np.empty(0, np.intp)
            while len(near) <= N_NEAREST and n_wanted <= MAX_PROPOSED:  # as a search goes on
                nodes = graph.search(query, n_wanted, effort)
                n_wanted *= 4
                with looking():
                    near = graph.rows_of(nodes)
                    near = near[(near != row) & graph.is_settled(near, n_nodes)]
                    squared = measured(items.vectors, near, query)
                    n_true = np.count_nonzero(graph.is_settled(sample.neighbours[i], n_nodes))
            n_right = int(np.count_nonzero(squared <= sample.farthest[i]))
            if n_true:
                shares.append(min(1.0, n_right / int(n_true)))
        if len(shares) < MIN_SHARES * len(sample.rows):
            return Tuned(effort, 0.0, 0.0)
        error = float(np.std(shares)) / len(shares) ** 0.5
        found = Tuned(effort, float(np.mean(shares)), error)
        if found.recall - ERRORS_TO_SPARE * error >= min_recall:
            break
    return found
