"""What a row of the catalogue of metrics is made of: kinds, buckets, labels without a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Service(StrEnum):
    """Who may set a metric."""

    ASSIGNER = "assigner"
    RECLUSTERER = "reclusterer"
    SERVER = "server"


class Kind(StrEnum):
    """What a metric is to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Open(StrEnum):
    """A label whose values are not listed, but bounded all the same."""

    PARTITION = "a partition of the input"
    CODE = "a name of librdkafka, 32 at most, then `other`"
    BUILD = "one value for the life of a process"
    ROUTE = "a route of the server as OpenAPI writes it, or `other`"
    DEVICE = "the name of a processor or a card, one for the life of a process"


MAX_CODES: Final = 32

WORK: Final = tuple(
    round(step * 10.0**power, 6) for power in range(-5, 1) for step in (1.0, 2.5, 5.0)
)[1:-1]
"""Seconds, 25 µs to 2.5 s: the library's own begin at 5 ms, where every micro-batch would land."""
LATENCY: Final = (*WORK[5:], 5.0, 10.0, 30.0, 60.0)
"""Seconds, 1 ms to 60 s."""
LONG: Final = (*LATENCY[6:], 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds, 0.1 s to an hour."""
RECORDS: Final = tuple(4.0**power for power in range(8))
"""1 to 16384 by 4."""
TENTHS: Final = tuple(round(0.1 * tenth, 1) for tenth in range(1, 11))


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue."""

    name: str
    kind: Kind
    help: str
    services: tuple[Service, ...]
    labels: Mapping[str, tuple[str, ...] | Open] = field(default_factory=dict)
    """Label -> the values it may have."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, ascending, without infinity."""
