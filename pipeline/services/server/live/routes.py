"""The two ways out of the hub: a WebSocket, and server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, WebSocket
from starlette.responses import Response
from starlette.types import Receive, Scope
from starlette.types import Send as SendMessage
from starlette.websockets import WebSocketState

from pipeline.errors import RecordError
from pipeline.messages.codec import json_bytes, json_value
from pipeline.services.server.gate import refusal
from pipeline.services.server.live.clients import (
    FIRST_SUBSCRIBE_S,
    MAX_FEED_ID,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGES_PER_S,
    PROTOCOL,
    Client,
    EndError,
    Out,
)
from pipeline.services.server.live.state import Sent
from pipeline.services.server.live.streams import Streams
from pipeline.services.server.live.tokens import read_token
from pipeline.services.server.live.wanted import Wanted, wanted_of_message, wanted_of_query
from pipeline.services.server.problems import TITLES, ProblemError, faulty

GOODBYE_S: Final = 1.0
"""For the last words."""
SSE_RETRY_MS: Final = 500


def router(streams: Streams) -> APIRouter:
    """The routes of the streams. OpenAPI has no words for them, so they are not in it."""
    routes = APIRouter(tags=["streams"])

    @routes.websocket("/stream")
    async def stream(websocket: WebSocket) -> None:
        """One object a message, both ways."""
        await _over_websocket(streams, websocket)

    @routes.get("/events", include_in_schema=False)
    async def events(request: Request) -> Response:
        """One object an event; what a WebSocket asks for by messages is in the query."""
        query = parse_qs(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        wanted = wanted_of_query(query)
        resume = request.headers.get("last-event-id", "") or query.get("resume", [""])[-1]
        if resume:
            read_token(resume, "/query/resume")
        return _EventStream(streams, wanted, resume)

    return routes


# --- WebSocket ------------------------------------------------------------------------------


async def _over_websocket(streams: Streams, websocket: WebSocket) -> None:
    async def send(out: Out) -> None:
        await websocket.send({"type": "websocket.send", "text": out.data.decode()})

    address = (websocket.scope.get("client") or ("unknown", 0))[0]
    try:
        client = streams.join("ws", address, send, _state(websocket.scope).get("direct"))
    except ProblemError as error:
        await websocket.send_denial_response(refusal(websocket, error))
        return
    reason = "error"
    try:
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept(PROTOCOL if PROTOCOL in offered else None)
        end = await streams.attend(client, _listen(streams, client, websocket))
        reason = end.reason
        if end.code is not None:
            await _close(websocket, end)
    finally:
        streams.leave(client, reason)


async def _listen(streams: Streams, client: Client, websocket: WebSocket) -> None:
    times: deque[float] = deque(maxlen=MAX_MESSAGES_PER_S)
    while True:
        left_s = (
            None if client.has_asked else client.joined_at + FIRST_SUBSCRIBE_S - time.monotonic()
        )
        try:
            async with asyncio.timeout(left_s):
                message = await websocket.receive()
        except TimeoutError:
            raise EndError("protocol", 1008) from None
        if message["type"] == "websocket.disconnect":
            raise EndError("limit" if message.get("code") == 1009 else "client")
        now = time.monotonic()
        if len(times) == MAX_MESSAGES_PER_S and now - times[0] < 1.0:
            raise EndError("limit", 1008)
        times.append(now)
        text = message.get("text")
        if text is None:
            raise EndError("protocol", 1003)
        if len(text.encode()) > MAX_MESSAGE_BYTES:
            raise EndError("limit", 1009)
        try:
            _obey(streams, client, text)
        except ProblemError as error:
            client.problems.append(_problem(error, client))
            client.wake.set()


def _obey(streams: Streams, client: Client, text: str) -> None:
    try:
        message = json_value(text)
    except RecordError as error:
        raise faulty("", "the message is no JSON") from error
    if not isinstance(message, dict):
        raise faulty("", "the message is no object")
    kind, name = message.get("type"), message.get("id", "")
    if not isinstance(name, str) or len(name) > MAX_FEED_ID:
        raise faulty("/id", f"must be a text of {MAX_FEED_ID} characters at most")
    if kind == "subscribe":
        resume = message.get("resume") or ""
        if not isinstance(resume, str):
            raise faulty("/resume", "must be a text")
        streams.subscribe(client, name, wanted_of_message(message), resume, "/resume")
    elif kind == "unsubscribe":
        streams.unsubscribe(client, name)
    elif kind == "key":
        for feed in client.feeds.values():
            if feed.id == name or "id" not in message:
                feed.sent = Sent()
        client.wake.set()
    else:
        raise faulty("/type", "must be subscribe, unsubscribe or key")


def _problem(error: ProblemError, client: Client) -> bytes:
    body: dict[str, Any] = {
        "type": "problem",
        "problem": {
            "type": f"/problems/{error.name}",
            "title": TITLES[error.name][1],
            "status": error.status,
            "detail": error.detail,
            "instance": client.id,
            "errors": [{"pointer": one.pointer, "reason": one.reason} for one in error.errors],
        },
    }
    return json_bytes(body)


async def _close(websocket: WebSocket, end: EndError) -> None:
    """Say why; who does not take even that is cut off."""
    give_up = _state(websocket.scope).get("give_up")
    if end.reason == "slow" and give_up is not None:
        give_up(end.code)
        return
    if websocket.application_state is not WebSocketState.CONNECTED:
        return
    with contextlib.suppress(TimeoutError, OSError, RuntimeError):
        async with asyncio.timeout(GOODBYE_S):
            await websocket.send(
                {"type": "websocket.close", "code": end.code, "reason": end.reason}
            )


# --- server-sent events ----------------------------------------------------------------------


class _EventStream(Response):
    """A reply that goes on until one of both has enough."""

    media_type = "text/event-stream"

    def __init__(self, streams: Streams, wanted: Wanted, resume: str) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._streams, self._wanted, self._resume = streams, wanted, resume

    async def __call__(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        async def put(out: Out) -> None:
            head = b"id: %s\n" % out.resume.encode() if out.resume else b""
            body = b"%sdata: %s\n\n" % (head, out.data)
            await send({"type": "http.response.body", "body": body, "more_body": True})

        address = (scope.get("client") or ("unknown", 0))[0]
        client = self._streams.join("sse", address, put)
        reason = "error"
        try:
            self._streams.subscribe(client, "", self._wanted, self._resume, "/query/resume")
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            first = b"retry: %d\n\n" % SSE_RETRY_MS
            await send({"type": "http.response.body", "body": first, "more_body": True})
            end = await self._streams.attend(client, _until_gone(receive))
            reason = end.reason
            abort = _state(scope).get("abort")
            if reason == "slow" and abort is not None:
                abort()
            elif reason != "client":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GOODBYE_S):
                        await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.leave(client, reason)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise EndError("client")


def _state(scope: Scope) -> Mapping[str, Any]:
    found: Mapping[str, Any] = scope.get("state", {})
    return found
