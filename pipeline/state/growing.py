"""Arrays that grow without a pause: the system moves the pages of what is large.

Copying a million vectors takes a second in which nothing else is done. Linux moves the pages of a
mapping instead, and those that nobody wrote to take no memory.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGE = 1 << 20
"""Bytes from which an array is mapped."""
HUGE_PAGE = 1 << 21
"""Bytes of a page where rows are read in any order, as numpy has them in arrays of two and more: a
mapping of so many lies where such pages do, so that they are moved whole."""


GROWTH = 1.25
"""What is large is not copied, so slack saves little."""
MIN_CAPACITY = 64


def grow_together(owner: object, columns: Sequence[str], n_rows: int) -> None:
    """Give arrays that are attributes of ``owner`` room for so many rows, and some to spare."""
    capacity = len(getattr(owner, columns[0]))
    if n_rows <= capacity:
        return
    capacity = max(n_rows, int(capacity * GROWTH), MIN_CAPACITY)
    for name in columns:
        grow(owner, name, capacity)


def grow(owner: object, name: str, n_rows: int) -> None:
    """Give the array that is an attribute of ``owner`` more rows, zeros at first.

    Whoever holds a view of the old one keeps what stood there, and costs a copy.
    """
    attributes = vars(owner)
    column: NDArray[Any] = attributes[name]
    shape, dtype = (n_rows, *column.shape[1:]), column.dtype
    n_bytes = n_rows * int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    if n_bytes < LARGE or sys.platform != "linux":
        attributes[name] = np.zeros(shape, dtype)
        attributes[name][: len(column)] = column
        return
    if n_bytes > HUGE_PAGE:
        n_bytes += -n_bytes % HUGE_PAGE
    mapping = _mapping_of(column)
    if mapping is not None:
        n_before = len(column)
        del attributes[name], column  # a mapping with views is not moved
        try:
            mapping.resize(n_bytes)
        except BufferError:
            column = _array(mapping, (n_before, *shape[1:]), dtype)
        else:
            attributes[name] = _array(mapping, shape, dtype)
            return
    mapping = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    attributes[name] = _array(mapping, shape, dtype)
    attributes[name][: len(column)] = column


def _array(mapping: mmap.mmap, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(mapping) > HUGE_PAGE:
        mapping.madvise(mmap.MADV_HUGEPAGE)
    n = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(mapping, dtype, n).reshape(shape)


def _mapping_of(array: NDArray[Any]) -> mmap.mmap | None:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    whole = base.obj if isinstance(base, memoryview) else None
    return whole if isinstance(whole, mmap.mmap) else None
