"""What replies about the whole look like: trends, flows, time, models, frames, jobs.

As in `shapes`, from which they take what they share.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.services.server.shapes import Signal, Version


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
    """Over the last five minutes, by the times of the events."""
    events_per_s: float
    """Changes that came to this server's view, over the last ten seconds."""
    model: Version | None
    vectors: bool
    """Whether they are kept, so whether similar items can be asked for."""
    lag_records: dict[str, int]
    """Topic -> records that the view is behind."""
    lag_s: float
    """How long ago the newest record in the view was written, while there are newer ones."""
    delay_p50_s: float | None
    """From a record's time to that of its event, over the newest events."""
    delay_p99_s: float | None
    end_to_end_p50_s: float | None
    """From a record's time to its change in this server's view, over the newest changes."""
    end_to_end_p99_s: float | None
    descriptors_open: int | None
    """Files and connections of the server; null: that is not known here."""
    descriptors_limit: int | None
    """How many it may have."""
    partitions: list[PartitionRow]
    as_of: str | None


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

    t: str
    model: Version
    clusters: list[MapRow]


@dataclass(frozen=True, slots=True)
class FramesReply:
    """The map over time, the oldest first."""

    items: list[Frame]
    step_s: int
    """Between two frames: as asked for, or longer."""
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
