"""One run: a site, users, a script of faults drawn from a seed, and the verdict."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from confluent_kafka import KafkaException

from pipeline.errors import PipelineError
from pipeline.streams.kafka.broker import KafkaBroker
from tests.chaos.asking import Asker
from tests.chaos.cluster import Cluster
from tests.chaos.faults import FAULTS
from tests.chaos.figures import Findings, centroids_rest, find
from tests.chaos.onlooker import Onlooker
from tests.chaos.proxy import Network
from tests.chaos.showing import judge_answers, judge_stream, truth_of, wait_until_shown
from tests.chaos.stage import Clock, Disk, Stage
from tests.chaos.writer import N_CLUSTERS, N_DIMS, Writer
from tests.kafka.site import QUICK_GROUPS, site_at, until

PAUSE_S = (0.3, 1.5)
"""Between two faults: some meet a restore, others the work after it."""
BEGIN_LIMIT_S = 240.0
"""The first processes on a machine compile their kernels."""
REST_LIMIT_S = 150.0
STREAM_LIMIT_S = 20.0
"""Until the stream has told what the topics hold; a lost connection may have to be noticed."""
OVERTIME_S = 2.0
"""What is begun may end so much after the time of a run."""
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
    n_servers: int = 1
    transactions: str = "Whole"
    """Of the assigners, by name in `tests.chaos.service`: others are controls."""
    answers: str = "Whole"
    """What the servers do wrong, by name in `tests.chaos.service`: nothing."""
    places: tuple[str, ...] = ("written", "offsets", "committed")
    """Where of a commit somebody dies."""


@dataclass
class Outcome:
    """What a run found."""

    plan: Plan
    folder: str = ""
    """Kept when something is wrong."""
    n_faults: Counter[str] = field(default_factory=Counter)
    """Those that met something."""
    n_missed: Counter[str] = field(default_factory=Counter)
    """Those that met nothing, and were tried again if there was time."""
    n_fenced: int = 0
    """Processes that said so: another had taken their transactional id."""
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """Of faults."""
    total_s: float = 0.0
    """With the start of everything, and all that the judges ask for."""
    recovered_s: float | None = None
    """From the last fault until all of the input was applied and every command answered."""
    n_transactions: int = 0
    n_aborted: int = 0
    """Of those: refused, given up, or cut off by a kill."""
    n_answers: int = 0
    """Of a server in the middle of it all, each held against what was written and committed."""
    n_behind: int = 0
    """Times that a server said that it was behind, or could not be asked."""
    n_streamed: int = 0
    """Events that came over the live stream, each for the first time."""
    n_resumed: int = 0
    """Connections that went on where the one before was lost."""
    n_told_missing: int = 0
    """Events that the stream said it had dropped."""
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
        # a counter made anew from its items would count those
        counted = {"n_faults": dict(self.n_faults), "n_missed": dict(self.n_missed)}
        return asdict(self) | counted | {"ok": self.ok}


def run(plan: Plan, say: Say) -> Outcome:
    """Play it; never raises for what Eddy did wrong, that is in the outcome."""
    folder = Path(tempfile.mkdtemp(prefix=f"eddy-chaos-{plan.seed}-"))
    outcome = Outcome(plan, str(folder))
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            _play(plan, folder, outcome, stack, say)
    except (
        AssertionError, PipelineError, KafkaException, subprocess.SubprocessError, OSError,
        LookupError, TypeError, ValueError,
    ) as error:  # fmt: skip
        outcome.problem = f"{type(error).__name__}: {error}"
    outcome.total_s = time.monotonic() - began
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
        clock=clock, disk=disk, on_line=on_line,
        n_assigners=plan.n_assigners, n_servers=plan.n_servers,
        transactions=plan.transactions, answers=plan.answers, places=plan.places,
    )  # fmt: skip
    stack.callback(stage.close)
    stage.services.start()
    stage.servers.start()
    onlooker = Onlooker(stage.addresses) if stage.addresses else None
    if onlooker is not None:  # before the first event, so that every one is owed to it
        onlooker.start()
        until(lambda: stage.tend() or onlooker.is_there.is_set(), "a server", BEGIN_LIMIT_S)
    users = KafkaBroker({"bootstrap.servers": cluster.bootstrap})
    writer = Writer(users, site.topics, plan.seed)
    writer.start()
    changes = site.topics.changes
    until(lambda: stage.tend() or any(site.committed(changes)), "a first event", BEGIN_LIMIT_S)
    asker = Asker(users, site.topics, stage.addresses, lambda: stage.servers.pids, plan.seed)
    if stage.addresses:
        asker.start()
    say(f"up after {time.monotonic() - began:.1f} s")

    _make_faults(plan, stage, outcome, say)
    network.heal()
    ended = time.monotonic()
    stage.aside(writer.finish)
    if stage.addresses:
        stage.aside(asker.finish)
    site.wait_until_applied(REST_LIMIT_S, tending=stage.tend)
    n_commands = site.n_commands
    until(lambda: len(stage.answers()) == n_commands, "every command is answered", REST_LIMIT_S)
    inputs = site.committed(site.topics.input)
    with suppress(AssertionError):  # it is judged below, with everything else
        until(lambda: stage.tend() or centroids_rest(site, inputs), "rest", REST_LIMIT_S)
    outcome.recovered_s = time.monotonic() - ended
    say(f"at rest after {outcome.recovered_s:.1f} s")
    _take_off_what_was_rejected(stage, outcome)
    outcome.n_fenced = sum(one.event == "producer_fenced" for one in stage.heard)
    tally = (folder / "tally").read_bytes()
    outcome.n_transactions = tally.count(b"b")
    outcome.n_aborted = outcome.n_transactions - tally.count(b"c")

    verified = site.run("verify", "--timeout", str(REST_LIMIT_S))
    (folder / "verify.txt").write_text(verified.stdout + verified.stderr)
    outcome.is_verified = verified.returncode == 0
    if not outcome.is_verified:
        outcome.findings.problems.append(verified.stdout + verified.stderr)
    say(f"verified after {time.monotonic() - began:.1f} s")
    stage.services.stop()
    problems = outcome.findings.problems
    outcome.findings = find(site)
    outcome.findings.problems = problems + outcome.findings.problems
    if onlooker is not None:
        _judge_servers(stage, outcome, onlooker, asker, say)
        say(f"servers judged after {time.monotonic() - began:.1f} s")


def _judge_servers(
    stage: Stage, outcome: Outcome, onlooker: Onlooker, asker: Asker, say: Say
) -> None:
    """What they show at rest, what they answered meanwhile, and what the stream told."""
    truth, found = truth_of(stage.site), outcome.findings
    problems: list[str] = []
    for address in stage.addresses:
        stage.aside(
            lambda address=address: problems.extend(
                wait_until_shown(truth, address, outcome.plan.seed)
            )
        )
    stage.comes_true(lambda: not judge_stream(truth, onlooker.followed)[1], STREAM_LIMIT_S)
    stage.servers.stop()  # which ends the stream, too
    followed, asked = onlooker.finish(), asker.asked
    n_silent, told = judge_stream(truth, followed)
    problems += told + judge_answers(truth, asked)
    found.n_lost += n_silent
    found.n_wrong += len(problems)
    found.problems += problems
    outcome.n_answers, outcome.n_behind = asked.n_held + asked.n_ready, asked.n_behind
    outcome.n_streamed, outcome.n_told_missing = (
        len(followed.events),
        followed.n_dropped + followed.n_gone,
    )
    outcome.n_resumed = followed.n_connections - 1
    say(
        f"{outcome.n_answers} answers held ({outcome.n_behind} were not there yet), "
        f"{outcome.n_streamed} events streamed over {followed.n_connections} connections, "
        f"{outcome.n_told_missing} said to be missing"
    )


def _take_off_what_was_rejected(stage: Stage, outcome: Outcome) -> None:
    rejected = sum(answer == "rejected" for answer in stage.answers().values())
    if rejected:
        outcome.n_faults["recluster"] -= rejected
        outcome.n_missed["recluster"] += rejected


def _make_faults(plan: Plan, stage: Stage, outcome: Outcome, say: Say) -> None:
    """Each once, in an order that is drawn, and again until the time is over.

    One that met nothing comes first in the next round.
    """
    for name in plan.faults:
        why = FAULTS[name].why_not(stage)
        if why is not None:
            outcome.skipped[name] = why
    left = [name for name in plan.faults if name not in outcome.skipped]
    began, ends_s = time.monotonic(), plan.seconds + OVERTIME_S
    missed: list[str] = []
    is_over = not left
    while not is_over:
        order = [str(name) for name in stage.rng.permutation(left)]
        order.sort(key=lambda name: name not in missed)
        missed, is_over = [], True
        for name in order:
            now_s = time.monotonic() - began
            if now_s >= plan.seconds or now_s + FAULTS[name].takes_s(plan.n_brokers) > ends_s:
                continue
            is_over = False
            met = FAULTS[name].do(stage)
            took_s = time.monotonic() - began - now_s
            say(f"{now_s:6.1f} {name}, {took_s:.1f} s{'' if met else ': met nothing'}")
            (outcome.n_faults if met else outcome.n_missed)[name] += 1
            if not met:
                missed.append(name)
            stage.wait(stage.uniform(*PAUSE_S))
    stage.settle()
    stage.wait(max(0.0, plan.seconds - (time.monotonic() - began)))
    outcome.seconds = time.monotonic() - began
