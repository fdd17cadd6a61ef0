"""A shell with a broker in memory behind it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.cli.console import Console


@pytest.fixture
def eddy(capsys: pytest.CaptureFixture[str]) -> Console:
    """`eddy(...)` returns the exit code; no topics yet."""
    return Console(capsys)


@pytest.fixture
def eddy_with_topics(eddy: Console) -> Console:
    """The same, after `eddy topics create`."""
    assert eddy("topics", "create") == 0
    return eddy


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A service that ran inside a test has set up logging, to an output that ends with it."""
    yield
    structlog.reset_defaults()
