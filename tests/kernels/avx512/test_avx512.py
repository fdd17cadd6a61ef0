"""What only the AVX-512 twin has: operands of few bits, panels, rows that end where memory ends."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import sys
import tracemalloc

import numpy as np
import pytest

from pipeline.kernels.avx512.loops import assign_parallel, assign_share
from pipeline.kernels.avx512.packing import Bf16Panels, Int8Panels, is_packable, pack
from pipeline.kernels.avx512.twin import Avx512Kernels, PackedSearch
from pipeline.kernels.bounds import NO_BORDERS
from pipeline.kernels.features import has_avx512_bf16, has_avx512_vnni
from tests.kernels.cases import CASES, normal
from tests.kernels.cpu.test_cpu import blobs
from tests.kernels.test_contract import HARD, wrong

pytestmark = pytest.mark.skipif(not has_avx512_vnni(), reason="the processor has no AVX-512 VNNI")

KINDS = ["int8", pytest.param("bf16", marks=pytest.mark.skipif(not has_avx512_bf16(), reason="no"))]


def forced(operands, prefix=0, threads=None):
    return Avx512Kernels(threads, operands=operands, prefix=prefix)


@pytest.fixture
def always_parallel(monkeypatch):
    monkeypatch.setattr("pipeline.kernels.cpu.twin.SERIAL_WORK", 0)


@pytest.mark.parametrize("operands", KINDS)
@pytest.mark.parametrize("prefix", [0, 20])
def test_large_batches_keep_the_contract(always_parallel, operands, prefix):
    points, centroids = blobs(130, 24, 17)

    assert wrong(forced(operands, prefix), points, centroids) == set()


@pytest.mark.parametrize("operands", KINDS)
@pytest.mark.parametrize("prefix", [0, 70])
def test_threads_change_no_byte(always_parallel, operands, prefix):
    points, centroids = blobs(700, 80, 37)
    found = []

    for threads in (1, 2):
        kernels = forced(operands, prefix, threads)
        result = kernels.assign(kernels.load(centroids), points, second=True)
        found.append([array.tobytes() for array in result if array is not None])

    assert found[0] == found[1]


@pytest.mark.parametrize("operands", KINDS)
@pytest.mark.parametrize("k", [2, 15, 16, 17, 33, 48, 49, 64, 65, 130, 1100])
def test_any_number_of_clusters_and_records(operands, k):
    kernels = forced(operands)
    centroids = normal(k, 3, 1)
    model = kernels.load(centroids)

    for n in (1, 2, 3, 5, 6, 9, 53):
        points = normal(n, 3, n)
        gaps = points[:, None].astype(np.float64) - centroids
        expected = np.square(gaps).sum(axis=2).argmin(axis=1)
        assert kernels.assign(model, points).labels.tolist() == expected.tolist()


@pytest.mark.parametrize("operands", KINDS)
@pytest.mark.parametrize("d", [1, 2, 15, 63, 64, 65, 129])
@pytest.mark.parametrize("prefix", [0, 16])
def test_any_number_of_dimensions(operands, d, prefix):
    assert wrong(forced(operands, prefix), *blobs(20, d, 9)) == set()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is protected as Linux does it")
@pytest.mark.parametrize("operands", KINDS)
@pytest.mark.parametrize("d", [33, 64])
def test_a_row_may_end_where_memory_ends(operands, d):
    page = mmap.PAGESIZE
    room = mmap.mmap(-1, 4 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    libc = ctypes.CDLL(None)
    assert libc.mprotect(ctypes.c_void_p(start + 3 * page), ctypes.c_size_t(page), 0) == 0
    points = np.frombuffer(room, np.float32, 7 * d, offset=3 * page - 4 * 7 * d).reshape(7, d)
    points[:] = normal(7, d)
    kernels = forced(operands)

    found = kernels.assign(kernels.load(normal(5, d, 1)), points)

    assert (
        found.labels.tolist()
        == kernels.assign(kernels.load(normal(5, d, 1)), points.copy())[0].tolist()
    )


@pytest.mark.parametrize("kind", [Int8Panels, Bf16Panels])
def test_panels_hold_the_centroids(kind):
    centroids = normal(83, 70)  # a whole panel, and one of two vectors
    middle = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)

    panels, packed = pack(centroids, kind)

    first, last = panels.words[: 64 * packed.n_groups], panels.words[64 * packed.n_groups :]
    groups = np.concatenate(
        [
            part.reshape(packed.n_groups, -1, 16).transpose(1, 2, 0).reshape(-1, packed.n_groups)
            for part in (first, last)
        ]
    )
    raw = np.ascontiguousarray(groups[:83]).view(np.uint8 if kind is Int8Panels else np.uint16)
    if kind is Int8Panels:
        scales = packed.tables[1, :83, None].astype(np.float64) / -2.0
        values = (raw.astype(np.float64) - 128.0) * scales
    else:
        values = (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    exact = centroids.astype(np.float64) - middle
    errors = np.linalg.norm(values[:, :70] - exact, axis=1)
    assert not values[:, 70:].any()
    assert (errors <= packed.tables[3, :83]).all()
    assert (errors >= 0.999 * packed.tables[3, :83]).all()
    assert np.isposinf(packed.tables[0, 83:]).all()


def test_what_does_not_fit_is_searched_with_float32():
    for name in ("scaled by 1e-30", "scaled by 1e20", "one huge centroid"):
        centroids = CASES[name]()[1]
        assert not is_packable(centroids)
        assert [way.name for way in Avx512Kernels().load(centroids).ways] == ["float32"]
    assert is_packable(normal(5, 3))


def test_nothing_is_left_to_compile_when_made():
    kernels = Avx512Kernels(2)
    loops = assign_share, assign_parallel
    before = [len(loop.signatures) for loop in loops]
    points = normal(3000, 130)
    points.flags.writeable = False  # as decoding leaves it

    for n, prefix, margin in ((1, 0, True), (3000, 0, False), (3000, 64, True)):
        for operands in ("int8", "bf16") if has_avx512_bf16() else ("int8",):
            made = forced(operands, prefix, 2)
            made.assign(made.load(points[:37]), points[:n], second=True, margin=margin)
    kernels.assign(kernels.load(points[:37]), points)

    assert [len(loop.signatures) for loop in loops] == before
    assert all(before)


@pytest.mark.parametrize(("n", "k", "d"), [(400_000, 3, 4), (300, 20_000, 8)])
def test_a_call_adds_little_memory_however_many_records_come(n, k, d):
    kernels = Avx512Kernels(2)
    model = kernels.load(normal(k, d, 1))
    points = normal(n, d)
    tracemalloc.start()

    found = kernels.assign(model, points, second=True)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - sum(array.nbytes for array in found if array is not None) < 64 * 2**20


# Controls: a suite that accepts these accepts anything


def without(rows, operands, prefix=0):
    """The twin whose bounds lose nothing for what these rows of its tables stand for."""

    class Careless(Avx512Kernels):
        def load(self, centroids):
            model = super().load(centroids)
            for way in model.ways:
                if isinstance(way.search, PackedSearch):
                    way.search.packed.tables[rows] = 0.0
            return model

    return Careless(operands=operands, prefix=prefix)


def spread():
    """Centroids that differ most where a short prefix does not look."""
    rng = np.random.default_rng(4)
    centroids = rng.standard_normal((40, 64)).astype(np.float32)
    return centroids[rng.integers(0, 40, 60)] + 2 * normal(60, 64, 5), centroids


@pytest.mark.parametrize("operands", KINDS)
@pytest.mark.parametrize("rows", [slice(2, 4)])
def test_a_bound_without_rounding_is_caught(operands, rows):
    found = set(itertools.chain(*(wrong(without(rows, operands), *case()) for case in HARD)))

    assert "labels" in found


@pytest.mark.parametrize("operands", KINDS)
def test_a_prefix_without_its_tail_is_caught(operands):
    assert wrong(forced(operands, 16), *spread()) == set()
    assert "labels" in wrong(without(slice(4, 5), operands, 16), *spread())


def test_a_twin_without_its_instructions_is_not_made(monkeypatch):
    monkeypatch.setattr("pipeline.kernels.avx512.twin.has_avx512_vnni", lambda: False)

    with pytest.raises(RuntimeError, match="lacks instructions that avx512"):
        Avx512Kernels()


def test_an_empty_call_is_no_call():
    kernels = Avx512Kernels(1)
    model = kernels.load(normal(3, 5))

    assert len(kernels.assign(model, normal(0, 5), margin=True).labels) == 0
    assert NO_BORDERS.firsts.size == 0
