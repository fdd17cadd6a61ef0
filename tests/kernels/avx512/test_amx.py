"""The AMX twin where the processor has no AMX: its instructions done in software.

``amx_trap.c`` steps in where the processor gives up, so what the compiler emitted is what runs.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding

from pipeline.kernels.avx512.packing import AmxInt8Panels, Int8Panels
from pipeline.kernels.features import has_amx, has_avx512_bf16
from tests import naive
from tests.kernels.cases import normal
from tests.kernels.conftest import IS_TRAPPED, TrappedAmx

HERE = Path(__file__).parent
AMX = ("amx-tile", "amx-int8", "amx-bf16")


@pytest.fixture(scope="session")
def trap(tmp_path_factory):
    """The environment of a process whose AMX instructions are done in software."""
    if IS_TRAPPED or has_amx():
        pytest.skip("AMX is there: the contract suite runs on it as it is")
    if sys.platform != "linux" or platform.machine() != "x86_64" or not has_avx512_bf16():
        pytest.skip("the rest of the twin needs an x86-64 processor with AVX512-BF16, and Linux")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler for the trap")
    library = tmp_path_factory.mktemp("amx") / "amx_trap.so"
    options = ["-O2", "-march=x86-64-v3", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", library, HERE / "amx_trap.c"], check=True)
    features = binding.get_host_cpu_features()
    features.update(dict.fromkeys(AMX, True))
    return {
        **os.environ,
        "LD_PRELOAD": str(library),
        "NUMBA_CPU_NAME": binding.get_host_cpu_name(),
        "NUMBA_CPU_FEATURES": features.flatten(),
    }


def run(environment, *arguments):
    """pytest without its handler of the very signal that the trap is for, nor its settings."""
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", "-c", os.devnull]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", ".", *arguments],
        cwd=HERE.parents[2], env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_contract_suite_passes_in_the_trap(trap):
    # sums are those of the CPU twin, to the last instruction
    mine = "amx and not (statistics or halves or deleting or missing)"
    ended = run(
        trap, "tests/kernels/test_contract.py", "tests/kernels/avx512/test_amx.py", "-k", mine
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "passed" in ended.stdout


def test_nothing_else_is_stepped_over(trap):
    """The control: an instruction that the trap does not know ends the process as ever."""
    program = "import ctypes, mmap; m = mmap.mmap(-1, 4096, prot=7); m.write(bytes.fromhex('0f0b'))"
    program += "; ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"

    ended = subprocess.run([sys.executable, "-c", program], env=trap, check=False)

    assert ended.returncode == -4


# In the trap


@pytest.mark.skipif(not IS_TRAPPED and not has_amx(), reason="runs in the trap")
@pytest.mark.parametrize("operands", ["int8", "bf16"])
@pytest.mark.parametrize(("n", "k"), [(15, 17), (16, 16), (47, 70), (100, 150)])
def test_rows_that_fill_no_tile_are_as_right_amx(operands, n, k):
    points, centroids = normal(n, 70), normal(k, 70, 1)
    twin = TrappedAmx(1, operands=operands, prefix=0)

    found = twin.assign(twin.load(centroids), points)

    labels, distances, _, _ = naive.assign(points, centroids)
    assert found.labels.tolist() == labels
    assert found.distances_squared.tolist() == distances


def test_operands_are_those_of_the_other_twin_but_for_their_product():
    assert issubclass(AmxInt8Panels, Int8Panels)
    assert AmxInt8Panels(np.zeros(1, np.uint32)).words.dtype == np.uint32
