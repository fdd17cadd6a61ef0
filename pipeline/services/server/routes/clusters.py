"""Clusters: a page of them, one of them, its members, the ones near it."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from numpy.typing import NDArray

from pipeline.messages.codec import timestamp
from pipeline.messages.model import Model
from pipeline.services.server.desk import Desk, shown
from pipeline.services.server.pages import Cursors
from pipeline.services.server.replies import as_of, reply
from pipeline.services.server.routes.asking import (
    DEFAULT,
    MAX_CLUSTER_ID,
    NEAR_DEFAULT,
    Cursor,
    Limit,
    NearLimit,
    Where,
    conditions_of,
    fitting,
    label_of,
    signal_row,
    text_of,
)
from pipeline.services.server.shapes import (
    Cluster,
    ClusterPage,
    ClusterReply,
    Member,
    MemberPage,
    NearCluster,
    NearClusters,
)
from pipeline.state.view.fold import View

ClusterId = Annotated[str, Path(min_length=1, max_length=MAX_CLUSTER_ID)]
Sort = Literal["size", "growth", "drift", "born_at"]
Order = Literal["distance", "-distance", "item_id"]


def router(desk: Desk, cursors: Cursors) -> APIRouter:
    """The routes of clusters."""
    routes = APIRouter(tags=["clusters"])

    @routes.get("/clusters", response_model=ClusterPage)
    def list_clusters(
        request: Request,
        state: Annotated[Literal["live", "empty"] | None, Query()] = None,
        sort: Annotated[Sort, Query()] = "size",
        q: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
        limit: Limit = DEFAULT,
        cursor: Cursor = None,
    ) -> Response:
        """The clusters of the newest model, the largest first.

        `q` searches ids, labels and typical items.
        """
        with desk.looking() as view:
            model = view.model
            filters = {"state": state, "sort": sort, "q": q}
            mark = cursors.read(cursor, "clusters", filters, view.version[0])
            if model is None:
                return reply(request, ClusterPage([], None, as_of(view)))
            sizes = view.items.sizes(desk.numbers(model))
            gained = growths(desk, view, model)
            values = _values(desk, view, model, sort, sizes, gained)
            chosen = _matching(desk, model, sizes, state, q)
            if mark is not None:
                value, label = float(mark[0]), int(mark[1])
                behind = (values[chosen] < value) | ((values[chosen] == value) & (chosen > label))
                chosen = chosen[behind]
            order = chosen[np.lexsort((chosen, -values[chosen]))][: limit + 1].tolist()
            page, more = order[:limit], len(order) > limit
            following = None
            if more:
                following = cursors.make(
                    "clusters", filters, view.version[0], [float(values[page[-1]]), page[-1]]
                )
            rows = [_row(desk, view, model, label, gained) for label in page]
            return reply(request, ClusterPage(rows, following, as_of(view)))

    @routes.get("/clusters/{cluster_id}", response_model=ClusterReply)
    def show_cluster(request: Request, cluster_id: ClusterId) -> Response:
        """One cluster, with its alarms. A retired one answers 410, with its successors."""
        with desk.looking() as view:
            label = label_of(desk, cluster_id)
            model = view.model
            assert model is not None
            row = _row(desk, view, model, label, growths(desk, view, model))
            squared = float(model.mean_squared_distances[label])
            body = ClusterReply(
                **{name: getattr(row, name) for name in Cluster.__dataclass_fields__},
                size_at_fit=int(model.counts[label]),
                spread_at_fit=squared**0.5 if model.is_profiled[label] else None,
                signals=[signal_row(alarm) for alarm in view.drift.standing(cluster_id)],
                as_of=as_of(view),
            )
            return reply(request, body)

    @routes.get("/clusters/{cluster_id}/members", response_model=MemberPage)
    def list_members(
        request: Request,
        cluster_id: ClusterId,
        order: Annotated[Order, Query()] = "distance",
        where: Where = None,
        limit: Limit = DEFAULT,
        cursor: Cursor = None,
    ) -> Response:
        """The items of a cluster, the most typical first, or the least, or by id."""
        conditions = conditions_of(where)
        with desk.looking() as view:
            label_of(desk, cluster_id)
            rows = None
            if conditions:
                rows = fitting(desk, conditions, view.items.members(cluster_id))
            question = f"members of {cluster_id}"
            filters: dict[str, str] = {"order": order}
            if where:
                filters["where"] = "\n".join(where)
            mark = cursors.read(cursor, question, filters, view.version[0])
            if order == "item_id":
                after_id = None if mark is None else str(mark[1]).encode()
                found = view.items.by_id(cluster_id, limit + 1, after_id, rows)
            else:
                after = None if mark is None else (float(mark[0]), str(mark[1]).encode())
                found = view.items.by_distance(
                    cluster_id, limit + 1, after, rows, farthest=order == "-distance"
                )
            page, following = found[:limit], None
            if len(found) > limit:
                last = [page[-1][0], text_of(page[-1][1])]
                following = cursors.make(question, filters, view.version[0], last)
            told = view.items.metadata.get
            members = [Member(text_of(key), distance, told(row)) for distance, key, row in page]
            return reply(request, MemberPage(members, following, as_of(view)))

    @routes.get("/clusters/{cluster_id}/similar", response_model=NearClusters)
    def list_similar(
        request: Request, cluster_id: ClusterId, limit: NearLimit = NEAR_DEFAULT
    ) -> Response:
        """Clusters by the distance of their centroids, in the model's metric."""
        with desk.looking() as view:
            label = label_of(desk, cluster_id)
            model = view.model
            assert model is not None
            sizes = view.items.sizes(desk.numbers(model))
            labels, at = dict(view.models.labels), as_of(view)
        centroids = model.centroids.astype(np.float64)
        steps = centroids - centroids[label]
        squared = np.einsum("ij,ij->i", steps, steps)
        distances = shown(squared, model.manifest.metric)
        order = np.lexsort((np.arange(len(squared)), squared))
        clusters = model.manifest.clusters
        near = [
            NearCluster(
                clusters[other], labels.get(clusters[other]), int(sizes[other]),
                float(distances[other]),
            )
            for other in order[: limit + 1].tolist() if other != label
        ]  # fmt: skip
        return reply(request, NearClusters(near[:limit], at))

    return routes


def growths(desk: Desk, view: View, model: Model) -> NDArray[np.int64]:
    """(n_clusters,) gained less lost within the last hour, by label."""
    moved = view.series.moved("1h", int(desk.now() * 1000), len(view.names))
    net: NDArray[np.int64] = (moved[:, 0] - moved[:, 1])[desk.numbers(model)]
    return net


def _values(
    desk: Desk,
    view: View,
    model: Model,
    sort: Sort,
    sizes: NDArray[np.int64],
    gained: NDArray[np.int64],
) -> NDArray[np.float64]:
    """(n_clusters,) by which a list is sorted, the largest first."""
    if sort == "drift":
        return np.nan_to_num(desk.shifts(model), nan=-1.0, posinf=1e300)
    if sort == "born_at":
        return _births(view, model).astype(np.float64)
    return (sizes if sort == "size" else gained).astype(np.float64)


def _births(view: View, model: Model) -> NDArray[np.int64]:
    origins = [view.lifecycle.origin(cluster) for cluster in model.manifest.clusters]
    return np.array([0 if o is None else o.born_at_ms or 0 for o in origins], np.int64)


def _matching(
    desk: Desk,
    model: Model,
    sizes: NDArray[np.int64],
    state: str | None,
    q: str | None,
) -> NDArray[np.intp]:
    """The labels of the clusters that fit, ascending."""
    fits = np.ones(len(sizes), np.bool_)
    if state is not None:
        fits &= (sizes > 0) == (state == "live")
    if q is not None:
        wanted = q.casefold()
        fits &= np.array([wanted in text for text in desk.texts(model)], np.bool_)
    return np.flatnonzero(fits)


def _row(desk: Desk, view: View, model: Model, label: int, gained: NDArray[np.int64]) -> Cluster:
    cluster = model.manifest.clusters[label]
    size, n_items = view.items.count(cluster), len(view.items)
    origin = view.lifecycle.origin(cluster)
    exemplar = desk.exemplars().get(cluster)
    shift = float(desk.shifts(model)[label])
    x, y = desk.places.get(cluster, (None, None))
    return Cluster(
        cluster=cluster,
        label=view.models.labels.get(cluster),
        size=size,
        share=size / n_items if n_items else 0.0,
        spread=desk.spreads().get(cluster),
        shift=shift if np.isfinite(shift) else None,
        growth=int(gained[label]),
        x=x,
        y=y,
        drift=desk.drifts().get(cluster),
        state="live" if size else "empty",
        exemplar=None if exemplar is None else text_of(exemplar),
        born_at=None if origin is None else timestamp(origin.born_at_ms),
        parents=[] if origin is None else list(origin.parents),
    )
