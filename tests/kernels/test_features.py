"""What the processor has is asked of the compiler, not of a list of processors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.kernels import features

SHOW = """
from pipeline.kernels import features as f
print(f.has_avx512_vnni(), f.has_avx512_bf16(), f.has_amx())
"""


def shown(**environment):
    result = subprocess.run(
        [sys.executable, "-c", SHOW],
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout.split()


def test_a_processor_without_instructions_has_none():
    assert shown(NUMBA_CPU_NAME="generic") == ["False"] * 3


def test_instructions_can_be_switched_off_one_by_one():
    here = features.features()
    names = sorted(features.BF16 & here)

    found = shown(NUMBA_CPU_FEATURES=",".join(f"+{name}" for name in names))

    assert found == ["False", str(here >= features.BF16), "False"]


def test_instructions_are_not_invented():
    wanted = ",".join(f"+{name}" for name in features.AMX)

    assert shown(NUMBA_CPU_FEATURES=wanted)[2] == str(features.has_amx())


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("avx512_vnni", features.has_avx512_vnni),
        ("avx512_bf16", features.has_avx512_bf16),
        ("amx_tile", features.has_amx),
    ],
)
def test_the_kernel_of_linux_agrees(name, has):
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.startswith("flags")).split()
    except (OSError, StopIteration):
        pytest.skip("no list of flags to compare with")

    if name not in flags:
        assert not has()
