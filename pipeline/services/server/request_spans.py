"""One span per request; a stream has none, since what lasts for hours is seen when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from starlette.types import Scope

from pipeline.telemetry import tracing as names
from pipeline.telemetry.catalogue_server import METHODS
from pipeline.telemetry.tracing import Context, Span, Tracing, is_unsampled, sampled

PREFIX: Final = "/api/v1"


def route_of(scope: Scope) -> str | None:
    """The route of a request as OpenAPI writes it; None: there is none.

    The framework remembers it as it stands in its router, without what the router stands under.
    """
    route: str | None = getattr(scope.get("route"), "path", None)
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    is_inside = path.startswith(f"{PREFIX}/")
    return f"{PREFIX}{route}" if route and is_inside and not route.startswith(PREFIX) else route


class Answer(Protocol):
    """What is known of a reply when it is out."""

    request_id: str
    status: int


class RequestSpans:
    """Which requests have a span, and what it says: the route, and never the path with its ids."""

    def __init__(self, tracing: Tracing | None) -> None:
        self._tracing = tracing

    @contextmanager
    def of(self, scope: Scope, answer: Answer) -> Iterator[None]:
        """Everything until the reply is out."""
        span = None if self._tracing is None else self._begin(self._tracing, scope)
        if span is None:
            yield
            return
        try:
            with span.current():
                yield
        finally:
            self._end(span, scope, answer)

    def _begin(self, tracing: Tracing, scope: Scope) -> Span | None:
        """A caller who traces decides; else chance does."""
        headers = [(name.decode("latin-1"), value) for name, value in scope["headers"]]
        caller: Context | None = sampled(headers)
        if caller is None and (is_unsampled(headers) or not tracing.chooses()):
            return None
        return tracing.begin(_method(scope), kind="SERVER", parent=caller)

    def _end(self, span: Span, scope: Scope, answer: Answer) -> None:
        method, route = _method(scope), route_of(scope)
        if route is not None:
            span.rename(f"{method} {route}")
        status = answer.status or None  # 0: the client left before there was one
        span.note(
            {
                names.METHOD: method,
                names.ROUTE: route,
                names.STATUS: status,
                names.REQUEST_ID: answer.request_id,
            }
        )
        span.end(error=str(status) if status is not None and status >= 500 else None)


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in METHODS else "other"
