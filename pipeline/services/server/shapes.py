"""What replies look like: one frozen dataclass each, from which OpenAPI is made.

``as_of`` is the time of the newest record that the answer knows; times are ISO 8601 in UTC. A field
whose name is a word of Python has an underscore behind it here, and none on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass

MetadataValue = str | bool | int | float


@dataclass(frozen=True, slots=True)
class Version:
    """Of a model."""

    epoch: int
    revision: int


@dataclass(frozen=True, slots=True)
class Session:
    """Who asks."""

    auth: str
    """none: nobody needs a token; bearer."""
    name: str | None
    """Of the token; null: none was shown."""
    scopes: list[str]
    """read, write: what may be done with it."""


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
    x: float | None
    """Its place on the map, within [-1, 1]; null: it has none yet."""
    y: float | None
    drift: float | None
    """The largest statistic of its signals, in thresholds: from 1 on an alarm stands. Null: there
    was never one."""
    state: str
    """live, or empty: without items."""
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
    x: float | None
    y: float | None
    drift: float | None
    state: str
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
    metadata: dict[str, MetadataValue]
    """What its record says beside the vector; empty where this server keeps no vectors."""


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
    metadata: dict[str, MetadataValue]
    as_of: str | None


@dataclass(frozen=True, slots=True)
class NearItem:
    """An item, and how far its vector is."""

    item: str
    cluster: str
    distance: float
    similarity: float
    """Under cosine its cosine; else 1 / (1 + distance)."""
    metadata: dict[str, MetadataValue]


@dataclass(frozen=True, slots=True)
class NearItems:
    """Items by distance, the nearest first."""

    items: list[NearItem]
    index: str
    """By what they were found: exact, or faiss, which finds most of the nearest."""
    nprobe: int | None
    """The effort of that search; null: exact."""
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
