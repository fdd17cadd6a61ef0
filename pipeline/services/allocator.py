"""Memory, as every service has it: what C's allocator keeps, how seldom the collector looks.

The GNU allocator keeps of memory that was given back what it can.
It gives every thread an arena of its own, and the sizes from which memory goes straight back to
the system grow by themselves to 32 and 64 MB. What one batch, one fetched answer, or a matrix that
grew has needed then stays with the process. But what every batch needs must be kept, 6 MB a time at
384 dimensions: returned from 2 MB on, its pages come back zeroed by the system, and a batch takes
16 % more of the processor; from 16 MB on no difference is to be seen.
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import Final

MAPPED_FROM_BYTES: Final = 16 * 2**20
"""Blocks of so many bytes go back to the system when they are freed."""
KEPT_FREE_BYTES: Final = 64 * 2**20
"""More than that at the end of an arena goes back, too."""
N_ARENAS: Final = 2
YOUNG_OBJECTS: Final = 200_000
"""A micro-batch makes some ten thousand tuples that die with it. At Python's threshold of 700 the
collector looks through them again and again: 7.1 against 4.0 µs of Python a record. So nothing that
is made for every batch or model may be part of a circle: it would wait here, 500 MB of it and more
(``tests/engine/test_circles.py``)."""

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


def collect_seldom() -> None:
    """Look for circles seldom, and never through what is there by now: what was imported stays.

    A look through everything that a server holds stops all of its threads for half a second.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 50, 100)
