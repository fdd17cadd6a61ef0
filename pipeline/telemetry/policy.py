"""What the operator decides about logs, metrics, traces and health.

The ground floor knows nothing of ours, `errors` included: a bad value is a plain
``ValueError`` here, and :mod:`pipeline.config` says it as a ``ConfigError``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What alerts and dashboards compare with: exported as metrics, obeyed by no loop."""

    lag_records: int = 10_000
    """Records behind, over all partitions, that are too many while they grow."""
    reassignment_ratio: float = 0.1
    """Share of records that move their item to another cluster."""
    cluster_size_cv: float = 2.0
    """Standard deviation of the cluster sizes, divided by their mean."""
    model_max_age_seconds: float = 7200.0
    """Age of the last recluster; an alert fires at twice this."""
    stream_clients: int = 1000
    """Clients that one server streams to; an alert fires at nine tenths of it."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"telemetry.thresholds.{name} is {value}, but must be above 0")


@dataclass(frozen=True, slots=True)
class TracingPolicy:
    """Traces, which are sent to a collector and nowhere else."""

    endpoint: str | None = None
    """Collector that speaks OTLP over HTTP, http://host:4318; null: no traces. It takes the extra
    `otel`."""
    sample_ratio: float = 0.1
    """Share of micro-batches and requests that get a trace, besides those whose record or caller
    has one."""

    def __post_init__(self) -> None:
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(
                f"telemetry.tracing.endpoint is {self.endpoint!r}, but must begin with http:// or "
                "https://"
            )
        if not 0 <= self.sample_ratio <= 1:
            raise ValueError(
                f"telemetry.tracing.sample_ratio is {self.sample_ratio}, but must be 0 to 1"
            )


@dataclass(frozen=True, slots=True)
class TelemetryPolicy:
    """What a process says of itself, and where."""

    log_format: Literal["auto", "console", "json"] = "auto"
    """``auto``: lines for people on a terminal, one JSON object a line everywhere else."""
    log_item_ids: bool = False
    """Item ids in logs as they are; otherwise only as a hash."""
    metrics_port: int = 9108
    """Port of ``/metrics``, ``/livez``, ``/readyz`` and ``/startupz``; 0: a free one, logged."""
    slo_freshness_s: float = 1.0
    """A change that is readable within this of its record's timestamp counts as fresh."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    tracing: TracingPolicy = field(default_factory=TracingPolicy)

    def __post_init__(self) -> None:
        if not 0 <= self.metrics_port <= 65535:
            raise ValueError(
                f"telemetry.metrics_port is {self.metrics_port}, but must be 0 to 65535"
            )
        if not self.slo_freshness_s > 0:
            raise ValueError(
                f"telemetry.slo_freshness_s is {self.slo_freshness_s}, but must be above 0"
            )
