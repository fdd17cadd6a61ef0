"""What can go wrong between a program and Eddy; the server's problems by their names.

The server answers with RFC 9457 objects, whose ``type`` ends in a name: each has a class here, so
that ``except NotFoundError`` says what it means. A name that is not known is a `ServerError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pipeline.errors import FatalError


class ClientError(FatalError):
    """Base of what a client raises; what the broker's side raises is in `pipeline.errors`."""


class AnswerError(ClientError):
    """The server, or somebody in its place, said something that is no answer."""


class NotAppliedError(ClientError):
    """A record is in the input, and did nothing: a dead letter, or its sequence is an old one."""


class StillWaitingError(ClientError, TimeoutError):
    """What was waited for has not happened in the time given; it may happen yet."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request."""

    pointer: str
    """JSON pointer into the request: /query/limit, /body/vector/3."""
    reason: str


class ServerError(ClientError):
    """The server refused a request.

    Parameters
    ----------
    name
        Of the problem: the end of its ``type``; empty where somebody else answered.
    """

    names: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        detail: str,
        *,
        name: str = "",
        status: int = 0,
        request_id: str | None = None,
        faults: Sequence[Fault] = (),
        successors: Sequence[str] = (),
    ) -> None:
        super().__init__(detail)
        self.detail, self.name, self.status, self.request_id = detail, name, status, request_id
        self.faults, self.successors = tuple(faults), tuple(successors)


class NotFoundError(ServerError):
    """No item, cluster or job has this name."""

    names = ("not-found",)


class ClusterRetiredError(ServerError):
    """A full fit ended the cluster; `successors` took its members."""

    names = ("cluster-retired",)


class InvalidRequestError(ServerError):
    """`faults` points at each part of the request that is wrong, and says why."""

    names = ("invalid-request", "dimension-mismatch", "payload-too-large", "method-not-allowed")


class InvalidCursorError(ServerError):
    """The model has changed between two pages: begin anew."""

    names = ("invalid-cursor",)


class NoModelError(ServerError):
    """There is no model yet."""

    names = ("no-model",)


class VectorsNotKeptError(ServerError):
    """The server keeps no vectors, so it cannot compare items."""

    names = ("vectors-not-kept",)


class ViewBehindError(ServerError):
    """The view has not come so far as was asked for."""

    names = ("view-behind",)


class UnauthorizedError(ServerError):
    """A token is needed, or this one is none."""

    names = ("unauthorized",)


class ForbiddenError(ServerError):
    """The token may not do this."""

    names = ("forbidden",)


class TooManyRequestsError(ServerError):
    """More requests than the server takes from one client, for longer than was waited."""

    names = ("too-many-requests", "too-many-clients")


class ConflictError(ServerError):
    """It stands against what was asked before."""

    names = ("conflict",)


class UnavailableError(ServerError):
    """Not now, for longer than was waited."""

    names = ("unavailable",)


_CLASSES: Final[Mapping[str, type[ServerError]]] = {
    name: kind for kind in ServerError.__subclasses__() for name in kind.names
}


def error_of(status: int, body: Any, request_id: str | None) -> ServerError:
    """The error that a reply tells of, whoever wrote it.

    Parameters
    ----------
    body
        What its JSON was; None: it was none.
    """
    if not isinstance(body, Mapping) or not isinstance(body.get("type"), str):
        kind = UnavailableError if status == 503 else ServerError
        return kind(f"the answer was {status}, and no problem of Eddy", status=status)
    name = body["type"].rpartition("/")[2]
    detail = str(body.get("detail") or body.get("title") or name)
    faults = [
        Fault(str(fault.get("pointer", "")), str(fault.get("reason", "")))
        for fault in body.get("errors") or ()
        if isinstance(fault, Mapping)
    ]
    said = {f"{f.pointer}: {f.reason}" for f in faults if f.reason not in detail}
    if said:
        detail = f"{detail} ({'; '.join(sorted(said))})"
    return _CLASSES.get(name, ServerError)(
        detail, name=name, status=status, request_id=request_id, faults=faults,
        successors=[str(one) for one in body.get("successors") or ()],
    )  # fmt: skip
