"""Which items live, by which record, and with which vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.cli.audit.forms import held
from pipeline.cli.audit.input import PartitionInput
from pipeline.cli.audit.model import edv1
from pipeline.cli.audit.tally import Assigned, Members, Tally, Topics, item_text


def check_items(topics: Topics, items: Tally, sources: Tally) -> Members:
    """Every live item has one assignment, by the record that counts; nothing else has one."""
    members = Members()
    for partition, state in sorted(topics.inputs.items()):
        assignments = topics.assignments.get(partition, {})
        kept = topics.vectors.get(partition, {})
        for item in state.items.keys() | assignments.keys():
            row = assignments.get(item)
            items.n_checked += 1
            if not _is_placed(topics, state, partition, item, row, items) or row is None:
                continue
            found = _row_that_counts(topics, state, partition, item, row, sources)
            if found is None:
                at = (partition, row.cluster)
                members.n_left_out[at] = members.n_left_out.get(at, 0) + 1
                continue
            members.partitions.append(partition)
            members.items.append(item)
            members.assigned.append(row)
            members.vectors.append(found[0])
            members.timestamps.append(found[1])
        for item in kept.keys() - assignments.keys():
            sources.broken(f"{item_text(partition, item)} is gone, but its vector is still kept")
    return members


def _is_placed(
    topics: Topics,
    state: PartitionInput,
    partition: int,
    item: str,
    row: Assigned | None,
    tally: Tally,
) -> bool:
    history = state.items.get(item)
    where = item_text(partition, item)
    if history is None:
        if topics.compacted or state.whole:
            tally.broken(
                f"{where} is assigned to {row.cluster if row else None}, "
                "but nothing of it is left in the input"
            )
            return False
        return True
    if history.live and history.known and row is None:
        tally.broken(f"{where} is live by its record at {history.offset}, but has no assignment")
        return False
    if history.live and row is None:
        tally.broken(f"{where} has a usable record at {history.offset}, but no assignment")
        return False
    if not history.live and history.known and row is not None:
        why = f"was removed at {history.removed_at}" if history.removed_at >= 0 else "never lived"
        tally.broken(f"{where} {why}, but is assigned to {row.cluster}")
        return False
    return True


def _row_that_counts(
    topics: Topics,
    state: PartitionInput,
    partition: int,
    item: str,
    row: Assigned,
    tally: Tally,
) -> tuple[NDArray[np.float32], int | None] | None:
    """Vector and time of the assignment's source; None after a fault, or if nobody can know."""
    tally.n_checked += 1
    where = item_text(partition, item)
    history = state.items.get(item)
    copy = topics.vectors.get(partition, {}).get(item)
    n_dims = topics.model.centroids.shape[1]
    kept = None if copy is None else edv1(copy.value, n_dims)
    if kept is not None:
        kept = held(kept, topics.dtype)  # the copy may be older than the configuration
    elif copy is not None:
        tally.broken(f"{where} has an unreadable row in item-vectors")
        return None
    if row.partition != partition:
        tally.broken(f"{where} says that its source is in partition {row.partition}")
        return None
    if history is not None and history.live and row.offset == history.offset:
        if row.sequence != history.sequence:
            tally.broken(
                f"{where} has the sequence {history.sequence} at {row.offset}, "
                f"but its assignment says {row.sequence}"
            )
        vector = history.vector
        assert vector is not None
        if kept is not None and kept.tobytes() == held(vector, "float16").tobytes():
            vector = kept  # of an assigner with float16, and so the one that is held
        elif kept is not None and kept.tobytes() != vector.tobytes():
            tally.broken(f"{where} has another vector in item-vectors than at {row.offset}")
            return None
        if copy is not None and copy.timestamp_ms != _usable(history.timestamp_ms):
            tally.broken(
                f"{where} has another time in item-vectors, {copy.timestamp_ms}, than at "
                f"{row.offset}, {history.timestamp_ms}"
            )
        if kept is None and not topics.compacted:
            tally.broken(f"{where} has no row in item-vectors, and the input does not keep it")
        elif kept is None and history.n_later:
            tally.broken(
                f"{where} counts by {row.offset}, below a later stale record or dead letter: "
                "compaction will take it, and item-vectors does not have it"
            )
        return vector, history.timestamp_ms
    may_be_older = history is None or (
        not history.known and row.offset < history.first and row.sequence >= history.least_sequence
    )
    if not may_be_older:
        assert history is not None
        counts = f"the record at {history.offset} counts" if history.live else "no record counts"
        tally.broken(f"{where} names {row.offset} as its source, but {counts}")
        return None
    if copy is None or kept is None:
        tally.broken(f"{where} counts by {row.offset}, which is neither in the input nor kept")
        return None
    return kept, copy.timestamp_ms


def _usable(timestamp_ms: int | None) -> int | None:
    return None if timestamp_ms is None or timestamp_ms < 0 else timestamp_ms
