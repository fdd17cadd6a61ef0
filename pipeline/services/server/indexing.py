"""The thread that keeps a graph of neighbours beside the exact search, and says which is asked.

The graph is built in slices while the exact search answers. It takes over once a sample of its own
rows finds enough of what the exact search finds, in less time; what changes from then on is added
as it comes. When too many of its nodes are of rows that are others by now, another is built
beside it, and takes its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from pipeline.errors import ConfigError
from pipeline.kernels.approximate import library
from pipeline.kernels.graph import NeighbourGraph
from pipeline.services.server.desk import Desk
from pipeline.state.view.neighbour_graph import N_NEAREST, Graph, Sample, draw, sampled, tuned
from pipeline.state.view.neighbours import ExactSearch, nearest
from pipeline.telemetry.logs import get_logger

MIN_RECALL: Final = 0.99
MIN_ITEMS: Final = 5000
"""With fewer, a scan is as fast."""
SAMPLE: Final = 500
TIMED: Final = 20
BUILD_ROWS, ADD_ROWS = 256, 8
"""Added at a time: while nobody searches the graph, and while requests wait for it."""
IDLE_SHARE: Final = 0.3
"""Of the nodes: once more of them have no row, another graph is built."""
GROWN_SHARE: Final = 0.25
"""Of the nodes: once so many more were added, the effort is tuned anew."""
FIRST_LOOK_S, LOOK_S = 1.0, 10.0
"""Between two looks, which are passes over all items: while there is no graph, and then."""
RETRY_S: Final = 600.0
PAUSE_S: Final = 0.1


class Sharing:
    """Many may search at a time; who adds waits for them, and they for him."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_searching = 0
        self._is_adding = False

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Nobody adds meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_adding)
            self._n_searching += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_searching -= 1
                self._changed.notify_all()

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Nobody searches meanwhile; who wants to, waits behind this one."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_adding)
            self._is_adding = True
            self._changed.wait_for(lambda: not self._n_searching)
        try:
            yield
        finally:
            with self._changed:
                self._is_adding = False
                self._changed.notify_all()


class Indexing:
    """Works as long as it is entered: a context.

    Parameters
    ----------
    min_items
        Below it there is no graph.
    threads
        That build a graph which nobody searches yet; what is added later, one adds.

    Raises
    ------
    ConfigError
        `server.search` is faiss, which is not installed.
    """

    def __init__(self, desk: Desk, *, min_items: int = MIN_ITEMS, threads: int = 1) -> None:
        self._desk, self._min_items, self._threads = desk, min_items, threads
        self._log = get_logger()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._exact: ExactSearch | None = None
        """That the graphs belong to."""
        self._building: tuple[Graph, Sharing] | None = None
        self._serving: tuple[Graph, Sharing] | None = None
        self._began_at, self._looked_at = 0.0, -LOOK_S
        self._n_tuned = 0
        """Nodes of the serving graph when its effort was tuned."""
        self._refused: tuple[int, float] | None = None
        """Items, and the time, when a graph was not good enough."""
        self._is_wanted = desk.policy.vectors == "all" and _is_wanted(desk.policy.search)

    def __enter__(self) -> Indexing:
        if self._is_wanted:
            self._thread = threading.Thread(target=self._run, name="indexing", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self.step():
                self._stop.wait(PAUSE_S)

    def step(self) -> bool:
        """Do a slice of what there is to do; False: nothing."""
        if not self._is_current():
            return False
        is_busy = self._serving is not None and self._add(*self._serving, ADD_ROWS)
        if self._building is None:
            self._look()
        elif not self._add(*self._building, BUILD_ROWS, self._threads):
            self._judge()
            is_busy = True
        return is_busy or self._building is not None

    def _is_current(self) -> bool:
        """Whether there are vectors to be found, and graphs are of these."""
        desk = self._desk
        with desk.changed:
            if desk.search is not self._exact:  # another embedding model, or none
                self._exact, self._refused = desk.search, None
                self._building = self._serving = None
                desk.graphs, desk.graph = (), None
            return self._exact is not None

    # --- building -----------------------------------------------------------------

    def _look(self) -> None:
        """From time to time: is another graph due?"""
        now = time.monotonic()
        if now - self._looked_at < (FIRST_LOOK_S if self._serving is None else LOOK_S):
            return
        self._looked_at = now
        desk = self._desk
        with desk.changed:
            n = int(np.count_nonzero(desk.view.items.has_vector()))
            n_nodes = 0 if self._serving is None else len(self._serving[0].nodes)
            n_idle = 0 if self._serving is None else self._serving[0].n_idle
            if n < self._min_items or not self._has_room(n) or not self._may_try(n, now):
                return
            if self._serving is not None and n_idle <= IDLE_SHARE * n_nodes:
                if n_nodes > (1.0 + GROWN_SHARE) * self._n_tuned:
                    self._building = self._serving  # all of it stands: only the effort is due
                return
            sharing = Sharing()
            nodes = NeighbourGraph(desk.embedding.dimensions)
            graph = Graph(desk.view.items, nodes, searching=sharing.searching)
            self._building, self._began_at = (graph, sharing), now
            desk.graphs = (*desk.graphs, graph)

    def _may_try(self, n: int, now: float) -> bool:
        """Whether what was no good lately may be by now."""
        if self._refused is None:
            return True
        n_before, at = self._refused
        return n > (1.0 + GROWN_SHARE) * n_before or now - at > RETRY_S

    def _has_room(self, n: int) -> bool:
        """Whether vectors, a graph and another beside it are within the bound."""
        n_dims = self._desk.embedding.dimensions
        n_bytes = n * (4 * n_dims + 2 * (2 * n_dims + 300))
        return n_bytes <= self._desk.policy.max_vector_bytes

    def _add(self, graph: Graph, sharing: Sharing, n: int, threads: int = 1) -> bool:
        """Add some of the rows that wait; False: none do."""
        with self._desk.changed:
            rows, vectors = graph.pick(n)
        if not len(rows):
            return False
        with sharing.adding():
            first = len(graph.nodes)
            graph.nodes.add(vectors, threads=threads)
        with self._desk.changed:
            graph.place(rows, first)
        return True

    def _judge(self) -> None:
        """All of it stands: what is it good for?"""
        desk, building = self._desk, self._building
        assert building is not None and self._exact is not None
        graph, _ = building
        self._building = None
        with desk.changed:
            items = desk.view.items
            n_nodes = len(graph.nodes)
            rows, known = draw(items, SAMPLE, seed=n_nodes)
            vectors = items.vectors
        sample = sampled(vectors, rows, known)
        del vectors
        found = tuned(graph, items, sample, n_nodes, min_recall=MIN_RECALL, looking=desk.looking)
        is_good = found.recall >= MIN_RECALL
        if is_good and (desk.policy.search == "faiss" or self._is_faster(graph, sample)):
            self._refused = None
            with desk.changed:
                graph.effort = found.effort
                self._serving, self._n_tuned = building, len(graph.nodes)
                desk.graph, desk.graphs = graph, (graph,)
        else:
            self._refused = int(np.count_nonzero(known)), time.monotonic()
            with desk.changed:
                self._serving, desk.graph, desk.graphs = None, None, ()
        self._log.info(
            "search_index_built",
            items=int(np.count_nonzero(known)),
            bytes=graph.n_bytes,
            effort=found.effort,
            recall=round(found.recall, 4),
            taken=desk.graph is graph,
            duration_s=round(time.monotonic() - self._began_at, 3),
        )

    def _is_faster(self, graph: Graph, sample: Sample) -> bool:
        exact, desk = self._exact, self._desk
        assert exact is not None
        waits = []
        for query in sample.vectors[:TIMED]:
            pair = []
            with desk.changed:
                proposers = exact.proposer(query), graph.proposer(query, exact, desk.looking)
            for proposer in proposers:
                began_at = time.perf_counter()
                nearest(
                    desk.view.items, proposer, query, N_NEAREST, looking=desk.looking, tell=list
                )
                pair.append(time.perf_counter() - began_at)
            waits.append(pair)
        exactly, by_graph = np.median(waits, axis=0)
        return bool(by_graph < exactly)


def _is_wanted(search: str) -> bool:
    if search == "exact":
        return False
    try:
        library()
    except ConfigError:
        if search == "faiss":
            raise
        return False
    return True
