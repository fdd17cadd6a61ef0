"""Memory that was given back goes to the system: shown in a process of its own, and without it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys, threading
from pipeline.services.allocator import bound_what_is_kept
print(bound_what_is_kept())
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def use():
    for size in (31 << 20, 30 << 20):  # the first one, freed, teaches to keep the second
        place = libc.malloc(size)
        ctypes.memset(place, 1, size)
        pins.append(libc.malloc(1 << 10))
        libc.free(place)
pins = []
use()
resident = [line for line in open("/proc/self/status") if line.startswith("VmRSS")]
print(int(resident[0].split()[1]) // 1024)
"""


def seen(**environment):
    """Whether the bounds were set, and the resident MB after 30 were used and freed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    kept.pop("GLIBC_TUNABLES", None)
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=kept | environment, capture_output=True, text=True,
        check=True, timeout=30,
    ).stdout.split()  # fmt: skip
    return said[0] == "True", int(said[1])


def test_what_was_large_goes_back_and_the_environment_has_the_last_word():
    is_set, with_bounds_mb = seen()
    if not is_set:
        pytest.skip("not the GNU C library")

    is_set, without_mb = seen(MALLOC_PERTURB_="0")

    assert not is_set
    assert without_mb > with_bounds_mb + 20
