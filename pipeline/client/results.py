"""What the server answers, as frozen dataclasses.

Their fields are those of ``schemas/openapi.json``, which a test holds them to; times are datetimes
in UTC, lists are tuples. A field that this version does not know is passed over, so a newer server
may say more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Version:
    """Of a model."""

    epoch: int
    revision: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.revision}"


@dataclass(frozen=True, slots=True)
class Signal:
    """The last word on one signal of drift."""

    id: str
    state: str
    """raised or cleared."""
    scope: str
    cluster: str | None
    clusters: tuple[str, ...]
    signal: str
    statistic: float
    threshold: float
    effect: float
    arl0: int
    window: int
    model: Version
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of the newest model."""

    cluster: str
    label: str | None
    size: int
    share: float
    """Of all items."""
    spread: float | None
    """Root mean squared distance of the members to their mean."""
    shift: float | None
    """How far the centroid is from where it was fitted, in units of the spread at the fit."""
    growth: int
    """Gained less lost within the last hour."""
    x: float | None
    """Its place on the map, within [-1, 1]; None: it has none yet."""
    y: float | None
    drift: float | None
    """The largest statistic of its signals, in thresholds: from 1 on an alarm stands. None: there
    was never one."""
    state: str
    """live, or empty: without items."""
    exemplar: str | None
    """A typical item."""
    born_at: datetime | None
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterDetail(Cluster):
    """One cluster, with its alarms."""

    size_at_fit: int
    spread_at_fit: float | None
    signals: tuple[Signal, ...]
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class Member:
    """An item of a cluster."""

    item: str
    distance: float
    """To the centroid, when it was assigned."""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    """What its record says beside the vector; empty where the server keeps no vectors."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An item and where it is: a row of an export."""

    item: str
    cluster: str
    label: str | None
    distance: float


@dataclass(frozen=True, slots=True)
class NearCluster:
    """A cluster, and how far its centroid is from that of another."""

    cluster: str
    label: str | None
    size: int
    distance: float


@dataclass(frozen=True, slots=True)
class Change:
    """A change event: one step of an item."""

    id: str
    type: str
    """assigned, reassigned, removed."""
    item: str
    from_cluster: str | None
    to_cluster: str | None
    cause: str
    """record, model, lost."""
    distance: float | None
    margin: float | None
    confidence: float | None
    typicality: float | None
    model: Version
    partition: int
    offset: int
    """With `partition`: the record of the input that the event is about."""
    occurred_at: datetime | None
    emitted_at: datetime | None
    metadata: Mapping[str, Scalar] | None = None
    """Only of events read from the topic."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item, and what happened to it lately."""

    item: str
    cluster: str
    label: str | None
    distance: float
    margin: float | None
    """To the second nearest centroid, less `distance`."""
    confidence: float | None
    model: Version
    """By which it was assigned."""
    partition: int
    offset: int
    """The record that put it there."""
    changes: tuple[Change, ...]
    """The newest first."""
    as_of: datetime | None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    """What its record says beside the vector; empty where the server keeps no vectors."""


@dataclass(frozen=True, slots=True)
class NearItem:
    """An item, and how far its vector is."""

    item: str
    cluster: str
    distance: float
    similarity: float
    """Under cosine its cosine; else 1 / (1 + distance)."""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    """What its record says beside the vector; empty where the server keeps no vectors."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """Where a vector would belong."""

    cluster: str
    label: str | None
    distance: float
    margin: float | None
    confidence: float
    model: Version
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class Trend:
    """What a window did to a cluster."""

    cluster: str
    label: str | None
    size: int
    gained: int
    lost: int
    net: int
    expected: float
    """What its own past would have brought in as long a time."""
    score: float
    """How unlike its past the gain is, in standard deviations of a Poisson count."""
    sparkline: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """How many items went from one cluster to another."""

    from_cluster: str
    to_cluster: str
    count: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """A minute or an hour of a cluster."""

    begins_at: datetime
    gained: int
    lost: int
    size: int
    """At its end."""


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """What happened to a cluster, or to the model as a whole."""

    id: str
    type: str
    cluster: str | None
    parents: tuple[str, ...]
    children: tuple[str, ...]
    size: int | None
    model: Version
    similarity: float | None
    label: str | None
    command: str | None
    reason: str | None
    inertia_before: float | None
    inertia_after: float | None
    moved: float | None
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class DriftBoard:
    """The last word on every signal that there was an alarm of, and how far centroids are."""

    signals: tuple[Signal, ...]
    shifts: Mapping[str, float]
    """Cluster -> `Cluster.shift`, where it is known."""
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """A cluster over time."""

    cluster: str
    bucket_s: int
    sizes: tuple[Bucket, ...]
    lifecycle: tuple[LifecycleEvent, ...]
    alarms: tuple[Signal, ...]
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A model that can be gone back to."""

    epoch: int
    revision: int
    metric: str
    dimensions: int
    embedding_model: str | None
    clusters: int
    fitted_items: int
    fitted_inertia: float
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Model:
    """The newest model."""

    epoch: int
    revision: int
    metric: str
    dimensions: int
    embedding_model: str | None
    clusters: tuple[str, ...]
    fitted_items: int
    fitted_inertia: float
    digest: str
    created_at: datetime | None
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class Partition:
    """How far a partition is."""

    partition: int
    next_offset: int
    """What is below it was applied, and shows."""
    members: int | None
    model: Version | None


@dataclass(frozen=True, slots=True)
class Stats:
    """Totals."""

    items: int
    clusters: int
    clusters_live: int
    changes_per_s: float
    """Over the last five minutes, by the times of the events."""
    events_per_s: float
    """Changes that came to the server's view, over the last ten seconds."""
    model: Version | None
    vectors: bool
    """Whether they are kept, so whether similar items can be asked for."""
    lag_records: Mapping[str, int]
    lag_s: float
    """How long ago the newest record in the view was written, while there are newer ones."""
    delay_p50_s: float | None
    """From a record's time to that of its event, over the newest events."""
    delay_p99_s: float | None
    end_to_end_p50_s: float | None
    """From a record's time to its change in the server's view, over the newest changes."""
    end_to_end_p99_s: float | None
    descriptors_open: int | None
    descriptors_limit: int | None
    partitions: tuple[Partition, ...]
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class MapRow:
    """A cluster on the map, as it was."""

    cluster: str
    label: str | None
    size: int
    x: float | None
    y: float | None
    growth: int
    drift: float | None


@dataclass(frozen=True, slots=True)
class Frame:
    """The map at one moment."""

    t: datetime
    model: Version
    clusters: tuple[MapRow, ...]


@dataclass(frozen=True, slots=True)
class JobState:
    """A command, and what came of it."""

    id: str
    kind: str
    state: str
    """queued, succeeded, failed."""
    requested_by: str | None
    asked_at: datetime | None
    finished_at: datetime | None
    result: tuple[LifecycleEvent, ...] = ()
    problem: str | None = None
    """Why it was not carried out."""
    as_of: datetime | None = None

    @property
    def is_done(self) -> bool:
        """Whether it succeeded or failed."""
        return self.state in ("succeeded", "failed")


@dataclass(frozen=True, slots=True)
class Put:
    """A record that was written to the input, and what it did."""

    item: str
    partition: int
    offset: int
    assignment: Item | None = None
    """Where the item is; None: nobody waited for it, or it was removed."""
    change: Change | None = None
    """The event that this record caused; None: it left the item where it was."""

    @property
    def cluster(self) -> str | None:
        """Where the item is."""
        return None if self.assignment is None else self.assignment.cluster
