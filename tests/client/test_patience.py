"""What time heals is tried again, within a limit; over sockets that say what the test wants."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.client.problems import (
    AnswerError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UnavailableError,
)
from pipeline.client.sync import EddyClient
from pipeline.errors import UnreachableError

ANSWER = {"cluster": "c1", "label": None, "distance": 1, "margin": None, "confidence": 1.0,
          "model": {"epoch": 1, "revision": 0}, "as_of": None}  # fmt: skip
JOB = {"id": "j", "kind": "recluster", "state": "succeeded", "requested_by": None,
       "asked_at": None, "finished_at": None}  # fmt: skip


def problem(name, status, retry_after=None):
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return status, headers, {"type": f"/problems/{name}", "title": "t", "detail": f"it is {name}"}


@contextmanager
def saying(*answers) -> Iterator[tuple[str, list]]:
    """A server that gives these answers, the last one for ever; what it was asked."""
    left, asked = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            asked.append((self.command, self.path, dict(self.headers), body))
            answer = left.pop(0) if len(left) > 1 else left[0]
            if answer is None:  # break the connection
                self.close_connection = True
                return
            status, headers, said = answer
            raw = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(raw))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 the library's names

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "first",
    [
        problem("unavailable", 503, 0), problem("too-many-requests", 429, 0), None,
        problem("unavailable", 503), (502, {}, b"<html>"), (503, {}, b"busy"),
    ],
)  # fmt: skip
def test_what_time_heals_is_tried_again(first):
    with saying(first, first, (200, {}, ANSWER)) as (url, asked), EddyClient(url) as client:
        assert client.assign([1.0]).cluster == "c1"

    assert len(asked) == 3


def test_a_command_is_the_same_one_when_it_is_tried_again():
    answers = None, problem("unavailable", 503, 0), (202, {}, JOB)
    with saying(*answers) as (url, asked), EddyClient(url) as client:
        client.recluster()

    keys = [
        headers.get("idempotency-key") or headers["Idempotency-Key"] for _, _, headers, _ in asked
    ]
    assert len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem("too-many-requests", 429, 60), TooManyRequestsError),
        (problem("unavailable", 503, 60), UnavailableError),
    ],
)
def test_what_takes_longer_than_the_limit_is_not_waited_for(answer, kind):
    began_at = time.monotonic()

    with (
        saying(answer) as (url, asked),
        EddyClient(url, timeout_s=5.0) as client,
        pytest.raises(kind, match="it is"),
    ):
        client.stats()

    assert len(asked) == 1
    assert time.monotonic() - began_at < 5.0


def test_trying_again_ends():
    with (
        saying(problem("unavailable", 503, 0)) as (url, asked),
        EddyClient(url, timeout_s=0.3) as client,
        pytest.raises(UnavailableError),
    ):
        client.stats()

    assert len(asked) > 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem("not-found", 404), NotFoundError),
        (problem("internal", 500), ServerError),
        (problem("of-tomorrow", 418), ServerError),
        ((500, {}, b"oops"), ServerError),
        ((200, {}, b"<html>"), ServerError),
        ((200, {}, {"unlike": "it"}), AnswerError),
        ((301, {"Location": "http://127.0.0.1:9/"}, b""), ServerError),
    ],
)
def test_what_no_time_heals_is_told_at_once(answer, kind):
    with saying(answer) as (url, asked), EddyClient(url) as client, pytest.raises(kind):
        client.stats()

    assert len(asked) == 1


def test_nobody_there_is_told_within_the_limit():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        EddyClient(f"http://127.0.0.1:{port}", timeout_s=0.3) as client,
        pytest.raises(UnreachableError, match=f"127.0.0.1:{port} within 0.3 s"),
    ):
        client.stats()


def test_the_token_is_in_the_header_and_nowhere_else():
    with (
        saying((200, {}, ANSWER)) as (url, asked),
        EddyClient(url, token="eddy_secret") as client,
    ):
        client.assign([1.0])

    ((_, path, headers, body),) = asked
    assert {n.lower(): v for n, v in headers.items()}["authorization"] == "Bearer eddy_secret"
    assert "secret" not in path + body.decode()
