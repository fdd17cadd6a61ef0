"""The model, the ones before it, and how all of it stands."""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from pipeline.messages.codec import timestamp
from pipeline.messages.manifest import Manifest
from pipeline.services.server.desk import Desk
from pipeline.services.server.replies import as_of, reply
from pipeline.services.server.routes.asking import model_of
from pipeline.services.server.shapes import Version
from pipeline.services.server.shapes_whole import (
    ModelReply,
    ModelRow,
    ModelsReply,
    PartitionRow,
    StatsReply,
)
from pipeline.state.view.fold import View

RATE_S = 300


def router(desk: Desk) -> APIRouter:
    """The routes of the model and of totals."""
    routes = APIRouter(tags=["model"])

    @routes.get("/model", response_model=ModelReply)
    def show_model(request: Request) -> Response:
        """The newest model."""
        with desk.looking() as view:
            manifest = model_of(view).manifest
            body = ModelReply(
                epoch=manifest.epoch,
                revision=manifest.revision,
                metric=manifest.metric,
                dimensions=manifest.dimensions,
                embedding_model=manifest.embedding_model,
                clusters=list(manifest.clusters),
                fitted_items=manifest.fitted_items,
                fitted_inertia=manifest.fitted_inertia,
                digest=manifest.digest,
                created_at=timestamp(manifest.created_at_ms),
                as_of=as_of(view),
            )
            return reply(request, body)

    @routes.get("/models", response_model=ModelsReply)
    def list_models(request: Request) -> Response:
        """The epochs that can be rolled back to, the newest first."""
        with desk.looking() as view:
            epochs = sorted(view.models.epochs.items(), reverse=True)
            rows = [_row(manifest) for _, manifest in epochs]
            return reply(request, ModelsReply(rows, as_of(view)))

    @routes.get("/stats", response_model=StatsReply)
    def show_stats(request: Request) -> Response:
        """Totals: items, clusters, rates, delays, how far each partition is."""
        with desk.looking() as view:
            return reply(request, totals(desk, view))

    return routes


def totals(desk: Desk, view: View) -> StatsReply:
    """How all of it stands; with the lock held."""
    numbers = np.empty(0, np.intp) if view.model is None else desk.numbers(view.model)
    moved = view.series.moved("5m", int(desk.now() * 1000), len(view.names))
    shown = desk.rates.quantiles_s(0.5, 0.99)
    n_open, limit = desk.descriptors or (None, None)
    delays: list[float | None] = [None, None]
    if view.delays_ms:
        waits_s = np.array(view.delays_ms, np.float64) / 1000.0
        delays = np.quantile(waits_s, (0.5, 0.99)).tolist()
    return StatsReply(
        items=len(view.items),
        clusters=len(numbers),
        clusters_live=int(np.count_nonzero(view.items.sizes(numbers))),
        # gains of no cluster are removals: so this is every event
        changes_per_s=float(moved[:, 0].sum()) / RATE_S,
        events_per_s=desk.rates.events_per_s,
        model=None if view.model is None else Version(*view.version),
        vectors=desk.search is not None,
        lag_records=dict(desk.lags),
        lag_s=round(desk.lag_s, 3),
        delay_p50_s=delays[0],
        delay_p99_s=delays[1],
        end_to_end_p50_s=shown[0],
        end_to_end_p99_s=shown[1],
        descriptors_open=n_open,
        descriptors_limit=limit,
        partitions=_partitions(view),
        as_of=as_of(view),
    )


def _row(manifest: Manifest) -> ModelRow:
    return ModelRow(
        epoch=manifest.epoch,
        revision=manifest.revision,
        metric=manifest.metric,
        dimensions=manifest.dimensions,
        embedding_model=manifest.embedding_model,
        clusters=len(manifest.clusters),
        fitted_items=manifest.fitted_items,
        fitted_inertia=manifest.fitted_inertia,
        created_at=timestamp(manifest.created_at_ms),
    )


def _partitions(view: View) -> list[PartitionRow]:
    rows = []
    for partition, next_offset in view.progress.items():
        head = view.heads.get(partition)
        model = None
        if head is not None and head.epoch is not None:
            model = Version(head.epoch, head.revision or 0)
        members = None if head is None else head.members
        rows.append(PartitionRow(partition, next_offset, members, model))
    return rows
