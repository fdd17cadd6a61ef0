"""``eddy assigner``, ``eddy reclusterer``, ``eddy server``: one service each, as one process."""

from __future__ import annotations

import importlib

import typer

from pipeline.cli.context import Invocation, invocation
from pipeline.cli.signals import stop_event
from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.kernels.contract import Kernels
from pipeline.services import launch
from pipeline.services.allocator import bound_what_is_kept
from pipeline.streams.contract import Broker
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
        launch.run_assigner(*_parts(asked, "assigner"), stop=stop)


@reclusterer.command("reclusterer")
def run_reclusterer(ctx: typer.Context) -> None:
    """Fit the models: one process.

    Ctrl-C and SIGTERM: it drops a running fit, publishes nothing half, and ends with exit code 0.
    """
    bound_what_is_kept()
    asked = invocation(ctx)
    with stop_event() as stop:
        launch.run_reclusterer(*_parts(asked, "reclusterer"), stop=stop)


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
        launch_server.run_server(*_parts(asked, "server"), stop=stop)


def _parts(asked: Invocation, service: str) -> tuple[Config, Broker, Kernels]:
    """What a service is put together from; whoever reads its log is told what cannot be obeyed."""
    with launch.starting(service):
        return asked.config, asked.service_broker(_log_error), asked.kernels()


def _log_error(code: str, message: str) -> None:
    get_logger().warning("kafka_error", code=code, problem=message, retriable=True)
