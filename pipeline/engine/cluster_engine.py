"""The state machine of tier 1: records, sweeps and models in; changes out.

No clock and no I/O: the same batches in the same order give the same events, on any
machine. That is what makes replay after a crash honest. Every method that returns
`Changes` leaves the state as it is; `install` makes them real.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.proofs import drifted, proofs
from pipeline.engine.arrivals import arrive, lose_ghosts, next_arrivals, take_over
from pipeline.engine.changes import Changes
from pipeline.engine.events import EventWriter, Step
from pipeline.engine.publication import publish_head, publish_statistics
from pipeline.engine.records import NOWHERE, Placed, RecordFold
from pipeline.engine.recount import recount
from pipeline.engine.setting import (
    ClusterTable,
    EngineSettings,
    LoadedModel,
    check_model,
    shown,
    version_of,
)
from pipeline.engine.sweep import sweep_slice
from pipeline.errors import Reason, RecordError
from pipeline.kernels.contract import Kernels
from pipeline.messages.codec import decode
from pipeline.messages.model import Model
from pipeline.messages.records import Record
from pipeline.state.members import (
    Ghost,
    Members,
    Metadata,
    PartitionState,
    Version,
    empty_partition,
)
from pipeline.state.successors import Successors

POISON = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
"""What decoding or arithmetic raises on a record that nobody thought of."""


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """A partition as the topics tell it."""

    partition: int
    next_offset: int
    members: Members
    """Rows 0 to n - 1 filled, but for labels and proofs."""
    cluster_ids: Sequence[str]
    """(n,) the cluster of each row."""
    ghosts: Mapping[bytes, tuple[str, int, bool]]
    """Item -> its cluster, the offset of its last record, whether a vector is in `item-vectors`."""
    published: Collection[str]
    """Clusters that have statistics in the topic."""
    ghosts_until: int
    """Where the input ended at the restore."""
    behind: Collection[bytes] = ()
    """The ghosts that stood by an embedding model that stands no more."""
    successors: Successors | None = None
    """The set of the next embedding model; None: none is on its way."""
    arrivals: Successors | None = None
    """Items that an embedding model brought which has taken over; None: all have arrived."""
    embedding_since: int | None = None
    """As the manifest says it under which this was read."""


@dataclass(slots=True)
class ClusterEngine:
    """The state of one process, and the only code that changes it."""

    settings: EngineSettings
    kernels: Kernels
    partitions: dict[int, PartitionState] = field(default_factory=dict)
    table: ClusterTable = field(default_factory=ClusterTable)
    drift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(n_labels,) how far the centroids of the epoch have moved, as `Members.proofs` count it."""
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

        Call it between transactions. A revision leaves the proofs of the members that it cannot
        have moved, an epoch none. A sweep that is on its way is not begun again: it goes round
        once more from where it is.

        Members keep their label until the sweep reaches them, so after an epoch the table also
        holds the clusters that retired.
        """
        settings = self.settings.under(model.manifest)
        check_model(model.manifest, settings)
        if self.version is not None and version_of(model) <= self.version:
            return False
        self.settings = settings
        before, self._loaded = self._loaded, LoadedModel.of(model, self.kernels)
        if before is not None and before.is_revised_by(model):
            self.drift = drifted(self.drift, before.model.centroids, model.centroids)
        else:
            self._begin_epoch(model)
            if before is not None and not before.is_comparable_with(model):
                for state in self.partitions.values():
                    self._take_over(state)
        for state in self.partitions.values():
            state.begin_sweep()
        return True

    def _begin_epoch(self, model: Model) -> None:
        self.table, moved = self.table.followed_by(model.manifest.clusters)
        self.drift = np.zeros(len(self.table))
        for state in self.partitions.values():
            state.relabel(moved, len(self.table))
            state.members.unprove()
            state.dirty[:] = True  # the epoch stands in every row of the statistics
            if (state.sums.weights is None) != (self.loaded.decay is None):
                # another landmark is the sweep's affair, but these have other units
                self._recount(state, self.loaded)

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
        members.unprove()
        members.ghosts = {
            key: Ghost(label_of[cluster_id], offset, is_kept, key in restored.behind)
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
        self._recount(state, self._loaded)
        self._take_waiting(state, restored)
        state.begin_sweep()
        self.partitions[state.partition] = state

    def _take_waiting(self, state: PartitionState, restored: Restored) -> None:
        """What was read back besides the members: vectors of another embedding model."""
        state.embedding_since = restored.embedding_since
        successor = self.settings.embedding.successor
        state.successors = restored.successors
        if state.successors is None and successor is not None:
            state.successors = Successors(successor.dimensions, dtype=successor.dtype)
        if restored.arrivals is not None:
            state.await_arrivals(restored.arrivals)
        loaded = self._loaded
        if loaded is None or loaded.model.manifest.embedding_since == restored.embedding_since:
            return
        self._take_over(state)  # the model came while the partition was read

    def _take_over(self, state: PartitionState) -> None:
        take_over(state, self.loaded.model, is_weighted=self.loaded.decay is not None)

    def _recount(self, state: PartitionState, loaded: LoadedModel | None) -> None:
        decay = None if loaded is None else loaded.decay
        max_component = self.settings.embedding.largest_component
        recount(state, decay, self.kernels, max_component=max_component)

    def _label_of(self, cluster_id: str) -> int:
        """The label of a cluster that an assignment names; a new one if it retired since."""
        if cluster_id in self.table.ids:
            return self.table.ids.index(cluster_id)
        self.table.ids.append(cluster_id)
        self.drift = np.append(self.drift, 0.0)
        same = np.arange(len(self.table) - 1, dtype=np.int32)
        for state in self.partitions.values():
            state.relabel(same, len(self.table))
        return len(self.table) - 1

    def drop(self, partitions: Collection[int]) -> None:
        """Forget partitions that went to somebody else."""
        for partition in partitions:
            self.partitions.pop(partition, None)

    # --- records ------------------------------------------------------------------

    def prepare(
        self, records: Sequence[Record], at: Callable[[str], None] | None = None
    ) -> Changes:
        """Say what a micro-batch changes; each partition's records are in offset order.

        ``at`` is told what begins: ``decode``, ``assign``, ``apply``; a time is its affair.
        """
        placed = self._place(records, at)
        if at is not None:
            at("apply")
        by_partition: dict[int, list[int]] = {}
        for i, record in enumerate(records):
            by_partition.setdefault(record.partition, []).append(i)
        changes = Changes([], [], {})
        for partition, indices in by_partition.items():
            fold = RecordFold(
                self.settings, self.partitions[partition], self.table.ids,
                self.loaded.version, self.loaded.decay, placed, changes.tally, changes.outgoing,
            )  # fmt: skip
            applied = fold.fold(records, indices)
            changes.partitions.append(applied)
            if fold.succeeded is not None:
                changes.partitions.append(fold.succeeded)
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
        events, confidences = self._writer().write(
            steps, placed.nearest, placed.second, placed.distances_squared
        )
        changes.written.append((len(changes.outgoing), steps))
        changes.outgoing += events
        changes.tally.n_events += len(events)
        changes.tally.confidences += confidences

    def _writer(self) -> EventWriter:
        return EventWriter(self.settings, self.loaded, self.table.ids, self.kernels)

    def _place(self, records: Sequence[Record], at: Callable[[str], None] | None) -> Placed:
        try:
            return self._decode_and_assign(records, {}, at)
        except POISON:
            return self._decode_and_assign(records, self._find_poison(records, 0), at)

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
        self,
        records: Sequence[Record],
        poison: Mapping[int, RecordError],
        at: Callable[[str], None] | None = None,
    ) -> Placed:
        settings = self.settings
        if at is not None:
            at("decode")
        good = [r for i, r in enumerate(records) if i not in poison] if poison else records
        batch = decode(good, settings.embedding, settings.limits)
        if at is not None:
            at("assign")
        # the runner-up of every record, since it costs less than a second call for those that move
        found = self.kernels.assign(self.loaded.device, batch.vectors, second=True)
        assert found.second_distances_squared is not None
        rows, sequences = batch.rows.tolist(), batch.sequences
        metadata, errors, next_rows = batch.metadata, batch.errors, batch.next_rows
        if poison:
            places = [i for i in range(len(records)) if i not in poison]
            by_index = dict(zip(places, range(len(places)), strict=True))
            rows = [rows[by_index[i]] if i in by_index else NOWHERE for i in range(len(records))]
            sequences = [
                sequences[by_index[i]] if i in by_index else 0 for i in range(len(records))
            ]
            metadata = {places[i]: value for i, value in metadata.items()}
            next_rows = {places[i]: row for i, row in next_rows.items()}
            errors = {places[i]: error for i, error in errors.items()} | dict(poison)
        return Placed(
            vectors=batch.vectors,
            labels=found.labels,
            distances_squared=found.distances_squared,
            proofs=proofs(found.distances_squared, found.gaps, self.drift[found.labels]),
            label_list=found.labels.tolist(),
            nearest=shown(found.distances_squared, settings.embedding.metric).tolist(),
            second=shown(found.second_distances_squared, settings.embedding.metric).tolist(),
            rows=rows,
            sequences=sequences,
            metadata=self._shown(metadata),
            errors=errors,
            next_vectors=batch.next_vectors,
            next_rows=next_rows,
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
        """The next slice of members held against the model; see `sweep_slice`, and `arrive`."""
        state = self.partitions[partition]
        if state.arrivals is not None:
            return arrive(state, self._writer(), self.drift, next_arrivals(state, max_rows))
        created_at_ms = self.loaded.model.manifest.created_at_ms
        return sweep_slice(
            state,
            self._writer(),
            self.drift,
            max_rows=max_rows,
            created_at_ms=created_at_ms,
        )

    def admit(self, records: Sequence[Record]) -> list[Changes]:
        """What lets in the items of these records that wait for it: do it before `prepare`.

        So a record finds its item where the model has put it, and has nobody to overtake.
        """
        found = []
        for partition, state in self.partitions.items():
            if state.arrivals is not None:
                keys = {r.key for r in records if r.partition == partition and r.key is not None}
                waiting = state.arrivals.present(list(keys))
                if waiting:
                    found.append(arrive(state, self._writer(), self.drift, sorted(waiting)))
        return found

    def n_unproven(self) -> int:
        """Members whose label a sweep has yet to prove."""
        return sum(state.n_unproven(self.drift) for state in self.partitions.values())

    def publish_head(self, partition: int) -> Changes:
        """An owner's first transaction; see `pipeline.engine.publication`."""
        return publish_head(self.partitions[partition], self.settings)

    def publish_statistics(self, partition: int) -> Changes:
        """The statistics that nobody knows yet, and the head."""
        return publish_statistics(
            self.partitions[partition], self.settings, self.table, self.loaded.version
        )

    def lose_ghosts(self, partition: int) -> Changes:
        """Remove ghosts of a partition that consumed what it had to wait for; some at a time."""
        return lose_ghosts(self.partitions[partition], self._writer())

    def _forget_retired(self) -> None:
        """Drop the labels of retired clusters that nothing refers to any more."""
        table = self.table
        if len(table) == table.n_live:
            return
        referred = np.zeros(len(table), np.bool_)
        referred[: table.n_live] = True
        for state in self.partitions.values():
            if not state.has_swept(self.loaded.version.epoch):
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
        self.drift = self.drift[kept]
        for state in self.partitions.values():
            state.relabel(moved, len(self.table))
