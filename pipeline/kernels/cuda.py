"""The twin for NVIDIA devices; numba's simulator runs it as well, on a few dozen points.

Three kernels label a point. `_centre_points` subtracts the middle; `_nearest_by_bound` finds in
float32 tiles which centroid has the least lower bound (`pipeline.kernels.bounds`), and the next
least; `_decide`, a warp a point, compares canonically what the bounds leave open. A canonical
sum is a warp: thread t has the running sum t, and the fold is the tree of the halves. Fewer
threads have several running sums each, which the simulator needs: it takes milliseconds a thread.

Only the launch sizes know the simulator, and three operations: NVVM may contract a product and
a sum into one rounding, so they are asked for by name.
"""
# mypy: ignore-errors
# (numba types the kernels by their arguments)

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, float32, float64, int32
from numba.core import config
from numba.cuda import libdevice
from numba.cuda.cudadrv.driver import CudaAPIError
from numba.cuda.cudadrv.error import CudaSupportError

from pipeline.errors import ConfigError
from pipeline.kernels.bounds import bounded
from pipeline.kernels.contract import Assignment, Labels, Points, Sums

SIMULATED = bool(config.ENABLE_CUDASIM)
LANES = 32  # running sums of a canonical distance
THREADS = 1 if SIMULATED else 32  # that share them; divides LANES
OWN_LANES = LANES // THREADS
SIDE = 2 if SIMULATED else 16  # a block of the tile kernel has SIDE x SIDE threads,
OWN = 4  # each with OWN x OWN scores,
TILE = SIDE * OWN  # so it scores TILE points against TILE centroids,
DEPTH = 16  # with so many dimensions at a time in shared memory
LENGTHEN = 1.0 + 2.0**-22  # more than the rounding of a length, or to float32
MAX_GAP = 3e38  # about the largest float32

if SIMULATED:  # Python rounds each operation by itself
    _add, _times, _rint = operator.add, operator.mul, np.rint
else:
    _add, _times, _rint = libdevice.dadd_rn, libdevice.dmul_rn, libdevice.rint


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
        self, sums: Sums, old: Points, old_labels: Labels, new: Points, new_labels: Labels
    ) -> None:
        """See `pipeline.kernels.contract.Kernels.accumulate`."""
        n_rows, n_dims = new.shape
        assert old.shape == new.shape
        assert n_dims == sums.sums.shape[1], f"{n_dims} dimensions"
        assert old_labels.shape == new_labels.shape == (n_rows,)
        for labels in (old_labels, new_labels):
            assert not n_rows or (labels.min() >= -1 and labels.max() < len(sums.counts))
        if not n_rows:
            return
        totals = [cuda.to_device(a) for a in (sums.counts, sums.sums, sums.squares)]
        scales = 1.0 / sums.unit, 1.0 / sums.square_unit
        for part in self._parts(n_rows, 4 * n_dims + 16):
            for rows, labels, sign in ((old, old_labels, -1), (new, new_labels, 1)):
                part_labels = np.ascontiguousarray(labels[part], np.int32)
                _accumulate[len(part_labels), THREADS](
                    cuda.to_device(rows[part]), cuda.to_device(part_labels), sign, *scales, *totals
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
    _centre_points[n_points, THREADS](
        x, model.middle, model.slope, model.tilt, z, lengths_squared, slopes
    )
    _nearest_by_bound[-(-n_points // TILE), SIDE * SIDE](
        z, model.centred, model.floors, model.reaches, slopes, label, next_least
    )
    _decide[n_points, THREADS](
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


@cuda.jit(device=True)
def _synchronise():
    if THREADS > 1:
        cuda.syncthreads()


@cuda.jit(device=True)
def _folded(sums, lanes):
    """Canonical fold of the running sums of all threads; every thread gets the total."""
    thread = cuda.threadIdx.x
    for own in range(OWN_LANES):
        lanes[thread + own * THREADS] = sums[own]
    _synchronise()
    width = LANES // 2
    while width > 0:
        for lane in range(thread, width, THREADS):
            lanes[lane] = _add(lanes[lane], lanes[lane + width])
        _synchronise()
        width //= 2
    total = lanes[0]
    _synchronise()  # the next fold writes where this one is still read
    return total


@cuda.jit(device=True)
def _canonical(x, i, c, k, lanes):
    """Canonical squared distance of row i of x and row k of c, by a warp; k = -1: to zero."""
    sums = cuda.local.array(OWN_LANES, float64)
    for own in range(OWN_LANES):
        total = 0.0
        for j in range(cuda.threadIdx.x + own * THREADS, x.shape[1], LANES):
            gap = float64(x[i, j])
            if k >= 0:
                gap -= float64(c[k, j])
            total = _add(total, _times(gap, gap))
        sums[own] = total
    return _folded(sums, lanes)


@cuda.jit(device=True)
def _limit(distance, shift, relative):
    """The bound above which a centroid is proven to be further away than a canonical distance."""
    return distance * (1.0 + relative) - shift + (distance + shift) * 2.0**-50


@cuda.jit
def _centre_points(
    points,  #           IN   (n_points, n_dims)  float32
    middle,  #           IN   (n_dims,)           float32
    slope,
    tilt,
    z,  #                OUT  (n_points, n_dims)  float32: x - m
    lengths_squared,  #  OUT  (n_points,)         float64: |x - m|²
    slopes,  #           OUT  (n_points,)         float32: A |z|, rounded up
):
    """One warp centres one point."""
    lanes = cuda.shared.array(LANES, float64)
    sums = cuda.local.array(OWN_LANES, float64)
    i = cuda.blockIdx.x
    for own in range(OWN_LANES):
        total = 0.0
        for j in range(cuda.threadIdx.x + own * THREADS, points.shape[1], LANES):
            gap = float64(points[i, j]) - float64(middle[j])
            z[i, j] = float32(gap)
            total += gap * gap
        sums[own] = total
    total = _folded(sums, lanes)
    if cuda.threadIdx.x == 0:
        lengths_squared[i] = total
        slopes[i] = float32((slope * total**0.5 * LENGTHEN + tilt) * LENGTHEN)


@cuda.jit
def _nearest_by_bound(
    z,  #           IN   (n_points, n_dims)    float32
    centred,  #     IN   (n_clusters, n_dims)  float32
    floors,  #      IN   (n_clusters,)         float32
    reaches,  #     IN   (n_clusters,)         float32
    slopes,  #      IN   (n_points,)           float32
    labels,  #      OUT  (n_points,)           int32: of the least bound
    next_least,  #  OUT  (n_points,)           float32
):
    """A block takes TILE points through all centroids; a thread has OWN x OWN scores at a time."""
    xs = cuda.shared.array((DEPTH, TILE), float32)
    cs = cuda.shared.array((DEPTH, TILE), float32)
    firsts = cuda.shared.array((TILE, SIDE), float32)
    seconds = cuda.shared.array((TILE, SIDE), float32)
    places = cuda.shared.array((TILE, SIDE), int32)
    scores = cuda.local.array((OWN, OWN), float32)
    first = cuda.local.array(OWN, float32)
    second = cuda.local.array(OWN, float32)
    place = cuda.local.array(OWN, int32)
    n_points, n_dims = z.shape
    n_clusters = centred.shape[0]
    thread = cuda.threadIdx.x
    column, row = thread % SIDE, thread // SIDE
    start = cuda.blockIdx.x * TILE
    infinity = float32(np.inf)
    for a in range(OWN):
        first[a] = infinity
        second[a] = infinity
        place[a] = 0
    for k_start in range(0, n_clusters, TILE):
        for a in range(OWN):
            for b in range(OWN):
                scores[a, b] = float32(0.0)
        for j_start in range(0, n_dims, DEPTH):
            for place_in_tile in range(thread, TILE * DEPTH, SIDE * SIDE):
                r, j = place_in_tile // DEPTH, place_in_tile % DEPTH
                x = float32(0.0)
                c = float32(0.0)
                if j_start + j < n_dims:
                    if start + r < n_points:
                        x = z[start + r, j_start + j]
                    if k_start + r < n_clusters:
                        c = centred[k_start + r, j_start + j]
                xs[j, r] = x
                cs[j, r] = c
            cuda.syncthreads()
            for j in range(DEPTH):
                for a in range(OWN):
                    x = xs[j, row * OWN + a]
                    for b in range(OWN):
                        scores[a, b] += x * cs[j, column * OWN + b]
            cuda.syncthreads()
        for b in range(OWN):
            k = k_start + column * OWN + b
            if k < n_clusters:
                for a in range(OWN):
                    i = start + row * OWN + a
                    if i < n_points:
                        bound = floors[k] - float32(2.0) * scores[a, b] - slopes[i] * reaches[k]
                        if bound < first[a]:
                            second[a] = first[a]
                            first[a] = bound
                            place[a] = k
                        elif bound < second[a]:
                            second[a] = bound
    for a in range(OWN):
        firsts[row * OWN + a, column] = first[a]
        seconds[row * OWN + a, column] = second[a]
        places[row * OWN + a, column] = place[a]
    cuda.syncthreads()
    for r in range(thread, TILE, SIDE * SIDE):
        if start + r < n_points:
            least = infinity
            following = infinity
            label = 0
            for s in range(SIDE):
                if firsts[r, s] < least:
                    following = min(least, seconds[r, s])
                    least = firsts[r, s]
                    label = places[r, s]
                else:
                    following = min(following, firsts[r, s])
            labels[start + r] = label
            next_least[start + r] = following


@cuda.jit
def _decide(
    points,  #            IN   (n_points, n_dims)    float32
    z,  #                 IN   (n_points, n_dims)    float32
    lengths_squared,  #   IN   (n_points,)           float64
    slopes,  #            IN   (n_points,)           float32
    proposed,  #          IN   (n_points,)           int32
    next_least,  #        IN   (n_points,)           float32
    centroids,  #         IN   (n_clusters, n_dims)  float32
    centred,  #           IN   (n_clusters, n_dims)  float32
    floors,  #            IN   (n_clusters,)         float32
    reaches,  #           IN   (n_clusters,)         float32
    max_length,
    with_second,
    labels,  #            OUT  (n_points,)           int32
    distances,  #         OUT  (n_points,)           float64
    gaps,  #              OUT  (n_points,)           float32
    second_labels,  #     OUT  (n_points,)           int32
    second_distances,  #  OUT  (n_points,)           float64
):
    """One warp decides one point; all its threads go the same way."""
    lanes = cuda.shared.array(LANES, float64)
    dots = cuda.local.array(OWN_LANES, float64)
    i = cuda.blockIdx.x
    n_dims = points.shape[1]
    n_clusters = centroids.shape[0]
    relative = 4.0 * (n_dims / 32.0 + 8.0) * 2.0**-53
    length_squared = lengths_squared[i]
    is_bounded = length_squared**0.5 * LENGTHEN <= max_length
    shift = length_squared * (1.0 - (n_dims + 8) * 2.0**-51)
    proposal = proposed[i] if is_bounded else 0
    label = proposal
    best = _canonical(points, i, centroids, label, lanes)
    second_label = -1
    second = np.inf
    rest = float64(next_least[i])  # the least bound of the centroids that are not compared
    if with_second or not is_bounded or rest <= _limit(best, shift, relative):
        rest = np.inf
        limit = np.inf if with_second else _limit(best, shift, relative)
        for k in range(n_clusters):
            if k == proposal:
                continue
            if is_bounded:
                for own in range(OWN_LANES):
                    dot = 0.0
                    for j in range(cuda.threadIdx.x + own * THREADS, n_dims, LANES):
                        dot += float64(z[i, j]) * float64(centred[k, j])
                    dots[own] = dot
                score = float32(-2.0 * _folded(dots, lanes))
                bound = float64(floors[k] + score - slopes[i] * reaches[k])
                if bound > limit:
                    rest = min(rest, bound)
                    continue
            distance = _canonical(points, i, centroids, k, lanes)
            if distance < best or (distance == best and k < label):
                second = best
                second_label = label
                best = distance
                label = k
            elif distance < second or (distance == second and k < second_label):
                second = distance
                second_label = k
            limit = _limit(second if with_second else best, shift, relative)
    if cuda.threadIdx.x == 0:
        labels[i] = label
        distances[i] = best
        second_labels[i] = second_label
        second_distances[i] = second
        gap = np.inf
        if n_clusters > 1:
            uncompared = (rest + shift) * (1.0 - relative) - shift * 2.0**-50
            gap = min(second * (1.0 - relative), uncompared) - best * (1.0 + relative)
            # rounded down by more than the rounding to float32, whose denormal numbers are left out
            gap = min(gap * (1.0 - 2.0**-22), MAX_GAP) if gap > 2.0**-100 else 0.0
        gaps[i] = float32(gap)


@cuda.jit
def _accumulate(
    points,  #   IN     (n_rows, n_dims)      float32
    labels,  #   IN     (n_rows,)             int32
    sign,
    per_unit,
    per_square_unit,
    counts,  #   INOUT  (n_clusters,)         int64
    sums,  #     INOUT  (n_clusters, n_dims)  int64
    squares,  #  INOUT  (n_clusters, 2)       int64
):
    """One warp adds one row; integers may arrive in any order."""
    lanes = cuda.shared.array(LANES, float64)
    i = cuda.blockIdx.x
    label = labels[i]
    if label >= 0:
        for j in range(cuda.threadIdx.x, points.shape[1], THREADS):
            component = np.int64(_rint(float64(points[i, j]) * per_unit))
            cuda.atomic.add(sums, (label, j), sign * component)
        total = _canonical(points, i, points, -1, lanes)
        if cuda.threadIdx.x == 0:
            square = np.int64(_rint(total * per_square_unit))
            cuda.atomic.add(counts, label, np.int64(sign))
            cuda.atomic.add(squares, (label, 0), sign * (square >> 32))
            cuda.atomic.add(squares, (label, 1), sign * (square & np.int64(0xFFFFFFFF)))
