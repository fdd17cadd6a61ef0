"""``eddy top``: the clusters, how fast they change and what is wrong, live in a terminal."""

from __future__ import annotations

import datetime
import importlib
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.live import Live as Screen

from pipeline.cli.asking import ServerOption, TokenOption, as_json, open_client, server_url
from pipeline.cli.context import invocation
from pipeline.cli.options import flag
from pipeline.cli.output import out, print_json
from pipeline.cli.signals import stop_event
from pipeline.cli.top_frame import MIN_WIDTH, N_EVENTS, Board, frame
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.client.live import Channel, Live
    from pipeline.client.sync import EddyClient

app = typer.Typer(add_completion=False)

Sort = Literal["size", "growth", "drift"]

_N_ROWS: Final = 100
_N_ONCE: Final = 15
_N_RATES: Final = 120
_TICK_S: Final = 0.1
_PAUSE_S: Final = 5.0
_WAKING: Final[tuple[Channel, ...]] = ("lifecycle", "drift")
_SORTS: Final[dict[str, Sort]] = {"s": "size", "g": "growth", "d": "drift"}


@app.command()
def top(
    ctx: typer.Context,
    sort: Annotated[
        Sort, typer.Option("--sort", metavar="BY", help="size, growth or drift.")
    ] = "size",
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=0.2, help="How often it looks.")
    ] = 1.0,
    once: Annotated[bool, flag("--once", help="Print one frame, and end.")] = False,
    json_lines: Annotated[
        bool, flag("--json", help="A line of JSON each time; with --once one line.")
    ] = False,
    server: ServerOption = None,
    token_file: TokenOption = None,
) -> None:
    """Watch the clusters live: sizes, growth, drift, lag, alarms.

    hour is what an hour brought less what it took; drift is the largest signal, in thresholds: from
    1 on an alarm stands. Keys: s, g and d sort by size, growth and drift, q ends. Without a
    terminal one frame is printed.
    """
    asked = invocation(ctx)
    url = server_url(asked.config) if server is None else server
    with open_client(asked, server, token_file) as client, stop_event() as stop:
        looks = _Looks(client, url, sort)
        board = looks.look()
        if json_lines:
            _print_json(board)
            while not once and not stop.wait(every):
                _print_json(looks.look_again())
        elif once or not out.is_terminal:
            shown = replace(board, clusters=board.clusters[:_N_ONCE])
            out.print(frame(shown, max(out.width, MIN_WIDTH), None, _now()), soft_wrap=True)
        else:
            _show(looks, board, every, stop)


class _Looks:
    """Asks the server again and again, and keeps what it said last."""

    def __init__(self, client: EddyClient, url: str, sort: Sort) -> None:
        self.sort: Sort = sort
        self._client, self._url = client, url
        self._rates: deque[float] = deque(maxlen=_N_RATES)
        self._board: Board | None = None
        self._answered_at = time.monotonic()

    def look(self) -> Board:
        """Ask; what the server refuses is raised."""
        client = self._client
        stats = client.stats()
        self._rates.append(stats.changes_per_s)
        clusters = tuple(client.clusters(sort=self.sort, limit=_N_ROWS)) if stats.model else ()
        trends = client.trending(window="1h", by="gain", limit=_N_ROWS) if clusters else ()
        self._board = Board(
            url=self._url,
            stats=stats,
            clusters=clusters,
            sort=self.sort,
            lifecycle=tuple(client.lifecycle(limit=N_EVENTS)),
            signals=client.drift().signals if clusters else (),
            rates=tuple(self._rates),
            sparklines={one.cluster: one.sparkline for one in trends},
        )
        self._answered_at = time.monotonic()
        return self._board

    def look_again(self) -> Board:
        """Ask; where nobody answers, what was said last, and since when that is so."""
        assert self._board is not None, "look first"
        try:
            return self.look()
        except PipelineError:
            return replace(self._board, silent_s=time.monotonic() - self._answered_at)


class _Listener(threading.Thread):
    """Wakes the screen when something becomes of a cluster: before the next look is due."""

    def __init__(self, client: EddyClient) -> None:
        super().__init__(name="eddy-top", daemon=True)
        self.news, self.is_live = threading.Event(), False
        self._client = client
        self._live: Live | None = None
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            # what is refused or is away shows on the screen, since that asks too
            with suppress(PipelineError), self._client.live(channels=_WAKING) as live:
                self._live, self.is_live = live, True
                for _ in live:
                    self.news.set()
            self.is_live = False
            self._over.wait(_PAUSE_S)

    def close(self) -> None:
        self._over.set()
        if self._live is not None:
            self._live.close()


def _show(looks: _Looks, board: Board, every: float, stop: threading.Event) -> None:
    """Until somebody has seen enough."""
    with ExitStack() as stack:
        listener = _Listener(looks._client)
        listener.start()
        stack.callback(listener.close)
        keys = stack.enter_context(_keys())
        screen = stack.enter_context(Screen(console=out, screen=True, auto_refresh=False))
        while not stop.is_set():
            shown = replace(board, is_live=listener.is_live or bool(board.silent_s))
            screen.update(frame(shown, out.width, out.height, _now()), refresh=True)
            due_at = time.monotonic() + every
            while time.monotonic() < due_at and not stop.wait(0.0):
                key = next(keys)
                if key == "q":
                    return
                if key in _SORTS:
                    looks.sort = _SORTS[key]
                    break
                if listener.news.is_set():
                    listener.news.clear()
                    break
            board = looks.look_again()


@contextmanager
def _keys() -> Iterator[Iterator[str]]:
    """What is typed, a key at a time; "": nothing for a moment. The terminal is put back after."""

    def typed() -> Iterator[str]:
        while True:
            ready, _, _ = select.select([descriptor], [], [], _TICK_S)
            yield os.read(descriptor, 1).decode("ascii", "replace") if ready else ""

    def nothing() -> Iterator[str]:
        while True:
            time.sleep(_TICK_S)
            yield ""

    if not sys.stdin.isatty():
        yield nothing()
        return
    termios, tty = importlib.import_module("termios"), importlib.import_module("tty")
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield typed()
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _print_json(board: Board) -> None:
    print_json(
        {
            "stats": as_json(board.stats),
            "clusters": [as_json(one) for one in board.clusters],
            "alarms": [as_json(one) for one in board.signals if one.state == "raised"],
            "lifecycle": [as_json(one) for one in board.lifecycle],
            "silent_s": round(board.silent_s, 3),
        }
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now().astimezone()
