"""The twin for processors with AVX-512: integers of 8 bits propose, and that is enough.

A product of int8 takes a quarter of the time of float32, and its error is known: the very bits
that are multiplied are subtracted from what they stand for (`pipeline.kernels.avx512.packing`).
So every centroid gets a rigorous lower bound, and float64 decides as in the portable twin.
Records that int8 leaves in too much doubt are searched with bfloat16, where the processor has it,
and then with float32; and behind a prefix, where that saves more than it costs
(`pipeline.kernels.cpu.ways`).
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.avx512.loops import assign_parallel, assign_share
from pipeline.kernels.avx512.packing import (
    Bf16Panels,
    Int8Panels,
    Packed,
    Panels,
    is_packable,
    pack,
)
from pipeline.kernels.bounds import NO_BORDERS, Borders
from pipeline.kernels.contract import Points
from pipeline.kernels.cpu.prefix import ROUNDING, basis_for, n_until_prefix, some_basis
from pipeline.kernels.cpu.twin import CpuKernels, CpuModel
from pipeline.kernels.cpu.ways import BF16_NS, INT8_NS, Results, Room, Way, comparison_ns, look_ns
from pipeline.kernels.features import has_avx512_bf16, has_avx512_vnni

MAX_TILE = 48  # records: a multiple of the rows of a product
WIDE_TILE = 24  # where a row of scores is long
WIDE = 1024  # centroids


class PackedSearch:
    """A search of low-precision operands, behind a prefix or not."""

    __slots__ = ("_arguments", "packed", "speed")

    def __init__(self, panels: Panels, packed: Packed) -> None:
        self.packed = packed
        self._arguments = panels, tuple(packed)
        self.speed = 4.0 if isinstance(panels, Int8Panels) else 2.0

    def tile(self, n_points: int, threads: int) -> int:
        """Within a cache, and as many for each thread."""
        most = MAX_TILE if len(self.packed.centroids) <= WIDE else WIDE_TILE
        share = -(-n_points // threads)
        return min(most, -(-share // 6) * 6)

    def n_scratch(self, n_tile: int) -> int:
        """float32 that a thread needs."""
        packed = self.packed
        row: int = packed.row_bytes // 4 + packed.n_rotated + packed.tables.shape[1]
        return -(-(n_tile * row + 2 * len(packed.middle)) // 16) * 16

    def run(
        self, address: int, n_points: int, n_tile: int, threads: int, borders: Borders, room: Room,
        results: Results,
    ) -> None:  # fmt: skip
        """Label the records at an address."""
        model = *self._arguments, tuple(borders), tuple(room), tuple(results)
        if threads > 1:
            numba.set_num_threads(threads)
            assign_parallel(address, n_points, n_tile, threads, *model)
        else:
            assign_share(address, n_points, n_tile, 0, 1, *model)


class Avx512Kernels(CpuKernels):
    """The twin for AVX-512 with VNNI.

    Parameters
    ----------
    threads
        As of the portable twin, of which this one has all else.
    operands
        Only these: ``int8``, ``bf16`` or ``float32``; None: what pays.
    prefix
        As of the portable twin.

    Raises
    ------
    RuntimeError
        The processor lacks the instructions.
    """

    name = "avx512"
    _new_search: type[PackedSearch] = PackedSearch

    def __init__(
        self, threads: int | None = None, *, operands: str | None = None, prefix: int | None = None
    ) -> None:
        if not self._is_possible():
            raise RuntimeError(f"the processor lacks instructions that {self.name} is made of")
        self._kinds = {
            name: kind for name, kind in self._operands().items() if operands in (None, name)
        }
        self._has_float32 = operands in (None, "float32")
        super().__init__(threads, prefix=prefix)

    @staticmethod
    def _is_possible() -> bool:
        return has_avx512_vnni()

    @staticmethod
    def _operands() -> dict[str, type[Panels]]:
        """The kinds there are, the fastest first."""
        kinds: dict[str, type[Panels]] = {"int8": Int8Panels}
        if has_avx512_bf16():
            kinds["bf16"] = Bf16Panels
        return kinds

    def _prepare(self, model: CpuModel) -> None:
        kinds = self._kinds if is_packable(model.centroids) else {}
        for name, kind in kinds.items():
            if self._prefix:
                self._add_packed_prefix(model, name, some_basis(model.centroids, self._prefix))
            else:
                model.ways.append(self._way(model, name, kind))
        if self._has_float32 or not model.ways:
            super()._prepare(model)
        if kinds and self._prefix is None:
            fastest = next(iter(kinds))
            model.n_until_prefix = n_until_prefix(
                model.n_clusters, model.n_dims, PRODUCT_NS[fastest]
            )

    def _way(self, model: CpuModel, name: str, kind: type[Panels]) -> Way:
        centroids = model.centroids

        def make() -> PackedSearch:
            packed = pack(centroids, kind)
            assert packed is not None  # there is no prefix to fail
            return self._new_search(*packed)

        return Way(name, model.n_clusters * model.n_dims * PRODUCT_NS[name], make)

    def _add_prefix(self, model: CpuModel, points: Points, plain_ns: float) -> None:
        kinds = self._kinds if is_packable(model.centroids) else {}
        for name in kinds:
            basis = basis_for(
                model.centroids,
                points,
                product_ns=PRODUCT_NS[name],
                look_ns=look_ns(model.n_dims) if name == "int8" else comparison_ns(model.n_dims),
                plain_ns=plain_ns,
                rounding=ROUNDING[name],
            )
            if basis is not None:
                self._add_packed_prefix(model, name, basis)
                return
        if self._has_float32:
            super()._add_prefix(model, points, plain_ns)

    def _add_packed_prefix(self, model: CpuModel, name: str, basis: NDArray[np.float32]) -> None:
        packed = pack(model.centroids, self._kinds[name], basis)
        if packed is not None:
            work_ns = packed[1].n_rotated * (model.n_clusters + model.n_dims) * PRODUCT_NS[name]
            search = self._new_search(*packed)
            model.add(Way(f"{name} prefix", work_ns, lambda: search, is_prefixed=True))

    def _warm_up(self) -> None:
        super()._warm_up()
        rows = np.ones((2, 1), np.float32)
        for kind in self._kinds.values():
            packed = pack(rows, kind)
            assert packed is not None
            search = self._new_search(*packed)
            for threads in {1, self.threads}:
                n_tile = search.tile(2, threads)
                room = self._room(threads * search.n_scratch(n_tile))
                results = Results.empty(2, second=True, margin=True)
                search.run(rows.ctypes.data, 2, n_tile, threads, NO_BORDERS, room, results)


PRODUCT_NS = {"int8": INT8_NS, "bf16": BF16_NS}
