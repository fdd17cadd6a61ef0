"""The kernels that all estimators of a process share: made once, and never after a fork.

Threads of one process may call them at once: the CPU twins let one caller in after the other.
A forked child computes on one thread, as the pool of threads stays with the parent, and a call
into it would end the child. The results are the same, they depend on no number of threads.
"""

from __future__ import annotations

import logging
import os
import threading

from pipeline.kernels.choose import make_kernels
from pipeline.kernels.compiling import tell_of_compiling
from pipeline.kernels.contract import DevicePolicy, Kernels

_MAKING = threading.RLock()
_made: dict[tuple[str, int | None], Kernels] = {}
_is_forked = False


def kernels_for(device: str, n_threads: int | None) -> Kernels:
    """The kernels of a device: ``auto``, ``cpu`` or ``cuda``; always the same ones.

    Parameters
    ----------
    n_threads
        At most so many compute on the CPU; None: what the container may use.

    Raises
    ------
    ConfigError
        The device is not there, or there is none of the name.
    RuntimeError
        ``cuda``, in a child that was forked.
    """
    key = device, n_threads
    found = _made.get(key)
    if found is None:
        with _MAKING:
            found = _made.get(key) or _make(device, n_threads)
            _made[key] = found
    return found


def _make(device: str, n_threads: int | None) -> Kernels:
    policy = DevicePolicy(kind=device, threads=n_threads)
    if _is_forked:
        if device == "cuda":
            raise RuntimeError("CUDA does not survive a fork: start the process with spawn")
        policy = DevicePolicy(kind="cpu", threads=1)
    return make_kernels(policy)


def _leave_parent() -> None:
    global _is_forked
    _is_forked = True
    _made.clear()
    _MAKING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_MAKING.acquire, after_in_parent=_MAKING.release, after_in_child=_leave_parent
    )

# seen by whoever has set up no logging, silenced by whoever wants to
tell_of_compiling(logging.getLogger("eddy").warning)
