"""The map as it was, for a page that is dragged back in time."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from pipeline.messages.codec import timestamp
from pipeline.services.server.desk import Desk
from pipeline.services.server.map_frames import SPAN_S, STEP_S, MapFrame, frame_of, shown
from pipeline.services.server.problems import faulty
from pipeline.services.server.replies import as_of, reply
from pipeline.services.server.routes.asking import MAX_TIME, moment
from pipeline.services.server.routes.clusters import growths
from pipeline.services.server.shapes_whole import FramesReply


def router(desk: Desk) -> APIRouter:
    """The route of frames."""
    routes = APIRouter(tags=["time"])

    @routes.get("/frames", response_model=FramesReply)
    def list_frames(
        request: Request,
        start: Annotated[str | None, Query(alias="from", max_length=MAX_TIME)] = None,
        stop: Annotated[str | None, Query(alias="to", max_length=MAX_TIME)] = None,
        step: Annotated[int, Query(ge=1, le=SPAN_S, description="Seconds.")] = STEP_S,
    ) -> Response:
        """The map of the last six hours, every ten seconds at most, the oldest first.

        `step_s` is longer than was asked for where the reply would be too long.
        """
        start_ms, stop_ms = moment(start, "/query/from"), moment(stop, "/query/to")
        if start_ms is not None and stop_ms is not None and start_ms > stop_ms:
            raise faulty("/query/from", "must not be after `to`")
        frames, step_s = desk.frames.between(start_ms, stop_ms, step)
        with desk.looking() as view:
            now = as_of(view)
        body: dict[str, Any] = {
            "items": [_row(frame) for frame in frames], "step_s": step_s, "as_of": now,
        }  # fmt: skip
        return reply(request, body)

    return routes


def take_frame(desk: Desk) -> bool:
    """Keep the map as it is, if it is time; whether one was kept. Takes the lock."""
    time_ms = desk.frames.due_ms(int(desk.now() * 1000))
    if time_ms is None:
        return False
    with desk.looking() as view:
        model = view.model
        if model is None:
            return False
        clusters, labels = model.manifest.clusters, view.models.labels
        frame = frame_of(
            time_ms, view.version, clusters, [labels.get(one) for one in clusters],
            sizes=view.items.counts(clusters), growths=growths(desk, view, model),
            places=desk.places, drifts=desk.drifts(),
        )  # fmt: skip
    desk.frames.add(frame)
    return True


def _row(frame: MapFrame) -> dict[str, Any]:
    epoch, revision = frame.version
    return {
        "t": timestamp(frame.time_ms),
        "model": {"epoch": epoch, "revision": revision},
        "clusters": shown(frame),
    }
