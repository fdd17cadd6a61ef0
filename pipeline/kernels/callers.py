"""One caller at a time: the pool of threads that compiled loops share is not made for two.

numba's simplest pool ends the process when a second thread calls into it, and the scratch memory
of a twin is one thread's. A fork waits for the caller inside, as a child would for ever wait for
a thread that it does not have.
"""

from __future__ import annotations

import os
import threading

ONE_CALLER = threading.Lock()
"""Taken around every call of a compiled loop of the CPU twins; nothing is called back under it."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=ONE_CALLER.acquire,
        after_in_parent=ONE_CALLER.release,
        after_in_child=ONE_CALLER.release,
    )
