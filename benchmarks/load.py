"""The two named loads on real processes: a day's trickle with bursts, and a spike of a thousand.

trickle
    10 000 records a day for an hour: 417 records, half of them in bursts of 20 at once.
spike
    1 000 records in five minutes beside steady traffic of one record a second.

Both are accelerated: an hour, or five minutes with a minute before and after, take --seconds; the
factor is told. A record is timed from when it was due to its event, as an outside reader at
read_committed sees it. It counts as lost if ``eddy verify`` does not find it applied.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._living import Living, Stopwatch, add_options, figures_ms, opened, sender
from benchmarks._stage import describe, end_on_sigterm, machine, write_results
from benchmarks._workload import input_record
from pipeline.streams.broker import start_broker

A_DAY_S, AN_HOUR_S, MINUTE_S = 86_400.0, 3_600.0, 60.0
BURST = 20
LAST_WORDS_S = 10.0


def trickle(rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """(n,) when each record is due, in seconds of an hour, ascending; and how long that is."""
    n = round(10_000 * AN_HOUR_S / A_DAY_S)
    n_bursts = n // 2 // BURST
    bursts = np.repeat(rng.uniform(0.0, AN_HOUR_S, n_bursts), BURST)
    single = rng.uniform(0.0, AN_HOUR_S, n - len(bursts))
    return np.sort(np.concatenate([bursts, single])), AN_HOUR_S


def spike(rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """As `trickle`: the spike begins after the first of seven minutes."""
    whole_s = 7 * MINUTE_S
    steady = np.arange(0.0, whole_s, 1.0)
    added = rng.uniform(MINUTE_S, 6 * MINUTE_S, 1000)
    return np.sort(np.concatenate([steady, added])), whole_s


LOADS = {"trickle": trickle, "spike": spike}


def run(living: Living, name: str, seconds: float) -> dict[str, Any]:
    """One load; what it felt like, and what it took."""
    rng = np.random.default_rng(5)
    due, whole_s = LOADS[name](rng)
    factor = whole_s / seconds
    items, n = living.workload.items, living.n_partitions
    # each time another's place, so that most of them change the cluster: only that makes an event
    records = [
        input_record(living.topics.input, n, int(i), items[j])
        for i, j in zip(*rng.integers(len(items), size=(2, len(due))), strict=True)
    ]
    watch, producer = Stopwatch(living), sender(living)
    watch.start()
    peak: dict[str, float] = {}
    looked_at, began_at = 0.0, time.perf_counter() + 0.2
    for record, at in zip(records, began_at + due / factor, strict=True):
        while (left := at - time.perf_counter()) > 0:
            producer.poll(min(left, 0.05))
            if time.perf_counter() - looked_at > 1.0:
                looked_at = time.perf_counter()
                for service, found in living.footprint().items():
                    peak[service] = max(peak.get(service, 0.0), found["rss_mb"])
        producer.produce(
            record.topic, record.value, record.key, record.partition,
            on_delivery=watch.sent(float(at)),
        )  # fmt: skip
        producer.poll(0)
    producer.flush(LAST_WORDS_S)
    living.wait_through()
    time.sleep(0.5)
    waits = watch.take()
    watch.end()
    verified = living.verify()
    return {
        "records": len(due), "events": len(waits), "factor": factor,
        "records_per_s": len(due) / seconds, "seconds": seconds,
        "lost": watch.n_lost_reports if verified["holds"] else None,
        "latency_ms": figures_ms(waits), "peak_rss_mb": peak, "verified": verified["holds"],
    }  # fmt: skip


def show(name: str, found: dict[str, Any]) -> None:
    """The figures for people."""
    waits = "  ".join(f"{share} {value:.1f}" for share, value in found["latency_ms"].items())
    memory = "  ".join(f"{service} {mb:.0f}" for service, mb in found["peak_rss_mb"].items())
    lost = "verify FAILED" if found["lost"] is None else f"lost {found['lost']}"
    print(
        f"\n{name}: {found['records']} records in {found['seconds']:.0f} s (x{found['factor']:.0f}"
        f"), {found['events']} events, {lost}\n  ms: {waits}\n  MB: {memory}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load")
    add_options(parser)
    options = parser.parse_args()

    end_on_sigterm()
    about = machine()
    print(describe(about), flush=True)
    figures = {}
    with tempfile.TemporaryDirectory() as folder, start_broker(None, heap=options.heap) as broker:
        living = opened(options, broker, Path(folder))
        try:
            living.wait_through()
            for name in LOADS:
                figures[f"{name} {options.dims}"] = found = run(living, name, options.seconds)
                show(name, found)
        finally:
            living.close()
    if not options.no_write:
        print(f"\nwritten to {write_results('load', figures, about)}")
    return 0 if all(found["lost"] == 0 for found in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
