"""What changes: trends, flows, a cluster over time, lifecycle, drift."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from pipeline.messages.codec import timestamp
from pipeline.messages.events import LifecycleType
from pipeline.services.server.desk import Desk
from pipeline.services.server.pages import Cursors
from pipeline.services.server.problems import faulty
from pipeline.services.server.replies import as_of, reply
from pipeline.services.server.routes.asking import (
    DEFAULT,
    MAX_TIME,
    ClusterFilter,
    Cursor,
    Limit,
    NearLimit,
    Since,
    label_of,
    lifecycle_row,
    moment,
    signal_row,
)
from pipeline.services.server.routes.clusters import ClusterId
from pipeline.services.server.shapes_whole import (
    Bucket,
    DriftBoardReply,
    FlowRow,
    Flows,
    LifecyclePage,
    SignalPage,
    TimelineReply,
    Trend,
    Trends,
)
from pipeline.state.view.fold import View
from pipeline.state.view.series import HOUR_MS, surprise

N_FLOWS = 200
N_EVENTS = 500
"""Of each kind in a timeline."""
MAX_SPAN_MS = 31 * 24 * HOUR_MS
Window = Annotated[Literal["5m", "1h", "24h"], Query()]
By = Annotated[Literal["net", "gain", "loss", "rate"], Query()]
Time = Annotated[str | None, Query(max_length=MAX_TIME)]


def router(desk: Desk, cursors: Cursors) -> APIRouter:
    """The routes about time."""
    routes = APIRouter(tags=["time"])

    @routes.get("/trending", response_model=Trends)
    def list_trends(
        request: Request, window: Window = "1h", by: By = "rate", limit: NearLimit = DEFAULT
    ) -> Response:
        """Clusters by what a window brought them; `rate`: against their own past."""
        with desk.looking() as view:
            found = view.series.trend(window, int(desk.now() * 1000), len(view.names))
            net, scores = found.gained - found.lost, surprise(found.gained, found.expected_gain)
            key = {"net": net, "gain": found.gained, "loss": found.lost, "rate": scores}[by]
            clusters = () if view.model is None else view.model.manifest.clusters
            numbers = np.empty(0, np.intp) if view.model is None else desk.numbers(view.model)
            has_moved = (numbers > 0) & ((found.gained + found.lost)[numbers] > 0)
            labels = np.flatnonzero(has_moved)
            labels = labels[np.argsort(-key[numbers[labels]], kind="stable")][:limit]
            rows = [
                Trend(
                    cluster=clusters[label],
                    label=view.models.labels.get(clusters[label]),
                    size=view.items.count(clusters[label]),
                    gained=int(found.gained[n]),
                    lost=int(found.lost[n]),
                    net=int(net[n]),
                    expected=float(found.expected_gain[n]),
                    score=float(scores[n]),
                    sparkline=found.sparkline[n].tolist(),
                )
                for label, n in zip(labels.tolist(), numbers[labels].tolist(), strict=True)
            ]
            since = timestamp(view.counted_since_ms) if view.counted_since_ms else None
            return reply(request, Trends(window, by, since, rows, as_of(view)))

    @routes.get("/flows", response_model=Flows)
    def list_flows(request: Request, window: Window = "1h") -> Response:
        """Who went where: the 200 strongest flows of a window."""
        with desk.looking() as view:
            now_ms = int(desk.now() * 1000)
            found = view.series.flows(window, now_ms, N_FLOWS, view.names)
            rows = [FlowRow(flow.source, flow.target, flow.count) for flow in found]
            return reply(request, Flows(window, rows, as_of(view)))

    @routes.get("/clusters/{cluster_id}/timeline", response_model=TimelineReply)
    def show_timeline(
        request: Request,
        cluster_id: ClusterId,
        start: Annotated[str | None, Query(alias="from", max_length=MAX_TIME)] = None,
        stop: Annotated[str | None, Query(alias="to", max_length=MAX_TIME)] = None,
    ) -> Response:
        """A cluster over time, by default the last hour: sizes, lifecycle, alarms."""
        now_ms = int(desk.now() * 1000)
        stop_ms = moment(stop, "/query/to")
        stop_ms = now_ms if stop_ms is None else stop_ms
        start_ms = moment(start, "/query/from")
        start_ms = stop_ms - HOUR_MS if start_ms is None else start_ms
        if not 0 <= stop_ms - start_ms <= MAX_SPAN_MS:
            raise faulty("/query/from", "must be before `to`, by 31 days at most")
        with desk.looking() as view:
            if view.lifecycle.origin(cluster_id) is None:
                label_of(desk, cluster_id)  # a retired one has a past, too
            bucket_ms, sizes = _sizes(view, cluster_id, start_ms, stop_ms, now_ms)
            events = [
                lifecycle_row(kept.event)
                for kept in view.lifecycle.newest(cluster=cluster_id, since_ms=start_ms)
                if (kept.event.occurred_at_ms or 0) <= stop_ms
            ]
            alarms = [
                signal_row(kept.alarm)
                for kept in view.drift.newest(cluster=cluster_id, since_ms=start_ms)
                if (kept.alarm.occurred_at_ms or 0) <= stop_ms
            ]
            body = TimelineReply(
                cluster_id, bucket_ms // 1000, sizes, events[:N_EVENTS], alarms[:N_EVENTS],
                as_of(view),
            )  # fmt: skip
            return reply(request, body)

    @routes.get("/lifecycle", response_model=LifecyclePage)
    def list_lifecycle(
        request: Request,
        type: Annotated[LifecycleType | None, Query()] = None,
        cluster: ClusterFilter = None,
        since: Since = None,
        limit: Limit = DEFAULT,
        cursor: Cursor = None,
    ) -> Response:
        """What happened to clusters and models, the newest first."""
        since_ms = moment(since, "/query/since")
        with desk.looking() as view:
            filters = {"type": type, "cluster": cluster, "since": since}
            mark = cursors.read(cursor, "lifecycle", filters, view.version[0])
            found = view.lifecycle.newest(
                kinds=None if type is None else frozenset({str(type)}),
                cluster=cluster,
                since_ms=since_ms,
                before=None if mark is None else int(mark[0]),
            )
            page = [kept for kept, _ in zip(found, range(limit + 1), strict=False)]
            following = None
            if len(page) > limit:
                page = page[:limit]
                following = cursors.make("lifecycle", filters, view.version[0], [page[-1].offset])
            rows = [lifecycle_row(kept.event) for kept in page]
            return reply(request, LifecyclePage(rows, following, as_of(view)))

    @routes.get("/drift", response_model=DriftBoardReply)
    def show_drift(request: Request) -> Response:
        """The last word on every signal that there was an alarm of, and shifts of centroids."""
        with desk.looking() as view:
            shifts: dict[str, float] = {}
            if view.model is not None:
                values = desk.shifts(view.model)
                shifts = {
                    cluster: value
                    for cluster, value in zip(
                        view.model.manifest.clusters, values.tolist(), strict=True
                    )
                    if np.isfinite(value)
                }
            signals = [signal_row(alarm) for alarm in view.drift.all_standing()]
            return reply(request, DriftBoardReply(signals, shifts, as_of(view)))

    @routes.get("/drift/alarms", response_model=SignalPage)
    def list_alarms(
        request: Request,
        state: Annotated[Literal["raised", "cleared"] | None, Query()] = None,
        cluster: ClusterFilter = None,
        limit: Limit = DEFAULT,
        cursor: Cursor = None,
    ) -> Response:
        """Drift alarms, the newest first."""
        with desk.looking() as view:
            filters = {"state": state, "cluster": cluster}
            mark = cursors.read(cursor, "alarms", filters, view.version[0])
            before = None if mark is None else int(mark[0])
            found = view.drift.newest(state=state, cluster=cluster, before=before)
            page = [kept for kept, _ in zip(found, range(limit + 1), strict=False)]
            following = None
            if len(page) > limit:
                page = page[:limit]
                following = cursors.make("alarms", filters, view.version[0], [page[-1].offset])
            rows = [signal_row(kept.alarm) for kept in page]
            return reply(request, SignalPage(rows, following, as_of(view)))

    return routes


def _sizes(
    view: View, cluster: str, start_ms: int, stop_ms: int, now_ms: int
) -> tuple[int, list[Bucket]]:
    """Sizes at the ends of the buckets: the present one, less what came since."""
    number = view.names.find(cluster)
    bucket_ms, steps = view.series.steps(number, start_ms, max(stop_ms, now_ms) + 1)
    size, found = view.items.count(cluster), []
    for begins_ms, gained, lost in reversed(steps):
        if begins_ms <= stop_ms:
            begins_at = timestamp(begins_ms)
            assert begins_at is not None
            found.append(Bucket(begins_at, gained, lost, max(0, size)))
        size -= gained - lost
    return bucket_ms, found[::-1]
