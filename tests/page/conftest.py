"""One browser and one history for all tests of the page; some have a stage of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import AuthPolicy, ServerPolicy
from tests.page.browser import Browser, missing
from tests.page.small import small_stage
from tests.page.stage import Running, Stage, told

READER, WRITER = "eddy_reader", "eddy_writer"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    why = missing()
    if why is not None:
        pytest.skip(why)
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser; at the end: the page had no error, and asked nobody but its server."""
    yield chromium
    errors = (chromium.notes() or {"errors": []})["errors"]
    assert [error for error in errors if "WebSocket connection" not in error] == []


@pytest.fixture(scope="session")
def history() -> Iterator[Stage]:
    """Hours of Debian's packages; whoever changes it, adds to it."""
    yield told()


@pytest.fixture(scope="session")
def running(history: Stage) -> Iterator[Running]:
    """The history, and a server that listens."""
    with history.live() as running:
        yield running


@pytest.fixture
def make_small() -> Iterator[Callable[..., Running]]:
    """A stage of a few clusters for one test: quick to make, free to break."""
    with ExitStack() as stack:

        def make(policy: ServerPolicy | None = None, **settings: object) -> Running:
            stage = small_stage(policy, **settings)
            return stack.enter_context(stage.live())

        yield make


@pytest.fixture
def guarded(tmp_path: Path) -> ServerPolicy:
    """A policy that asks for a token."""
    path = tmp_path / "tokens"
    path.write_text(
        "\n".join(
            f"{name}:{scopes}:{hashlib.sha256(token.encode()).hexdigest()}"
            for name, scopes, token in (("r", "read", READER), ("w", "read,write", WRITER))
        )
    )
    return replace(ServerPolicy(port=0), auth=AuthPolicy("bearer", str(path)))
