"""What the charts are given, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.profile import Profiles

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class Signal(StrEnum):
    """What has changed: a field of the alarm and a metric's label."""

    OCCUPANCY = "occupancy"
    DISTANCE = "distance"
    SHIFT = "shift"
    IMBALANCE = "imbalance"
    CHURN = "churn"


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """The stream as the model was fitted on it."""

    profiles: Profiles
    """Of its K clusters, of the items that the fit looked at."""
    n_members: int
    """Items of all partitions when watching begins."""
    n_items: int | None = None
    """Items that there were at the fit; None: it looked at all of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What happened since the window before; K clusters, all partitions together."""

    landed: Counts
    """(K,) records that landed in a cluster."""
    distances: Floats
    """(K,) sum of their distances to its centroid, euclidean."""
    n_records: int
    """Records read, tombstones and what could not be used too."""
    n_reassigned: int
    """Items that a record moved from one cluster to another."""
    n_members: int
    """Items of all partitions at its end."""
    moves: NDArray[np.floating] | None = None
    """(K, d) steps of the centroids in this window; None: none was published."""
    displacements: Floats | None = None
    """(K,) distance of each centroid from where it was fitted; beside ``moves``."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A signal began or ceased to say that the stream has changed."""

    signal: Signal
    label: int | None
    """The cluster; None: the model as a whole."""
    state: Literal["raised", "cleared"]
    statistic: float
    threshold: float
    effect: float
    """How much has changed, in the unit of the signal; it does not grow with the traffic."""
    labels: tuple[int, ...] = ()
    """Clusters that contribute most, most first."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a chart shows after a window; n = 1 for the model, K for its clusters."""

    statistics: Floats  # (n,)
    thresholds: Floats  # (n,)
    quiet: Floats  # (n,): what a quarter of all windows exceed without a change
    effects: Floats  # (n,)
    evidence: Callable[[], Floats] | None = None
    """(K,) what each cluster contributes to a statistic of the whole model, as a chi-square of one
    degree of freedom where nothing has changed; None: it has no parts."""
