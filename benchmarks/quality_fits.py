"""How good a recluster is beside a fit from nothing: ``quality_fits.py FOLDER`` (the full set).

Releases one after the other, each reclustered once from the model of the one before, whose
centroids have meanwhile followed their members (a few passes of Lloyd stand for tier 2). The
inertia stands beside scikit-learn's k-means, the best of three starts, fitted from nothing on the
same items; the target is at most 0.2 % above it. Once more from a bad start, k-means on the first
records in sorted order; the target is 0.5 %. Then the judge: what a candidate is said to save
beside what it saves on items that neither it nor the incumbent has ever seen.

No broker, no engine: arrays alone, so this is the quick look after a change of how fits are made.
The peer takes longest by far: ``--cache FOLDER`` keeps what it found.
"""

from __future__ import annotations

import argparse
import sys
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np

from benchmarks._debian import State, read, states
from benchmarks._peers import Peers
from pipeline.clustering.kmeans import fit, inertia
from pipeline.clustering.recluster import Candidate, FitSettings, propose
from pipeline.kernels.contract import Points
from pipeline.kernels.cpu.twin import CpuKernels

TARGET = 0.002
TARGET_FROM_FIRST = 0.005
N_FIRST = 5000
TIER_2_PASSES = 4
KERNELS = CpuKernels()


def settings(n_clusters: int, seed: int) -> FitSettings:
    return FitSettings(n_clusters, seed, 300, 256.0, spherical=False)


def followed(points: Points, centroids: Points) -> Points:
    """Centroids that have followed their members, nearly to the end."""
    return fit(
        points,
        len(centroids),
        kernels=KERNELS,
        seed=0,
        start=centroids,
        max_iterations=TIER_2_PASSES,
        max_component=256.0,
    ).centroids


def reclustered(
    state: State, peers: Peers, incumbent: Points | None, told: FitSettings, target: float
) -> tuple[Candidate, bool]:
    """One recluster, as a line of the table; and whether it met the target."""
    peer = peers.fit(state, told.n_clusters).inertia
    points = peers.vectors[state.rows]
    started = time.monotonic()
    found = propose(points, incumbent, told, kernels=KERNELS)
    took_s = time.monotonic() - started
    gap = found.inertia_after / peer - 1
    before = "" if found.inertia_before is None else f"{found.inertia_before / peer - 1:+.2%}"
    moved = "" if incumbent is None else f"{found.alignment.moved:.1%}"
    is_met = gap <= target
    print(
        f"{told.n_clusters:4} {told.seed:4} {state.release:<10} {before:>7} {gap:+7.2%} "
        f"{found.gain:7.2%} {moved:>6} {took_s:6.1f} {found.n_iterations:6}"
        + ("" if is_met else "  MISSED"),
        flush=True,
    )
    return found, is_met


def chain(found: list[State], peers: Peers, told: FitSettings) -> bool:
    """One recluster a release, each from the model of the one before."""
    centroids: Points | None = None
    is_met = True
    for state in found:
        points = peers.vectors[state.rows]
        incumbent = None if centroids is None else followed(points, centroids)
        candidate, is_this_met = reclustered(state, peers, incumbent, told, TARGET)
        is_met &= is_this_met
        centroids = candidate.centroids
    return is_met


def from_first(state: State, peers: Peers, told: FitSettings) -> bool:
    """A model of the first items in sorted order, and one recluster when all are there."""
    points = peers.vectors[state.rows]
    first = fit(
        points[:N_FIRST], told.n_clusters, kernels=KERNELS, seed=told.seed, max_component=256.0
    )
    incumbent = followed(points, first.centroids)
    return reclustered(state, peers, incumbent, told, TARGET_FROM_FIRST)[1]


def judge(before: State, after: State, vectors: Points, told: FitSettings) -> None:
    """A fifth of the items never come in; what a candidate saves there is what it saves."""
    old, new = (np.array([is_unseen(name) for name in s.names]) for s in (before, after))
    first = propose(vectors[before.rows[~old]], None, told, kernels=KERNELS)
    points, unseen = vectors[after.rows[~new]], vectors[after.rows[new]]
    incumbent = followed(points, first.centroids)
    found = propose(points, incumbent, told, kernels=KERNELS)
    there = 1 - inertia(unseen, found.centroids, KERNELS) / inertia(unseen, incumbent, KERNELS)
    change = f"{before.release} > {after.release}"
    print(
        f"{told.n_clusters:4} {told.seed:4} {change:<22} {found.gain:7.2%} {there:7.2%}",
        flush=True,
    )


def is_unseen(name: str) -> bool:
    return blake2b(name.encode(), digest_size=2).digest()[0] % 5 == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clusters", type=int, nargs="+", default=[58, 100, 500])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cache", type=Path, help="keep what scikit-learn computed in this folder")
    options = parser.parse_args()

    packages = read(options.folder)
    found, peers, is_met = list(states(packages)), Peers(packages.vectors, options.cache), True
    runs = [settings(k, seed) for k in options.clusters for seed in options.seeds]
    head = f"{'K':>4} seed {'release':<10} {'before':>7} {'gap':>7} {'gain':>7}"
    print(f"{head} {'moved':>6} {'s':>6} passes\none recluster a release, gap at most {TARGET:.1%}")
    for told in runs:
        is_met &= chain(found, peers, told)
    print(f"from the first {N_FIRST} in sorted order, gap at most {TARGET_FROM_FIRST:.1%}")
    for told in runs:
        is_met &= from_first(found[-1], peers, told)
    print(f"\n{'K':>4} seed {'incumbent > candidate':<22} {'told':>7} {'unseen':>7}")
    for told in runs:
        judge(found[-1], found[-1], packages.vectors, told)
        judge(found[-2], found[-1], packages.vectors, told)
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
