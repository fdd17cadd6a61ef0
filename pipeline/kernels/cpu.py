"""The portable twin: float32 proposes, a rigorous bound filters, float64 decides.

A tile of records is scored against all centroids by one single-threaded sgemm, called by
pointer from inside the compiled loop, so that a thread keeps its tile in its own cache.
The scores become lower bounds (`pipeline.kernels.bounds`); the canonical distance of the
most promising centroid excludes all whose bound is above it; what is left, mostly nothing,
is compared canonically. What float32 said is never returned but as a bound, rounded down.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cython_blas
from threadpoolctl import threadpool_limits

from pipeline.kernels.bounds import BoundedModel, bounded
from pipeline.kernels.contract import (
    Assignment,
    Labels,
    Points,
    Sums,
    Weights,
    check_weights,
)
from pipeline.kernels.cpu_loops import assign_parallel, assign_share
from pipeline.kernels.cpu_sums import accumulate_parallel, accumulate_serial

MAX_TILE = 256  # records; more leave the cache, fewer starve the product
MIN_TILE = 64  # unless there are fewer: below it the product loses more than sharing gains
MAX_TILE_SCORES = 2**17  # 512 KiB of float32 beside the points: half a common L2
CANONICAL = 10  # scores that one canonical distance costs
SERIAL_ROWS = 2**16  # n·d of rows to sum, and
SERIAL_WORK = (
    2**23
)  # n·K·d of rows to label, below which waking the threads costs more than they save

_Scale = float | NDArray[np.float64]
_Scales = tuple[_Scale, _Scale]  # of components and of squared norms: `cpu_sums.scale_of`

_ONE_CALLER = threading.Lock()  # the thread pool of numba aborts the process on a second caller


class _Results(NamedTuple):
    """Where a call writes."""

    labels: NDArray[np.int32]  # (n_points,)
    distances: NDArray[np.float64]  # (n_points,)
    gaps: NDArray[np.float32]  # (n_points,)
    second_labels: NDArray[np.int32]  # (n_points,), or empty: not asked for
    second_distances: NDArray[np.float64]  # (n_points,), or empty


class CpuKernels:
    """The twin that runs everywhere.

    Parameters
    ----------
    threads
        At most so many compute; None: what the container may use. Changes no result.

    Notes
    -----
    Compiles everything when made, in seconds; from disk, a few tenths of one. Sets the BLAS of
    this process to one thread: its idle pool and numba's would take the cores from each other.
    Gaps, being bounds, may differ in their last bits between batches.
    """

    name = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}, but must be at least 1")
        # before its library is loaded: waiting threads shall sleep, not spin (5 times the CPU time)
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        threadpool_limits(1, user_api="blas")
        most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
        self.threads: int = min(threads or available_cores(), most)
        self._scratch = np.empty(0, np.float32)
        self._warm_up()

    def load(self, centroids: Points) -> BoundedModel:
        """See `pipeline.kernels.contract.Kernels.load`."""
        _check(centroids, "centroids")
        assert centroids.shape[0] >= 1
        assert centroids.shape[1] >= 1
        return bounded(centroids)

    def assign(self, model: BoundedModel, points: Points, *, second: bool = False) -> Assignment:
        """See `pipeline.kernels.contract.Kernels.assign`."""
        _check(points, "points")
        n_points, n_dims = points.shape
        n_clusters = len(model.centroids)
        assert n_dims == model.centroids.shape[1], f"{n_dims} dimensions"
        n_seconds = n_points if second else 0
        results = _Results(
            np.empty(n_points, np.int32),
            np.empty(n_points, np.float64),
            np.empty(n_points, np.float32),
            np.empty(n_seconds, np.int32),
            np.empty(n_seconds, np.float64),
        )
        if n_points:
            work = n_points * (n_clusters + CANONICAL) * n_dims
            self._assign(model, points, results, self.threads if work > SERIAL_WORK else 1)
        return Assignment(*results) if second else Assignment(*results[:3])

    def accumulate(
        self,
        sums: Sums,
        old: Points,
        old_labels: Labels,
        new: Points,
        new_labels: Labels,
        *,
        old_weights: Weights | None = None,
        new_weights: Weights | None = None,
    ) -> None:
        """See `pipeline.kernels.contract.Kernels.accumulate`."""
        _check(old, "old")
        _check(new, "new")
        n_rows, n_dims = new.shape
        assert old.shape == new.shape
        assert n_dims == sums.sums.shape[1], f"{n_dims} dimensions"
        assert old_labels.shape == new_labels.shape == (n_rows,)
        n_clusters = len(sums.counts)
        for labels in (old_labels, new_labels):
            assert not n_rows or (labels.min() >= -1 and labels.max() < n_clusters)
        check_weights(sums, n_rows, old_weights, new_weights)
        if not n_rows:
            return
        threads = self.threads if n_rows * n_dims > SERIAL_ROWS else 1
        scales: _Scales = (1.0 / sums.unit, 1.0 / sums.square_unit)
        if old_weights is not None and new_weights is not None:
            sums.weigh(old_labels, old_weights, new_labels, new_weights)
            weights = np.stack([old_weights, new_weights])
            scales = (weights * scales[0], weights * scales[1])
        self._accumulate(sums, old, old_labels, new, new_labels, scales, threads)

    def _assign(self, model: BoundedModel, points: Points, results: _Results, threads: int) -> None:
        n_points, n_dims = points.shape
        n_clusters = len(model.centroids)
        n_tile = _tile(n_points, n_clusters, threads)
        n_scratch = threads * n_tile * (n_dims + n_clusters)
        taken = np.zeros(1, np.int64)
        where = SGEMM, _address(points), n_points, n_tile, taken
        with _ONE_CALLER:
            if self._scratch.size < n_scratch:
                self._scratch = np.empty(n_scratch, np.float32)
            if threads > 1:
                numba.set_num_threads(threads)
                assign_parallel(*where, threads, model, self._scratch, results)
            else:
                assign_share(*where, 0, model, self._scratch, results)

    def _accumulate(
        self,
        sums: Sums,
        old: Points,
        old_labels: Labels,
        new: Points,
        new_labels: Labels,
        scales: _Scales,
        threads: int,
    ) -> None:
        with _ONE_CALLER:
            if threads > 1:
                numba.set_num_threads(threads)
            (accumulate_parallel if threads > 1 else accumulate_serial)(
                _address(old),
                np.ascontiguousarray(old_labels, np.int32),
                _address(new),
                np.ascontiguousarray(new_labels, np.int32),
                *scales,
                threads,
                sums.counts,
                sums.sums,
                sums.squares,
            )

    def _warm_up(self) -> None:
        """No call of a running service shall be the one that compiles."""
        rows, labels = np.zeros((1, 1), np.float32), np.zeros(1, np.int32)
        model, sums = self.load(rows), Sums.zeros(1, 1, max_component=1.0)
        reals, doubles = np.empty(1, np.float32), np.empty(1, np.float64)
        for threads in {1, self.threads}:
            self._assign(
                model,
                rows,
                _Results(labels.copy(), doubles, reals, labels.copy(), doubles),
                threads,
            )
            for scales in (1.0, 1.0), (np.ones((2, 1)), np.ones((2, 1))):
                self._accumulate(sums, rows, labels, rows, labels, scales, threads)


def available_cores() -> int:
    """What this process may use: its affinity mask, cut by the quota of its container."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = quota_of_cores(Path("/sys/fs/cgroup"))
    return cores if quota is None else max(1, min(cores, int(quota)))


def quota_of_cores(root: Path) -> float | None:
    """CPU quota of a Linux control group, version 2 or 1; None: none is set."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text()
        return float(quota) / float(period) if quota != "max" and float(quota) > 0 else None
    except (OSError, ValueError):
        return None


def _check(points: Points, what: str) -> None:
    assert points.dtype == np.float32, f"{what}: {points.dtype}"
    assert points.ndim == 2, f"{what}: {points.ndim} dimensions"
    assert points.flags.c_contiguous and points.flags.aligned, f"{what}: rows are not packed"


def _address(points: Points) -> int:
    """Where the rows begin; a kernel takes this, as for numba a read-only view is another type.

    Another type would be compiled anew, in the middle of a stream.
    """
    return int(points.__array_interface__["data"][0])


def _tile(n_points: int, n_clusters: int, threads: int) -> int:
    """How many records are scored at once: within a cache, and two tiles a thread if they pay."""
    share = -(-n_points // threads)
    cached = max(32, MAX_TILE_SCORES // n_clusters // 16 * 16)
    return max(1, min(MAX_TILE, cached, share, max(MIN_TILE, -(-share // 2))))


def _pointer_of_sgemm() -> int:
    """SciPy's BLAS, the one in whose build we are sure of 32-bit integers and of a version."""
    capsule = cython_blas.__pyx_capi__["sgemm"]
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name = get_name(capsule)
    assert b"char *, char *, int *, int *, int *" in name, f"sgemm is {name!r}"
    return int(get_pointer(capsule, name))


SGEMM = _pointer_of_sgemm()
