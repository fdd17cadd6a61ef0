"""An embedding model takes over: the second set of vectors becomes the members.

In memory it is like a restore under the new model. What stood by the old model keeps its cluster
as a ghost does: for the next event's ``from``, in no sum. Items with a vector of the new model
arrive, slice by slice, in the cluster that is nearest to it. What has none is removed once the
partition has read as far as the fit had, so that an assigner that lags removes nobody whose new
vector is on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.proofs import proofs
from pipeline.engine.changes import Changes, Lost, Tally
from pipeline.engine.events import EventWriter, Step
from pipeline.engine.setting import shown
from pipeline.kernels.contract import Assignment, Kernels, Labels, Points, Sums, Weights
from pipeline.messages.codec import encode_assignment, encode_vector, vector_headers
from pipeline.messages.embedding import model_headers, successor_key
from pipeline.messages.events import Cause
from pipeline.messages.halves import widened
from pipeline.messages.model import Model
from pipeline.messages.records import Outgoing
from pipeline.state.members import Ghost, Members, Metadata, PartitionState, write_members
from pipeline.state.successors import Successors

NOWHERE = -1
MAX_LOST = 2000
"""Ghosts that one transaction removes."""


def take_over(state: PartitionState, model: Model, *, is_weighted: bool) -> None:
    """Begin with the model of another embedding model: members leave, successors arrive.

    The labels are those of the model's table already. About 2 s for 10**6 members, in one piece.
    """
    old, manifest = state.members, model.manifest
    members = Members(manifest.dimensions, dtype=old.vectors.dtype)
    members.metadata = old.metadata
    members.ghosts = {key: ghost._replace(is_behind=True) for key, ghost in old.ghosts.items()}
    rows = old.occupied()
    columns = zip(
        old.names(rows), old.labels[rows].tolist(), old.offsets[rows].tolist(),
        old.kept[rows].tolist(), strict=True,
    )  # fmt: skip
    for key, label, offset, is_kept in columns:
        members.ghosts[key] = Ghost(label, offset, is_kept, is_behind=True)
    arrivals = state.successors
    if arrivals is None:  # the process was not told of the next model, so it has nobody
        arrivals = Successors(manifest.dimensions, dtype=old.vectors.dtype)
    members.reserve(len(arrivals))
    state.members, state.successors = members, None
    state.await_arrivals(arrivals)
    state.sums = Sums.zeros(
        len(state.sums.counts),
        manifest.dimensions,
        max_component=manifest.max_component,
        is_weighted=is_weighted,
    )
    if state.partition < len(manifest.fitted_offsets):
        state.ghosts_until = max(state.ghosts_until, manifest.fitted_offsets[state.partition])
    state.to_sweep = (range(0),)


@dataclass(slots=True, eq=False)
class Arrived:
    """Items that stand by their vector of the new embedding model from now on."""

    partition: int
    keys: list[bytes]
    vectors: Points  # (n, n_dims)
    labels: Labels  # (n,)
    proofs: NDArray[np.float64]  # (n,)
    sequences: NDArray[np.uint64]  # (n,)
    offsets: NDArray[np.int64]  # (n,)
    kept: NDArray[np.bool_]  # (n,)
    timestamps: NDArray[np.int64]  # (n,)
    weights: Weights | None  # (n,)
    since: int
    """The epoch with which the embedding model took over."""

    def install(self, state: PartitionState, kernels: Kernels) -> None:
        members, arrivals = state.members, state.arrivals
        assert arrivals is not None
        if self.keys:
            nowhere = np.full(len(self.keys), NOWHERE, np.int32)
            kernels.accumulate(
                state.sums, self.vectors, nowhere, self.vectors, self.labels,
                old_weights=self.weights, new_weights=self.weights,
            )  # fmt: skip
            write_members(
                members, self.keys, self.vectors, self.labels, self.proofs,
                self.sequences, self.offsets, self.kept, self.timestamps, self.weights,
            )  # fmt: skip
            state.dirty[self.labels] = True
            state.n_unpublished += len(self.keys)
        for key in self.keys:
            if members.ghosts.pop(key, None) is None:
                state.n_unassigned -= 1
            metadata: Metadata | None = arrivals.metadata.get(key)
            if metadata is None:
                members.metadata.pop(key, None)
            else:
                members.metadata[key] = metadata
        arrivals.remove(self.keys)
        if not arrivals:
            state.arrivals, state.embedding_since = None, self.since
            state.head_is_due = True


def arrive(
    state: PartitionState,
    writer: EventWriter,
    drift: NDArray[np.float64],
    keys: Sequence[bytes],
) -> Changes:
    """Let items in that wait; every assignment is written anew, for it has another source."""
    arrivals, loaded = state.arrivals, writer.loaded
    assert arrivals is not None
    rows = arrivals.rows_of(keys)
    vectors, timestamps = widened(arrivals.vectors[rows]), arrivals.timestamps[rows]
    found = writer.kernels.assign(loaded.device, vectors, second=True)
    manifest = loaded.model.manifest
    assert manifest.embedding_since is not None
    arrived = Arrived(
        partition=state.partition,
        keys=list(keys),
        vectors=vectors,
        labels=found.labels,
        proofs=proofs(found.distances_squared, found.gaps, drift[found.labels]),
        sequences=arrivals.sequences[rows],
        offsets=arrivals.offsets[rows],
        kept=arrivals.kept[rows],
        timestamps=timestamps,
        weights=None if loaded.decay is None else loaded.decay.weight(timestamps),
        since=manifest.embedding_since,
    )
    changes = Changes(
        [], [arrived], {state.partition: state.next_offset}, Tally(n_checked=len(rows))
    )
    if len(rows):
        _write(changes, state, writer, arrived, found)
    if len(rows) == len(arrivals):  # nobody is left who could clear them
        vectors_topic, p = writer.settings.topics.vectors, state.partition
        changes.outgoing += [
            Outgoing(vectors_topic, p, successor_key(key), None) for key in sorted(arrivals.strays)
        ]
    return changes


def next_arrivals(state: PartitionState, max_rows: int) -> list[bytes]:
    """The items of a slice."""
    assert state.arrivals is not None
    return state.arrivals.names(state.arrivals.occupied()[:max_rows])


def _write(
    changes: Changes,
    state: PartitionState,
    writer: EventWriter,
    arrived: Arrived,
    found: Assignment,
) -> None:
    """Assignments, events where the cluster changes, and where the vectors are."""
    arrivals, ghosts = state.arrivals, state.members.ghosts
    assert arrivals is not None
    assert found.second_distances_squared is not None
    settings, version, p = writer.settings, writer.loaded.version, state.partition
    metric, created_at_ms = settings.embedding.metric, writer.loaded.model.manifest.created_at_ms
    distances = shown(found.distances_squared, metric).tolist()
    second = shown(found.second_distances_squared, metric).tolist()
    write = changes.outgoing.append
    steps: list[Step] = []
    columns = zip(
        arrived.keys, arrived.labels.tolist(), arrived.offsets.tolist(),
        arrived.sequences.tolist(), arrived.kept.tolist(), arrived.timestamps.tolist(), distances,
        strict=True,
    )  # fmt: skip
    for i, (key, after, offset, sequence, is_kept, time, distance) in enumerate(columns):
        ghost = ghosts.get(key)
        before, metadata = NOWHERE if ghost is None else ghost.label, arrivals.metadata.get(key)
        if before != after:
            steps.append(
                Step(key, before, after, Cause.MODEL, p, offset, created_at_ms, i, metadata)
            )
        value = encode_assignment(
            writer.cluster_ids[after], distance, sequence,
            version.epoch, version.revision, p, offset,
        )  # fmt: skip
        write(Outgoing(settings.topics.assignments, p, key, value))
        if is_kept:
            headers = vector_headers(metadata, time) + model_headers(settings.embedding)
            kept = encode_vector(arrived.vectors[i], sequence)
            write(Outgoing(settings.topics.vectors, p, key, kept, headers))
            write(Outgoing(settings.topics.vectors, p, successor_key(key), None))
        elif ghost is not None and ghost.is_kept:
            write(Outgoing(settings.topics.vectors, p, key, None))
    events, confidences = writer.write(steps, distances, second, found.distances_squared)
    changes.outgoing += events
    tally = changes.tally
    tally.n_events = tally.n_reassigned_by_model = len(events)
    tally.confidences = confidences


def lose_ghosts(state: PartitionState, writer: EventWriter) -> Changes:
    """Remove ghosts whose next record should have come by now, at most `MAX_LOST` of them.

    Before another embedding model takes over, a ghost with a vector of that one stays.
    """
    settings, p = writer.settings, state.partition
    created_at_ms = writer.loaded.model.manifest.created_at_ms
    successors = state.successors
    waiting: Successors | tuple[()] = () if successors is None else successors
    strays = [] if successors is None else sorted(successors.strays)[:MAX_LOST]
    n_left = 0 if successors is None else len(successors.strays) - len(strays)
    overdue = ((key, g) for key, g in state.members.ghosts.items() if key not in waiting)
    ghosts = list(islice(overdue, MAX_LOST + 1))
    ghosts, is_last = ghosts[:MAX_LOST], len(ghosts) <= MAX_LOST and not n_left
    steps = [
        Step(
            key, ghost.label, NOWHERE, Cause.MODEL if ghost.is_behind else Cause.LOST, p,
            ghost.offset, created_at_ms if ghost.is_behind else None, NOWHERE,
            state.members.metadata.get(key),
        )
        for key, ghost in ghosts
    ]  # fmt: skip
    keys = [key for key, _ in ghosts]
    outgoing = [Outgoing(settings.topics.assignments, p, key, None) for key in keys]
    outgoing += [
        Outgoing(settings.topics.vectors, p, key, None) for key, ghost in ghosts if ghost.is_kept
    ]
    outgoing += [Outgoing(settings.topics.vectors, p, successor_key(key), None) for key in strays]
    events, _ = writer.write(steps, (), (), np.zeros(0))
    tally = Tally(n_events=len(events))
    lost = Lost(p, keys, is_last, strays)
    return Changes(outgoing + events, [lost], {p: state.next_offset}, tally)
