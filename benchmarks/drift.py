"""How often drift alarms without a change, and how soon with one: ``drift.py FOLDER`` (full set).

**Without a change**: records land where real vectors do under a k-means of them, drawn with
replacement. The mean number of windows to the first alarm stands beside the `arl0` asked for;
occupancy is to be within 15 % of it, every other signal at it or above. Beside it one item that
repeats itself: the stream that the rate does not promise anything about.

**With one**: from one Debian release to the next, and a section of packages that was withheld and
comes. Delay in windows, and the clusters named, beside ADWIN and Page-Hinkley of river (extra
`bench`) on the distance of each record. Their parameter is set so that on the shuffled stream
they alarm as often as Eddy's charts together; that rate is measured, not looked up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from river.drift import ADWIN, PageHinkley

from benchmarks._drift_runs import Runs, churn_runs, distance_runs, shares_runs
from benchmarks.debian_gap import load_full
from pipeline.cli.demo.debian import Packages
from pipeline.clustering.drift.monitor import DriftMonitor
from pipeline.clustering.drift.policy import DriftPolicy
from pipeline.clustering.drift.signals import Baseline, Signal, Window
from pipeline.clustering.kmeans import fit
from pipeline.clustering.profile import Profiles, profiles
from pipeline.kernels.cpu.twin import CpuKernels

KERNELS = CpuKernels()
WINDOW = 4096
CHANGE_WINDOW = 500  # a release brings some 10 000 records
QUIET_WINDOWS = 40  # before a change: the peers know nothing but what they have seen
MAX_DELAY = 200
MOST = 0.8  # of a change: the clusters that are named rightly
SECTIONS = ("games", "rust", "fonts", "science")


@dataclass(frozen=True)
class Fitted:
    """A model of what was live after a release, and where its members lie."""

    centroids: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    profiles: Profiles


def fitted(points: np.ndarray, n_clusters: int) -> Fitted:
    found = fit(points, n_clusters, kernels=KERNELS, seed=0, max_component=256.0, max_iterations=60)
    told = profiles(found.labels, found.distances_squared, n_clusters)
    return Fitted(found.centroids, found.labels, np.sqrt(found.distances_squared), told)


def land(model: Fitted, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and distances of records under a model."""
    found = KERNELS.assign(KERNELS.load(model.centroids), points)
    return found.labels, np.sqrt(found.distances_squared)


# --- without a change ------------------------------------------------------------------------


def rates(model: Fitted, options: argparse.Namespace, results: list[dict[str, Any]]) -> bool:
    """The table of run lengths; whether every one is what it is to be."""
    k, is_good = len(model.profiles.counts), True
    print(f"\nK = {k}: mean windows to a false alarm, and its ratio to what was asked for")

    def row(signal: str, window: int, arl0: int, runs: Runs, least: float, most: float) -> None:
        nonlocal is_good
        ratio, error = runs.mean / arl0, 1.0 / max(len(runs.lengths), 1) ** 0.5
        is_met = not len(runs.lengths) or (ratio + 2 * error >= least and ratio <= most)
        is_good &= is_met
        verdict = "" if is_met else "  MISSED"
        print(f"  {signal:<22} window {window:>5}  arl0 {arl0:>5}  {runs.row(arl0)}{verdict}")
        results.append(
            {"clusters": k, "signal": signal, "window": window, "arl0": arl0,
             "mean": runs.mean, "ratio": ratio, "alarms": len(runs.lengths)}
        )  # fmt: skip
        sys.stdout.flush()

    common: dict[str, Any] = {"n_runs": options.runs, "max_s": options.max_s, "seed": 1}
    for window in (WINDOW, CHANGE_WINDOW):
        for arl0 in options.arl0:
            for signal, least, most in (("occupancy", 0.85, 1.15), ("imbalance", 0.85, np.inf)):
                runs = shares_runs(model.profiles, signal, arl0=arl0, window=window, **common)
                row(signal, window, arl0, runs, least, most if window == WINDOW else np.inf)
    for is_known in (True, False):
        name = "distance, ν known" if is_known else "distance"
        runs = distance_runs(
            model.profiles, model.labels, model.distances, arl0=100, window=CHANGE_WINDOW,
            is_known=is_known, **(common | {"n_runs": 100}),
        )  # fmt: skip
        row(name, CHANGE_WINDOW, 100, runs, 0.85, np.inf)
    if k == options.clusters[0]:
        for p in (0.002, 0.05):
            runs = churn_runs(p, arl0=500, window=CHANGE_WINDOW, **common)
            row(f"churn of {p:.1%}", CHANGE_WINDOW, 500, runs, 0.85, np.inf)
    return is_good


def repeater(model: Fitted, results: list[dict[str, Any]]) -> None:
    """One item that makes up a part of the stream: the alarm it gives, and whom it names."""
    print("\none item repeats itself: windows of 4096 to an alarm of occupancy at arl0 2000")
    k, rng = len(model.profiles.counts), np.random.default_rng(2)
    for part in (0.0, 0.005, 0.02, 0.1):
        delays, named = [], []
        for _ in range(10):
            item = int(rng.integers(len(model.labels)))
            watching = DriftMonitor(
                DriftPolicy(arl0=2000), Baseline(model.profiles, len(model.labels))
            )
            for t in range(1, MAX_DELAY + 1):
                drawn = rng.integers(0, len(model.labels), WINDOW)
                drawn[rng.random(WINDOW) < part] = item
                window = windowed(model.labels[drawn], model.distances[drawn], k, 0)
                told = [a for a in watching.observe(window) if a.signal is Signal.OCCUPANCY]
                if told:
                    delays.append(t)
                    named.append(told[0].labels[:1] == (model.labels[item],))
                    break
        median = statistics.median(delays) if delays else None
        print(
            f"  {part:>5.1%} of the records, K {k:>3}: {len(delays)} of 10 alarm within {MAX_DELAY}"
            + (f", median {median:.0f}; its cluster named first {sum(named)}" if delays else "")
        )
        results.append({"clusters": k, "part": part, "alarms": len(delays), "median": median})


# --- with a change ---------------------------------------------------------------------------


def windowed(labels: np.ndarray, distances: np.ndarray, k: int, n_members: int) -> Window:
    return Window(
        landed=np.bincount(labels, minlength=k).astype(np.int64),
        distances=np.bincount(labels, distances, k),
        n_records=len(labels),
        n_reassigned=0,
        n_members=n_members,
    )


@dataclass
class Case:
    """A stream that changes: draws of members before, records of another kind after."""

    name: str
    model: Fitted
    after: tuple[np.ndarray, np.ndarray]
    n_new: int  # of the records after it, those of items that the fit has not seen
    expected: frozenset[int]
    """The clusters whose share grows most: they make up half of all growth."""
    is_once: bool = False
    """The records after the change come in their order, and round again; else drawn."""
    delays: dict[str, list[float]] = field(default_factory=dict)
    named: list[float] = field(default_factory=list)

    def records(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Windows before, then after the change."""
        labels, distances = self.model.labels, self.model.distances
        for _ in range(QUIET_WINDOWS):
            drawn = rng.integers(0, len(labels), CHANGE_WINDOW)
            yield labels[drawn], distances[drawn]
        labels, distances = self.after
        start = int(rng.integers(len(labels)))
        for t in range(MAX_DELAY):
            drawn = rng.integers(0, len(labels), CHANGE_WINDOW)
            if self.is_once:
                drawn = (start + t * CHANGE_WINDOW + np.arange(CHANGE_WINDOW)) % len(labels)
            yield labels[drawn], distances[drawn]


def changed(model: Fitted, labels: np.ndarray) -> frozenset[int]:
    """The clusters that make up most of Cohen's w² of a change: the fewest that do."""
    before = model.profiles.counts / len(model.labels)
    after = np.bincount(labels, minlength=len(before)) / len(labels)
    parts = (after - before) ** 2 / before
    order = np.argsort(-parts)
    n = int(np.searchsorted(np.cumsum(parts[order]), MOST * parts.sum())) + 1
    return frozenset(order[:n].tolist())


def monitored(case: Case, rng: np.random.Generator, arl0: int) -> None:
    """Delays of Eddy's charts on one stream; an alarm before the change is no detection."""
    k = len(case.model.profiles.counts)
    n_members = len(case.model.labels)
    policy = DriftPolicy(arl0=arl0, window=CHANGE_WINDOW)
    watching = DriftMonitor(policy, Baseline(case.model.profiles, n_members))
    first: dict[str, int] = {}
    stood: set[Signal] = set()
    for t, (labels, distances) in enumerate(case.records(rng)):
        delay = t + 1 - QUIET_WINDOWS
        if delay == 1:
            stood = {signal for signal, _ in watching.standing}
        if 0 < delay * CHANGE_WINDOW <= len(case.after[0]):
            n_members += round(case.n_new * CHANGE_WINDOW / len(case.after[0]))
        for alarm in watching.observe(windowed(labels, distances, k, n_members)):
            if delay > 0 and alarm.state == "raised" and alarm.signal not in first:
                first[alarm.signal] = delay
                if alarm.signal is Signal.OCCUPANCY:
                    hits = [label in case.expected for label in alarm.labels]
                    case.named.append(sum(hits) / len(hits))
        if {Signal.OCCUPANCY, Signal.DISTANCE} <= first.keys():
            break
    for name in {Signal.OCCUPANCY, Signal.DISTANCE} - stood:
        case.delays.setdefault(f"eddy {name}", []).append(first.get(name, np.inf))
    if not stood:  # a false alarm that stands when the change comes is no detection, nor a miss
        case.delays.setdefault("eddy, the first", []).append(min(first.values(), default=np.inf))


def peer_delay(case: Case, rng: np.random.Generator, detector: Any) -> float:
    """Windows after the change until a peer alarms; it starts again after each alarm."""
    for t, (_, distances) in enumerate(case.records(rng)):
        for i, distance in enumerate(distances.tolist()):
            detector.update(distance)
            if t >= QUIET_WINDOWS and detector.drift_detected:
                return t - QUIET_WINDOWS + (i + 1) / CHANGE_WINDOW
    return np.inf


def together(model: Fitted, arl0: int, n_windows: int) -> float:
    """Mean windows between the alarms of all charts of Eddy, on the shuffled stream."""
    k, rng, n_alarms = len(model.profiles.counts), np.random.default_rng(3), 0
    policy = DriftPolicy(arl0=arl0, window=CHANGE_WINDOW)
    watching = DriftMonitor(policy, Baseline(model.profiles, len(model.labels)))
    for _ in range(n_windows):
        drawn = rng.integers(0, len(model.labels), CHANGE_WINDOW)
        told = watching.observe(
            windowed(model.labels[drawn], model.distances[drawn], k, len(model.labels))
        )
        n_alarms += any(alarm.state == "raised" for alarm in told)
    return n_windows / max(n_alarms, 1)


def tuned(
    make: Callable[[float], Any], low: float, high: float, stream: list[float], records: float
) -> tuple[Any, float]:
    """A peer's parameter, on a logarithmic scale, whose mean run is the one asked for."""

    def mean_run(value: float) -> float:
        detector, n = make(value), 0
        for x in stream:
            detector.update(x)
            n += detector.drift_detected
        return len(stream) / max(n, 1)

    for _ in range(10):
        middle = float(np.sqrt(low * high))
        run = mean_run(middle)
        if abs(run / records - 1) < 0.05:
            break
        low, high = (middle, high) if run < records else (low, middle)
    return (lambda: make(middle)), run / CHANGE_WINDOW


def detections(model: Fitted, cases: list[Case], options: argparse.Namespace) -> list[Any]:
    arl0, k = 200, len(model.profiles.counts)
    run = together(model, arl0, options.tuning_windows)
    drawn = np.random.default_rng(4).integers(
        0, len(model.labels), CHANGE_WINDOW * options.tuning_windows
    )
    stream = model.distances[drawn].tolist()
    # a smaller delta of ADWIN is a longer run, so its scale is turned round
    adwin, adwin_run = tuned(
        lambda x: ADWIN(delta=1.0 / x), 1.0001, 1e12, stream, run * CHANGE_WINDOW
    )
    page, page_run = tuned(
        lambda x: PageHinkley(threshold=x, mode="up"), 0.05, 500.0, stream, run * CHANGE_WINDOW
    )
    print(
        f"\nK = {k}, windows of {CHANGE_WINDOW}: delay in windows; mean run without a change: "
        f"Eddy's charts together {run:.0f}, ADWIN {adwin_run:.0f}, Page-Hinkley {page_run:.0f}"
    )
    rows = []
    for case in cases:
        for seed in range(options.repeats):
            monitored(case, np.random.default_rng(seed), arl0)
            for name, make in (("ADWIN", adwin), ("Page-Hinkley", page)):
                found = peer_delay(case, np.random.default_rng(seed), make())
                case.delays.setdefault(name, []).append(found)
        delays = sorted(case.delays.items(), key=lambda item: item[0].lower())
        medians = {name: float(np.median(found)) for name, found in delays}
        missed = {name: int(np.isinf(found).sum()) for name, found in delays}
        told = "; ".join(
            f"{name} {median:.1f}" + (f" (missed {missed[name]})" if missed[name] else "")
            for name, median in medians.items()
        )
        right = f"{np.mean(case.named):.0%}" if case.named else "none"
        print(f"  {case.name:<24} {told}; named rightly: {right}", flush=True)
        rows.append({"clusters": k, "case": case.name, "medians": medians, "missed": missed,
                     "named_right": right})  # fmt: skip
    return rows


# --- the data --------------------------------------------------------------------------------


def states(packages: Packages) -> Iterator[tuple[str, dict[str, tuple[int, str]], list[Any]]]:
    """After each release what is live, package -> (row, section); and its records, no deletes."""
    live: dict[str, tuple[int, str]] = {}
    for release, changes in packages.releases():
        records = [
            (change.row, change.package not in live) for change in changes if change.row >= 0
        ]
        for change in changes:
            if change.row < 0:
                live.pop(change.package, None)
            else:
                live[change.package] = (change.row, change.section)
        yield release, dict(live), records


def rows_of(live: dict[str, tuple[int, str]]) -> np.ndarray:
    return np.array([row for row, _ in live.values()])


def cases_of(packages: Packages, k: int, options: argparse.Namespace) -> list[Case]:
    found, vectors = [], packages.vectors
    steps = list(states(packages))[: 2 if options.quick else None]
    for (_, live, _), (release, _, records) in itertools.pairwise(steps):
        model = fitted(vectors[rows_of(live)], k)
        labels, distances = land(model, vectors[[row for row, _ in records]])
        n_new = sum(is_new for _, is_new in records)
        expected = changed(model, labels)
        found.append(
            Case(f"to {release}", model, (labels, distances), n_new, expected, is_once=True)
        )
    first = steps[0][1]
    for section in SECTIONS[: 1 if options.quick else None]:
        without = {name: v for name, v in first.items() if v[1] != section}
        model = fitted(vectors[rows_of(without)], k)
        labels, distances = land(model, vectors[rows_of(first)])
        n_new = len(first) - len(without)
        name = f"{section} let in, {n_new / len(first):.1%}"
        found.append(Case(name, model, (labels, distances), n_new, changed(model, labels)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="a minute: one K, short runs")
    parser.add_argument("--only", choices=["rates", "changes"])
    parser.add_argument("--clusters", type=int, nargs="+", default=[58, 500])
    parser.add_argument("--arl0", type=int, nargs="+", default=[100, 500, 2000])
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=10, help="streams of each change")
    parser.add_argument("--max-s", type=float, default=120.0, help="of one mean run length")
    parser.add_argument("--tuning-windows", type=int, default=8000)
    parser.add_argument("--out", type=Path, help="also write the figures to this file, as JSON")
    options = parser.parse_args()
    if options.quick:
        options.clusters, options.arl0 = [58], [100, 500]
        options.repeats, options.tuning_windows, options.max_s = 3, 2000, 20.0

    packages = load_full(options.folder)
    started = time.monotonic()
    figures: dict[str, Any] = {"rates": [], "repeating": [], "changes": []}
    is_good = True
    _, live, _ = next(states(packages))
    for k in options.clusters:
        model = fitted(packages.vectors[rows_of(live)], k)
        if options.only != "changes":
            is_good &= rates(model, options, figures["rates"])
            repeater(model, figures["repeating"])
        if options.only != "rates":
            figures["changes"] += detections(model, cases_of(packages, k, options), options)
    figures["versions"] = {
        "python": platform.python_version(), "numpy": np.__version__, "river": version("river")
    }  # fmt: skip
    figures["machine"] = {"cpus": os.cpu_count(), "architecture": platform.machine()}
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    verdict = "met" if is_good else "MISSED"
    print(f"\nrates of false alarms: {verdict}; {time.monotonic() - started:.0f} s")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
