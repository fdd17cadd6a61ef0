"""What C's allocator keeps of memory that was given back, bounded: the GNU one keeps what it can.

It gives every thread an arena of its own, and the sizes from which memory goes straight back to
the system grow by themselves to 32 and 64 MB. What one batch, one fetched answer, or a matrix that
grew has needed then stays with the process. But what every batch needs must be kept, 6 MB a time at
384 dimensions: returned from 2 MB on, its pages come back zeroed by the system, and a batch takes
16 % more of the processor; from 16 MB on no difference is to be seen.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

MAPPED_FROM_BYTES: Final = 16 * 2**20
"""Blocks of so many bytes go back to the system when they are freed."""
KEPT_FREE_BYTES: Final = 64 * 2**20
"""More than that at the end of an arena goes back, too."""
N_ARENAS: Final = 2

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of <malloc.h>
_BY_ENVIRONMENT = ("MALLOC_", "GLIBC_TUNABLES")


def bound_what_is_kept() -> bool:
    """Set these bounds, before there are threads; whether the allocator is one that takes them.

    Left as it is where the environment says something about it.
    """
    if any(name.startswith(_BY_ENVIRONMENT) for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # not the GNU C library
        return False
    wanted = (
        (_MMAP_THRESHOLD, MAPPED_FROM_BYTES),
        (_TRIM_THRESHOLD, KEPT_FREE_BYTES),
        (_ARENA_MAX, N_ARENAS),
    )
    answers = [mallopt(what, value) for what, value in wanted]
    return all(answer == 1 for answer in answers)
