"""Requests from the network: the thread that answers them, and how long it waits for a client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import time
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

from pipeline.config import ServerPolicy
from pipeline.errors import ConfigError
from pipeline.services.server.descriptors import raised_limit
from pipeline.services.server.live.clients import MAX_MESSAGE_BYTES, Direct
from pipeline.services.server.reports import ServerReports

BEAT_S: Final = 1.0
MAX_CONNECTIONS: Final = 2000
"""At a time; beyond it a connection gets 503. Descriptors for as many are asked for; where the
system gives fewer, there are fewer connections, and the log says so."""
TURN_S: Final = 0.001
"""After which threads of Python make way for each other, here for the one that follows the topics.
With 1 000 live clients and 2 000 events a second the 99th percentile from commit to client was
148 ms; with Python's own 5 ms it was 385, measured one after the other."""
KEEP_ALIVE_S: Final = 20
DRAIN_S: Final = 10
SPARE_DESCRIPTORS: Final = 256
_START_S: Final = 10.0
PING_S: Final = 20.0
GIVE_UP_S: Final = 2.0
"""In which a slow client may still take the word that it is closed."""
HEAD_S: Final = 10.0
"""In which the head of a request has to be there: a client that dawdles holds a connection."""


class Listening:
    """Answers requests on a thread of its own until it is closed.

    Raises
    ------
    ConfigError
        The address cannot be listened on.
    """

    def __init__(self, app: ASGIApp, policy: ServerPolicy, reports: ServerReports) -> None:
        sys.setswitchinterval(TURN_S)
        # what the process holds beside connections: readers of topics, the log, an index
        n_descriptors = raised_limit(MAX_CONNECTIONS + SPARE_DESCRIPTORS)
        n_connections = max(1, min(MAX_CONNECTIONS, n_descriptors - SPARE_DESCRIPTORS))
        self._socket = _bound(policy)
        host, self.port = self._socket.getsockname()[:2]
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                date_header=True,
                http=_Impatient,
                ws=_Stream,
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_ping_interval=PING_S,
                ws_ping_timeout=PING_S,
                ws_per_message_deflate=False,
                lifespan="off",
                root_path=policy.root_path.rstrip("/"),
                limit_concurrency=n_connections,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=DRAIN_S,
                h11_max_incomplete_event_size=16 * 1024,
            )
        )
        self._reports = reports
        self._thread = threading.Thread(target=self._run, name="eddy-http", daemon=True)
        self._thread.start()
        reports.listening(host, self.port, n_connections, n_descriptors)

    def close(self) -> None:
        """Let requests end, and stop; idempotent."""
        self._server.should_exit = True
        self._thread.join(DRAIN_S + _START_S)
        self._socket.close()

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        beating = asyncio.create_task(self._beat())
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating

    async def _beat(self) -> None:
        """Alive is who answers: the event loop says so itself."""
        while True:
            self._reports.health.beat(time.monotonic())
            await asyncio.sleep(BEAT_S)


def _bound(policy: ServerPolicy) -> socket.socket:
    family = socket.AF_INET6 if ":" in policy.host else socket.AF_INET
    try:
        found = socket.create_server((policy.host, policy.port), family=family, backlog=1024)
    except OSError as error:
        raise ConfigError(
            f"server.host and server.port are {policy.host} and {policy.port}, but cannot be "
            f"listened on ({error.strerror}); port 0 takes a free one"
        ) from error
    # what is accepted inherits it. Else a reply in two parts waits for the receipt of the first,
    # which a client puts off: 40 ms (asyncio says it itself, but only of sockets of its own)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


class _Impatient(H11Protocol):
    """Closes a connection whose next request does not begin, or does not get on.

    The library waits for ever for the end of a head; a body is limited by the gate.
    """

    head_s = HEAD_S
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # an application that has had enough of a client gets at the connection by this
        self.app_state = {**self.app_state, "abort": transport.abort}
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            self._end()  # it is a WebSocket from now on
            return
        cycle = getattr(self, "cycle", None)  # of the request at hand, or of the last one
        is_waiting = cycle is None or cycle.response_complete
        if is_waiting:
            self._wait()
        else:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(self.head_s, self._give_up)

    def _end(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if not self.transport.is_closing():
            self.transport.close()


class _Stream(WebSocketsSansIOProtocol):
    """Lets the application close a client that takes nothing, for whom the library would wait.

    And lets it write to one that takes everything, past the layers of the application.
    """

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:  # read by a task that runs later
            self.scope["state"]["give_up"] = self._give_up
            self.scope["state"]["direct"] = Direct(self._is_free, self._write)

    def _is_free(self) -> bool:
        is_open = self.conn.state is State.OPEN and not self.transport.is_closing()
        return is_open and self.writable.is_set()

    def _write(self, text: bytes) -> None:
        self.conn.send_text(text)
        self.transport.write(b"".join(self.conn.data_to_send()))

    def _give_up(self, code: int) -> None:
        if self.close_sent or self.transport.is_closing():
            return
        self.conn.send_close(code, "slow")
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()
        self.loop.call_later(GIVE_UP_S, self.transport.abort)
