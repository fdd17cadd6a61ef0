"""The twins that the contract suite runs on."""

from __future__ import annotations

import sys
import threading
from importlib import import_module

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.kernels.cpu import CpuKernels
from tests.kernels.cases import SIMULATED


def cuda_kernels():
    """On a device; on numba's simulator where the environment says so before Python starts."""
    if not SIMULATED:
        pytest.importorskip("numba_cuda", reason="the extra gpu is not installed")
    try:
        return import_module("pipeline.kernels.cuda").CudaKernels()
    except ConfigError as error:
        pytest.skip(str(error))


def mend_simulator():
    """Make the threads of a block share memory for certain, and take turns quickly."""
    kernelapi = import_module("numba.cuda.simulator.kernelapi")
    as_dtype = import_module("numba.np.numpy_support").as_dtype
    lock = threading.Lock()

    def shared_array(self, shape, dtype):
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

MAKE = {"cpu": CpuKernels, "cuda": cuda_kernels}
CUDA = pytest.param("cuda", marks=() if SIMULATED else pytest.mark.gpu)


@pytest.fixture(params=["cpu", CUDA], scope="session")
def twin(request):
    return MAKE[request.param]()
