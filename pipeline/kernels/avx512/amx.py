"""The twin for processors with AMX: the operands of the AVX-512 twin, on their matrix unit.

It takes 16 times 16 products of 4 bytes in an instruction, so int8 takes an eighth of the time that
the registers of AVX-512 need for it, as long as the operands come fast enough. Bounds and
decisions are those of `pipeline.kernels.avx512.twin`, whose accumulation bound allows for a
unit that truncates, and whose operands have no denormal numbers for it to lose.

Rows that fill no tile of 16 are multiplied in registers, as in the AVX-512 twin. Nothing of
this was timed: it runs in the tests on a processor without AMX, whose instructions are done in
software (``tests/kernels/avx512/amx_trap.c``).
"""

from __future__ import annotations

from pipeline.kernels.avx512.amx_tiles import TILE_ROWS
from pipeline.kernels.avx512.packing import AmxBf16Panels, AmxInt8Panels, Packed, Panels
from pipeline.kernels.avx512.twin import Avx512Kernels, PackedSearch
from pipeline.kernels.features import has_amx

TILE = 64  # records: whole pairs of tiles


class AmxSearch(PackedSearch):
    """A search whose products are tiles."""

    __slots__ = ()

    def __init__(self, panels: Panels, packed: Packed) -> None:
        super().__init__(panels, packed)
        self.speed *= 2.0

    def tile(self, n_points: int, threads: int) -> int:
        """As many for each thread, in whole pairs of tiles as far as there are as many."""
        share = -(-n_points // threads)
        return min(TILE, -(-share // 2 // TILE_ROWS) * 2 * TILE_ROWS)


class AmxKernels(Avx512Kernels):
    """The twin for AMX with int8 and bfloat16; parameters and errors as of the AVX-512 twin."""

    name = "amx"
    _new_search = AmxSearch

    @staticmethod
    def _is_possible() -> bool:
        return has_amx()

    @staticmethod
    def _operands() -> dict[str, type[Panels]]:
        return {"int8": AmxInt8Panels, "bf16": AmxBf16Panels}
