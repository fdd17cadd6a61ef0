"""What all services tell, gathered here so that their loops read plainly."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.errors import AbortedError, ConfigError, FencedError, PipelineError, TopicError
from pipeline.kernels.contract import Kernels
from pipeline.kernels.devices import device_memory
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import Logger
from pipeline.telemetry.metrics import Metrics

GAUGES_INTERVAL_S = 1.0


class ServiceReports:
    """What every service tells of its loop.

    Parameters
    ----------
    clock
        Seconds of a clock that never goes back.
    now
        Seconds since 1970.
    """

    def __init__(
        self,
        log: Logger,
        metrics: Metrics,
        health: Health,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.log, self.metrics, self.health = log, metrics, health
        self._clock, self._now = clock, now
        self._committed = metrics.counter("eddy_transactions_total", result="committed")
        self._aborted = metrics.counter("eddy_transactions_total", result="aborted")
        self._fatal = metrics.counter("eddy_transactions_total", result="fatal")
        self._transaction = metrics.histogram("eddy_transaction_duration_seconds")
        self._progress = metrics.gauge("eddy_last_progress_timestamp_seconds")

    def committed(self, duration_s: float) -> None:
        self._committed.inc()
        self._transaction.observe(duration_s)
        self._progress.set(self._now())

    def aborted(self, error: AbortedError) -> None:
        self._aborted.inc()
        self.log.warning("transaction_aborted", code=error.code, retriable=True)

    def failed(self, error: PipelineError) -> None:
        """The process ends by this error."""
        self._fatal.inc()
        if isinstance(error, ConfigError | TopicError):
            return  # `config_rejected` tells, wherever it was found
        event = "producer_fenced" if isinstance(error, FencedError) else "service_failed"
        self.log.error(event, code=type(error).__name__, problem=str(error), retriable=False)

    def draining(self) -> None:
        """The loop takes nothing more in."""
        self.health.set("not_draining", False, "stopping")

    def stopped(self, reason: str, duration_s: float) -> None:
        self.log.info("service_stopped", reason=reason, duration_s=round(duration_s, 3))

    def tell_device(self, kernels: Kernels) -> None:
        """How much of the card's memory is taken, where there is a card."""
        memory = device_memory(kernels)
        if memory is not None:
            for kind, n_bytes in memory._asdict().items():
                self.metrics.gauge("eddy_device_memory_bytes", kind=kind).set(n_bytes)

    def transient(self, error: PipelineError, *, retry_in_s: float) -> None:
        """A step failed, and will be tried again: the loop turns, even if nothing comes of it."""
        self.health.beat(self._clock())
        self.log.warning("kafka_error", problem=str(error), retriable=True, retry_in_s=retry_in_s)
