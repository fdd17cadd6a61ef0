"""The path under which the server is published, whether a proxy takes it off or leaves it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from contextlib import ExitStack, closing
from dataclasses import replace
from http.client import HTTPConnection
from typing import NamedTuple

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pipeline.config import AuthPolicy, ServerPolicy
from pipeline.services.server.app import openapi
from pipeline.services.server.gate import PREFIX as API
from pipeline.services.server.listening import Listening
from tests.services.server.conftest import READER, Site
from tests.services.server.test_proxy import LIMIT_S, Proxy, ask

ROOTS = ("/some/path", "/api", "/api/v1", "/web", "/login", "/some/path/")
"""Most of them are how a place of the server's own begins; one is written with a slash."""
SHOWN = {"Authorization": f"Bearer {READER}"}
BESIDE = ("/", "/web/main.js", "/login", "/logout", "/health", "/openapi.json", "/problems/x",
          f"{API}/events")  # fmt: skip
"""Places that OpenAPI leaves out."""


class Door(NamedTuple):
    """Where a browser asks: the port of a proxy, and the path that is the server's there."""

    port: int
    root: str

    def ask(self, path, method="GET", body=None, **headers):
        return ask(self.port, path, method, body, prefix=self.root, **headers)

    def below(self, path):
        assert path.startswith(f"{self.root}/")
        return path.removeprefix(self.root)


@pytest.fixture(scope="module")
def doors(corners, tmp_path_factory):
    """One server that asks for tokens, listening once for each path, behind both proxies."""
    tokens = tmp_path_factory.mktemp("gate") / "tokens"
    tokens.write_text(f"r:read:{hashlib.sha256(READER.encode()).hexdigest()}\n")
    site = Site(corners.world, ServerPolicy(auth=AuthPolicy("bearer", str(tokens))))
    found = {}
    with ExitStack() as stack:
        for root in ROOTS:
            policy = replace(ServerPolicy(port=0), root_path=root)
            running = Listening(site.server.app, policy, site.server._reports)
            stack.enter_context(running)
            for takes_off in (True, False):
                prefix = root.rstrip("/")
                proxy = Proxy(running.port, prefix=prefix, takes_off=takes_off)
                stack.enter_context(closing(proxy))
                found[root, takes_off] = Door(proxy.port, prefix)
        stack.callback(site.server.streams.drain)
        yield found


@pytest.fixture(params=ROOTS)
def root(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["taken off", "left"])
def takes_off(request):
    return request.param


@pytest.fixture
def door(doors, root, takes_off):
    return doors[root, takes_off]


def test_the_page_and_its_files_are_below_the_path(door):
    answer, body = door.ask("/")

    assert answer.status == 200
    assert b"<html" in body
    for one in re.findall(r'(?:src|href)="\./(web/[^"#]+)"', body.decode()):
        assert door.ask(f"/{one}")[0].status == 200, one
    assert door.ask("/web/vendor/vendor.json")[0].status == 200
    assert door.ask("/web/none.js")[0].status == 404


def test_questions_links_and_problems_are_below_the_path(door):
    answer, _ = door.ask("/api/v1/clusters?limit=1", **SHOWN)
    assert answer.status == 200
    (link,) = re.findall(r"<([^>]+)>", answer.headers["link"])
    assert link.startswith(f"{door.root}/api/v1/clusters?")
    following, body = door.ask(door.below(link), **SHOWN)
    assert following.status == 200
    assert len(json.loads(body)["items"]) == 1

    answer, body = door.ask("/api/v1/clusters/c99", **SHOWN)
    problem = json.loads(body)
    assert answer.status == 404
    assert problem["instance"] == f"{door.root}/api/v1/clusters/c99"
    assert problem["type"] == f"{door.root}/problems/not-found"
    assert door.ask(door.below(problem["type"]))[0].status == 200


def test_nobody_comes_in_without_a_token(door):
    """The path that is checked is the one that is answered."""
    assert door.ask("/api/v1/stats")[0].status == 401
    assert door.ask("/api/v1/recluster", "POST", "{}", **SHOWN)[0].status == 403
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{door.port}{door.root}/api/v1/stream", open_timeout=LIMIT_S,
                proxy=None).__enter__()  # fmt: skip
    assert refused.value.response.status_code == 401


def test_both_streams_are_below_the_path(door):
    with connect(f"ws://127.0.0.1:{door.port}{door.root}/api/v1/stream", open_timeout=LIMIT_S,
                 proxy=None, additional_headers=SHOWN) as ws:  # fmt: skip
        assert json.loads(ws.recv(timeout=LIMIT_S))["type"] == "hello"

    connection = HTTPConnection("127.0.0.1", door.port, timeout=LIMIT_S)
    with closing(connection):
        connection.request("GET", f"{door.root}/api/v1/events?channels=clusters", headers=SHOWN)
        reply = connection.getresponse()
        assert reply.headers["content-type"].startswith("text/event-stream")
        while not (line := reply.readline()).startswith(b"data:"):
            assert line
        assert json.loads(line[5:])["type"] == "hello"


def test_a_login_is_for_the_path(door):
    answer, _ = door.ask("/login", "POST", json.dumps({"token": READER}))
    assert answer.status == 204
    told = answer.headers["set-cookie"]
    assert f"Path={door.root};" in told

    known = {"Cookie": told.partition(";")[0]}
    assert door.ask("/api/v1/stats", **known)[0].status == 200
    assert door.ask("/logout", "POST", **known)[0].status == 204


@pytest.mark.parametrize("root", [root for root in ROOTS if root != "/login"])
def test_the_path_without_its_slash_leads_to_the_page(doors, root):
    """Where a proxy leaves it there; POST /login under /login is the login of one that does not."""
    door = doors[root, False]
    answer, _ = door.ask("")

    assert answer.status == 307
    assert answer.headers["location"] == f"{door.root}/"


def test_it_is_taken_off_once(doors):
    door = doors["/some/path", False]

    assert door.ask(f"{door.root}/api/v1/stats", **SHOWN)[0].status == 404
    assert door.ask("/nothing")[0].status == 404
    assert doors["/some/path", True].ask("er/api/v1/stats", **SHOWN)[0].status == 404


async def methods(app, path, root=""):
    """What a place takes, as it says of one that none takes; None: there is no such place."""
    told = []

    async def send(message):
        told.append(message)

    path = root + path  # as the listener puts it together
    scope = {
        "type": "http", "method": "OPTIONS", "path": path, "raw_path": path.encode(),
        "root_path": root, "query_string": b"", "headers": [(b"host", b"localhost")],
    }  # fmt: skip
    await app(scope, None, send)
    return dict(told[0]["headers"]).get(b"allow")


def beginnings(path):
    parts = path.strip("/").split("/")
    return ["/" + "/".join(parts[:n]) for n in range(1, len(parts) + 1) if parts[0]]


def test_no_path_hides_a_place(corners):
    """Under every path that is how a place begins, each place is found in both ways."""
    app, api = corners.server.app, corners.server.api
    paths = [re.sub(r"{\w+}", "x", path) for path in openapi(api)["paths"]]

    async def look():
        n_seen = 0
        for path in [*paths, *BESIDE]:
            allowed = await methods(app, path)
            assert allowed is not None, path
            for root in beginnings(path):
                for came in (path, f"{root}{path}"):
                    assert await methods(app, came, root) == allowed, (root, came)
                    n_seen += 1
        return n_seen

    assert asyncio.run(look()) > 150
