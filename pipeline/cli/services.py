"""``eddy assigner``, ``eddy reclusterer``, ``eddy server``: one service each, as one process."""

from __future__ import annotations

import faulthandler
import importlib
import sys
import time
from collections.abc import Callable

import typer

from pipeline.cli.context import Invocation, invocation
from pipeline.cli.signals import stop_event
from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.kernels.contract import Kernels
from pipeline.services import launch
from pipeline.services.allocator import bound_what_is_kept
from pipeline.state import ids
from pipeline.state.view import neighbours
from pipeline.streams.contract import Broker
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import get_logger

assigner = typer.Typer(add_completion=False)
reclusterer = typer.Typer(add_completion=False)
server = typer.Typer(add_completion=False)


@assigner.command("assigner")
def run_assigner(ctx: typer.Context) -> None:
    """Assign every record to its cluster: one of N processes.

    Ctrl-C and SIGTERM: it finishes its transaction, leaves the group, and ends with exit code 0.
    """
    bound_what_is_kept()
    asked = invocation(ctx)
    with stop_event() as stop:
        told = Survived()
        parts = _parts(asked, "assigner", told)
        launch.run_assigner(*parts, stop=stop, on_health=told.attend)


@reclusterer.command("reclusterer")
def run_reclusterer(ctx: typer.Context) -> None:
    """Fit the models: one process.

    Ctrl-C and SIGTERM: it drops a running fit, publishes nothing half, and ends with exit code 0.
    """
    bound_what_is_kept()
    asked = invocation(ctx)
    with stop_event() as stop:
        told = Survived()
        parts = _parts(asked, "reclusterer", told)
        launch.run_reclusterer(*parts, stop=stop, on_health=told.attend)


@server.command("server")
def run_server(ctx: typer.Context) -> None:
    """Answer questions over HTTP: what is where, and what changes.

    Reads all topics without a group, so any number of them give the same answers. Ctrl-C and
    SIGTERM: it lets requests end, and ends with exit code 0.
    """
    asked = invocation(ctx)
    try:
        launch_server = importlib.import_module("pipeline.services.launch_server")
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise UsageError(
            f"eddy server needs {error.name}: pip install 'eddy-stream[server]'"
        ) from error
    with stop_event() as stop:
        # its loop waits for no broker: threads of their own do
        parts = _parts(asked, "server", Survived())
        neighbours.warm_up()
        launch_server.run_server(*parts, stop=stop)


class Survived:
    """Told what a client survives by itself, by the loop that waits for it meanwhile.

    So the loop is alive: a commit is tried again for minutes, and no probe shall end a process
    because its broker is away.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._health: Health | None = None

    def attend(self, health: Health) -> None:
        """What is told from now on is a sign of life."""
        self._health = health

    def __call__(self, code: str, message: str) -> None:
        if self._health is not None:
            self._health.beat(self._clock())
        get_logger().warning("kafka_error", code=code, problem=message, retriable=True)


def _parts(asked: Invocation, service: str, told: Survived) -> tuple[Config, Broker, Kernels]:
    """What a service is put together from; whoever reads its log is told what cannot be obeyed."""
    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)  # a library that crashes says by whom it was called
    with launch.starting(service):
        config, broker, kernels = asked.config, asked.service_broker(told), asked.kernels()
    ids.warm_up()
    return config, broker, kernels
