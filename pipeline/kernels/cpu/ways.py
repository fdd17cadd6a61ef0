"""Several ways to search a model, all exact: the one that costs least on these records is taken.

A way has a price that is known, its products, and one that depends on the data: how many centroids
its bounds leave to be compared canonically. That is counted while it runs. Each way starts with the
benefit of the doubt, so one that disappoints is left after a short trial, and is given another
one later. Nothing of this can change a label or a distance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.bounds import Borders, borders
from pipeline.kernels.contract import Points

# Nanoseconds of one core (Zen 5, a model in its L2); only their ratios matter
INT8_NS, BF16_NS, FLOAT32_NS = 0.002, 0.004, 0.0085  # of a product of two components
TRIAL = 128  # records that show what a way is worth
BLOCK = 2**13  # records between two reviews
PATIENCE = 2**17  # records until a way that disappointed is tried again; doubled each time


def comparison_ns(n_dims: int) -> float:
    """Of a canonical distance, to a centroid that is not in the L1."""
    return 50.0 + 0.08 * n_dims


def look_ns(n_dims: int) -> float:
    """Of a look with all dimensions in int8."""
    return 10.0 + 0.04 * n_dims


_NO_LABELS, _NO_DISTANCES = np.empty(0, np.int32), np.empty(0, np.float64)
_NO_MARGINS = np.empty(0, np.float32)


class Results(NamedTuple):
    """Where a call writes."""

    labels: NDArray[np.int32]  # (n_points,)
    distances: NDArray[np.float64]  # (n_points,)
    gaps: NDArray[np.float32]  # (n_points,)
    second_labels: NDArray[np.int32]  # (n_points,), or empty: not asked for
    second_distances: NDArray[np.float64]  # (n_points,), or empty
    margins: NDArray[np.float32]  # (n_points,), or empty

    @classmethod
    def empty(cls, n_points: int, *, second: bool, margin: bool) -> Results:
        """Arrays to write to, of those fields that a call asks for."""
        return cls(
            np.empty(n_points, np.int32),
            np.empty(n_points, np.float64),
            np.empty(n_points, np.float32),
            np.empty(n_points, np.int32) if second else _NO_LABELS,
            np.empty(n_points, np.float64) if second else _NO_DISTANCES,
            np.empty(n_points, np.float32) if margin else _NO_MARGINS,
        )

    def part(self, start: int, stop: int) -> Results:
        """The same for some of the records."""
        return Results(
            self.labels[start:stop],
            self.distances[start:stop],
            self.gaps[start:stop],
            self.second_labels[start:stop],
            self.second_distances[start:stop],
            self.margins[start:stop],
        )


class Room(NamedTuple):
    """Where the threads of a call work."""

    scratch: NDArray[np.float32]
    taken: NDArray[np.int64]  # (1,): tiles that have a thread
    compared: NDArray[np.int64]  # (n_threads,): canonical comparisons, once a thread is done


class Search(Protocol):
    """A model prepared for one way."""

    speed: float
    """Against float32 operands: how much more may be done before waking threads pays."""

    def tile(self, n_points: int, threads: int) -> int:
        """How many records are taken at once."""
        ...

    def n_scratch(self, n_tile: int) -> int:
        """float32 that a thread needs."""
        ...

    def run(
        self, address: int, n_points: int, n_tile: int, threads: int, borders: Borders, room: Room,
        results: Results,
    ) -> None:  # fmt: skip
        """Label the records at an address."""
        ...


class Way:
    """One way to search, prepared when it is first taken."""

    __slots__ = ("_make", "_search", "is_prefixed", "name", "work_ns")

    def __init__(
        self, name: str, work_ns: float, make: Callable[[], Search], *, is_prefixed: bool = False
    ) -> None:
        self.name = name
        self.work_ns = work_ns
        """Of a record, without comparisons."""
        self.is_prefixed = is_prefixed
        self._make = make
        self._search: Search | None = None

    @property
    def search(self) -> Search:
        if self._search is None:
            self._search = self._make()
        return self._search


class _Trial:
    """What is known about a way."""

    __slots__ = ("compared", "left_at", "n_records", "patience")

    def __init__(self, hope: float) -> None:
        self.compared = hope  # of a record
        self.n_records = 0
        self.left_at = 0
        self.patience = PATIENCE


class Choice:
    """Which way is taken, for one kind of call on one model."""

    __slots__ = (
        "_comparison_ns", "_hope", "_n_compared", "_n_records", "_n_seen", "_trials", "_ways",
        "is_sharp", "left", "way",
    )  # fmt: skip

    def __init__(self, model: Model, hope: float, *, is_sharp: bool) -> None:
        # the list and not the model: two that refer to each other wait for the collector, which
        # looks at what is old once in hours, and each of them has megabytes
        self._ways = model.ways
        self._comparison_ns = comparison_ns(model.n_dims)
        self.is_sharp = is_sharp
        """Bounds are wanted for what they say: those behind a prefix say little."""
        self.left = 0
        """Records until the choice is reviewed."""
        self._hope = hope
        self._trials: dict[str, _Trial] = {}
        self._n_records = self._n_compared = self._n_seen = 0
        self.way = self._cheapest()

    def learn(self, n_records: int, n_compared: int) -> None:
        """What happened to records that were searched in this way; from time to time a review."""
        self._n_records += n_records
        self._n_compared += n_compared
        self.left -= n_records
        if self.left <= 0:
            self.review()

    def review(self) -> None:
        """Take the way that seems the cheapest."""
        trial = self._trials[self.way.name]
        if self._n_records:
            self._n_seen += self._n_records
            weight = self._n_records / (self._n_records + min(trial.n_records, TRIAL))
            trial.compared += weight * (self._n_compared / self._n_records - trial.compared)
            trial.n_records += self._n_records
            trial.left_at = self._n_seen
            self._n_records = self._n_compared = 0
        for other in self._trials.values():
            is_known = other is not trial and other.n_records > 0
            if is_known and self._n_seen - other.left_at > other.patience:
                other.n_records, other.compared = 0, self._hope
                other.patience *= 2
        self.way = self._cheapest()

    def expected_ns(self, way: Way) -> float:
        """Of a record."""
        trial = self._trials.setdefault(way.name, _Trial(self._hope))
        return way.work_ns + trial.compared * self._comparison_ns

    def _cheapest(self) -> Way:
        ways = [way for way in self._ways if not (self.is_sharp and way.is_prefixed)]
        way = min(ways or self._ways, key=self.expected_ns)
        self.left = BLOCK if self._trials[way.name].n_records >= TRIAL else TRIAL
        return way


class Model:
    """Centroids, the ways to search them, and what few calls ask for."""

    __slots__ = (
        "_borders", "_choices", "centroids", "n_clusters", "n_dims", "n_until_prefix", "ways"
    )  # fmt: skip

    def __init__(self, centroids: Points) -> None:
        self.centroids = centroids
        self.n_clusters: int = centroids.shape[0]
        self.n_dims: int = centroids.shape[1]
        self.ways: list[Way] = []
        """What a way is made by must not refer to this model, see `Choice`."""
        self.n_until_prefix = np.inf
        """Records after which a prefix would have paid for itself, if it is worth anything."""
        self._borders: Borders | None = None
        self._choices: dict[tuple[bool, bool], Choice] = {}

    def borders(self) -> Borders:
        """For margins."""
        if self._borders is None:
            self._borders = borders(self.centroids)
        return self._borders

    def choice(self, *, second: bool, margin: bool) -> Choice:
        """The way for calls of a kind: what they compare differs."""
        kind = second, margin
        if kind not in self._choices:
            self._choices[kind] = Choice(self, hope=2.5 if second else 1.5, is_sharp=margin)
        return self._choices[kind]

    def add(self, way: Way) -> None:
        """Another way, which competes from now on."""
        self.ways.append(way)
        for choice in self._choices.values():
            choice.review()
