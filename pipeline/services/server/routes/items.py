"""Items, and what happened to them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from numpy.typing import NDArray

from pipeline.messages.events import confidence
from pipeline.messages.model import Model
from pipeline.services.server.desk import Desk, shown
from pipeline.services.server.pages import Cursors
from pipeline.services.server.replies import as_of, item_key, reply
from pipeline.services.server.routes.asking import (
    DEFAULT,
    ClusterFilter,
    Cursor,
    Limit,
    Since,
    change_row,
    moment,
    place_of,
    text_of,
)
from pipeline.services.server.shapes import ChangePage, ItemReply, Version
from pipeline.state.view.changes import ChangeKey, KeptChange
from pipeline.state.view.fold import View

N_CHANGES = 10
"""Of an item, beside it."""

ItemId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=2048,
        description="`~b64:<base64url>` where it does not fit into a path.",
    ),
]


def router(desk: Desk, cursors: Cursors) -> APIRouter:
    """The routes of items and their changes."""
    routes = APIRouter(tags=["items"])

    @routes.get("/items/{item_id}", response_model=ItemReply)
    def show_item(request: Request, item_id: ItemId) -> Response:
        """Where an item is, how sure that is, and what happened to it lately."""
        key = item_key(item_id)
        with desk.looking() as view:
            place = place_of(view, key)
            item = text_of(key)
            changes = view.changes.newest(N_CHANGES, item=item)
            margin, sureness = _sureness(desk, view, key, changes)
            body = ItemReply(
                item=item,
                cluster=place.cluster,
                label=view.models.labels.get(place.cluster),
                distance=place.distance,
                margin=margin,
                confidence=sureness,
                model=Version(place.epoch, place.revision),
                partition=place.partition,
                offset=place.offset,
                changes=[change_row(kept) for kept in changes],
                metadata=view.items.metadata.get(view.items.find(key)),
                as_of=as_of(view),
            )
            return reply(request, body)

    @routes.get("/changes", response_model=ChangePage)
    def list_changes(
        request: Request,
        item: Annotated[str | None, Query(min_length=1, max_length=2048)] = None,
        cluster: ClusterFilter = None,
        since: Since = None,
        limit: Limit = DEFAULT,
        cursor: Cursor = None,
    ) -> Response:
        """Change events that are kept, the newest first."""
        since_ms = moment(since, "/query/since")
        with desk.looking() as view:
            filters = {"item": item, "cluster": cluster, "since": since}
            mark = cursors.read(cursor, "changes", filters, view.version[0])
            found = view.changes.newest(
                limit + 1,
                item=item,
                cluster=cluster,
                since_ms=since_ms,
                before=None if mark is None else ChangeKey(*mark),
            )
            page, following = found[:limit], None
            if len(found) > limit:
                last = list(page[-1].key)
                following = cursors.make("changes", filters, view.version[0], last)
            rows = [change_row(kept) for kept in page]
            return reply(request, ChangePage(rows, following, as_of(view)))

    return routes


def _sureness(
    desk: Desk, view: View, key: bytes, changes: list[KeptChange]
) -> tuple[float | None, float | None]:
    """Margin and confidence: of its vector under the newest model, else of its last change."""
    row, model = view.items.find(key), view.model
    rows = np.array([row])
    if desk.search is not None and model is not None and view.items.has_vector(rows)[0]:
        vectors = view.items.vectors[rows]
        if vectors.shape[1] == model.manifest.dimensions:
            return sureness(desk, model, vectors)
    newest = changes[0].event if changes else None
    if newest is None or newest.to_cluster is None:
        return None, None
    return newest.margin, newest.confidence


def sureness(desk: Desk, model: Model, vector: NDArray[np.float32]) -> tuple[float | None, float]:
    """Margin and confidence of one vector (1, n_dims) under a model."""
    found = desk.kernels.assign(desk.loaded(model), vector, second=True)
    assert found.second_distances_squared is not None
    metric = model.manifest.metric
    best = float(shown(found.distances_squared, metric)[0])
    return confidence(best, float(shown(found.second_distances_squared, metric)[0]))
