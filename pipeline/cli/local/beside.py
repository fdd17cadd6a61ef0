"""The server beside the other services of one machine: at an address that is free."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from pipeline.cli.asking import server_url
from pipeline.config import Config, ServerPolicy

_NEEDS: Final = ("fastapi", "uvicorn")


class ServerBeside(NamedTuple):
    """How it is started, and where it will answer."""

    command: Sequence[str]
    url: str
    is_elsewhere: bool
    """Whether the port that is configured was taken."""


def missing_library() -> str | None:
    """What the server needs and is not installed."""
    return next((name for name in _NEEDS if importlib.util.find_spec(name) is None), None)


def server_beside(config: Config, flags: Sequence[str]) -> ServerBeside:
    """A server of this configuration; where its port is taken, one that is free.

    Parameters
    ----------
    flags
        The words before the verb.
    """
    port = _free_port(config.server)
    own = ["--set", "telemetry.metrics_port=0", "--set", f"server.port={port}"]
    return ServerBeside(
        [sys.executable, "-m", "pipeline.cli", *flags, *own, "server"],
        server_url(replace(config, server=replace(config.server, port=port))),
        is_elsewhere=port != config.server.port != 0,
    )


def _free_port(policy: ServerPolicy) -> int:
    family = socket.AF_INET6 if ":" in policy.host else socket.AF_INET
    for port in (policy.port, 0):
        try:
            with socket.create_server((policy.host, port), family=family) as found:
                free: int = found.getsockname()[1]
                return free
        except OSError:
            continue
    return policy.port  # an address that is not ours: the server says so itself
