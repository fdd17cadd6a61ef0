"""The last assignment of every item of a partition, in columns, while the partition is read back.

A million of them are six arrays and an index here: no object of their own, of which nothing would
be left once their rows are found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RecordError
from pipeline.messages.assignments import AssignmentColumns, decode_assignments
from pipeline.messages.records import Record
from pipeline.state.growing import grow_together
from pipeline.state.ids import Ids, PackedKeys

GONE = -1
"""In place of the offset of the record that counts: the item's last assignment is null."""
MIN_PLACES = 64
"""Never none, so that -1 can be looked up, too: what stands there is of no interest."""
_COLUMNS = ("clusters", "sequences", "epochs", "offsets", "is_open")


class Assigned:
    """Item -> its last assignment; places here are those of the items, not rows of members."""

    def __init__(self) -> None:
        self.clusters: NDArray[np.int32] = np.zeros(MIN_PLACES, np.int32)
        """Places in `names`."""
        self.sequences: NDArray[np.uint64] = np.zeros(MIN_PLACES, np.uint64)
        self.epochs: NDArray[np.int64] = np.zeros(MIN_PLACES, np.int64)
        self.offsets: NDArray[np.int64] = np.zeros(MIN_PLACES, np.int64)
        """Of the record that counts, in the input; `GONE`: there is no assignment any more."""
        self.is_open: NDArray[np.bool_] = np.zeros(MIN_PLACES, np.bool_)
        """Whether the row of the item is yet to be found."""
        self.names: dict[str, int] = {}
        """Cluster -> its number, in the order they came."""
        self._ids = Ids()
        self._bad: dict[bytes, RecordError] = {}
        """Items whose last assignment cannot be read; a later one takes its place."""

    def __len__(self) -> int:
        return self._ids.n_rows

    @property
    def has_any(self) -> bool:
        """Whether any item has an assignment."""
        return bool(self.is_open[: len(self)].any()) or bool(self._bad)

    @property
    def open(self) -> NDArray[np.intp]:
        """The places of items whose row is yet to be found."""
        return np.flatnonzero(self.is_open[: len(self)])

    def fold(self, records: Sequence[Record]) -> None:
        """The next records of the topic: of an item the last one counts, also among these."""
        values = [record[3] for record in records]
        keys: list[bytes] = [record[2] for record in records]  # type: ignore[misc]
        for key in self._bad.keys() & set(keys) if self._bad else ():
            del self._bad[key]
        places = self._put(keys)
        if None in values:
            self.offsets[places], self.is_open[places] = GONE, False
            last = dict(zip(keys, range(len(keys)), strict=True)).values()
            at = [i for i in last if values[i] is not None]
            keys, values, places = [keys[i] for i in at], [values[i] for i in at], places[at]
        try:
            self._write(places, decode_assignments(values))  # type: ignore[arg-type]
        except RecordError:
            self._search(keys, values, places)  # type: ignore[arg-type]

    def check(self) -> None:
        """RecordError if the last assignment of an item cannot be read."""
        for error in self._bad.values():
            raise error

    def find(self, keys: Sequence[bytes]) -> NDArray[np.intp]:
        """The places of items; -1 where one was never assigned."""
        return self._ids.find_all(keys)

    def find_packed(self, keys: PackedKeys) -> NDArray[np.intp]:
        """What `find` says of the same items."""
        return self._ids.find_packed(keys)

    def find_open(self, keys: Sequence[bytes]) -> NDArray[np.intp]:
        """The places of items whose row is yet to be found; -1 of the others."""
        places = self._ids.find_all(keys)
        places[~self.is_open[places]] = -1
        return places

    def items(self, places: NDArray[np.intp]) -> list[bytes]:
        """The items at some places."""
        return self._ids.names(places)

    def packed(self, places: NDArray[np.intp]) -> PackedKeys:
        """What `items` says, packed."""
        return self._ids.packed_names(places)

    def number_of(self, cluster: str) -> int:
        """A cluster's number, a new one if it had none."""
        return self.names.setdefault(cluster, len(self.names))

    def _search(
        self, keys: Sequence[bytes], values: Sequence[bytes], places: NDArray[np.intp]
    ) -> None:
        """One by one, where one of them is no assignment."""
        for i in dict(zip(keys, range(len(keys)), strict=True)).values():
            place = places[i : i + 1]
            try:
                self._write(place, decode_assignments([values[i]]))
            except RecordError as error:
                self.offsets[place], self.is_open[place] = GONE, False
                self._bad[keys[i]] = error

    def _write(self, places: NDArray[np.intp], columns: AssignmentColumns) -> None:
        for cluster in sorted(set(columns.clusters).difference(self.names)):
            self.number_of(cluster)
        numbers = list(map(self.names.__getitem__, columns.clusters))
        # of a place that is named twice the last value stays
        self.clusters[places] = numbers
        self.sequences[places] = columns.sequences
        self.epochs[places] = columns.epochs
        self.offsets[places] = columns.offsets
        self.is_open[places] = True

    def _put(self, keys: Sequence[bytes]) -> NDArray[np.intp]:
        places = self._ids.put(keys)
        grow_together(self, _COLUMNS, len(self))
        return places
