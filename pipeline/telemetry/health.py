"""Health of a process over HTTP, on a thread of its own: ``/livez``, ``/readyz``, ``/startupz``,
and ``/metrics``.

The service says what it knows (`Health`), the probes only read it: nothing here asks a
broker or a peer, so an outage of the broker restarts nobody. The thread answers while the
loop hangs, and that is how a hanging loop is seen.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Final, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

STARTUP_CHECKS: Final = ("configuration", "broker", "first_restore")
"""Configuration valid, broker reached once, first restore done. What was true once stays true."""

READY_CHECKS: Final[Mapping[str, tuple[str, ...]]] = {
    "assigner": ("partitions_restored", "not_draining"),
    "reclusterer": ("producer_initialised", "topics_read", "not_draining"),
    "server": ("caught_up", "fresh", "not_draining"),
}
"""What traffic and rollouts wait for, by service."""

LEAST_DEADLINE_S: Final = 30.0
MAX_CONNECTIONS: Final = 32
_REQUEST_TIMEOUT_S: Final = 5.0
_CLOSE_WITHIN_S: Final = 0.1


class Check(NamedTuple):
    """One line of an answer."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Turns:
    last: float
    longest_batch_s: float


class Health:
    """What a service says of itself. One thread writes, any thread reads.

    Parameters
    ----------
    service
        A key of `READY_CHECKS`.
    poll_timeout_s
        The longest that the loop waits for records.
    now
        A clock that never goes back, in seconds; the one whose times `beat` is given.
    """

    def __init__(
        self,
        service: str,
        *,
        poll_timeout_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._poll_timeout_s = poll_timeout_s
        self._turns = _Turns(now(), 0.0)
        self._startup = {name: Check(name, False, "not yet") for name in STARTUP_CHECKS}
        self._ready = {name: Check(name, False, "not yet") for name in READY_CHECKS[service]}
        if "not_draining" in self._ready:
            self._ready["not_draining"] = Check("not_draining", True)

    def beat(self, now: float, *, batch_s: float = 0.0) -> None:
        """The loop turned; ``batch_s``: how long its micro-batch took, 0 without one."""
        self._turns = _Turns(now, max(self._turns.longest_batch_s, batch_s))

    def set(self, name: str, ok: bool, detail: str = "") -> None:
        """Say how a check stands; a name that no probe knows is an AssertionError."""
        assert name in self._startup or name in self._ready, f"no probe has a check {name!r}"
        if name in self._ready:
            self._ready[name] = Check(name, ok, detail)
        if name in self._startup and not self._startup[name].ok:
            self._startup[name] = Check(name, ok, detail)

    @property
    def deadline_s(self) -> float:
        """How long a turn of the loop may take before the process counts as dead."""
        longest_batch_s = self._turns.longest_batch_s
        return max(3 * self._poll_timeout_s, 2 * longest_batch_s, LEAST_DEADLINE_S)

    def live(self) -> tuple[Check, ...]:
        """Whether the loop turns."""
        silent_s = self._now() - self._turns.last
        deadline_s = self.deadline_s
        detail = f"last turn {silent_s:.1f} s ago, deadline {deadline_s:.1f} s"
        return (Check("loop", silent_s <= deadline_s, detail),)

    def ready(self) -> tuple[Check, ...]:
        """Whether the service does what it is there for."""
        return tuple(self._ready.values())

    def started(self) -> tuple[Check, ...]:
        """Whether the service has come up; it never goes back."""
        return tuple(self._startup.values())


class HealthServer:
    """Answers probes and scrapes until it is closed.

    Parameters
    ----------
    exposition
        Accept header -> body and content type of ``/metrics``.
    host
        Empty: every address of the machine, IPv6 where there is any.
    port
        0: a free one; see `port`.

    Raises
    ------
    OSError
        The address cannot be bound.
    """

    def __init__(
        self,
        health: Health,
        exposition: Callable[[str], tuple[bytes, str]],
        *,
        host: str = "",
        port: int = 0,
    ) -> None:
        handler = type(
            "_BoundHandler", (_Handler,), {"health": health, "exposition": (exposition,)}
        )
        self._server = _Server(host, port, handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            args=(_CLOSE_WITHIN_S,),
            name="eddy-health",
            daemon=True,
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        port: int = self._server.server_address[1]
        return port

    def close(self) -> None:
        """Stop listening; idempotent."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    """A thread per connection, but never more than `MAX_CONNECTIONS` of them."""

    request_queue_size = MAX_CONNECTIONS  # with the library's 5, a burst waits for retries
    daemon_threads = True
    block_on_close = False  # a client that dawdles does not delay the end of the process

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in host or (not host and socket.has_dualstack_ipv6()):
            self.address_family = socket.AF_INET6
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # not HTTPServer's own: it looks up the name of the machine, which may take seconds
        socket.socket.setsockopt(self.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "eddy", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's concern, and the standard output belongs to logs."""


class _Handler(BaseHTTPRequestHandler):
    health: ClassVar[Health]
    exposition: ClassVar[tuple[Callable[[str], tuple[bytes, str]]]]  # boxed: else it binds self
    timeout = _REQUEST_TIMEOUT_S
    server_version, sys_version = "eddy", ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/metrics":
            body, content_type = self.exposition[0](self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, body, content_type)
            return
        probe = {
            "/livez": self.health.live,
            "/readyz": self.health.ready,
            "/startupz": self.health.started,
        }.get(url.path)
        if probe is None:
            self._answer(HTTPStatus.NOT_FOUND, b"not found\n", "text/plain; charset=utf-8")
            return

        checks = probe()
        ok = all(check.ok for check in checks)
        status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        if "verbose" in parse_qs(url.query, keep_blank_values=True):
            lines = [check._asdict() for check in checks]
            body = json.dumps({"ok": ok, "checks": lines}).encode() + b"\n"
            self._answer(status, body, "application/json")
        else:
            failed = ", ".join(check.name for check in checks if not check.ok)
            text = "ok\n" if ok else f"failed: {failed}\n"
            self._answer(status, text.encode(), "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds and are no news."""
