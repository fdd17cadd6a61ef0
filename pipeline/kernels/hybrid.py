"""Two twins as one: small calls stay on the processor, large ones go to the card.

Both are exact, so they are interchangeable record by record: the choice is a matter of time. It
is made by what calls of a few sizes took on this machine when it was first used.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.kernels.contract import (
    Assignment,
    Kernels,
    Labels,
    ManyFits,
    ManyKernels,
    Points,
    Problems,
    Separation,
    Sums,
    Weights,
)
from pipeline.kernels.devices import DeviceMemory, device_memory, device_name

CALLS = 5  # of which the median counts
SHAPES = {  # operation -> little of everything; much to carry; much work
    "assign": ((16, 16), (8192, 1), (8192, 256)),  # points, clusters
    "accumulate": ((16, 16), (8192, 16), (16, 4096)),  # rows, clusters
    "separations": ((16, 64), (16, 8192), (256, 8192)),  # rows, points
}
MAX_ROWS, N_DIMS = 8192, 256
FORM = 1  # of the file


class Cost(NamedTuple):
    """What a call takes: ``start_s + carried * carry_s + work * work_s`` seconds."""

    start_s: float
    carry_s: float
    """For each number that has to be brought where it is computed."""
    work_s: float
    """For each pair of numbers that meet."""

    def seconds(self, carried: float, work: float) -> float:
        """Of one call."""
        return self.start_s + carried * self.carry_s + work * self.work_s


class Costs(NamedTuple):
    """What one operation takes on each side."""

    small: Cost
    large: Cost

    def prefers_large(self, carried: float, work: float) -> bool:
        """Whether a call is done sooner on the card."""
        return self.large.seconds(carried, work) < self.small.seconds(carried, work)


SIDES = Costs._fields
Crossover = Mapping[str, Costs]
"""Operation -> its costs."""


@dataclass(slots=True, eq=False)
class HybridModel:
    """Centroids, loaded on either side when a call first goes there."""

    centroids: Points
    small: Any = None
    large: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class HybridKernels:
    """A twin of two others.

    Parameters
    ----------
    small
        For small calls: a twin of the processor.
    large
        For large ones: the CUDA twin. What it has no room for the other does.
    crossover
        What calls take: `measured`. Changes no result.
    """

    name = "hybrid"

    def __init__(self, small: Kernels, large: Kernels, crossover: Crossover) -> None:
        self.small, self.large = small, large
        self.crossover = crossover
        self.device = " and ".join(map(device_name, (small, large)))

    def device_memory(self) -> DeviceMemory | None:
        """Of the card."""
        return device_memory(self.large)

    def load(self, centroids: Points) -> HybridModel:
        """See `pipeline.kernels.contract.Kernels.load`; the twins prepare what they are asked."""
        assert centroids.dtype == np.float32
        assert centroids.ndim == 2 and min(centroids.shape) >= 1
        return HybridModel(centroids.copy())

    def assign(
        self, model: HybridModel, points: Points, *, second: bool = False, margin: bool = False
    ) -> Assignment:
        """See `pipeline.kernels.contract.Kernels.assign`."""
        work = carried_and_work("assign", len(points), model.centroids.shape)
        if self._prefers_large("assign", *work):
            try:
                there = self._loaded(model, "large")
                return self.large.assign(there, points, second=second, margin=margin)
            except ConfigError:
                pass  # no room for it: slower, and no other result
        here = self._loaded(model, "small")
        return self.small.assign(here, points, second=second, margin=margin)

    def accumulate(
        self,
        sums: Sums,
        old: Points,
        old_labels: Labels,
        new: Points,
        new_labels: Labels,
        *,
        old_weights: Weights | None = None,
        new_weights: Weights | None = None,
    ) -> None:
        """See `pipeline.kernels.contract.Kernels.accumulate`."""
        given = sums, old, old_labels, new, new_labels
        work = carried_and_work("accumulate", len(new), sums.sums.shape)
        if self._prefers_large("accumulate", *work):
            try:
                self.large.accumulate(*given, old_weights=old_weights, new_weights=new_weights)
                return
            except ConfigError:  # before anything was added
                pass
        self.small.accumulate(*given, old_weights=old_weights, new_weights=new_weights)

    def separations(
        self, points: Points, starts: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> Separation:
        """See `pipeline.kernels.contract.Kernels.separations`."""
        work = carried_and_work("separations", len(rows), points.shape)
        if self._prefers_large("separations", *work):
            try:
                return self.large.separations(points, starts, rows)
            except ConfigError:
                pass
        return self.small.separations(points, starts, rows)

    def fit_many(
        self,
        points: Points,
        problems: Problems,
        *,
        weights: Weights | None,
        max_iterations: int,
        tol: float,
        spherical: bool,
    ) -> ManyFits:
        """See `pipeline.kernels.contract.ManyKernels.fit_many`: on the processor."""
        return self._many().fit_many(
            points,
            problems,
            weights=weights,
            max_iterations=max_iterations,
            tol=tol,
            spherical=spherical,
        )

    def assign_many(
        self,
        points: Points,
        starts: NDArray[np.int64],
        centroids: Points,
        centroid_starts: NDArray[np.int64],
    ) -> Assignment:
        """See `pipeline.kernels.contract.ManyKernels.assign_many`: on the processor."""
        return self._many().assign_many(points, starts, centroids, centroid_starts)

    def _many(self) -> ManyKernels:
        assert isinstance(self.small, ManyKernels), f"{self.small.name} does not do many at once"
        return self.small

    def _prefers_large(self, operation: str, carried: float, work: float) -> bool:
        return self.crossover[operation].prefers_large(carried, work)

    def _loaded(self, model: HybridModel, side: str) -> Any:
        with model.lock:
            loaded = getattr(model, side)
            if loaded is None:
                loaded = getattr(self, side).load(model.centroids)
                setattr(model, side, loaded)
            return loaded


def carried_and_work(operation: str, n_rows: int, other: tuple[int, ...]) -> tuple[float, float]:
    """By what the time of a call grows: numbers to be carried, and pairs of them that meet.

    ``other`` is the shape of what the rows meet: centroids, the sums, all points. A sum costs
    its transport both ways, so there it is the work; points cost theirs by their number.
    """
    n_others, n_dims = other
    rows, others = float(n_rows) * n_dims, float(n_others) * n_dims
    if operation == "accumulate":
        return rows, others
    return (rows if operation == "assign" else others), rows * n_others


def measured(
    small: Kernels,
    large: Kernels,
    key: Mapping[str, str],
    *,
    folder: Path | None,
    clock: Callable[[], float] = time.perf_counter,
) -> Crossover:
    """What calls take on both twins: read where it was written, else measured and written.

    Parameters
    ----------
    key
        What the figures depend on: the processor, the card, versions.
    folder
        Where figures are kept; None: nowhere. A file there that cannot be read, or is of
        something else, is as good as none, and one that cannot be written is done without.
    clock
        Seconds.
    """
    name = sha256(json.dumps(dict(sorted(key.items()))).encode()).hexdigest()[:16]
    path = None if folder is None else folder / f"crossover-{name}.json"
    if path is not None:
        found = _read(path, key)
        if found is not None:
            return found
    values = np.random.default_rng(0).standard_normal((MAX_ROWS, N_DIMS), np.float32)
    crossover = {
        operation: Costs(*(_cost(twin, operation, values, clock) for twin in (small, large)))
        for operation in SHAPES
    }
    if path is not None:
        _write(path, key, crossover)
    return crossover


def cache_folder(environ: Mapping[str, str]) -> Path | None:
    """The user's folder for what can be made again (XDG Base Directory Specification, 0.8)."""
    given = environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):
        return Path(given) / "eddy"
    try:
        return Path.home() / ".cache" / "eddy"
    except RuntimeError:  # a user without a home
        return None


def _cost(twin: Kernels, operation: str, values: Points, clock: Callable[[], float]) -> Cost:
    """Three sizes, three unknowns; what the noise made negative is 0."""
    terms, times = [], []
    for n_rows, n_others in SHAPES[operation]:
        call = _call(twin, operation, values[:n_rows], values[-n_others:])
        call()  # compiles, allocates
        taken = []
        for _ in range(CALLS):
            started = clock()
            call()
            taken.append(clock() - started)
        terms.append((1.0, *carried_and_work(operation, n_rows, (n_others, N_DIMS))))
        times.append(statistics.median(taken))
    return Cost(*(max(0.0, float(t)) for t in np.linalg.solve(np.array(terms), np.array(times))))


def _call(twin: Kernels, operation: str, rows: Points, others: Points) -> Callable[[], Any]:
    n_rows, n_others = len(rows), len(others)
    if operation == "assign":
        model = twin.load(others)
        return lambda: twin.assign(model, rows)
    if operation == "accumulate":
        sums = Sums.zeros(n_others, N_DIMS, max_component=8.0)
        nowhere = np.full(n_rows, -1, np.int32)
        labels = (np.arange(n_rows) % n_others).astype(np.int32)
        return lambda: twin.accumulate(sums, rows, nowhere, rows, labels)
    starts = np.linspace(0, n_others, 9).astype(np.int64)
    return lambda: twin.separations(others, starts, np.arange(n_rows))


def _read(path: Path, key: Mapping[str, str]) -> Crossover | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["form"] != FORM or kept["key"] != dict(key):
            return None
        found = {
            operation: Costs(*(Cost(*map(float, kept["costs"][operation][side])) for side in SIDES))
            for operation in SHAPES
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None
    numbers = [number for costs in found.values() for cost in costs for number in cost]
    return found if all(math.isfinite(n) and n >= 0.0 for n in numbers) else None


def _write(path: Path, key: Mapping[str, str], crossover: Crossover) -> None:
    costs = {operation: both._asdict() for operation, both in crossover.items()}
    text = json.dumps({"form": FORM, "key": dict(key), "costs": costs}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)  # another process may read it now
    except OSError:
        return
