"""The seam between the algorithms and the device.

An algorithm is written once, in :mod:`pipeline.clustering` and above; only what is
listed here is written twice. An operation belongs here if it touches every point
of a batch; everything smaller stays NumPy on the host.

The canonical squared distance
------------------------------
``D(x, c) = sum((x_i - c_i)**2)``: difference and square in float64, one rounding
each, no fused multiply-add; 32 running sums, element i into sum ``i mod 32`` in
ascending i; then the sums fold 16 + 16, 8 + 8, 4 + 4, 2 + 2, 1 + 1. Every twin
returns these very bits, so a result depends on the arguments alone: not on
threads, launches, batch boundaries, devices or earlier calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

Points = NDArray[np.float32]  # (n_points, n_dims), C order, finite
Labels = NDArray[np.int32]  # (n_points,); -1: in no cluster
Weights = NDArray[np.float64]  # (n_points,); 0 to MAX_WEIGHT

MAX_WEIGHT = 2.0**8
WEIGHT_UNIT = 2.0**-31  # of a sum of weights


DEVICE_KINDS = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """On which device the kernels run, and how much of it they may take."""

    kind: str = "auto"
    """``auto``: the CPU, and for large calls a CUDA device where one answers; ``cpu``; ``cuda``."""
    threads: int | None = None
    """Of the CPU twin; None: what the container may use."""
    max_memory_bytes: int | None = None
    """Of a CUDA device, for models and what one call needs; None: half of what is free."""

    def __post_init__(self) -> None:
        if self.kind not in DEVICE_KINDS:
            raise ConfigError(
                f"device.kind is {self.kind!r}, but must be one of {', '.join(DEVICE_KINDS)}"
            )
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise ConfigError(f"device.threads is {self.threads}, but must be in 1..1024")
        if self.max_memory_bytes is not None and self.max_memory_bytes < 2**20:
            raise ConfigError(
                f"device.max_memory_bytes is {self.max_memory_bytes}, but must be at least 1 MiB"
            )


class Assignment(NamedTuple):
    """Where each point belongs."""

    labels: Labels
    """(n,) argmin of the canonical squared distances over all clusters; ties to the lower label."""
    distances_squared: NDArray[np.float64]
    """(n,) canonical, to the centroid of the label."""
    gaps: NDArray[np.float32]
    """(n,) lower bound on second smallest minus smallest squared distance: maybe loose, never
    high; 0 is allowed, +inf with a single cluster."""
    second_labels: Labels | None = None
    """(n,) the runner-up, lower label on ties; -1 with a single cluster. On request."""
    second_distances_squared: NDArray[np.float64] | None = None
    """(n,) canonical, to the runner-up; +inf with a single cluster. On request."""
    margins: NDArray[np.float32] | None = None
    """(n,) lower bound on the distance to the border of the cell: a point that moves by less keeps
    its label. Maybe loose, never high; 0 is allowed, +inf with a single cluster. On request."""


class Separation(NamedTuple):
    """How far points are from the clusters, in plain distances (the roots of squared ones)."""

    own: NDArray[np.float64]
    """(n_rows,) sum over the members of the own cluster; to itself it is 0."""
    others: NDArray[np.float64]
    """(n_rows,) least mean over the members of another cluster; +inf with a single cluster."""


@dataclass(slots=True, eq=False)
class Sums:
    """Sufficient statistics of clusters in integers: exact under any order of additions.

    A component enters ``sums`` as ``rint(x / unit)``; a squared norm (canonical, to the zero
    vector) enters ``squares`` as ``rint(|x|² / square_unit)``, split into its high (column 0)
    and low (column 1) 32 bits, which are summed apart: ``total = (high << 32) + low``.
    The caller keeps components within ``max_component`` and adds fewer than 2**23 rows.

    Where rows have weights, a component enters as ``rint(x * w / unit)``, a squared norm as
    ``rint(|x|² * w / square_unit)``, and the weight itself as ``rint(w / WEIGHT_UNIT)``: the
    product is rounded once, to float64, and a power of two rounds nothing. So an item with its
    weight adds one number whatever stands beside it, and subtracting it leaves zeros.

    No word overflows. Both units are 2**8 coarser with weights, which are at most 2**8, so with
    and without them a component is at most 2**40 units, and with n_dims <= 2**14 a squared norm
    at most 2**62: 2**30 in the high word, below 2**32 in the low one. A weight is at most 2**39
    units. Fewer than 2**23 rows then stay below 2**63, 2**53, 2**55 and 2**62.
    """

    unit: float
    """A power of two: ``max_component * 2**-40``; with weights ``* 2**-32``."""
    square_unit: float
    """A power of two: ``max_component**2 * 2**-48``; with weights ``* 2**-40``."""
    counts: NDArray[np.int64]  # (n_clusters,)
    sums: NDArray[np.int64]  # (n_clusters, n_dims), in ``unit``
    squares: NDArray[np.int64]  # (n_clusters, 2): high, low; in ``square_unit``
    weights: NDArray[np.int64] | None = None
    """(n_clusters,) in ``WEIGHT_UNIT``; None: rows have no weights, and each counts once."""

    @classmethod
    def zeros(
        cls, n_clusters: int, n_dims: int, *, max_component: float, is_weighted: bool = False
    ) -> Sums:
        """Statistics of no members at all."""
        coarser = MAX_WEIGHT if is_weighted else 1.0
        return cls(
            unit=max_component * 2.0**-40 * coarser,
            square_unit=max_component**2 * 2.0**-48 * coarser,
            counts=np.zeros(n_clusters, np.int64),
            sums=np.zeros((n_clusters, n_dims), np.int64),
            squares=np.zeros((n_clusters, 2), np.int64),
            weights=np.zeros(n_clusters, np.int64) if is_weighted else None,
        )

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays by label that there are."""
        names = ("counts", "sums", "squares")
        return names if self.weights is None else (*names, "weights")

    def weigh(
        self, old_labels: Labels, old_weights: Weights, new_labels: Labels, new_weights: Weights
    ) -> None:
        """The part of `Kernels.accumulate` that is one word a row: every twin's, on the host."""
        assert self.weights is not None
        for labels, weights, apply in (
            (old_labels, old_weights, np.subtract.at),
            (new_labels, new_weights, np.add.at),
        ):
            here = labels >= 0
            units = np.rint(weights[here] / WEIGHT_UNIT).astype(np.int64)
            apply(self.weights, labels[here], units)


class Kernels(Protocol):
    """Three array operations are the whole contract of a device."""

    name: str
    """Of the closed set of the metric label ``kernel``: cpu, avx512, amx, cuda, hybrid."""

    def load(self, centroids: Points) -> Any:
        """Prepare centroids (n_clusters >= 1, n_dims >= 1) for `assign`; once per model.

        The result belongs to the twin that made it and to nobody else.
        """
        ...

    def assign(
        self, model: Any, points: Points, *, second: bool = False, margin: bool = False
    ) -> Assignment:
        """Label each of n >= 0 points with its nearest centroid; neither argument is modified.

        ``second`` and ``margin`` ask for the fields of `Assignment` that are given on request.
        """
        ...

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
        """Subtract row i of ``old`` where it was and add row i of ``new`` where it is.

        All have n rows; a label of -1 means there is no such side, and its row and weight are
        not used. Both sides are done also when the labels are equal. Weights, 0 or in 2**-500
        to `MAX_WEIGHT`, belong to sums that are weighted: there both, elsewhere none. ``sums``
        is modified in place.
        """
        ...

    def separations(
        self, points: Points, starts: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> Separation:
        """How far some of the points are from every cluster, what a silhouette is made of.

        Parameters
        ----------
        points : (n_points, n_dims) float32
            Sorted by cluster.
        starts : (n_clusters + 1,) int64
            Rows ``starts[k]`` to ``starts[k + 1]`` are the members of cluster k: one at least.
        rows : (n_rows,) int64
            Of which points; in any order.

        Notes
        -----
        Distances are good to a relative 2**-20 each, sums are taken in float64: so results may
        differ between twins, and between calls, in digits that no silhouette shows.
        """
        ...


class Problems(NamedTuple):
    """Small fits to be done in one call: their rows, and the numbers that their seeds are drawn by.

    A fit of many starts is as many problems on the same rows.
    """

    first_rows: NDArray[np.int64]  # (n_problems,)
    n_rows: NDArray[np.int64]  # (n_problems,)
    n_clusters: NDArray[np.int64]  # (n_problems,): wanted; 0 only where there are no rows
    units: NDArray[np.float64]  # (n_problems, 2): of `Sums`: of components, of squares
    first_seeds: NDArray[np.int64]  # (n_problems,): a row of the problem; -1: by the first number
    first_numbers: NDArray[np.int64]  # (n_problems,): where in ``numbers`` those of it begin
    numbers: NDArray[np.float64]  # in [0, 1), in the order of `pipeline.clustering.seeding`
    n_trials: NDArray[np.int64]  # (max(n_clusters) + 1,): candidates for each of so many seeds


class ManyFits(NamedTuple):
    """What became of `Problems`; a field (rows,) or (clusters,) has them in their order."""

    centroids: Points  # (clusters wanted, n_dims); zeros where there are fewer distinct rows
    labels: Labels  # (rows,): -1 if there is no cluster
    distances_squared: NDArray[np.float64]  # (rows,): canonical
    n_clusters: NDArray[np.int64]  # (n_problems,): as many as there are distinct rows, at most
    inertias: NDArray[np.float64]  # (n_problems,)
    n_iterations: NDArray[np.int64]  # (n_problems,)
    has_converged: NDArray[np.bool_]  # (n_problems,)


@runtime_checkable
class ManyKernels(Protocol):
    """Small problems by the thousand: what a twin may do beside its contract.

    The bytes are those of one problem after the other through `Kernels`, gaps excepted.
    """

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
        """`pipeline.clustering.kmeans.fit` of each problem."""
        ...

    def assign_many(
        self,
        points: Points,
        starts: NDArray[np.int64],
        centroids: Points,
        centroid_starts: NDArray[np.int64],
    ) -> Assignment:
        """`Kernels.assign` of the rows ``starts[p]`` to ``starts[p + 1]`` to the centroids of p.

        A problem with rows has a centroid.
        """
        ...


def check_weights(
    sums: Sums, n_rows: int, old_weights: Weights | None, new_weights: Weights | None
) -> None:
    """Weights that do not fit the sums are a bug; what a missing side weighs is not looked at."""
    is_weighted = sums.weights is not None
    assert (old_weights is not None) == is_weighted, "weights belong to weighted sums"
    assert (new_weights is not None) == is_weighted, "weights belong to weighted sums"
    if old_weights is not None and new_weights is not None:
        assert old_weights.dtype == new_weights.dtype == np.float64
        assert old_weights.shape == new_weights.shape == (n_rows,)
