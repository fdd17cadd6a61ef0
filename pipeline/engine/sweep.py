"""A slice of members, held against a model they were not all assigned by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.engine.changes import Changes, Swept, Tally
from pipeline.engine.events import EventWriter, Step
from pipeline.engine.setting import shown
from pipeline.messages.codec import encode_assignment
from pipeline.messages.events import Cause
from pipeline.messages.records import Outgoing
from pipeline.state.members import PartitionState


def sweep_slice(
    state: PartitionState,
    writer: EventWriter,
    *,
    max_rows: int,
    created_at_ms: int,
) -> Changes:
    """Re-assign the next ``max_rows`` rows; what stays where it is writes nothing.

    Rows that are written after the model was installed are assigned by it already, so one
    round over the rows is a whole sweep, whatever comes and goes meanwhile.
    """
    assert state.sweep_row is not None
    members, version = state.members, writer.loaded.version
    stop = min(state.sweep_row + max_rows, members.n_rows)
    rows = members.occupied(state.sweep_row, stop)
    vectors = members.vectors[rows]
    found = writer.kernels.assign(writer.loaded.device, vectors)
    moved = np.flatnonzero(found.labels != members.labels[rows])
    rows, labels = rows[moved], found.labels[moved]

    steps: list[Step] = []
    outgoing: list[Outgoing] = []
    metric = writer.settings.embedding.metric
    distances = shown(found.distances_squared[moved], metric).tolist()
    # the runner-up is only needed for an event, and few members make one
    again = writer.kernels.assign(writer.loaded.device, vectors[moved], second=True)
    assert again.second_distances_squared is not None
    second = shown(again.second_distances_squared, metric).tolist()
    columns = zip(
        _keys(state, rows.tolist()),
        members.labels[rows].tolist(),
        labels.tolist(),
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
        outgoing.append(Outgoing(writer.settings.topics.assignments, state.partition, key, value))
    events, confidences = writer.write(steps, distances, second)
    change = Swept(
        partition=state.partition,
        rows=rows,
        labels=labels,
        next_row=None if stop == members.n_rows else stop,
        swept_to=version,
    )
    tally = Tally(n_events=len(events), n_reassigned_by_model=len(events), confidences=confidences)
    return Changes(outgoing + events, [change], {state.partition: state.next_offset}, tally)


def _keys(state: PartitionState, rows: Sequence[int]) -> list[bytes]:
    keys = [state.members.keys[row] for row in rows]
    assert None not in keys, "a free row was swept"
    return [key for key in keys if key is not None]
