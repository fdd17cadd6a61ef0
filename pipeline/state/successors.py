"""Vectors of items by the embedding model that takes over.

Before it has, they are a second set that grows beside the members; then they arrive: slice by
slice they become the members.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.state.rows import Rows


class Successors(Rows):
    """Items by their newest vector of the next embedding model, one row each.

    An item is here as long as no record of the model that stands, and no tombstone, was applied
    after that vector.
    """

    columns = ("vectors", "sequences", "offsets", "kept", "timestamps")

    def __init__(self, n_dims: int, *, dtype: DTypeLike = np.float32) -> None:
        super().__init__(n_dims, dtype=dtype)
        self.sequences: NDArray[np.uint64] = np.empty(0, np.uint64)
        """The producer's version of the item, counted for this model alone; 0: none."""
        self.offsets: NDArray[np.int64] = np.empty(0, np.int64)
        """Of the vector's record, in the input."""
        self.kept: NDArray[np.bool_] = np.empty(0, np.bool_)
        """Whether the vector stands in `item-vectors`."""
        self.timestamps: NDArray[np.int64] = np.empty(0, np.int64)
        """Of the vector's record, milliseconds since 1970; -1: it had none."""
        self.metadata: dict[bytes, dict[str, Any]] = {}
        """Of the items whose record had some, the keys that events show."""
        self.strays: set[bytes] = set()
        """Items whose vector in `item-vectors` counts no more: compaction took unread the record
        for which it was saved. It has to go, or it would count again after a restore."""

    def write(
        self,
        keys: Sequence[bytes],
        vectors: NDArray[np.float32],
        sequences: Sequence[int],
        offsets: Sequence[int],
        kept: Sequence[bool],
        timestamps: Sequence[int],
    ) -> None:
        """Put distinct items into rows; all are parallel to ``keys``."""
        rows = self.put(keys)
        self.vectors[rows] = vectors
        self.sequences[rows] = np.array(sequences, np.uint64)
        self.offsets[rows] = np.array(offsets, np.int64)
        self.kept[rows] = np.array(kept, np.bool_)
        self.timestamps[rows] = np.array(timestamps, np.int64)

    def remove(self, keys: Iterable[bytes]) -> NDArray[np.intp]:
        """Forget items that are there; the rows that they had."""
        keys = list(keys)
        rows = super().remove(keys)
        for key in keys:
            self.metadata.pop(key, None)
        return rows
