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
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

Points = NDArray[np.float32]  # (n_points, n_dims), C order, finite
Labels = NDArray[np.int32]  # (n_points,); -1: in no cluster


DEVICE_KINDS = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """On which device the kernels run, and how much of it they may take."""

    kind: str = "auto"
    """``auto``: a CUDA device where one answers, else the CPU; ``cpu``; ``cuda``."""
    threads: int | None = None
    """Of the CPU twin; None: what the container may use."""
    max_memory_bytes: int | None = None
    """Of a CUDA device, for one call's points and results; None: half of what is free."""

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


@dataclass(slots=True, eq=False)
class Sums:
    """Sufficient statistics of clusters in integers: exact under any order of additions.

    A component enters ``sums`` as ``rint(x / unit)``; a squared norm (canonical, to the zero
    vector) enters ``squares`` as ``rint(|x|² / square_unit)``, split into its high (column 0)
    and low (column 1) 32 bits, which are summed apart: ``total = (high << 32) + low``.
    The caller keeps components within ``max_component`` and adds fewer than 2**23 rows.
    """

    unit: float
    """A power of two: ``max_component * 2**-40``."""
    square_unit: float
    """A power of two: ``max_component**2 * 2**-48``."""
    counts: NDArray[np.int64]  # (n_clusters,)
    sums: NDArray[np.int64]  # (n_clusters, n_dims), in ``unit``
    squares: NDArray[np.int64]  # (n_clusters, 2): high, low; in ``square_unit``

    @classmethod
    def zeros(cls, n_clusters: int, n_dims: int, *, max_component: float) -> Sums:
        """Statistics of no members at all."""
        return cls(
            unit=max_component * 2.0**-40,
            square_unit=max_component**2 * 2.0**-48,
            counts=np.zeros(n_clusters, np.int64),
            sums=np.zeros((n_clusters, n_dims), np.int64),
            squares=np.zeros((n_clusters, 2), np.int64),
        )


class Kernels(Protocol):
    """Two array operations are the whole contract of a device."""

    name: str
    """Of the closed set of the metric label ``kernel``: cpu, avx512, amx, cuda, hybrid."""

    def load(self, centroids: Points) -> Any:
        """Prepare centroids (n_clusters >= 1, n_dims >= 1) for `assign`; once per model.

        The result belongs to the twin that made it and to nobody else.
        """
        ...

    def assign(self, model: Any, points: Points, *, second: bool = False) -> Assignment:
        """Label each of n >= 0 points with its nearest centroid; neither argument is modified."""
        ...

    def accumulate(
        self, sums: Sums, old: Points, old_labels: Labels, new: Points, new_labels: Labels
    ) -> None:
        """Subtract row i of ``old`` where it was and add row i of ``new`` where it is.

        All four have n rows; a label of -1 means there is no such side, and its row is not read.
        Both sides are done also when the labels are equal. ``sums`` is modified in place.
        """
        ...
