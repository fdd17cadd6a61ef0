"""What goes out: facts, in the past tense.

Field names are Python's where the wire's are taken (``from``) or nested (``model``); times are
milliseconds since 1970, as Kafka counts them. The bytes are made in :mod:`pipeline.messages.codec`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scalar = str | int | float | bool
Metadata = Mapping[str, Scalar]


class ChangeType(StrEnum):
    """What happened to an item."""

    ASSIGNED = "assigned"
    REASSIGNED = "reassigned"
    REMOVED = "removed"


class Cause(StrEnum):
    """Why it happened: the item changed or went, the centroids moved, or its tombstone is lost."""

    RECORD = "record"
    MODEL = "model"
    LOST = "lost"


class ClusterChange(NamedTuple):
    """One step of an item: each ``from_cluster`` is the ``to_cluster`` of the event before."""

    id: str
    type: ChangeType
    item: str
    from_cluster: str | None
    to_cluster: str | None
    cause: Cause
    distance: float | None
    margin: float | None
    confidence: float | None
    epoch: int
    revision: int
    topic: str
    """The input topic; with ``partition`` and ``offset`` the item's last record."""
    partition: int
    offset: int
    occurred_at_ms: int | None
    metadata: Metadata | None = None
    typicality: float | None = None
    """The share of the cluster's members at the fit that lay farther away; None: not known."""


class LifecycleType(StrEnum):
    """What happened to a cluster, or to the model as a whole."""

    INSTALLED = "installed"
    BORN = "born"
    SPLIT = "split"
    MERGED = "merged"
    RETIRED = "retired"
    RESTORED = "restored"
    LABELLED = "labelled"
    REJECTED = "rejected"


class Lifecycle(NamedTuple):
    """Lineage of clusters; ``cluster`` is None where the whole model is meant."""

    id: str
    type: LifecycleType
    epoch: int
    revision: int
    occurred_at_ms: int | None
    cluster: str | None = None
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    size: int | None = None
    similarity: float | None = None
    label: str | None = None
    command: str | None = None
    reason: str | None = None
    inertia_before: float | None = None
    inertia_after: float | None = None
    moved: float | None = None

    @property
    def key(self) -> bytes:
        """The record's key."""
        return (self.cluster or "model").encode()


class Drift(NamedTuple):
    """An alarm that was raised or cleared; ``cluster`` is None where ``scope`` is the model."""

    id: str
    state: str
    scope: str
    cluster: str | None
    signal: str
    statistic: float
    threshold: float
    effect: float
    arl0: int
    window: int
    epoch: int
    revision: int
    occurred_at_ms: int | None
    clusters: tuple[str, ...] = ()
    """Those that contribute most, the most first."""

    @property
    def key(self) -> bytes:
        """The record's key."""
        return (self.cluster or "model").encode()


@dataclass(frozen=True, slots=True, eq=False)
class StatisticsRow:
    """What a partition's members of one cluster add up to; units as in the kernels' contract."""

    epoch: int
    count: int
    square_high: int
    square_low: int
    landed: int
    """Records that landed in the cluster since the owner began."""
    distance: float
    """Of those records to the centroid, summed."""
    distance_squared: float
    sums: NDArray[np.int64]  # (n_dims,)
    weight: int | None = None
    """Of the members together, where weights fade; then the units are the coarser ones."""


class Head(NamedTuple):
    """How far a partition is: the newest model whose sweep is done, and this owner's counters."""

    epoch: int | None
    revision: int | None
    since: int
    """The offset from which this owner counts ``records`` and ``reassigned``."""
    next_offset: int
    members: int
    records: int
    reassigned: int
    embedding_since: int | None = None
    """The epoch with which the embedding model took over by which all members stand; None: there
    was no other, or the change is under way."""


def change_id(
    cause: Cause, topic: str, partition: int, offset: int, *, epoch: int, revision: int, item: str
) -> str:
    """The id of a change event, made of its cause alone: a replay makes the same one again."""
    if cause is Cause.MODEL:
        return f"model/{epoch}.{revision}/{item}"
    place = f"{topic}/{partition}/{offset}"
    return f"lost/{place}" if cause is Cause.LOST else place


def confidence(best: float, second: float) -> tuple[float | None, float]:
    """Margin and confidence of a choice, from the two smallest distances.

    ``second`` is infinite with a single cluster: there is no margin, and no doubt either.
    """
    if math.isinf(second):
        return None, 1.0
    if second == 0.0:
        return 0.0, 0.0
    return second - best, (second - best) / second
