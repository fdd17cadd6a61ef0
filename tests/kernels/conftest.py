"""The twins that the contract suite runs on."""

from __future__ import annotations

import sys
from importlib import import_module

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


if SIMULATED:  # its main thread spins while those of the device want to run: 5 ms at each turn
    sys.setswitchinterval(1e-5)

MAKE = {"cpu": CpuKernels, "cuda": cuda_kernels}
CUDA = pytest.param("cuda", marks=() if SIMULATED else pytest.mark.gpu)


@pytest.fixture(params=["cpu", CUDA], scope="session")
def twin(request):
    return MAKE[request.param]()
