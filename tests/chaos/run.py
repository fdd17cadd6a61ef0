"""One run: a site, users, a script of faults drawn from a seed, and the verdict."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.errors import PipelineError
from pipeline.streams.kafka.broker import KafkaBroker
from tests.chaos.cluster import Cluster
from tests.chaos.faults import FAULTS
from tests.chaos.figures import Findings, find
from tests.chaos.proxy import Network
from tests.chaos.stage import Clock, Disk, Stage
from tests.chaos.writer import N_CLUSTERS, N_DIMS, Writer
from tests.kafka.site import QUICK_GROUPS, site_at, until

PAUSE_S = (0.3, 1.5)
"""Between two faults: some meet a restore, others the work after it."""
REST_LIMIT_S = 150.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a run is made of; times depend on the machine, so a seed gives the same faults only."""

    seed: int
    seconds: float = 60.0
    n_brokers: int = 1
    protocol: Literal["classic", "consumer"] = "classic"
    faults: tuple[str, ...] = tuple(FAULTS)
    n_assigners: int = 3


@dataclass
class Outcome:
    """What a run found."""

    plan: Plan
    folder: str = ""
    """Kept when something is wrong."""
    n_faults: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    recovered_s: float | None = None
    """From the last fault until all of the input was applied and every command answered."""
    n_transactions: int = 0
    n_aborted: int = 0
    """Of those: refused, given up, or cut off by a kill."""
    is_verified: bool = False
    """What ``eddy verify`` says."""
    findings: Findings = field(default_factory=Findings)
    problem: str | None = None
    """What ended the run before its verdict."""

    @property
    def ok(self) -> bool:
        found = self.findings
        wrong = found.n_lost + found.n_duplicated + found.n_out_of_order + found.n_wrong
        return self.problem is None and self.is_verified and not wrong

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"ok": self.ok, "n_faults": dict(self.n_faults)}


def run(plan: Plan, say: Say) -> Outcome:
    """Play it; never raises for what Eddy did wrong, that is in the outcome."""
    folder = Path(tempfile.mkdtemp(prefix=f"eddy-chaos-{plan.seed}-"))
    outcome = Outcome(plan, str(folder))
    try:
        with ExitStack() as stack:
            _play(plan, folder, outcome, stack, say)
    except (AssertionError, PipelineError) as error:
        outcome.problem = f"{type(error).__name__}: {error}"
    if outcome.ok:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _settings(plan: Plan, state: Path) -> dict[str, object]:
    groups: dict[str, object] = dict(QUICK_GROUPS)
    if plan.protocol == "consumer":  # times are the broker's to set
        groups = {"kafka.consumer.group.protocol": "consumer"}
    return {
        "topics.partitions": 6,
        "topics.replication_factor": 1 if plan.n_brokers == 1 else 3,
        "embedding.dimensions": N_DIMS,
        "clustering.clusters": N_CLUSTERS,
        "recluster.bootstrap_items": 100,
        "recluster.min_interval_s": 1,
        "centroids.min_interval_s": 0.5,
        "state.directory": str(state),
        "state.snapshot_interval_s": 2,
        **groups,
    }


def _play(plan: Plan, folder: Path, outcome: Outcome, stack: ExitStack, say: Say) -> None:
    rng = np.random.default_rng(plan.seed)
    clock, disk = Clock(folder), Disk(folder)
    stack.callback(disk.close)
    network = stack.enter_context(Network(plan.n_brokers))
    cluster = stack.enter_context(Cluster(folder, network))
    site = stack.enter_context(site_at(cluster.direct, folder, _settings(plan, disk.folder)))
    log = stack.enter_context((folder / "services.log").open("w"))
    site.create_topics()
    began = time.monotonic()

    def on_line(name: str, line: str) -> None:
        log.write(f"{time.monotonic() - began:.2f} {name} {line}\n")
        log.flush()

    stage = Stage(
        site, cluster, rng, folder,
        clock=clock, disk=disk, on_line=on_line, n_assigners=plan.n_assigners,
    )  # fmt: skip
    stack.callback(stage.close)
    stage.services.start()
    users = KafkaBroker({"bootstrap.servers": cluster.bootstrap})
    writer = Writer(users, site.topics, plan.seed)
    writer.start()
    until(lambda: stage.tend() or any(site.committed(site.topics.changes)), "a first event")

    _make_faults(plan, stage, outcome, say)
    network.heal()
    ended = time.monotonic()
    stage.aside(writer.finish)
    site.wait_until_applied(REST_LIMIT_S, tending=stage.tend)
    until(stage.is_answered, "every command is answered", REST_LIMIT_S)
    outcome.recovered_s = time.monotonic() - ended
    tally = (folder / "tally").read_bytes()
    outcome.n_transactions = tally.count(b"b")
    outcome.n_aborted = outcome.n_transactions - tally.count(b"c")

    verified = site.run("verify", "--timeout", str(REST_LIMIT_S))
    (folder / "verify.txt").write_text(verified.stdout + verified.stderr)
    outcome.is_verified = verified.returncode == 0
    if not outcome.is_verified:
        outcome.findings.problems.append(verified.stdout + verified.stderr)
    stage.services.stop()
    problems = outcome.findings.problems
    outcome.findings = find(site)
    outcome.findings.problems = problems + outcome.findings.problems


def _make_faults(plan: Plan, stage: Stage, outcome: Outcome, say: Say) -> None:
    """Each once, in an order that is drawn, and again until the time is over."""
    for name in plan.faults:
        why = FAULTS[name].why_not(stage)
        if why is not None:
            outcome.skipped[name] = why
    left = [name for name in plan.faults if name not in outcome.skipped]
    began = time.monotonic()
    while left and time.monotonic() - began < plan.seconds:
        for name in stage.rng.permutation(left):
            now_s = time.monotonic() - began
            if now_s >= plan.seconds:
                break
            say(f"{now_s:6.1f} {name}")
            FAULTS[name].do(stage)
            outcome.n_faults[str(name)] += 1
            stage.wait(stage.uniform(*PAUSE_S))
    stage.settle()
    outcome.seconds = time.monotonic() - began
