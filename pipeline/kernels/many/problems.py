"""Many small problems in one call: what the CPU twins share.

A problem is done by one thread from beginning to end, so threads meet only where they take the
next one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.contract import Assignment, ManyFits, Points, Problems, Weights
from pipeline.kernels.many.fits import fit_share
from pipeline.kernels.many.loops import assign_share
from pipeline.kernels.many.tables import Places, Settings

CANONICAL = 10  # products that a canonical distance costs
PASSES = 10  # that a fit does, its seeds included
SERIAL_WORK = 2**24  # n·K·d below which starting a thread costs more than it saves


class SmallProblems:
    """The part of a CPU twin that is `pipeline.kernels.contract.ManyKernels`.

    The loops compile at the first call, in some ten seconds; from disk, in tenths of one. Services
    never call them.
    """

    threads: int

    def fit_many(
        self,
        points: Points,
        problems: Problems,
        *,
        weights: Weights | None,
        max_iterations: int,
        tol: float,
        spherical: bool,
    ) -> ManyFits:
        """See `pipeline.kernels.contract.ManyKernels.fit_many`."""
        n_problems, n_dims = len(problems.n_rows), points.shape[1]
        n_rows, n_clusters = int(problems.n_rows.sum()), int(problems.n_clusters.sum())
        fits = ManyFits(
            centroids=np.zeros((n_clusters, n_dims), np.float32),
            labels=np.full(n_rows, -1, np.int32),
            distances_squared=np.zeros(n_rows, np.float64),
            n_clusters=np.zeros(n_problems, np.int64),
            inertias=np.zeros(n_problems, np.float64),
            n_iterations=np.zeros(n_problems, np.int64),
            has_converged=np.ones(n_problems, np.bool_),
        )
        if n_rows and n_clusters:
            places = Places(
                np.argsort(-problems.n_rows * problems.n_clusters, kind="stable"),
                np.cumsum(problems.n_rows) - problems.n_rows,
                np.cumsum(problems.n_clusters) - problems.n_clusters,
            )
            largest = problems.n_rows.max(), problems.n_clusters.max(), problems.n_trials.max()
            work = (problems.n_rows * (problems.n_clusters + CANONICAL)).sum() * n_dims * PASSES
            self._share(
                n_problems if work > SERIAL_WORK else 1,
                fit_share,
                _address(points),
                points.shape,
                tuple(map(int, largest)),
                np.empty(0) if weights is None else np.array(weights),
                problems,
                places,
                Settings(max_iterations, tol, int(spherical)),
                np.zeros(1, np.int64),
                fits,
            )
        return fits

    def assign_many(
        self,
        points: Points,
        starts: NDArray[np.int64],
        centroids: Points,
        centroid_starts: NDArray[np.int64],
    ) -> Assignment:
        """See `pipeline.kernels.contract.ManyKernels.assign_many`."""
        n_points = len(points)
        found = Assignment(
            np.empty(n_points, np.int32),
            np.empty(n_points, np.float64),
            np.empty(n_points, np.float32),
        )
        if n_points:
            most = int(np.diff(centroid_starts).max())
            work = n_points * (most + CANONICAL) * points.shape[1]
            self._share(
                len(starts) - 1 if work > SERIAL_WORK else 1,
                assign_share,
                _address(points),
                points.shape[1],
                np.array(starts),
                _address(centroids),
                np.array(centroid_starts),
                most,
                np.zeros(1, np.int64),
                found[:3],
            )
        return found

    def _share(self, n_problems: int, share: Callable[..., None], *given: Any) -> None:
        """The same call on as many threads as there is work for; they take problem after problem.

        Threads of this call, not numba's pool: they start in a tenth of a millisecond, the loops
        compile in half the time, and another caller need not wait (`pipeline.kernels.callers`).
        """
        n_others = min(self.threads, n_problems) - 1
        with ThreadPoolExecutor(max(1, n_others)) as pool:
            others = [pool.submit(share, *given) for _ in range(n_others)]
            share(*given)
        for other in others:
            other.result()


def _address(points: Points) -> int:
    """For numba a read-only array is another type; of the small ones we pass copies."""
    assert points.dtype == np.float32 and points.ndim == 2, f"{points.dtype} {points.shape}"
    assert points.flags.c_contiguous and points.flags.aligned, "rows are not packed"
    return int(points.__array_interface__["data"][0])
