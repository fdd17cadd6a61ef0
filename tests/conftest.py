"""What tests of several rooms share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.streams.broker import RunningBroker, start_broker

FAST_GROUPS = {"group.min.session.timeout.ms": "1000"}
"""Lets members of a group be missed within seconds; by default not before six."""


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell has those it runs beside others ignore Ctrl-C, and so would all that tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class KafkaCluster:
    """A broker that all tests share; they use names of their own and never restart it."""

    bootstrap_servers: str
    process: RunningBroker | None
    """None: somebody else's."""


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Apache Kafka: the one that the environment names, else one of our own."""
    given = os.environ.get("EDDY_KAFKA__BOOTSTRAP__SERVERS")
    if given:
        yield KafkaCluster(given, None)
        return
    with start_broker(None, extra=FAST_GROUPS) as broker:
        yield KafkaCluster(broker.bootstrap_servers, broker)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[RunningBroker]:
    """A broker of the test's own, for what the others must not feel."""
    with start_broker(tmp_path / "broker", extra=FAST_GROUPS) as broker:
        yield broker
        broker.kill()
