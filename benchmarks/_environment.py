"""The environment a benchmark of arithmetic runs in: which instructions, what was inherited.

Libraries choose their code when they are loaded, so a benchmark starts itself anew with the
environment it wants before anything is measured. What the surroundings had set for a BLAS goes:
``OPENBLAS_CORETYPE=Haswell``, exported somewhere, halves the peers on a processor with AVX-512,
and nobody sees it in a ratio. On such a processor OpenBLAS is told so, because an old one inside a
wheel may not know the processor (faiss-cpu 1.15.1 on a Zen 5: 52 GFLOP/s a core, told: 211).
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import llvmlite.binding
from threadpoolctl import threadpool_info

from benchmarks._stage import machine

ISAS: Final = ("native", "avx2")
MARK: Final = "EDDY_BENCH_ISA"
DATA: Final = "EDDY_TEST_DATA"
FOREIGN: Final = ("OPENBLAS_", "MKL_", "OMP_", "KMP_", "GOTO_", "BLIS_", "ONEDNN_", "DNNL_",
                  "NUMBA_", "NPY_", "FAISS_", "ATEN_", "DAAL_")  # fmt: skip
"""What tunes somebody's arithmetic begins with one of these."""
PEER_PACKAGES: Final = ("faiss-cpu", "llvmlite", "scikit-learn", "scikit-learn-intelex", "torch")


def options(description: str | None, *, threads: int | None = None) -> argparse.ArgumentParser:
    """A parser with what all benchmarks of arithmetic take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(os.environ[DATA]) if os.environ.get(DATA) else None,
        help=f"the full Debian set; default: what {DATA} names, else the slice that ships",
    )
    parser.add_argument(
        "--threads", type=int, default=threads or cores(), help="of each contender; default: all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--isa",
        choices=ISAS,
        default="native",
        help="avx2: x86-64 with the wider instructions switched off, for all contenders",
    )
    parser.add_argument("--scratch", action="store_true", help="figures go into results/scratch")
    return parser


def cores() -> int:
    """What the affinity mask of this process allows."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def features() -> frozenset[str]:
    """Of the processor, in LLVM's words."""
    try:
        return frozenset(k for k, on in llvmlite.binding.get_host_cpu_features().items() if on)
    except RuntimeError:  # this platform has no list of them
        return frozenset()


def settle(isa: str, name: str) -> None:
    """Start the benchmark ``name`` anew in the environment of ``isa``, unless it has that."""
    if os.environ.get(MARK) == isa:
        return
    if isa == "avx2" and platform.machine() not in ("x86_64", "AMD64"):
        raise SystemExit("--isa avx2 is for x86-64")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    environment = kept | wanted(isa) | {MARK: isa}
    sys.stdout.flush()
    root = str(Path(__file__).resolve().parent.parent)
    os.chdir(root)
    command = [sys.executable, "-m", "benchmarks", name, *sys.argv[1:]]
    os.execve(sys.executable, command, environment)


def wanted(isa: str) -> dict[str, str]:
    """What makes everybody use the instructions of ``isa``; idle pools sleep."""
    found = {"OMP_WAIT_POLICY": "passive"}
    if isa == "avx2":
        umath = importlib.import_module("numpy._core._multiarray_umath")
        wider = [f for f in umath.__cpu_dispatch__ if f.startswith(("AVX512", "X86_V4"))]
        return found | {
            "OPENBLAS_CORETYPE": "Haswell",
            "NUMBA_CPU_NAME": "haswell",
            "NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+bmi2,+f16c,+lzcnt,+popcnt,+sse4.2",
            "NPY_DISABLE_CPU_FEATURES": " ".join(f for f in wider if umath.__cpu_features__.get(f)),
            "FAISS_OPT_LEVEL": "avx2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",
        }
    if {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= features():
        found["OPENBLAS_CORETYPE"] = "SkylakeX"  # its fp32 product is the newer ones' as well
    return found


def about(options: argparse.Namespace, data: str) -> dict[str, Any]:
    """The machine, and all that a figure of arithmetic depends on besides."""
    found = machine()
    for package in PEER_PACKAGES:
        try:
            found["versions"][package] = version(package)
        except PackageNotFoundError:
            continue
    arguments = [a for a in sys.argv[1:] if not Path(a).exists() and a not in ("--folder",)]
    return found | {
        "class": f"{found['cpu']} {found['family_model']}, {found['cores']} cores, "
        f"{widest(options.isa)}",
        "isa": options.isa,
        "threads": options.threads,
        "data": data,
        "blas": blas(),
        "command": " ".join(["python -m benchmarks", Path(sys.argv[0]).stem, *arguments]),
    }


def widest(isa: str) -> str:
    """The instructions that decide about speed."""
    if isa != "native":
        return "avx2 (the wider instructions switched off)"
    has = features()
    order = ("amx-int8", "avx512vnni", "avx512f", "avx2", "neon")
    return next((f for f in order if f in has), platform.machine())


def blas() -> list[str]:
    """Each BLAS in this process: whose, version, and the core it thinks it runs on."""
    return sorted(
        f"{Path(pool['filepath']).parent.name.split('.')[0].split('_')[0]}: "
        f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}".strip()
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    )


def memory_grown(call: Any) -> int | None:
    """Bytes by which the peak of a call exceeds what the process held before; None: unknown."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    try:
        if trim is not None:
            trim(0)
        clear.write_text("5")  # the peak begins anew
        before = _kib(status, "VmRSS:")
        call()
        return (_kib(status, "VmHWM:") - before) * 1024
    except OSError:
        return None


def _kib(status: Path, field: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])
