"""The twins that the contract suites run on, and a group whose members leave at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.streams.steps import Join
from tests.streams.twins import MemoryTwin, Twin
from tests.streams.twins_kafka import kafka_twin


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def twin(request: pytest.FixtureRequest) -> Iterator[Twin]:
    if request.param == "memory":
        yield MemoryTwin()
        return
    yield kafka_twin(request.getfixturevalue("kafka_cluster").bootstrap_servers)


@pytest.fixture
def join(twin: Twin) -> Iterator[Join]:
    joined = Join(twin)
    yield joined
    joined.close()
