"""A slice of members, held against a model they were not all assigned by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.proofs import proofs
from pipeline.engine.changes import Changes, Swept, Tally
from pipeline.engine.events import EventWriter, Step
from pipeline.engine.setting import shown
from pipeline.kernels.contract import Assignment
from pipeline.messages.codec import encode_assignment
from pipeline.messages.events import Cause
from pipeline.messages.halves import widened
from pipeline.messages.records import Outgoing
from pipeline.state.members import PartitionState

LOOK_ROWS = 2**18
"""Rows whose proof a slice reads at most: a millisecond where all are proven."""
LOOK_BLOCK = 2**14
"""Rows at a time: where none is proven, a slice reads little more than it compares."""


def sweep_slice(
    state: PartitionState,
    writer: EventWriter,
    drift: NDArray[np.float64],
    *,
    max_rows: int,
    created_at_ms: int,
) -> Changes:
    """Re-assign the next ``max_rows`` unproven members; what stays where it is writes nothing.

    Where the epoch brought another landmark, they are counted anew with their new weights.

    Rows that are written after the model was installed are assigned by it already, so one
    round over the rows is a whole sweep, whatever comes and goes meanwhile. In a round a row
    is looked at once, and no record leaves its item elsewhere than in the nearest cluster: so
    one model moves an item at most once, and the ids of the events do not repeat.
    """
    assert state.to_sweep
    members = state.members
    rows, left = _next_rows(state, drift, max_rows)
    vectors = widened(members.vectors[rows])
    # with the runner-up: only then does a gap, and so a proof, say all that there is to say
    found = writer.kernels.assign(writer.loaded.device, vectors, second=True)
    is_moved = is_recounted = found.labels != members.labels[rows]
    weights = None
    if writer.loaded.decay is not None:
        weights = writer.loaded.decay.weight(members.timestamps[rows])
        is_recounted = is_moved | (weights != members.weights[rows])
    moved = np.flatnonzero(is_moved)
    changes = Changes(
        [],
        [
            Swept(
                partition=state.partition,
                rows=rows,
                labels=found.labels,
                proofs=proofs(found.distances_squared, found.gaps, drift[found.labels]),
                recounted=np.flatnonzero(is_recounted),
                weights=weights,
                to_sweep=left,
                swept_to=writer.loaded.version,
            )
        ],
        {state.partition: state.next_offset},
        Tally(n_checked=len(rows)),
    )
    if len(moved):
        assert found.second_distances_squared is not None
        some = Assignment(
            found.labels[moved],
            found.distances_squared[moved],
            found.gaps[moved],
            second_distances_squared=found.second_distances_squared[moved],
        )
        _write(changes, state, writer, rows[moved], some, created_at_ms)
    return changes


def _next_rows(
    state: PartitionState, drift: NDArray[np.float64], max_rows: int
) -> tuple[NDArray[np.intp], tuple[range, ...]]:
    """The rows of a slice, and what the sweep has yet to look at after it."""
    span, *later = state.to_sweep
    found: list[NDArray[np.intp]] = []
    n_wanted, at = max_rows, span.start
    for start in range(span.start, min(span.stop, span.start + LOOK_ROWS), LOOK_BLOCK):
        at = min(start + LOOK_BLOCK, span.start + LOOK_ROWS, span.stop)
        rows = state.members.unproven(range(start, at), drift)
        if len(rows) > n_wanted:
            rows = rows[:n_wanted]
            at = int(rows[-1]) + 1
        found.append(rows)
        n_wanted -= len(rows)
        if not n_wanted:
            break
    left = tuple(rest for rest in (range(at, span.stop), *later) if rest)
    return np.concatenate(found) if found else np.zeros(0, np.intp), left


def _write(
    changes: Changes,
    state: PartitionState,
    writer: EventWriter,
    rows: NDArray[np.intp],
    found: Assignment,
    created_at_ms: int,
) -> None:
    """Assignments and events of the members that move."""
    members, version = state.members, writer.loaded.version
    assert found.second_distances_squared is not None
    metric, assignments = writer.settings.embedding.metric, writer.settings.topics.assignments
    distances = shown(found.distances_squared, metric).tolist()
    second = shown(found.second_distances_squared, metric).tolist()
    steps: list[Step] = []
    columns = zip(
        members.names(rows),
        members.labels[rows].tolist(),
        found.labels.tolist(),
        members.offsets[rows].tolist(),
        members.sequences[rows].tolist(),
        distances,
        strict=True,
    )
    for i, (key, before, after, offset, sequence, distance) in enumerate(columns):
        steps.append(
            Step(
                key, before, after, Cause.MODEL, state.partition, offset,
                created_at_ms, i, members.metadata.get(key),
            )
        )  # fmt: skip
        value = encode_assignment(
            writer.cluster_ids[after], distance, sequence,
            version.epoch, version.revision, state.partition, offset,
        )  # fmt: skip
        changes.outgoing.append(Outgoing(assignments, state.partition, key, value))
    events, confidences = writer.write(steps, distances, second, found.distances_squared)
    changes.outgoing += events
    tally = changes.tally
    tally.n_events = tally.n_reassigned_by_model = len(events)
    tally.confidences = confidences
