"""What only the CPU twin has: threads, tiles, a BLAS, a quota."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from pipeline.errors import ConfigError
from pipeline.kernels.choose import make_kernels
from pipeline.kernels.contract import DevicePolicy, Sums
from pipeline.kernels.cpu import twin
from pipeline.kernels.cpu.loops import assign_parallel, assign_share
from pipeline.kernels.cpu.sums import accumulate_parallel, accumulate_serial
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.kernels.features import has_avx512_vnni
from tests.kernels.cases import normal
from tests.kernels.test_contract import wrong


@pytest.fixture
def always_parallel(monkeypatch):
    monkeypatch.setattr(twin, "SERIAL_WORK", 0)
    monkeypatch.setattr(twin, "SERIAL_ROWS", 0)


def blobs(n, d, k, seed=0):
    """Clusters that overlap, with a few exact ties."""
    centroids = normal(k, d, seed)
    points = centroids[np.arange(n) % k] + normal(n, d, seed + 1)
    points[::50] = (centroids[0] + centroids[1]) / 2
    return points, centroids


@pytest.mark.parametrize("n", [49, 130, 600])  # sgemm; several tiles; several tiles a thread
def test_large_batches_keep_the_contract(n):
    points, centroids = blobs(n, 24, 17)

    assert wrong(CpuKernels(), points, centroids) == set()


@pytest.mark.parametrize("n", [2, 49, 700])
def test_threads_change_no_byte(always_parallel, n):
    points, centroids = blobs(n, 40, 37)
    one, two = CpuKernels(1), CpuKernels(2)

    expected = one.assign(one.load(centroids), points, second=True)
    found = two.assign(two.load(centroids), points, second=True)

    for name in ("labels", "distances_squared", "second_labels", "second_distances_squared"):
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name


@pytest.mark.parametrize("d", [1, 33])
def test_threads_change_no_sum(always_parallel, d):
    points, labels = normal(500, d), (np.arange(500) % 8 - 1).astype(np.int32)
    found = []

    for threads in (1, 2):
        sums = Sums.zeros(7, d, max_component=16.0)
        none = np.full(500, -1, np.int32)
        CpuKernels(threads).accumulate(sums, points, none, points, labels)
        found.append((sums.counts.tobytes(), sums.sums.tobytes(), sums.squares.tobytes()))

    assert found[0] == found[1]


@pytest.mark.parametrize("d", [1, 33])
def test_threads_change_no_weighted_sum(always_parallel, d):
    points, labels = normal(500, d), (np.arange(500) % 8 - 1).astype(np.int32)
    weights = np.exp2(np.random.default_rng(0).uniform(-16.0, 8.0, 500))
    found = []

    for threads in (1, 2):
        sums = Sums.zeros(7, d, max_component=16.0, is_weighted=True)
        none = np.full(500, -1, np.int32)
        CpuKernels(threads).accumulate(
            sums, points, none, points, labels, old_weights=weights, new_weights=weights
        )
        arrays = (sums.counts, sums.sums, sums.squares, sums.weights)
        found.append([array.tobytes() for array in arrays])

    assert found[0] == found[1]


@pytest.mark.parametrize("k", [15, 16, 17, 3000])
def test_any_number_of_clusters(k):
    points, centroids = normal(70, 3, 0), normal(k, 3, 1)
    kernels = CpuKernels()

    found = kernels.assign(kernels.load(centroids), points)

    gaps = points[:, None].astype(np.float64) - centroids
    assert found.labels.tolist() == np.square(gaps).sum(axis=2).argmin(axis=1).tolist()


def test_nothing_is_left_to_compile_when_made():
    kernels = CpuKernels(2)
    loops = (assign_share, assign_parallel, accumulate_serial, accumulate_parallel)
    before = [len(loop.signatures) for loop in loops]
    points = normal(600, 40)
    points.flags.writeable = False  # as decoding leaves it
    labels = np.zeros(600, np.int32)
    sums = Sums.zeros(37, 40, max_component=16.0)
    weighted = Sums.zeros(37, 40, max_component=16.0, is_weighted=True)
    weights = np.broadcast_to(1.0, 600)

    for n in (1, 600):
        kernels.assign(kernels.load(points[:37]), points[:n], second=True)
        both = points[:n], labels[:n], points[:n], labels[:n]
        kernels.accumulate(sums, *both)
        kernels.accumulate(weighted, *both, old_weights=weights[:n], new_weights=weights[:n])

    assert [len(loop.signatures) for loop in loops] == before
    assert all(before)


def test_blas_has_one_thread():
    CpuKernels()

    assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}


def test_no_more_threads_than_asked_for():
    assert CpuKernels(1).threads == 1
    with pytest.raises(ValueError, match="threads is 0"):
        CpuKernels(0)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_quota_of_the_container_is_read(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")

    assert twin.quota_of_cores(tmp_path) == cores


def test_a_call_with_the_wrong_rows_is_a_bug():
    kernels = CpuKernels()
    model = kernels.load(normal(3, 4))

    for points in (normal(3, 5), normal(3, 4).astype(np.float64), normal(3, 8)[:, ::2]):
        with pytest.raises(AssertionError):
            kernels.assign(model, points)


@pytest.mark.parametrize(
    "given",
    [{"kind": "gpu"}, {"threads": 0}, {"threads": 5000}, {"max_memory_bytes": 1000}],
)
def test_device_policy_refuses_what_cannot_be_obeyed(given):
    with pytest.raises(ConfigError, match=f"device.{next(iter(given))} is"):
        DevicePolicy(**given)


def test_a_processor_has_the_twin_that_it_can_run():
    expected = "avx512" if has_avx512_vnni() else "cpu"

    assert make_kernels(DevicePolicy(kind="cpu", threads=1)).name == expected
