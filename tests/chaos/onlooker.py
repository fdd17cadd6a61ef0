"""Somebody who follows a server's live stream through everything, and goes on where he was."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.chaos.asking import AWAY, Address

SILENCE_S = 21.0
"""A heartbeat comes every 15 s; a server may sleep through some of them."""
PAUSE_S = (0.05, 0.5)
QUERY = "channels=changes,lifecycle,drift,clusters&rate_hz=2"


class Heard(NamedTuple):
    """One event, when it came for the first time."""

    id: str
    kind: str
    """change, lifecycle or drift."""


@dataclass
class Followed:
    """What came."""

    events: list[Heard] = field(default_factory=list)
    n_connections: int = 0
    n_repeated: int = 0
    """Events that came again after a connection was lost."""
    n_dropped: int = 0
    """Events that the server said it had dropped: of changes only, while there are any."""
    n_gone: int = 0
    """Offsets that it said are not there any more."""
    n_unknown_gaps: int = 0
    """Of a `resync` that does not know how many."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Cluster -> members, by the frames of state."""
    problems: list[str] = field(default_factory=list)


class Onlooker(threading.Thread):
    """Reads ``GET /api/v1/events`` of the servers in turn, by ``Last-Event-ID``."""

    def __init__(self, addresses: tuple[Address, ...]) -> None:
        super().__init__(name="onlooker", daemon=True)
        self.followed = Followed()
        self.is_there = threading.Event()
        """Set with the first greeting: what comes from now on has to come through."""
        self._addresses = addresses
        self._resume = ""
        self._seen: set[Heard] = set()
        self._is_over = threading.Event()

    def finish(self) -> Followed:
        """It reads until the next frame, and ends."""
        self._is_over.set()
        self.join(SILENCE_S + 5.0)
        return self.followed

    def run(self) -> None:
        n = 0
        while not self._is_over.is_set():
            try:
                self._follow(self._addresses[n % len(self._addresses)])
            except HTTPError as error:
                error.close()
                if error.code not in (429, 503):
                    self.followed.problems.append(f"the stream answers {error.code}")
            except AWAY:
                pass
            n += 1
            self._is_over.wait(random.uniform(*PAUSE_S))

    def _follow(self, address: Address) -> None:
        request = Request(f"http://127.0.0.1:{address.port}/api/v1/events?{QUERY}")
        if self._resume:
            request.add_header("Last-Event-ID", self._resume)
        with urlopen(request, timeout=SILENCE_S) as reply:
            self.followed.n_connections += 1
            here: set[Heard] = set()
            for token, frame in _frames(reply):
                self._take(frame, here)
                # behind the frame, as whoever stores its events and the token together
                self._resume = token or self._resume
                if frame["type"] == "hello" and self._resume:
                    self.is_there.set()
                if self._is_over.is_set():
                    return

    def _take(self, frame: dict[str, Any], here: set[Heard]) -> None:
        followed, kind = self.followed, frame["type"]
        if kind == "events":
            followed.n_dropped += frame["dropped"]
            for event in frame["events"]:
                self._hear(event, here)
        elif kind == "resync":
            if frame["gap"] is None:
                followed.n_unknown_gaps += 1
            else:
                followed.n_gone += frame["gap"]
        elif kind == "key":
            followed.sizes = {row["cluster"]: row["size"] for row in frame["clusters"]}
        elif kind == "delta":
            told = {row["cluster"]: row["size"] for row in frame["clusters"]}
            followed.sizes = followed.sizes | told  # another thread reads them

    def _hear(self, event: dict[str, Any], here: set[Heard]) -> None:
        kind = "change" if "item" in event else "drift" if event["type"] == "drift" else "lifecycle"
        heard = Heard(event["id"], kind)
        if heard in here:
            self.followed.problems.append(f"{heard.id} came twice over one connection")
        here.add(heard)
        if heard in self._seen:
            self.followed.n_repeated += 1
            return
        self._seen.add(heard)
        self.followed.events.append(heard)


def _frames(lines: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Token ("": none) and content of server-sent events; half an event is none."""
    token, data = "", b""
    for line in lines:
        name, _, value = line.rstrip(b"\r\n").partition(b": ")
        if name == b"id":
            token = value.decode()
        elif name == b"data":
            data = value
        elif not name and data:
            yield token, json.loads(data)
            token, data = "", b""
