"""The twin for NVIDIA devices; numba's simulator runs it as well, on a few dozen points.

What runs on the device stands in `pipeline.kernels.cuda_loops`; here is what is sent there, and
in parts of which size.
"""
# mypy: ignore-errors
# (numba types the kernels by their arguments)

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError
from numba.cuda.cudadrv.error import CudaSupportError

from pipeline.errors import ConfigError
from pipeline.kernels.bounds import bounded
from pipeline.kernels.contract import (
    Assignment,
    Labels,
    Points,
    Sums,
    Weights,
    check_weights,
)
from pipeline.kernels.cuda_loops import (
    SIDE,
    THREADS,
    TILE,
    accumulate,
    accumulate_weighted,
    centre_points,
    decide,
    nearest_by_bound,
)


class CudaModel(NamedTuple):
    """A `BoundedModel` whose arrays are on the device."""

    centroids: Any
    middle: Any
    centred: Any
    floors: Any
    reaches: Any
    slope: float
    tilt: float
    max_length: float


class CudaKernels:
    """The twin for an NVIDIA device.

    Parameters
    ----------
    max_memory_bytes
        What one call's points and results may take; more points go in parts. None: half of what
        is free when the twin is made. Models come on top.

    Raises
    ------
    ConfigError
        No device answers.
    """

    name = "cuda"

    def __init__(self, max_memory_bytes: int | None = None) -> None:
        try:
            free = cuda.current_context().get_memory_info()[0]
        except (CudaSupportError, CudaAPIError) as error:
            cause = " ".join(str(error).split())
            raise ConfigError(
                f"no CUDA device answers ({cause}); `nvidia-smi` must list one in this container, "
                "or set device.kind to cpu"
            ) from error
        self.max_memory_bytes = max_memory_bytes or int(min(free / 2, 2**40))

    def load(self, centroids: Points) -> CudaModel:
        """See `pipeline.kernels.contract.Kernels.load`."""
        model = bounded(centroids)
        return CudaModel(*(cuda.to_device(field) for field in model[:5]), *model[5:])

    def assign(self, model: CudaModel, points: Points, *, second: bool = False) -> Assignment:
        """See `pipeline.kernels.contract.Kernels.assign`."""
        n_points, n_dims = points.shape
        assert n_dims == model.centroids.shape[1], f"{n_dims} dimensions"
        found = (
            np.empty(n_points, np.int32),
            np.empty(n_points, np.float64),
            np.empty(n_points, np.float32),
            np.empty(n_points, np.int32),
            np.empty(n_points, np.float64),
        )
        for part in self._parts(n_points, 8 * n_dims + 64):
            _assign_part(model, points[part], second, [array[part] for array in found])
        return Assignment(*found) if second else Assignment(*found[:3])

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
        n_rows, n_dims = new.shape
        assert old.shape == new.shape
        assert n_dims == sums.sums.shape[1], f"{n_dims} dimensions"
        assert old_labels.shape == new_labels.shape == (n_rows,)
        for labels in (old_labels, new_labels):
            assert not n_rows or (labels.min() >= -1 and labels.max() < len(sums.counts))
        check_weights(sums, n_rows, old_weights, new_weights)
        if not n_rows:
            return
        if old_weights is not None and new_weights is not None:
            sums.weigh(old_labels, old_weights, new_labels, new_weights)
        totals = [cuda.to_device(a) for a in (sums.counts, sums.sums, sums.squares)]
        scales = 1.0 / sums.unit, 1.0 / sums.square_unit
        sides = (old, old_labels, old_weights, -1), (new, new_labels, new_weights, 1)
        for part in self._parts(n_rows, 4 * n_dims + 16):
            for rows, labels, weights, sign in sides:
                n_part = len(labels[part])
                where = (
                    cuda.to_device(rows[part]),
                    cuda.to_device(np.ascontiguousarray(labels[part], np.int32)),
                )
                if weights is None:
                    accumulate[n_part, THREADS](*where, sign, *scales, *totals)
                else:
                    part_weights = cuda.to_device(np.ascontiguousarray(weights[part]))
                    accumulate_weighted[n_part, THREADS](
                        *where, part_weights, sign, *scales, *totals
                    )
        for total, array in zip(totals, (sums.counts, sums.sums, sums.squares), strict=True):
            total.copy_to_host(array)

    def _parts(self, n_rows: int, row_bytes: int) -> list[slice]:
        size = max(1, min(2**22, self.max_memory_bytes // row_bytes))
        return [slice(i, min(i + size, n_rows)) for i in range(0, n_rows, size)]


def _assign_part(model: CudaModel, points: Points, second: bool, found: list[Any]) -> None:
    n_points, n_dims = points.shape
    x = cuda.to_device(points)
    z = cuda.device_array((n_points, n_dims), np.float32)
    lengths_squared = cuda.device_array(n_points, np.float64)
    slopes = cuda.device_array(n_points, np.float32)
    label = cuda.device_array(n_points, np.int32)
    next_least = cuda.device_array(n_points, np.float32)
    results = [cuda.device_array(n_points, array.dtype) for array in found]
    centre_points[n_points, THREADS](
        x, model.middle, model.slope, model.tilt, z, lengths_squared, slopes
    )
    nearest_by_bound[-(-n_points // TILE), SIDE * SIDE](
        z, model.centred, model.floors, model.reaches, slopes, label, next_least
    )
    decide[n_points, THREADS](
        x,
        z,
        lengths_squared,
        slopes,
        label,
        next_least,
        model.centroids,
        model.centred,
        model.floors,
        model.reaches,
        model.max_length,
        second,
        *results,
    )
    for result, array in zip(results, found, strict=True):
        result.copy_to_host(array)
