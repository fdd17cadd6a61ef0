"""Which row an item has: an index of ids without an object for each.

A dict of ids of 16 bytes takes 130 bytes an item, and a step of Python for each; this takes 47 to
62, and a batch is looked up in one call.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels import lookup
from pipeline.state.growing import GROWTH, grow

NOWHERE = lookup.ABSENT
MIN_ROWS = 64
MIN_SLOTS = 128  # a power of 2
MIN_ARENA = 2048  # bytes
AT_ONCE = 4096  # ids made into objects, while all are gone through

_KEYS = [secrets.randbits(64) for _ in range(2)]  # no order of anything follows from them


class PackedKeys(NamedTuple):
    """Ids one after another: key i is ``blob[ends[i - 1] : ends[i]]``, the first begins at 0."""

    blob: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @staticmethod
    def pack(keys: Sequence[bytes]) -> PackedKeys:
        """The same ids, packed; the blob is not to be written."""
        blob = np.frombuffer(b"".join(keys), np.uint8)
        return PackedKeys(blob, np.cumsum(np.fromiter(map(len, keys), np.int64, len(keys))))

    def unpack(self) -> list[bytes]:
        """The ids, one object each."""
        blob, starts = self.blob.tobytes(), [0, *self.ends.tolist()]
        return [blob[start:stop] for start, stop in pairwise(starts)]


class Ids:
    """Id -> row and row -> id, for one thread; a freed row is the next to be used."""

    def __init__(self) -> None:
        self._slots: NDArray[np.uint64] = np.zeros(MIN_SLOTS, np.uint64)
        self._starts: NDArray[np.int64] = np.zeros(MIN_ROWS, np.int64)
        self._arena: NDArray[np.uint8] = np.zeros(MIN_ARENA, np.uint8)
        self._free: NDArray[np.int32] = np.zeros(MIN_ROWS, np.int32)
        self._table: NDArray[np.int64] = np.zeros(lookup.N_FIELDS, np.int64)
        self._table[lookup.KEY_0 :] = np.array(_KEYS, np.uint64).view(np.int64)
        self._table[lookup.N_USED] = lookup.HEADER  # the empty place that compaction gives to rows
        self._note_places()

    def __len__(self) -> int:
        return int(self._table[lookup.N_ITEMS])

    def __iter__(self) -> Iterator[bytes]:
        """All ids, by row; they may not change meanwhile."""
        for start in range(0, self.n_rows, AT_ONCE):
            yield from self.names(self.occupied(start, start + AT_ONCE))

    def __contains__(self, key: bytes) -> bool:
        return bool(lookup.find_one(self._table, key) >= 0)

    @property
    def n_rows(self) -> int:
        """Rows ever used."""
        return int(self._table[lookup.N_ROWS])

    @property
    def n_bytes(self) -> int:
        """Bytes that the index holds."""
        arrays = self._slots, self._starts, self._arena, self._free, self._table
        return sum(array.nbytes for array in arrays)

    def find(self, key: bytes) -> int:
        """The row of an id; -1: it is not there."""
        return int(lookup.find_one(self._table, key))

    def find_all(self, keys: Sequence[bytes]) -> NDArray[np.intp]:
        """The rows of ids, -1 where one is not there."""
        return self._find(*_joined(keys))

    def find_packed(self, keys: PackedKeys) -> NDArray[np.intp]:
        """What `find_all` says of the same ids."""
        return self._find(*_flat(keys))

    def _find(self, blob: bytes, lengths: NDArray[np.int64]) -> NDArray[np.intp]:
        rows = np.empty(len(lengths), np.intp)
        lookup.find(self._table, blob, lengths, rows)
        return rows

    def put(self, keys: Sequence[bytes]) -> NDArray[np.intp]:
        """The rows of ids, new ones where an id had none."""
        return self._put(*_joined(keys))

    def put_packed(self, keys: PackedKeys) -> NDArray[np.intp]:
        """What `put` does with the same ids."""
        return self._put(*_flat(keys))

    def _put(self, blob: bytes, lengths: NDArray[np.int64]) -> NDArray[np.intp]:
        rows = np.empty(len(lengths), np.intp)
        n = lookup.put(self._table, blob, lengths, 0, rows)
        while n < len(lengths):
            self._make_room(int(lengths[n]))
            n = lookup.put(self._table, blob, lengths, n, rows)
        return rows

    def remove(self, keys: Sequence[bytes]) -> NDArray[np.intp]:
        """Forget ids that are there, each once; the rows that they had. KeyError else."""
        blob, lengths = _joined(keys)
        rows = np.empty(len(keys), np.intp)
        n = lookup.remove(self._table, blob, lengths, rows)
        used, live = self._table[lookup.N_USED], self._table[lookup.N_LIVE]
        if used > MIN_ARENA and used > 2 * live:
            self._compact()
        if n < len(keys):
            raise KeyError(keys[n])
        return rows

    def reserve(self, n_rows: int) -> None:
        """Have room for so many rows, whose ids may still ask for more."""
        self._make_rows(n_rows)
        self._make_slots(n_rows)
        self._note_places()

    def occupied(self, start: int = 0, stop: int | None = None) -> NDArray[np.intp]:
        """The rows in ``start:stop`` that have an id, ascending."""
        start, stop, _ = slice(start, stop).indices(self.n_rows)
        return np.flatnonzero(self._starts[start:stop] >= 0) + start

    @property
    def free(self) -> NDArray[np.int32]:
        """The rows that have none, the next to be used last; not to be written."""
        return self._free[: self._table[lookup.N_FREE]]

    def name(self, row: int) -> bytes:
        """The id of an occupied row."""
        (name,) = self.names([row])
        return name

    def names(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[bytes]:
        """The ids of occupied rows."""
        return self.packed_names(rows).unpack()

    def packed_names(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> PackedKeys:
        """What `names` says, packed."""
        rows = np.ascontiguousarray(rows, np.int64)
        assert not len(rows) or (rows.min() >= 0 and rows.max() < self.n_rows)
        assert (self._starts[rows] >= 0).all(), "a free row has no name"
        lengths = np.empty(len(rows), np.int64)
        blob = np.empty(lookup.measure(self._table, rows, lengths), np.uint8)
        lookup.gather(self._table, rows, blob)
        return PackedKeys(blob, np.cumsum(lengths))

    def _make_room(self, n_bytes: int) -> None:
        """For one more id of that length, and more."""
        needed = int(self._table[lookup.N_USED]) + lookup.HEADER + n_bytes
        if needed > len(self._arena):
            grow(self, "_arena", max(needed, int(len(self._arena) * GROWTH)))
        if self.n_rows == len(self._starts):
            self._make_rows(int(self.n_rows * GROWTH))
        self._make_slots(len(self) + 1)
        self._note_places()

    def _make_rows(self, n_rows: int) -> None:
        if n_rows > len(self._starts):
            grow(self, "_starts", n_rows)
            grow(self, "_free", n_rows)

    def _make_slots(self, n_items: int) -> None:
        n_slots = len(self._slots)
        while lookup.FULL[1] * n_items > lookup.FULL[0] * n_slots:
            n_slots *= 2
        if n_slots > len(self._slots):
            larger = np.zeros(n_slots, np.uint64)
            lookup.refill(self._slots, larger)
            self._slots = larger

    def _compact(self) -> None:
        live = int(self._table[lookup.N_LIVE])
        arena = np.zeros(max(MIN_ARENA, int(live * GROWTH) + lookup.HEADER), np.uint8)
        lookup.compact(self._table, arena)
        self._arena = arena
        self._note_places()

    def _note_places(self) -> None:
        arrays = self._slots, self._starts, self._arena, self._free
        self._table[: len(arrays)] = [array.ctypes.data for array in arrays]
        self._table[lookup.N_SLOTS : lookup.N_ITEMS] = [len(array) for array in arrays[:3]]


def _joined(keys: Sequence[bytes]) -> tuple[bytes, NDArray[np.int64]]:
    return b"".join(keys), np.fromiter(map(len, keys), np.int64, len(keys))


def _flat(keys: PackedKeys) -> tuple[bytes, NDArray[np.int64]]:
    return keys.blob.tobytes(), np.diff(keys.ends, prepend=0)


def warm_up() -> None:
    """Have every loop of the index compiled, or read from the disk: later a stream would wait.

    On a core that others share, that takes a pod minutes, in which its loop does not turn.
    """
    ids = Ids()
    keys = [b"%d" % n for n in range(2 * MIN_ROWS)]  # more than there is room for: it grows
    ids.put(keys)
    ids.find(keys[0])
    ids.find_all(keys)
    ids.names(ids.occupied())
    ids.remove(keys)
    ids._compact()
