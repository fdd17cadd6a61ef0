"""When a partition is copied to disk, where to, and by whom; and which copy may be used.

One partition at a time is copied, a slice of rows a step, between transactions:

    marks -> slice -> slice -> ... -> a commit -> footer, fsync, rename

The marks are the ends of the changelogs before the first slice. The commit at the end moves no
offset, but is refused if the partition has another owner by then. Without it a process that slept
through a rebalance would note marks behind changes of the new owner that its own rows lack, and
nothing would ever replay them.

There is no snapshot of a partition while it has ghosts, which a snapshot would not bring back,
nor while the vectors of another embedding model are on their way. A snapshot is only ever an
accelerator: whatever goes wrong here is told and counted, and the service goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote
from uuid import uuid4

from pipeline.engine.cluster_engine import ClusterEngine
from pipeline.errors import PipelineError, TransientError
from pipeline.services.assigner.pace import SlicePace
from pipeline.services.assigner.reports import AssignerReports
from pipeline.services.scribe import OneThread, Scribe, check_age, oldest_s
from pipeline.state.members import PartitionState
from pipeline.state.policy import StatePolicy
from pipeline.state.snapshot import (
    Identity,
    LoadedSnapshot,
    Marks,
    SnapshotError,
    capture,
    open_snapshot,
)
from pipeline.streams.contract import Broker

SLICE_S: Final = 0.002
"""Of capturing; what comes meanwhile waits for it as for half a commit."""
MAX_QUEUED: Final = 4
"""Slices that wait for the disk: a slow one takes memory for no more than these."""
CLOSE_LIMIT_S: Final = 30.0
"""For the last snapshots of a process that ends; it is given 90 s for everything."""
REFRESH_S: Final = 6 * 3600.0
"""A snapshot that still says everything is written again all the same: it must not grow old."""

Fence = Callable[[int], bool]
"""Commit a partition's offset where it stands; False: the transaction was aborted."""


@dataclass(slots=True, eq=False)
class _Running:
    """The snapshot that is being made."""

    state: PartitionState
    epoch: int
    scribe: Scribe
    began_at: float
    next_row: int = 0
    n_rows: int = 0
    is_captured: bool = False
    """Every row was, and the file is being finished."""
    pending: deque[Future[int]] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class Snapshots:
    """The snapshots of one process's partitions.

    Call everything from the thread that turns the service. A folder may be shared by processes,
    and by groups: a partition's file is ``<directory>/<group>/<partition>.snapshot``.
    """

    policy: StatePolicy
    broker: Broker
    engine: ClusterEngine
    group: str
    clock: Callable[[], float]
    """Seconds of a clock that never goes back."""
    reports: AssignerReports
    executor: Executor = field(default_factory=OneThread)
    now: Callable[[], float] = time.time
    """Seconds since 1970."""
    pace: SlicePace = field(default_factory=lambda: SlicePace(budget_s=SLICE_S))

    _topic_ids: dict[str, str] | None = None
    _max_age_s: float | None = None
    _running: _Running | None = None
    _due_at: dict[int, float] = field(default_factory=dict)
    _last: dict[int, tuple[Marks, float]] = field(default_factory=dict)
    """Partition -> the marks of its snapshot, and when that was written."""

    # --- reading ------------------------------------------------------------------

    def find(self, partition: int) -> LoadedSnapshot | None:
        """The snapshot of a partition under the engine's model, if there is one to be used.

        One that is not to be used is told of, and removed.

        Whether it fits the logs is for the restore to see.

        Raises
        ------
        TransientError
            The broker is away.
        """
        path = self._path(partition)
        if not path.exists() or self.engine.version is None:
            return None
        try:
            snapshot = open_snapshot(path, self._identity(partition))
            check_age(self.now() - snapshot.created_at_ms / 1000.0, self._oldest_s)
        except SnapshotError as error:
            self.reject(partition, str(error))
            return None
        return snapshot

    def reject(self, partition: int, reason: str) -> None:
        """Tell why a snapshot is not used, and remove it; so also when its rows are damaged."""
        self._last.pop(partition, None)
        self.reports.snapshot_rejected(partition, reason)
        with suppress(OSError):
            self._path(partition).unlink(missing_ok=True)

    def check(self) -> None:
        """Tell, once at the start, if the folder cannot be written to."""
        path = self._path(0).with_name(f"check.{uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            path.unlink()
        except OSError as error:
            self.reports.snapshot_failed(None, _said(error))

    def _oldest_s(self) -> float:
        if self._max_age_s is None:
            topics = self.engine.settings.topics
            names = (topics.assignments, topics.vectors, topics.statistics, topics.input)
            self._max_age_s = oldest_s(self.broker, names)
        return self._max_age_s

    # --- writing ------------------------------------------------------------------

    def step(self, partitions: Iterable[int], fence: Fence) -> None:
        """Make a slice of the snapshot that is due, if one is.

        Parameters
        ----------
        partitions
            Those that may be written for.
        """
        now, owned = self.clock(), list(partitions)
        for partition in owned:
            self._due_at.setdefault(partition, now + self.policy.snapshot_interval_s)
        if self._running is None:
            due = [(self._due_at[p], p) for p in owned if self._due_at[p] <= now]
            try:
                if not due or not self._begin(min(due)[1]):
                    return
            except TransientError:
                return  # the broker is away, so nothing can be committed, either
        self._go_on(fence)

    def forget(self, partitions: Collection[int]) -> None:
        """These went to somebody else."""
        if self._running is not None and self._running.state.partition in partitions:
            self._abandon()
        for partition in partitions:
            self._due_at.pop(partition, None)
            self._last.pop(partition, None)

    def close(self, partitions: Iterable[int], fence: Fence) -> None:
        """Make a last snapshot of these partitions, as far as there is time."""
        ends_at = self.clock() + CLOSE_LIMIT_S
        left = set(partitions)
        try:
            while self.clock() < ends_at and (left or self._running is not None):
                if self._running is None:
                    self._begin(left.pop())
                    continue
                left.discard(self._running.state.partition)
                if self._running.is_captured or _is_full(self._running):
                    wait([self._running.pending[0]], timeout=max(0.0, ends_at - self.clock()))
                self._go_on(fence)
        except PipelineError:
            pass  # whatever it is: the process ends, and what there is of older snapshots is good
        finally:
            self._abandon()
            self.executor.shutdown(wait=False)

    def _begin(self, partition: int) -> bool:
        """Note the marks; False if there is nothing to be captured now."""
        state = self.engine.partitions[partition]
        self._due_at[partition] = self.clock() + self.policy.snapshot_interval_s
        if not _is_plain(state):
            return False
        identity, marks = self._identity(partition), self._ends(partition)
        if self._is_current(partition, marks):
            return False
        scribe = Scribe(
            self._path(partition),
            identity,
            marks,
            created_at_ms=int(self.now() * 1000),
            published=frozenset(state.published),
        )
        epoch = self.engine.loaded.version.epoch
        self._running = running = _Running(state, epoch, scribe, self.clock())
        running.pending.append(self.executor.submit(scribe.begin))
        return True

    def _go_on(self, fence: Fence) -> None:
        """Capture a slice, or look whether the thread is done."""
        running = self._running
        assert running is not None
        if not running.is_captured:
            if not self._is_still(running):
                self._abandon()
                return
            if not _is_full(running) and not self._capture(running, fence):
                self._abandon()  # the partition is no longer ours, or nobody knows
                return
        try:
            n_bytes = _take(running.pending)
        except (OSError, SnapshotError) as error:
            self._abandon()
            self.reports.snapshot_failed(running.state.partition, _said(error))
            return
        if running.is_captured and not running.pending:
            self._written(running, n_bytes)

    def _capture(self, running: _Running, fence: Fence) -> bool:
        began, state, members = self.clock(), running.state, running.state.members
        stop = min(running.next_row + self.pace.n_rows, members.n_rows)
        rows = capture(members, self.engine.table.ids, running.next_row, stop)
        self.pace.took(stop - running.next_row, self.clock() - began)
        running.next_row = stop
        running.n_rows += len(rows)
        running.pending.append(self.executor.submit(running.scribe.add, rows))
        if stop < members.n_rows:
            return True
        if not fence(state.partition):
            return False
        running.is_captured = True
        running.pending.append(self.executor.submit(running.scribe.finish, state.next_offset))
        return True

    def _written(self, running: _Running, n_bytes: int) -> None:
        partition, self._running = running.state.partition, None
        self._last[partition] = running.scribe.marks, self.clock()
        self.reports.snapshot_written(
            partition,
            n_rows=running.n_rows,
            n_bytes=n_bytes,
            duration_s=self.clock() - running.began_at,
        )

    def _abandon(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            self.executor.submit(running.scribe.abandon)

    def _is_still(self, running: _Running) -> bool:
        state, loaded = running.state, self.engine.loaded
        return (
            self.engine.partitions.get(state.partition) is state
            and loaded.version.epoch == running.epoch
            and _is_plain(state)
        )

    def _is_current(self, partition: int, marks: Marks) -> bool:
        """Whether the snapshot that there is says everything; statistics are no part of it."""
        if partition not in self._last:
            return False
        last, at = self._last[partition]
        is_same = (last.next_offset, last.assignments, last.vectors) == (
            marks.next_offset, marks.assignments, marks.vectors
        )  # fmt: skip
        if not is_same or self.clock() - at > REFRESH_S:
            return False
        self.reports.snapshot_stands(partition)
        return True

    # --- what both need to know -----------------------------------------------------

    def _path(self, partition: int) -> Path:
        group = quote(self.group, safe="")
        if group.startswith("."):
            group = f"%2E{group[1:]}"  # a group may be named as the folder above
        return Path(self.policy.directory or ".") / group / f"{partition}.snapshot"

    def _ends(self, partition: int) -> Marks:
        """Where the changelogs end, and the partition stands, if it is ours."""
        topics, state = self.engine.settings.topics, self.engine.partitions.get(partition)
        names = (topics.assignments, topics.vectors, topics.statistics)
        return Marks(
            0 if state is None else state.next_offset,
            *(self.broker.ranges(name)[partition].high for name in names),
        )

    def _identity(self, partition: int) -> Identity:
        settings = self.engine.settings
        topics, embedding = settings.topics, settings.embedding
        if self._topic_ids is None:
            names = (
                topics.input, topics.assignments, topics.vectors, topics.statistics, topics.model
            )  # fmt: skip
            self._topic_ids = dict(self.broker.topic_ids(names))
        return Identity(
            partition=partition,
            group=self.group,
            topics=self._topic_ids,
            n_dims=embedding.dimensions,
            dtype=embedding.dtype,
            metric=embedding.metric,
            max_component=embedding.largest_component,
            embedding_model=embedding.model,
            embedding_since=self.engine.loaded.model.manifest.embedding_since,
            metadata=tuple(settings.events.metadata),
            input_policy="compact" if settings.input_is_compacted else "other",
        )


def _is_plain(state: PartitionState) -> bool:
    """Whether the members are all there is to a partition."""
    return not state.members.ghosts and state.successors is None and state.arrivals is None


def _is_full(running: _Running) -> bool:
    return len(running.pending) >= MAX_QUEUED


def _take(pending: deque[Future[int]]) -> int:
    """Take what the thread has done; the bytes that the last call tells of."""
    n_bytes = 0
    while pending and pending[0].done():
        n_bytes = pending.popleft().result()
    return n_bytes


def _said(error: OSError | SnapshotError) -> str:
    if isinstance(error, SnapshotError):
        return str(error)
    return f"{error.filename or 'the file'}: {error.strerror or error}"
