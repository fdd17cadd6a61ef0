"""The items that a full fit looks at: all of them while they fit, then a hash sample.

An item is in or out by a hash of its id, so its updates and deletes are followed. When the
sample overflows, the range of the hash is halved; when deletes leave less than a quarter, it is
to be read again with a wider one.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.clustering.forgetting import NO_TIMESTAMP
from pipeline.messages.halves import widened
from pipeline.state.rows import NOWHERE, Rows

FULL_RANGE = 1 << 32
GONE = -1


class Sample(Rows):
    """Vectors of sampled items, the newest of each."""

    columns = ("vectors", "sequences", "timestamps")

    def __init__(
        self,
        n_dims: int,
        *,
        max_items: int,
        hash_range: int = FULL_RANGE,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(n_dims, dtype=dtype)
        self.sequences: NDArray[np.uint64] = np.empty(0, np.uint64)
        self.timestamps: NDArray[np.int64] = np.empty(0, np.int64)
        """Of the record that counts, milliseconds since 1970; -1: it had none."""
        self.max_items = max_items
        self.hash_range = hash_range
        """Items whose hash is below it are in."""
        self.changed: set[bytes] | None = None
        """Items written or removed since somebody put an empty set here."""

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
            dtype=self.vectors.dtype,
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
        timestamps: Sequence[int | None],
    ) -> list[bytes]:
        """Apply changes of items in order; ``rows[i]`` points into ``vectors``, -1: item i is gone.

        A change whose sequence is not above the item's is stale, as it is for the assigner.

        Returns
        -------
        list
            The items that have a new vector.
        """
        newest: dict[bytes, tuple[int, int, int]] = {}  # item -> row, sequence, time
        known = self._sequences(keys)
        for key, row, sequence, time, before in zip(
            keys, rows, sequences, timestamps, known, strict=True
        ):
            if not self.holds(key):
                continue
            if row < 0:
                newest[key] = (GONE, 0, NO_TIMESTAMP)
            elif not 0 < sequence <= (newest[key][1] if key in newest else before):
                newest[key] = (row, sequence, NO_TIMESTAMP if time is None or time < 0 else time)
        if self.changed is not None:
            self.changed.update(newest)
        written = [(key, *change) for key, change in newest.items() if change[0] != GONE]
        self.remove(self.present([k for k, change in newest.items() if change[0] == GONE]))
        if written:
            at = self.put([key for key, *_ in written])
            self.vectors[at] = vectors[[row for _, row, _, _ in written]]
            self.sequences[at] = [sequence for _, _, sequence, _ in written]
            self.timestamps[at] = [time for _, _, _, time in written]
        while len(self) > self.max_items and self.hash_range > 1:
            self.narrow(self.hash_range // 2)
        return [key for key, *_ in written]

    def narrow(self, hash_range: int) -> None:
        """Hold no more than the items whose hash is below this."""
        if hash_range < self.hash_range:
            self.hash_range = hash_range
            self.remove([key for key in self if not self.holds(key)])

    def _sequences(self, keys: Sequence[bytes]) -> list[int]:
        """Of the items as they are here; 0 where one is not."""
        rows = self.find_all(keys)
        is_there = rows != NOWHERE
        known = np.zeros(len(rows), np.uint64)
        known[is_there] = self.sequences[rows[is_there]]
        return known.tolist()

    def snapshot(self) -> tuple[list[bytes], NDArray[np.float32], NDArray[np.int64]]:
        """Ids, and copies of their vectors (n, n_dims) and timestamps (n,).

        Ordered by id: the same items give the same rows.
        """
        keys = sorted(self)
        rows = self.find_all(keys)
        return keys, widened(self.vectors[rows]), self.timestamps[rows]
