"""Whether the clusters are as good as promised, on real data: ``quality.py FOLDER``.

The stream of Debian's packages (the full set of `make_demo_slice.py`; ``--demo``: the slice that
ships with Eddy), release by release through assigners, reclusterer and topics, in one process on a
broker in memory. At the end of each release, at rest, read from the topics:

* stale: members that lie nearer to another centroid than to their own, in float64. Target: none;
* gap: inertia of the members to their published centroids, above that of scikit-learn's k-means,
  fitted from scratch (the best of three starts) to what lives. Targets: 0.2 % with one recluster a
  release, 1.0 % where the centroids only follow, 0.5 % after the first recluster of a stream that
  came sorted;
* kept: of the items whose nearest neighbours did not change, those that kept their cluster's id.
  Such an item lives before and after, its vector is the same, and so is the set of the ten other
  vectors that lie nearest to it among all that live (items with one vector count as one).
  Target: 95 %. Beside it ("refits") that of k-means from scratch after each release, its clusters
  aligned with those before by the Hungarian method on all shared items;
* a recluster of what has not changed. Target: moves nobody.

Of the slice a gap of 1.2 % is let pass, and ids are not judged: few items make noisy fits.

Then clusters against Debian's sections, false alarms and delays of drift (``drift.py``), growth of
cost with the number of members (``sweep.py``). Ends with 1 when a target is missed. Euclidean,
because that is what the peer optimises; the vectors are of unit length.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import sklearn

from benchmarks._debian import ORDERS, read, states
from benchmarks._gap import FULL, SLICE, Report, play, sections
from benchmarks._peers import Peers
from benchmarks._plays import Plan, Sight
from pipeline.cli.demo.debian import Packages
from pipeline.clustering.schedule import ReclusterPolicy
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.telemetry.logs import configure

ROOT: Final = Path(__file__).resolve().parent.parent
TABLES: Final = ("fit", "drift", "growth")
DATA: Final = "EDDY_TEST_DATA"
FIRST_ITEMS: Final = 5000
DEMO_FIRST_ITEMS: Final = 1000


def plans(options: argparse.Namespace) -> list[Plan]:
    """Every number of clusters, in every order, with reclusters and without."""
    n_first = DEMO_FIRST_ITEMS if options.demo else FIRST_ITEMS
    return [
        Plan(k, order, None if start == "follow" else n_first, start == "recluster",
             force=options.force, min_gain=options.min_gain)
        for k in options.clusters
        for order in options.orders
        for start in ("recluster", "follow")
    ]  # fmt: skip


def fits(packages: Packages, options: argparse.Namespace, report: Report) -> None:
    """The tables that come of playing the releases."""
    peers, kernels = (
        Peers(packages.vectors, options.cache, options.threads),
        CpuKernels(options.threads),
    )
    last: list[Sight] = []
    for plan in plans(options):
        sight = play(packages, plan, peers, kernels, report)
        if sight is not None and plan.reclusters and plan.order == options.orders[0]:
            last.append(sight)
    sections(last, peers, report)


def peers_alone(packages: Packages, options: argparse.Namespace) -> None:
    """Fill the folder; several processes may do so together."""
    peers = Peers(packages.vectors, options.cache, options.threads)
    for state in states(packages):
        peers.neighbours(state)
        for k in options.clusters:
            found = peers.fit(state, k)
            print(
                f"K = {k}, {state.release}: {found.inertia:.1f}, {found.seconds:.0f} s", flush=True
            )


def child(name: str, arguments: list[str], report: Report) -> None:
    """Another benchmark with targets of its own, in a process of its own."""
    print(f"\n{'-' * 8} python -m benchmarks {name} {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "benchmarks", name, *arguments]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    report.judge(status == 0, f"{name}: ended with {status}")


def drift(folder: Path | None, options: argparse.Namespace, report: Report) -> None:
    """False alarms and delays."""
    if folder is None:
        print("\ndrift: needs the full set; the slice is too short for windows")
        return
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "drift.json"
        child("drift", [str(folder.resolve()), "--quick", "--out", str(out)], report)
        if out.exists():
            report.add("drift", json.loads(out.read_text()))


def growth(options: argparse.Namespace, report: Report) -> None:
    """Cost against the number of members, with the exponent."""
    sizes = ["10000", "40000"] if options.quick else ["10000", "100000"]
    child("sweep", ["--members", *sizes, "--threads", str(options.threads)], report)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, with what depends on others filled in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help=f"the full set; or {DATA} names it")
    parser.add_argument("--demo", action="store_true", help="the slice that ships with Eddy")
    parser.add_argument("--quick", action="store_true", help="two releases, one K, two orders")
    parser.add_argument("--clusters", type=int, nargs="+")
    parser.add_argument("--orders", choices=ORDERS, nargs="+")
    parser.add_argument("--only", choices=TABLES, nargs="+", default=list(TABLES))
    parser.add_argument(
        "--force", action="store_true", help="publish every recluster, however little it saves"
    )
    parser.add_argument("--min-gain", type=float, default=ReclusterPolicy().min_gain)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="keep what scikit-learn computed in this folder")
    parser.add_argument("--peers-only", action="store_true", help="fill the cache, and end")
    parser.add_argument("--out", type=Path, help="also write the figures to this file, as JSON")
    options = parser.parse_args(arguments)
    if options.clusters is None:
        full = [20] if options.demo else [58, 100, 500]
        options.clusters = full[:1] if options.quick else full
    if options.orders is None:
        options.orders = ["hash", "section"] if options.quick else list(ORDERS)
    if options.folder is None and os.environ.get(DATA) and not options.demo:
        options.folder = Path(os.environ[DATA])
    return options


def main() -> int:
    options = parsed()
    if not options.demo and (options.folder is None or not options.folder.is_dir()):
        print(
            f"{options.folder or 'There'} is no folder with the data: name the full Debian set as "
            f"an argument or in {DATA}, or take the slice that ships with Eddy: --demo",
            file=sys.stderr,
        )
        return 2
    configure(service="quality", instance="quality", version="0", level="error", stream=sys.stderr)
    began, report = time.monotonic(), Report(SLICE if options.demo else FULL)
    folder = None if options.demo else options.folder
    packages = read(folder)
    if options.quick:
        kept = [release for release, _ in packages.releases()][:2]
        packages = replace(
            packages, changes=tuple(c for c in packages.changes if c.release in kept)
        )
    if options.peers_only:
        peers_alone(packages, options)
        return 0
    if "fit" in options.only:
        fits(packages, options, report)
    if "drift" in options.only:
        drift(folder, options, report)
    if "growth" in options.only:
        growth(options, report)
    return concluded(report, options, time.monotonic() - began)


def concluded(report: Report, options: argparse.Namespace, seconds: float) -> int:
    """Say what was missed, write the figures down; the exit code."""
    figures: dict[str, Any] = {
        "data": "demo slice" if options.demo else "full set",
        "tables": report.rows,
        "misses": report.misses,
        "seconds": round(seconds),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
    }
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"\n{seconds:.0f} s; targets missed: {len(report.misses) or 'none'}")
    for miss in report.misses:
        print(f"  {miss}")
    return 1 if report.misses else 0


if __name__ == "__main__":
    sys.exit(main())
