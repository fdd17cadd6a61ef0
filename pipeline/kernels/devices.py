"""What the processor and the card are called, for metrics and for people."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from pipeline.kernels.contract import Kernels


@runtime_checkable
class HasDevice(Protocol):
    """A twin that runs elsewhere than on the processor says where."""

    device: str


class DeviceMemory(NamedTuple):
    """Bytes of a whole card: others may use it as well."""

    used: int
    total: int


@runtime_checkable
class HasMemory(Protocol):
    """A twin with memory of its own says how much of it is taken."""

    def device_memory(self) -> DeviceMemory | None: ...


def device_memory(kernels: Kernels) -> DeviceMemory | None:
    """Of the card that a twin runs on; None: it runs on none, or the card does not say."""
    return kernels.device_memory() if isinstance(kernels, HasMemory) else None


def device_name(kernels: Kernels) -> str:
    """Of what a twin runs on."""
    return kernels.device if isinstance(kernels, HasDevice) else processor_name()


@cache
def processor_name() -> str:
    """As its maker calls it, where the system tells; else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return " ".join(next(named, "").split()) or platform.processor() or platform.machine()
