"""The command ``eddy``: its verbs, and the outermost frame around each of them.

A verb is a module with an ``app`` in it. The table `VERBS` names them all, and a module is imported
only when its verb is called: ``eddy --help`` needs no NumPy and no Kafka. A verb returns its
exit code (None is 0) or raises; what is raised becomes one line on stderr here, and nowhere else.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
import typer.core
import typer.main
from rich.markup import escape

from pipeline.cli.context import Invocation, Twins, invocation
from pipeline.cli.options import flag
from pipeline.cli.output import err, printable
from pipeline.errors import PipelineError, TransientError, UnreachableError

EXIT_DEFECT: Final = 70
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
_WRONG_USE: Final = 2


class Verb(NamedTuple):
    """One word after ``eddy``."""

    module: str
    help: str
    panel: str
    app: str = "app"
    """What the module calls it."""


_TRY, _RUN, _USE, _LOOK = "Try it", "Run it", "Use it", "Look at it"

VERBS: Final = {
    "demo": Verb(
        "demo.verb", "Replay a real stream through everything, and see what happened.", _TRY
    ),
    "up": Verb("local.up", "Run everything on this machine; Ctrl-C ends it all.", _TRY),
    "broker": Verb("local.broker", "Run Apache Kafka on this machine, for trying out.", _TRY),
    "topics": Verb("topics", "Make the topics, or say what is wrong with them.", _RUN),
    "assigner": Verb(
        "services", "Assign every record to its cluster: one of N processes.", _RUN, "assigner"
    ),
    "reclusterer": Verb("services", "Fit the models: one process.", _RUN, "reclusterer"),
    "server": Verb(
        "services", "Answer questions over HTTP: what is where, and what changes.", _RUN, "server"
    ),
    "config": Verb("config", "Show the effective configuration, or start a file of it.", _RUN),
    "doctor": Verb("doctor", "Look for what keeps Eddy from working, and say what to do.", _RUN),
    "produce": Verb("produce", "Feed a file of embeddings to the input topic.", _USE),
    "watch": Verb("watch", "Follow the change events: which item moved to which cluster.", _USE),
    "replay": Verb("rebuild", "Build the assignments once more, under a second prefix.", _USE),
    "recluster": Verb("recluster", "Ask for a new model.", _USE),
    "split": Verb("recluster", "Ask for a cluster to be split in two.", _USE, "split"),
    "merge": Verb("recluster", "Ask for clusters to become one.", _USE, "merge"),
    "label": Verb("recluster", "Ask for a cluster to be called something.", _USE, "label"),
    "model": Verb(
        "model.verbs", "Show the model and its history, compare two, or go back to one.", _LOOK
    ),
    "clusters": Verb(
        "clusters", "List the clusters as they are now, or show one with its items.", _LOOK
    ),
    "top": Verb("top", "Watch the clusters live: sizes, growth, drift, lag, alarms.", _LOOK),
    "export": Verb("export", "Write items or clusters to a file, as they are now.", _LOOK),
    "dlq": Verb(
        "dlq.verbs", "Look at the records that could not be used, and send them again.", _LOOK
    ),
    "verify": Verb("verify", "Read the topics and check the promises.", _LOOK),
}
"""The first line of a verb's own help is its line here; a test holds them together."""


class _LazyGroup(typer.core.TyperGroup):
    """Lists the verbs as they stand in the table, and imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and _load(name), rest


def find_app(name: str) -> typer.Typer:
    """Import the module of a verb."""
    module = importlib.import_module(f"pipeline.cli.{VERBS[name].module}")
    found: typer.Typer = getattr(module, VERBS[name].app)
    return found


def _load(name: str | None) -> Any:
    assert name is not None
    command = typer.main.get_command(find_app(name))
    command.name = name
    return command


app = typer.Typer(
    name="eddy",
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="--config, --set and --verbose may also stand after the verb. "
    "Exit codes: 0 fine, 1 a check failed, 2 wrong use, 3 configuration, 4 no broker, 70 a defect.",
)


def eddy_version() -> str:
    """As the package's metadata has it."""
    try:
        return version("eddy-stream")
    except PackageNotFoundError:  # run from a folder, never installed
        return "unknown"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"eddy {eddy_version()}")
        raise typer.Exit


@app.callback()
def eddy(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="PATH", help="The configuration file.", envvar="EDDY_CONFIG"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, over file and environment; repeatable."
        ),
    ] = None,
    verbose: Annotated[bool, flag("--verbose", help="Add the traceback to an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            help="Print the version.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Eddy keeps the embeddings in a Kafka topic clustered while they change.

    Begin with `eddy demo`; then `eddy up`, `eddy produce` and `eddy watch` on your own data.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(_WRONG_USE)
    asked = invocation(ctx)
    asked.config_path, asked.sets = config, tuple(settings or ())


def _register() -> None:
    for name, verb in VERBS.items():
        app.command(name, help=verb.help, rich_help_panel=verb.panel)(lambda: None)


_register()


def main(arguments: Sequence[str] | None = None, *, twins: Twins | None = None) -> int:
    """Run one command and return its exit code; the outermost frame of every process.

    Parameters
    ----------
    arguments
        Without the program's name; None: those of this process.
    twins
        What to talk to instead of the real broker and device, for tests.
    """
    given = _options_first(sys.argv[1:] if arguments is None else list(arguments))
    verbose = "--verbose" in given
    asked = Invocation(environ=os.environ, twins=twins or Twins())
    try:
        result = typer.main.get_command(app).main(
            given, prog_name="eddy", standalone_mode=False, obj=asked
        )
        return result if isinstance(result, int) else 0
    except PipelineError as error:
        _explain(str(error) or type(error).__name__, verbose=verbose)
        # what time heals, and did not while a command waited: the broker is away
        away = isinstance(error, TransientError)
        return UnreachableError.exit_code if away else error.exit_code
    except typer.TyperException as error:
        _explain(_usage(error), verbose=verbose)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 the outermost frame: a traceback is no message
        _explain(
            f"a defect: {type(error).__name__}: {error}; "
            "--verbose adds the traceback, please report it",
            verbose=verbose,
        )
        return EXIT_DEFECT


def _options_first(arguments: list[str]) -> list[str]:
    """Move what is meant for every verb to where Typer expects it: before the verb."""
    first: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in ("--config", "--set"):
            first += [word, *(value for value in [next(words, None)] if value is not None)]
        elif word == "--verbose" or word.startswith(("--config=", "--set=")):
            first.append(word)
        else:
            rest.append(word)
    return first + rest


def _usage(error: typer.TyperException) -> str:
    where = getattr(getattr(error, "ctx", None), "command_path", "eddy")
    sentence = error.format_message().rstrip(".")
    return f"{sentence[:1].lower()}{sentence[1:]}; see {where} --help"


def _explain(message: str, *, verbose: bool) -> None:
    """One line, whatever the message brought along; the traceback before it, when asked for."""
    if verbose:
        traceback.print_exc()
    line = " ".join(printable(part.strip()) for part in message.splitlines() if part.strip())
    err.print(f"[bold red]eddy:[/] {escape(line)}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
