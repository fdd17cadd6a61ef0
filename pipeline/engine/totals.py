"""What the members of all partitions add up to, folded from the statistics of each.

A partition's rows wait for its head, and are taken over together with it, when their counts add
up to its members: so what stands here was true of every partition at some moment. Rows are
cumulative and the latest wins; a record that comes twice changes nothing.

Integers, as in a partition. A word of one partition fits int64, the sum over partitions may not:
so high and low 32 bits are added apart, ``word = (high << 32) + low`` with ``0 <= low < 2**32``.
A changed row takes the halves of the row before it out and puts its own in, so the price of a
fold is that of the rows that changed, and what was taken out leaves no trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.traffic import NOTHING, Landed, TrafficWindow, Window
from pipeline.errors import RecordError
from pipeline.kernels.contract import WEIGHT_UNIT, Sums
from pipeline.messages.codec import decode_head, decode_statistics
from pipeline.messages.events import Head, StatisticsRow
from pipeline.messages.records import Record

_LOW = np.int64(2**32 - 1)
_COUNT, _SQUARE_HIGH, _SQUARE_LOW, _WEIGHT, _IS_WEIGHTED, _SUMS = range(6)
"""Words of a row: these five, then the sums. The fifth adds up to the number of weighted rows."""
_NOWHERE = 0  # the place of clusters without a row: always zero


class _Row(NamedTuple):
    epoch: int
    n_members: int
    words: NDArray[np.int64]  # (_SUMS + n_dims,)
    landed: Landed


@dataclass(slots=True, eq=False)
class _Partition:
    head: Head | None = None
    """The newest."""
    taken: Head | None = None
    """The newest one that its rows fitted."""
    rows: dict[str, _Row] = field(default_factory=dict)
    """By cluster, as they stood at `taken`."""
    waiting: dict[str, _Row | None] = field(default_factory=dict)
    """Newer ones; None: no such cluster any more."""
    n_members: int = 0
    """Of `rows`."""
    epochs: Counter[int] = field(default_factory=Counter)
    """Epoch -> `rows` with members that name it."""
    counted: dict[str, Landed] = field(default_factory=dict)
    """What windows have seen, since `taken.since`."""
    next_record: int = 0
    """The first offset of `cluster-stats` that was not folded yet."""

    @property
    def is_complete(self) -> bool:
        return self.head is not None and self.head is self.taken

    def fits(self, head: Head) -> bool:
        """Whether the rows, with the waiting ones, are all that the head's owner has said."""
        gained = 0
        for cluster_id, row in self.waiting.items():
            before = self.rows.get(cluster_id)
            gained += 0 if row is None else row.n_members
            gained -= 0 if before is None else before.n_members
        return self.n_members + gained == head.members


class Totals:
    """Folds `cluster-stats`; one reader feeds it, from the topic's beginning.

    Until `opened` is called, at the end that was noted first, compaction may have taken rows that
    a head stands upon: nothing may be concluded. From then on a partition whose rows do not add up
    to its newest head stays aside, with the values of the last head that they did add up to; so
    does the first head of an owner, where the one before had more to say.

    Parameters
    ----------
    n_partitions
        Of the input. All of them must have spoken before anything is swept.
    n_dims
    max_component
        For the life of the embedding model; gives the units.
    """

    def __init__(self, n_partitions: int, n_dims: int, *, max_component: float) -> None:
        self._n_dims = n_dims
        self._plain = Sums.zeros(0, n_dims, max_component=max_component)
        self._weighted = Sums.zeros(0, n_dims, max_component=max_component, is_weighted=True)
        self._partitions = [_Partition() for _ in range(n_partitions)]
        self._is_open = False
        self._places: dict[str, int] = {}  # cluster id -> row of the arrays below
        self._cluster_ids = [""]
        self._free: list[int] = []
        self._n_rows = Counter[str]()  # cluster id -> partitions that have a row of it
        self._high = np.zeros((1, _SUMS + n_dims), np.int64)
        self._low = np.zeros((1, _SUMS + n_dims), np.int64)
        self._half = np.empty(_SUMS + n_dims, np.int64)
        self._stamps = np.zeros(1, np.int64)
        self._mark = 0
        self._window = Window()
        self.n_ignored = 0
        """Records that nobody here knows how to read."""

    # --- folding ------------------------------------------------------------------

    def fold(self, records: Iterable[Record]) -> list[int]:
        """Take the next records in, in offset order of each partition.

        Returns
        -------
        list
            The partitions whose head arrived, each once.
        """
        arrived: dict[int, None] = {}
        for record in records:
            try:
                partition, slash, cluster_id = (record.key or b"").decode().partition("/")
                number = int(partition)
                if not 0 <= number < len(self._partitions):
                    raise ValueError(f"no partition {number}")
                state = self._partitions[number]
                if record.offset < state.next_record:
                    continue  # a reader that began anew
                state.next_record = record.offset + 1
                if slash:
                    state.waiting[cluster_id] = self._row(record.value)
                else:
                    state.head = None if record.value is None else decode_head(record.value)
                    arrived[number] = None
                    self._take_over(state)
            except (RecordError, ValueError):  # keys: not UTF-8, or no number
                self.n_ignored += 1
        return list(arrived)

    def opened(self) -> None:
        """The topic was read to its end: from now on totals count, and windows begin."""
        self._is_open = True
        self._window = Window()

    def _row(self, value: bytes | None) -> _Row | None:
        if value is None:
            return None
        row: StatisticsRow = decode_statistics(value)
        if len(row.sums) != self._n_dims:
            raise ValueError(f"{len(row.sums)} sums, but {self._n_dims} dimensions")
        words = np.empty(_SUMS + self._n_dims, np.int64)
        words[:_SUMS] = (
            row.count, row.square_high, row.square_low, row.weight or 0,
            row.weight is not None and row.count > 0,
        )  # fmt: skip
        words[_SUMS:] = row.sums
        landed = Landed(row.landed, row.distance, row.distance_squared)
        return _Row(row.epoch, row.count, words, landed)

    def _take_over(self, state: _Partition) -> None:
        """Make what a partition's newest head stands upon count, if it is all there."""
        head = state.head
        if head is None or not state.fits(head):
            return
        before = state.taken
        if before is not None and before.since != head.since:  # another owner counts from 0
            before = None
            state.counted.clear()
        self._window.count_head(before, head)
        self._mark += 1
        for cluster_id, row in state.waiting.items():
            counted = state.counted.pop(cluster_id, NOTHING)
            if row is not None:
                self._window.count_cluster(cluster_id, counted, row.landed)
                state.counted[cluster_id] = row.landed
            self._replace(state, cluster_id, row)
        state.waiting.clear()
        state.taken = head
        assert state.n_members == head.members

    def _replace(self, state: _Partition, cluster_id: str, row: _Row | None) -> None:
        before = state.rows.pop(cluster_id, None)
        if row is not None:
            state.rows[cluster_id] = row
        for old, sign in ((before, -1), (row, 1)):
            if old is not None and old.n_members:
                state.n_members += sign * old.n_members
                state.epochs[old.epoch] += sign
                if not state.epochs[old.epoch]:
                    del state.epochs[old.epoch]
        if before is None and row is None:
            return
        if before is not None and row is not None and _are_equal(before.words, row.words):
            return
        self._n_rows[cluster_id] += (row is not None) - (before is not None)
        place = self._place(cluster_id)
        high, low = self._high[place], self._low[place]
        half = self._half
        for words, apply in ((before, np.subtract), (row, np.add)):
            if words is not None:
                apply(high, np.right_shift(words.words, 32, out=half), out=high)
                apply(low, np.bitwise_and(words.words, _LOW, out=half), out=low)
        self._stamps[place] = self._mark
        if not self._n_rows[cluster_id]:
            self._forget(cluster_id)

    def _place(self, cluster_id: str) -> int:
        place = self._places.get(cluster_id)
        if place is None:
            if not self._free:
                self._grow()
            place = self._places[cluster_id] = self._free.pop()
            self._cluster_ids[place] = cluster_id
        return place

    def _grow(self) -> None:
        n = len(self._stamps)
        more = max(16, n)
        self._high = np.concatenate([self._high, np.zeros((more, self._high.shape[1]), np.int64)])
        self._low = np.concatenate([self._low, np.zeros((more, self._low.shape[1]), np.int64)])
        self._stamps = np.concatenate([self._stamps, np.zeros(more, np.int64)])
        self._cluster_ids += [""] * more
        self._free += range(n + more - 1, n - 1, -1)

    def _forget(self, cluster_id: str) -> None:
        """A cluster of which no partition has a row: it left nothing."""
        place = self._places.pop(cluster_id)
        assert not self._high[place].any()
        assert not self._low[place].any()
        del self._n_rows[cluster_id]
        self._stamps[place] = 0
        self._free.append(place)

    # --- totals -------------------------------------------------------------------

    def counts(self, cluster_ids: Sequence[str]) -> NDArray[np.int64]:
        """(n_clusters,) members now; 0 of a cluster that nobody knows."""
        at = self._at(cluster_ids)
        counts: NDArray[np.int64] = (self._high[at, _COUNT] << 32) + self._low[at, _COUNT]
        return counts

    def weights(self, cluster_ids: Sequence[str]) -> NDArray[np.float64]:
        """(n_clusters,) what the members weigh: as many as they are, unless weights fade."""
        at = self._at(cluster_ids)
        weighted = self._word(at, _WEIGHT) * WEIGHT_UNIT
        return np.where(self._is_weighted(at), weighted, self._word(at, _COUNT))

    def means(self, cluster_ids: Sequence[str]) -> NDArray[np.float64]:
        """(n_clusters, n_dims) means of the members; zeros without any.

        The integers are exact; each component is rounded when its halves meet, and by the
        division: the relative error is below ``2**-50``.
        """
        at = self._at(cluster_ids)
        sums = self._high[at, _SUMS:].astype(np.float64)
        sums *= 2.0**32
        sums += self._low[at, _SUMS:]
        units = np.where(self._is_weighted(at), self._weighted.unit, self._plain.unit)
        weights = self.weights(cluster_ids)
        # a power of two rounds nothing, so it may as well divide the weight
        sums /= (np.where(weights > 0.0, weights, 1.0) / units)[:, None]
        sums[weights == 0.0] = 0.0
        return sums

    def squares(self, cluster_ids: Sequence[str]) -> NDArray[np.float64]:
        """(n_clusters,) sums of the members' squared norms; as exact as `means`."""
        at = self._at(cluster_ids)
        units = np.where(self._is_weighted(at), self._weighted.square_unit, self._plain.square_unit)
        squares: NDArray[np.float64] = units * (
            self._word(at, _SQUARE_HIGH) * 2.0**32 + self._word(at, _SQUARE_LOW)
        )
        return squares

    @property
    def mark(self) -> int:
        """A moment, for `changed_since`."""
        return self._mark

    def changed_since(self, mark: int) -> list[str]:
        """The clusters whose totals changed after that moment; after 0: all there are."""
        changed = np.flatnonzero(self._stamps > mark)
        return [self._cluster_ids[place] for place in changed.tolist()]

    def _at(self, cluster_ids: Sequence[str]) -> NDArray[np.intp]:
        places = self._places
        return np.array([places.get(c, _NOWHERE) for c in cluster_ids], np.intp)

    def _word(self, at: NDArray[np.intp], word: int) -> NDArray[np.float64]:
        value: NDArray[np.float64] = self._high[at, word] * 2.0**32 + self._low[at, word]
        return value

    def _is_weighted(self, at: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Under one epoch all rows are, or none; in between nothing is concluded."""
        found: NDArray[np.bool_] = self._low[at, _IS_WEIGHTED] > 0
        return found

    # --- heads --------------------------------------------------------------------

    @property
    def heads(self) -> Mapping[int, Head]:
        """Partition -> its newest head."""
        return {p: s.head for p, s in enumerate(self._partitions) if s.head is not None}

    @property
    def is_complete(self) -> bool:
        """Whether every partition has spoken, and its rows add up to its newest head."""
        return self._is_open and all(state.is_complete for state in self._partitions)

    @property
    def n_members(self) -> int:
        """Of all partitions, as taken over."""
        return sum(state.n_members for state in self._partitions)

    @property
    def next_offset(self) -> int:
        """Sum of the input offsets that the heads name: while it stays, no record was applied."""
        return sum(head.next_offset for head in self.heads.values())

    def are_swept_to(self, epoch: int, revision: int | None = None) -> bool:
        """Whether all members of all partitions stand where this model, or one after it, puts them.

        ``revision`` None: any of the epoch. An owner that has not swept yet names no model, so
        after a rebalance this is false for a while. A row of another epoch with members in it
        makes it false as well, whatever the head says.
        """
        return self.is_complete and all(
            state.head is not None
            and state.head.epoch == epoch
            and (revision is None or (state.head.revision or 0) >= revision)
            and state.epochs[epoch] == state.epochs.total()
            for state in self._partitions
        )

    # --- traffic ------------------------------------------------------------------

    @property
    def window_records(self) -> int:
        """Records in the window so far."""
        return self._window.n_records

    def take_window(self, cluster_ids: Sequence[str]) -> TrafficWindow:
        """What landed since the last window, or since `opened`; a new window begins."""
        return self._window.take(cluster_ids)


def _are_equal(one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Whether two rows say the same; hardly a change leaves the squares as they were."""
    return one[:_SUMS].tolist() == other[:_SUMS].tolist() and np.array_equal(one, other)
