"""Windows in, alarms out: every chart of a model, and which alarms stand.

An alarm is raised where the statistic passes its threshold and the effect is worth a word. It is
cleared once the statistic is as low as in most windows without a change, or the effect is half
of what counts, so a change that hovers at the threshold is one alarm. The caller brings the
windows; nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.drift.charts import Churn, Distance, Shift
from pipeline.clustering.drift.policy import DriftPolicy
from pipeline.clustering.drift.runlength import MEMORY, evidence_level
from pipeline.clustering.drift.shares import Imbalance, Occupancy, Traffic
from pipeline.clustering.drift.signals import Alarm, Baseline, Floats, Reading, Signal, Window

MAX_NAMED: Final = 5
MISNAMED: Final = 0.1
"""The share of alarms that may name a cluster in which nothing has changed."""
MIN_WINDOWS_TO_CLEAR: Final = round(1 / MEMORY)
"""A memory that has just begun has not seen enough to call an end."""


class Key(NamedTuple):
    """What an alarm is about."""

    signal: Signal
    label: int | None
    """The cluster; None: the model as a whole."""


class DriftMonitor:
    """All charts of one model, from its installation on.

    Parameters
    ----------
    baseline
        What the model was fitted on. Levels for it are computed here: some tenths of a second at
        K = 500, remembered for the next model of a like shape.
    standing
        Alarms that were raised before, as read back after a restart. They are not raised again,
        and are cleared when the charts, which begin anew, have seen enough.
    """

    def __init__(
        self, policy: DriftPolicy, baseline: Baseline, standing: Collection[Key] = ()
    ) -> None:
        self.policy = policy
        self.n_windows = 0
        n, arl0 = len(baseline.profiles.counts), float(policy.arl0)
        self._traffic = Traffic(baseline)
        self._occupancy = Occupancy(self._traffic, arl0=arl0, window=policy.window)
        self._imbalance = Imbalance(self._traffic, arl0=arl0, window=policy.window)
        self._distance = Distance(baseline, arl0=arl0)
        self._churn = Churn(arl0=arl0)
        self._shift = Shift(baseline, arl0=arl0)
        self._n_clusters = {Signal.DISTANCE: n, Signal.SHIFT: n}
        n_places = dict.fromkeys(Signal, 1) | {Signal.DISTANCE: n + 1, Signal.SHIFT: n}
        self._raised: dict[Signal, NDArray[np.bool_]] = {
            signal: np.zeros(places, np.bool_) for signal, places in n_places.items()
        }
        for signal, label in standing:  # the model's place is the last
            self._raised[signal][-1 if label is None else label] = True
        self.readings: Mapping[Signal, Reading] = {}
        """Of the last window, by signal; what has nothing to say is left out."""

    @property
    def standing(self) -> frozenset[Key]:
        """The alarms that are raised now."""
        return frozenset(
            Key(signal, self._label(signal, place))
            for signal, raised in self._raised.items()
            for place in np.flatnonzero(raised).tolist()
        )

    def observe(self, window: Window) -> list[Alarm]:
        """Take a window in; what began or ended with it, by signal, then by label."""
        self.n_windows += 1
        self.readings = self._readings(window)
        return [
            alarm
            for signal, reading in self.readings.items()
            for alarm in self._judged(signal, reading)
        ]

    def end(self) -> list[Alarm]:
        """The model is no longer watched: what stands is cleared, as its clusters are no more."""
        ended = []
        for signal, raised in self._raised.items():
            nothing = np.zeros(len(raised))
            reading = self.readings.get(signal) or Reading(nothing, nothing, nothing, nothing)
            for place in np.flatnonzero(raised).tolist():
                ended.append(self._alarm(signal, reading, place, is_raised=False))
            raised[:] = False
        return ended

    def _label(self, signal: Signal, place: int) -> int | None:
        return place if place < self._n_clusters.get(signal, 0) else None

    def _readings(self, window: Window) -> dict[Signal, Reading]:
        readings: dict[Signal, Reading | None] = {}
        if window.landed.any():
            self._traffic.add(window)
            self._distance.add(window)
            if self._occupancy.is_possible:
                readings[Signal.OCCUPANCY] = self._occupancy.read()
            if self._imbalance.is_possible:
                readings[Signal.IMBALANCE] = self._imbalance.read()
            if self._distance.is_possible:
                readings[Signal.DISTANCE] = self._distance.read()
        if window.n_records:
            self._churn.add(window)
            readings[Signal.CHURN] = self._churn.read()
        self._shift.add(window)
        readings[Signal.SHIFT] = self._shift.read()
        return {signal: reading for signal in Signal if (reading := readings.get(signal))}

    def _judged(self, signal: Signal, reading: Reading) -> list[Alarm]:
        raised, least = self._raised[signal], self.policy.min_effect
        begins = (reading.statistics > reading.thresholds) & (reading.effects >= least) & ~raised
        is_quiet = (reading.statistics < reading.quiet) | (reading.effects < least / 2.0)
        ends = raised & is_quiet & (self.n_windows >= MIN_WINDOWS_TO_CLEAR)
        raised ^= begins | ends
        return [
            self._alarm(signal, reading, place, is_raised=bool(begins[place]))
            for place in np.flatnonzero(begins | ends).tolist()
        ]

    def _alarm(self, signal: Signal, reading: Reading, place: int, *, is_raised: bool) -> Alarm:
        label = self._label(signal, place)
        named: tuple[int, ...] = ()
        if is_raised and label is None and reading.evidence is not None:
            named = most(reading.evidence())
        elif is_raised and label is not None:
            named = (label,)
        return Alarm(
            signal=signal,
            label=label,
            state="raised" if is_raised else "cleared",
            statistic=float(reading.statistics[place]),
            threshold=float(reading.thresholds[place]),
            effect=float(reading.effects[place]),
            labels=named,
        )


def most(evidence: Floats) -> tuple[int, ...]:
    """Labels that the change is seen in by themselves, at most `MAX_NAMED`, the clearest first.

    A change that is spread so wide that it is seen in none of them names the clearest.

    Parameters
    ----------
    evidence : (K,)
        Chi-square of one degree of freedom where nothing has changed.
    """
    order = np.argsort(-evidence, kind="stable")[:MAX_NAMED]
    is_clear = evidence[order] > evidence_level(MISNAMED / len(evidence))
    is_clear[0] = evidence[order[0]] > 0.0
    return tuple(order[is_clear].tolist())
