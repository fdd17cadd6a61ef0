"""Rows of a growing matrix, found by item: the flat arrays under members and samples.

A freed row is used again before the matrix grows, so memory follows the largest
number of items there ever was, and a row number stays valid while its item lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.state.growing import grow_together
from pipeline.state.ids import NOWHERE as NOWHERE
from pipeline.state.ids import Ids
from pipeline.state.ids import PackedKeys as PackedKeys


class Rows:
    """Item -> row, and the vector in it.

    Subclasses add columns by naming them in ``columns``; all columns grow together.
    """

    columns: tuple[str, ...] = ("vectors",)

    def __init__(self, n_dims: int, *, dtype: DTypeLike = np.float32) -> None:
        self._ids = Ids()
        self.vectors: NDArray[Any] = np.empty((0, n_dims), dtype)
        """(n, n_dims) float32 or float16, as the state is configured."""

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[bytes]:
        """Item ids, by row; they may not change meanwhile."""
        return iter(self._ids)

    def __contains__(self, key: bytes) -> bool:
        return key in self._ids

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Item ids, each with its row; they may not change meanwhile."""
        return zip(self, self.occupied().tolist(), strict=True)

    @property
    def n_rows(self) -> int:
        """Rows ever used: what a pass over all items has to look at."""
        return self._ids.n_rows

    @property
    def id_bytes(self) -> int:
        """Bytes that the index of ids holds."""
        return self._ids.n_bytes

    def find(self, key: bytes) -> int:
        """The row of an item; -1: it is not there."""
        return self._ids.find(key)

    def row_of(self, key: bytes) -> int:
        """The row of an item that is there; KeyError where it is not."""
        row = self._ids.find(key)
        if row == NOWHERE:
            raise KeyError(key)
        return row

    def find_all(self, keys: Sequence[bytes]) -> NDArray[np.intp]:
        """The rows of items, -1 where one is not there."""
        return self._ids.find_all(keys)

    def find_packed(self, keys: PackedKeys) -> NDArray[np.intp]:
        """What `find_all` says of the same ids."""
        return self._ids.find_packed(keys)

    def rows_of(self, keys: Sequence[bytes]) -> NDArray[np.intp]:
        """The rows of items that are all there; KeyError where one is not."""
        rows = self._ids.find_all(keys)
        if rows.min(initial=0) == NOWHERE:
            raise KeyError(keys[int(rows.argmin())])
        return rows

    def present(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the items that are there."""
        is_there = self._ids.find_all(keys) != NOWHERE
        return [key for key, is_one in zip(keys, is_there.tolist(), strict=True) if is_one]

    def put(self, keys: Sequence[bytes]) -> NDArray[np.intp]:
        """The rows of distinct items, new ones where an item had none.

        The vector of a new row is whatever was there: the caller writes it.
        """
        rows = self._ids.put(keys)
        self._follow(self._ids.n_rows)
        return rows

    def put_packed(self, keys: PackedKeys) -> NDArray[np.intp]:
        """What `put` does with the same ids."""
        rows = self._ids.put_packed(keys)
        self._follow(self._ids.n_rows)
        return rows

    def remove(self, keys: Iterable[bytes]) -> NDArray[np.intp]:
        """Forget items that are there; the rows that they had."""
        return self._ids.remove(list(keys))

    def name(self, row: int) -> bytes:
        """The item of an occupied row."""
        return self._ids.name(row)

    def names(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[bytes]:
        """The items of occupied rows."""
        return self._ids.names(rows)

    def packed_names(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> PackedKeys:
        """What `names` says, packed."""
        return self._ids.packed_names(rows)

    def occupied(self, start: int = 0, stop: int | None = None) -> NDArray[np.intp]:
        """The rows in ``start:stop`` that hold an item, ascending."""
        return self._ids.occupied(start, stop)

    def reserve(self, n_rows: int) -> None:
        """Have room for so many rows, so that filling them copies nothing."""
        self._ids.reserve(n_rows)
        self._follow(n_rows)

    def _follow(self, n_rows: int) -> None:
        """Have so many rows in every column."""
        grow_together(self, self.columns, n_rows)
