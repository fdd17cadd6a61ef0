"""Separations of the CUDA twin: on the simulator, and as far as the assembler."""

from __future__ import annotations

import re
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest

from tests.kernels.cases import SIMULATED, normal
from tests.kernels.conftest import cuda_kernels
from tests.kernels.cuda.test_cuda import here, numba_cuda

RELATIVE = 2.0**-20


def on_cuda(test):
    """Runs on a device, or within the suite on the simulator."""
    return test if SIMULATED else pytest.mark.gpu(test)


def kernels(max_memory_bytes=None):
    cuda_kernels()  # or the test is skipped, with the reason
    return import_module("pipeline.kernels.cuda.twin").CudaKernels(max_memory_bytes)


def clusters(sizes, d=19, scale=1.0, offset=0.0):
    """Points sorted by cluster, and where each begins."""
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    points = normal(int(starts[-1]), d) + np.repeat(normal(len(sizes), d, 1), sizes, axis=0)
    return np.ascontiguousarray((points * scale + offset).astype(np.float32)), starts


def expected(points, starts, rows):
    """In float64, one difference at a time."""
    exact = points.astype(np.float64)
    own, others = [], []
    for row in rows:
        gaps = np.sqrt(np.square(exact - exact[row]).sum(axis=1))
        sums = np.add.reduceat(gaps, starts[:-1])
        home = np.searchsorted(starts, row, side="right") - 1
        own.append(sums[home])
        others.append(min(np.delete(sums / np.diff(starts), home), default=np.inf))
    return np.array(own), np.array(others)


def differs(found, points, starts, rows):
    """Whether a sum is off by more than each of its distances may be."""
    return any(
        not (np.abs(a - b) <= RELATIVE * b).all()
        for a, b in zip(found, expected(points, starts, rows), strict=True)
        if np.isfinite(b).all() or np.isfinite(a).any()
    )


def mixed_scales():
    points, starts = clusters([3, 2, 4])
    points[:, 0] *= np.float32(1e30)
    points[4] *= np.float32(1e-30)
    return points, starts


def far_apart():
    """Clusters so far out that |x|² + |y|² - 2 x·y would have no digit of a distance."""
    return clusters([4, 5], scale=0.01, offset=1000.0)


CASES = {
    "sizes around a tile": lambda: clusters([1, 8, 9, 3]),
    "one dimension": lambda: clusters([4, 3], d=1),
    "many singletons": lambda: clusters([1] * 11),
    "one cluster": lambda: clusters([5]),
    "duplicates": lambda: (np.ones((9, 4), np.float32), np.array([0, 4, 9])),
    "zeros": lambda: (np.zeros((5, 4), np.float32), np.array([0, 2, 5])),
    "scaled by 1e-42": lambda: clusters([3, 4], scale=1e-42),
    "scaled by 1e37": lambda: clusters([3, 4], scale=1e37),
    "mixed scales": mixed_scales,
    "far apart": far_apart,
}


@on_cuda
@pytest.mark.parametrize("case", CASES)
def test_sums_are_those_of_float64(case):
    points, starts = CASES[case]()
    rows = np.random.default_rng(0).permutation(len(points))[: 1 + len(points) // 2 * 2]
    twin = kernels()

    found = twin.separations(points, starts, rows)

    assert not differs(found, points, starts, rows)


SIZES = [40, 1, 60, 19]
PARTS = {  # bytes, rows -> rows at a time, points at a time, shares: none of them all there are
    "rows": (5000, 60, (22, 120, 1)),
    "rows and points": (1500, 30, (6, 39, 1)),
    "points and shares": (3000, 4, (4, 88, 3)),
}


@on_cuda
@pytest.mark.parametrize("cut", PARTS)
def test_parts_leave_no_trace(cut):
    max_memory_bytes, n_rows, sizes = PARTS[cut]
    points, starts = clusters(SIZES, d=7)
    rows = np.random.default_rng(0).permutation(len(points))[:n_rows]
    twin = kernels(max_memory_bytes)
    module = import_module("pipeline.kernels.cuda.separations")
    if SIMULATED:
        assert module._sizes(twin.memory.room, points.shape, n_rows, len(SIZES)) == sizes

    parts = twin.separations(points, starts, rows)

    whole = kernels().separations(points, starts, rows)
    assert parts.own.tobytes() == whole.own.tobytes()
    assert parts.others.tobytes() == whole.others.tobytes()
    assert not differs(parts, points, starts, rows)


@on_cuda
def test_no_rows_are_no_work():
    twin = kernels()

    found = twin.separations(*clusters([2, 2]), np.empty(0, np.int64))

    assert found.own.shape == found.others.shape == (0,)


@pytest.fixture(scope="module")
def assembled():
    """PTX of both kernels; needs the compiler, but neither a device nor a driver."""
    cuda = numba_cuda()
    if cuda.is_available():
        pytest.skip("there is a device: its suite compiles them")
    types = import_module("numba").types
    twin = import_module("pipeline.kernels.cuda.separations")
    f4, i4, i8, f8 = types.float32, types.int32, types.int64, types.float64
    rows, table = f4[:, ::1], f8[:, ::1]
    missing = import_module("numba.cuda.cudadrv.error").NvvmSupportError
    ampere = SimpleNamespace(compute_capability=(8, 0))
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("numba.cuda.dispatcher.get_current_device", lambda: ampere)
        for name, real in (("separate", f4), ("separate_wide", f8)):
            signature = (
                *(rows, i4[::1], rows, i8, i8[::1], i8[:, ::1], real, types.boolean),
                *(table, table, table),
            )
            try:
                kernel = getattr(twin, name).py_func
                found[name] = cuda.compile_ptx(kernel, signature, cc=(8, 0))[0]
            except (missing, OSError) as error:
                pytest.skip(f"no NVVM: {error}")
    return found


@here
def test_distances_are_sums_of_squared_differences(assembled):
    narrow, wide = assembled["separate"], assembled["separate_wide"]

    assert "fma.rn.f32" in narrow
    assert "sub.f32" in narrow or "sub.rn.f32" in narrow
    assert "fma.rn.f32" not in wide
    assert "fma.rn.f64" in wide


@here
def test_nothing_is_added_atomically(assembled):
    assert not any(re.search(r"\b(atom|red)\.", ptx) for ptx in assembled.values())


# Controls: what the suite must not accept


def test_a_product_in_float32_is_caught():
    points, starts = far_apart()
    squares = np.square(points).sum(axis=1)
    gaps = np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0.0))
    sums = np.add.reduceat(gaps.astype(np.float64), starts[:-1], axis=1)
    homes = np.repeat([0, 1], np.diff(starts))
    means = sums / np.diff(starts)
    rows = np.arange(len(points))

    found = sums[rows, homes], means[rows, 1 - homes]

    assert differs(found, points, starts, rows)
