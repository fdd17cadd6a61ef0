"""What may be asked of the reclusterer, and what came of it: a command is a job.

A command's state is read back from the topics, so every replica knows every job. An
``Idempotency-Key`` makes the command's id, and the reclusterer carries an id out once.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import Response

from pipeline.messages.codec import timestamp
from pipeline.messages.commands import Command, CommandType, encode_command
from pipeline.messages.events import LifecycleType
from pipeline.messages.records import Outgoing
from pipeline.services.server.desk import Desk
from pipeline.services.server.gate import PREFIX
from pipeline.services.server.pages import Cursors
from pipeline.services.server.problems import ProblemError, faulty
from pipeline.services.server.replies import as_of, reply
from pipeline.services.server.routes.asking import (
    BEHIND_S,
    DEFAULT,
    Cursor,
    Limit,
    label_of,
    lifecycle_row,
)
from pipeline.services.server.routes.clusters import ClusterId
from pipeline.services.server.shapes_whole import JobPage, JobReply
from pipeline.state.view.events import Asked

MAX_TEXT: Final = 500
MAX_WAIT_S: Final = 30
_NAMESPACE: Final = uuid.UUID("6d1b1c5e-7f7b-5d0e-9b55-0e5d4d1f6a10")
_PRINTABLE: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]*")
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]


@dataclass(frozen=True, slots=True)
class ReclusterBody:
    """A new model."""

    cold: bool = False
    """Begin from nothing instead of the present centroids."""
    force: bool = False
    """Publish even without a gain."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RollbackBody:
    """Back to an epoch."""

    epoch: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SplitBody:
    """A cluster in two."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class MergeBody:
    """Clusters that become one."""

    clusters: list[str]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class LabelBody:
    """What a cluster is called from now on."""

    label: str
    reason: str | None = None


def router(desk: Desk, cursors: Cursors) -> APIRouter:
    """The routes of commands and jobs."""
    routes = APIRouter(tags=["commands"])

    def ask(
        request: Request, kind: CommandType, key: str | None, reason: str | None, **fields: Any
    ) -> Response:
        _check_text("/body/reason", reason)
        asker = request.state.asker
        known = uuid.uuid4() if key is None else uuid.uuid5(_NAMESPACE, f"{asker}\n{key}")
        command = Command(
            id=str(known), type=kind, requested_by=asker, reason=reason or None, **fields
        )
        name, value = encode_command(command)
        with desk.looking() as view:
            asked = view.commands.find(command.id)
        if asked is not None and asked.value != value:
            raise ProblemError(
                "conflict", "this Idempotency-Key was used for another request", status=422
            )
        if asked is None:
            desk.write(Outgoing(desk.topics.commands, 0, name, value))
            asked = Asked(command, -1, int(desk.now() * 1000), value)
        path = f"{request.scope.get('root_path', '')}{PREFIX}/jobs/{command.id}"
        answer = reply(request, _job(asked), status=202, location=path)
        answer.headers["Retry-After"] = "1"
        return answer

    @routes.post("/recluster", status_code=202, response_model=JobReply)
    def recluster(
        request: Request, body: ReclusterBody, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Ask for a new model."""
        return ask(
            request, CommandType.RECLUSTER, idempotency_key, body.reason,
            cold=body.cold, force=body.force,
        )  # fmt: skip

    @routes.post("/model/rollback", status_code=202, response_model=JobReply)
    def roll_back(
        request: Request, body: RollbackBody, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Ask for an epoch's model again, as a new epoch."""
        with desk.looking() as view:
            if body.epoch not in view.models.epochs:
                raise faulty("/body/epoch", "there is no such epoch any more, see /models")
        kind = CommandType.ROLLBACK
        return ask(request, kind, idempotency_key, body.reason, epoch=body.epoch)

    @routes.post("/clusters/{cluster_id}/split", status_code=202, response_model=JobReply)
    def split(
        request: Request,
        cluster_id: ClusterId,
        body: SplitBody,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Ask for a cluster to become two."""
        _check_clusters(desk, [cluster_id])
        kind = CommandType.SPLIT
        return ask(request, kind, idempotency_key, body.reason, cluster=cluster_id)

    @routes.post("/clusters/merge", status_code=202, response_model=JobReply)
    def merge(
        request: Request, body: MergeBody, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Ask for clusters to become one."""
        if len(set(body.clusters)) < max(2, len(body.clusters)):
            raise faulty("/body/clusters", "must be at least two different ones")
        _check_clusters(desk, body.clusters)
        clusters = tuple(body.clusters)
        return ask(request, CommandType.MERGE, idempotency_key, body.reason, clusters=clusters)

    @routes.put("/clusters/{cluster_id}/label", status_code=202, response_model=JobReply)
    def label(
        request: Request,
        cluster_id: ClusterId,
        body: LabelBody,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Ask for a cluster to be called something."""
        _check_clusters(desk, [cluster_id])
        _check_text("/body/label", body.label)
        return ask(
            request, CommandType.LABEL, idempotency_key, body.reason,
            cluster=cluster_id, label=body.label,
        )  # fmt: skip

    @routes.get("/jobs", response_model=JobPage)
    def list_jobs(request: Request, limit: Limit = DEFAULT, cursor: Cursor = None) -> Response:
        """Commands, whoever gave them, the newest first."""
        with desk.looking() as view:
            # jobs outlive epochs
            mark = cursors.read(cursor, "jobs", {}, 0)
            found = view.commands.newest(None if mark is None else int(mark[0]))
            page = [asked for asked, _ in zip(found, range(limit + 1), strict=False)]
            following = None
            if len(page) > limit:
                page = page[:limit]
                following = cursors.make("jobs", {}, 0, [page[-1].offset])
            return reply(request, JobPage([_job(one) for one in page], following, as_of(view)))

    @routes.get("/jobs/{job_id}", response_model=JobReply)
    def show_job(
        request: Request,
        job_id: Annotated[str, Path(min_length=1, max_length=512)],
        wait: Annotated[int, Query(ge=0, le=MAX_WAIT_S)] = 0,
    ) -> Response:
        """A command; `wait`: at most so many seconds for its end."""

        def has_ended() -> bool:
            asked = desk.view.commands.find(job_id)
            return asked is not None and bool(asked.answers)

        with desk.changed:
            # one that was asked for a moment ago may not show yet; any other never will
            desk.changed.wait_for(
                lambda: desk.view.commands.find(job_id) is not None, min(wait, BEHIND_S)
            )
            asked = desk.view.commands.find(job_id)
            if asked is not None:
                desk.changed.wait_for(has_ended, wait)
            if asked is None:
                raise ProblemError("not-found", "there is no such job, or it was long ago")
            return reply(request, _job(asked, as_of(desk.view)))

    return routes


def _job(asked: Asked, at: str | None = None) -> JobReply:
    rejected = [e for e in asked.answers if e.type is LifecycleType.REJECTED]
    state = "queued"
    if asked.answers:
        state = "failed" if rejected else "succeeded"
    finished_ms = asked.answers[-1].occurred_at_ms if asked.answers else None
    return JobReply(
        id=asked.command.id,
        kind=str(asked.command.type),
        state=state,
        requested_by=asked.command.requested_by,
        asked_at=timestamp(asked.asked_at_ms),
        finished_at=timestamp(finished_ms),
        result=[] if rejected else [lifecycle_row(event) for event in asked.answers],
        problem=rejected[0].reason if rejected else None,
        as_of=at,
    )


def _check_clusters(desk: Desk, clusters: list[str]) -> None:
    with desk.looking():
        for cluster in clusters:
            label_of(desk, cluster)


def _check_text(pointer: str, text: str | None) -> None:
    if text is None:
        return
    if len(text) > MAX_TEXT or not _PRINTABLE.fullmatch(text):
        raise faulty(pointer, f"must be at most {MAX_TEXT} characters, and no control characters")
