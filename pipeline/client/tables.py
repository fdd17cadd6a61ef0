"""Results as tables of Arrow or pandas, where those are installed.

A column for each field; what is nested (a model's version, a list) becomes text or a list.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from pipeline.client.results import Version
from pipeline.errors import UsageError


def to_arrow(rows: Iterable[Any]) -> Any:
    """A ``pyarrow.Table`` of results of one kind; `UsageError` where pyarrow is not installed."""
    return _library("pyarrow", "parquet").table(columns(rows))


def to_pandas(rows: Iterable[Any]) -> Any:
    """A ``pandas.DataFrame`` of results of one kind; `UsageError` where pandas is not installed."""
    return _library("pandas", None).DataFrame(columns(rows))


def columns(rows: Iterable[Any]) -> dict[str, list[Any]]:
    """Column -> values; none at all of no rows."""
    given = list(rows)
    names = [one.name for one in fields(given[0])] if given else []
    return {name: [_plain(getattr(row, name)) for row in given] for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, Version):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping) or not hasattr(value, "__dataclass_fields__"):
        return value
    return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}


def _library(name: str, extra: str | None) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name if extra is None else f"'eddy-stream[{extra}]'"
        raise UsageError(f"a table needs {name}: pip install {package}") from error
