"""Steps of items from cluster to cluster, written as events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.setting import EngineSettings, LoadedModel
from pipeline.kernels.contract import Kernels
from pipeline.messages.codec import encode_change
from pipeline.messages.events import Cause, ChangeType, ClusterChange, change_id, confidence
from pipeline.messages.records import Outgoing
from pipeline.state.members import Metadata


class Step(NamedTuple):
    """One item that goes from one cluster to another; -1: from or to none."""

    key: bytes
    before: int
    after: int
    cause: Cause
    partition: int
    offset: int
    occurred_at_ms: int | None
    row: int  # of the vectors at hand; -1: there is none
    metadata: Metadata | None


@dataclass(slots=True, eq=False)
class EventWriter:
    """Knows what an event says besides from and to: how near, compared with whom."""

    settings: EngineSettings
    loaded: LoadedModel
    cluster_ids: Sequence[str]
    kernels: Kernels

    def write(
        self,
        steps: Sequence[Step],
        nearest: Sequence[float],
        second: Sequence[float],
        distances_squared: NDArray[np.float64],
    ) -> tuple[list[Outgoing], list[float]]:
        """The events of steps, in order, and the confidences among them.

        By a step's ``row``: ``nearest`` and ``second`` are distances as users see them,
        ``distances_squared`` the canonical ones to the nearest centroid.
        """
        outgoing, confidences = [], []
        typical = iter(self._typical(steps, distances_squared))
        for step in steps:
            d, margin, sure, usual = None, None, None, None
            if step.row >= 0:
                d = nearest[step.row]
                margin, sure = confidence(d, second[step.row])
                usual = next(typical)
                confidences.append(sure)
            outgoing.append(self._event(step, d, margin, sure, usual))
        return outgoing, confidences

    def _typical(
        self, steps: Sequence[Step], distances_squared: NDArray[np.float64]
    ) -> list[float | None]:
        """Of the steps that have a row, in order."""
        placed = [step for step in steps if step.row >= 0]
        if not placed:
            return []
        labels = np.array([step.after for step in placed], np.int32)
        rows = np.array([step.row for step in placed], np.intp)
        return self.loaded.typicality(labels, distances_squared[rows])

    def _event(
        self,
        step: Step,
        d: float | None,
        margin: float | None,
        sure: float | None,
        typical: float | None,
    ) -> Outgoing:
        version = self.loaded.version
        topic, item = self.settings.topics.input, step.key.decode()
        value, headers = encode_change(
            ClusterChange(
                id=change_id(
                    step.cause, topic, step.partition, step.offset,
                    epoch=version.epoch, revision=version.revision, item=item,
                ),
                type=_type(step),
                item=item,
                from_cluster=None if step.before < 0 else self.cluster_ids[step.before],
                to_cluster=None if step.after < 0 else self.cluster_ids[step.after],
                cause=step.cause,
                distance=d,
                margin=margin,
                confidence=sure,
                epoch=version.epoch,
                revision=version.revision,
                topic=topic,
                partition=step.partition,
                offset=step.offset,
                occurred_at_ms=step.occurred_at_ms,
                metadata=step.metadata,
                typicality=typical,
            ),
            self.settings.events,
        )  # fmt: skip
        return Outgoing(self.settings.topics.changes, step.partition, step.key, value, headers)


def _type(step: Step) -> ChangeType:
    if step.before < 0:
        return ChangeType.ASSIGNED
    return ChangeType.REMOVED if step.after < 0 else ChangeType.REASSIGNED
