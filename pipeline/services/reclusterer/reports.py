"""What a reclusterer tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from pipeline.clustering.drift.signals import Signal
from pipeline.clustering.quality import Quality
from pipeline.clustering.recluster import Candidate
from pipeline.clustering.schedule import Trigger
from pipeline.errors import PipelineError, RecordError
from pipeline.kernels.contract import Kernels
from pipeline.messages.commands import Command
from pipeline.messages.events import Drift, Lifecycle, LifecycleType
from pipeline.messages.model import Model
from pipeline.messages.records import Record
from pipeline.services.reports import GAUGES_INTERVAL_S, ServiceReports
from pipeline.services.spans import Phases
from pipeline.telemetry import tracing as names
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import Logger
from pipeline.telemetry.metrics import Metrics
from pipeline.telemetry.tracing import Span, Tracing


class ReclustererReports(ServiceReports):
    """What a reclusterer tells."""

    def __init__(
        self,
        log: Logger,
        metrics: Metrics,
        health: Health,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        tracing: Tracing | None = None,
    ) -> None:
        super().__init__(log, metrics, health, clock=clock, now=now)
        self._tracing = tracing
        self._span: Span | None = None
        self._phases: Phases | None = None
        self._gauges_at = self._started_at = clock()
        self._reason: Trigger | None = None
        self._process = f"{int(self._now()):x}"  # fits are counted from 1 by every one
        self._n_fits = self._n_items = 0
        self._recluster_id = self._result = ""

    def turned(
        self,
        n_updates: int,
        n_sampled: int,
        model: Model | None,
        quality: Callable[[Model], Quality],
        *,
        is_open: bool,
        kernels: Kernels | None = None,
        standing: Sequence[Drift] = (),
    ) -> None:
        """The loop turned once; ``quality`` is asked for once a while."""
        at = self._clock()
        self.health.beat(at)
        self.health.set("producer_initialised", True)
        self.health.set("topics_read", is_open, "" if is_open else "reading model and lineage")
        if is_open:
            self.health.set("first_restore", True)
        if at - self._gauges_at < GAUGES_INTERVAL_S:
            return
        self._gauges_at = at
        self._progress.set(self._now())
        if kernels is not None:
            self.tell_device(kernels)
        self._count_alarms(standing)  # those that the topic told of at the start are among them
        gauge = self.metrics.gauge
        gauge("eddy_updates_since_recluster").set(n_updates)
        gauge("eddy_sample_items").set(n_sampled)
        if model is None:
            return
        manifest = model.manifest
        gauge("eddy_model_epoch").set(manifest.epoch)
        gauge("eddy_model_revision").set(manifest.revision)
        gauge("eddy_model_published_timestamp_seconds").set(manifest.created_at_ms / 1000.0)
        found = quality(model)
        gauge("eddy_clusters", state="live").set(found.n_clusters - found.n_empty)
        gauge("eddy_clusters", state="empty").set(found.n_empty)
        gauge("eddy_cluster_size_cv").set(found.size_cv)
        if found.inertia_per_member is not None:
            gauge("eddy_inertia_per_member").set(found.inertia_per_member)
        if found.silhouette is not None:
            gauge("eddy_silhouette_simplified").set(found.silhouette)
        for stat, value in found.shift._asdict().items():
            gauge("eddy_cluster_drift", stat=stat).set(value)

    def revision_published(self, model: Model, *, n_moved: int, duration_s: float) -> None:
        self.metrics.histogram("eddy_centroid_update_duration_seconds").observe(duration_s)
        self.log.info(
            "revision_published",
            kind="revision",
            epoch=model.manifest.epoch,
            revision=model.manifest.revision,
            moved_clusters=n_moved,
            duration_s=round(duration_s, 3),
        )

    def alarms(self, alarms: Sequence[Drift], standing: Sequence[Drift]) -> None:
        """Alarms were published; ``standing``: what is raised now."""
        for alarm in alarms:
            self.metrics.counter(
                "eddy_drift_alarms_total", signal=alarm.signal, state=alarm.state
            ).inc()
            tell = self.log.warning if alarm.state == "raised" else self.log.info
            tell(
                f"drift_alarm_{alarm.state}",
                signal=alarm.signal,
                cluster_id=alarm.cluster,
                statistic=round(alarm.statistic, 3),
                threshold=round(alarm.threshold, 3),
                effect=round(alarm.effect, 4),
            )
        self._count_alarms(standing)

    def _count_alarms(self, standing: Sequence[Drift]) -> None:
        for signal in Signal:
            n_raised = sum(alarm.signal == signal for alarm in standing)
            self.metrics.gauge("eddy_drift_alarms_active", signal=signal.value).set(n_raised)

    def group_lag(self, lag: Mapping[int, int]) -> None:
        """What is left to be seen when every assigner is down."""
        for partition, records in lag.items():
            self.metrics.gauge("eddy_group_lag_records", partition=partition).set(records)

    def command_received(self, command: Command) -> None:
        self.log.info(
            "command_received",
            command_id=command.id,
            kind=command.type,
            requested_by=command.requested_by,
        )

    def malformed_command(self, record: Record, error: RecordError) -> None:
        self.log.warning(
            "command_rejected",
            command_id=(record.key or b"").decode("utf-8", "replace")[:512],
            problem=str(error),
            offset=record.offset,
        )

    def recluster_due(self, reason: Trigger, *, n_items: int) -> None:
        """The schedule says that there has to be a fit, and why."""
        recluster_id = self._id_of_fit(self._n_fits + 1)
        self.log.info(
            "recluster_due", recluster_id=recluster_id, reason=reason.value, members=n_items
        )

    def recluster_started(
        self, reason: Trigger, *, n_items: int, phases: Phases | None = None
    ) -> None:
        self._n_fits += 1
        self._started_at, self._reason, self._n_items = self._clock(), reason, n_items
        self._recluster_id, self._phases = self._id_of_fit(self._n_fits), phases
        if self._tracing is not None:
            began_ns = None if phases is None else phases.began_ns
            self._span = self._tracing.begin("recluster", began_ns=began_ns)
            told = {names.RECLUSTER_ID: self._recluster_id, names.REASON: reason.value}
            self._span.note({**told, names.ITEMS: n_items})
        self.log.info(
            "recluster_started",
            recluster_id=self._recluster_id,
            reason=reason.value,
            members=n_items,
            **self._ids,
        )

    @property
    def _ids(self) -> dict[str, str]:
        """By which a line of the log is found from the span of the fit."""
        return {} if self._span is None else self._span.ids._asdict()

    def recluster_ended(self) -> None:
        """Whatever it has come to, it is told; the span with its phases is whole."""
        if self._span is not None:
            if self._phases is not None:
                self._phases.trace(self._span)
            self._span.end(error=None if self._result else "failed")
        self._span, self._phases, self._result = None, None, ""

    def _id_of_fit(self, n: int) -> str:
        """For the lines of one fit; of another process another one."""
        return f"{self._process}/{n}"

    def fit_remembered(self, at_s: float) -> None:
        """The topics tell of a fit that was published or rejected before this process began."""
        self.metrics.gauge("eddy_recluster_finished_timestamp_seconds").set(at_s)

    def recluster_failed(self, error: PipelineError) -> None:
        reason = (self._reason or Trigger.FIRST).value
        self.metrics.counter("eddy_reclusters_total", reason=reason, result="failed").inc()
        self.log.error(
            "recluster_failed",
            recluster_id=self._recluster_id,
            reason=reason,
            members=self._n_items,
            duration_s=round(self._clock() - self._started_at, 3),
            problem=str(error),
            **self._ids,
        )

    def published(
        self,
        events: Sequence[Lifecycle],
        command: Command | None,
        model: Model | None,
        candidate: Candidate | None,
    ) -> None:
        for event in events:
            self.metrics.counter("eddy_lifecycle_total", kind=event.type.value).inc()
        if candidate is not None:
            self._fit_ended(events, model, candidate)
        if command is None:
            return
        is_done = not any(event.type is LifecycleType.REJECTED for event in events)
        result = "done" if is_done else "rejected"
        self.metrics.counter("eddy_commands_total", kind=command.type, result=result).inc()
        fields = {"command_id": command.id, "kind": command.type}
        if is_done:
            self.log.info("command_done", **fields)
        else:
            self.log.warning("command_rejected", problem=events[0].reason, **fields)

    def _fit_ended(
        self, events: Sequence[Lifecycle], model: Model | None, candidate: Candidate
    ) -> None:
        assert self._reason is not None
        duration_s = self._clock() - self._started_at
        self._result = result = "rejected" if model is None else "published"
        reason = self._reason.value
        self.metrics.counter("eddy_reclusters_total", reason=reason, result=result).inc()
        self.metrics.gauge("eddy_recluster_finished_timestamp_seconds").set(self._now())
        for phase, spent_s in self._phases.seconds.items() if self._phases is not None else ():
            spent = self.metrics.histogram("eddy_recluster_duration_seconds", phase=phase)
            spent.observe(spent_s)
        if self._span is not None:
            self._span.note({names.RESULT: result, names.PASSES: candidate.n_iterations})
        fields = {
            "recluster_id": self._recluster_id,
            "reason": reason,
            "members": self._n_items,
            "passes": candidate.n_iterations,
            "duration_s": round(duration_s, 3),
            "inertia_before": candidate.inertia_before,
            "inertia_after": candidate.inertia_after,
            **self._ids,
        }
        if model is None:
            self.log.info("recluster_rejected", **fields)
            return
        for told in ("born", "split", "merged", "retired"):
            fields[told] = sum(event.type.value == told for event in events)
        self.log.info("recluster_finished", epoch=model.manifest.epoch, **fields)
