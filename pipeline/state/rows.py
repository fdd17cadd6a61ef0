"""Rows of a growing matrix, found by item: the flat arrays under members and samples.

A freed row is used again before the matrix grows, so memory follows the largest
number of items there ever was, and a row number stays valid while its item lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

GROWTH = 1.5  # doubling would hold three times the rows at the moment of growing
MIN_CAPACITY = 64


class Rows:
    """Item -> row, and the vector in it.

    Subclasses add columns by naming them in ``columns``; all columns grow together.
    """

    columns: tuple[str, ...] = ("vectors",)

    def __init__(self, n_dims: int) -> None:
        self.of: dict[bytes, int] = {}
        """Item id -> row. Read it freely; only `put` and `remove` change it."""
        self.keys: list[bytes | None] = []
        """Row -> item id; None where the row is free. Its length is the rows ever used."""
        self.vectors: NDArray[np.float32] = np.empty((0, n_dims), np.float32)
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.of)

    @property
    def n_rows(self) -> int:
        """Rows ever used: what a pass over all items has to look at."""
        return len(self.keys)

    def put(self, keys: Sequence[bytes]) -> NDArray[np.intp]:
        """The rows of distinct items, new ones where an item had none.

        The vector of a new row is whatever was there: the caller writes it.
        """
        of, names, free = self.of, self.keys, self._free
        rows = np.empty(len(keys), np.intp)
        for i, key in enumerate(keys):
            row = of.get(key)
            if row is None:
                if free:
                    row = free.pop()
                    names[row] = key
                else:
                    row = len(names)
                    names.append(key)
                of[key] = row
            rows[i] = row
        self.reserve(len(names))
        return rows

    def remove(self, keys: Iterable[bytes]) -> None:
        """Forget items that are there."""
        for key in keys:
            row = self.of.pop(key)
            self.keys[row] = None
            self._free.append(row)

    def occupied(self, start: int = 0, stop: int | None = None) -> NDArray[np.intp]:
        """The rows in ``start:stop`` that hold an item, ascending."""
        names = self.keys[start:stop]
        return np.array([start + i for i, key in enumerate(names) if key is not None], np.intp)

    def reserve(self, n_rows: int) -> None:
        """Have room for so many rows, so that filling them copies nothing."""
        capacity = len(self.vectors)
        if n_rows <= capacity:
            return
        capacity = max(n_rows, int(capacity * GROWTH), MIN_CAPACITY)
        for name in self.columns:
            column = getattr(self, name)
            grown = np.zeros((capacity, *column.shape[1:]), column.dtype)
            grown[: len(column)] = column
            setattr(self, name, grown)
