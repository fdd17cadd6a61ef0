"""Behind a proxy that publishes the server under a path: page, questions, streams, cookies."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from http.client import HTTPConnection

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pipeline.config import AuthPolicy, ServerPolicy
from pipeline.services.server.listening import Listening
from tests.services.server.conftest import READER, Site

LIMIT_S = 30
PREFIX = "/some/path"


class Proxy:
    """Takes the prefix off, or not, and lets everything through; one request a connection.

    Parameters
    ----------
    host
        The name under which it asks; None: as it was asked itself.
    """

    def __init__(self, port, host=None, *, prefix=PREFIX, takes_off=True):
        self._to, self._host = port, host
        self._prefix, self._takes_off = prefix.encode(), takes_off
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with closing(client), suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(65536)
            server = socket.create_connection(("127.0.0.1", self._to), timeout=LIMIT_S)
            with closing(server):
                server.sendall(self._passed_on(head))
                back = threading.Thread(target=self._pipe, args=(server, client), daemon=True)
                back.start()
                self._pipe(client, server)
                back.join()

    def _passed_on(self, head):
        method, path, rest = head.split(b" ", 2)
        assert path.startswith(self._prefix)
        if self._takes_off:
            head = b" ".join([method, path.removeprefix(self._prefix), rest])
        if self._host is not None:
            head = re.sub(rb"(?im)^host:.*$", b"Host: " + self._host.encode() + b"\r", head)
        if b"upgrade: websocket" not in head.lower():
            head = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
        return head

    @staticmethod
    def _pipe(source, target):
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self._door.close()


@contextmanager
def proxied(site, policy, **given):
    with Listening(site.server.app, replace(policy, port=0), site.server._reports) as running:
        with closing(Proxy(running.port, **given)) as proxy:
            yield proxy.port
        site.server.streams.drain()


@pytest.fixture
def policy():
    return ServerPolicy(root_path=PREFIX)


@pytest.fixture
def site(corners, policy):
    return Site(corners.world, policy)


@pytest.fixture
def port(site, policy):
    with proxied(site, policy) as port:
        yield port


def ask(port, path, method="GET", body=None, *, prefix=PREFIX, **headers):
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    with closing(connection):
        given = {"Content-Type": "application/json", **headers}
        connection.request(method, f"{prefix}{path}", body, headers=given)
        answer = connection.getresponse()
        return answer, answer.read()


def test_the_page_and_what_it_asks_are_below_the_path(port):
    answer, body = ask(port, "/")

    assert answer.status == 200
    named = re.findall(r'(?:src|href)="([^"#]+)"', body.decode())
    assert named
    for one in named:
        assert not one.startswith("/"), f"{one} would leave the path"
        assert ask(port, "/" + one.removeprefix("./"))[0].status == 200, one
    assert ask(port, "/api/v1/stats")[0].status == 200


def test_links_and_names_of_problems_keep_the_path(port):
    answer, body = ask(port, "/api/v1/clusters?limit=1")
    (link,) = re.findall(r"<([^>]+)>", answer.headers["link"])
    assert link.startswith(f"{PREFIX}/api/v1/clusters?")
    following, _ = ask(port, link.removeprefix(PREFIX))
    assert following.status == 200

    answer, body = ask(port, "/api/v1/clusters/c99")
    problem = json.loads(body)
    assert answer.status == 404
    assert problem["type"] == f"{PREFIX}/problems/not-found"
    assert ask(port, problem["type"].removeprefix(PREFIX))[0].status == 200


def test_both_streams_come_through(port):
    with connect(f"ws://127.0.0.1:{port}{PREFIX}/api/v1/stream", open_timeout=LIMIT_S,
                 proxy=None, origin=f"http://127.0.0.1:{port}") as ws:  # fmt: skip
        ws.send(json.dumps({"type": "subscribe", "id": "a", "channels": ["clusters"]}))
        while (told := json.loads(ws.recv(timeout=LIMIT_S)))["type"] != "key":
            pass
        assert len(told["clusters"]) == 4
        assert {"x", "y", "drift", "state"} <= told["clusters"][0].keys()

    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    with closing(connection):
        connection.request("GET", f"{PREFIX}/api/v1/events?channels=clusters")
        reply = connection.getresponse()
        assert reply.headers["content-type"].startswith("text/event-stream")
        while not (line := reply.readline()).startswith(b"data:"):
            assert line
        assert json.loads(line[5:])["type"] == "hello"


def test_a_page_of_another_site_does_not_come_through(port):
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{port}{PREFIX}/api/v1/stream", open_timeout=LIMIT_S,
                proxy=None, origin="https://evil.example").__enter__()  # fmt: skip

    assert refused.value.response.status_code == 403


def test_a_cookie_belongs_to_the_path(corners, tokens):
    policy = ServerPolicy(root_path=PREFIX, auth=AuthPolicy("bearer", str(tokens)))
    with proxied(Site(corners.world, policy), policy) as port:
        answer, _ = ask(port, "/login", "POST", json.dumps({"token": READER}))
        assert answer.status == 204
        told = answer.headers["set-cookie"]
        assert f"Path={PREFIX};" in told
        known = {"Cookie": told.partition(";")[0]}

        assert ask(port, "/api/v1/stats")[0].status == 401
        assert ask(port, "/api/v1/stats", **known)[0].status == 200
        with connect(f"ws://127.0.0.1:{port}{PREFIX}/api/v1/stream", open_timeout=LIMIT_S,
                     proxy=None, additional_headers=known) as ws:  # fmt: skip
            assert json.loads(ws.recv(timeout=LIMIT_S))["type"] == "hello"
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://127.0.0.1:{port}{PREFIX}/api/v1/stream", open_timeout=LIMIT_S,
                    proxy=None).__enter__()  # fmt: skip
        assert refused.value.response.status_code == 401


def test_a_proxy_that_asks_under_another_name_is_believed_by_what_the_browser_says(site, policy):
    with proxied(site, policy, host="localhost:8080") as port:
        own = {"Origin": "https://eddy.example"}
        asked = json.dumps({"vector": [1, 2, 3]})

        refused, _ = ask(port, "/api/v1/assign", "POST", asked, **own)
        answer, _ = ask(
            port, "/api/v1/assign", "POST", asked, **own, **{"Sec-Fetch-Site": "same-origin"}
        )
        foreign, _ = ask(
            port, "/api/v1/assign", "POST", asked, **own, **{"Sec-Fetch-Site": "same-site"}
        )

        assert (refused.status, answer.status, foreign.status) == (403, 200, 403)
