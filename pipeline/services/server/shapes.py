"""What replies look like: one frozen dataclass each, from which OpenAPI is made.

``as_of`` is the time of the newest record that the answer knows; times are ISO 8601 in UTC. A field
whose name is a word of Python has an underscore behind it here, and none on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Version:
    """Of a model."""

    epoch: int
    revision: int


@dataclass(frozen=True, slots=True)
class Signal:
    """The last word on one signal of drift."""

    id: str
    state: str
    """raised or cleared."""
    scope: str
    cluster: str | None
    clusters: list[str]
    """Those that contribute most, the most first."""
    signal: str
    statistic: float
    threshold: float
    effect: float
    arl0: int
    """Mean number of windows between false alarms."""
    window: int
    model: Version
    occurred_at: str | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of the newest model."""

    cluster: str
    label: str | None
    size: int
    share: float
    """Of all items."""
    spread: float | None
    """Root mean squared distance of the members to their mean, as partitions told it last."""
    shift: float | None
    """How far the centroid is from where it was fitted, in units of the spread at the fit."""
    growth: int
    """Gained less lost within the last hour."""
    exemplar: str | None
    """A typical item: the nearest."""
    born_at: str | None
    parents: list[str]


@dataclass(frozen=True, slots=True)
class ClusterReply:
    """One cluster, with its alarms."""

    cluster: str
    label: str | None
    size: int
    share: float
    spread: float | None
    shift: float | None
    growth: int
    exemplar: str | None
    born_at: str | None
    parents: list[str]
    size_at_fit: int
    spread_at_fit: float | None
    signals: list[Signal]
    as_of: str | None


@dataclass(frozen=True, slots=True)
class ClusterPage:
    """Clusters, and where the next ones are."""

    items: list[Cluster]
    next_cursor: str | None
    as_of: str | None


@dataclass(frozen=True, slots=True)
class Member:
    """An item of a cluster."""

    item: str
    distance: float
    """To the centroid, when it was assigned."""


@dataclass(frozen=True, slots=True)
class MemberPage:
    """Members of a cluster."""

    items: list[Member]
    next_cursor: str | None
    as_of: str | None


@dataclass(frozen=True, slots=True)
class NearCluster:
    """A cluster, and how far its centroid is from that of another."""

    cluster: str
    label: str | None
    size: int
    distance: float


@dataclass(frozen=True, slots=True)
class NearClusters:
    """Clusters by distance, the nearest first."""

    items: list[NearCluster]
    as_of: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """A change event, as it stands in the topic."""

    id: str
    type: str
    item: str
    from_: str | None
    to: str | None
    cause: str
    distance: float | None
    margin: float | None
    confidence: float | None
    typicality: float | None
    model: Version
    partition: int
    offset: int
    occurred_at: str | None
    emitted_at: str | None


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Changes, the newest first."""

    items: list[Change]
    next_cursor: str | None
    as_of: str | None


@dataclass(frozen=True, slots=True)
class ItemReply:
    """An item."""

    item: str
    cluster: str
    label: str | None
    distance: float
    margin: float | None
    """To the second nearest centroid, less ``distance``; null: not known."""
    confidence: float | None
    model: Version
    """By which it was assigned."""
    partition: int
    offset: int
    """The record that put it there."""
    changes: list[Change]
    """The newest of those that are kept."""
    as_of: str | None


@dataclass(frozen=True, slots=True)
class NearItem:
    """An item, and how far its vector is."""

    item: str
    cluster: str
    distance: float
    similarity: float
    """Under cosine its cosine; else 1 / (1 + distance)."""


@dataclass(frozen=True, slots=True)
class NearItems:
    """Items by distance, the nearest first."""

    items: list[NearItem]
    index: str
    """By what they were found: exact."""
    nprobe: int | None
    as_of: str | None


@dataclass(frozen=True, slots=True)
class AssignReply:
    """Where a vector would belong."""

    cluster: str
    label: str | None
    distance: float
    margin: float | None
    confidence: float
    model: Version
    as_of: str | None


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
    sparkline: list[int]
    """Net of each minute or hour of the window, the oldest first."""


@dataclass(frozen=True, slots=True)
class Trends:
    """Clusters, the strongest first."""

    window: str
    by: str
    counted_since: str | None
    """From when on changes are counted; null: since the first there was."""
    items: list[Trend]
    as_of: str | None


@dataclass(frozen=True, slots=True)
class FlowRow:
    """How many items went from one cluster to another."""

    from_: str
    to: str
    count: int


@dataclass(frozen=True, slots=True)
class Flows:
    """Flows, the strongest first."""

    window: str
    items: list[FlowRow]
    as_of: str | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """A minute or an hour of a cluster."""

    begins_at: str
    gained: int
    lost: int
    size: int
    """At its end."""


@dataclass(frozen=True, slots=True)
class LifecycleRow:
    """What happened to a cluster, or to the model as a whole."""

    id: str
    type: str
    cluster: str | None
    parents: list[str]
    children: list[str]
    size: int | None
    model: Version
    similarity: float | None
    label: str | None
    command: str | None
    reason: str | None
    inertia_before: float | None
    inertia_after: float | None
    moved: float | None
    occurred_at: str | None


@dataclass(frozen=True, slots=True)
class LifecyclePage:
    """Lifecycle events, the newest first."""

    items: list[LifecycleRow]
    next_cursor: str | None
    as_of: str | None


@dataclass(frozen=True, slots=True)
class SignalPage:
    """Alarms, the newest first."""

    items: list[Signal]
    next_cursor: str | None
    as_of: str | None


@dataclass(frozen=True, slots=True)
class DriftBoardReply:
    """The last word on every signal that there was an alarm of, and how far centroids are."""

    signals: list[Signal]
    shifts: dict[str, float]
    """Cluster -> `Cluster.shift`, where it is known."""
    as_of: str | None


@dataclass(frozen=True, slots=True)
class TimelineReply:
    """A cluster over time."""

    cluster: str
    bucket_s: int
    sizes: list[Bucket]
    lifecycle: list[LifecycleRow]
    alarms: list[Signal]
    as_of: str | None


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model, as its manifest says it."""

    epoch: int
    revision: int
    metric: str
    dimensions: int
    embedding_model: str | None
    clusters: int
    fitted_items: int
    fitted_inertia: float
    created_at: str | None


@dataclass(frozen=True, slots=True)
class ModelReply:
    """The newest model."""

    epoch: int
    revision: int
    metric: str
    dimensions: int
    embedding_model: str | None
    clusters: list[str]
    fitted_items: int
    fitted_inertia: float
    digest: str
    created_at: str | None
    as_of: str | None


@dataclass(frozen=True, slots=True)
class ModelsReply:
    """The last revision of every epoch that is kept, the newest first."""

    items: list[ModelRow]
    as_of: str | None


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """How far a partition is."""

    partition: int
    next_offset: int
    """What is below it was applied, and shows."""
    members: int | None
    """As its owner told it last."""
    model: Version | None
    """To which it is swept."""


@dataclass(frozen=True, slots=True)
class StatsReply:
    """Totals."""

    items: int
    clusters: int
    clusters_live: int
    changes_per_s: float
    """Over the last five minutes."""
    model: Version | None
    vectors: bool
    """Whether they are kept, so whether similar items can be asked for."""
    lag_records: dict[str, int]
    """Topic -> records that the view is behind."""
    delay_p50_s: float | None
    """From a record's time to that of its event, over the newest events."""
    delay_p99_s: float | None
    partitions: list[PartitionRow]
    as_of: str | None


@dataclass(frozen=True, slots=True)
class JobReply:
    """A command, and what came of it."""

    id: str
    kind: str
    state: str
    """queued, succeeded, failed."""
    requested_by: str | None
    asked_at: str | None
    finished_at: str | None
    result: list[LifecycleRow] = field(default_factory=list)
    """The events that it caused."""
    problem: str | None = None
    """Why it was not carried out."""
    as_of: str | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """Commands, the newest first."""

    items: list[JobReply]
    next_cursor: str | None
    as_of: str | None
