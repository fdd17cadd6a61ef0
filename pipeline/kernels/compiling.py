"""Who has to wait for the compiler is told so.

Compiled code is kept on disk, so only the first process after an installation compiles, for up to
a minute, and looks as if it hung.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from numba.core import event

COMPILING = (
    "Eddy compiles its kernels for this processor: up to a minute, and only once, "
    "where the result can be kept on disk"
)


class _Listener(event.Listener):
    """Told of each compilation in this process: those of strangers, too."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._first = threading.Lock()  # held for good by whoever was first

    def on_start(self, event: Any) -> None:
        function = getattr(event.data["dispatcher"], "py_func", None)
        is_ours = str(getattr(function, "__module__", "")).startswith("pipeline.")
        if is_ours and self._first.acquire(blocking=False):
            self._tell(COMPILING)

    def on_end(self, event: Any) -> None:
        """Nobody asks."""


def tell_of_compiling(tell: Callable[[str], None]) -> None:
    """Have ``tell`` called with one sentence before the first kernel that is not on the disk yet.

    It is called once in a process, at most, by the thread that compiles.
    """
    event.register("numba:compile", _Listener(tell))  # type: ignore[no-untyped-call]
