"""Labels by the tensor cores of a device of compute capability 8.0 or later: fp16 proposes.

Interface: what is launched happens on a stream, and nothing here waits::

    if suits(capability, n_clusters, n_dims):
        arrays = tensor_arrays(model)              of a `bounds.BoundedModel`; to be loaded
        tensor = tensor_model(model, middle, loaded arrays)
    operands = Operands(...)                       arrays of the part, written by the next line
    nearest_by_tensor(tensor, x, operands, lengths_squared, slopes, labels, next_least, stream)
    decide[...](..., labels, next_least, tensor.unit, ...)        as after `nearest_by_bound`
    border_by_tensor(tensor, operands, steep, lengths_squared, labels, distances, margins, stream)

It replaces `centre_points`, `nearest_by_bound` and `nearest_border` where a part has `MIN_POINTS`
rows: nothing else changes, since `decide` takes any bound that is rigorous. No float32 copy of
the centred points is written. None of it has run on a device: the tests run it instruction by
instruction in Python, and assemble it.

The bound
---------
In units in which components of centroids are below 256 (a power of two per model, so scaling
rounds nothing) let Z = x - m, W = c - m, and Ẑ, Ŵ the fp16 numbers that are multiplied. Then

    Z·W = Ẑ·Ŵ + (Z - Ẑ)·W + Ẑ·(W - Ŵ)

so by Cauchy-Schwarz the product of the rounded operands is off by at most
``|Z - Ẑ| |W| + |Ẑ| |W - Ŵ|``: norms that are computed from the very bits. A component beyond the
range of fp16 is clipped, which is one more residual: such a row is doubtful, not wrong.

Products of fp16 are exact in float32, their sum P is not. A matrix unit aligns h products and
the accumulator to the largest of them and may truncate each to 2**-23 of it, and so the result
("Numerical behavior of NVIDIA tensor cores", 2021, section 3). One such step loses at most
(h + 2) 2**-23 S, where S = sum |Ẑ_i Ŵ_i| <= |Ẑ| |Ŵ|; d / h of them lose d (1 + 2/h) 2**-23 S, not
more than d 2**-22 S for any h >= 2. So with u' = 2**-22, twice the unit of truncation, and
γ' = du' / (1 - du') as for any order of rounded sums,

    |P - Ẑ·Ŵ| <= γ' |Ẑ| |Ŵ| <= γ' |Ẑ| (|W| + |W - Ŵ|).

What is computed, with u = 2**-24,

    L_k = floor_k - 2P - fl(slope reach_k) - fl(spread residual_k)
    floor_k = |W|² (1 - 16u),  reach_k = |W|,  residual_k = |W - Ŵ|
    slope = 2 (|Z - Ẑ| + (γ' + 16u) |Ẑ|) (1 + 2**-19),  spread = 2 (1 + γ') |Ẑ| (1 + 2**-19)

has three subtractions. They round by at most 3u (|W|² + 2 (1 + γ') |Ẑ| |Ŵ|) and 4u of the last
two terms: the 16u of ``floor``, the 32u |Ẑ| |W| within ``slope``, and the factors are more than
that. So L_k is below |W|² - 2 Z·W, and ``L_k unit + |z|²`` below the squared distance.
"""
# mypy: ignore-errors
# (numba types the kernels by their arguments)

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, float32, float64, uint32
from numpy.typing import NDArray

from pipeline.kernels.bounds import UNIT, BoundedModel
from pipeline.kernels.cuda.borders import steepness
from pipeline.kernels.cuda.loops import LANES, LENGTHEN, OWN_LANES, THREADS, folded
from pipeline.kernels.cuda.ptx import from_half, load_4, store_2, to_half
from pipeline.kernels.cuda.sweeps import DEPTH, RING_DIMS, Tile, make_sweeps

CAPABILITY = (8, 0)  # the first with `cp.async`
MIN_CLUSTERS, MIN_DIMS = 64, 64  # half a tile, two stages: an estimate, not measured on a device
MAX_DIMS = 2**16  # γ' is then 1/64
MAX_COMPONENT_BITS = 8  # of centroids, scaled: points may be 256 times longer, or 2**-22 as long
MAX_HALF = 65504.0
MAX_SQUARE = 1e30  # of a scaled length; float32 must hold its products
TRUNCATED = 2.0**-22  # u', of a matrix unit
SLACK = 1.0 + 2.0**-19


class TensorModel(NamedTuple):
    """Operands of a model, in scaled units: arrays on the device, and numbers."""

    middle: Any  # (n_dims,) float32, in units of the data
    halves: Any  # (n_clusters padded, n_dims padded) uint16: bits of fp16
    floors: Any  # (n_clusters padded,) float32; +inf where padded
    reaches: Any  # (n_clusters padded,) float32
    residuals: Any  # (n_clusters padded,) float32
    n_clusters: int
    slope: float  # of `BoundedModel`, for the float32 bound of what is left open
    tilt: float
    max_length: float
    growth: float  # γ'
    scale: float  # a unit of the data is so many scaled ones
    unit: float  # turns squares of scaled units into those of the data


class Operands(NamedTuple):
    """Of the points of a part, on the device; written by `nearest_by_tensor`."""

    halves: Any  # (n_points, n_dims padded) uint16: bits of fp16
    slopes: Any  # (n_points,) float32
    spreads: Any  # (n_points,) float32


def suits(capability: tuple[int, int], n_clusters: int, n_dims: int) -> bool:
    """Whether the device can do it and has enough to do."""
    is_large = n_clusters >= MIN_CLUSTERS and n_dims >= MIN_DIMS
    return capability >= CAPABILITY and is_large and n_dims <= MAX_DIMS


def padded_dims(n_dims: int) -> int:
    """Dimensions of the operands; zeros are added."""
    return max(RING_DIMS, _padded(n_dims, DEPTH))


def _padded(size: int, step: int) -> int:
    return -(-size // step) * step


def _scale(model: BoundedModel) -> float:
    largest = float(np.abs(_scaled_centroids(model, 1.0)).max())
    if not 0.0 < largest < np.inf:
        return 1.0
    return float(2.0 ** (MAX_COMPONENT_BITS - int(np.frexp(largest)[1])))


def _scaled_centroids(model: BoundedModel, scale: float) -> NDArray[np.float64]:
    exact: NDArray[np.float64] = (model.centroids.astype(np.float64) - model.middle) * scale
    return exact


def tensor_arrays(model: BoundedModel) -> tuple[NDArray[Any], ...]:
    """fp16 bits, floors, reaches and residuals of the centroids, padded to whole tiles."""
    n_clusters, n_dims = model.centroids.shape
    n_rows = _padded(n_clusters, SWEEPS.tile.n_clusters)
    exact = _scaled_centroids(model, _scale(model))
    halves = np.zeros((n_rows, padded_dims(n_dims)), np.float16)
    halves[:n_clusters, :n_dims] = exact
    lost = exact - halves[:n_clusters, :n_dims]
    squares = np.einsum("ij,ij->i", exact, exact)
    columns = [np.full(n_rows, np.inf), np.zeros(n_rows), np.zeros(n_rows)]
    columns[0][:n_clusters] = squares * (1.0 - 16.0 * UNIT)
    columns[1][:n_clusters] = np.sqrt(squares) * (1.0 + 4.0 * UNIT)
    columns[2][:n_clusters] = np.sqrt(np.einsum("ij,ij->i", lost, lost)) * (1.0 + 4.0 * UNIT)
    floors, reaches, residuals = (column.astype(np.float32) for column in columns)
    infinity = np.float32(np.inf)
    floors[:n_clusters] = np.nextafter(floors[:n_clusters], -infinity)
    reaches[:n_clusters] = np.nextafter(reaches[:n_clusters], infinity)
    residuals[:n_clusters] = np.nextafter(residuals[:n_clusters], infinity)
    return halves.view(np.uint16), floors, reaches, residuals


def tensor_model(model: BoundedModel, middle: Any, arrays: Any) -> TensorModel:
    """Of what was loaded: the middle of the model, and its `tensor_arrays`."""
    n_dims = padded_dims(model.centroids.shape[1])
    scale = _scale(model)
    return TensorModel(
        middle,
        *arrays,
        n_clusters=len(model.centroids),
        slope=model.slope,
        tilt=model.tilt,
        max_length=model.max_length,
        growth=n_dims * TRUNCATED / (1.0 - n_dims * TRUNCATED),
        scale=scale,
        unit=scale**-2.0,
    )


def tensor_steepness(model: BoundedModel) -> NDArray[np.float32]:
    """`steepness` in scaled units, padded to whole tiles, for `border_by_tensor`."""
    scaled = _scaled_centroids(model, _scale(model)).astype(np.float32)
    table = steepness(scaled, model.centroids)
    n_missing = _padded(len(table), SWEEPS.tile.n_clusters) - len(table)
    return np.pad(table, ((0, 0), (0, n_missing)), constant_values=1.0)


@cuda.jit
def round_points(
    points,  #           IN   (n_points, n_dims)         float32
    middle,  #           IN   (n_dims,)                  float32
    slope,
    tilt,
    scale,
    growth,
    halves,  #           OUT  (n_points, n_dims padded)  uint16: bits of fp16
    tensor_slopes,  #    OUT  (n_points,)                float32
    spreads,  #          OUT  (n_points,)                float32
    lengths_squared,  #  OUT  (n_points,)                float64: |x - m|²
    slopes,  #           OUT  (n_points,)                float32: for the float32 bound
):
    """One warp centres, scales and rounds one point; a thread takes four components at a time."""
    lanes = cuda.shared.array(LANES, float64)
    sums = cuda.local.array(OWN_LANES, float64)
    four = cuda.local.array(4, float32)
    bits = cuda.local.array(4, uint32)
    i = cuda.blockIdx.x
    n_dims = points.shape[1]
    total, lost, kept = 0.0, 0.0, 0.0
    for start in range(4 * cuda.threadIdx.x, halves.shape[1], 4 * THREADS):
        if n_dims % 4 == 0 and start < n_dims:
            loaded = load_4(points, i * n_dims + start)
            four[0], four[1], four[2], four[3] = loaded[0], loaded[1], loaded[2], loaded[3]
        else:
            for e in range(4):
                four[e] = points[i, start + e] if start + e < n_dims else float32(0.0)
        for e in range(4):
            gap = 0.0
            if start + e < n_dims:
                gap = float64(four[e]) - float64(middle[start + e])
            scaled = gap * scale
            half = to_half(float32(min(max(scaled, -MAX_HALF), MAX_HALF)))
            back = float64(from_half(half))
            bits[e] = uint32(half)
            total += gap * gap
            lost += (scaled - back) * (scaled - back)
            kept += back * back
        store_2(
            halves,
            i * halves.shape[1] + start,
            uint32(bits[0] | (bits[1] << uint32(16))),
            uint32(bits[2] | (bits[3] << uint32(16))),
        )
    for own in range(1, OWN_LANES):
        sums[own] = 0.0
    sums[0] = total
    total = folded(sums, lanes)
    sums[0] = lost
    lost = folded(sums, lanes)
    sums[0] = kept
    kept = folded(sums, lanes)
    if cuda.threadIdx.x == 0:
        lengths_squared[i] = total
        slopes[i] = float32((slope * math.sqrt(total) * LENGTHEN + tilt) * LENGTHEN)
        length = math.sqrt(kept) if total * scale * scale < MAX_SQUARE else np.inf
        tensor_slopes[i] = float32(
            2.0 * (math.sqrt(lost) + (growth + 16.0 * UNIT) * length) * SLACK
        )
        spreads[i] = float32(2.0 * (1.0 + growth) * length * SLACK)


def nearest_by_tensor(
    model: TensorModel,
    points: Any,
    operands: Operands,
    lengths_squared: Any,
    slopes: Any,
    labels: Any,
    next_least: Any,
    stream: Any = 0,
) -> None:
    """Label of the least lower bound, and the next least bound, of `MIN_POINTS` points or more.

    Parameters
    ----------
    points : (n_points, n_dims) float32
        All arrays are on the device; those below and ``operands`` are written.
    lengths_squared, slopes : (n_points,) float64, float32
        |x - m|² in units of the data; the slope of the float32 bound, for `decide`.
    labels, next_least : (n_points,) int32, float32
        The bound is in scaled units: times ``model.unit`` it is what `decide` compares.
    """
    n_points = points.shape[0]
    round_points[n_points, THREADS, stream](
        *(points, model.middle, model.slope, model.tilt, model.scale, model.growth),
        *(*operands, lengths_squared, slopes),
    )
    SWEEPS.nearest[SWEEPS.tile.launch(n_points, stream)](
        *(operands.halves, model.halves, model.floors, model.reaches, model.residuals),
        *(operands.slopes, operands.spreads, labels, next_least),
    )


def border_by_tensor(
    model: TensorModel,
    operands: Operands,
    steep: Any,
    lengths_squared: Any,
    labels: Any,
    distances: Any,
    margins: Any,
    stream: Any = 0,
) -> None:
    """Margins of the points of `nearest_by_tensor`, once `decide` is done with them.

    ``steep`` is the `tensor_steepness` of the model.
    """
    BORDER_SWEEPS.border[BORDER_SWEEPS.tile.launch(margins.shape[0], stream)](
        *(operands.halves, model.halves, model.floors, model.reaches, model.residuals),
        *(operands.slopes, operands.spreads, model.n_clusters, model.scale, lengths_squared),
        *(labels, distances, steep, model.max_length, margins),
    )


SWEEPS = make_sweeps(Tile())
BORDER_SWEEPS = make_sweeps(Tile(n_clusters=64))  # its questions take registers, too
MIN_POINTS = SWEEPS.tile.n_points
