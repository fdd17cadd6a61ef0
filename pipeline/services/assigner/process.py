"""The process that keeps items in their clusters: records -> micro-batch -> events.

    poll -> prepare -> commit -> install          one transaction per micro-batch
            sweep slice, statistics, head         transactions of their own, between batches

Whatever a transaction writes for a partition carries the partition's offset, also where it
has not moved: only that fences a process that slept through a rebalance.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.batching import BatchPolicy
from pipeline.clustering.centroids import CentroidPolicy
from pipeline.engine.changes import Changes
from pipeline.engine.cluster_engine import ClusterEngine
from pipeline.errors import AbortedError, TransientError
from pipeline.messages.model import ModelFold
from pipeline.messages.records import Record
from pipeline.services.assigner.checks import Checks
from pipeline.services.assigner.pace import SlicePace
from pipeline.services.assigner.reports import AssignerReports
from pipeline.services.assigner.restore import Restore, RestoreResult, Slice
from pipeline.services.assigner.snapshots import Snapshots
from pipeline.services.spans import BatchTrace, BatchTraces
from pipeline.state.members import Version
from pipeline.streams.contract import Broker, Poll, Reader, Stream

PUBLISH_PAUSE = 20
"""Statistics are large (500 clusters of 1024 dimensions: 4 MB a partition), and under load all of
them change all the time; so they rest twenty times as long as they took: 5 % of the loop. When
there is nothing else to do they need no rest."""
MODEL_POLL_INTERVAL_S = 0.05
MODEL_POLL_RECORDS = 10_000


@dataclass(slots=True)
class Assigner:
    """Tier 1: every record. One thread calls `step` for ever, then `close`."""

    broker: Broker
    stream: Stream
    engine: ClusterEngine
    batching: BatchPolicy
    centroids: CentroidPolicy
    clock: Callable[[], float]
    """Seconds of a clock that never goes back."""
    reports: AssignerReports
    sweep_pace: SlicePace = field(default_factory=SlicePace)
    snapshots: Snapshots | None = None
    """None: the topics are the only copy of the state."""
    checks: Checks = field(default_factory=Checks)
    traces: BatchTraces | None = None
    """None: no micro-batch has a trace."""

    _is_between_steps: bool = False
    """Whether the last step came to its end: else nobody knows what was committed."""
    _model_reader: Reader | None = None
    _models: ModelFold = field(default_factory=ModelFold)
    _model_polled_at: float = float("-inf")
    _waiting: dict[int, int | None] = field(default_factory=dict)
    """Assigned, not restored: partition -> committed offset."""
    _restoring: Generator[Slice, None, RestoreResult] | None = None
    _restored_at: dict[int, int | None] = field(default_factory=dict)
    """The partitions of the restore that runs."""
    _beginning: set[int] = field(default_factory=set)
    """Restored, and their first head is not committed yet."""
    _swept: int = -1
    """The partition of the last slice."""
    _published_at: dict[int, float] = field(default_factory=dict)
    _publish_again_at: float = float("-inf")

    def step(self) -> None:
        """Take at most one batch in, commit what it changes, then do a slice of the rest.

        Raises
        ------
        TransientError
            The same step may succeed later; nothing was lost.
        FatalError
        """
        self._is_between_steps = False
        self._follow_model()
        is_busy = self._restoring is not None or bool(self._beginning) or self._sweeps() != []
        with self.reports.spending("wait"):
            polled = self.stream.poll(
                self.batching.max_records,
                timeout_s=0.0 if is_busy else self.batching.max_wait_s,
                max_bytes=self.batching.max_bytes,
            )
        self._change_owner(polled)
        if polled.records:
            self._apply(polled.records)
        self._restore_slice()
        self._begin_partitions()
        with self.reports.spending("sweep"):
            self._sweep_slice()
        self._snapshot_slice()
        self._lose_ghosts()
        self._publish(is_idle=not polled.records and not self._sweeps())
        self._check()
        self.reports.turned(self.engine, self.stream, n_unready=self._n_unready)
        self._is_between_steps = True

    def close(self) -> None:
        """Leave the group; what is not committed comes again for the next owner."""
        if self._model_reader is not None:
            self._model_reader.close()
        if self._restoring is not None:
            self._restoring.close()
        if self.snapshots is not None and self._is_between_steps:
            self.snapshots.close(self._begun(), self._fence)
        self.stream.close()

    # --- records ------------------------------------------------------------------

    def _apply(self, records: Sequence[Record]) -> None:
        trace = None
        if self.traces is not None:
            trace = self.traces.begin(records, self.engine.version)
        if trace is None:
            self._change(records)
            return
        with trace:
            self._change(records, trace)

    def _change(self, records: Sequence[Record], trace: BatchTrace | None = None) -> None:
        self.reports.batch_began(records)
        for arrivals in self.engine.admit(records):
            if not self._transact(arrivals):
                self.stream.rewind()
                return
        # reads the state, changes nothing
        changes = self.engine.prepare(records, None if trace is None else trace.at)
        self.reports.batch_prepared(changes)
        if self._transact(changes, trace):
            self.reports.batch_committed(records, changes)
        else:
            self.stream.rewind()  # the state was not touched, so the batch may come again

    def _transact(self, changes: Changes, trace: BatchTrace | None = None) -> bool:
        """Commit, then install; False if the transaction was aborted."""
        began = self.clock()
        outgoing = changes.outgoing if trace is None else trace.sending(changes)
        try:
            self.stream.commit(outgoing, changes.next_offsets)
        except AbortedError as error:
            self.reports.aborted(error)
            return False
        self.reports.committed(self.clock() - began)
        if trace is not None:
            trace.committed(changes)
        self.engine.install(changes)  # last: what is not committed has not happened
        return True

    # --- ownership ----------------------------------------------------------------

    @property
    def _n_unready(self) -> int:
        """Owned partitions that are not restored, unless there is no model to restore under."""
        if self._models.newest is None:
            return 0
        return len(self._waiting) + len(self._restored_at) + len(self._beginning)

    def _change_owner(self, polled: Poll) -> None:
        gone = polled.revoked | polled.lost
        if gone:
            self.engine.drop(gone)
            for partition in gone:
                self._waiting.pop(partition, None)
                self._restored_at.pop(partition, None)
                self._published_at.pop(partition, None)
            self._beginning -= gone
            if self.snapshots is not None:
                self.snapshots.forget(gone)
            self.reports.gone(polled.revoked, polled.lost)
        if polled.assigned:
            self._waiting.update(polled.assigned)
            self.reports.assigned(polled.assigned)

    def _restore_slice(self) -> None:
        """Begin a restore, or go on with it; reads nothing until there is a model."""
        if self._restoring is None:
            if not self._waiting or self._models.newest is None:
                return
            if self.snapshots is not None and self.engine.version is None:
                return  # a model tells which snapshots are of its vectors
            self._restored_at, self._waiting = self._waiting, {}
            self.reports.restore_began(self._restored_at)
            restore = Restore(self.broker, self.engine.settings, self._restored_at.copy())
            if self.snapshots is not None:
                restore.find, restore.reject = self.snapshots.find, self.snapshots.reject
            self._restoring = restore.run()
        try:
            self.reports.restored_slice(next(self._restoring))
        except StopIteration as end:
            self._restoring = None
            self._adopt(end.value)
        except TransientError:  # a generator that has raised is at its end: begin again
            self._waiting, self._restored_at = self._restored_at | self._waiting, {}
            self._restoring = None
            raise

    def _adopt(self, result: RestoreResult) -> None:
        # a partition never goes back to an older model than its last owner's
        if result.model is not None and self.engine.install_model(result.model):
            self.reports.model_installed(self.engine)
        for partition, restored in result.partitions.items():
            if partition not in self._restored_at:
                continue  # it went to somebody else meanwhile
            self.engine.adopt(restored)
            self._beginning.add(partition)
        self.reports.restore_ended(result, self._restored_at)
        self._restored_at = {}

    def _begin_partitions(self) -> None:
        """An owner's first transaction is a head; then the partition's records may come."""
        for partition in sorted(self._beginning):
            if not self._transact(self.engine.publish_head(partition)):
                return  # again at the next step
            self._beginning.discard(partition)
            self.stream.start(partition, self.engine.partitions[partition].next_offset)

    # --- models -------------------------------------------------------------------

    def _follow_model(self) -> None:
        """Install the newest complete model, between transactions."""
        now = self.clock()
        if now - self._model_polled_at < MODEL_POLL_INTERVAL_S:
            return
        self._model_polled_at = now
        if self._model_reader is None:
            self._model_reader = self.broker.reader(self.engine.settings.topics.model)
        records = self._model_reader.read(MODEL_POLL_RECORDS, timeout_s=0.0)
        if records:
            self._models.fold(records)
        newest = self._models.newest
        if not self._model_reader.at_end:
            return  # centroids of it may have been compacted away under a later revision
        self._models.check_wire(self.engine.settings.topics.model)
        if newest is None:
            return
        version = Version(newest.manifest.epoch, newest.manifest.revision)
        if self.engine.version is None or version > self.engine.version:
            self.engine.install_model(newest)
            self.reports.model_installed(self.engine)

    def _sweeps(self) -> list[int]:
        """Partitions whose sweep goes on, and that may write."""
        return [
            partition
            for partition, state in self.engine.partitions.items()
            if state.to_sweep and partition not in self._beginning
        ]

    def _sweep_slice(self) -> None:
        pending = self._sweeps()
        if not pending:
            return
        # in turn: revisions may come faster than one partition is swept
        partition = min(pending, key=lambda p: (p <= self._swept, p))
        self._swept, began = partition, self.clock()
        changes = self.engine.sweep(partition, max_rows=self.sweep_pace.n_rows)
        # without the commit, which fewer rows would not make much shorter
        self.sweep_pace.took(changes.tally.n_checked, self.clock() - began)
        if not changes.outgoing:
            self.engine.install(changes)  # nothing moved: there is nothing to commit
        elif not self._transact(changes):
            return
        self.reports.swept(changes, is_last=len(pending) == 1 and not self._sweeps())

    # --- snapshots ----------------------------------------------------------------

    def _snapshot_slice(self) -> None:
        if self.snapshots is not None:
            self.snapshots.step(self._begun(), self._fence)

    def _begun(self) -> list[int]:
        """Partitions that may write."""
        return sorted(self.engine.partitions.keys() - self._beginning)

    def _fence(self, partition: int) -> bool:
        """Write nothing, and hear by that whether the partition is still ours."""
        return self._transact(
            Changes([], [], {partition: self.engine.partitions[partition].next_offset})
        )

    def _check(self) -> None:
        """Look at a little of the state; what is wrong is told, and ends nothing."""
        for violation in self.checks.look(self.engine, self.clock):
            self.reports.violated(violation, self.engine)

    # --- what others need to know -------------------------------------------------

    def _lose_ghosts(self) -> None:
        """A ghost's next record should have come by the end that the input had at the restore."""
        if not any(state.may_lose_ghosts for state in self.engine.partitions.values()):
            return
        lag: Mapping[int, int] = self.stream.lag()
        for partition, state in self.engine.partitions.items():
            # control records at the end are no lag, but are below the end noted
            is_past = state.next_offset >= state.ghosts_until or lag.get(partition) == 0
            if not (state.may_lose_ghosts and is_past) or partition in self._beginning:
                continue
            changes = self.engine.lose_ghosts(partition)
            if changes.outgoing:
                self._transact(changes)
            else:
                self.engine.install(changes)  # all of them have a vector of the next model

    def _publish(self, *, is_idle: bool) -> None:
        """The statistics of one partition that is due, the longest silent one first."""
        now = self.clock()
        if not is_idle and now < self._publish_again_at:
            return
        due = [
            (self._published_at.get(partition, float("-inf")), partition)
            for partition, state in self.engine.partitions.items()
            if partition not in self._beginning
            and (state.head_is_due or state.dirty.any())
            and self.centroids.is_due(
                state.n_unpublished,
                is_idle=is_idle,
                elapsed_s=now - self._published_at.get(partition, float("-inf")),
            )
        ]
        if not due:
            return
        _, partition = min(due)
        if self._transact(self.engine.publish_statistics(partition)):
            self._published_at[partition] = now
        self._publish_again_at = now + PUBLISH_PAUSE * (self.clock() - now)
