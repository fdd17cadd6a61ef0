"""What becomes of the CUDA kernels in the assembler; needs its programs, but no device, no driver.

Nothing here runs: the simulator says that the kernels are right, these tests that they are what
the design says, instructions and registers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from tests.kernels.cases import SIMULATED

pytestmark = pytest.mark.skipif(SIMULATED, reason="the simulator assembles nothing")

AMPERE, HOPPER = (8, 0), (9, 0)


class Assembled(NamedTuple):
    """One kernel for one compute capability."""

    ptx: str
    report: str  # of ptxas
    sass: str  # what the device would run

    def count(self, instruction):
        return len(re.findall(rf"\b{instruction}\b", self.sass))

    @property
    def n_registers(self):
        return int(re.search(r"Used (\d+) registers", self.report)[1])


def program(name):
    """Of the CUDA toolkit: on the path, or in the packages of the extra ``dev``."""
    spec = find_spec("nvidia")
    folders = [Path(place) for place in spec.submodule_search_locations] if spec else []
    found = [str(path) for folder in folders for path in folder.glob(f"cu13/bin/{name}")]
    place = (found or [shutil.which(name)])[0]
    if place is None:
        pytest.skip(f"{name} is not installed")
    return place


def kernels():
    """Name -> kernel, types of its arguments, threads and blocks that its registers are for."""
    types = import_module("numba").types
    loops, borders, tensor, sweeps = (
        import_module(f"pipeline.kernels.cuda.{name}")
        for name in ("loops", "borders", "tensor", "sweeps")
    )
    f4, f8, i4, i8, u2 = types.float32, types.float64, types.int32, types.int64, types.uint16
    rows, reals, doubles, words, bits = f4[:, ::1], f4[::1], f8[::1], i4[::1], u2[:, ::1]
    wide, table = i8[::1], i8[:, ::1]
    centroids = (bits, reals, reals, reals)
    return {
        "nearest": (
            tensor.SWEEPS.nearest,
            (bits, *centroids, reals, reals, words, reals),
            (tensor.SWEEPS.tile.n_threads, sweeps.BLOCKS),
        ),
        "border": (
            tensor.BORDER_SWEEPS.border,
            *[(bits, *centroids, reals, reals, i8, f8, doubles, words, doubles, rows, f8, reals)],
            (tensor.BORDER_SWEEPS.tile.n_threads, sweeps.BLOCKS),
        ),
        "round_points": (
            tensor.round_points,
            (rows, reals, f8, f8, f8, f8, bits, reals, reals, doubles, reals),
            None,
        ),
        "nearest_by_bound": (
            loops.nearest_by_bound,
            (rows, rows, reals, reals, reals, words, reals),
            None,
        ),
        "nearest_border": (
            borders.nearest_border,
            (rows, rows, reals, reals, reals, doubles, words, doubles, rows, f8, reals),
            None,
        ),
        "accumulate": (loops.accumulate, (rows, words, i8, f8, f8, wide, table, table), None),
    }


@pytest.fixture(scope="module")
def assemble(tmp_path_factory):
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    cuda = import_module("numba.cuda")
    missing = import_module("numba.cuda.cudadrv.error").NvvmSupportError
    ptxas, nvdisasm = program("ptxas"), program("nvdisasm")
    folder = tmp_path_factory.mktemp("assembly")
    done = {}

    def assembled(name, capability):
        if (name, capability) not in done:
            kernel, signature, bounds = kernels()[name]
            device = SimpleNamespace(compute_capability=capability)
            options = {} if bounds is None else {"launch_bounds": bounds}
            with pytest.MonkeyPatch.context() as patch:  # functions of the device ask which one
                patch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
                try:
                    ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=capability, **options)
                except (missing, OSError) as error:
                    pytest.skip(f"no NVVM: {error}")
            done[name, capability] = assemble_text(ptx, capability)
        return done[name, capability]

    def assemble_text(ptx, capability):
        source, binary = folder / "kernel.ptx", folder / "kernel.cubin"
        source.write_text(ptx)
        architecture = "sm_{}{}".format(*capability)
        report = subprocess.run(
            [ptxas, f"-arch={architecture}", "-v", source, "-o", binary],
            capture_output=True,
            text=True,
            check=False,
        )
        assert report.returncode == 0, report.stderr
        listing = subprocess.run(
            [nvdisasm, "-c", binary], capture_output=True, text=True, check=True
        )
        return Assembled(ptx, report.stderr, listing.stdout)

    return assembled


@pytest.mark.parametrize("capability", [AMPERE, HOPPER], ids=["8.0", "9.0"])
@pytest.mark.parametrize(
    ("kernel", "products", "loads", "copies"), [("nearest", 32, 12, 12), ("border", 16, 8, 9)]
)
def test_tensor_kernels_are_made_of_their_instructions(
    assemble, kernel, products, loads, copies, capability
):
    """A stage: 2 steps of 2 x 8 (2 x 4) products; 3 stages are asked for in the text."""
    found = assemble(kernel, capability)

    assert found.count(r"HMMA\.16816\.F32") == products
    assert found.count(r"LDSM\.16\.M88\.4") == loads
    assert found.count(r"LDGSTS\.E\.BYPASS\.128") == copies


@pytest.mark.parametrize("capability", [AMPERE, HOPPER], ids=["8.0", "9.0"])
@pytest.mark.parametrize("kernel", ["nearest", "border", "round_points"])
def test_tensor_kernels_keep_everything_in_registers(assemble, kernel, capability):
    found = assemble(kernel, capability)

    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in found.report
    assert not re.search(r"\b(LDL|STL)\b", found.sass)
    assert found.n_registers <= 128  # two blocks of 256 threads


@pytest.mark.parametrize("kernel", ["nearest_by_bound", "nearest_border"])
def test_portable_kernels_keep_everything_in_registers(assemble, kernel):
    found = assemble(kernel, AMPERE)

    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in found.report
    assert found.n_registers <= 128


def test_points_are_read_sixteen_bytes_at_a_time(assemble):
    assert assemble("round_points", AMPERE).count(r"LDG\.E\.128\.CONSTANT") == 1


def test_a_canonical_sum_is_not_contracted(assemble):
    found = assemble("accumulate", AMPERE)  # has no other float64 sum

    assert found.count("DADD") and found.count("DMUL")
    assert not found.count("DFMA")
