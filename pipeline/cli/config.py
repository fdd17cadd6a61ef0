"""``eddy config``: what a process would obey, and a file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.text import Text

from pipeline.cli.context import invocation
from pipeline.cli.explain import show as effective
from pipeline.cli.explain import template, yaml_scalar
from pipeline.cli.options import flag
from pipeline.cli.output import err, out, print_json, printable
from pipeline.errors import UsageError

app = typer.Typer(add_completion=False)

_USUAL_FILE: Final = Path("eddy.yaml")
_MAX_VALUE_WIDTH: Final = 34


@app.callback()
def config() -> None:
    """Show the effective configuration, or start a file of it."""


@app.command()
def show(
    ctx: typer.Context,
    changed: Annotated[bool, flag("--changed", help="Only what is not a default.")] = False,
    as_json: Annotated[bool, flag("--json", help="One line of JSON.")] = False,
) -> None:
    """Show the effective configuration, and where each value came from; secrets are hidden."""
    loaded = invocation(ctx).loaded
    rows = [row for row in effective(loaded) if not changed or loaded.is_set(row.key)]
    if as_json:
        print_json({row.key: {"value": row.value, "origin": row.origin} for row in rows})
        return
    values = {row.key: printable(yaml_scalar(row.value)) for row in rows}
    key_width = max((len(row.key) for row in rows), default=0)
    width = min(max((len(value) for value in values.values()), default=0), _MAX_VALUE_WIDTH)
    section = None
    for row in rows:
        if section not in (None, row.key.partition(".")[0]):
            out.print()
        section = row.key.partition(".")[0]
        is_set = loaded.is_set(row.key)
        line = Text(f"{row.key:<{key_width}}  ", style="" if is_set else "dim")
        line.append(f"{values[row.key]:<{width}}  ", style="bold" if is_set else "")
        line.append(printable(row.origin), style="cyan" if is_set else "dim")
        line.rstrip()
        out.print(line, soft_wrap=True)


@app.command()
def init(
    path: Annotated[
        Path, typer.Argument(metavar="[PATH]", help="- is standard output.", show_default=True)
    ] = _USUAL_FILE,
    force: Annotated[bool, flag("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a commented file to start from: every option, its default, and what it means."""
    if str(path) == "-":
        print(template(), end="")
        return
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError:
        raise UsageError(f"{path} is there already: name another, or add --force") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    err.print(f"wrote {escape(str(path))}; use it with --config or EDDY_CONFIG", soft_wrap=True)
