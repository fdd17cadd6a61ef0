"""Which twin computes. The CUDA twin is imported only where it is wanted: that takes seconds."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from pipeline.errors import ConfigError
from pipeline.kernels.contract import DevicePolicy, Kernels
from pipeline.kernels.cpu import CpuKernels


def make_kernels(policy: DevicePolicy) -> Kernels:
    """The twin that ``policy`` names; under ``auto`` CUDA where a device answers, else the CPU.

    Raises
    ------
    ConfigError
        ``cuda`` is wanted, and the extra or the device is missing.
    """
    if policy.kind == "cuda" or (policy.kind == "auto" and _may_have_cuda()):
        try:
            return _cuda_kernels(policy)
        except ConfigError:
            if policy.kind == "cuda":
                raise
    return CpuKernels(policy.threads)


def _may_have_cuda() -> bool:
    return find_spec("numba_cuda") is not None


def _cuda_kernels(policy: DevicePolicy) -> Kernels:
    if not _may_have_cuda():
        raise ConfigError(
            "device.kind is cuda, but the extra is missing: pip install 'eddy-stream[gpu]'"
        )
    kernels: Kernels = import_module("pipeline.kernels.cuda").CudaKernels(policy.max_memory_bytes)
    return kernels
