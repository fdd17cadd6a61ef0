"""The CUDA twin where there is no device: on the simulator, and as far as the assembler."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.errors import ConfigError
from pipeline.kernels.choose import make_kernels
from pipeline.kernels.contract import DevicePolicy
from tests.kernels.cases import CASES, SIMULATED
from tests.kernels.test_contract import wrong

ROOT = Path(__file__).parents[3]
here = pytest.mark.skipif(SIMULATED, reason="this is the simulator")


def numba_cuda():
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    return import_module("numba.cuda")


@here
def test_contract_suite_passes_on_the_simulator():
    numba_cuda()
    suite = [sys.executable, "-m", "pytest", "tests/kernels", "-k", "cuda"]

    run = subprocess.run(
        [*suite, "-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"],
        cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},  # read when numba is imported
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed" in run.stdout


@pytest.mark.skipif(not SIMULATED, reason="runs within the suite on the simulator")
@pytest.mark.parametrize("case", ["near ties", "heavy tails"])
def test_threads_of_a_warp_share_the_work(monkeypatch, case):
    cuda = import_module("pipeline.kernels.cuda.twin")
    loops = import_module("pipeline.kernels.cuda.loops")
    for module in (cuda, loops):
        monkeypatch.setattr(module, "THREADS", 4)
    monkeypatch.setattr(loops, "OWN_LANES", loops.LANES // 4)
    points, centroids = CASES[case]()

    assert wrong(cuda.CudaKernels(), points[:4], centroids) == set()


@pytest.mark.skipif(not SIMULATED, reason="runs within the suite on the simulator")
def test_parts_that_fit_the_memory_give_the_whole():
    cuda = import_module("pipeline.kernels.cuda.twin")
    points, centroids = CASES["plain"]()

    assert wrong(cuda.CudaKernels(max_memory_bytes=8000), points, centroids) == set()


@pytest.fixture(scope="module")
def assembled():
    """PTX of every kernel; needs the compiler, but neither a device nor a driver."""
    cuda = numba_cuda()
    if cuda.is_available():
        pytest.skip("there is a device: its suite compiles them all")
    types = import_module("numba").types
    twin = import_module("pipeline.kernels.cuda.loops")
    f4, f8, i4 = types.float32, types.float64, types.int32
    rows, reals, doubles, words = f4[:, ::1], f4[::1], f8[::1], i4[::1]
    wide, table = types.int64[::1], types.int64[:, ::1]
    out = (words, doubles, reals, words, doubles, words)
    kernels = {
        "centre_points": (rows, reals, f8, f8, rows, doubles, reals),
        "nearest_by_bound": (rows, rows, reals, reals, reals, words, reals),
        "decide": (
            *(rows, reals, doubles, reals, words, reals, f8, rows, rows, reals, reals),
            *(f8, types.boolean, *out),
        ),
        "accumulate": (rows, words, types.int64, f8, f8, wide, table, table),
        "accumulate_weighted": (rows, words, doubles, types.int64, f8, f8, wide, table, table),
    }
    missing = import_module("numba.cuda.cudadrv.error").NvvmSupportError
    ampere = SimpleNamespace(compute_capability=(8, 0))
    with pytest.MonkeyPatch.context() as patch:  # functions of the device ask which one it is
        patch.setattr("numba.cuda.dispatcher.get_current_device", lambda: ampere)
        try:
            return {
                name: cuda.compile_ptx(
                    getattr(twin, name).py_func, signature, cc=ampere.compute_capability
                )[0]
                for name, signature in kernels.items()
            }
        except (missing, OSError) as error:
            pytest.skip(f"no NVVM: {error}")


@here
def test_every_kernel_compiles(assembled):
    for name, ptx in assembled.items():
        assert ".target sm_80" in ptx, name


@here
@pytest.mark.parametrize("kernel", ["accumulate", "accumulate_weighted"])
def test_a_canonical_sum_is_not_contracted(assembled, kernel):
    ptx = assembled[kernel]  # has no other float64 sum

    assert "add.rn.f64" in ptx
    assert "mul.rn.f64" in ptx
    assert "fma.rn.f64" not in ptx


@here
def test_a_missing_device_says_what_to_do():
    if numba_cuda().is_available():
        pytest.skip("there is a device")

    with pytest.raises(ConfigError, match=r"no CUDA device answers .*device\.kind to cpu"):
        make_kernels(DevicePolicy(kind="cuda"))


@here
def test_a_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setattr("pipeline.kernels.choose.find_spec", lambda name: None)

    with pytest.raises(ConfigError, match=r"pip install 'eddy-stream\[gpu\]'"):
        make_kernels(DevicePolicy(kind="cuda"))
    assert make_kernels(DevicePolicy()).name == make_kernels(DevicePolicy("cpu")).name


@here
def test_auto_takes_the_device_that_is_there():
    expected = "hybrid" if numba_cuda().is_available() else make_kernels(DevicePolicy("cpu")).name

    assert make_kernels(DevicePolicy()).name == expected
