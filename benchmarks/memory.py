"""What an item takes in memory, by kind, and what real processes take that hold so many.

Bytes of an item are counted in a state that is filled through the doors that the assigner uses, and
held against what the process grew by. Then an assigner and a reclusterer run on a real broker: all
items as records, every one of them changed once, a forced recluster, and what is resident then.
Targets: 120 bytes beside the vector at ids of 16 bytes, and an assigner of 50 000 items of 384
dimensions and 2000 clusters in 500 MB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._living import SERVICES, Living, footprint
from benchmarks._stage import ROOT, describe, end_on_sigterm, machine, produce, write_results
from benchmarks._workload import input_record
from pipeline.state.footprint import footprint as held
from pipeline.state.members import Members, empty_partition, write_members
from pipeline.streams.broker import start_broker

MAX_BESIDE_BYTES, MAX_ASSIGNER_MB = 120.0, 500.0
BATCH = 4000
ID_BYTES = 16


def counted(n_items: int, n_dims: int, dtype: str) -> dict[str, float]:
    """Bytes of an item by kind, and what the resident memory grew by; in a process of its own."""
    rng, members = np.random.default_rng(8), Members(n_dims, dtype=np.dtype(dtype))
    vectors = rng.standard_normal((BATCH, n_dims)).astype(np.float32)

    def write(start: int, stop: int) -> None:
        n, numbers = stop - start, np.arange(start, stop)
        keys = [b"%0*d" % (ID_BYTES, item) for item in range(start, stop)]
        write_members(
            members, keys, vectors[:n], np.zeros(n, np.int32), np.zeros(n),
            numbers.astype(np.uint64), numbers, np.zeros(n, np.bool_), numbers, None,
        )  # fmt: skip

    write(0, 10)  # compiles what is not compiled yet
    before_mb = resident_mb()["VmRSS"]
    for start in range(10, n_items, BATCH):
        write(start, min(start + BATCH, n_items))
    grown_mb = resident_mb()["VmRSS"] - before_mb
    state = empty_partition(0, members, n_labels=1, max_component=256.0, next_offset=0)
    full = len(members.vectors) / n_items
    kinds = {kind: n_bytes / n_items for kind, n_bytes in held([state])._asdict().items()}
    beside = (kinds["bounds"] / full) + kinds["ids"]
    return {
        **kinds, "resident": 1e6 * grown_mb / n_items, "rows_kept": full,
        "beside_vector": beside,
    }  # fmt: skip


def resident_mb(pid: int | str = "self") -> dict[str, float]:
    """Now and at most, as Linux counts it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM")}


def apart(n_items: int, n_dims: int, dtype: str) -> dict[str, float]:
    """`counted` in a process of its own, so that nothing of before is resident."""
    code = (
        "import json; from benchmarks.memory import counted; "
        f"print(json.dumps(counted({n_items}, {n_dims}, {dtype!r})))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(said.stdout)
    return found


def lived(options: argparse.Namespace) -> dict[str, Any]:
    """Resident memory of both services at rest, and at most, step by step."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, start_broker(None, heap="1g") as broker:
        living = Living(
            broker, Path(folder), dims=options.dims, n_items=options.items,
            n_clusters=options.clusters, n_partitions=options.partitions, more=options.set,
        )  # fmt: skip

        def note(step: str) -> None:
            living.wait_through(options.patience_s)
            for name, process in living.processes.items():
                now, most = resident_mb(process.pid).values()
                threads = footprint(process.pid)["threads"]
                found[f"{name}, {step}"] = {"mb": now, "most_mb": most, "threads": threads}

        try:
            note("items read")
            topic, n = living.topics.input, living.n_partitions
            for chosen, moved in living.workload.updates(options.items):
                pairs = zip(chosen.tolist(), moved, strict=True)
                produce(living.client, (input_record(topic, n, i, x) for i, x in pairs))
            note("all changed")
            living.eddy("recluster", "--force", "--wait", timeout_s=options.patience_s)
            note("reclustered")
        finally:
            living.close()
    return found


def show(found: dict[str, Any]) -> None:
    """Tables for people, in the form of the page of results."""
    print(f"\n| bytes of an item, ids of {ID_BYTES} | vectors | ids | bounds | beside the vector |")
    print("| --- | --- | --- | --- | --- |")
    for name, one in found["items"].items():
        each = " | ".join(f"{one[kind]:.0f}" for kind in ("vectors", "ids", "bounds"))
        print(f"| {name} | {each} | {one['beside_vector']:.0f} |")
    if "services" in found:
        print("\n| process | MB | at most | threads |\n| --- | --- | --- | --- |")
        for name, one in found["services"].items():
            print(f"| {name} | {one['mb']:.0f} | {one['most_mb']:.0f} | {one['threads']:.0f} |")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--dims", type=int, default=384, help="384 or more")
    parser.add_argument("--clusters", type=int, default=2000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="Eddy's")
    parser.add_argument("--patience-s", type=float, default=900.0)
    parser.add_argument("--no-services", action="store_true", help="only count bytes of items")
    parser.add_argument("--no-write", action="store_true", help="leave results/ as it is")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    end_on_sigterm()
    about = machine()
    print(describe(about), flush=True)
    found: dict[str, Any] = {
        "n_items": options.items, "n_clusters": options.clusters,
        "items": {
            f"{options.dims} x {dtype}": apart(options.items, options.dims, dtype)
            for dtype in ("float32", "float16")
        },
    }  # fmt: skip
    is_good = all(one["beside_vector"] <= MAX_BESIDE_BYTES for one in found["items"].values())
    if not options.no_services:
        found["services"] = lived(options)
        steps = [one for name, one in found["services"].items() if name.startswith(SERVICES[0])]
        is_good = is_good and all(one["mb"] <= MAX_ASSIGNER_MB for one in steps)
    show(found)
    print(f"targets {'met' if is_good else 'MISSED'}")
    if not options.no_write:
        print(f"written to {write_results('memory', {str(options.dims): found}, about)}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
