"""``eddy broker``: Apache Kafka on this machine, for trying out."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from pipeline.cli.context import Invocation
from pipeline.cli.options import flag
from pipeline.cli.output import err, out, print_json
from pipeline.cli.signals import stop_event
from pipeline.errors import FatalError
from pipeline.streams.broker import RunningBroker, start_broker
from pipeline.streams.jars import KAFKA_VERSION, Say

app = typer.Typer(add_completion=False)

ADDRESS_OPTION: Final = "kafka.bootstrap.servers"
USUAL_PORT: Final = 9092
"""Where every command looks for a broker unless told otherwise, so ours goes there if it can."""

Directory = Annotated[
    Path | None,
    typer.Option(
        "--directory", metavar="DIR", help="Where its data stay. Without one they go at the end."
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=0,
        max=65535,
        help="0 is any free one. Without it: 9092 where that is free, else any.",
        show_default=False,
    ),
]


@app.command()
def broker(
    directory: Directory = None,
    port: Port = None,
    as_json: Annotated[bool, flag("--json", help="The address as one line of JSON.")] = False,
) -> None:
    """Run Apache Kafka on this machine, for trying out.

    Prints the address and runs until Ctrl-C. It needs Java 17 and Maven, or the extra `broker`,
    which brings both.
    """
    with stop_event() as stop, start(directory, port, say) as running:
        if as_json:
            print_json({ADDRESS_OPTION: running.bootstrap_servers, "pid": running.pid})
        else:
            _tell(running, scratch=directory is None)
        while not stop.wait(0.2):
            if not running.is_running():
                raise FatalError(f"Kafka ended by itself; its last words are in {running.log}")


def say(line: str) -> None:
    """A remark about what takes long."""
    err.print(f"[dim]{escape(line)}[/]", soft_wrap=True)


def start(directory: Path | None, port: int | None, say: Say) -> RunningBroker:
    """Start one, at the usual port if no other is asked for and nobody is there."""
    if port is None:
        taken_before = directory is not None and (directory / "server.properties").exists()
        port = 0 if taken_before or _is_taken(USUAL_PORT) else USUAL_PORT
    return start_broker(directory, port=port, say=say)


@contextmanager
def own_broker(
    asked: Invocation, directory: Path | None, port: int | None, say: Say
) -> Iterator[tuple[str, RunningBroker | None]]:
    """The address of the configured broker, or of one started here where none is configured.

    "Configured" means that file, environment or a flag names it; a default names nobody. One that
    was started ends with the context. `Invocation.sets` of ``asked`` then name it too.
    """
    if asked.loaded.is_set(ADDRESS_OPTION):
        yield asked.config.kafka["bootstrap.servers"], None
        return
    with start(directory, port, say) as running:
        asked.set(ADDRESS_OPTION, running.bootstrap_servers)
        yield running.bootstrap_servers, running


def export_line(address: str) -> str:
    """What to type in another shell so that ``eddy`` finds a broker there."""
    return f"export EDDY_KAFKA__BOOTSTRAP__SERVERS={address}"


def is_usual(address: str) -> bool:
    """Whether commands find it without being told."""
    return address.endswith(f":{USUAL_PORT}")


def _tell(running: RunningBroker, *, scratch: bool) -> None:
    address = running.bootstrap_servers
    out.print(f"Apache Kafka {KAFKA_VERSION} at [bold]{address}[/]")
    if not is_usual(address):
        out.print(f"  in another shell:  {export_line(address)}", soft_wrap=True)
    where = "a scratch folder, gone at the end" if scratch else escape(str(running.directory))
    out.print(f"  data in {where}; Ctrl-C ends it", soft_wrap=True)


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
