"""The portable twin: float32 proposes, a rigorous bound filters, float64 decides.

A tile of records is scored against all centroids by one single-threaded sgemm, called by
pointer from inside the compiled loop, so that a thread keeps its tile in its own cache.
The scores become lower bounds (`pipeline.kernels.bounds`); the canonical distance of the
most promising centroid excludes all whose bound is above it; what is left, mostly nothing,
is compared canonically. What float32 said is never returned but as a bound, rounded down.
"""

from __future__ import annotations

import os
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.kernels.bounds import NO_BORDERS, BoundedModel, bounded
from pipeline.kernels.callers import ONE_CALLER
from pipeline.kernels.contract import (
    Assignment,
    Labels,
    Points,
    Separation,
    Sums,
    Weights,
    check_weights,
)
from pipeline.kernels.cpu.prefix import ROUNDING, basis_for, n_until_prefix, prefixed, some_basis
from pipeline.kernels.cpu.search import Float32Search
from pipeline.kernels.cpu.separations import separations
from pipeline.kernels.cpu.sums import accumulate_parallel, accumulate_serial
from pipeline.kernels.cpu.ways import FLOAT32_NS, Choice, Model, Results, Room, Way, comparison_ns
from pipeline.kernels.many.problems import SmallProblems

CANONICAL = 10  # scores that one canonical distance costs
MAX_SCRATCH = 2**23  # float32 of all threads: half of what a call may add in memory
SERIAL_ROWS = 2**18  # n·d of rows to sum, and
SERIAL_WORK = 2**23  # n·K·d of rows to label, below which waking threads costs more than it saves

_Scale = float | NDArray[np.float64]
_Scales = tuple[_Scale, _Scale]  # of components and of squared norms: `sums.scale_of`


class Float32Operands:
    """What a search with float32 operands needs, made when it is first wanted."""

    __slots__ = ("_bounded", "_centroids")

    def __init__(self, centroids: Points) -> None:
        self._centroids = centroids
        self._bounded: BoundedModel | None = None

    @property
    def bounded(self) -> BoundedModel:
        if self._bounded is None:
            self._bounded = bounded(self._centroids)
        return self._bounded


class CpuModel(Model):
    """A model of the CPU twins."""

    __slots__ = ("float32",)

    def __init__(self, centroids: Points) -> None:
        super().__init__(centroids.copy())
        self.float32 = Float32Operands(self.centroids)

    @property
    def bounded(self) -> BoundedModel:
        """For a search with float32 operands."""
        return self.float32.bounded


class CpuKernels(SmallProblems):
    """The twin that runs everywhere.

    Parameters
    ----------
    threads
        At most so many compute; None: what the container may use. Changes no result.
    prefix
        So many directions are searched before all others (`pipeline.kernels.cpu.prefix`); 0: none;
        None: as many as pay, once so many records were labelled that it can be told.

    Notes
    -----
    Compiles everything when made, in seconds; from disk, a few tenths of one. Sets the BLAS of
    this process to one thread: its idle pool and numba's would take the cores from each other.
    Gaps, being bounds, may differ in their last bits between batches.
    """

    name = "cpu"

    def __init__(self, threads: int | None = None, *, prefix: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}, but must be at least 1")
        # before its library is loaded: waiting threads shall sleep, not spin (5 times the CPU time)
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        threadpool_limits(1, user_api="blas")
        most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
        self.threads: int = min(threads or available_cores(), most)
        self._prefix = prefix
        self._scratch = np.empty(0, np.float32)
        self._taken, self._compared = np.zeros(1, np.int64), np.zeros(self.threads, np.int64)
        self._warm_up()

    def load(self, centroids: Points) -> CpuModel:
        """See `pipeline.kernels.contract.Kernels.load`."""
        _check(centroids, "centroids")
        assert centroids.shape[0] >= 1
        assert centroids.shape[1] >= 1
        model = CpuModel(centroids)
        self._prepare(model)
        _ = model.choice(second=False, margin=False).way.search  # made here, not in a stream
        return model

    def assign(
        self, model: CpuModel, points: Points, *, second: bool = False, margin: bool = False
    ) -> Assignment:
        """See `pipeline.kernels.contract.Kernels.assign`."""
        _check(points, "points")
        n_points, n_dims = points.shape
        assert n_dims == model.n_dims, f"{n_dims} dimensions"
        results = Results.empty(n_points, second=second, margin=margin)
        with ONE_CALLER:
            self._search(model, points, results, second=second, margin=margin)
        return Assignment(
            results.labels,
            results.distances,
            results.gaps,
            results.second_labels if second else None,
            results.second_distances if second else None,
            results.margins if margin else None,
        )

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

    def separations(
        self, points: Points, starts: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> Separation:
        """See `pipeline.kernels.contract.Kernels.separations`; compiles when first called."""
        _check(points, "points")
        assert starts[0] == 0 and starts[-1] == len(points)
        assert (np.diff(starts) > 0).all(), "a cluster is empty"
        return separations(points, starts, rows, self.threads)

    def _prepare(self, model: CpuModel) -> None:
        """What ways there are to search a model; the first is taken in case of doubt."""
        n_clusters, n_dims, operands = model.n_clusters, model.n_dims, model.float32

        def make() -> Float32Search:
            return Float32Search(operands.bounded)

        if not self._prefix:
            model.ways.append(Way("float32", n_clusters * n_dims * FLOAT32_NS, make))
        if self._prefix is None:
            model.n_until_prefix = n_until_prefix(n_clusters, n_dims, FLOAT32_NS)
        elif self._prefix:
            self._add_float32_prefix(model, some_basis(model.centroids, self._prefix))
            if not model.ways:
                model.ways.append(Way("float32", n_clusters * n_dims * FLOAT32_NS, make))

    def _add_prefix(self, model: CpuModel, points: Points, plain_ns: float) -> None:
        """A way behind a prefix, if it is worth one on records such as these."""
        basis = basis_for(
            model.centroids,
            points,
            product_ns=FLOAT32_NS,
            look_ns=comparison_ns(model.n_dims),
            plain_ns=plain_ns,
            rounding=ROUNDING["float32"],
        )
        if basis is not None:
            self._add_float32_prefix(model, basis)

    def _add_float32_prefix(self, model: CpuModel, basis: NDArray[np.float32]) -> None:
        found = prefixed(model.bounded, basis)
        if found is not None:
            n_clusters, n_dims = model.n_clusters, model.n_dims
            work_ns = len(basis) * (n_clusters + n_dims) * FLOAT32_NS
            search = Float32Search(*found)
            model.add(Way("float32 prefix", work_ns, lambda: search, is_prefixed=True))

    def _search(
        self, model: CpuModel, points: Points, results: Results, *, second: bool, margin: bool
    ) -> None:
        n_points, n_dims = points.shape
        choice = model.choice(second=second, margin=margin)
        start, address = 0, _address(points)
        while start < n_points:
            if model.n_until_prefix <= 0.0 and not margin:
                model.n_until_prefix = np.inf
                self._add_prefix(model, points[start:], choice.expected_ns(choice.way))
            n = min(n_points - start, choice.left)
            part = results if n == n_points else results.part(start, start + n)
            self._run(model, choice, address + 4 * start * n_dims, n, part, margin=margin)
            start += n

    def _run(
        self, model: CpuModel, choice: Choice, address: int, n: int, results: Results, *,
        margin: bool,
    ) -> None:  # fmt: skip
        """Records that are searched in one way."""
        search = choice.way.search
        n_clusters, n_dims = model.n_clusters, model.n_dims
        work = n * (n_clusters + CANONICAL) * n_dims
        threads = self.threads if work > SERIAL_WORK * search.speed else 1
        n_tile = search.tile(n, threads)
        n_scratch = search.n_scratch(n_tile)
        if n_scratch * threads > MAX_SCRATCH:
            n_tile = max(1, n_tile * MAX_SCRATCH // (n_scratch * threads))
            n_scratch = search.n_scratch(n_tile)
        room = self._room(n_scratch * threads)
        borders = model.borders() if margin else NO_BORDERS
        search.run(address, n, n_tile, threads, borders, room, results)
        model.n_until_prefix -= n
        choice.learn(n, int(self._compared[0] if threads == 1 else self._compared[:threads].sum()))

    def _room(self, n_scratch: int) -> Room:
        if self._scratch.size < n_scratch:
            self._scratch = _aligned(n_scratch)
        self._taken[0] = 0
        return Room(self._scratch, self._taken, self._compared)

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
        with ONE_CALLER:
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
        results = Results.empty(1, second=True, margin=True)
        for threads in {1, self.threads}:
            search = Float32Search(model.bounded)
            room = self._room(threads * search.n_scratch(1))
            search.run(_address(rows), 1, 1, threads, NO_BORDERS, room, results)
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


def _aligned(n: int) -> NDArray[np.float32]:
    """Room for n float32 that begins where a line of the cache does."""
    room = np.empty(n + 16, np.float32)
    start = -room.ctypes.data % 64 // 4
    return room[start : start + n]
