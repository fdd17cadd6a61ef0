"""What is like what: nearest items by vector, and where a vector would belong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from numpy.typing import NDArray

from pipeline.messages.events import confidence
from pipeline.messages.vectors import stored_form
from pipeline.services.server.desk import Desk, shown
from pipeline.services.server.problems import Fault, ProblemError
from pipeline.services.server.replies import as_of, item_key, reply
from pipeline.services.server.routes.asking import (
    MAX_CONDITIONS,
    NEAR_DEFAULT,
    NearLimit,
    Where,
    conditions_of,
    fitting,
    model_of,
    place_of,
    text_of,
)
from pipeline.services.server.routes.items import ItemId
from pipeline.services.server.shapes import AssignReply, NearItem, NearItems, Version
from pipeline.state.view.fold import View
from pipeline.state.view.metadata import Conditions
from pipeline.state.view.neighbours import ExactSearch, Neighbour, Proposer, nearest

_UP, _TINY = 1.0 + 2.0**-40, 2.0**-40
SEARCH_WAIT_S = 2.0
MinSimilarity = Annotated[float | None, Query(ge=-1.0, le=1.0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class VectorBody:
    """A vector that is asked about; nothing of it is stored."""

    vector: list[float]


@dataclass(frozen=True, slots=True)
class SimilarBody:
    """A vector, and how many items near it are wanted."""

    vector: list[float]
    limit: int = NEAR_DEFAULT
    min_similarity: float | None = None
    where: list[str] = field(default_factory=list)
    """`<key>:<value>` of an item's metadata; all have to be true."""


def router(desk: Desk) -> APIRouter:
    """The routes that compare vectors."""
    routes = APIRouter(tags=["vectors"])

    @routes.get("/items/{item_id}/related", response_model=NearItems)
    def list_related(
        request: Request,
        item_id: ItemId,
        limit: NearLimit = NEAR_DEFAULT,
        min_similarity: MinSimilarity = None,
        where: Where = None,
    ) -> Response:
        """The nearest members of the item's own cluster, exactly."""
        key, conditions = item_key(item_id), conditions_of(where)
        with _searching(desk) as ask:
            with desk.looking() as view:
                search, place = _search_of(desk), place_of(view, key)
                row, vector = _vector_of(view, key)
                rows = view.items.members(place.cluster)
                if conditions:
                    rows = fitting(desk, conditions, rows)
                proposer = search.proposer(vector, rows)
            return ask(request, proposer, vector, limit, min_similarity, row)

    @routes.get("/items/{item_id}/similar", response_model=NearItems)
    def list_similar(
        request: Request,
        item_id: ItemId,
        limit: NearLimit = NEAR_DEFAULT,
        min_similarity: MinSimilarity = None,
        where: Where = None,
    ) -> Response:
        """The nearest of all items."""
        key, conditions = item_key(item_id), conditions_of(where)
        with _searching(desk) as ask:
            with desk.looking() as view:
                _search_of(desk)
                place_of(view, key)
                row, vector = _vector_of(view, key)
                proposer = _proposer(desk, vector, conditions)
            return ask(request, proposer, vector, limit, min_similarity, row)

    @routes.post("/similar", response_model=NearItems)
    def find_similar(request: Request, body: SimilarBody) -> Response:
        """The items nearest to a vector."""
        if not 1 <= body.limit <= 200:
            raise _wrong("/body/limit", "must be 1 to 200")
        if body.min_similarity is not None and not -1.0 <= body.min_similarity <= 1.0:
            raise _wrong("/body/min_similarity", "must be -1 to 1")
        if len(body.where) > MAX_CONDITIONS:
            raise _wrong("/body/where", f"must be {MAX_CONDITIONS} at most")
        conditions = conditions_of(body.where, "/body/where")
        with _searching(desk) as ask:
            with desk.looking():
                _search_of(desk)
                vector = _stored(desk, body.vector)[0]
                proposer = _proposer(desk, vector, conditions)
            return ask(request, proposer, vector, body.limit, body.min_similarity)

    @routes.post("/assign", response_model=AssignReply)
    def find_cluster(request: Request, body: VectorBody) -> Response:
        """The cluster that a vector would belong to; nothing is stored."""
        with desk.looking() as view:
            model = model_of(view)
            at, labels = as_of(view), dict(view.models.labels)
            vector = _stored(desk, body.vector, n_dims=model.manifest.dimensions)
            found = desk.kernels.assign(desk.loaded(model), vector, second=True)
        assert found.second_distances_squared is not None
        metric = model.manifest.metric
        best = float(shown(found.distances_squared, metric)[0])
        margin, sure = confidence(best, float(shown(found.second_distances_squared, metric)[0]))
        cluster = model.manifest.clusters[int(found.labels[0])]
        version = Version(model.manifest.epoch, model.manifest.revision)
        answer = AssignReply(cluster, labels.get(cluster), best, margin, sure, version, at)
        return reply(request, answer)

    return routes


class _Ask(Protocol):
    """What is near to a vector, as a reply; ``without`` is a row that is not meant."""

    def __call__(
        self,
        request: Request,
        proposer: Proposer,
        vector: NDArray[np.float32],
        limit: int,
        min_similarity: float | None,
        without: int = -1,
    ) -> Response: ...


@contextmanager
def _searching(desk: Desk) -> Iterator[_Ask]:
    """One of a few at a time. The view is held for the ends of a search, and not for its work."""
    began_at = time.perf_counter()
    if not desk.searches.acquire(timeout=SEARCH_WAIT_S):
        raise ProblemError("unavailable", "too many searches at a time", retry_after_s=1)

    def ask(
        request: Request,
        proposer: Proposer,
        vector: NDArray[np.float32],
        limit: int,
        min_similarity: float | None,
        without: int = -1,
    ) -> Response:
        search, view = desk.search, desk.view

        def tell(found: list[Neighbour]) -> Response:
            if desk.search is not search:
                raise ProblemError("view-behind", "the vectors are others now", retry_after_s=1)
            return reply(request, _near(view, found, min_similarity, proposer))

        most = _farthest(view, min_similarity)
        answer = nearest(
            view.items, proposer, vector, limit, without=without, max_squared=most,
            looking=desk.looking, tell=tell,
        )  # fmt: skip
        desk.searched(time.perf_counter() - began_at, proposer.index)
        return answer

    try:
        yield ask
    finally:
        desk.searches.release()


def _search_of(desk: Desk) -> ExactSearch:
    if desk.search is None:
        raise ProblemError("vectors-not-kept", "this server keeps no vectors")
    return desk.search


def _proposer(desk: Desk, vector: NDArray[np.float32], conditions: Conditions) -> Proposer:
    """Of all items; of those that fit by a scan of them, whatever else there is."""
    if not conditions:
        return desk.proposer(vector)
    return _search_of(desk).proposer(vector, fitting(desk, conditions))


def _vector_of(view: View, key: bytes) -> tuple[int, NDArray[np.float32]]:
    items = view.items
    row = items.find(key)
    if not items.has_vector(np.array([row]))[0]:
        raise ProblemError(
            "view-behind", "the vector of this item does not show yet", retry_after_s=1
        )
    return row, items.vectors[row].copy()


def _stored(desk: Desk, numbers: list[float], n_dims: int | None = None) -> NDArray[np.float32]:
    """(1, n_dims) a vector that somebody wrote, in the form that items' are stored in."""
    embedding = desk.embedding
    wanted = embedding.dimensions if n_dims is None else n_dims
    if len(numbers) != wanted:
        reason = f"{len(numbers)} dimensions, but expected {wanted}"
        raise ProblemError("dimension-mismatch", reason, errors=[Fault("/body/vector", reason)])
    with np.errstate(over="ignore"):
        matrix = np.array([numbers], np.float64).astype(np.float32)
    cosine = embedding.metric == "cosine"
    stored, errors = stored_form(
        matrix,
        cosine=cosine,
        largest=embedding.largest_component,
        is_half=embedding.dtype == "float16",
    )
    for error in errors.values():
        raise _wrong("/body/vector", str(error))
    return stored


def _farthest(view: View, min_similarity: float | None) -> float:
    """A squared distance beyond which nothing is as similar; rounded up."""
    if min_similarity is None:
        return np.inf
    if model_of(view).manifest.metric == "cosine":
        return 2.0 * (1.0 - min_similarity) * _UP + _TINY
    if min_similarity <= 0.0:
        return np.inf
    return float((1.0 / min_similarity - 1.0) ** 2) * _UP + _TINY


def _near(
    view: View, found: list[Neighbour], min_similarity: float | None, proposer: Proposer
) -> NearItems:
    model = view.model
    metric = "euclidean" if model is None else model.manifest.metric
    rows = []
    for neighbour in found:
        place = view.items.place(neighbour.row)
        distance = float(shown(neighbour.distance_squared, metric))
        similarity = 1.0 - distance if metric == "cosine" else 1.0 / (1.0 + distance)
        if min_similarity is None or similarity >= min_similarity:
            told = view.items.metadata.get(neighbour.row)
            rows.append(NearItem(text_of(place.item), place.cluster, distance, similarity, told))
    return NearItems(rows, proposer.index, proposer.effort, as_of(view))


def _wrong(pointer: str, reason: str) -> ProblemError:
    return ProblemError("invalid-request", reason, errors=[Fault(pointer, reason)])
