"""Records per second from the input to committed events, beside the floor they stand on.

In one run, taking turns, each as a process of its own on the same preloaded input:

* null: the same consumption and transactions, one assignment per record, no clustering;
* kernel: `assign` alone on the updates' vectors;
* eddy: the assigner as `eddy assigner` runs it, with a model, without a reclusterer;
* living (--living): the same with a reclusterer beside it on the same cores, whose centroids follow
  their members: what tier 2 costs.

Kernel and client share the cores, so the roof is 1 / (1/null + 1/kernel). Target: Eddy at 0.70
of it. Items are settled first; the span is from the first batch of updates to the last commit.

A run during which other processes took more than --max-foreign cores is made again, up to
--tries times; the last one stays, and the output says how many were disturbed all the same.
The ratio of CPU times, (null + kernel) / eddy, broker left out, hardly feels others.
"""

from __future__ import annotations

import argparse
import pstats
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._stage import (
    Worker,
    describe,
    end_on_sigterm,
    highs,
    machine,
    prepare_topics,
    produce,
    quartiles,
    said,
    settings,
    wait_quiet,
    write_results,
)
from benchmarks._workload import (
    input_record,
    make_model,
    make_workload,
    model_outgoing,
    save_sample,
)
from pipeline.config import Config
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.model import ModelFold
from pipeline.services.reclusterer.sampling import to_end
from pipeline.streams.broker import RunningBroker, start_broker
from pipeline.streams.kafka.broker import KafkaBroker

TARGET = 0.70
SIZES = {384: (40_000, 240_000), 1024: (20_000, 120_000)}
"""Dimensions -> items, updates."""
KERNEL_SAMPLE = 40_000


@contextmanager
def reclusterer(sets: list[str], log: Path) -> Iterator[None]:
    """A reclusterer that follows, and is asked for no fit."""
    quiet = ["recluster.max_updates=1000000000", "recluster.max_age_s=1000000000",
             "recluster.on_drift=false", "recluster.max_inertia_growth=null"]  # fmt: skip
    flags = [word for one in [*sets, *quiet] for word in ("--set", one)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "reclusterer", *flags], stdout=file, stderr=file
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30.0)


def n_revisions(config: Config, client: KafkaBroker) -> int:
    """How often the centroids moved."""
    fold = ModelFold()
    for records in to_end(client.reader(config.topics.model)):
        fold.fold(records)
    return fold.newest.manifest.revision if fold.newest is not None else 0


class Stage:
    """The preloaded input of one number of dimensions, and what runs on it."""

    def __init__(
        self, broker: RunningBroker, dims: int, options: argparse.Namespace, scratch: Path
    ) -> None:
        n_items, n_updates = SIZES[dims]
        n_items, n_updates = options.items or n_items, options.updates or n_updates
        self.broker, self.dims, self.options, self.scratch = broker, dims, options, scratch
        self.input = f"changes-{dims}"
        self.n_runs = 0
        print(f"d={dims}: {n_items:,} items, {n_updates:,} updates ...", flush=True)
        workload = make_workload(n_items, dims, seed=1)
        kernels = CpuKernels(options.threads)
        self.model = make_model(workload, options.clusters, options.partitions, kernels)
        self.changed = self._share_changed(workload, kernels)
        self.sample = scratch / f"sample-{dims}.npz"
        save_sample(self.sample, self.model, workload, min(n_updates, KERNEL_SAMPLE))
        _, client = prepare_topics(self._settings("preload."))
        n = options.partitions
        produce(client, (input_record(self.input, n, i, x) for i, x in enumerate(workload.items)))
        self.boundary = highs(client, self.input)
        produce(
            client,
            (
                input_record(self.input, n, item, vector)
                for chosen, moved in workload.updates(n_updates)
                for item, vector in zip(chosen.tolist(), moved, strict=True)
            ),
        )
        self.ends = highs(client, self.input)
        self.n_items, self.n_updates = n_items, n_updates

    def _share_changed(self, workload: Any, kernels: CpuKernels) -> float:
        """Of an item's second update onwards: how many change the cluster."""
        loaded, before, n, n_changed = kernels.load(self.model.centroids), {}, 0, 0
        for chosen, moved in workload.updates(2 * len(workload.items)):
            labels = kernels.assign(loaded, moved).labels.tolist()
            for item, label in zip(chosen.tolist(), labels, strict=True):
                if item in before:
                    n += 1
                    n_changed += before[item] != label
                before[item] = label
        return n_changed / n

    def _settings(self, prefix: str) -> list[str]:
        options = self.options
        return settings(
            self.broker, topic=self.input, prefix=prefix, partitions=options.partitions,
            dims=self.dims, more=options.set,
        )  # fmt: skip

    def run(self, kind: str, *, profile: Path | None = None) -> dict[str, Any]:
        """One contender, once, in a process and under a prefix of its own."""
        self.n_runs += 1
        name = f"{kind}-{self.dims}-{self.n_runs}"
        task: dict[str, Any] = {
            "kind": kind,
            "out": str(self.scratch / f"{name}.json"),
            "threads": self.options.threads,
            "sample": str(self.sample),
            "n_records": 8 * KERNEL_SAMPLE,
        }
        sets = self._settings(f"{name}.")
        if kind != "kernel":
            config, client = prepare_topics(sets)
            produce(client, model_outgoing(self.model, config.topics.model))
            task |= {
                "sets": sets, "boundary": self.boundary, "ends": self.ends,
                "broker_pid": self.broker.pid, "profile": str(profile) if profile else None,
            }  # fmt: skip
        wait_quiet(self.options.max_foreign, self.options.patience_s)
        if kind != "living":
            return Worker(task).result()
        with reclusterer(sets, self.scratch / f"{name}.reclusterer.log"):
            found = Worker(task).result()
        found["revisions"] = float(n_revisions(config, client))
        return found

    def run_undisturbed(self, kind: str) -> dict[str, Any]:
        """As `run`, again while others take too much of the machine."""
        for _ in range(self.options.tries):
            found = self.run(kind)
            if kind == "living" or found["foreign_cores"] <= self.options.max_foreign:
                break  # to the one who measures, the reclusterer is a foreigner
        return found


def measure(stage: Stage, n_rounds: int) -> dict[str, Any]:
    """Rounds of all contenders in random order, and what they say together."""
    rng = random.Random(0)
    runs: dict[str, list[dict[str, Any]]] = {"null": [], "kernel": [], "eddy": []}
    if stage.options.living:
        runs["living"] = []
    roofs, ratios, of_cpu, of_still = [], [], [], []
    for number in range(n_rounds):
        for kind in rng.sample(sorted(runs), len(runs)):
            runs[kind].append(stage.run_undisturbed(kind))
        null, kernel, eddy = (runs[k][-1]["records_per_s"] for k in ("null", "kernel", "eddy"))
        roofs.append(1 / (1 / null + 1 / kernel))
        ratios.append(eddy / roofs[-1])
        cost = {kind: found[-1]["cpu_us"] for kind, found in runs.items()}
        of_cpu.append((cost["null"] + cost["kernel"]) / cost["eddy"])
        others = [found[-1]["foreign_cores"] for kind, found in runs.items() if kind != "living"]
        foreign = max(others)
        if "living" in runs:
            of_still.append(runs["living"][-1]["records_per_s"] / eddy)
            print(f"  living/eddy {of_still[-1]:.3f}", flush=True)
        print(
            f"  round {number + 1}: null {null:,.0f}  kernel {kernel:,.0f}  roof {roofs[-1]:,.0f}  "
            f"eddy {eddy:,.0f}  eddy/roof {ratios[-1]:.3f}  by cpu {of_cpu[-1]:.3f}  "
            f"others {foreign:.2f}",
            flush=True,
        )
    figures: dict[str, Any] = {
        "items": stage.n_items, "updates": stage.n_updates, "clusters": stage.options.clusters,
        "partitions": stage.options.partitions, "rounds": n_rounds,
        "share_changing_cluster": round(stage.changed, 4),
        "eddy_of_roof": quartiles(ratios), "eddy_of_roof_by_cpu": quartiles(of_cpu),
        "roof": quartiles(roofs),
        "disturbed_runs": sum(
            one["foreign_cores"] > stage.options.max_foreign
            for kind, of in runs.items()
            if kind != "living"
            for one in of
        ),
    }  # fmt: skip
    if of_still:
        figures["living_of_eddy"] = quartiles(of_still)
    for kind, found in runs.items():
        figures[kind] = {name: quartiles([one[name] for one in found]) for name in found[0]}
    return figures


def show(dims: int, figures: dict[str, Any]) -> None:
    """The figures for people, the ratio first."""
    ratio = figures["eddy_of_roof"]
    verdict = "reached" if ratio["median"] >= TARGET else "MISSED"
    print(f"\nd={dims}, K={figures['clusters']}, medians (quartiles) of {figures['rounds']} rounds")
    print(f"  eddy / roof  {said(ratio, '.3f')}   target {TARGET}: {verdict}")
    print(f"  by CPU time  {said(figures['eddy_of_roof_by_cpu'], '.3f')}")
    if "living" in figures:
        revisions = figures["living"]["revisions"]["median"]
        ratio = said(figures["living_of_eddy"], ".3f")
        print(f"  living / eddy  {ratio}   {revisions:.0f} revisions")
    print(f"  {figures['disturbed_runs']} of {3 * figures['rounds']} runs were disturbed by others")
    for kind in ("null", "kernel", "roof", "eddy"):
        rate = figures[kind] if kind == "roof" else figures[kind]["records_per_s"]
        print(f"  {kind:<11}  {said(rate)} records/s")
    print(f"  no runner-up {said(figures['kernel']['without_second_per_s'])} records/s (kernel)")
    print(f"  {figures['share_changing_cluster']:.1%} of the updates change the cluster")
    print("  µs/record      poll  commit    rest |   cpu  broker cpu | records a batch")
    for kind in ("null", "eddy"):
        one = {name: value["median"] for name, value in figures[kind].items()}
        print(
            f"  {kind:<11} {one['poll_us']:7.2f} {one['commit_us']:7.2f} {one['rest_us']:7.2f} | "
            f"{one['cpu_us']:5.2f} {one['broker_cpu_us']:11.2f} | {one['records_per_batch']:,.0f}"
        )


def show_profile(stage: Stage, n_lines: int) -> None:
    """Where Eddy's thread spends the span; the profiler's own cost is in it."""
    path = stage.scratch / f"profile-{stage.dims}.out"
    found = stage.run("eddy", profile=path)
    print(f"\nprofile, d={stage.dims}: {found['records_per_s']:,.0f} records/s under the profiler")
    stats = pstats.Stats(str(path)).strip_dirs()
    for order in ("tottime", "cumulative"):
        stats.sort_stats(order).print_stats(n_lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 1024], choices=sorted(SIZES))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--items", type=int, help="instead of 40,000 (d=384) or 20,000 (d=1024)")
    parser.add_argument("--updates", type=int, help="instead of six for every item")
    parser.add_argument("--threads", type=int, help="of the kernels; all cores by default")
    parser.add_argument("--heap", default="1g", help="of the broker")
    parser.add_argument("--max-foreign", type=float, default=0.25, help="cores; see above")
    parser.add_argument("--tries", type=int, default=3, help="of a run that others disturb")
    parser.add_argument("--patience-s", type=float, default=20.0, help="waited for quiet first")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="Eddy's")
    parser.add_argument("--living", action="store_true", help="also with a reclusterer beside it")
    parser.add_argument("--profile", action="store_true", help="also run Eddy under cProfile")
    parser.add_argument("--profile-lines", type=int, default=25)
    parser.add_argument("--no-write", action="store_true", help="leave results/ as it is")
    options = parser.parse_args()

    end_on_sigterm()
    about = machine()
    print(describe(about))
    figures = {}
    with tempfile.TemporaryDirectory() as folder, start_broker(None, heap=options.heap) as broker:
        for dims in options.dims:
            stage = Stage(broker, dims, options, Path(folder))
            if options.rounds:
                figures[str(dims)] = measure(stage, options.rounds)
                show(dims, figures[str(dims)])
            if options.profile:
                show_profile(stage, options.profile_lines)
    if figures and not options.no_write:
        print(f"\nwritten to {write_results('end_to_end', figures, about)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
