"""Every connection is a descriptor; the usual limit of 1024 is for smaller houses."""

from __future__ import annotations

import os
import resource
from typing import Final

_WHERE: Final = ("/proc/self/fd", "/dev/fd")
_UNKNOWN: Final = 2**20
"""What no limit at all is told as."""


def raised_limit(wanted: int) -> int:
    """Ask for room for as many descriptors; how many there may be now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _UNKNOWN
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def usage() -> tuple[int, int] | None:
    """How many descriptors are open, and how many may be; None: nobody tells."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _UNKNOWN if soft == resource.RLIM_INFINITY else soft
    for folder in _WHERE:
        try:
            return len(os.listdir(folder)) - 1, limit  # one is the folder itself
        except OSError:
            continue
    return None
