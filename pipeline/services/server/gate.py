"""What every request passes: who asks, how long, how often, and what is told of it afterwards.

Plain ASGI around the application: a reply that was begun is never held up, and what goes wrong in
here becomes a problem object like everything else.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from pipeline.services.server.access import READ, WRITE, Doorkeeper
from pipeline.services.server.desk import Desk
from pipeline.services.server.logins import cookie_in
from pipeline.services.server.problems import ProblemError, problem_response
from pipeline.services.server.replies import model_header
from pipeline.services.server.request_spans import PREFIX as PREFIX
from pipeline.services.server.request_spans import RequestSpans, route_of

MAX_BODY_BYTES: Final = 2**20
REQUEST_LIMIT_S: Final = 10.0
LONG_LIMIT_S: Final = 40.0
"""Of a request that waits on purpose: ``wait`` of a job."""
STREAM_PATH: Final = f"{PREFIX}/events"
"""Its reply goes on for hours."""
SESSION_PATH: Final = f"{PREFIX}/session"
"""Everybody may ask whether a token is needed."""
LOGIN_PATHS: Final = frozenset({"/login", "/logout"})
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ASKING: Final = frozenset({f"{PREFIX}/similar", f"{PREFIX}/assign"})
"""These are asked by POST, since a vector is long; they change nothing."""
_LOOPBACK: Final = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?")
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

Tell = Callable[[str, str, str, int, float], None]
"""Is told request id, route, method, status and seconds of every request."""


class Gate:
    """The outermost layer.

    Parameters
    ----------
    tell
        See `Tell`.
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        app: Starlette,
        *,
        desk: Desk,
        doorkeeper: Doorkeeper,
        tell: Tell,
        clock: Callable[[], float],
        spans: RequestSpans,
    ) -> None:
        self._app, self._desk, self._doorkeeper = app, desk, doorkeeper
        self._tell, self._clock, self._spans = tell, clock, spans
        self.limit_s = REQUEST_LIMIT_S
        auth = desk.policy.auth
        self._is_for_neighbours = auth.mode == "none" and not auth.allow_unauthenticated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = self._at_home(scope)
        if scope["type"] == "websocket":
            await self._shake_hands(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = self._clock()
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        answer = _Answer(send, request_id, model_header(self._desk.view))
        state = scope.setdefault("state", {})
        state["request_id"], state["model"] = request_id, answer.model
        with self._spans.of(scope, answer) if not _is_stream(scope) else nullcontext():
            try:
                async with asyncio.timeout(self._limit_s(scope)):
                    state["asker"] = self._admit(scope, headers)
                    receive = await _whole(scope, headers, receive)
                    app = _to_the_page(scope) if _is_bare(scope) else self._app
                    await app(scope, receive, answer)
            except ProblemError as error:
                await self._refuse(error, scope, receive, answer)
            except TimeoutError:
                late = ProblemError(
                    "unavailable", f"no answer within {self.limit_s:g} s", retry_after_s=1
                )
                await self._refuse(late, scope, receive, answer)
            finally:
                route = route_of(scope) or "other"
                duration_s = self._clock() - began_at
                if not (
                    _is_stream(scope) and answer.status == 200
                ):  # how long it was is no latency
                    self._tell(request_id, route, scope["method"], answer.status, duration_s)

    async def _shake_hands(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket begins as a request; what is said on it passes by."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"], state["model"] = request_id, model_header(self._desk.view)
        try:
            _check_origin(headers)
            state["asker"] = self._admit({**scope, "method": "GET"}, headers)
        except ProblemError as error:
            refused = problem_response(
                error, instance=scope["path"], request_id=request_id,
                root_path=scope.get("root_path", ""),
            )  # fmt: skip
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _at_home(self, scope: Scope) -> Scope:
        """The request as it is where a proxy takes `server.root_path` off, whether it did or not.

        The listener puts that in front, so it stands twice where the proxy left it. But what came
        may begin with it of its own, as under /api or /web all does: then it is taken off only if
        a place of the server's is left.
        """
        root: str = scope.get("root_path", "")
        came: str = scope["path"].removeprefix(root)
        if not root or not f"{came}/".startswith(f"{root}/"):
            return scope
        once = {**scope, "path": came, "raw_path": scope.get("raw_path", b"")[len(root) :]}
        return once if self._is_place(once) or not self._is_place(scope) else scope

    def _is_place(self, scope: Scope) -> bool:
        asked = {**scope}  # routes may leave notes in it
        return any(route.matches(asked)[0] is not Match.NONE for route in self._app.routes)

    def _limit_s(self, scope: Scope) -> float | None:
        if _is_stream(scope):
            return None
        return LONG_LIMIT_S if _waits(scope) else self.limit_s

    def _admit(self, scope: Scope, headers: dict[bytes, str]) -> str:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in LOGIN_PATHS:
            _check_origin(headers)
            if self._is_for_neighbours:
                _check_host(headers)
        if not path.startswith(PREFIX):
            return "anonymous"
        changes = scope["method"] in _WRITES and path not in _ASKING
        if scope["method"] in _WRITES:
            _check_origin(headers)
        if self._is_for_neighbours:
            _check_host(headers)
        address = (scope.get("client") or ("unknown", 0))[0]
        shown = headers.get(b"authorization")
        cookie = cookie_in(headers.get(b"cookie", ""))
        if path == SESSION_PATH and not changes:
            scope["state"]["session"] = self._doorkeeper.look(shown, address, cookie)
            return "anonymous"
        return self._doorkeeper.admit(shown, address, WRITE if changes else READ, cookie)

    async def _refuse(
        self, error: ProblemError, scope: Scope, receive: Receive, answer: _Answer
    ) -> None:
        if answer.status:  # half of a reply is out; the connection ends here
            return
        response = problem_response(
            error, instance=scope["path"], request_id=answer.request_id,
            root_path=scope.get("root_path", ""),
        )  # fmt: skip
        await response(scope, receive, answer)


class _Answer:
    """`send`, with the headers that every reply has."""

    def __init__(self, send: Send, request_id: str, model: str) -> None:
        self._send = send
        self.request_id, self.model = request_id, model
        self.status = 0
        """0: nothing was sent yet."""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", []),
                (b"x-request-id", self.request_id.encode()),
                (b"eddy-model", self.model.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
        await self._send(message)


def _is_stream(scope: Scope) -> bool:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path == STREAM_PATH and scope["method"] == "GET"


def _is_bare(scope: Scope) -> bool:
    """Whether the path under which all is published was asked for, without the slash behind it."""
    return bool(scope["path"] == scope.get("root_path", ""))


def _to_the_page(scope: Scope) -> Response:
    """Where the page is, for what it names relative to itself has to stay below the path."""
    return RedirectResponse(f"{scope['path']}/")


def _waits(scope: Scope) -> bool:
    return "/jobs/" in scope["path"]


def _check_origin(headers: dict[bytes, str]) -> None:
    """A page of another site may not send anything in a browser's name.

    A browser says itself whether it is its own site that asks, and no page can make it say so. That
    is what counts behind a proxy that asks under a name of its own.
    """
    if headers.get(b"sec-fetch-site") == "same-origin":
        return
    origin, host = headers.get(b"origin"), headers.get(b"host", "")
    if origin is not None and origin.partition("://")[2] != host:
        raise ProblemError("forbidden", "the request comes from another site")


def is_of_this_machine(host: str) -> bool:
    """Whether a header Host names the loopback address."""
    return _LOOPBACK.fullmatch(host.lower()) is not None


def _check_host(headers: dict[bytes, str]) -> None:
    """Where nobody needs a token, only this machine's own names count.

    A page of another site may have its name resolved to this address; a browser then takes the
    server for a part of that site, and lets the page read.
    """
    host = headers.get(b"host", "")
    if not is_of_this_machine(host):
        raise ProblemError("forbidden", f"without tokens {host[:100]!r} is no name to ask under")


async def _whole(scope: Scope, headers: dict[bytes, str], receive: Receive) -> Receive:
    """The body, read to its end before anybody works on it; `ProblemError` if it is too long."""
    if scope["method"] not in _WRITES:
        return receive
    told = headers.get(b"content-length", "")
    if told.isdigit() and int(told) > MAX_BODY_BYTES:
        raise ProblemError("payload-too-large", f"a body may have {MAX_BODY_BYTES} bytes")
    parts: list[bytes] = []
    n_bytes, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break  # gone
        part: bytes = message.get("body", b"")
        n_bytes += len(part)
        if n_bytes > MAX_BODY_BYTES:
            raise ProblemError("payload-too-large", f"a body may have {MAX_BODY_BYTES} bytes")
        parts.append(part)
        more = message.get("more_body", False)
    body, is_told = b"".join(parts), False

    async def again() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def refusal(request: Any, error: ProblemError) -> Response:
    """The reply to a request that the application itself refused."""
    return problem_response(
        error,
        instance=request.url.path,
        request_id=getattr(request.state, "request_id", ""),
        root_path=request.scope.get("root_path", ""),
    )
