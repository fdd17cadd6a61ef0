"""What a partition says of its clusters: cumulative statistics, and the head behind them.

Cumulative, not deltas: the latest wins, so replays and compaction are harmless.
"""

from __future__ import annotations

import numpy as np

from pipeline.engine.changes import Changes, Published
from pipeline.engine.setting import ClusterTable, EngineSettings
from pipeline.messages.codec import encode_head, encode_statistics, head_key, statistics_key
from pipeline.messages.events import Head, StatisticsRow
from pipeline.messages.records import Outgoing
from pipeline.state.members import PartitionState, Version


def publish_head(state: PartitionState, settings: EngineSettings) -> Changes:
    """The head alone: an owner's first transaction, or when only an offset or the sweep moved."""
    change = Published(state.partition, (), ())
    return _changes(state, [_head(state, settings)], change)


def publish_statistics(
    state: PartitionState, settings: EngineSettings, table: ClusterTable, version: Version
) -> Changes:
    """The statistics of every dirty cluster, zero ones included, and the head last.

    A cluster that retired gets a null once the epoch's sweep is done and it has no member left.
    """
    outgoing: list[Outgoing] = []
    written: list[str] = []
    for label in np.flatnonzero(state.dirty).tolist():
        cluster_id = table.ids[label]
        if label >= table.n_live and not state.sums.counts[label]:
            continue
        written.append(cluster_id)
        row = encode_statistics(_row(state, label, version))
        outgoing.append(_statistics(state, settings, cluster_id, row))

    at = {cluster_id: label for label, cluster_id in enumerate(table.ids)}
    nulled = []
    if state.has_swept(version.epoch):
        for cluster_id in sorted(state.published):
            label = at.get(cluster_id, table.n_live)
            gone = label >= table.n_live
            if gone and (cluster_id not in at or not state.sums.counts[label]):
                nulled.append(cluster_id)
                outgoing.append(_statistics(state, settings, cluster_id, None))
    outgoing.append(_head(state, settings))
    return _changes(state, outgoing, Published(state.partition, written, nulled))


def _row(state: PartitionState, label: int, version: Version) -> StatisticsRow:
    sums, traffic = state.sums, state.traffic
    return StatisticsRow(
        epoch=version.epoch,
        count=int(sums.counts[label]),
        square_high=int(sums.squares[label, 0]),
        square_low=int(sums.squares[label, 1]),
        landed=int(traffic.landed[label]),
        distance=float(traffic.distances[label]),
        distance_squared=float(traffic.distances_squared[label]),
        sums=sums.sums[label],
        weight=None if sums.weights is None else int(sums.weights[label]),
    )


def _statistics(
    state: PartitionState, settings: EngineSettings, cluster_id: str, value: bytes | None
) -> Outgoing:
    key = statistics_key(state.partition, cluster_id)
    return Outgoing(settings.topics.statistics, state.partition, key, value)


def _head(state: PartitionState, settings: EngineSettings) -> Outgoing:
    swept_to = state.swept_to
    if any(ghost.is_behind for ghost in state.members.ghosts.values()):
        swept_to = None  # some assignments are still of another embedding model
    head = Head(
        epoch=None if swept_to is None else swept_to.epoch,
        revision=None if swept_to is None else swept_to.revision,
        since=state.traffic.since,
        next_offset=state.next_offset,
        members=len(state.members),
        records=state.traffic.n_records,
        reassigned=state.traffic.n_reassigned,
        embedding_since=state.embedding_since,
    )
    key = head_key(state.partition)
    return Outgoing(settings.topics.statistics, state.partition, key, encode_head(head))


def _changes(state: PartitionState, outgoing: list[Outgoing], change: Published) -> Changes:
    return Changes(outgoing, [change], {state.partition: state.next_offset})
