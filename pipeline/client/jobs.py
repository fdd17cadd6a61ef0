"""Commands that were given, and what comes of them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from pipeline.client.problems import StillWaitingError
from pipeline.client.results import JobState

MAX_WAIT_S: Final = 20
"""That the server is asked to wait for a job at a time."""


def wait_s(left_s: float) -> int:
    """Whole seconds that the server is asked to wait."""
    return min(max(1, round(left_s)), MAX_WAIT_S)


class Job:
    """A command that was given; `state` says what came of it, as far as was asked."""

    def __init__(
        self, state: JobState, look: Callable[[str, int], JobState], timeout_s: float
    ) -> None:
        self.state, self._look, self._timeout_s = state, look, timeout_s

    @property
    def id(self) -> str:
        """Of the command."""
        return self.state.id

    def wait(self, timeout_s: float | None = None) -> JobState:
        """What came of it: succeeded, or failed with its `problem`.

        Raises
        ------
        StillWaitingError
            Neither within ``timeout_s``; None: the client's own limit.
        """
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        while not self.state.is_done:
            left_s = deadline - time.monotonic()
            if left_s <= 0.0:
                raise _pending(self.state)
            self.state = self._look(self.id, wait_s(left_s))
        return self.state


class AsyncJob:
    """The same for an event loop."""

    def __init__(
        self, state: JobState, look: Callable[[str, int], Awaitable[JobState]], timeout_s: float
    ) -> None:
        self.state, self._look, self._timeout_s = state, look, timeout_s

    @property
    def id(self) -> str:
        """Of the command."""
        return self.state.id

    async def wait(self, timeout_s: float | None = None) -> JobState:
        """See `Job.wait`."""
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        while not self.state.is_done:
            left_s = deadline - time.monotonic()
            if left_s <= 0.0:
                raise _pending(self.state)
            self.state = await self._look(self.id, wait_s(left_s))
        return self.state


def _pending(state: JobState) -> StillWaitingError:
    return StillWaitingError(f"{state.kind} {state.id} is not done yet")
