"""What an assigner tells of its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from pipeline.engine.changes import Changes
from pipeline.engine.checking import Violation
from pipeline.engine.cluster_engine import ClusterEngine
from pipeline.messages.records import Record
from pipeline.services.assigner.restore import RestoreResult, Slice
from pipeline.services.reports import GAUGES_INTERVAL_S, ServiceReports
from pipeline.state.footprint import footprint
from pipeline.streams.contract import Stream
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import Logger, Throttle, item_fields
from pipeline.telemetry.metrics import Metrics


class AssignerReports(ServiceReports):
    """What an assigner tells."""

    def __init__(
        self,
        log: Logger,
        metrics: Metrics,
        health: Health,
        *,
        kernel: str,
        log_item_ids: bool = False,
        max_items_per_partition: int = 1,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(log, metrics, health, clock=clock, now=now)
        self._plain_ids, self._max_items = log_item_ids, max_items_per_partition
        self._throttle = Throttle()
        self._batch_records = metrics.histogram("eddy_micro_batch_records")
        self._phases = {
            phase: metrics.counter("eddy_loop_seconds_total", phase=phase)
            for phase in ("wait", "assign", "commit", "sweep")
        }
        self._assign = metrics.histogram("eddy_assign_duration_seconds", kernel=kernel)
        self._confidence = metrics.histogram("eddy_confidence")
        self._began_at = self._prepared_at = self._gauges_at = self._sweep_at = clock()
        self._n_batches = self._n_swept = 0
        self._sweep_kind = "epoch"
        self._restore_at = self._restore_ratio = 0.0
        self._committed_s: dict[int, float] = {}  # partition -> timestamp of its last record
        self._snapshots: dict[int, tuple[float, int]] = {}  # partition -> as of when, its bytes

    @contextmanager
    def spending(self, phase: str) -> Iterator[None]:
        """What is done meanwhile counts as that phase of the loop."""
        began = self._clock()
        yield
        self._phases[phase].inc(self._clock() - began)

    # --- batches ------------------------------------------------------------------

    def batch_began(self, records: Sequence[Record]) -> None:
        self._began_at = self._clock()
        self._batch_records.observe(len(records))

    def batch_prepared(self, changes: Changes) -> None:
        self._prepared_at = self._clock()
        self._assign.observe(self._prepared_at - self._began_at)

    def batch_committed(self, records: Sequence[Record], changes: Changes) -> None:
        ended_at, tally = self._clock(), changes.tally
        self._n_batches += 1
        self._phases["assign"].inc(self._prepared_at - self._began_at)
        self._phases["commit"].inc(ended_at - self._prepared_at)
        for (op, outcome), n in tally.outcomes.items():
            self.metrics.counter("eddy_records_total", op=op, outcome=outcome).inc(n)
        moved = tally.outcomes["upsert", "reassigned"]
        self.metrics.counter("eddy_reassignments_total", cause="record").inc(moved)
        if tally.confidences:
            self._confidence.observe_many(np.array(tally.confidences))
        for reason, n in tally.dead.items():
            self.metrics.counter("eddy_dead_letters_total", reason=reason.value).inc(n)
            self._dead_letter(reason.value, n, tally.first_dead[reason], ended_at)
        stamps = np.array([r.timestamp_ms for r in records if r.timestamp_ms is not None])
        if len(stamps):
            self.metrics.committed(self._now() - stamps / 1000.0)
        for partition, stamp in {r.partition: r.timestamp_ms for r in records}.items():
            if stamp is not None:
                self._committed_s[partition] = stamp / 1000.0
        self.health.beat(ended_at, batch_s=ended_at - self._began_at)
        self.log.debug(
            "batch_committed",
            batch_id=self._n_batches,
            records=len(records),
            events=tally.n_events,
            dead=sum(tally.dead.values()),
            duration_s=round(ended_at - self._began_at, 6),
        )

    def _dead_letter(self, reason: str, n: int, key: bytes | None, at: float) -> None:
        suppressed = self._throttle.suppressed(reason, at)
        if suppressed is not None:
            item = item_fields(key, plain=self._plain_ids)
            self.log.warning("record_dead", reason=reason, suppressed=suppressed + n - 1, **item)

    def turned(self, engine: ClusterEngine, stream: Stream, *, n_unready: int) -> None:
        """The loop turned once."""
        at = self._clock()
        self.health.beat(at)
        detail = ""
        if n_unready:
            are = "partition is" if n_unready == 1 else "partitions are"
            detail = f"{n_unready} {are} being restored: {self._restore_ratio:.0%}"
        self.health.set("partitions_restored", n_unready == 0, detail)
        if n_unready == 0:
            self.health.set("first_restore", True)
        if at - self._gauges_at < GAUGES_INTERVAL_S:
            return
        self._gauges_at = at
        if not n_unready:
            self._progress.set(self._now())
        self._set_gauges(engine)
        self.tell_device(engine.kernels)
        for partition, lag in stream.lag().items():
            self.metrics.lag(partition, lag, self._committed_s.get(partition))

    def _set_gauges(self, engine: ClusterEngine) -> None:
        states = engine.partitions.values()
        gauge = self.metrics.gauge
        items = [state.members.n_items for state in states]
        pending = sum(state.sweep_pending for state in states)
        gauge("eddy_assigned_partitions").set(len(states))
        gauge("eddy_members").set(sum(len(state.members) for state in states))
        gauge("eddy_ghost_items").set(sum(len(state.members.ghosts) for state in states))
        gauge("eddy_item_limit_ratio").set(max(items, default=0) / self._max_items)
        gauge("eddy_unpublished_changes").set(sum(state.n_unpublished for state in states))
        gauge("eddy_unproven_members").set(engine.n_unproven() if pending else 0)
        for kind in ("epoch", "revision"):
            left = pending if kind == self._sweep_kind else 0
            gauge("eddy_sweep_pending_members", kind=kind).set(left)
        for kind_of_bytes, n_bytes in footprint(states)._asdict().items():
            gauge("eddy_state_bytes", kind=kind_of_bytes).set(n_bytes)
        if engine.version is not None:
            gauge("eddy_model_epoch").set(engine.version.epoch)
            gauge("eddy_model_revision").set(engine.version.revision)

    def violated(self, violation: Violation, engine: ClusterEngine) -> None:
        """Something was found that cannot be; one line per invariant and minute."""
        invariant = violation.invariant
        self.metrics.counter("eddy_invariant_violations_total", invariant=invariant).inc()
        suppressed = self._throttle.suppressed(invariant, self._clock())
        if suppressed is None:
            return
        at = {} if engine.version is None else engine.version._asdict()
        self.log.error(
            "invariant_violated",
            invariant=invariant,
            partition=violation.partition,
            cluster_id=violation.cluster_id,
            expected=violation.expected,
            found=violation.found,
            suppressed=suppressed,
            **item_fields(violation.key, plain=self._plain_ids),
            **at,
        )

    # --- ownership, models --------------------------------------------------------

    def assigned(self, partitions: Mapping[int, int | None]) -> None:
        self.metrics.counter("eddy_rebalances_total", kind="assigned").inc()
        self.log.info("partitions_assigned", partitions=sorted(partitions))

    def gone(self, revoked: Collection[int], lost: Collection[int]) -> None:
        for kind, partitions in (("revoked", revoked), ("lost", lost)):
            if not partitions:
                continue
            self.metrics.counter("eddy_rebalances_total", kind=kind).inc()
            tell = self.log.info if kind == "revoked" else self.log.warning
            tell(f"partitions_{kind}", partitions=sorted(partitions))
            for partition in partitions:
                self.metrics.forget_partition(partition)
                self._committed_s.pop(partition, None)
                self._snapshots.pop(partition, None)
            self._set_snapshot_gauges()

    def restore_began(self, committed: Mapping[int, int | None]) -> None:
        self._restore_at, self._restore_ratio = self._clock(), 0.0
        self.metrics.gauge("eddy_restore_progress_ratio").set(0.0)
        for partition, offset in sorted(committed.items()):
            self.log.info("restore_started", partition=partition, committed_offset=offset)

    def restored_slice(self, read: Slice) -> None:
        """A part of what has to be read is read."""
        self._restore_ratio = read.ratio
        self.metrics.gauge("eddy_restore_progress_ratio").set(read.ratio)
        counter = self.metrics.counter("eddy_restore_records_total", source=read.source)
        counter.inc(read.n_records)

    def restore_ended(self, result: RestoreResult, owned: Collection[int]) -> None:
        duration_s = self._clock() - self._restore_at
        self._restore_ratio = 1.0
        self.metrics.gauge("eddy_restore_progress_ratio").set(1.0)
        for source in sorted(set(result.sources.values())):
            duration = self.metrics.histogram("eddy_restore_duration_seconds", source=source)
            duration.observe(duration_s)
        for partition, restored in sorted(result.partitions.items()):
            if partition in owned:
                self.log.info(
                    "restore_finished",
                    partition=partition,
                    source=result.sources[partition],
                    records=len(restored.members),
                    committed_offset=restored.next_offset,
                    duration_s=round(duration_s, 3),
                )

    # --- snapshots ----------------------------------------------------------------

    def snapshot_written(
        self, partition: int, *, n_rows: int, n_bytes: int, duration_s: float
    ) -> None:
        self._snapshots[partition] = self._now(), n_bytes
        self._set_snapshot_gauges()
        self.metrics.counter("eddy_snapshots_total", result="written").inc()
        self.log.info(
            "snapshot_written",
            partition=partition,
            records=n_rows,
            bytes=n_bytes,
            duration_s=round(duration_s, 3),
        )

    def snapshot_stands(self, partition: int) -> None:
        """Nothing has changed since it was written."""
        _, n_bytes = self._snapshots[partition]
        self._snapshots[partition] = self._now(), n_bytes
        self._set_snapshot_gauges()

    def snapshot_failed(self, partition: int | None, problem: str) -> None:
        """It could not be written, of no partition in particular at the start."""
        self.metrics.counter("eddy_snapshots_total", result="failed").inc()
        self.log.warning("snapshot_failed", partition=partition, problem=problem)

    def snapshot_rejected(self, partition: int, reason: str) -> None:
        self.metrics.counter("eddy_snapshots_total", result="rejected").inc()
        self.log.warning("snapshot_rejected", partition=partition, reason=reason)

    def _set_snapshot_gauges(self) -> None:
        """None without partitions: of an old moment an alarm would say that it grows older."""
        as_of = self.metrics.gauge("eddy_snapshot_timestamp_seconds")
        held = self.metrics.gauge("eddy_snapshot_bytes")
        if not self._snapshots:
            as_of.clear()
            held.clear()
            return
        moments, sizes = zip(*self._snapshots.values(), strict=True)
        as_of.set(min(moments))
        held.set(sum(sizes))

    # --- models -------------------------------------------------------------------

    def model_installed(self, engine: ClusterEngine) -> None:
        assert engine.version is not None
        self._sweep_at, self._n_swept = self._clock(), 0
        self._sweep_kind = "revision" if engine.version.revision else "epoch"
        self.log.info(
            "model_installed",
            kind=self._sweep_kind,
            epoch=engine.version.epoch,
            revision=engine.version.revision,
        )

    def swept(self, changes: Changes, *, is_last: bool) -> None:
        moved = changes.tally.n_reassigned_by_model
        self._n_swept += moved
        self.metrics.counter("eddy_reassignments_total", cause="model").inc(moved)
        if is_last:
            duration_s = self._clock() - self._sweep_at
            kind = self._sweep_kind
            self.metrics.histogram("eddy_sweep_duration_seconds", kind=kind).observe(duration_s)
            self.log.info(
                "sweep_finished",
                kind=kind,
                reassigned=self._n_swept,
                duration_s=round(duration_s, 3),
            )
