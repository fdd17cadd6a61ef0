"""Hours at 70 % of the peak, with churn: does memory, latency or anything else creep up?

The peak is found first: a backlog of the same mixture, and how fast it is committed. Then records
come at 70 % of that: of every hundred 80 changes of an item by a real edit, 12 moves to another
item's place, 5 tombstones (the item comes back later), 3 dead letters; and a forced recluster
every --recluster-s. Every --every-s a sample: resident memory, threads and file descriptors of
assigner and reclusterer, lag, and the latency of items that go back and forth between two clusters,
from when a record was due to its event as an outside reader at read_committed sees it.

Verdict, after --warm-minutes and the first recluster, whose fit sizes what every later one uses
again: memory grows by less than 1 MB a minute (slope and 95 % interval by
Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968; an interval that holds
slopes on both sides says that the run was too short to tell), threads and
descriptors end where they began, the last third's median latency is at most 1.5 times the first
third's, and `eddy verify` holds. Topics are compacted or cut as it goes, so that no disk fills.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import theilslopes

from benchmarks._living import (
    SERVICES,
    Living,
    Stopwatch,
    add_options,
    figures_ms,
    opened,
    sender,
)
from benchmarks._stage import describe, end_on_sigterm, machine, write_results
from benchmarks._workload import input_record, item_key
from pipeline.messages.records import Outgoing
from pipeline.messages.vectors import encode_vector
from pipeline.streams.broker import start_broker

SHARE = 0.70
MAX_SLOPE = 1.0
"""MB a minute."""
MAX_SLOWER = 1.5
PROBES_PER_S = 20
N_PROBES = 8
POOL = 20_000
"""Records made beforehand, sent again and again."""
DISK = {
    "*": {"segment.bytes": "16777216", "segment.ms": "60000"},
    "changes-in": {"min.compaction.lag.ms": "0", "min.cleanable.dirty.ratio": "0.3"},
    "living.cluster-assignments": {"min.cleanable.dirty.ratio": "0.3"},
    "living.cluster-changes": {"retention.bytes": "33554432"},
    "changes-in.dlq": {"retention.bytes": "33554432"},
}
CLEANING = {"log.cleaner.backoff.ms": "2000", "log.retention.check.interval.ms": "5000"}


def mixture(living: Living) -> list[Outgoing]:
    """`POOL` records of all kinds, the probes' items not among them."""
    rng, n, topic = np.random.default_rng(6), living.n_partitions, living.topics.input
    workload, records = living.workload, []
    (chosen, moved), *_ = workload.updates(POOL)
    kinds = rng.choice(4, len(chosen), p=[0.80, 0.12, 0.05, 0.03])
    others = rng.integers(len(workload.items), size=len(chosen))
    rows = zip(chosen.tolist(), moved, kinds.tolist(), others.tolist(), strict=True)
    for item, vector, kind, other in rows:
        if kind < 2:
            records.append(
                input_record(topic, n, item, vector if kind == 0 else workload.items[other])
            )
        else:
            value = None if kind == 2 else b"no vector"
            records.append(Outgoing(topic, item % n, item_key(item), value))
    return records


class Load:
    """The mixture at a rate, and the probes among it."""

    def __init__(self, living: Living, watch: Stopwatch, records: list[Outgoing]) -> None:
        self.n_sent = 0
        self._records, self._watch = records, watch
        self._producer = sender(living)
        items, n = living.workload.items, living.n_partitions
        far = int(((items - items[0]) ** 2).sum(axis=1).argmax())
        self._ends = [encode_vector(items[0]), encode_vector(items[far])]
        self._probes = [
            (living.topics.input, k % n, b"probe-%d" % k) for k in range(N_PROBES)
        ]  # fmt: skip
        self._n_probes = 0

    def burst(self, n: int) -> None:
        """So many as fast as can be."""
        for _ in range(n):
            self._send_next()
        self._producer.flush(60.0)

    def run(self, rate: float, seconds: float) -> None:
        """Records at a rate for a time, in steps of a few milliseconds."""
        began_at = time.perf_counter()
        n_due = n_probes_due = n = n_probes = 0
        while (past := time.perf_counter() - began_at) < seconds:
            n_due, n_probes_due = int(past * rate), int(past * PROBES_PER_S)
            while n < n_due:
                self._send_next()
                n += 1
            while n_probes < n_probes_due:
                n_probes += 1
                self._send_probe(began_at + n_probes / PROBES_PER_S)
            self._producer.poll(0)
            time.sleep(0.003)
        self._producer.flush(60.0)  # else the last ones go with the producer

    def _send_next(self) -> None:
        record = self._records[self.n_sent % len(self._records)]
        self.n_sent += 1
        self._produce(record.topic, record.value, record.key, record.partition)

    def _send_probe(self, due: float) -> None:
        number, self._n_probes = self._n_probes, self._n_probes + 1
        topic, partition, key = self._probes[number % N_PROBES]
        value = self._ends[number // N_PROBES % 2]
        self._produce(topic, value, key, partition, on_delivery=self._watch.sent(due))

    def _produce(self, *what: Any, **named: Any) -> None:
        while True:
            try:
                self._producer.produce(*what, **named)
                return
            except BufferError:
                self._producer.poll(0.05)

    @property
    def probe_keys(self) -> frozenset[bytes]:
        return frozenset(key for _, _, key in self._probes)


def peak_rate(living: Living, load: Load, n: int) -> float:
    """Records per second of a backlog of ``n``."""
    load.burst(n // 4)  # sizes the buffers, and compiles what was not yet
    living.wait_through()
    began_at = time.monotonic()
    load.burst(n)
    return n / (living.wait_through() - began_at)


def soak(living: Living, options: argparse.Namespace) -> dict[str, Any]:
    """Find the peak, keep it up, and say what crept."""
    watch = Stopwatch(living, frozenset(b"probe-%d" % k for k in range(N_PROBES)))
    watch.start()
    load = Load(living, watch, mixture(living))
    peak = peak_rate(living, load, options.backlog)
    rate = min(SHARE * peak, options.max_rate)
    print(f"peak {peak:,.0f} records/s; soaking at {rate:,.0f}", flush=True)
    samples, began_at = [], time.monotonic()
    reclustered_at = began_at
    answers: list[Future[Any]] = []
    with ThreadPoolExecutor(1) as beside:
        while (past_s := time.monotonic() - began_at) < 60.0 * options.minutes:
            load.run(rate, options.every_s)
            sample = {"minute": past_s / 60.0, "lag": living.lag(), **figures_ms(watch.take())}
            sample["reclusters"] = sum(answer.done() for answer in answers)
            sample |= {
                f"{name} {what}": value
                for name, found in living.footprint().items()
                for what, value in found.items()
            }
            samples.append(sample)
            if len(samples) % 12 == 1:
                tell(sample)
            if time.monotonic() - reclustered_at > options.recluster_s:
                reclustered_at = time.monotonic()
                answers.append(beside.submit(living.eddy, "recluster", "--force", "--wait"))
    living.wait_through()
    watch.end()
    return judged(samples, options) | {
        "minutes": options.minutes, "peak_per_s": peak, "rate_per_s": rate,
        "records": load.n_sent, "reclusters": n_good(answers), "verified": living.verify()["holds"],
        "samples": samples,
    }  # fmt: skip


def n_good(answers: list[Future[Any]]) -> int:
    return sum(answer.result().returncode == 0 for answer in answers)


def tell(sample: dict[str, Any]) -> None:
    """One sample for people."""
    print(
        f"  {sample['minute']:5.1f} min  p50 {sample.get('p50', float('nan')):.1f} p99 "
        f"{sample.get('p99', float('nan')):.1f} ms  lag {sample['lag']}  "
        + "  ".join(f"{name} {sample[f'{name} rss_mb']:.0f} MB" for name in SERVICES),
        flush=True,
    )


def judged(samples: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Slopes, growth and latencies after the warm-up, and whether each keeps its promise."""
    kept = [
        one for one in samples if one["minute"] >= options.warm_minutes and one["reclusters"] > 0
    ]
    if len(kept) < 6:
        raise SystemExit(
            "too few samples after the warm-up: --minutes, --warm-minutes, --recluster-s, --every-s"
        )
    minutes = np.array([one["minute"] for one in kept])
    third = len(kept) // 3
    found: dict[str, Any] = {}
    for name in SERVICES:
        rss = np.array([one[f"{name} rss_mb"] for one in kept])
        slope, _, low, high = theilslopes(rss, minutes, 0.95)
        growth = {
            what: float(np.median([one[f"{name} {what}"] for one in kept[-third:]]))
            - float(np.median([one[f"{name} {what}"] for one in kept[:third]]))
            for what in ("threads", "descriptors")
        }
        found[name] = {
            "rss_mb": float(np.median(rss)), "slope_mb_per_min": float(slope),
            "slope_low": float(low), "slope_high": float(high), **growth,
            "is_flat": bool(slope < MAX_SLOPE and max(growth.values()) <= 0),
            "is_certain": not low < MAX_SLOPE <= high,
        }  # fmt: skip
    for share in ("p50", "p99"):
        each = [one[share] for one in kept if share in one]
        third = max(1, len(each) // 3)
        first, last = float(np.median(each[:third])), float(np.median(each[-third:]))
        found[share] = {"first_ms": first, "last_ms": last, "is_flat": last <= MAX_SLOWER * first}
    found["max_lag"] = max((one["lag"] for one in kept if one["lag"] is not None), default=0)
    return found


def show(found: dict[str, Any]) -> bool:
    """The verdict for people; whether every promise was kept."""
    print(f"\n{found['minutes']:g} minutes at {found['rate_per_s']:,.0f} records/s")
    for name in SERVICES:
        one = found[name]
        verdict = "flat" if one["is_flat"] else "GROWS"
        if not one["is_certain"]:
            verdict += ", as far as so short a run can tell"
        print(
            f"  {name:<12} {one['rss_mb']:.0f} MB, {one['slope_mb_per_min']:+.2f} MB/min "
            f"({one['slope_low']:+.2f} .. {one['slope_high']:+.2f}), "
            f"threads {one['threads']:+.0f}, descriptors {one['descriptors']:+.0f}: {verdict}"
        )
    for share in ("p50", "p99"):
        one = found[share]
        verdict = "flat" if one["is_flat"] else "GROWS"
        print(f"  {share:<12} {one['first_ms']:.1f} -> {one['last_ms']:.1f} ms: {verdict}")
    print(f"  lag at most {found['max_lag']}, {found['reclusters']} reclusters", end="")
    print(", verified" if found["verified"] else ", verify FAILED")
    flat = all(found[name]["is_flat"] for name in (*SERVICES, "p50"))
    return flat and bool(found["verified"])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--warm-minutes", type=float, default=5.0, help="not judged")
    parser.add_argument("--every-s", type=float, default=5.0, help="between two samples")
    parser.add_argument("--recluster-s", type=float, default=120.0)
    parser.add_argument("--backlog", type=int, default=100_000, help="for the peak")
    parser.add_argument("--max-rate", type=float, default=1e9, help="records per second at most")
    add_options(parser)
    options = parser.parse_args()

    end_on_sigterm()
    about = machine()
    print(describe(about), flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        start_broker(None, heap=options.heap, extra=CLEANING) as broker,
    ):
        living = opened(options, broker, Path(folder), topic_config=DISK)
        try:
            living.wait_through()
            found = soak(living, options)
        finally:
            living.close()
    is_good = show(found)
    if not options.no_write:
        print(f"\nwritten to {write_results('soak', {str(options.dims): found}, about)}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
