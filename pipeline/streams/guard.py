"""Runs a command that ends when the process that asked for it ends, however that ended.

``guard.py PARENT FOLDER COMMAND...`` starts the command, prints its process id, and waits. When
``PARENT`` is gone, also by SIGKILL, it kills the command and removes ``FOLDER`` (unless that is
empty). It is a script of its own, standard library only, so that it starts in milliseconds
and nothing of the parent is in it.

A process in between, because a parent's death is seen the same way everywhere by asking
for the parent's id; Linux has a signal for it, but sends it when the *thread* that
started the child ends, and others have none.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_S = 0.1


def _end_with_guard() -> None:
    """Linux only: whoever kills the guard too must not leave the command behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(arguments: list[str]) -> int:
    """Guard one command; returns its exit code."""
    parent, folder, command = int(arguments[0]), arguments[1], arguments[2:]
    on_linux = sys.platform == "linux"
    # safe as a preexec_fn: the guard has one thread, and it is the one that stays
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=_end_with_guard if on_linux else None,
    )
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    sys.stdout.write(f"{child.pid}\n")
    sys.stdout.flush()
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
            child.wait()
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
            break
        time.sleep(_LOOK_EVERY_S)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
