"""The tables that a play of the releases fills: fit, identity, sections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks._debian import State
from benchmarks._figures import agreement, kept_when_aligned
from benchmarks._inprocess import RestlessError
from benchmarks._peers import Peers
from benchmarks._plays import Plan, Sight, played
from pipeline.cli.demo.debian import Packages
from pipeline.kernels.contract import Kernels


@dataclass(frozen=True, slots=True)
class Targets:
    """What is promised of a stream."""

    gap_reclustered: float
    gap_following: float
    gap_sorted_start: float
    """After the one recluster that ends a first release whose first items, sorted, were fitted."""
    kept: float | None
    """None: shown only."""


FULL: Final = Targets(0.002, 0.010, 0.005, 0.95)
SLICE: Final = Targets(0.012, 0.012, 0.012, None)
"""Of few items one fit differs from the next by more: these are the bounds of the tests."""


@dataclass(slots=True)
class Report:
    """Rows for machines, and what was promised and did not come true."""

    targets: Targets = FULL
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    misses: list[str] = field(default_factory=list)

    def add(self, table: str, row: dict[str, Any]) -> None:
        """One more row of a table."""
        self.rows.setdefault(table, []).append(row)

    def judge(self, is_met: bool, miss: str) -> str:
        """A word to print beside a figure."""
        if not is_met:
            self.misses.append(miss)
        return "" if is_met else "MISSED"


def gap_target(plan: Plan, is_first: bool, targets: Targets) -> float:
    """How far above a fit from scratch a release may end."""
    if not plan.reclusters:
        return targets.gap_following
    is_sorted_start = is_first and plan.order != "hash"
    return targets.gap_sorted_start if is_sorted_start else targets.gap_reclustered


def told(plan: Plan) -> str:
    """A plan in words."""
    start = "the whole first release" if plan.first_fit is None else f"{plan.first_fit} items"
    then = "one recluster a release" if plan.reclusters else "centroids follow, no recluster"
    return f"K = {plan.n_clusters}, {plan.order} order, first model on {start}, {then}"


def play(
    packages: Packages, plan: Plan, peers: Peers, kernels: Kernels, report: Report
) -> Sight | None:
    """Play one plan and print its table; the last sight of it, if it came so far."""
    print(f"\n{told(plan)}")
    print(
        f"  {'release':<10}{'live':>7}{'stale':>8}{'gap':>9}{'at most':>9}"
        f"{'moved by models':>17}{'of live':>9}{'model':>8}{'kept':>8}{'refits':>8}"
    )
    before, last = None, None
    try:
        for sight in played(packages, plan, kernels):
            last = sight
            if sight.is_again:
                again(sight, report)
            else:
                print(line(sight, before, peers, report), flush=True)
                before = sight
    except RestlessError as error:
        report.judge(False, f"{told(plan)}: {error}")
        print(f"  MISSED: {error}")
    return last


def line(sight: Sight, before: Sight | None, peers: Peers, report: Report) -> str:
    """One release: how good the fit is, and who kept the cluster's id."""
    plan, n = sight.plan, len(sight.labels)
    where = f"{told(plan)}, {sight.state.release}"
    peer = peers.fit(sight.state, plan.n_clusters)
    gap, target = (
        sight.inertia / peer.inertia - 1.0,
        gap_target(plan, before is None, report.targets),
    )
    moved = len(sight.moves.items)
    row: dict[str, Any] = {
        "clusters": plan.n_clusters,
        "order": plan.order,
        "reclusters": plan.reclusters,
        "release": sight.state.release,
        "live": n,
        "stale": sight.stale,
        "inertia": sight.inertia,
        "from_scratch": peer.inertia,
        "gap": gap,
        "target": target,
        "items_moved_by_models": moved,
        "moves": dict(sight.moves.events),
        "model": sight.picture.model.version,
        "answer": sight.answer,
    }
    verdicts = [
        report.judge(sight.stale == 0, f"{where}: {sight.stale} stale"),
        report.judge(gap <= target, f"{where}: gap {gap:+.2%}, target at most {target:+.2%}"),
    ]
    text = (
        f"  {sight.state.release:<10}{n:>7}{sight.stale / n:>8.1%}{gap:>+9.2%}{target:>+9.2%}"
        f"{moved:>17}{moved / n:>9.1%}{row['model']:>8}"
    )
    if before is not None:
        own, refits = kept(before, sight, peers)
        row |= own | {"refits": refits}
        verdicts.append(
            report.judge(
                own["kept"] >= (report.targets.kept or 0.0),
                f"{where}: {own['kept']:.2%} kept their id",
            )
        )
        text += f"{own['kept']:>8.1%}{refits:>8.1%}"
    report.add("releases", row)
    return f"{text}  {' '.join(filter(None, verdicts))}".rstrip()


def again(sight: Sight, report: Report) -> None:
    """A recluster of what has not changed."""
    n = sum(sight.moves.events.values())
    verdict = report.judge(n == 0, f"{told(sight.plan)}: recluster without a change moved {n}")
    print(f"  reclustered once more, without a change: {n} items moved ({sight.answer}) {verdict}")
    report.add("again", {"clusters": sight.plan.n_clusters, "order": sight.plan.order, "moved": n})


# --- identity ---------------------------------------------------------------------


def kept(before: Sight, after: Sight, peers: Peers) -> tuple[dict[str, Any], float]:
    """The share of the items with unchanged neighbours that kept their cluster's id.

    Beside it that of a fit from scratch after each release, whose clusters take over the ids of
    those before as well as overlaps of all shared items allow.
    """
    olds, news = shared(before.state, after.state)
    same = unchanged(before.state, after.state, olds, news, peers)
    stays = before.cluster_ids[olds] == after.cluster_ids[news]
    k = before.plan.n_clusters
    refits = kept_when_aligned(
        peers.fit(before.state, k).labels[olds], peers.fit(after.state, k).labels[news]
    )
    figures = {
        "shared": len(olds),
        "neighbours_unchanged": int(same.sum()),
        "kept": float(stays[same].mean()),
        "kept_of_all_shared": float(stays.mean()),
    }
    return figures, float(refits[same].mean())


def shared(before: State, after: State) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places, in either, of the items that live in both."""
    _, olds, news = np.intersect1d(
        np.array(before.names), np.array(after.names), assume_unique=True, return_indices=True
    )
    return olds, news


def unchanged(
    before: State, after: State, olds: NDArray[np.intp], news: NDArray[np.intp], peers: Peers
) -> NDArray[np.bool_]:
    """Which shared items have the same vector, and the same set of ten nearest others."""
    (old_vectors, old_near), (new_vectors, new_near) = (
        peers.neighbours(before),
        peers.neighbours(after),
    )
    mine = old_vectors[olds]
    sets = (np.sort(old_near[mine], axis=1), np.sort(new_near[new_vectors[news]], axis=1))
    same: NDArray[np.bool_] = (mine == new_vectors[news]) & (sets[0] == sets[1]).all(axis=1)
    return same


# --- sections ---------------------------------------------------------------------


def sections(sights: list[Sight], peers: Peers, report: Report) -> None:
    """Clusters against the sections that Debian's people put the packages in; no target."""
    print("\nAgainst Debian's sections, after the last release (a check of sanity, not a target)")
    print(f"  {'':<44}{'purity':>8}{'NMI':>8}{'B-cubed F1':>12}")
    for sight in sights:
        plan, state = sight.plan, sight.state
        for name, figures in compared(sight, peers):
            text = "".join(
                f"{value:>{width}.3f}"
                for value, width in zip(figures.values(), (8, 8, 12), strict=True)
            )
            print(f"  K = {plan.n_clusters:<4} {name:<35}{text}")
            report.add(
                "sections",
                {"clusters": plan.n_clusters, "release": state.release, "what": name, **figures},
            )


def compared(sight: Sight, peers: Peers) -> Iterator[tuple[str, dict[str, float]]]:
    """Eddy's clusters, and those of a fit from scratch."""
    state, k = sight.state, sight.plan.n_clusters
    yield f"Eddy, {sight.plan.order} order", agreement(sight.labels, state.sections)
    yield "scikit-learn, from scratch", agreement(peers.fit(state, k).labels, state.sections)
