"""``eddy export``: items and clusters as they are now, into a file, asked of the server."""

from __future__ import annotations

import importlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from pipeline.cli.asking import ServerOption, TokenOption, as_json, open_client
from pipeline.cli.context import invocation
from pipeline.cli.output import count, out, print_json, waiting
from pipeline.errors import FatalError, UsageError

app = typer.Typer(add_completion=False)

_ROWS_AT_ONCE: Final = 10_000
_TIME: Final = "time"
_ITEMS: Final = {"item": "text", "cluster": "text", "label": "text", "distance": "number"}
_CLUSTERS: Final = {
    "cluster": "text", "label": "text", "size": "count", "share": "number", "spread": "number",
    "shift": "number", "growth": "count", "exemplar": "text", "born_at": _TIME, "parents": "texts",
}  # fmt: skip
"""Column -> what it holds."""

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help=".jsonl or .parquet; - is JSON lines on stdout.")
]


@app.callback()
def export() -> None:
    """Write items or clusters to a file, as they are now."""


@app.command("items")
def export_items(
    ctx: typer.Context,
    file: FileArgument,
    server: ServerOption = None,
    token_file: TokenOption = None,
) -> None:
    """Write every item with its cluster.

    It is no picture of one moment: an item that moves meanwhile may come twice or not at all.
    """
    _check(file)
    with open_client(invocation(ctx), server, token_file) as client:
        _write(file, client.items(), _ITEMS, "items")


@app.command("clusters")
def export_clusters(
    ctx: typer.Context,
    file: FileArgument,
    server: ServerOption = None,
    token_file: TokenOption = None,
) -> None:
    """Write every cluster with its size, label and drift."""
    _check(file)
    with open_client(invocation(ctx), server, token_file) as client:
        _write(file, client.clusters(), _CLUSTERS, "clusters")


def _check(file: Path) -> None:
    if str(file) != "-" and file.suffix.lower() not in (".jsonl", ".parquet"):
        raise UsageError(
            f"{file} ends in {file.suffix or 'nothing'}; what can be written: .jsonl .parquet"
        )
    if file.suffix.lower() == ".parquet":
        _arrow("pyarrow")


def _write(file: Path, rows: Iterable[Any], columns: dict[str, str], what: str) -> None:
    if str(file) == "-":
        for row in _whole(rows):
            print_json(as_json(row))
        return
    write = _write_lines if file.suffix.lower() == ".jsonl" else _write_parquet
    with _fresh(file) as path, waiting(f"reading {what}"):
        n = write(path, _whole(rows), columns)
    out.print(f"[green]{count(n)}[/] {what} in [bold]{escape(str(file))}[/]", soft_wrap=True)


def _whole(rows: Iterable[Any]) -> Iterator[Any]:
    """The rows; what ends a list half way is said so."""
    problems = importlib.import_module("pipeline.client.problems")
    try:
        yield from rows
    except problems.InvalidCursorError as error:
        raise FatalError(f"{error}: a new model came meanwhile, so run it again") from error


@contextmanager
def _fresh(file: Path) -> Iterator[Path]:
    """A file beside it that takes its place at the end, and goes if there is none."""
    path = file.with_name(f"{file.name}.new")
    try:
        yield path
        os.replace(path, file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        path.unlink(missing_ok=True)


def _write_lines(path: Path, rows: Iterator[Any], columns: dict[str, str]) -> int:
    n = 0
    with path.open("w", encoding="utf-8") as lines:
        for row in rows:
            told = as_json(row)
            line = {name: told[name] for name in columns}
            lines.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            n += 1
    return n


def _write_parquet(path: Path, rows: Iterator[Any], columns: dict[str, str]) -> int:
    arrow, parquet = _arrow("pyarrow"), _arrow("pyarrow.parquet")
    kinds = {
        "text": arrow.string(), "number": arrow.float64(), "count": arrow.int64(),
        _TIME: arrow.timestamp("ms", tz="UTC"), "texts": arrow.list_(arrow.string()),
    }  # fmt: skip
    schema = arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    n = 0
    with parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            values = {name: [getattr(row, name) for row in chunk] for name in columns}
            writer.write_table(arrow.table(values, schema=schema))
            n += len(chunk)
    return n


def _arrow(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError("Parquet needs pyarrow: pip install 'eddy-stream[parquet]'") from error
