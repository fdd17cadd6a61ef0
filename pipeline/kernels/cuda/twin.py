"""The twin for NVIDIA devices; numba's simulator runs it as well, on a few dozen points.

What runs on the device stands in `pipeline.kernels.cuda.loops`, `pipeline.kernels.cuda.borders`,
`pipeline.kernels.cuda.tensor` and `pipeline.kernels.cuda.separations`; how rows get there in
`pipeline.kernels.cuda.memory`; here is what is launched on which part.
"""
# mypy: ignore-errors
# (numba types the kernels by their arguments)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.cuda.core import config
from numba.cuda.cudadrv.driver import CudaAPIError
from numba.cuda.cudadrv.error import CudaSupportError
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.kernels.bounds import BoundedModel, bounded
from pipeline.kernels.contract import (
    Assignment,
    Labels,
    Points,
    Separation,
    Sums,
    Weights,
    check_weights,
)
from pipeline.kernels.cuda.borders import MAX_TABLE, nearest_border, steepness
from pipeline.kernels.cuda.loops import (
    SIDE,
    SIMULATED,
    THREADS,
    TILE,
    accumulate,
    accumulate_weighted,
    centre_points,
    decide,
    nearest_by_bound,
)
from pipeline.kernels.cuda.memory import Column, CudaMemory, Hold, Slot
from pipeline.kernels.cuda.separations import separations
from pipeline.kernels.cuda.tensor import (
    MIN_POINTS,
    Operands,
    TensorModel,
    border_by_tensor,
    nearest_by_tensor,
    padded_dims,
    suits,
    tensor_arrays,
    tensor_model,
    tensor_steepness,
)
from pipeline.kernels.devices import DeviceMemory

config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # of a micro-batch it is low, and has to be

MIN_SAMPLE, MAX_DOUBTFUL = 2**12, 0.2  # points to judge by; the share that is too much
RESULTS = ("labels", "distances", "gaps", "second_labels", "second_distances")  # of `decide`


@dataclass(slots=True)
class Doubt:
    """How often fp16 leaves a label open: where that is often, float32 is faster."""

    n_points: int = 0  # that tensor cores proposed a label for
    n_doubtful: int = 0  # of these
    n_seen: int = 0  # of `CudaModel.n_doubtful`, when last looked at

    @property
    def is_large(self) -> bool:
        return self.n_points >= MIN_SAMPLE and self.n_doubtful > MAX_DOUBTFUL * self.n_points

    def look(self, n_points: int, n_seen: int) -> None:
        """Take in a call: its points by tensor cores, and the counter after it."""
        if n_points:
            self.n_points += n_points
            self.n_doubtful += n_seen - self.n_seen
        self.n_seen = n_seen


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
    n_doubtful: Any  # (1,) int32: points that the bounds left open, ever
    steep: list[Any]  # what margins need, `steepness`: empty until the first are asked for
    tensor: TensorModel | None  # where tensor cores propose
    tensor_steep: list[Any]  # `tensor_steepness`, likewise
    doubt: Doubt
    holds: list[Hold]  # what its arrays take of the memory, as long as it lives


class CudaKernels:
    """The twin for an NVIDIA device.

    Parameters
    ----------
    max_memory_bytes
        What the loaded models and one call's points and results may take together; more points
        go in parts. None: half of what is free when the twin is made.
    tensor
        Whether tensor cores propose labels. None: where the device has them, and models are large
        enough. Changes gaps and margins, which are bounds, and nothing else.

    Raises
    ------
    ConfigError
        No device answers; later, a model does not fit.
    """

    name = "cuda"

    def __init__(self, max_memory_bytes: int | None = None, *, tensor: bool | None = None) -> None:
        try:
            free = cuda.current_context().get_memory_info()[0]
        except (CudaSupportError, CudaAPIError) as error:
            cause = " ".join(str(error).split())
            raise ConfigError(
                f"no CUDA device answers ({cause}); `nvidia-smi` must list one in this container, "
                "or set device.kind to cpu"
            ) from error
        self.device: str = device_name()
        self.tensor = tensor
        self.memory = CudaMemory(max_memory_bytes or int(min(free / 2, 2**40)))

    def device_memory(self) -> DeviceMemory | None:
        """As the driver has it; None of the simulator, and of a card that does not answer."""
        if SIMULATED:
            return None
        try:
            free, total = cuda.current_context().get_memory_info()
        except (CudaSupportError, CudaAPIError):
            return None
        return DeviceMemory(int(total - free), int(total))

    def load(self, centroids: Points) -> CudaModel:
        """See `pipeline.kernels.contract.Kernels.load`; ConfigError where it does not fit."""
        model = bounded(centroids)
        what = "a model of {} clusters in {} dimensions".format(*centroids.shape)
        by_tensor = self._suit_tensor_cores(*centroids.shape)
        given = tensor_arrays(model) if by_tensor else ()
        arrays = *model[:5], np.zeros(1, np.int32), *given
        spare = _spare_bytes(len(model.middle), by_tensor)
        hold, arrays = self.memory.load(arrays, what, spare_bytes=spare)
        return CudaModel(
            *arrays[:5],
            *model[5:],
            n_doubtful=arrays[5],
            steep=[],
            tensor=tensor_model(model, arrays[1], arrays[6:]) if by_tensor else None,
            tensor_steep=[],
            doubt=Doubt(),
            holds=[hold],
        )

    def assign(
        self, model: CudaModel, points: Points, *, second: bool = False, margin: bool = False
    ) -> Assignment:
        """See `pipeline.kernels.contract.Kernels.assign`."""
        n_points, n_dims = points.shape
        assert n_dims == model.centroids.shape[1], f"{n_dims} dimensions"
        found = {
            "labels": np.empty(n_points, np.int32),
            "distances": np.empty(n_points, np.float64),
            "gaps": np.empty(n_points, np.float32),
        }
        if second:
            found["second_labels"] = np.empty(n_points, np.int32)
            found["second_distances"] = np.empty(n_points, np.float64)
        if margin:
            found["margins"] = np.empty(n_points, np.float32)
            self._steepen(model)
        if n_points:
            with self.memory.lock:
                by_tensor = model.tensor is not None and not model.doubt.is_large
                layout = self.memory.lay_out(_columns_of_assign(n_dims, by_tensor), n_points)
                n_by_tensor = 0
                for slot, part in layout.parts(n_points):
                    into = {name: array[part] for name, array in found.items()}
                    n_by_tensor += _assign_part(model, slot, points[part], into, by_tensor)
                if by_tensor and not second:
                    model.doubt.look(n_by_tensor, int(model.n_doubtful.copy_to_host()[0]))
        names = (*RESULTS, "margins")
        return Assignment(*(found.get(name) for name in names))

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
        """See `pipeline.kernels.contract.Kernels.accumulate`.

        ConfigError, before anything is added, where the sums do not fit.
        """
        n_rows, n_dims = new.shape
        assert old.shape == new.shape
        assert n_dims == sums.sums.shape[1], f"{n_dims} dimensions"
        assert old_labels.shape == new_labels.shape == (n_rows,)
        for labels in (old_labels, new_labels):
            assert not n_rows or (labels.min() >= -1 and labels.max() < len(sums.counts))
        check_weights(sums, n_rows, old_weights, new_weights)
        if not n_rows:
            return
        sides = (old, old_labels, old_weights, -1), (new, new_labels, new_weights, 1)
        columns = _columns_of_accumulate(n_dims, is_weighted=sums.weights is not None)
        arrays = {"counts": sums.counts, "sums": sums.sums, "squares": sums.squares}
        with self.memory.lock:
            shapes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
            layout = self.memory.lay_out(columns, n_rows, shapes)
            totals = tuple(layout.whole.values())
            for total, array in zip(totals, arrays.values(), strict=True):
                total.copy_to_device(array)
            cuda.synchronize()  # both streams add to them
            scales = 1.0 / sums.unit, 1.0 / sums.square_unit
            turn = 0
            for start in range(0, n_rows, layout.n_part):
                part = slice(start, min(start + layout.n_part, n_rows))
                for rows, labels, weights, sign in sides:
                    if (labels[part] >= 0).any():
                        slot = layout.next(turn, part.stop - part.start)
                        given = None if weights is None else weights[part]
                        _add_part(slot, rows[part], labels[part], given, (sign, *scales, *totals))
                        turn += 1
            layout.finish()
            for total, array in zip(totals, arrays.values(), strict=True):
                total.copy_to_host(array)
        if old_weights is not None and new_weights is not None:  # last: memory may be refused
            sums.weigh(old_labels, old_weights, new_labels, new_weights)

    def separations(
        self, points: Points, starts: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> Separation:
        """See `pipeline.kernels.contract.Kernels.separations`."""
        with self.memory.lock:
            return separations(self.memory, points, starts, rows)

    def _steepen(self, model: CudaModel) -> None:
        """Load what margins need, at the first of them; margins are looser if it does not fit."""
        if model.steep:
            return
        what = "the distances between centroids"
        spare = _spare_bytes(len(model.middle), model.tensor is not None)
        host = BoundedModel(*(array.copy_to_host() for array in model[:5]), *model[5:8])
        tables = [steepness(host.centred, host.centroids)]
        if model.tensor is not None and len(host.centroids) ** 2 <= MAX_TABLE:
            tables.append(tensor_steepness(host))
        try:
            hold, arrays = self.memory.load(tables, what, spare_bytes=spare)
        except ConfigError:
            row = steepness(host.centred, host.centroids, max_table=0)
            hold, arrays = self.memory.load([row], what)
        model.holds.append(hold)
        model.steep.append(arrays[0])
        model.tensor_steep.extend(arrays[1:])

    def _suit_tensor_cores(self, n_clusters: int, n_dims: int) -> bool:
        if self.tensor is not None or SIMULATED:
            return bool(self.tensor)
        capability = tuple(cuda.get_current_device().compute_capability)[:2]
        return suits(capability, n_clusters, n_dims)


def device_name() -> str:
    """Of the device of this process; "simulator" is none."""
    if SIMULATED:
        return "simulator"
    name = cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)


def _columns_of_assign(n_dims: int, by_tensor: bool) -> tuple[Column, ...]:
    operands = (
        Column("halves", np.uint16, padded_dims(n_dims)),
        Column("tensor_slopes", np.float32),
        Column("spreads", np.float32),
    )
    return (
        *(operands if by_tensor else ()),
        Column("points", np.float32, n_dims, is_staged=True),
        Column("z", np.float32, n_dims),
        Column("lengths_squared", np.float64),
        Column("slopes", np.float32),
        Column("proposed", np.int32),
        Column("next_least", np.float32),
        Column("labels", np.int32, is_staged=True),
        Column("distances", np.float64, is_staged=True),
        Column("gaps", np.float32, is_staged=True),
        Column("second_labels", np.int32, is_staged=True),
        Column("second_distances", np.float64, is_staged=True),
        Column("margins", np.float32, is_staged=True),
    )


def _spare_bytes(n_dims: int, by_tensor: bool) -> int:
    """What a call needs beside the models: two parts of a tile."""
    return 2 * TILE * sum(column.row_bytes for column in _columns_of_assign(n_dims, by_tensor))


def _columns_of_accumulate(n_dims: int, *, is_weighted: bool) -> tuple[Column, ...]:
    weights = (Column("weights", np.float64, is_staged=True),) if is_weighted else ()
    return (
        Column("points", np.float32, n_dims, is_staged=True),
        Column("labels", np.int32, is_staged=True),
        *weights,
    )


def _assign_part(
    model: CudaModel,
    slot: Slot,
    points: Points,
    into: dict[str, NDArray[Any]],
    by_tensor: bool,
) -> int:
    """One part from copy to copy: the sequence that one CUDA graph would hold.

    All of it happens on the slot's stream, between memory that stays where it is, and nothing
    in it waits: what it gives has arrived after `Slot.finish`. Says for how many points tensor
    cores proposed the label: a part that is smaller than a tile of theirs is not worth it.
    """
    n_points = len(points)
    tiles = -(-n_points // TILE)
    z, lengths_squared, slopes, proposed, next_least = (
        slot.array(name) for name in ("z", "lengths_squared", "slopes", "proposed", "next_least")
    )
    results = [slot.array(name) for name in RESULTS]
    slot.send("points", points)
    x, steep = slot.array("points"), None
    by_tensor = by_tensor and n_points >= MIN_POINTS
    if by_tensor:
        operands = Operands(*(slot.array(f) for f in ("halves", "tensor_slopes", "spreads")))
        nearest_by_tensor(
            *(model.tensor, x, operands, lengths_squared, slopes, proposed, next_least),
            slot.stream,
        )
        steep = model.tensor_steep[0] if model.tensor_steep else None
    if not by_tensor or ("margins" in into and steep is None):
        centre_points[n_points, THREADS, slot.stream](
            x, model.middle, model.slope, model.tilt, z, lengths_squared, slopes
        )
    if not by_tensor:
        nearest_by_bound[tiles, SIDE * SIDE, slot.stream](
            z, model.centred, model.floors, model.reaches, slopes, proposed, next_least
        )
    decide[n_points, THREADS, slot.stream](
        *(x, model.middle, lengths_squared, slopes, proposed, next_least),
        model.tensor.unit if by_tensor else 1.0,
        *(model.centroids, model.centred, model.floors, model.reaches, model.max_length),
        "second_labels" in into,
        *results,
        model.n_doubtful,
    )
    if "margins" in into:
        borders = slot.array("margins")
        if steep is not None:
            border_by_tensor(
                *(model.tensor, operands, steep, lengths_squared, *results[:2], borders),
                slot.stream,
            )
        else:
            nearest_border[tiles, SIDE * SIDE, slot.stream](
                *(z, model.centred, model.floors, model.reaches, slopes, lengths_squared),
                *(*results[:2], model.steep[0], model.max_length, borders),
            )
    for name, array in into.items():
        slot.fetch(name, array)
    return n_points if by_tensor else 0


def _add_part(
    slot: Slot,
    rows: Points,
    labels: Labels,
    weights: Weights | None,
    scales_and_totals: tuple[Any, ...],
) -> None:
    """One side of one part, on the slot's stream."""
    slot.send("points", rows)
    slot.send("labels", labels)
    where = slot.array("points"), slot.array("labels")
    if weights is None:
        accumulate[len(rows), THREADS, slot.stream](*where, *scales_and_totals)
    else:
        slot.send("weights", weights)
        accumulate_weighted[len(rows), THREADS, slot.stream](
            *where, slot.array("weights"), *scales_and_totals
        )
