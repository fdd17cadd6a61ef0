"""Which instructions the compiled loops may use.

What counts is what numba compiles for: the processor it finds, unless ``NUMBA_CPU_FEATURES`` says
otherwise, as it does on a build for many machines or in a test of a lesser one.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache

import numba
from llvmlite import binding

AVX512 = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq"})
VNNI = AVX512 | {"avx512vnni"}
BF16 = AVX512 | {"avx512bf16"}
AMX = VNNI | BF16 | {"amx-tile", "amx-int8", "amx-bf16"}

_SYS_ARCH_PRCTL = 158  # of x86-64
_ARCH_REQ_XCOMP_PERM = 0x1023
_TILE_DATA = 18  # the part of a thread's state that is not saved before somebody asks


@cache
def features() -> frozenset[str]:
    """Names as LLVM has them."""
    found = {name for name, is_there in binding.get_host_cpu_features().items() if is_there}
    compiled_for = numba.config.CPU_FEATURES  # type: ignore[attr-defined]  # set at import
    if compiled_for is not None:
        found &= {word[1:] for word in compiled_for.split(",") if word.startswith("+")}
    return frozenset(found)


def has_avx512_vnni() -> bool:
    """Products of int8, summed in int32: Cascade Lake, Ice Lake, Zen 4 and later."""
    return features() >= VNNI


def has_avx512_bf16() -> bool:
    """Products of bfloat16, summed in float32: Cooper Lake, Sapphire Rapids, Zen 4 and later."""
    return features() >= BF16


@cache
def has_amx() -> bool:
    """Tiles, and the leave of Linux to use them, which holds for threads that start later.

    So this is asked before there are threads, and once.
    """
    if not features() >= AMX or sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    request = ctypes.CDLL(None).syscall
    request.restype = ctypes.c_long
    request.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_long]
    return bool(request(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _TILE_DATA) == 0)
