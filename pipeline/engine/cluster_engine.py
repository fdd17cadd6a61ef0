"""The state machine of tier 1: records, sweeps and models in; changes out.

No clock and no I/O: the same batches in the same order give the same events, on any
machine. That is what makes replay after a crash honest. Every method that returns
`Changes` leaves the state as it is; `install` makes them real.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.engine.changes import Changes, Lost, Tally
from pipeline.engine.events import EventWriter, Step
from pipeline.engine.publication import publish_head, publish_statistics
from pipeline.engine.records import NOWHERE, Placed, RecordFold
from pipeline.engine.setting import ClusterTable, EngineSettings, LoadedModel, shown
from pipeline.engine.sweep import sweep_slice
from pipeline.errors import Reason, RecordError, TopicError
from pipeline.kernels.contract import Kernels
from pipeline.messages.codec import decode
from pipeline.messages.events import Cause
from pipeline.messages.model import Model
from pipeline.messages.records import Outgoing, Record
from pipeline.state.members import (
    Ghost,
    Members,
    Metadata,
    PartitionState,
    Version,
    empty_partition,
)

POISON = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
"""What decoding or arithmetic raises on a record that nobody thought of."""


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """A partition as the topics tell it."""

    partition: int
    next_offset: int
    members: Members
    """Rows 0 to n - 1 filled, but for the labels."""
    cluster_ids: Sequence[str]
    """(n,) the cluster of each row."""
    ghosts: Mapping[bytes, tuple[str, int, bool]]
    """Item -> its cluster, the offset of its last record, whether a vector is in `item-vectors`."""
    published: Collection[str]
    """Clusters that have statistics in the topic."""
    ghosts_until: int
    """Where the input ended at the restore."""


@dataclass(slots=True)
class ClusterEngine:
    """The state of one process, and the only code that changes it."""

    settings: EngineSettings
    kernels: Kernels
    partitions: dict[int, PartitionState] = field(default_factory=dict)
    table: ClusterTable = field(default_factory=ClusterTable)
    _loaded: LoadedModel | None = None

    @property
    def loaded(self) -> LoadedModel:
        """The model at hand; there must be one."""
        assert self._loaded is not None, "no model was installed"
        return self._loaded

    @property
    def version(self) -> Version | None:
        return None if self._loaded is None else self._loaded.version

    # --- models -------------------------------------------------------------------

    def install_model(self, model: Model) -> bool:
        """Assign to ``model`` from now on, and sweep; False if it is no newer one.

        Call it between transactions. Members keep their label until the sweep reaches them, so
        the table also holds the clusters that retired.
        """
        self._check_model(model)
        loaded = LoadedModel.of(model, self.kernels)
        if self.version is not None and loaded.version <= self.version:
            return False
        self.table, moved = self.table.followed_by(model.manifest.clusters)
        self._loaded = loaded
        for state in self.partitions.values():
            state.relabel(moved, len(self.table))
            state.dirty[:] = True  # the epoch stands in every row of the statistics
            state.sweep_row = 0
        return True

    def _check_model(self, model: Model) -> None:
        wanted, manifest = self.settings.embedding, model.manifest
        for name, got, expected in (
            ("dimensions", manifest.dimensions, wanted.dimensions),
            ("metric", manifest.metric, wanted.metric),
            ("max_component", manifest.max_component, wanted.largest_component),
            ("model", manifest.embedding_model, wanted.model),
        ):
            if got != expected:
                raise TopicError(
                    f"the model in {self.settings.topics.model} has {name} {got!r}, but the "
                    f"configuration says {expected!r}; it is for the life of a prefix: set "
                    f"embedding.{name} back, or begin anew with another topics.prefix"
                )
        if manifest.input_policy == "compact" and not self.settings.input_is_compacted:
            now = "no longer exactly compact"
        elif manifest.input_policy != "compact" and self.settings.input_is_compacted:
            now = "exactly compact now"
        else:
            return
        raise TopicError(
            f"the cleanup policy of {self.settings.topics.input} was {manifest.input_policy!r} "
            f"when the first model was made, and is {now}; set it back"
        )

    # --- partitions ---------------------------------------------------------------

    def adopt(self, restored: Restored) -> None:
        """Take over a partition that was read back; its members are swept from the start.

        Bounds and statistics are never persisted: they are computed here from the rows.
        """
        ids = [*restored.cluster_ids, *(cluster for cluster, _, _ in restored.ghosts.values())]
        label_of = {cluster_id: self._label_of(cluster_id) for cluster_id in dict.fromkeys(ids)}
        members = restored.members
        labels = np.array([label_of[c] for c in restored.cluster_ids], np.int32)
        members.labels[: len(labels)] = labels
        members.ghosts = {
            key: Ghost(label_of[cluster_id], offset, is_kept)
            for key, (cluster_id, offset, is_kept) in restored.ghosts.items()
        }
        state = empty_partition(
            restored.partition,
            members,
            n_labels=len(self.table),
            max_component=self.settings.embedding.largest_component,
            next_offset=restored.next_offset,
        )
        state.published = set(restored.published)
        state.ghosts_until = restored.ghosts_until
        vectors = members.vectors[: len(labels)]
        nowhere = np.full(len(labels), NOWHERE, np.int32)
        self.kernels.accumulate(state.sums, vectors, nowhere, vectors, labels)
        self.partitions[state.partition] = state

    def _label_of(self, cluster_id: str) -> int:
        """The label of a cluster that an assignment names; a new one if it retired since."""
        if cluster_id in self.table.ids:
            return self.table.ids.index(cluster_id)
        self.table.ids.append(cluster_id)
        same = np.arange(len(self.table) - 1, dtype=np.int32)
        for state in self.partitions.values():
            state.relabel(same, len(self.table))
        return len(self.table) - 1

    def drop(self, partitions: Collection[int]) -> None:
        """Forget partitions that went to somebody else."""
        for partition in partitions:
            self.partitions.pop(partition, None)

    # --- records ------------------------------------------------------------------

    def prepare(self, records: Sequence[Record]) -> Changes:
        """Say what a micro-batch changes; each partition's records are in offset order."""
        placed = self._place(records)
        by_partition: dict[int, list[int]] = {}
        for i, record in enumerate(records):
            by_partition.setdefault(record.partition, []).append(i)
        changes = Changes([], [], {})
        for partition, indices in by_partition.items():
            fold = RecordFold(
                self.settings, self.partitions[partition], self.table.ids,
                self.loaded.version, placed, changes.tally, changes.outgoing,
            )  # fmt: skip
            applied = fold.fold(records, indices)
            changes.partitions.append(applied)
            changes.next_offsets[partition] = applied.next_offset
            self._write_events(fold.steps, placed, changes)
        return changes

    def install(self, changes: Changes) -> None:
        """Make changes real. Call it when their transaction is committed, and not before."""
        for change in changes.partitions:
            state = self.partitions[change.partition]
            change.install(state, self.kernels)
            assert int(state.sums.counts.sum()) == len(state.members)
        self._forget_retired()

    def _write_events(self, steps: Sequence[Step], placed: Placed, changes: Changes) -> None:
        events, confidences = self._writer().write(steps, placed.nearest, placed.second)
        changes.outgoing += events
        changes.tally.n_events += len(events)
        changes.tally.confidences += confidences

    def _writer(self) -> EventWriter:
        return EventWriter(self.settings, self.loaded, self.table.ids, self.kernels)

    def _place(self, records: Sequence[Record]) -> Placed:
        try:
            return self._decode_and_assign(records, {})
        except POISON:
            return self._decode_and_assign(records, self._find_poison(records, 0))

    def _find_poison(self, records: Sequence[Record], start: int) -> dict[int, RecordError]:
        """The records on which decoding or arithmetic fails, by bisection."""
        try:
            self._decode_and_assign(records, {})
        except POISON as error:
            if len(records) == 1:
                return {start: RecordError(Reason.POISON, f"{type(error).__name__}: {error}")}
            middle = len(records) // 2
            return self._find_poison(records[:middle], start) | self._find_poison(
                records[middle:], start + middle
            )
        return {}

    def _decode_and_assign(
        self, records: Sequence[Record], poison: Mapping[int, RecordError]
    ) -> Placed:
        settings = self.settings
        good = [r for i, r in enumerate(records) if i not in poison] if poison else records
        batch = decode(good, settings.embedding, settings.limits)
        # the runner-up of every record, since it costs less than a second call for those that move
        found = self.kernels.assign(self.loaded.device, batch.vectors, second=True)
        assert found.second_distances_squared is not None
        rows, sequences = batch.rows.tolist(), batch.sequences
        metadata, errors = batch.metadata, batch.errors
        if poison:
            at = [i for i in range(len(records)) if i not in poison]
            by_index = dict(zip(at, range(len(at)), strict=True))
            rows = [rows[by_index[i]] if i in by_index else NOWHERE for i in range(len(records))]
            sequences = [
                sequences[by_index[i]] if i in by_index else 0 for i in range(len(records))
            ]
            metadata = {at[i]: value for i, value in metadata.items()}
            errors = {at[i]: error for i, error in errors.items()} | dict(poison)
        return Placed(
            vectors=batch.vectors,
            labels=found.labels,
            distances_squared=found.distances_squared,
            label_list=found.labels.tolist(),
            nearest=shown(found.distances_squared, settings.embedding.metric).tolist(),
            second=shown(found.second_distances_squared, settings.embedding.metric).tolist(),
            rows=rows,
            sequences=sequences,
            metadata=self._shown(metadata),
            errors=errors,
        )

    def _shown(self, metadata: Mapping[int, Mapping[str, Any]]) -> dict[int, Metadata]:
        """Only what events show is kept with an item."""
        wanted = self.settings.events.metadata
        if not wanted:
            return {}
        return {
            i: {key: value[key] for key in wanted if key in value} for i, value in metadata.items()
        }

    # --- between batches ----------------------------------------------------------

    def sweep(self, partition: int, *, max_rows: int) -> Changes:
        """The next slice of members held against the model; see `sweep_slice`."""
        created_at_ms = self.loaded.model.manifest.created_at_ms
        return sweep_slice(
            self.partitions[partition],
            self._writer(),
            max_rows=max_rows,
            created_at_ms=created_at_ms,
        )

    def publish_head(self, partition: int) -> Changes:
        """An owner's first transaction; see `pipeline.engine.publication`."""
        return publish_head(self.partitions[partition], self.settings)

    def publish_statistics(self, partition: int) -> Changes:
        """The statistics that nobody knows yet, and the head."""
        return publish_statistics(
            self.partitions[partition], self.settings, self.table, self.loaded.version
        )

    def lose_ghosts(self, partition: int) -> Changes:
        """Remove the ghosts of a partition that consumed what the input held at the restore."""
        state, topics = self.partitions[partition], self.settings.topics
        steps = [
            Step(key, ghost.label, NOWHERE, Cause.LOST, partition, ghost.offset, None, NOWHERE,
                 state.members.metadata.get(key))
            for key, ghost in state.members.ghosts.items()
        ]  # fmt: skip
        keys = [step.key for step in steps]
        outgoing = [Outgoing(topics.assignments, partition, key, None) for key in keys]
        outgoing += [
            Outgoing(topics.vectors, partition, key, None)
            for key, ghost in state.members.ghosts.items()
            if ghost.is_kept
        ]
        events, _ = self._writer().write(steps, (), ())
        tally = Tally(n_events=len(events))
        return Changes(
            outgoing + events, [Lost(partition, keys)], {partition: state.next_offset}, tally
        )

    def _forget_retired(self) -> None:
        """Drop the labels of retired clusters that nothing refers to any more."""
        table = self.table
        if len(table) == table.n_live:
            return
        referred = np.zeros(len(table), np.bool_)
        referred[: table.n_live] = True
        for state in self.partitions.values():
            if state.sweep_row is not None:
                return
            referred |= (state.sums.counts > 0) | state.dirty
            for ghost in state.members.ghosts.values():
                referred[ghost.label] = True
        if referred.all():
            return
        kept = np.flatnonzero(referred)
        moved = np.full(len(table), NOWHERE, np.int32)
        moved[kept] = np.arange(len(kept), dtype=np.int32)
        self.table = ClusterTable([table.ids[label] for label in kept.tolist()], table.n_live)
        for state in self.partitions.values():
            state.relabel(moved, len(self.table))
