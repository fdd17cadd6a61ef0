"""Drift at the reclusterer: windows of traffic in, alarms out; what stands survives a restart."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.drift.monitor import DriftMonitor, Key
from pipeline.clustering.drift.policy import DriftPolicy
from pipeline.clustering.drift.signals import Alarm, Baseline, Signal, Window
from pipeline.clustering.profile import Profiles
from pipeline.engine.totals import Totals
from pipeline.messages.codec import decode_drift, encode_drift
from pipeline.messages.events import Drift
from pipeline.messages.model import Model
from pipeline.messages.policy import EventPolicy
from pipeline.messages.records import Outgoing
from pipeline.services.reclusterer.sampling import to_end
from pipeline.streams.contract import Broker
from pipeline.streams.topics import TopicPolicy


@dataclass(slots=True)
class Alarms:
    """Watches the traffic of the newest epoch; one monitor an epoch."""

    broker: Broker
    topics: TopicPolicy
    events: EventPolicy
    policy: DriftPolicy
    totals: Totals
    executor: Executor
    """Computes the levels of a new model beside the loop."""
    _monitor: Future[DriftMonitor] | None = None
    _standing: dict[tuple[str, str | None], Drift] = field(default_factory=dict)
    """By signal and cluster."""
    _pending: list[Drift] = field(default_factory=list)
    """Of windows that were closed, and not published yet."""
    _model: Model | None = None
    _centroids: NDArray[np.float32] | None = None
    """Where they were when the last window closed."""

    @property
    def standing(self) -> Sequence[Drift]:
        """The alarms that are raised now."""
        return list(self._standing.values())

    def begin(self) -> Generator[int, None, None]:
        """Read what stands, in slices."""
        for records in to_end(self.broker.reader(self.topics.drift)):
            for record in records:
                if record.value is not None:
                    self._note(decode_drift(record.value))
            yield 1

    def watch(self, model: Model) -> None:
        """Watch the traffic under this epoch from now on."""
        if not self.policy.enabled or not model.counts.any():
            return
        self.totals.take_window(())
        self._model, self._centroids = model, model.centroids
        labels = {cluster: label for label, cluster in enumerate(model.manifest.clusters)}
        standing = [
            Key(Signal(signal), None if cluster is None else labels[cluster])
            for signal, cluster in self._standing
            if cluster is None or cluster in labels
        ]
        baseline = Baseline(
            Profiles(
                model.counts, model.mean_squared_distances, model.mean_distances, model.quantiles
            ),
            n_members=self.totals.n_members or model.manifest.fitted_items,
        )
        self._monitor = self.executor.submit(DriftMonitor, self.policy, baseline, standing)

    def follow(self, model: Model) -> None:
        """Centroids have moved within the epoch."""
        self._model = model

    def head_arrived(self, occurred_at_ms: int | None) -> None:
        """Close the window, if this head has brought enough."""
        model, monitor = self._model, self._monitor
        if model is None or monitor is None or not monitor.done():
            return
        if self.totals.window_records < self.policy.window:
            return
        found = monitor.result().observe(self._window(model))
        self._pending += [self._drift(alarm, model, occurred_at_ms) for alarm in found]

    @property
    def due(self) -> list[Drift]:
        """What began or ended and is not `told` yet."""
        return list(self._pending)

    def cleared(self, model: Model, occurred_at_ms: int) -> list[Drift]:
        """A new epoch begins: what stood, stood under another."""
        self._pending = []
        return [
            alarm._replace(
                id=_id(model, alarm.cluster, alarm.signal, "cleared", occurred_at_ms),
                state="cleared",
                clusters=(),
                epoch=model.manifest.epoch,
                revision=model.manifest.revision,
                occurred_at_ms=occurred_at_ms,
            )
            for alarm in self._standing.values()
        ]

    def records(self, alarms: Sequence[Drift]) -> list[Outgoing]:
        """The alarms as they go out."""
        outgoing = []
        for alarm in alarms:
            value, headers = encode_drift(alarm, self.events)
            outgoing.append(Outgoing(self.topics.drift, 0, alarm.key, value, headers))
        return outgoing

    def told(self, alarms: Sequence[Drift]) -> None:
        """They are committed."""
        for alarm in alarms:
            self._note(alarm)
        self._pending = []

    def _note(self, alarm: Drift) -> None:
        key = alarm.signal, alarm.cluster
        if alarm.state == "raised":
            self._standing[key] = alarm
        else:
            self._standing.pop(key, None)

    def _window(self, model: Model) -> Window:
        taken = self.totals.take_window(model.manifest.clusters)
        assert self._centroids is not None
        moves = model.centroids.astype(np.float64) - self._centroids
        displacements = model.centroids.astype(np.float64) - model.fitted
        self._centroids = model.centroids
        return Window(
            landed=taken.landed,
            distances=taken.distances,
            n_records=taken.n_records,
            n_reassigned=taken.n_reassigned,
            n_members=self.totals.n_members,
            moves=moves if moves.any() else None,
            displacements=np.sqrt(np.square(displacements).sum(axis=1)),
        )

    def _drift(self, alarm: Alarm, model: Model, occurred_at_ms: int | None) -> Drift:
        ids = model.manifest.clusters
        cluster = None if alarm.label is None else ids[alarm.label]
        return Drift(
            id=_id(model, cluster, alarm.signal, alarm.state, occurred_at_ms or 0),
            state=alarm.state,
            scope="model" if cluster is None else "cluster",
            cluster=cluster,
            signal=alarm.signal,
            statistic=alarm.statistic,
            threshold=alarm.threshold,
            effect=alarm.effect,
            arl0=self.policy.arl0,
            window=self.policy.window,
            epoch=model.manifest.epoch,
            revision=model.manifest.revision,
            occurred_at_ms=occurred_at_ms,
            clusters=tuple(ids[label] for label in alarm.labels),
        )


def _id(model: Model, cluster: str | None, signal: str, state: str, ms: int) -> str:
    return f"{model.version}/{cluster or 'model'}/{signal}/{state}/{ms}"
