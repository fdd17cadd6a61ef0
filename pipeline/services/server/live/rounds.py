"""Rounds: everybody for whom something came is written to in turn, by one task, and then it rests.

A task of each client's own would be woken, would set two timers and pass six layers for each frame:
100 us of the event loop's time, where a round takes 35 (500 clients, 5 events a frame). Whom a
round cannot serve at once, since he takes nothing or is owed more than what is in his queue, his
own task serves.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pipeline.services.server.live.clients import GATHER_S, Client

AT_ONCE: Final = 32
"""Clients; between so many and the next the event loop does what else there is: 1 ms or 2."""
REST_SHARE: Final = 1.0
"""After a round so many times what it took is left for others: frames grow, and latency does."""


class Rounds:
    """Who is to be told, and when.

    Parameters
    ----------
    lock
        Held where `add` is called.
    tell
        Writes to some clients, or wakes their tasks; on the event loop.
    """

    def __init__(self, lock: threading.Lock, tell: Callable[[Sequence[Client]], None]) -> None:
        self._lock, self._tell = lock, tell
        self._clock = time.monotonic
        self._waiting: set[Client] = set()
        self._task: asyncio.Task[None] | None = None

    def add(self, clients: Iterable[Client], loop: asyncio.AbstractEventLoop) -> None:
        """These have something now, and had nothing before; from any thread."""
        was_empty = not self._waiting
        self._waiting.update(clients)
        if was_empty and self._waiting and not loop.is_closed():
            loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._go())

    def _taken(self) -> list[Client]:
        with self._lock:
            found, self._waiting = list(self._waiting), set()
        return found

    async def _go(self) -> None:
        clients: list[Client] = []
        try:
            while clients := self._taken():
                began_at = self._clock()
                while clients:
                    self._tell(clients[:AT_ONCE])
                    del clients[:AT_ONCE]
                    await asyncio.sleep(0)
                took_s = self._clock() - began_at
                await asyncio.sleep(max(GATHER_S - took_s, REST_SHARE * took_s))
        finally:
            self._task = None
            for client in (*clients, *self._taken()):
                client.wake.set()
