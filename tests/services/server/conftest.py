"""A server over the broker in memory, beside the real assigner and reclusterer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from pipeline.config import AuthPolicy, Config, ServerPolicy
from pipeline.services.server.process import Server
from pipeline.services.server.reports import ServerReports
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import Metrics
from tests.simulation.test_commands import CORNERS, put
from tests.simulation.world import KERNELS, World

READER, WRITER = "eddy_reader", "eddy_writer"


class TimedWorld(World):
    """What is written carries the time of the world, as it would on a broker."""

    def turn(self, instance):
        self.broker.now_ms = int(self.now_s * 1000)
        super().turn(instance)

    def turn_reclusterer(self):
        self.broker.now_ms = int(self.now_s * 1000)
        super().turn_reclusterer()


def world_of_corners(n_items=80, **settings):
    """Four clusters that nobody can mistake, and a model of them, at rest."""
    world = TimedWorld(1, **settings)
    world.crash_rate = 0.0
    world.start_assigner("a0")
    world.start_assigner("a1")
    world.start_reclusterer()
    for i in range(n_items):
        put(world, i, CORNERS[i % 4] + world.rng.normal(0, 1, 3))
    world.settle()
    return world


class Site:
    """A world, and a server that follows it when it is told to."""

    def __init__(self, world: World, policy: ServerPolicy) -> None:
        self.world = world
        self.metrics = Metrics("server")
        self.health = Health("server", poll_timeout_s=1)
        self.ticks = 0.0
        reports = ServerReports(get_logger(), self.metrics, self.health)
        config = Config(topics=world.topics, embedding=world.embedding, server=policy)
        self.news = []
        self.server = Server(
            config,
            world.broker,
            KERNELS,
            input_is_compacted=world.is_compacted,
            reports=reports,
            listeners=[self.news.append],
            now=lambda: world.now_s,
            clock=self.clock,
        )
        self.server.app.limit_s = 120.0  # this machine may have other things to do
        self.client = TestClient(
            self.server.app, base_url="http://localhost", raise_server_exceptions=False,
            root_path=policy.root_path,
        )  # fmt: skip
        self.follow()

    def clock(self) -> float:
        """A tick a look, so that no bucket of requests runs dry by itself."""
        self.ticks += 0.05
        return self.ticks

    def follow(self) -> None:
        """Take in all there is."""
        idle = 0
        while idle < 3:
            idle = 0 if self.server.follower.step() else idle + 1
            if idle == 2:
                self.server.positions.turn()
            self.server._reports.stepped(self.server.desk, self.server.follower)

    def settle(self) -> None:
        """Everybody works until there is nothing left to do, and the server knows of it."""
        self.world.settle()
        self.follow()

    def get(self, path: str, **query: object):
        return self.client.get(f"/api/v1{path}", params=query)

    def ok(self, path: str, **query: object):
        """The body of a question that has an answer."""
        answer = self.get(path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def pages(self, path: str, **query: object) -> list:
        """All items of all pages."""
        found, cursor = [], None
        while True:
            body = self.ok(path, **query, **({} if cursor is None else {"cursor": cursor}))
            found += body["items"]
            cursor = body["next_cursor"]
            if cursor is None:
                return found


@pytest.fixture(scope="session")
def corners() -> Site:
    """Eighty items in four clusters, at rest; nobody writes to it."""
    return Site(world_of_corners(), ServerPolicy())


@pytest.fixture
def world() -> TimedWorld:
    """Items in four clusters, at rest, with a model; the test's own."""
    return world_of_corners(24)


@pytest.fixture
def make_site() -> Callable[..., Site]:
    """A site of the test's own."""

    def make(policy: ServerPolicy | None = None, **settings: object) -> Site:
        return Site(world_of_corners(**settings), policy or ServerPolicy())

    return make


@pytest.fixture
def tokens(tmp_path):
    """A file with a reader and a writer."""
    path = tmp_path / "tokens"
    lines = [
        f"{name}:{scopes}:{hashlib.sha256(token.encode()).hexdigest()}"
        for name, scopes, token in (("r", "read", READER), ("w", "read,write", WRITER))
    ]
    path.write_text("# who may ask\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def guarded(make_site, tokens) -> Site:
    """A site that asks for tokens."""
    return make_site(replace(ServerPolicy(), auth=AuthPolicy("bearer", str(tokens))))
