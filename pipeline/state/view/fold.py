"""What the server shows, folded from the topics: the same records, the same answers.

Every replica reads all of it by itself. What it holds is bounded: an item takes its id, 36 bytes of
columns and its vector where vectors are kept; a cluster 2.3 KB of counters; the logs have lengths.
One thread folds, and whoever reads meanwhile holds the same lock: there is none in here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RecordError
from pipeline.messages.codec import decode_change, decode_head
from pipeline.messages.events import Cause, ClusterChange, Drift, Head, Lifecycle
from pipeline.messages.model import Model, ModelFold
from pipeline.messages.records import Record
from pipeline.state.view.changes import RING_EVENTS, ChangeLog
from pipeline.state.view.events import CommandLog, DriftBoard, LifecycleLog
from pipeline.state.view.items import NOWHERE, ClusterNames, Items
from pipeline.state.view.series import Series

N_DELAYS = 1024


class News(NamedTuple):
    """What a slice of records brought that somebody may be waiting for, in the order it came."""

    changes: Sequence[ClusterChange] = ()
    lifecycle: Sequence[Lifecycle] = ()
    alarms: Sequence[Drift] = ()
    has_new_model: bool = False
    records: Sequence[Record] = ()
    """Those that the events came in, one each; a piece of news is of one topic."""


class View:
    """Items, clusters, changes and what is told about them.

    Parameters
    ----------
    n_partitions
        Of the input.
    n_dims
        Of the vectors; 0: none are kept.
    """

    def __init__(self, n_partitions: int, n_dims: int = 0, *, n_changes: int = RING_EVENTS) -> None:
        self.names = ClusterNames()
        self.items = Items(n_dims, self.names)
        self.models = ModelFold()
        self.changes = ChangeLog(self.names, n_partitions, n_changes)
        self.series = Series()
        self.lifecycle = LifecycleLog()
        self.drift = DriftBoard()
        self.commands = CommandLog()
        self.heads: dict[int, Head] = {}
        self.as_of_ms = 0
        """The time of the newest record taken in."""
        self.counted_since_ms = 0
        """From when on every change is in the series: where they were read from the middle."""
        self.delays_ms: deque[int] = deque(maxlen=N_DELAYS)
        """From a record's time to that of its event, of the newest events."""
        self.n_ignored = 0
        self.shown: dict[int, int] = {}
        """Partition -> the offset up to which its records show: who reads the topics knows when
        everything is here that they brought about, and raises it."""
        self._removed: dict[int, int] = {}

    @property
    def model(self) -> Model | None:
        """The newest one whose digest fits."""
        return self.models.newest

    @property
    def version(self) -> tuple[int, int]:
        """Epoch and revision of the newest model; zeros: there is none."""
        if self.model is None:
            return 0, 0
        return self.model.manifest.epoch, self.model.manifest.revision

    def next_offset(self, partition: int) -> int:
        """The offset up to which a partition's records show: what is below it was applied."""
        return self.shown.get(partition, 0)

    @property
    def claims(self) -> Mapping[int, int]:
        """Partition -> the offset up to which its records were applied, by what was read.

        What else they brought about need not be read yet: a transaction writes to several topics.
        """
        found = dict(self.items.next_offsets)
        heads = {partition: head.next_offset for partition, head in self.heads.items()}
        for told in (heads, self._removed):
            for partition, offset in told.items():
                found[partition] = max(offset, found.get(partition, 0))
        return found

    @property
    def progress(self) -> Mapping[int, int]:
        """`next_offset` of every partition that anything was read of."""
        known = {*self.items.next_offsets, *self.heads, *self._removed}
        return {partition: self.next_offset(partition) for partition in sorted(known)}

    # --- snapshots --------------------------------------------------------------------------------

    def parts(self) -> tuple[NDArray[np.intp], dict[str, Any]]:
        """What grows with items and changes, copied, by name; see `Items.parts`.

        Not what is folded from topics that are read from their beginning at every start: models,
        heads, lifecycle, alarms, commands.
        """
        rows, items = self.items.parts()
        told = {
            "names": [self.names.id(number) for number in range(1, len(self.names))],
            "as_of_ms": self.as_of_ms,
            "counted_since_ms": self.counted_since_ms,
            "delays_ms": [*self.delays_ms],
            "shown": [*self.shown.items()],
            "removed": [*self._removed.items()],
        }
        inner = {
            "items": items,
            "metadata": self.items.metadata.parts(rows),
            "changes": self.changes.parts(),
            "minutes": self.series.minutes.parts(),
            "hours": self.series.hours.parts(),
        }
        for prefix, found in inner.items():
            told |= {f"{prefix}.{name}": part for name, part in found.items()}
        return rows, told

    def resume(self, parts: Mapping[str, Any]) -> None:
        """Become what `parts` told; only of a view that nothing was folded into.

        Raises
        ------
        KeyError, TypeError, ValueError, IndexError
            That is not what a view tells; this one is not to be used any more.
        """
        for name in parts["names"]:
            self.names.number(name)
        self.as_of_ms, self.counted_since_ms = parts["as_of_ms"], parts["counted_since_ms"]
        self.delays_ms.extend(parts["delays_ms"])
        self.shown, self._removed = dict(parts["shown"]), dict(parts["removed"])
        for prefix, inner in (
            ("items", self.items),
            ("metadata", self.items.metadata),
            ("changes", self.changes),
            ("minutes", self.series.minutes),
            ("hours", self.series.hours),
        ):
            n = len(prefix) + 1
            found = {name[n:]: parts[name] for name in parts if name.startswith(f"{prefix}.")}
            inner.resume(found)

    # --- folding, each topic in offset order of its partitions -----------------------------------

    def fold_assignments(self, records: Sequence[Record]) -> News:
        """Where items are."""
        self._note_time(records)
        self.items.fold(records)
        return News()

    def fold_changes(self, records: Sequence[Record]) -> News:
        """How they came there."""
        self._note_time(records)
        told: list[ClusterChange] = []
        kept: list[Record] = []
        for record in records:
            if record.value is None or not self.changes.is_new(record):
                continue
            try:
                change = decode_change(record.value)
            except RecordError:
                self.n_ignored += 1
                continue
            source = self._number(change.from_cluster)
            target = self._number(change.to_cluster)
            self.changes.add(record, change, source, target)
            self.series.add(record.timestamp_ms or 0, source, target)
            if change.to_cluster is None:
                known = self._removed.get(change.partition, 0)
                self._removed[change.partition] = max(known, change.offset + 1)
            if change.cause is Cause.RECORD and None not in (
                change.occurred_at_ms, record.timestamp_ms
            ):  # fmt: skip
                self.delays_ms.append((record.timestamp_ms or 0) - (change.occurred_at_ms or 0))
            told.append(change)
            kept.append(record)
        return News(changes=told, records=kept)

    def fold_model(self, records: Sequence[Record]) -> News:
        """Manifests, centroids, labels."""
        self._note_time(records)
        before = self.model
        self.models.fold(records)
        return News(has_new_model=self.model is not before)

    def fold_heads(self, records: Sequence[Record]) -> News:
        """How far partitions are; what their clusters add up to is folded elsewhere."""
        self._note_time(records)
        for record in records:
            key = (record.key or b"").decode("utf-8", "replace")
            if not key.isdecimal() or record.value is None:
                continue
            try:
                self.heads[int(key)] = decode_head(record.value)
            except RecordError:
                self.n_ignored += 1
        return News()

    def fold_lifecycle(self, records: Sequence[Record]) -> News:
        """Lineage, and the answers to commands."""
        self._note_time(records)
        told, kept = [], []
        for record in records:
            event = self.lifecycle.fold(record)
            if event is not None:
                self.commands.answer(event)
                told.append(event)
                kept.append(record)
        return News(lifecycle=told, records=kept)

    def fold_drift(self, records: Sequence[Record]) -> News:
        """Alarms."""
        self._note_time(records)
        told, kept = [], []
        for record in records:
            alarm = self.drift.fold(record)
            if alarm is not None:
                told.append(alarm)
                kept.append(record)
        return News(alarms=told, records=kept)

    def fold_commands(self, records: Sequence[Record]) -> News:
        """What people asked for."""
        for record in records:
            self.commands.fold(record)
        return News()

    def _number(self, cluster: str | None) -> int:
        return NOWHERE if cluster is None else self.names.number(cluster)

    def _note_time(self, records: Sequence[Record]) -> None:
        newest = max((record.timestamp_ms or 0 for record in records), default=0)
        self.as_of_ms = max(self.as_of_ms, newest)
