"""A real server on loopback over the broker in memory, and an Eddy behind it that keeps working."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from pipeline.client.sync import EddyClient
from pipeline.config import AuthPolicy, ServerPolicy
from pipeline.services.server.listening import Listening
from tests.services.server.conftest import Site, tokens, world_of_corners

__all__ = ["tokens"]


class Living:
    """A site that takes in by itself whatever is written to its topics.

    The broker in memory is for one thread, so writers take turns with those who work.
    """

    def __init__(self, policy: ServerPolicy | None = None) -> None:
        policy = policy or ServerPolicy()
        self.site = Site(world_of_corners(), policy)
        self.broker, self.topics = self.site.world.broker, self.site.world.topics
        self._turn, self._wake, self._stop = threading.RLock(), threading.Event(), False
        self._append = self.broker.append
        self.broker.append = self._appending
        self._resting = threading.Lock()
        self._listening = Listening(
            self.site.server.app, replace(policy, port=0), self.site.server._reports
        )
        self.url = f"http://127.0.0.1:{self._listening.port}"
        self._thread = threading.Thread(target=self._work, name="eddy-of-a-test", daemon=True)
        self._thread.start()

    def client(self, **settings: object) -> EddyClient:
        given = {
            "broker": self.broker, "timeout_s": 60.0, "input_topic": self.topics.input,
            "topics_prefix": self.topics.prefix, **settings,
        }  # fmt: skip
        return EddyClient(self.url, **given)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nobody works, and everybody may write."""
        with self._resting:
            yield

    def close(self) -> None:
        self._stop = True
        self._wake.set()
        self._thread.join()
        self._listening.close()

    def _appending(self, *record: object) -> int:
        with self._turn:
            offset = self._append(*record)
        self._wake.set()
        return offset

    def _work(self) -> None:
        while True:
            self._wake.wait()
            if self._stop:
                return
            self._wake.clear()
            with self._resting, self._turn:
                self.site.settle()


@pytest.fixture(scope="session")
def living() -> Iterator[Living]:
    """One for all tests, each with items of its own; no clusters are made or ended."""
    living = Living()
    yield living
    living.close()


@pytest.fixture
def make_living() -> Iterator[Callable[..., Living]]:
    """A site of the test's own."""
    made: list[Living] = []

    def make(policy: ServerPolicy | None = None) -> Living:
        made.append(Living(policy))
        return made[-1]

    yield make
    for living in made:
        living.close()


@pytest.fixture
def client(living) -> Iterator[EddyClient]:
    with living.client() as client:
        yield client


@pytest.fixture
def guarded(make_living, tokens):
    """A site that asks for tokens."""
    return make_living(replace(ServerPolicy(), auth=AuthPolicy("bearer", str(tokens))))
