"""Which twin computes. The CUDA twin is imported only where it is wanted: that takes seconds."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

from pipeline.errors import ConfigError
from pipeline.kernels import shipped
from pipeline.kernels.avx512.amx import AmxKernels
from pipeline.kernels.avx512.twin import Avx512Kernels
from pipeline.kernels.contract import DevicePolicy, Kernels
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.kernels.devices import device_name, processor_name
from pipeline.kernels.features import has_amx, has_avx512_bf16, has_avx512_vnni
from pipeline.kernels.hybrid import HybridKernels, cache_folder, measured


def make_kernels(policy: DevicePolicy) -> Kernels:
    """The twin that ``policy`` names.

    Under ``auto``, where a CUDA device answers, small calls stay on the processor and large ones
    go to the card; what is large is measured at the first start on a machine.

    Raises
    ------
    ConfigError
        ``cuda`` is wanted, and the extra or the device is missing.
    """
    shipped.offer()
    if policy.kind == "cuda":
        return _cuda_kernels(policy)
    card = None
    if policy.kind == "auto":
        with suppress(ConfigError):  # `why` tells
            card = _cuda_kernels(policy)
    kernels = _cpu_kernels(policy)
    return kernels if card is None or _is_simulated(card) else _hybrid_kernels(kernels, card)


def why(policy: DevicePolicy) -> str:
    """What was looked for on this machine, and what became of it: one line."""
    has = {
        "AVX-512 VNNI": has_avx512_vnni(),
        "AVX512-BF16": has_avx512_bf16(),
        "AMX": has_amx(),
    }
    words = [f"{name} {'usable' if is_there else 'missing'}" for name, is_there in has.items()]
    if policy.kind == "cpu":
        return ", ".join([*words, "no CUDA device looked for"])
    try:
        card = _cuda_kernels(policy)
    except ConfigError as error:
        return ", ".join([*words, str(error).partition(";")[0]])
    return ", ".join([*words, f"a CUDA device answers: {device_name(card)}"])


def _cpu_kernels(policy: DevicePolicy) -> Kernels:
    if has_amx():
        return AmxKernels(policy.threads)
    return (Avx512Kernels if has_avx512_vnni() else CpuKernels)(policy.threads)


def _cuda_kernels(policy: DevicePolicy) -> Kernels:
    if find_spec("numba_cuda") is None:
        raise ConfigError(
            "no CUDA device can be used without the extra: pip install 'eddy-stream[gpu]'"
        )
    kernels: Kernels = import_module("pipeline.kernels.cuda.twin").CudaKernels(
        policy.max_memory_bytes
    )
    return kernels


def _is_simulated(card: Kernels) -> bool:
    return device_name(card) == "simulator"


def _hybrid_kernels(small: Kernels, large: Kernels) -> Kernels:
    key = {
        "small": f"{small.name} on {processor_name()}, {getattr(small, 'threads', 1)} threads",
        "large": f"{large.name} on {device_name(large)}",
        "versions": ", ".join(
            f"{name} {version(name)}" for name in ("numpy", "numba", "numba-cuda", "llvmlite")
        ),
    }
    crossover = measured(small, large, key, folder=cache_folder(os.environ))
    return HybridKernels(small, large, crossover)
