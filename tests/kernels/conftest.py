"""The twins that the contract suite runs on."""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.kernels.avx512.amx import AmxKernels
from pipeline.kernels.avx512.twin import Avx512Kernels
from pipeline.kernels.contract import Assignment
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.kernels.features import has_amx, has_avx512_bf16, has_avx512_vnni
from pipeline.kernels.hybrid import Cost, Costs, HybridKernels
from tests.kernels.cases import SIMULATED

IS_TRAPPED = "amx_trap" in os.environ.get("LD_PRELOAD", "")
"""Instructions that this processor lacks are done in software, far too slowly for anything else."""


def cuda_kernels():
    """On a device; on numba's simulator where the environment says so before Python starts."""
    if not SIMULATED:
        pytest.importorskip("numba_cuda", reason="the extra gpu is not installed")
    try:
        return import_module("pipeline.kernels.cuda.twin").CudaKernels()
    except ConfigError as error:
        pytest.skip(str(error))


def tensor_kernels():
    """On a device, by tensor cores also for the few points of a case: they are repeated."""
    cuda_kernels()
    twin = import_module("pipeline.kernels.cuda.twin")

    class Repeats(twin.CudaKernels):
        def assign(self, model, points, **asked):
            n_rows = max(len(points), twin.MIN_POINTS if len(points) else 0)
            rows = np.resize(points, (n_rows, points.shape[1]))
            found = super().assign(model, rows, **asked)
            return Assignment(*(None if a is None else a[: len(points)] for a in found))

    return Repeats(tensor=True)


def mend_simulator():
    """Make the threads of a block share memory for certain, and take turns quickly."""
    kernelapi = import_module("numba.cuda.simulator.kernelapi")
    as_dtype = import_module("numba.np.numpy_support").as_dtype
    lock = threading.Lock()

    def shared_array(self, shape, dtype):
        if shape == 0:  # dynamic: the bytes that the launch asked for, whatever the line
            return np.frombuffer(self._dynshared, as_dtype(dtype))
        # theirs looks and then allocates: two threads that come together get an array each
        caller = sys._getframe(1)
        with lock:
            place = caller.f_code.co_filename, caller.f_lineno
            if place not in self._allocations:
                self._allocations[place] = np.empty(shape, as_dtype(dtype))
            return self._allocations[place]

    kernelapi.FakeCUDAShared.array = shared_array
    sys.setswitchinterval(1e-5)  # its main thread spins while those of the device want to run


if SIMULATED:
    mend_simulator()


def hybrid_kernels():
    """Both sides get some of the suite: where they part is in the middle of its sizes."""
    crossover = dict.fromkeys(("assign", "accumulate"), Costs(Cost(0, 1, 0), Cost(600, 0, 0)))
    crossover["separations"] = Costs(Cost(0, 0, 1), Cost(5000, 0, 0))
    return HybridKernels(CpuKernels(threads=1), CpuKernels(), crossover)


def avx512_kernels(**forced):
    """The twin that is forced to one kind of operands, on a processor that has it."""

    def make():
        if not has_avx512_vnni():
            pytest.skip("the processor has no AVX-512 VNNI")
        if forced.get("operands") == "bf16" and not has_avx512_bf16():
            pytest.skip("the processor has no AVX512-BF16")
        return Avx512Kernels(**forced)

    return make


class TrappedAmx(AmxKernels):
    """The twin whose instructions are done in software."""

    @staticmethod
    def _is_possible():
        return True


def amx_kernels(**forced):
    def make():
        if not IS_TRAPPED and not has_amx():
            pytest.skip("the processor has no AMX; test_amx runs it through the trap")
        return (TrappedAmx if IS_TRAPPED else AmxKernels)(**forced)

    return make


MAKE = {
    "cpu": CpuKernels,
    "cpu prefix": lambda: CpuKernels(prefix=16),
    "avx512": avx512_kernels(),
    "avx512 int8": avx512_kernels(operands="int8", prefix=0),
    "avx512 int8 prefix": avx512_kernels(operands="int8", prefix=16),
    "avx512 bf16": avx512_kernels(operands="bf16", prefix=0),
    "avx512 bf16 prefix": avx512_kernels(operands="bf16", prefix=16),
    "amx int8": amx_kernels(operands="int8", prefix=0),
    "amx int8 prefix": amx_kernels(operands="int8", prefix=16),
    "amx bf16": amx_kernels(operands="bf16", prefix=0),
    "cuda": cuda_kernels,
    **({} if SIMULATED else {"cuda tensor": tensor_kernels}),
    "hybrid": hybrid_kernels,
}


def param(name):
    """A twin for a device is skipped with its reason where there is none."""
    needs_device = name.startswith("cuda") and not SIMULATED
    return pytest.param(name, marks=pytest.mark.gpu if needs_device else ())


CUDA = param("cuda")


@pytest.fixture(params=[param(name) for name in MAKE], scope="session")
def twin(request):
    return MAKE[request.param]()
