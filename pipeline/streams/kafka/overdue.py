"""Calls of the client that heed no time limit: their caller is alive while no broker answers.

``send_offsets_to_transaction`` comes back once the coordinator of the group has answered, whatever
limit it was given (librdkafka #5456); in an outage of minutes its caller would give no sign of life
for as long, and a probe would end a process because its broker is away. So a thread here speaks for
the caller, and asks a broker before: where one answers and the call goes on all the same, it stays
silent, and the probe is right.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from pipeline.streams.kafka.client import OnError

_LOOK_EVERY_S: Final = 5.0
_CLOSE_LIMIT_S: Final = 5.0


class Overdue:
    """Looks after the calls of one thread; `begin` and `end` frame each of them.

    Parameters
    ----------
    tell
        Is told of a call that waits for a broker, every few seconds and from a thread of its own.
    answers
        Whether a broker answers, within a second or two; called from that thread.
    after_s
        How long a call may take before anybody looks.
    limit_s
        After as long a call is given up: nobody speaks for it any more.
    """

    def __init__(
        self, tell: OnError, answers: Callable[[], bool], *, after_s: float, limit_s: float
    ) -> None:
        self._tell, self._answers = tell, answers
        self._after_s, self._limit_s = after_s, limit_s
        self._call: tuple[str, float] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._look, name="eddy-overdue", daemon=True)
        self._thread.start()

    def begin(self, name: str) -> None:
        """A call is made from here on."""
        self._call = name, time.monotonic()

    def end(self) -> None:
        """It has come back."""
        self._call = None

    def close(self) -> None:
        """Idempotent. A thread that is left behind would call the client while Python ends."""
        self._closing.set()
        self._thread.join(_CLOSE_LIMIT_S)

    def _look(self) -> None:
        while not self._closing.wait(min(_LOOK_EVERY_S, self._after_s)):
            call = self._call
            if call is None:
                continue
            name, began_at = call
            if not self._after_s <= time.monotonic() - began_at <= self._limit_s:
                continue
            if self._answers() or self._call is not call:
                continue
            waited_s = time.monotonic() - began_at
            self._tell("_WAIT_COORD", f"{name} has waited for a broker for {waited_s:.0f} s")
