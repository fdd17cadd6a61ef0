"""Options that look the same in every verb."""

from __future__ import annotations

from typing import Any

import typer


def flag(*names: str, help: str) -> Any:
    """An option without a value; Typer's help would call it ``<bool>``."""
    return typer.Option(*names, metavar="", help=help)
