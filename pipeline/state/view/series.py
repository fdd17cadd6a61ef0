"""What clusters gained and lost, minute by minute and hour by hour, and who went where.

Two bounded rings of counters: 120 minutes and 168 hours, 2.3 KB a cluster; and the flows between
clusters, at most `MAX_FLOWS` pairs a bucket. Time is that of the records, so replicas agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.state.view.items import ClusterNames

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
N_MINUTES: Final = 120
N_HOURS: Final = 168
MAX_FLOWS: Final = 1000
WINDOWS_MS: Final = {"5m": 5 * MINUTE_MS, "1h": HOUR_MS, "24h": 24 * HOUR_MS}


@dataclass(frozen=True, slots=True)
class Flow:
    """How many items went from one cluster to another."""

    source: str
    target: str
    count: int


class Trend(NamedTuple):
    """What a window brought, by number of the cluster."""

    gained: NDArray[np.int64]
    lost: NDArray[np.int64]
    expected_gain: NDArray[np.float64]
    """What the past before the window would have brought in as long a time."""
    sparkline: NDArray[np.int64]
    """(n_clusters, n_buckets) gained - lost, the oldest first."""


class Ring:
    """Buckets of equal length; the newest replaces the oldest."""

    def __init__(self, bucket_ms: int, n_buckets: int) -> None:
        self.bucket_ms, self.n_buckets = bucket_ms, n_buckets
        self.counts = np.zeros((64, 2, n_buckets), np.int32)  # cluster, (gained, lost), slot
        self.flows: list[Counter[tuple[int, int]]] = [Counter() for _ in range(n_buckets)]
        self.newest = -1
        """The number of the newest bucket; times since 1970 in its unit."""
        self.oldest = -1
        """Of the first bucket that anything was counted in."""

    def add(self, time_ms: int, source: int, target: int) -> None:
        """Count one step; what is older than the ring is not counted."""
        bucket = time_ms // self.bucket_ms
        if bucket > self.newest:
            self._advance(bucket)
        if bucket <= self.newest - self.n_buckets:
            return
        self.oldest = bucket if self.oldest < 0 else min(self.oldest, bucket)
        slot, most = bucket % self.n_buckets, max(source, target)
        if most >= len(self.counts):
            more = np.zeros((max(most + 1, 2 * len(self.counts)) - len(self.counts), 2,
                             self.n_buckets), np.int32)  # fmt: skip
            self.counts = np.concatenate((self.counts, more))
        self.counts[target, 0, slot] += 1
        self.counts[source, 1, slot] += 1
        if source and target and source != target:
            flows = self.flows[slot]
            if len(flows) < MAX_FLOWS or (source, target) in flows:
                flows[source, target] += 1

    def between(
        self, start_ms: int, stop_ms: int, clusters: slice = slice(None)
    ) -> tuple[NDArray[np.int64], list[int]]:
        """(n_clusters, 2, n) counts of the buckets that begin in the span, and when they begin.

        ``clusters``: of these numbers alone, as far as anything was counted for them.
        """
        first = max(-(-start_ms // self.bucket_ms), self.newest - self.n_buckets + 1, 0)
        last = -(-stop_ms // self.bucket_ms)
        if self.newest < 0:  # nothing was ever counted: not all minutes since 1970
            first = max(first, last - self.n_buckets)
        buckets = np.arange(first, max(first, last), dtype=np.int64)
        counts = self.counts[clusters][:, :, buckets % self.n_buckets].astype(np.int64)
        counts[:, :, buckets > self.newest] = 0  # nothing was counted yet, nor cleared
        return counts, (buckets * self.bucket_ms).tolist()

    def flows_between(self, start_ms: int, stop_ms: int) -> Counter[tuple[int, int]]:
        """Steps by (source, target) in the buckets that begin in the span."""
        first = max(-(-start_ms // self.bucket_ms), self.newest - self.n_buckets + 1, 0)
        total: Counter[tuple[int, int]] = Counter()
        for bucket in range(first, min(-(-stop_ms // self.bucket_ms), self.newest + 1)):
            total.update(self.flows[bucket % self.n_buckets])
        return total

    def parts(self) -> dict[str, Any]:
        """All of it, copied."""
        flows = [
            (slot, *ends, count)
            for slot, found in enumerate(self.flows)
            for ends, count in found.items()
        ]
        return {
            "counts": self.counts.copy(),
            "flows": np.array(flows, np.int64).reshape(-1, 4),
            "newest": self.newest,
            "oldest": self.oldest,
        }

    def resume(self, parts: Mapping[str, Any]) -> None:
        """Become what `parts` told."""
        counts = parts["counts"]
        if counts.shape[1:] != self.counts.shape[1:]:
            raise ValueError(f"a ring of {counts.shape} counters")
        self.counts = counts.astype(np.int32)
        for slot, source, target, count in parts["flows"].tolist():
            self.flows[slot][source, target] = count
        self.newest, self.oldest = parts["newest"], parts["oldest"]

    def _advance(self, bucket: int) -> None:
        first = max(self.newest + 1, bucket - self.n_buckets + 1)
        for passed in range(first, bucket + 1):
            slot = passed % self.n_buckets
            self.counts[:, :, slot] = 0
            self.flows[slot] = Counter()
        self.newest = bucket


class Series:
    """Both rings."""

    def __init__(self) -> None:
        self.minutes = Ring(MINUTE_MS, N_MINUTES)
        self.hours = Ring(HOUR_MS, N_HOURS)

    def add(self, time_ms: int, source: int, target: int) -> None:
        """Count one step of an item; `NOWHERE` for none."""
        self.minutes.add(time_ms, source, target)
        self.hours.add(time_ms, source, target)

    @property
    def state_bytes(self) -> int:
        """What the counters take."""
        return int(self.minutes.counts.nbytes + self.hours.counts.nbytes)

    def trend(self, window: str, now_ms: int, n_clusters: int) -> Trend:
        """The last window, the present bucket included, beside what went before it.

        Parameters
        ----------
        window
            A key of `WINDOWS_MS`.
        """
        span_ms = WINDOWS_MS[window]
        ring = self._ring(span_ms)
        stop_ms = (now_ms // ring.bucket_ms + 1) * ring.bucket_ms
        inside, _ = ring.between(stop_ms - span_ms, stop_ms, slice(n_clusters))
        before, starts = ring.between(0, stop_ms - span_ms, slice(n_clusters))
        n_known = max(0, min(len(starts), (stop_ms - span_ms) // ring.bucket_ms - ring.oldest))
        per_window = (span_ms // ring.bucket_ms) / n_known if ring.oldest >= 0 and n_known else 0.0
        inside, before = _rows(inside, n_clusters), _rows(before, n_clusters)
        return Trend(
            gained=inside[:, 0].sum(axis=1),
            lost=inside[:, 1].sum(axis=1),
            expected_gain=before[:, 0].sum(axis=1) * per_window,
            sparkline=inside[:, 0] - inside[:, 1],
        )

    def moved(self, window: str, now_ms: int, n_clusters: int) -> NDArray[np.int64]:
        """(n_clusters, 2) what each gained and lost within the last window, by number."""
        span_ms = WINDOWS_MS[window]
        ring = self._ring(span_ms)
        stop_ms = (now_ms // ring.bucket_ms + 1) * ring.bucket_ms
        inside, _ = ring.between(stop_ms - span_ms, stop_ms, slice(n_clusters))
        found: NDArray[np.int64] = _rows(inside, n_clusters).sum(axis=2)
        return found

    def flows(self, window: str, now_ms: int, limit: int, names: ClusterNames) -> list[Flow]:
        """The strongest flows of the last window, the strongest first; of equals by their names."""
        span_ms = WINDOWS_MS[window]
        ring = self._ring(span_ms)
        stop_ms = (now_ms // ring.bucket_ms + 1) * ring.bucket_ms
        total = ring.flows_between(stop_ms - span_ms, stop_ms)
        found = [
            Flow(names.id(source) or "", names.id(target) or "", count)
            for (source, target), count in total.items()
        ]
        return sorted(found, key=lambda flow: (-flow.count, flow.source, flow.target))[:limit]

    def steps(
        self, number: int, start_ms: int, stop_ms: int
    ) -> tuple[int, list[tuple[int, int, int]]]:
        """The bucket's length, and (begin, gained, lost) of a cluster in a span, oldest first.

        Minutes as far back as they reach, else hours.
        """
        reach_ms = (self.minutes.newest - N_MINUTES + 1) * MINUTE_MS
        ring = self.minutes if start_ms >= reach_ms else self.hours
        counts, starts = ring.between(start_ms, stop_ms, slice(number, number + 1))
        gained, lost = _rows(counts, 1)[0].tolist()
        return ring.bucket_ms, list(zip(starts, gained, lost, strict=True))

    def _ring(self, span_ms: int) -> Ring:
        return self.minutes if span_ms <= HOUR_MS else self.hours


def surprise(gained: NDArray[np.int64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """How unlike its own past a count is, in standard deviations of a Poisson count.

    The transformation ``2 sqrt(x + 3/8)`` gives such counts a variance near 1, small ones too, so a
    gain of 3 where none was expected scores 2.5, not infinity ("The transformation of Poisson,
    binomial and negative-binomial data", 1948).
    """
    scores: NDArray[np.float64] = 2.0 * (np.sqrt(gained + 0.375) - np.sqrt(expected + 0.375))
    return scores


def _rows(counts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The first ``n`` clusters; those that nobody counted for have zeros."""
    if len(counts) >= n:
        return counts[:n]
    return np.concatenate((counts, np.zeros((n - len(counts), *counts.shape[1:]), np.int64)))
