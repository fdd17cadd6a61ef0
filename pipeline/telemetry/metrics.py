"""The instruments of a process; the only module that knows prometheus_client.

A name, label or label value that is not in the catalogue is an ``AssertionError``. A
partition's series go when the partition goes.

Instruments are bound once, at the start of a service, and advanced once per micro-batch.
A counter with a closed set of labels is 0 from the start, since a rate cannot see a
series being born at 1. A gauge nobody has set yet is left out: 0 would be a lie, and a
timestamp of 0 an alert.
"""

from __future__ import annotations

import itertools
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from pipeline.telemetry.catalogue import CATALOGUE
from pipeline.telemetry.kinds import MAX_CODES, Kind, Metric, Open, Service

_Values = tuple[str, ...]


@dataclass(slots=True, eq=False)
class Counter:
    """Only grows."""

    _lock: threading.Lock
    value: float = 0.0

    def inc(self, n: float = 1.0) -> None:
        """Add ``n`` >= 0."""
        assert n >= 0, "a counter does not go back"
        with self._lock:
            self.value += n


@dataclass(slots=True, eq=False)
class Gauge:
    """The last value that was set; none, and it is not exported."""

    value: float | None = None

    def set(self, value: float) -> None:
        self.value = float(value)

    def clear(self) -> None:
        """There is nothing any more that it could tell of."""
        self.value = None


@dataclass(slots=True, eq=False)
class Histogram:
    """Observations by upper bound: one at a time, or a micro-batch at once."""

    _lock: threading.Lock
    bounds: tuple[float, ...]
    _bounds: NDArray[np.float64] = field(init=False)
    _cumulative: NDArray[np.int64] = field(init=False)  # (n_bounds + 1,): <= each bound, all
    _sum: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._bounds = np.array(self.bounds, np.float64)
        self._cumulative = np.zeros(len(self.bounds) + 1, np.int64)

    def observe(self, value: float) -> None:
        at = bisect_left(self.bounds, value)
        with self._lock:
            self._cumulative[at:] += 1
            self._sum += value

    def observe_many(self, values: NDArray[np.floating[Any]]) -> None:
        """Count each of (n,) values, none of them NaN; ``values`` is not modified.

        Sorting first and then looking up the few bounds among the many values costs a
        third of looking up every value among the bounds.
        """
        if not len(values):
            return
        below = np.searchsorted(np.sort(values), self._bounds, side="right")
        with self._lock:
            self._cumulative[:-1] += below
            self._cumulative[-1] += len(values)
            self._sum += float(values.sum(dtype=np.float64))

    def read(self) -> tuple[list[int], float]:
        """Counts up to each bound and of all, and the sum of the values."""
        with self._lock:
            return self._cumulative.tolist(), self._sum


@dataclass(slots=True)
class _Lag:
    records: int
    behind_since_s: float  # timestamp of the last committed record, or when lag was first seen


class Metrics(Collector):
    """The instruments of one process, and what ``/metrics`` answers.

    Any thread may advance an instrument; binding is for the thread that builds the service.

    Parameters
    ----------
    service
        Only its rows of the catalogue can be bound.
    version, revision
        Of the program, for ``eddy_build_info``.
    slo_freshness_s
        Up to this latency a record is fresh.
    thresholds
        Name -> value of ``eddy_threshold``.
    now
        Wall clock in seconds since 1970, asked when somebody scrapes.
    """

    def __init__(
        self,
        service: Service | str,
        *,
        version: str = "",
        revision: str = "",
        slo_freshness_s: float = 1.0,
        thresholds: Mapping[str, float] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.service = Service(service)
        self._now = now
        self._lock = threading.Lock()
        self._series: dict[str, dict[_Values, Counter | Gauge | Histogram]] = {}
        self._lags: dict[str, _Lag] = {}
        self._codes: set[str] = set()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

        for metric in CATALOGUE.values():
            if self.service not in metric.services:
                continue
            self._series[metric.name] = {}
            if metric.kind is Kind.COUNTER or (metric.kind is Kind.HISTOGRAM and not metric.labels):
                for labels in _every_combination(metric):
                    self._bind(metric.kind, metric.name, labels)
        self.gauge("eddy_build_info", version=version, revision=revision).set(1)
        for name, threshold in (thresholds or {}).items():
            self.gauge("eddy_threshold", name=name).set(threshold)
        if self.service is Service.ASSIGNER:
            self._slo_freshness_s = slo_freshness_s
            self._latency = self.histogram("eddy_end_to_end_latency_seconds")
            self._good = self.counter("eddy_slo_freshness_records_total", outcome="good")
            self._bad = self.counter("eddy_slo_freshness_records_total", outcome="bad")

    def counter(self, _name: str, /, **labels: object) -> Counter:
        """Bind a counter; what is not in the catalogue is an AssertionError."""
        instrument = self._bind(Kind.COUNTER, _name, labels)
        assert isinstance(instrument, Counter)
        return instrument

    def gauge(self, _name: str, /, **labels: object) -> Gauge:
        """Bind a gauge; what is not in the catalogue is an AssertionError."""
        instrument = self._bind(Kind.GAUGE, _name, labels)
        assert isinstance(instrument, Gauge)
        return instrument

    def histogram(self, _name: str, /, **labels: object) -> Histogram:
        """Bind a histogram; what is not in the catalogue is an AssertionError."""
        instrument = self._bind(Kind.HISTOGRAM, _name, labels)
        assert isinstance(instrument, Histogram)
        return instrument

    def kafka_error(self, code: str) -> None:
        """Count an error by librdkafka's name for it; after 32 names the rest is ``other``."""
        if code not in self._codes:
            if len(self._codes) >= MAX_CODES:
                code = "other"
            else:
                self._codes.add(code)
        self.counter("eddy_kafka_errors_total", code=code).inc()

    def log_event(self, level: str) -> None:
        """Count one log line: the hook for `pipeline.telemetry.logs.configure`."""
        self.counter("eddy_log_events_total", level=level).inc()

    def committed(self, latencies_s: NDArray[np.floating[Any]]) -> None:
        """Count the end-to-end latencies of a micro-batch that is now readable.

        Parameters
        ----------
        latencies_s
            (n,) commit minus record timestamp, of the records that have one; below 0 where a
            producer's clock is ahead, which counts as 0.
        """
        latencies_s = np.maximum(latencies_s, 0.0)
        self._latency.observe_many(latencies_s)
        n_good = int(np.count_nonzero(latencies_s <= self._slo_freshness_s))
        self._good.inc(n_good)
        self._bad.inc(len(latencies_s) - n_good)

    def lag(self, partition: int, records: int, committed_timestamp_s: float | None) -> None:
        """Say how far behind a partition is; its lag in seconds is then computed at every scrape.

        Parameters
        ----------
        records
            Behind the end of the log.
        committed_timestamp_s
            Of the last committed record; None while there is none, and the lag's age is then
            counted from the first report that had some.
        """
        assert self.service is Service.ASSIGNER
        key = str(int(partition))
        with self._lock:
            before = self._lags.get(key)
            if committed_timestamp_s is None:
                waits = before is not None and before.records > 0 and records > 0
                since = before.behind_since_s if before and waits else self._now()
            else:
                since = committed_timestamp_s
            self._lags[key] = _Lag(records, since)

    def forget_partition(self, partition: int) -> None:
        """Drop every series of a partition: it belongs to somebody else now."""
        key = str(int(partition))
        with self._lock:
            self._lags.pop(key, None)
            for name, series in self._series.items():
                labels = tuple(CATALOGUE[name].labels)
                if "partition" in labels:
                    series.pop((key,), None)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """All series as text, and its content type, in the form that ``accept`` asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Family]:
        """Called by the registry at every scrape."""
        lags = self._read_lags()
        for name, series in self._series.items():
            metric = CATALOGUE[name]
            names = tuple(metric.labels)
            with self._lock:  # a bind may come from another thread
                instruments = list(series.items())
            if metric.kind is Kind.COUNTER:
                counters = CounterMetricFamily(name, metric.help, labels=names)
                for values, counter in instruments:
                    assert isinstance(counter, Counter)
                    counters.add_metric(values, counter.value)
                yield from (counters,) * bool(counters.samples)
            elif metric.kind is Kind.GAUGE:
                gauges = GaugeMetricFamily(name, metric.help, labels=names)
                for values, gauge in instruments:
                    assert isinstance(gauge, Gauge)
                    if gauge.value is not None:
                        gauges.add_metric(values, gauge.value)
                for partition, value in lags.get(name, ()):
                    gauges.add_metric((partition,), value)
                yield gauges
            else:
                histograms = HistogramMetricFamily(name, metric.help, labels=names)
                bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
                for values, histogram in instruments:
                    assert isinstance(histogram, Histogram)
                    counts, total = histogram.read()
                    pairs = list(zip(bounds, map(float, counts), strict=True))
                    histograms.add_metric(values, pairs, total)
                yield histograms

    def _read_lags(self) -> dict[str, list[tuple[str, float]]]:
        now = self._now()
        with self._lock:
            lags = sorted(self._lags.items(), key=lambda item: int(item[0]))
        return {
            "eddy_consumer_lag_records": [(p, float(lag.records)) for p, lag in lags],
            "eddy_consumer_lag_seconds": [
                (p, max(0.0, now - lag.behind_since_s) if lag.records else 0.0) for p, lag in lags
            ],
        }

    def _bind(
        self, kind: Kind, name: str, labels: Mapping[str, object]
    ) -> Counter | Gauge | Histogram:
        metric = CATALOGUE.get(name)
        assert metric is not None, f"the metric {name} is not in the catalogue"
        assert metric.kind is kind, f"{name} is a {metric.kind}, not a {kind}"
        assert self.service in metric.services, f"{name} is no metric of the {self.service}"
        assert labels.keys() == metric.labels.keys(), (
            f"{name} has the labels {sorted(metric.labels)}, not {sorted(labels)}"
        )
        values = tuple(str(labels[label]) for label in metric.labels)
        for value, (label, allowed) in zip(values, metric.labels.items(), strict=True):
            if allowed is Open.PARTITION:
                assert value.isdecimal(), f"{value!r} is no partition"
            elif not isinstance(allowed, Open):
                assert value in allowed, f"{label}={value!r} is no value of {name}"
        series = self._series[name]
        with self._lock:
            instrument = series.get(values)
            if instrument is None:
                instrument = series[values] = self._new(metric)
        return instrument

    def _new(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.kind is Kind.COUNTER:
            return Counter(threading.Lock())
        if metric.kind is Kind.GAUGE:
            return Gauge()
        return Histogram(threading.Lock(), metric.buckets)


def _every_combination(metric: Metric) -> Iterable[dict[str, str]]:
    """Of the values of its labels; none if one of them is open."""
    closed = [values for values in metric.labels.values() if not isinstance(values, Open)]
    if len(closed) < len(metric.labels):
        return
    for values in itertools.product(*closed):
        yield dict(zip(metric.labels, values, strict=True))
