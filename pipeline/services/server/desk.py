"""What the routes stand at: the view, the lock around it, and what else an answer needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import ServerPolicy
from pipeline.engine.totals import Totals
from pipeline.kernels.contract import Kernels
from pipeline.messages.model import Model
from pipeline.messages.policy import EmbeddingPolicy, LimitPolicy
from pipeline.messages.records import Outgoing
from pipeline.services.server.map_frames import MapFrames
from pipeline.services.server.rates import Rates
from pipeline.state.view.fold import View
from pipeline.state.view.neighbour_graph import Graph
from pipeline.state.view.neighbours import ExactSearch, Proposer
from pipeline.streams.topics import TopicPolicy

EXEMPLARS_S = 5.0
"""How old the typical items in a list of clusters may be: finding them is a pass over all items."""
MAX_SEARCHES = 8
"""At a time."""


@dataclass(slots=True, eq=False)
class Desk:
    """One per process. The follower writes with ``changed`` held, routes read with it held."""

    view: View
    totals: Totals
    policy: ServerPolicy
    topics: TopicPolicy
    embedding: EmbeddingPolicy
    """The one in force."""
    limits: LimitPolicy
    kernels: Kernels
    write: Callable[[Outgoing], None]
    """Writes one record, and returns once it is there; blocks, so without the lock."""
    now: Callable[[], float] = time.time
    """Seconds since 1970."""
    search: ExactSearch | None = None
    """None: no vectors are kept."""
    graph: Graph | None = None
    """That may propose rows in its place."""
    graphs: tuple[Graph, ...] = ()
    """All that want to know which vectors are others now: it, and what is being built."""
    lags: Mapping[str, int] = field(default_factory=dict)
    """Topic -> records that the view is behind."""
    holds: Callable[[int, int], bool] = lambda partition, offset: True
    """Whether the vector of the record at an offset is there, if it counts and vectors are kept."""
    n_waiting: int = 0
    """Requests that wait for a record to show."""
    searched: Callable[[float, str], None] = lambda seconds, index: None
    """Is told how long a search took, and by what index."""
    places: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Cluster -> its place on the map, each coordinate within [-1, 1]; replaced as a whole."""
    frames: MapFrames = field(default_factory=MapFrames)
    """The map as it was."""
    rates: Rates = field(default_factory=lambda: Rates(time.time))
    lag_s: float = 0.0
    """How far the view is behind, in seconds."""
    descriptors: tuple[int, int] | None = None
    """Files and connections that are open, and how many may be; None: that is not known here."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    """Holds everybody else off; told whenever the view has changed."""
    searches: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(MAX_SEARCHES)
    )
    _loaded: tuple[Model, Any] | None = None
    _exemplars: tuple[float, dict[str, bytes]] = (0.0, {})
    _spreads: tuple[int, dict[str, float]] = (-1, {})
    _drifts: tuple[int, Mapping[str, float]] = (-1, {})
    _labels: tuple[Model | None, dict[str, int]] = (None, {})
    _shifts: tuple[Model | None, NDArray[np.float64]] = (None, np.empty(0))
    _numbers: tuple[Model | None, int, NDArray[np.intp]] = (None, 0, np.empty(0, np.intp))
    _texts: tuple[Model | None, Mapping[str, bytes], Mapping[str, str], tuple[str, ...]] = (
        None, {}, {}, (),
    )  # fmt: skip

    @contextmanager
    def looking(self) -> Iterator[View]:
        """The view, while nobody changes it."""
        with self.changed:
            yield self.view

    def reached(self, partition: int, offset: int, within_s: float) -> bool:
        """Wait until the record at an offset shows; False if it does not in time."""

        def shows() -> bool:
            return self.view.next_offset(partition) > offset and self.holds(partition, offset)

        with self.changed:
            self.n_waiting += 1
            try:
                return self.changed.wait_for(shows, within_s)
            finally:
                self.n_waiting -= 1

    def search_by(self, search: ExactSearch | None) -> None:
        """Other vectors are kept, or none, so graphs of the former go; with the lock held."""
        self.search, self.graph, self.graphs = search, None, ()

    def noted(self, rows: NDArray[np.intp]) -> None:
        """The vectors of these rows are others now; with the lock held."""
        assert self.search is not None
        self.search.note(rows)
        for graph in self.graphs:
            graph.note(rows)

    def proposer(self, query: NDArray[np.float32]) -> Proposer:
        """Of rows near to a query, among all; with the lock held, its work without."""
        assert self.search is not None
        if self.graph is None:
            return self.search.proposer(query)
        return self.graph.proposer(query, self.search, self.looking)

    def loaded(self, model: Model) -> Any:
        """The model as the kernels want it; made once."""
        if self._loaded is None or self._loaded[0] is not model:
            self._loaded = (model, self.kernels.load(model.centroids))
        return self._loaded[1]

    def label_of(self, model: Model) -> Mapping[str, int]:
        """Cluster -> its place in the model; with the lock held."""
        if self._labels[0] is not model:
            self._labels = (model, {c: i for i, c in enumerate(model.manifest.clusters)})
        return self._labels[1]

    def numbers(self, model: Model) -> NDArray[np.intp]:
        """(n_clusters,) those of the view, by label; with the lock held.

        0: nobody has named the cluster yet but the model.
        """
        names = self.view.names
        if self._numbers[0] is not model or self._numbers[1] != len(names):
            found = np.array([names.find(c) for c in model.manifest.clusters], np.intp)
            self._numbers = (model, len(names), found)
        return self._numbers[2]

    def texts(self, model: Model) -> tuple[str, ...]:
        """What a cluster is looked for by, of every label: id, label, typical item; in lower case.

        With the lock held.
        """
        exemplars, labels = self.exemplars(), self.view.models.labels
        of, of_exemplars, of_labels, _ = self._texts
        if of is not model or of_exemplars is not exemplars or of_labels != labels:
            found = tuple(
                f"{cluster}\n{labels.get(cluster, '')}\n"
                f"{exemplars.get(cluster, b'').decode('utf-8', 'replace')}".casefold()
                for cluster in model.manifest.clusters
            )
            self._texts = (model, exemplars, dict(labels), found)
        return self._texts[-1]

    def shifts(self, model: Model) -> NDArray[np.float64]:
        """(n_clusters,) how far centroids are from where they were fitted, in units of the spread.

        NaN where the fit had none. With the lock held.
        """
        if self._shifts[0] is not model:
            moved = model.centroids.astype(np.float64) - model.fitted
            spread = np.sqrt(model.mean_squared_distances)
            with np.errstate(divide="ignore", invalid="ignore"):
                found = np.sqrt(np.einsum("ij,ij->i", moved, moved)) / spread
            self._shifts = (model, np.where(spread > 0.0, found, np.nan))
        return self._shifts[1]

    def drifts(self) -> Mapping[str, float]:
        """`pipeline.state.view.events.DriftBoard.ratios`, rounded; with the lock held."""
        board = self.view.drift
        if self._drifts[0] != board.mark:
            found = {cluster: round(ratio, 4) for cluster, ratio in board.ratios().items()}
            self._drifts = (board.mark, found)
        return self._drifts[1]

    def exemplars(self) -> Mapping[str, bytes]:
        """A typical item of every cluster that has members; with the lock held."""
        made_at, found = self._exemplars
        now = self.now()
        if not found or not 0.0 <= now - made_at < EXEMPLARS_S:
            found = self.view.items.exemplars()
            self._exemplars = (now, found)
        return found

    def spreads(self) -> Mapping[str, float]:
        """Root mean squared distance of members to their mean, by cluster; with the lock held.

        As the partitions have told it last; a cluster that none has told of is not in it.
        """
        mark = self.totals.mark
        if self._spreads[0] != mark:
            ids = self.totals.changed_since(0)
            weights = self.totals.weights(ids)
            means = self.totals.means(ids)
            squares = self.totals.squares(ids)
            variances = squares / np.where(weights > 0.0, weights, 1.0)
            variances -= np.einsum("ij,ij->i", means, means)
            spreads = np.sqrt(np.maximum(variances, 0.0)).tolist()
            self._spreads = (
                mark,
                {c: s for c, s, w in zip(ids, spreads, weights.tolist(), strict=True) if w > 0.0},
            )
        return self._spreads[1]


def shown(squared: NDArray[np.float64] | float, metric: str) -> Any:
    """Squared distances as users see them: their roots, or cosine distances."""
    return np.multiply(squared, 0.5) if metric == "cosine" else np.sqrt(squared)
