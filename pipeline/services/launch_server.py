"""The server, put together from its configuration and turned until it is told to stop.

Beside :mod:`pipeline.services.launch`, because what it imports is an extra.
"""

from __future__ import annotations

import threading

from pipeline.config import Config
from pipeline.kernels.contract import Kernels
from pipeline.services.launch import COMPACT, telling, traced
from pipeline.services.lifecycle import require_topics, serve
from pipeline.services.server.indexing import Indexing
from pipeline.services.server.listening import Listening
from pipeline.services.server.process import Server
from pipeline.services.server.reports import ServerReports
from pipeline.streams.acls import Role
from pipeline.streams.contract import Broker
from pipeline.telemetry.logs import get_logger


def run_server(config: Config, broker: Broker, kernels: Kernels, *, stop: threading.Event) -> None:
    """Be one of the servers until ``stop`` is set.

    Raises
    ------
    ConfigError, UnreachableError, TopicError, FatalError
    """
    with (
        telling("server", config, kernels) as (metrics, health),
        traced("server", config) as tracing,
    ):
        input_policy = require_topics(
            broker,
            config.topics,
            Role.SERVER,
            max_record_bytes=config.limits.max_record_bytes,
            stop=stop,
        )
        if input_policy is None:
            return
        health.set("broker", True)
        reports = ServerReports(get_logger(), metrics, health, tracing=tracing)
        server = Server(
            config, broker, kernels, input_is_compacted=input_policy == COMPACT, reports=reports
        )
        with Indexing(server.desk), Listening(server.app, config.server, reports):
            serve(server, stop=stop, reports=reports)
