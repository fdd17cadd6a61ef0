"""The tile kernels of the tensor cores: a sweep over all centroids, with one of two questions.

A block takes a tile of points through all tiles of centroids. Operands come 32 dimensions at a
time into a ring in shared memory, two stages ahead of the one that is multiplied. A row of a
stage is 64 bytes, four chunks of 16; chunk c of row r lies at c ^ (r / 2 mod 4), so the eight
rows that one matrix load reads lie in all 32 banks. Three stages of 2 x 128 rows are the 48 KiB
that a block gets without asking.

A warp has products of 16 points by 8 centroids in registers, 2 x 8 of them. Of each, thread t
holds rows t / 4 and t / 4 + 8, and columns 2 (t mod 4) and the next ("Parallel Thread Execution
ISA", 9.0, section 9.7.14.5, ``mma.m16n8k16``): so a row of points is with four threads of each
warp that shares it, and what they found is put together through shared memory.

Casts to int32 keep indices from taking two registers each: numba adds in 64 bits. With them the
assembler says 128 registers and nothing spilled, as it must for two blocks at a time. Nothing
here has been timed, or has run on a device.
"""
# mypy: ignore-errors
# (numba types the kernels by their arguments)

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, float32, float64, int32, int64, uint16, uint32

from pipeline.kernels.cuda.borders import head_start, margin_of
from pipeline.kernels.cuda.loops import LENGTHEN, SIMULATED
from pipeline.kernels.cuda.ptx import (
    copy_16,
    end_group,
    load_matrices,
    multiply_add,
    wait_all,
    wait_but_one,
)

DEPTH = 32  # dimensions of a stage
CHUNK = 8  # fp16 numbers in 16 bytes
CHUNKS = DEPTH // CHUNK
STAGES = 3
RING_DIMS = (STAGES - 1) * DEPTH  # what is ahead lies in this tile or in the next
BLOCKS = 2  # at a time on a multiprocessor, which leaves a thread 128 registers
MAX_SLOPE = 3e38  # a longer one left float32: such a point has no bound


class Tile(NamedTuple):
    """How a block and its warps share the work; the simulator gets less of it."""

    n_points: int = 128
    n_clusters: int = 128
    point_warps: int = 4
    cluster_warps: int = 2

    @property
    def n_threads(self) -> int:
        """Of a block."""
        return 32 * self.point_warps * self.cluster_warps

    @property
    def shared_bytes(self) -> int:
        """Of the ring, in which the results of the threads meet at the end."""
        return 2 * STAGES * (self.n_points + self.n_clusters) * DEPTH

    def launch(self, n_points: int, stream: Any) -> tuple[int, int, Any, int]:
        """What a kernel is launched with.

        The last block moves up rather than hang over: it labels some points again, with the same
        operands in the same order, and so says the same.
        """
        assert n_points >= self.n_points
        return -(-n_points // self.n_points), self.n_threads, stream, self.shared_bytes


class Sweeps(NamedTuple):
    """Two kernels for one tile."""

    tile: Tile
    nearest: Any
    border: Any


def _kernel(n_threads):
    """It leaves registers for a second block; the simulator has none to share out."""
    return cuda.jit if SIMULATED else cuda.jit(launch_bounds=(n_threads, BLOCKS))


def _inlined(function):
    """Its arrays must end in registers, which they cannot across a call."""
    return function if SIMULATED else cuda.jit(device=True, forceinline=True)(function)


def make_sweeps(tile: Tile) -> Sweeps:
    """Kernels for tiles of this size, compiled when first launched."""
    n_threads = tile.n_threads
    point_rows, cluster_rows = tile.n_points, tile.n_clusters
    cluster_warps = tile.cluster_warps
    warp_points = point_rows // tile.point_warps
    warp_clusters = cluster_rows // cluster_warps
    row_tiles, column_tiles = warp_points // 16, warp_clusters // 8
    own_rows = 2 * row_tiles
    stage_size = (point_rows + cluster_rows) * DEPTH
    point_copies = point_rows * CHUNKS // n_threads
    cluster_copies = cluster_rows * CHUNKS // n_threads
    copied_rows = n_threads // CHUNKS  # by all threads at once
    row_finds = 4 * cluster_warps  # threads that hold scores of a row
    n_finds = point_rows * row_finds
    assert warp_points % 16 == 0
    assert warp_clusters % 16 == 0
    assert point_copies * n_threads == point_rows * CHUNKS
    assert cluster_copies * n_threads == cluster_rows * CHUNKS
    assert 12 * n_finds <= tile.shared_bytes

    @_inlined
    def fetch(ring, stage, points, start, centroids, k_start, j_start):
        """Ask for one stage: all threads copy, 16 bytes at a time."""
        n_dims = int32(points.shape[1])
        row, chunk = int32(cuda.threadIdx.x // CHUNKS), int32(cuda.threadIdx.x % CHUNKS)
        to = int32(stage * stage_size + row * DEPTH + ((chunk ^ ((row >> 1) & 3)) * CHUNK))
        column = int32(j_start + chunk * CHUNK)
        base = int64(start + row) * n_dims + column
        for e in range(point_copies):
            copy_16(ring, to + e * copied_rows * DEPTH, points, base + e * copied_rows * n_dims)
        to = int32(to + point_rows * DEPTH)
        base = int64(k_start + row) * n_dims + column
        for e in range(cluster_copies):
            copy_16(ring, to + e * copied_rows * DEPTH, centroids, base + e * copied_rows * n_dims)

    @_inlined
    def multiply(ring, stage, scores):
        """Add the products of one stage to the scores of this warp."""
        a = cuda.local.array((row_tiles, 4), uint32)
        lane, warp = int32(cuda.threadIdx.x & 31), int32(cuda.threadIdx.x >> 5)
        # which row of which 8 x 8 matrix a thread points at: A is (row, half), B is (half, row)
        point_row = int32((warp // cluster_warps) * warp_points + (lane & 15))
        cluster_row = int32(
            (warp % cluster_warps) * warp_clusters + (lane & 7) + ((lane >> 4) << 3)
        )
        points_at = int32(stage * stage_size + point_row * DEPTH)
        clusters_at = int32(stage * stage_size + (point_rows + cluster_row) * DEPTH)
        turn = int32((lane >> 1) & 3)  # warps and tiles begin at multiples of eight rows
        for half in range(DEPTH // 16):
            place = int32(points_at + ((2 * half + (lane >> 4)) ^ turn) * CHUNK)
            for i in range(row_tiles):
                a[i, 0], a[i, 1], a[i, 2], a[i, 3] = load_matrices(ring, place + 16 * i * DEPTH)
            place = int32(clusters_at + ((2 * half + ((lane >> 3) & 1)) ^ turn) * CHUNK)
            for j in range(0, column_tiles, 2):
                b = load_matrices(ring, place + 8 * j * DEPTH)
                for i in range(row_tiles):
                    _add_product(scores, i, j, a, b[0], b[1])
                    _add_product(scores, i, j + 1, a, b[2], b[3])

    @_inlined
    def score_tile(ring, points, start, centroids, k_start, stage, scores):
        """Scores of one tile, whose first two stages are under way; says which stage is next."""
        for i in range(row_tiles):
            for j in range(column_tiles):
                for e in range(4):
                    scores[i, j, e] = float32(0.0)
        n_dims = int32(points.shape[1])
        for j_start in range(int32(0), n_dims, int32(DEPTH)):
            wait_but_one()
            cuda.syncthreads()  # all have this stage, and are done with the one that is refilled
            j_ahead, k_ahead = int32(j_start + 2 * DEPTH), int32(k_start)
            if j_ahead >= n_dims:
                j_ahead, k_ahead = int32(j_ahead - n_dims), int32(k_start + cluster_rows)
            if k_ahead < centroids.shape[0]:
                free = int32(stage - 1 if stage > 0 else STAGES - 1)
                fetch(ring, free, points, start, centroids, k_ahead, j_ahead)
            end_group()  # an empty one too, so that all but one are those before it
            multiply(ring, stage, scores)
            stage = int32(stage + 1 if stage < STAGES - 1 else 0)
        return stage

    @_kernel(n_threads)
    def nearest(
        points,  #      IN   (n_points, n_dims padded)           uint16: bits of fp16
        centroids,  #   IN   (n_clusters padded, n_dims padded)  uint16
        floors,  #      IN   (n_clusters padded,)                float32
        reaches,  #     IN   (n_clusters padded,)                float32
        residuals,  #   IN   (n_clusters padded,)                float32
        slopes,  #      IN   (n_points,)                         float32
        spreads,  #     IN   (n_points,)                         float32
        labels,  #      OUT  (n_points,)                         int32: of the least bound
        next_least,  #  OUT  (n_points,)                         float32
    ):
        """What `loops.nearest_by_bound` does."""
        ring = cuda.shared.array(0, uint16)
        bounds = cuda.shared.array(0, float32)  # the same memory, when the ring is empty
        places = cuda.shared.array(0, int32)
        scores = cuda.local.array((row_tiles, column_tiles, 4), float32)
        first = cuda.local.array(own_rows, float32)
        second = cuda.local.array(own_rows, float32)
        place = cuda.local.array(own_rows, int32)
        lane, warp = int32(cuda.threadIdx.x & 31), int32(cuda.threadIdx.x >> 5)
        own_row = int32((warp // cluster_warps) * warp_points + (lane >> 2))
        own_column = int32((warp % cluster_warps) * warp_clusters + 2 * (lane & 3))
        start = int32(min(cuda.blockIdx.x * point_rows, points.shape[0] - point_rows))
        infinity = float32(np.inf)
        for m in range(own_rows):
            first[m] = infinity
            second[m] = infinity
            place[m] = 0
        stage = int32(0)
        for j_start in range(0, (STAGES - 1) * DEPTH, DEPTH):
            fetch(ring, j_start // DEPTH, points, start, centroids, 0, j_start)
            end_group()
        for k_start in range(int32(0), int32(centroids.shape[0]), int32(cluster_rows)):
            stage = score_tile(ring, points, start, centroids, k_start, stage, scores)
            for j in range(column_tiles):
                for e in range(2):
                    k = int32(k_start + own_column + 8 * j + e)
                    floor, reach, residual = floors[k], reaches[k], residuals[k]
                    for m in range(own_rows):
                        i = start + own_row + 8 * m
                        score = scores[m >> 1, j, 2 * (m & 1) + e]
                        bound = floor - float32(2.0) * score - slopes[i] * reach
                        bound -= spreads[i] * residual
                        second[m] = min(second[m], max(first[m], bound))
                        place[m] = int32(k if bound < first[m] else place[m])
                        first[m] = min(first[m], bound)
        wait_all()
        cuda.syncthreads()
        for m in range(own_rows):
            at = (own_row + 8 * m) * row_finds + (warp % cluster_warps) * 4 + (lane & 3)
            bounds[at] = first[m]
            bounds[n_finds + at] = second[m]
            places[2 * n_finds + at] = place[m]
        cuda.syncthreads()
        for row in range(cuda.threadIdx.x, point_rows, n_threads):
            i = start + row
            least, following, label = infinity, infinity, 0
            for at in range(row * row_finds, (row + 1) * row_finds):
                if bounds[at] < least:
                    following = min(least, bounds[n_finds + at])
                    least = bounds[at]
                    label = places[2 * n_finds + at]
                else:
                    following = min(following, bounds[at])
            labels[i] = label
            is_bounded = max(slopes[i], spreads[i]) < float32(MAX_SLOPE)
            next_least[i] = following if is_bounded else -infinity

    @_kernel(n_threads)
    def border(
        points,  #           IN   (n_points, n_dims padded)           uint16: bits of fp16
        centroids,  #        IN   (n_clusters padded, n_dims padded)  uint16
        floors,  #           IN   (n_clusters padded,)                float32
        reaches,  #          IN   (n_clusters padded,)                float32
        residuals,  #        IN   (n_clusters padded,)                float32
        slopes,  #           IN   (n_points,)                         float32
        spreads,  #          IN   (n_points,)                         float32
        n_clusters,
        scale,
        lengths_squared,  #  IN   (n_points,)                         float64
        labels,  #           IN   (n_points,)                         int32
        distances,  #        IN   (n_points,)                         float64
        steep,  #            IN   (n_clusters, padded)                float32
        max_length,
        margins,  #          OUT  (n_points,)                         float32
    ):
        """What `borders.nearest_border` does, in scaled units up to the last line."""
        ring = cuda.shared.array(0, uint16)
        found = cuda.shared.array(0, float32)
        scores = cuda.local.array((row_tiles, column_tiles, 4), float32)
        least = cuda.local.array(own_rows, float32)
        starts = cuda.local.array(own_rows, float32)
        own_labels = cuda.local.array(own_rows, int32)
        lane, warp = int32(cuda.threadIdx.x & 31), int32(cuda.threadIdx.x >> 5)
        own_row = int32((warp // cluster_warps) * warp_points + (lane >> 2))
        own_column = int32((warp % cluster_warps) * warp_clusters + 2 * (lane & 3))
        start = int32(min(cuda.blockIdx.x * point_rows, points.shape[0] - point_rows))
        squared = scale * scale
        infinity = float32(np.inf)
        for m in range(own_rows):
            i = start + own_row + 8 * m
            least[m] = infinity
            own_labels[m] = labels[i]
            starts[m] = head_start(
                distances[i] * squared, lengths_squared[i] * squared, points.shape[1]
            )
        stage = int32(0)
        for j_start in range(0, (STAGES - 1) * DEPTH, DEPTH):
            fetch(ring, j_start // DEPTH, points, start, centroids, 0, j_start)
            end_group()
        for k_start in range(int32(0), int32(centroids.shape[0]), int32(cluster_rows)):
            stage = score_tile(ring, points, start, centroids, k_start, stage, scores)
            k_first = int64(k_start) + own_column
            for j in range(column_tiles):
                for e in range(2):
                    k = k_first + 8 * j + e
                    floor, reach, residual = floors[k], reaches[k], residuals[k]
                    for m in range(own_rows):
                        i = start + own_row + 8 * m
                        score = scores[m >> 1, j, 2 * (m & 1) + e]
                        bound = floor - float32(2.0) * score - slopes[i] * reach
                        bound -= spreads[i] * residual
                        # against itself both factors are negative, and one is huge
                        least[m] = min(least[m], (bound + starts[m]) * steep[own_labels[m], k])
        wait_all()
        cuda.syncthreads()
        for m in range(own_rows):
            at = (own_row + 8 * m) * row_finds + (warp % cluster_warps) * 4 + (lane & 3)
            found[at] = least[m]
        cuda.syncthreads()
        for row in range(cuda.threadIdx.x, point_rows, n_threads):
            i = start + row
            border = infinity
            for at in range(row * row_finds, (row + 1) * row_finds):
                border = min(border, found[at])
            is_bounded = max(slopes[i], spreads[i]) < float32(MAX_SLOPE)
            is_bounded = is_bounded and math.sqrt(lengths_squared[i]) * LENGTHEN <= max_length
            if n_clusters == 1:
                margins[i] = infinity
            elif is_bounded:
                margins[i] = margin_of(float64(border) / scale)
            else:
                margins[i] = float32(0.0)

    return Sweeps(tile, nearest, border)


@_inlined
def _add_product(scores, i, j, a, b0, b1):
    """One instruction: 16 points by 8 centroids, 16 dimensions deep."""
    c = multiply_add(
        a[i, 0], a[i, 1], a[i, 2], a[i, 3], b0, b1,
        scores[i, j, 0], scores[i, j, 1], scores[i, j, 2], scores[i, j, 3],
    )  # fmt: skip
    scores[i, j, 0], scores[i, j, 1], scores[i, j, 2], scores[i, j, 3] = c
