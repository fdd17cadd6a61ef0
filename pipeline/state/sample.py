"""The items that a full fit looks at: all of them while they fit, then a hash sample.

An item is in or out by a hash of its id, so its updates and deletes are followed. When the
sample overflows, the range of the hash is halved; when deletes leave less than a quarter, it is
to be read again with a wider one.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.state.rows import Rows

FULL_RANGE = 1 << 32
GONE = -1


class Sample(Rows):
    """Vectors of sampled items, the newest of each."""

    columns = ("vectors", "sequences")

    def __init__(self, n_dims: int, *, max_items: int, hash_range: int = FULL_RANGE) -> None:
        super().__init__(n_dims)
        self.sequences: NDArray[np.uint64] = np.empty(0, np.uint64)
        self.max_items = max_items
        self.hash_range = hash_range
        """Items whose hash is below it are in."""

    @property
    def is_thin(self) -> bool:
        """Whether deletes left so few that the input should be read again with a wider range."""
        return self.hash_range < FULL_RANGE and len(self) < self.max_items // 4

    def wider(self) -> Sample:
        """An empty sample over twice the range, to be filled from the beginning of the input."""
        return Sample(
            self.vectors.shape[1],
            max_items=self.max_items,
            hash_range=min(2 * self.hash_range, FULL_RANGE),
        )

    def holds(self, key: bytes) -> bool:
        """Whether an item belongs to the sample, seen or not."""
        # CRC32 of short, similar ids spreads well over its range, and is the same everywhere
        return self.hash_range == FULL_RANGE or zlib.crc32(key) < self.hash_range

    def apply(
        self,
        keys: Sequence[bytes],
        rows: Sequence[int],
        vectors: NDArray[np.float32],
        sequences: Sequence[int],
    ) -> None:
        """Apply changes of items in order; ``rows[i]`` points into ``vectors``, -1: item i is gone.

        A change whose sequence is not above the item's is stale, as it is for the assigner.
        """
        newest: dict[bytes, tuple[int, int]] = {}  # item -> row, sequence
        for key, row, sequence in zip(keys, rows, sequences, strict=True):
            if not self.holds(key):
                continue
            if row < 0:
                newest[key] = (GONE, 0)
            elif not 0 < sequence <= self._sequence(key, newest):
                newest[key] = (row, sequence)
        written = [(key, *change) for key, change in newest.items() if change[0] != GONE]
        self.remove([k for k, change in newest.items() if change[0] == GONE and k in self.of])
        if written:
            at = self.put([key for key, _, _ in written])
            self.vectors[at] = vectors[[row for _, row, _ in written]]
            self.sequences[at] = [sequence for _, _, sequence in written]
        while len(self) > self.max_items and self.hash_range > 1:
            self.hash_range //= 2
            self.remove([key for key in self.of if not self.holds(key)])

    def _sequence(self, key: bytes, newest: dict[bytes, tuple[int, int]]) -> int:
        if key in newest:
            return newest[key][1]
        row = self.of.get(key)
        return 0 if row is None else int(self.sequences[row])

    def snapshot(self) -> tuple[list[bytes], NDArray[np.float32]]:
        """Ids and a copy of their vectors, ordered by id: the same items give the same rows."""
        keys = sorted(self.of)
        return keys, self.vectors[[self.of[key] for key in keys]]
