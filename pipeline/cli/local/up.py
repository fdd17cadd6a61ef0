"""``eddy up``: everything on this machine, for as long as this process lives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Final

import typer
from rich.text import Text

from pipeline.cli.context import Invocation, invocation
from pipeline.cli.local.beside import missing_library, server_beside
from pipeline.cli.local.broker import Directory, Port, export_line, is_usual, own_broker, say
from pipeline.cli.local.children import Services, service_commands
from pipeline.cli.output import out, printable
from pipeline.cli.signals import stop_event
from pipeline.cli.topics import create_topics

app = typer.Typer(add_completion=False)

_COLOURS: Final = ("magenta", "cyan", "green", "blue")
_LOUD: Final = {"[warning": "yellow", "[error": "bold red", "eddy: ": "bold red"}
"""Styles of lines that want to be seen, by what stands in them."""


@app.command()
def up(
    ctx: typer.Context,
    directory: Directory = None,
    port: Port = None,
    assigners: Annotated[
        int, typer.Option("--assigners", min=1, max=64, help="How many share the partitions.")
    ] = 1,
) -> None:
    """Run everything on this machine; Ctrl-C ends it all.

    A broker if none is configured, the topics, the assigners, the reclusterer,
    and the server where its libraries are installed. A service that dies is
    started again; one that cannot work ends them all, with its exit code.
    """
    asked = invocation(ctx)
    with stop_event() as stop, own_broker(asked, directory, port, say) as (address, running):
        broker = asked.broker()
        made = create_topics(broker, asked.config)
        out.print(f"broker [bold]{address}[/]" + (" (started here)" if running else ""))
        if running and not is_usual(address):
            out.print(f"  in another shell:  {export_line(address)}", soft_wrap=True)
        if running and directory is None:
            out.print("  its data go at the end; --directory keeps them")
        n_topics = len(asked.config.topics.names)
        out.print(f"topics {n_topics}" + (f", {len(made)} of them made just now" if made else ""))

        flags = asked.flags
        if out.is_terminal and asked.config.telemetry.log_format == "auto":
            flags += ["--set", "telemetry.log_format=console"]  # a child sees a pipe only
        commands: dict[str, Sequence[str]] = dict(service_commands(flags, n_assigners=assigners))
        commands |= _server(asked, flags)
        with Services(commands, on_line=line_printer()) as services:
            out.print(f"services {', '.join(services.names)}; Ctrl-C ends all")
            out.print("next: [bold]eddy produce FILE[/] feeds it, [bold]eddy watch[/] follows")
            services.wait(stop)
            out.print("ending: each service finishes its transaction")


def _server(asked: Invocation, flags: list[str]) -> dict[str, Sequence[str]]:
    """The server's command, and its address said; nothing where a library is missing."""
    library = missing_library()
    if library is not None:
        out.print(f"no server: it needs {library}, pip install 'eddy-stream\\[server]'")
        return {}
    server = server_beside(asked.config, flags)
    taken = f" (port {asked.config.server.port} is taken)" if server.is_elsewhere else ""
    out.print(f"server [bold]{server.url}[/]{taken}", soft_wrap=True)
    out.print(f"  in another shell:  eddy top --server {server.url}", soft_wrap=True)
    return {"server": server.command}


def line_printer() -> Callable[[str, str], None]:
    """Prints lines of children, each with its name in front, in a colour of its own."""
    colours: dict[str, str] = {}

    def show(name: str, line: str) -> None:
        colour = colours.setdefault(name, _COLOURS[len(colours) % len(_COLOURS)])
        loud = next((style for word, style in _LOUD.items() if word in line), None)
        shown = Text(f"{name:<12}", style=colour)
        shown.append("| ", style="dim")
        shown.append(printable(line), style=loud)
        out.print(shown, soft_wrap=True)

    return show
