"""What the server tells: logs, metrics, health."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.errors import ConfigError, PipelineError, TopicError
from pipeline.services.server.descriptors import usage
from pipeline.services.server.desk import Desk
from pipeline.services.server.following import Follower
from pipeline.telemetry.catalogue_server import METHODS, VIEW_TOPICS
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import Logger
from pipeline.telemetry.metrics import Metrics
from pipeline.telemetry.tracing import Tracing

GAUGES_INTERVAL_S = 1.0
MAX_LAG_S = 30.0
"""A view that is farther behind is not ready."""
_QUIET_ROUTES = frozenset({"/health", "other"})


class ServerReports:
    """What the server tells of its loop, and of requests.

    Parameters
    ----------
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        log: Logger,
        metrics: Metrics,
        health: Health,
        *,
        clock: Callable[[], float] = time.monotonic,
        tracing: Tracing | None = None,
    ) -> None:
        self.log, self.metrics, self.health = log, metrics, health
        self.tracing = tracing
        self._clock = clock
        self._began_at = clock()
        self._gauges_at = clock() - GAUGES_INTERVAL_S
        self._was_caught_up = False

    def searched(self, duration_s: float, index: str) -> None:
        """A search for nearest vectors, waiting for others included."""
        self.metrics.histogram("eddy_search_duration_seconds", index=index).observe(duration_s)

    # --- the loop -----------------------------------------------------------------

    def stepped(self, desk: Desk, follower: Follower) -> None:
        """The view may have changed."""
        if follower.is_caught_up and not self._was_caught_up:
            self._was_caught_up = True
            duration_s = round(self._clock() - self._began_at, 3)
            self.health.set("caught_up", True)
            self.health.set("first_restore", True)
            self.log.info("view_caught_up", items=len(desk.view.items), duration_s=duration_s)
        if self._clock() - self._gauges_at < GAUGES_INTERVAL_S:
            return
        self._gauges_at = self._clock()
        lag_s = follower.lag_s
        self.health.set("fresh", lag_s <= MAX_LAG_S, f"{lag_s:.1f} s behind")
        gauge, view = self.metrics.gauge, desk.view
        gauge("eddy_view_items").set(len(view.items))
        gauge("eddy_view_bytes").set(view.items.state_bytes)
        gauge("eddy_view_lag_seconds").set(lag_s)
        for name in VIEW_TOPICS:
            lag = desk.lags.get(getattr(desk.topics, name))
            if lag is not None:
                gauge("eddy_view_lag_records", topic=name).set(lag)
        desk.descriptors = usage()
        if desk.descriptors is not None:
            gauge("eddy_server_descriptors_open").set(desk.descriptors[0])
            gauge("eddy_server_descriptors_limit").set(desk.descriptors[1])
        epoch, revision = view.version
        gauge("eddy_model_epoch").set(epoch)
        gauge("eddy_model_revision").set(revision)

    def view_resumed(self, n_items: int, n_bytes: int, age_s: float) -> None:
        """What was on disk is in the view; what came since is read next."""
        self.log.info("view_resumed", items=n_items, bytes=n_bytes, age_s=round(age_s, 1))

    def snapshot_written(self, n_items: int, n_bytes: int, duration_s: float) -> None:
        """A copy of the view is on disk."""
        self.log.info(
            "snapshot_written", records=n_items, bytes=n_bytes, duration_s=round(duration_s, 3)
        )

    def snapshot_failed(self, problem: str) -> None:
        """No copy could be written."""
        self.log.warning("snapshot_failed", problem=problem)

    def snapshot_rejected(self, reason: str) -> None:
        """A copy is not used, and was removed."""
        self.log.warning("snapshot_rejected", reason=reason)

    def listening(self, host: str, port: int, max_connections: int, descriptors: int) -> None:
        """The address is ours; ``descriptors``: how many the process may have."""
        self.log.info(
            "server_listening",
            host=host,
            port=port,
            max_connections=max_connections,
            descriptors=descriptors,
        )

    # --- requests, on the thread of the event loop -----------------------------------

    def request_finished(
        self, request_id: str, route: str, method: str, status: int, duration_s: float
    ) -> None:
        """See `pipeline.services.server.gate.Tell`."""
        shown = method if method in METHODS else "other"
        grade = f"{status // 100}xx" if 200 <= status < 600 else "5xx"
        self.metrics.histogram(
            "eddy_http_request_duration_seconds", route=route, method=shown, status=grade
        ).observe(duration_s)
        tell = self.log.error if status >= 500 and status not in (501, 503) else self.log.info
        if route in _QUIET_ROUTES and status < 500:
            tell = self.log.debug
        tell(
            "request_finished",
            request_id=request_id,
            route=route,
            method=shown,
            status=status,
            duration_s=round(duration_s, 6),
        )

    # --- what `pipeline.services.lifecycle.serve` tells ---------------------------------

    def transient(self, error: PipelineError, *, retry_in_s: float) -> None:
        """A step failed, and will be tried again."""
        self.log.warning("kafka_error", problem=str(error), retriable=True, retry_in_s=retry_in_s)

    def draining(self) -> None:
        """No new requests, please."""
        self.health.set("not_draining", False, "stopping")

    def failed(self, error: PipelineError) -> None:
        """The process ends by this error."""
        if isinstance(error, ConfigError | TopicError):
            return  # `config_rejected` tells, wherever it was found
        self.log.error(
            "service_failed", code=type(error).__name__, problem=str(error), retriable=False
        )

    def stopped(self, reason: str, duration_s: float) -> None:
        """The process ends."""
        self.log.info("service_stopped", reason=reason, duration_s=round(duration_s, 3))
