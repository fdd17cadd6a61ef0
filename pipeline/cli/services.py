"""``eddy assigner`` and ``eddy reclusterer``: one service each, as one process."""

from __future__ import annotations

import typer

from pipeline.cli.context import invocation
from pipeline.cli.signals import stop_event
from pipeline.services import launch
from pipeline.telemetry.logs import get_logger

assigner = typer.Typer(add_completion=False)
reclusterer = typer.Typer(add_completion=False)


@assigner.command("assigner")
def run_assigner(ctx: typer.Context) -> None:
    """Assign every record to its cluster: one of N processes.

    Ctrl-C and SIGTERM: it finishes its transaction, leaves the group, and ends with exit code 0.
    """
    asked = invocation(ctx)
    with stop_event() as stop:
        launch.run_assigner(
            asked.config, asked.service_broker(_log_error), asked.kernels(), stop=stop
        )


@reclusterer.command("reclusterer")
def run_reclusterer(ctx: typer.Context) -> None:
    """Fit the models: one process.

    Ctrl-C and SIGTERM: it drops a running fit, publishes nothing half, and ends with exit code 0.
    """
    asked = invocation(ctx)
    with stop_event() as stop:
        launch.run_reclusterer(
            asked.config, asked.service_broker(_log_error), asked.kernels(), stop=stop
        )


def _log_error(code: str, message: str) -> None:
    get_logger().warning("kafka_error", code=code, problem=message, retriable=True)
