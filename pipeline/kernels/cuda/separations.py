"""How far points are from every cluster, on the CUDA twin: what a silhouette is made of.

Points are sorted by cluster, so a row needs one running sum: a block takes a tile of rows
through the points of a share of the clusters, tile by tile, and one thread a row then adds the
distances in the order of the points. Nothing is added atomically, and sums do not know where
shares, tiles and parts are cut: the same arguments give the same bytes.

A squared distance is the sum of squared differences, not ``|x|² + |y|² - 2 x·y``: that costs
twice the instructions, and nothing cancels. With u = 2**-24 a difference is off by u, its square
by 3u, a chain of `DEPTH` = 16 of them by 18u more; chains are added with compensation (Kahan,
"Further remarks on reducing truncation errors", 1965), which adds 2u whatever the number of
dimensions. So a distance is good to a relative 12u, below 2**-20, as long as no square leaves
the range of float32: where the data might, the same kernel runs in float64.
"""
# mypy: ignore-errors
# (numba types the kernels by their arguments)

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda, float32, float64
from numpy.typing import NDArray

from pipeline.kernels.contract import Points, Separation
from pipeline.kernels.cuda.loops import DEPTH, OWN, SIDE, SIMULATED, TILE
from pipeline.kernels.cuda.memory import CudaMemory

MIN_BLOCKS = 4 if SIMULATED else 1024  # a few for every multiprocessor of a large card
MAX_ROWS = 2**14  # at a time
STATE_BYTES = 24  # of a row and a share
CHUNK = 2**18  # components whose range is looked at while they are in a cache
MIN_EXPONENT = -63  # a square of 2**-126 is a normal float32
BOUNDS = {  # two blocks on a multiprocessor, which costs a few registers; the simulator knows none
    float32: {} if SIMULATED else {"launch_bounds": (SIDE * SIDE, 2)},
    float64: {} if SIMULATED else {"launch_bounds": (SIDE * SIDE, 1)},
}


def _separate(real):
    """The kernel in float32 or float64."""
    pitch = TILE + (real is float32)  # rows in other banks of the memory, where 48 KiB allow it

    @cuda.jit(**BOUNDS[real])
    def separate(
        rows,  #      IN     (n_rows, n_dims)      float32
        homes,  #     IN     (n_rows,)             int32: the cluster of each
        columns,  #   IN     (n_columns, n_dims)   float32: points ``first_column`` and following
        first_column,
        starts,  #    IN     (n_clusters + 1,)     int64
        shares,  #    IN     (n_shares, 3)         int64: first point, end, cluster of the first
        scale,  #            a power of two, by which rows and columns are multiplied
        is_first,  #         there was no part before
        totals,  #    INOUT  (n_rows, n_shares)    float64: of the cluster that has begun
        owns,  #      INOUT  (n_rows, n_shares)    float64
        nearest,  #   INOUT  (n_rows, n_shares)    float64: least mean so far
    ):
        xs = cuda.shared.array((DEPTH, TILE), real)
        cs = cuda.shared.array((DEPTH, TILE), real)
        gaps = cuda.shared.array((TILE, pitch), real)
        sums = cuda.local.array((OWN, OWN), real)
        lost = cuda.local.array((OWN, OWN), real)
        chain = cuda.local.array((OWN, OWN), real)
        n_rows, n_dims = rows.shape
        n_clusters = starts.shape[0] - 1
        thread = cuda.threadIdx.x
        column, row = thread % SIDE, thread // SIDE
        first_row = cuda.blockIdx.x * TILE
        share = cuda.blockIdx.y
        stop = shares[share, 1]
        k = shares[share, 2]
        if is_first:
            for r in range(thread, TILE, SIDE * SIDE):
                if first_row + r < n_rows:
                    totals[first_row + r, share] = 0.0
                    owns[first_row + r, share] = 0.0
                    nearest[first_row + r, share] = np.inf
        for tile_start in range(shares[share, 0], stop, TILE):
            for a in range(OWN):
                for b in range(OWN):
                    sums[a, b] = real(0.0)
                    lost[a, b] = real(0.0)
            for j_start in range(0, n_dims, DEPTH):
                for place in range(thread, TILE * DEPTH, SIDE * SIDE):
                    r, j = place // DEPTH, place % DEPTH
                    x = real(0.0)
                    c = real(0.0)
                    if j_start + j < n_dims:
                        if first_row + r < n_rows:
                            x = real(rows[first_row + r, j_start + j]) * scale
                        if tile_start + r < stop:
                            c = real(columns[tile_start - first_column + r, j_start + j]) * scale
                    xs[j, r] = x
                    cs[j, r] = c
                cuda.syncthreads()
                for a in range(OWN):
                    for b in range(OWN):
                        chain[a, b] = real(0.0)
                for j in range(DEPTH):
                    for a in range(OWN):
                        x = xs[j, row * OWN + a]
                        for b in range(OWN):
                            gap = x - cs[j, column * OWN + b]
                            chain[a, b] += gap * gap
                for a in range(OWN):
                    for b in range(OWN):
                        more = chain[a, b] - lost[a, b]
                        total = sums[a, b] + more
                        lost[a, b] = (total - sums[a, b]) - more
                        sums[a, b] = total
                cuda.syncthreads()
            for a in range(OWN):
                for b in range(OWN):
                    gaps[row * OWN + a, column * OWN + b] = real(math.sqrt(sums[a, b]))
            cuda.syncthreads()
            tile_stop = min(tile_start + TILE, stop)
            for r in range(thread, TILE, SIDE * SIDE):
                i = first_row + r
                if i < n_rows:
                    here = k
                    end = starts[here + 1]
                    running = totals[i, share]
                    for p in range(tile_start, tile_stop):
                        running += float64(gaps[r, p - tile_start])
                        if p + 1 == end:  # the cluster is complete
                            if here == homes[i]:
                                owns[i, share] = running
                            else:
                                mean = running / float64(end - starts[here])
                                nearest[i, share] = min(nearest[i, share], mean)
                            running = 0.0
                            here += 1
                            end = starts[min(here + 1, n_clusters)]
                    totals[i, share] = running
            while k < n_clusters and starts[k + 1] <= tile_stop:
                k += 1

    return separate


separate = _separate(float32)
separate_wide = _separate(float64)


def separations(
    memory: CudaMemory, points: Points, starts: NDArray[np.int64], rows: NDArray[np.int64]
) -> Separation:
    """See `pipeline.kernels.contract.Kernels.separations`; the caller has the memory's lock."""
    n_points, n_dims = points.shape
    n_rows = len(rows)
    assert starts[0] == 0 and starts[-1] == n_points
    own = np.zeros(n_rows, np.float64)
    others = np.full(n_rows, np.inf)
    if not n_rows:
        return Separation(own, others)
    scale = scale_of(points)
    n_part, n_columns, n_shares = _sizes(memory.room, points.shape, n_rows, len(starts) - 1)
    whole = memory.lay_out(
        (),
        1,
        {
            "rows": ((n_part, n_dims), np.float32),
            "homes": ((n_part,), np.int32),
            "columns": ((n_columns, n_dims), np.float32),
            "starts": (starts.shape, np.int64),
            "shares": ((n_shares, 3), np.int64),
            **dict.fromkeys(("totals", "owns", "nearest"), ((n_part, n_shares), np.float64)),
        },
    ).whole
    whole["starts"].copy_to_device(np.ascontiguousarray(starts, np.int64))
    cuts = _cuts(starts, n_shares)
    resident = -1  # the first point of the columns that are there
    for row_start in range(0, n_rows, n_part):
        part = rows[row_start : row_start + n_part]
        state = [whole[name][: len(part)] for name in ("totals", "owns", "nearest")]
        homes = np.searchsorted(starts, part, side="right") - 1
        whole["rows"][: len(part)].copy_to_device(np.ascontiguousarray(points[part]))
        whole["homes"][: len(part)].copy_to_device(homes.astype(np.int32))
        for first in range(0, n_points, n_columns):
            stop = min(first + n_columns, n_points)
            if resident != first:
                whole["columns"][: stop - first].copy_to_device(points[first:stop])
                resident = first
            whole["shares"].copy_to_device(_shares(cuts, starts, first, stop))
            _launch(whole, len(part), first, state, scale)
        for array, fold, into in ((state[1], np.sum, own), (state[2], np.min, others)):
            into[row_start : row_start + len(part)] = fold(array.copy_to_host(), axis=1)
    unit = 1.0 if scale is None else scale
    return Separation(own / unit, others / unit)


def scale_of(points: Points) -> float | None:
    """A power of two that keeps all squares within float32; None: there is none.

    The largest component may not overflow as a sum of squared differences. Differences are
    multiples of the last bit of the smallest component that is not 0, whose square shall not
    lose digits below the normal numbers.
    """
    largest, smallest = 0, 2**32 - 1  # bits of |x|, which are ordered as |x| is
    flat = points.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        bits = flat[start : start + CHUNK].view(np.uint32) & np.uint32(0x7FFFFFFF)
        largest = max(largest, int(bits.max()))
        bits -= np.uint32(1)  # 0 becomes the largest of all
        smallest = min(smallest, int(bits.min()))
    if not largest:
        return 1.0
    room = (124 - math.ceil(math.log2(points.shape[1]))) // 2
    exponent = min(room - (_exponent(largest) + 1), 126)
    return 2.0**exponent if _exponent(smallest + 1) - 23 + exponent >= MIN_EXPONENT else None


def _exponent(bits: int) -> int:
    """e of |x| in [2**e, 2**(e + 1)); of denormal numbers that of the smallest normal one."""
    return max(bits >> 23, 1) - 127


def _sizes(room: int, shape: tuple[int, int], n_rows: int, n_clusters: int) -> tuple[int, int, int]:
    """Rows at a time, points at a time, and into how many shares the clusters are cut."""
    n_points, n_dims = shape
    row_bytes = 4 * n_dims + 4 + STATE_BYTES
    room -= 8 * (n_clusters + 1)
    n_part = max(1, min(n_rows, MAX_ROWS, room // 4 // row_bytes))
    n_shares = max(1, min(n_clusters, MIN_BLOCKS // -(-n_part // TILE)))
    n_shares = max(1, min(n_shares, room // 8 // (STATE_BYTES * (n_part + 1))))
    room -= n_part * (4 * n_dims + 4) + n_shares * STATE_BYTES * (n_part + 1)
    return n_part, max(1, min(n_points, room // (4 * n_dims))), n_shares


def _cuts(starts: NDArray[np.int64], n_shares: int) -> NDArray[np.int64]:
    """(n_shares + 1,) first clusters of shares of about as many points."""
    wanted = np.arange(1, n_shares) * (int(starts[-1]) / n_shares)
    return np.concatenate([[0], np.searchsorted(starts, wanted), [len(starts) - 1]])


def _shares(
    cuts: NDArray[np.int64], starts: NDArray[np.int64], first: int, stop: int
) -> NDArray[np.int64]:
    """What of each share lies within a part of the points: (n_shares, 3)."""
    begin = np.clip(starts[cuts[:-1]], first, stop)
    end = np.clip(starts[cuts[1:]], first, stop)
    clusters = np.minimum(np.searchsorted(starts, begin, side="right") - 1, len(starts) - 2)
    return np.ascontiguousarray(np.stack([begin, end, clusters], axis=1), np.int64)


def _launch(
    whole: dict[str, Any], n_rows: int, first: int, state: list[Any], scale: float | None
) -> None:
    kernel, factor = (
        (separate_wide, np.float64(1.0)) if scale is None else (separate, np.float32(scale))
    )
    kernel[(-(-n_rows // TILE), len(whole["shares"])), SIDE * SIDE](
        *(whole["rows"][:n_rows], whole["homes"][:n_rows], whole["columns"], first),
        *(whole["starts"], whole["shares"], factor, first == 0, *state),
    )
