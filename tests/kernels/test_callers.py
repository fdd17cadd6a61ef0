"""One caller at a time, across a fork too."""

from __future__ import annotations

import os
import threading

from pipeline.kernels.callers import ONE_CALLER


def test_a_fork_waits_for_the_caller_inside():
    """Else the child would for ever wait for a thread that it does not have."""
    inside, forked = threading.Event(), threading.Event()

    def call():
        with ONE_CALLER:
            inside.set()
            assert not forked.wait(0.2)  # the other thread is at its fork, and stays there

    caller = threading.Thread(target=call)
    caller.start()
    inside.wait()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if ONE_CALLER.acquire(blocking=False) else 1)
    forked.set()
    caller.join()

    assert os.waitpid(pid, 0)[1] == 0
