"""What a client wants of the streams: channels, filters, how often; checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeline.messages.events import ChangeType, LifecycleType
from pipeline.services.server.live.ring import CHANGES, DRIFT, EVENT_CHANNELS, Told
from pipeline.services.server.problems import faulty
from pipeline.state.view.metadata import is_value

CLUSTERS: Final = "clusters"
STATS: Final = "stats"
CHANNELS: Final = (CLUSTERS, STATS, *EVENT_CHANNELS)
TYPES: Final = frozenset({*map(str, ChangeType), *map(str, LifecycleType), DRIFT})
MIN_RATE_HZ: Final = 1.0
MAX_RATE_HZ: Final = 10.0
DEFAULT_RATE_HZ: Final = 4.0
MAX_NAMES: Final = 200
"""In one filter."""
MAX_NAME: Final = 512
_FIELDS: Final = frozenset({"type", "id", "channels", "rate_hz", "filter", "resume"})
_FILTERS: Final = ("items", "clusters", "types", "where")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One subscription. An empty filter lets everything through; several must all agree."""

    channels: frozenset[str]
    items: frozenset[str] = frozenset()
    """Of changes only."""
    clusters: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    where: frozenset[tuple[str, str]] = frozenset()
    """Of changes only: keys and texts of values that their metadata has, all of them."""
    rate_hz: float = DEFAULT_RATE_HZ

    def takes(self, told: Told) -> bool:
        """Whether an event is wanted; what is about the whole model passes filters of clusters."""
        if told.channel not in self.channels:
            return False
        if self.types and told.kind not in self.types:
            return False
        if told.channel == CHANGES and self.items and told.item not in self.items:
            return False
        if told.channel == CHANGES and self.where:
            metadata = told.metadata or {}
            if not all(
                key in metadata and is_value(metadata[key], text) for key, text in self.where
            ):
                return False
        if self.clusters and told.clusters:
            return not self.clusters.isdisjoint(told.clusters)
        return True

    @property
    def events(self) -> frozenset[str]:
        """The channels of events."""
        return self.channels & frozenset(EVENT_CHANNELS)

    @property
    def of_events(self) -> Wanted:
        """The same of events alone: who has this in common is told the same."""
        return replace(self, channels=self.events, rate_hz=DEFAULT_RATE_HZ)


def wanted_of_message(message: Mapping[str, Any]) -> Wanted:
    """The subscription that a message asks for.

    Raises
    ------
    ProblemError
        ``invalid-request``.
    """
    for name in message:
        if name not in _FIELDS:
            raise faulty(f"/{name[:100]}", "there is no such field")
    told = message.get("filter", {})
    if not isinstance(told, Mapping):
        raise faulty("/filter", "must be an object")
    for name in told:
        if name not in _FILTERS:
            raise faulty(f"/filter/{name[:100]}", f"there are {', '.join(_FILTERS)}")
    filters = {name: told.get(name, []) for name in _FILTERS}
    return _wanted(
        message.get("channels", []), filters, message.get("rate_hz", DEFAULT_RATE_HZ), "", "/filter"
    )


def wanted_of_query(query: Mapping[str, Sequence[str]]) -> Wanted:
    """The same from a query: lists as repeated parameters, or with commas (channels, types).

    Raises
    ------
    ProblemError
        ``invalid-request``.
    """
    for name in query:
        if name not in (*_FILTERS, "channels", "rate_hz", "resume"):
            raise faulty(f"/query/{name[:100]}", "there is no such parameter")
    filters: dict[str, Any] = {name: list(query.get(name, ())) for name in _FILTERS}
    filters["types"] = _split(filters["types"])
    rate: Any = DEFAULT_RATE_HZ
    if "rate_hz" in query:
        try:
            rate = float(query["rate_hz"][-1])
        except ValueError:
            rate = None
    return _wanted(_split(query.get("channels", ())), filters, rate, "/query", "/query")


def _split(texts: Sequence[str]) -> list[str]:
    return [part for text in texts for part in text.split(",")]


def _wanted(
    channels: Any, filters: Mapping[str, Any], rate_hz: Any, place: str, filter_place: str
) -> Wanted:
    names = _names(channels, f"{place}/channels")
    if not names or not names <= frozenset(CHANNELS):
        raise faulty(f"{place}/channels", f"must be some of {', '.join(CHANNELS)}")
    is_number = isinstance(rate_hz, int | float) and not isinstance(rate_hz, bool)
    if not is_number or not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise faulty(f"{place}/rate_hz", f"must be {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g}")
    found = {name: _names(filters[name], f"{filter_place}/{name}") for name in _FILTERS}
    if not found["types"] <= TYPES:
        raise faulty(f"{filter_place}/types", f"must be some of {', '.join(sorted(TYPES))}")
    where = set()
    for text in found["where"]:
        key, colon, value = text.partition(":")
        if not key or not colon:
            raise faulty(f"{filter_place}/where", "must be <key>:<value>")
        where.add((key, value))
    return Wanted(
        names, found["items"], found["clusters"], found["types"], frozenset(where), float(rate_hz)
    )


def _names(told: Any, place: str) -> frozenset[str]:
    if not isinstance(told, list) or len(told) > MAX_NAMES:
        raise faulty(place, f"must be a list of {MAX_NAMES} names at most")
    for name in told:
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME:
            raise faulty(place, f"must be names of 1 to {MAX_NAME} characters")
    return frozenset(told)
