"""Everything that a replay plays in: a broker, topics and services, for as long as it lasts."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.cli.context import Invocation
from pipeline.cli.demo.debian import Packages
from pipeline.cli.local.beside import server_beside
from pipeline.cli.local.broker import own_broker, say
from pipeline.cli.local.children import Services, service_commands
from pipeline.cli.topics import create_topics
from pipeline.messages.policy import Metric


@dataclass(frozen=True, slots=True)
class Scenery:
    """What was started."""

    address: str
    is_own_broker: bool
    services: Services
    page: str | None
    """Its address, where a server was asked for."""


@contextmanager
def scenery(
    asked: Invocation,
    packages: Packages,
    last_words: deque[str],
    *,
    n_clusters: int,
    metric: Metric = "cosine",
    has_page: bool = False,
) -> Iterator[Scenery]:
    """Start it all; ``asked`` is set up for it. It ends, and a broker of ours goes, at the end.

    On a broker that somebody configured the topics have names of their own, and stay.
    ``last_words`` gets what the services write.
    """
    for key, value in _settings(packages, n_clusters, metric).items():
        asked.set(key, value)
    with own_broker(asked, None, 0, say) as (address, running):
        if running is None:
            prefix = f"eddy-demo-{secrets.token_hex(3)}."
            asked.set("topics.prefix", prefix)
            asked.set("topics.input", f"{prefix}embedding-changes")
            asked.set("kafka.group.id", f"{prefix}assigner")
        create_topics(asked.broker(), asked.config)

        def listen(name: str, line: str) -> None:
            last_words.append(f"{name}: {line}")

        commands: dict[str, Sequence[str]] = dict(service_commands(asked.flags))
        page = None
        if has_page:
            server = server_beside(asked.config, asked.flags)
            commands["server"], page = server.command, f"{server.url}/"
        with Services(commands, on_line=listen) as services:
            yield Scenery(address, running is not None, services, page)


def _settings(packages: Packages, n_clusters: int, metric: Metric) -> dict[str, str]:
    """What a replay needs whatever is configured: no fit but the first, and those on command."""
    _, first = next(packages.releases())
    return {
        "embedding.dimensions": str(packages.vectors.shape[1]),
        "embedding.metric": metric,
        "embedding.model": "null",
        "embedding.next.model": "null",
        "embedding.next.dimensions": "null",
        "embedding.max_component": "null",
        "embedding.content_type": "application/vnd.eddy.vector",
        "clustering.clusters": str(n_clusters),
        "topics.input": "embedding-changes",
        "topics.prefix": "eddy.",
        "topics.partitions": "6",
        "topics.replication_factor": "1",
        "events.envelope": "plain",
        "recluster.bootstrap_items": str(len(first)),
        "recluster.bootstrap_max_wait_s": "60",
        "recluster.max_updates": "1000000000",
        "recluster.max_age_s": "1000000000",
        "recluster.schedule": "null",
        "recluster.on_drift": "false",
        "state.directory": "null",
        "telemetry.log_format": "json",
    }
