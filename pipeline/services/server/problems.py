"""What can be wrong with a request, as RFC 9457 objects: ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.responses import Response

from pipeline.errors import FatalError
from pipeline.messages.codec import json_bytes
from pipeline.telemetry.tracing import current

CONTENT_TYPE: Final = "application/problem+json"

TITLES: Final = {
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "This cannot be done with it"),
    "cluster-retired": (410, "The cluster has retired"),
    "invalid-request": (422, "The request says something that it may not"),
    "invalid-cursor": (400, "The cursor cannot be used"),
    "dimension-mismatch": (422, "The vector has another length"),
    "no-model": (503, "There is no model yet"),
    "vectors-not-kept": (501, "No vectors are kept"),
    "view-behind": (503, "The view has not come so far yet"),
    "unauthorized": (401, "A token is needed"),
    "forbidden": (403, "This is not allowed"),
    "too-many-requests": (429, "Too many requests"),
    "too-many-clients": (503, "Too many streams"),
    "payload-too-large": (413, "The body is too long"),
    "conflict": (409, "This stands against what was asked before"),
    "unavailable": (503, "Not now"),
    "internal": (500, "A defect"),
}
"""Name -> its status, and its title."""

MEANINGS: Final = {
    "not-found": "No item, cluster, job or page has this name. Item ids that do not fit into a "
    "path are written ~b64:<base64url>.",
    "method-not-allowed": "The header Allow names the methods that there are.",
    "cluster-retired": "A full fit has ended this cluster; `successors` took its members.",
    "invalid-request": "`errors` points at each part of the request that is wrong, and says why.",
    "invalid-cursor": "It was changed, is another request's, or of a former epoch: begin anew.",
    "dimension-mismatch": "A vector must have as many numbers as the model's centroids.",
    "no-model": "The reclusterer has not published a first model yet; try again later.",
    "vectors-not-kept": "server.vectors is none, or they would not fit server.max_vector_bytes.",
    "view-behind": "The record that min_offset names does not show yet; try again.",
    "unauthorized": "Send a valid token: Authorization: Bearer eddy_...",
    "forbidden": "The token lacks the scope, or the request comes from another site.",
    "too-many-requests": "The header Retry-After says when there is room again.",
    "too-many-clients": "The server, or the address, has as many streams as it may.",
    "payload-too-large": "A body may have 1 MiB.",
    "conflict": "The same Idempotency-Key was used for another request.",
    "unavailable": "The header Retry-After says when to try again.",
    "internal": "It is logged under the request's id; please report it.",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request."""

    pointer: str
    """JSON pointer into the request: /query/limit, /body/vector/3."""
    reason: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    trace_id: str | None = None
    errors: list[Fault] = field(default_factory=list)
    successors: list[str] | None = None
    """Of a retired cluster: who took its members."""


class ProblemError(FatalError):
    """A request that cannot be answered as it was asked.

    Parameters
    ----------
    name
        A key of `TITLES`.
    """

    def __init__(
        self,
        name: str,
        detail: str,
        *,
        errors: Sequence[Fault] = (),
        retry_after_s: int | None = None,
        successors: Sequence[str] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.name, self.detail, self.errors = name, detail, tuple(errors)
        self.retry_after_s, self.successors = retry_after_s, successors
        self.status = TITLES[name][0] if status is None else status


def problem_response(
    error: ProblemError, *, instance: str, request_id: str, root_path: str = ""
) -> Response:
    """The reply that tells of an error."""
    span = current()
    problem = Problem(
        type=f"{root_path}/problems/{error.name}",
        title=TITLES[error.name][1],
        status=error.status,
        detail=error.detail,
        instance=instance,
        request_id=request_id,
        trace_id=None if span is None else span.trace_id,
        errors=list(error.errors),
        successors=None if error.successors is None else list(error.successors),
    )
    headers = {"Cache-Control": "no-store"}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.name == "unauthorized":
        headers["WWW-Authenticate"] = 'Bearer realm="eddy"'
    return Response(json_bytes(problem), error.status, headers, CONTENT_TYPE)


def faulty(place: str, reason: str) -> ProblemError:
    """The problem of one wrong part of a request: ``place`` as in `Fault.pointer`."""
    return ProblemError("invalid-request", reason, errors=[Fault(place, reason)])
