"""Memory of the CUDA twin: what stays on the device, and the way there and back.

One bound covers everything: the models that are in use, and what one call needs at a time.
Buffers of calls are kept, so a micro-batch allocates nothing once there was one of its size;
they grow by powers of two, and are given up where a model or another call needs the room.

Rows travel through two slots of page-locked memory with a stream each: while one part computes,
the host fills the other slot and the device fetches it. So a matrix that is larger than the
device, or than the machine (`numpy.memmap`), goes through in parts and is never copied whole.
"""
# mypy: ignore-errors
# (numba has no types)

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError
from numpy.typing import DTypeLike, NDArray

from pipeline.errors import ConfigError

MAX_STAGED_BYTES = 2**26
"""Of page-locked memory in both slots. A part is then 8 000 rows of 1024 dimensions: about as
many as keep a large card busy, and a few times what a launch costs."""
WHOLE_ROWS = 64  # parts of more rows are whole tiles of the kernels


class Column(NamedTuple):
    """What a part has for each of its rows: one value, or a row of ``width`` values."""

    name: str
    dtype: DTypeLike
    width: int | None = None
    is_staged: bool = False
    """It is sent to the device or fetched from there."""

    @property
    def row_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * (1 if self.width is None else self.width)

    def shape(self, n_rows: int) -> tuple[int, ...]:
        return (n_rows,) if self.width is None else (n_rows, self.width)


class Slot:
    """One part on its way; what is asked of a slot happens in order, on its stream."""

    def __init__(self) -> None:
        self.stream = cuda.stream()
        self._device: dict[str, Any] = {}  # flat, of more elements than a part needs
        self._host: dict[str, NDArray[Any]] = {}  # likewise, page-locked
        self._views: dict[str, tuple[Any, Any]] = {}
        self._n_rows = -1
        self._columns: tuple[Column, ...] = ()
        self._due: list[tuple[NDArray[Any], NDArray[Any]]] = []

    @property
    def n_bytes(self) -> int:
        return sum(buffer.nbytes for buffer in self._device.values())

    def cut(self, columns: tuple[Column, ...], n_rows: int) -> None:
        """Make `array` give arrays of ``n_rows``; those of the part before are then gone."""
        self.finish()
        if (columns, n_rows) == (self._columns, self._n_rows):
            return  # views of a device array cost as much as a launch
        self._columns, self._n_rows = columns, n_rows
        self._views = {}
        for column in columns:
            shape = column.shape(n_rows)
            device = self._device[column.name][: math.prod(shape)].reshape(shape)
            host = None
            if column.is_staged:
                host = self._host[column.name][: math.prod(shape)].reshape(shape)
            self._views[column.name] = device, host

    def array(self, name: str) -> Any:
        """The column on the device."""
        return self._views[name][0]

    def send(self, name: str, rows: NDArray[Any]) -> None:
        """Copy ``rows`` to the device; they may be changed afterwards."""
        device, host = self._views[name]
        np.copyto(host, rows, casting="same_kind")
        device.copy_to_device(host, stream=self.stream)

    def fetch(self, name: str, into: NDArray[Any]) -> None:
        """Copy a column from the device; it has arrived in ``into`` after `finish`."""
        device, host = self._views[name]
        device.copy_to_host(host, stream=self.stream)
        self._due.append((host, into))

    def finish(self) -> None:
        """Wait until everything that was asked for has happened."""
        self.stream.synchronize()
        for host, into in self._due:
            into[...] = host
        self._due.clear()

    def holds(self, column: Column, n_rows: int) -> bool:
        """Whether there is room for so many rows of it."""
        n_elements = math.prod(column.shape(n_rows))
        buffer = self._device.get(column.name)
        if buffer is None or buffer.dtype != column.dtype or buffer.size < n_elements:
            return False
        return not column.is_staged or column.name in self._host

    def grow(self, column: Column, n_rows: int) -> None:
        """Make room for so many rows of it, and forget what stood there."""
        n_elements = math.prod(column.shape(n_rows))
        self._columns, self._views, self._n_rows = (), {}, -1
        self._device.pop(column.name, None)  # before its successor is allocated
        self._device[column.name] = cuda.device_array(n_elements, column.dtype)
        if column.is_staged:
            self._host.pop(column.name, None)
            self._host[column.name] = cuda.pinned_array(n_elements, column.dtype)

    def drop(self) -> None:
        """Give everything up."""
        self.finish()
        self._columns, self._views, self._n_rows = (), {}, -1
        self._device.clear()
        self._host.clear()


class Layout(NamedTuple):
    """Where one call computes."""

    slots: tuple[Slot, ...]
    columns: tuple[Column, ...]
    n_part: int
    """Rows of a part at most."""
    whole: Mapping[str, Any]
    """Arrays that all parts share."""

    def parts(self, n_rows: int) -> Iterator[tuple[Slot, slice]]:
        """Slots in turns, each cut to its part and done with the part before."""
        for i, start in enumerate(range(0, n_rows, self.n_part)):
            part = slice(start, min(start + self.n_part, n_rows))
            yield self.next(i, part.stop - part.start), part
        self.finish()

    def next(self, turn: int, n_rows: int) -> Slot:
        """The slot whose turn it is."""
        slot = self.slots[turn % len(self.slots)]
        slot.cut(self.columns, n_rows)
        return slot

    def finish(self) -> None:
        """Wait for every slot."""
        for slot in self.slots:
            slot.finish()


class Hold:
    """A share of the bound, for as long as somebody keeps this."""

    __slots__ = ("__weakref__", "n_bytes")

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes


class CudaMemory:
    """Device memory within a bound; callers take `lock` from `lay_out` until they are done.

    Parameters
    ----------
    max_bytes
        Of models and of one call together. What the driver and the compiled kernels take, some
        hundred MiB, comes on top; memory that was given up returns to the driver a little later.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.lock = threading.Lock()
        self._models: WeakSet[Hold] = WeakSet()
        self._slots = (Slot(), Slot())
        self._whole: dict[str, Any] = {}

    @property
    def room(self) -> int:
        """Bytes that a call may take beside the models."""
        return self.max_bytes - sum(hold.n_bytes for hold in list(self._models))

    @property
    def n_kept(self) -> int:
        """Bytes of the buffers that are kept for the next call."""
        return sum(slot.n_bytes for slot in self._slots) + _n_bytes(self._whole.values())

    def load(
        self, arrays: Sequence[NDArray[Any]], what: str, *, spare_bytes: int = 0
    ) -> tuple[Hold, list[Any]]:
        """Copies of arrays on the device, counted until the `Hold` is garbage.

        Parameters
        ----------
        spare_bytes
            What must be left for calls.

        Raises
        ------
        ConfigError
            They do not fit; ``what`` names them in its sentence.
        """
        with self.lock:
            hold = Hold(_n_bytes(arrays))
            if hold.n_bytes + spare_bytes > self.room:
                raise self._too_large(what, hold.n_bytes + spare_bytes)
            if hold.n_bytes + self.n_kept > self.room:
                self._drop()
            with self._others_may_have_it():
                loaded = [cuda.to_device(array) for array in arrays]
            self._models.add(hold)
            return hold, loaded

    def lay_out(
        self,
        columns: tuple[Column, ...],
        n_rows: int,
        whole: Mapping[str, tuple[tuple[int, ...], DTypeLike]] | None = None,
    ) -> Layout:
        """Memory for a call on ``n_rows`` >= 1 rows.

        Parameters
        ----------
        columns
            What each part has.
        whole
            Name -> shape and dtype of arrays that all parts share; their content is anything.

        Raises
        ------
        ConfigError
            Not even one row fits.
        """
        assert self.lock.locked()
        wanted = dict(whole or {})
        whole_bytes = sum(math.prod(s) * np.dtype(t).itemsize for s, t in wanted.values())
        row_bytes = 2 * sum(column.row_bytes for column in columns)
        fitting = (self.room - whole_bytes) // max(row_bytes, 1)
        if fitting < 1:
            raise self._too_large("one row and the arrays of a call", whole_bytes + row_bytes)
        staged = 2 * sum(column.row_bytes for column in columns if column.is_staged)
        most = min(fitting, MAX_STAGED_BYTES // max(staged, 1))
        most = max(1, most if most < WHOLE_ROWS else most // WHOLE_ROWS * WHOLE_ROWS)
        n_part = min(n_rows, most)
        n_slots = 1 if n_part == n_rows else 2
        n_kept = min(most, 1 << (n_part - 1).bit_length())
        self._provide(self._slots[:n_slots], columns, n_kept, wanted)
        views = {
            name: self._whole[name][: math.prod(shape)].reshape(shape)
            for name, (shape, _) in wanted.items()
        }
        return Layout(self._slots[:n_slots], columns, n_part, views)

    def _provide(
        self,
        slots: tuple[Slot, ...],
        columns: tuple[Column, ...],
        n_rows: int,
        whole: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
    ) -> None:
        """Grow what is too small; when that exceeds the bound, keep nothing else."""
        for _ in range(2):
            lacking = [
                (slot, column)
                for slot in slots
                for column in columns
                if not slot.holds(column, n_rows)
            ]
            short = {
                name: (shape, dtype)
                for name, (shape, dtype) in whole.items()
                if name not in self._whole
                or self._whole[name].dtype != dtype
                or self._whole[name].size < math.prod(shape)
            }
            more = sum(column.row_bytes * n_rows for _, column in lacking)
            more += sum(math.prod(s) * np.dtype(t).itemsize for s, t in short.values())
            if self.n_kept + more <= self.room:
                break
            self._drop()
        with self._others_may_have_it():
            for slot, column in lacking:
                slot.grow(column, n_rows)
            for name, (shape, dtype) in short.items():
                self._whole.pop(name, None)
                self._whole[name] = cuda.device_array(math.prod(shape), dtype)

    @contextmanager
    def _others_may_have_it(self) -> Iterator[None]:
        try:
            yield
        except CudaAPIError as error:
            self._drop()
            raise ConfigError(
                f"the device gives no more memory ({error}): others use it; lower "
                "device.max_memory_bytes, or set device.kind to cpu"
            ) from error

    def _drop(self) -> None:
        for slot in self._slots:
            slot.drop()
        self._whole.clear()

    def _too_large(self, what: str, n_bytes: int) -> ConfigError:
        return ConfigError(
            f"{what}: {n_bytes} bytes, but the device has {max(self.room, 0)} left of the "
            f"{self.max_bytes} that Eddy may take; raise device.max_memory_bytes, or set "
            "device.kind to cpu"
        )


def _n_bytes(arrays: Any) -> int:
    return sum(array.nbytes for array in arrays)
