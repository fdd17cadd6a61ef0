"""How verbs come to the server: where it is, with which token, and what its answers are as JSON."""

from __future__ import annotations

import dataclasses
import importlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pipeline.cli.context import Invocation
from pipeline.config import Config
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.client.sync import EddyClient

_LIMIT_S: Final = 10.0
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # nosec B104

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="URL", help="The server; else the one of server.host and server.port."
    ),
]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="PATH", help="A file that holds the token."),
]


def open_client(asked: Invocation, server: str | None, token_file: Path | None) -> EddyClient:
    """The server's client; `UsageError` where its library is not installed."""
    try:
        sync = importlib.import_module("pipeline.client.sync")
    except ModuleNotFoundError as error:
        if error.name != "httpx":
            raise
        raise UsageError("this needs httpx: pip install 'eddy-stream[client]'") from error
    url = server_url(asked.config) if server is None else server
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--server is {url!r}, but must begin with http:// or https://")
    found: EddyClient = sync.EddyClient(url, token=_token(token_file), timeout_s=_LIMIT_S)
    return found


def server_url(config: Config) -> str:
    """Where a server of this configuration is asked from its own machine."""
    host = _ANYWHERE.get(config.server.host, config.server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.server.port}"


def as_json(row: Any) -> dict[str, Any]:
    """A result as JSON has it."""
    return {name: _plain(value) for name, value in dataclasses.asdict(row).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the token cannot be read: {error}") from error
