"""Sums of distances to clusters on the CPU: what a silhouette is made of, in O(n² n_dims).

Every pair is computed once: a tile of rows against a block of columns sums its distances along
the rows for the ones and along the columns for the others. Columns are sorted by cluster, so a
running sum or two for each point is all there is; no array has a side for points and another
for clusters. A block of columns is a pass, and the threads share its tiles of rows; what they
add, they add in one order, so how many they are changes no bit.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.contract import Points, Separation
from pipeline.kernels.cpu.separation_loops import (
    N_BLOCK,
    N_COLUMNS,
    N_TILE,
    Job,
    Totals,
    add_share,
    extremes,
    gather,
    pack,
)

TOP = 50  # binary exponent of the largest component: so no square overflows, below 2**25 dims
FLAT = 2.0**-39  # where no component but 0 is smaller, no square of a difference underflows
FLOOR = 2.0**-100  # else squared distances below this may be made of what has underflowed
OVERHEAD = 16  # dimensions that the root of a distance costs, and its sums
SERIAL_WORK = 2**25  # n_rows·n_points·dimensions below which waking threads costs more


def separations(
    points: Points, starts: NDArray[np.int64], rows: NDArray[np.int64], threads: int
) -> Separation:
    """See `pipeline.kernels.contract.Kernels.separations`.

    The threads are Python's, as a pass is long and a pool that others share is not needed.
    """
    n_points, n_dims = points.shape
    is_mirrored = 2 * len(rows) > n_points  # then all cost no more, as each pair comes once
    computed = np.arange(n_points) if is_mirrored else np.array(rows, np.int64)
    n_rows = len(computed)
    starts = np.array(starts, np.int64)  # a read-only array is another type for numba
    blocks = blocks_of(starts)
    edges = np.append(np.arange(0, n_rows, N_BLOCK // N_TILE * N_TILE), n_rows)
    tiles = blocks[:, :2] if is_mirrored else np.stack([edges[:-1], edges[1:]], axis=1)
    address = int(points.__array_interface__["data"][0])
    scale, floor = _scale_and_floor(address, points.size)
    job = Job(
        *(address, n_dims, scale, floor, starts, blocks, computed),
        np.searchsorted(starts, computed, side="right") - 1,
        np.ascontiguousarray(tiles),
        is_mirrored,
    )
    sums = Totals(
        np.zeros(n_rows),
        np.full(n_rows, np.inf),
        np.zeros(n_rows),
        np.empty((len(blocks) if is_mirrored else 1, N_BLOCK)),
    )
    if n_rows * n_points * (n_dims + OVERHEAD) <= SERIAL_WORK:
        threads = 1
    with ThreadPoolExecutor(threads) as pool:
        for b in range(len(blocks) if n_rows else 0):
            _pass(job, b, sums, threads, pool)
    picked = rows if is_mirrored else slice(None)
    return Separation(sums.own[picked] / scale, sums.others[picked] / scale)


def _pass(job: Job, b: int, sums: Totals, threads: int, pool: ThreadPoolExecutor) -> None:
    """Block b as columns: all sums to its points, and from them to the rows before it."""
    first, last = job.blocks[b, :2].tolist()
    panels = _aligned(-(-(last - first) // N_COLUMNS), job.n_dims, N_COLUMNS)
    n_tiles = b + 1 if job.is_mirrored else len(job.tiles)
    pack(job, first, last, panels)
    share = partial(add_share, job, b, n_tiles, np.zeros(1, np.int64), panels, sums)
    others = [pool.submit(share) for _ in range(min(threads, n_tiles) - 1)]
    share()
    for other in others:
        other.result()
    if job.is_mirrored:
        gather(job, b, sums)


def blocks_of(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Points in blocks of at most `N_BLOCK`: several whole clusters, or a part of a larger one."""
    blocks: list[tuple[int, int, int, int]] = []
    edges = starts.tolist()
    for k, (first, last) in enumerate(pairwise(edges)):
        n_parts = -(-(last - first) // N_BLOCK)
        if n_parts > 1:
            cuts = [first + (last - first) * part // n_parts for part in range(n_parts + 1)]
            blocks += [(a, b, k, k + 1) for a, b in pairwise(cuts)]
        elif blocks and _is_whole(blocks[-1], edges) and last - blocks[-1][0] <= N_BLOCK:
            blocks[-1] = (blocks[-1][0], last, blocks[-1][2], k + 1)
        else:
            blocks.append((first, last, k, k + 1))
    return np.array(blocks, np.int64).reshape(-1, 4)


def _is_whole(block: tuple[int, int, int, int], edges: list[int]) -> bool:
    first, last, cluster, end = block
    return edges[cluster] == first and edges[end] == last


def _scale_and_floor(address: int, size: int) -> tuple[float, float]:
    """What makes float32 safe for these components; powers of two."""
    magnitudes = np.array(extremes(address, size), np.uint32).view(np.float32)
    largest, smallest = (float(value) for value in magnitudes)
    if largest == 0.0:
        return 1.0, 0.0
    scale = math.ldexp(1.0, TOP - math.frexp(largest)[1])
    return scale, 0.0 if smallest * scale >= FLAT else FLOOR


def _aligned(*shape: int) -> NDArray[np.float32]:
    """Empty float32 that begins with a cache line: vectors of 512 bits else reach over two."""
    size = math.prod(shape)
    raw = np.empty(size + 16, np.float32)
    start = -int(raw.__array_interface__["data"][0]) % 64 // 4
    return raw[start : start + size].reshape(shape)
