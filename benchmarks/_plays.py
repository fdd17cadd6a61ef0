"""The releases played through Eddy in one process, and what is seen at the end of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks._debian import State, ordered, states
from benchmarks._figures import distances_squared, n_stale
from benchmarks._inprocess import InProcess, Moves, Picture
from pipeline.cli.demo.debian import Change, Packages
from pipeline.clustering.centroids import CentroidPolicy
from pipeline.clustering.drift.policy import DriftPolicy
from pipeline.clustering.kmeans import ClusteringPolicy
from pipeline.clustering.schedule import ReclusterPolicy
from pipeline.config import Config
from pipeline.kernels.contract import Kernels
from pipeline.messages.events import Lifecycle
from pipeline.messages.policy import EmbeddingPolicy
from pipeline.streams.topics import TopicPolicy

PARTITIONS: Final = 3
RECORDS_A_TURN: Final = 500
"""Between two turns, which are a second apart: what a revision has to keep up with."""
NEVER_S: Final = 1e12


@dataclass(frozen=True, slots=True)
class Plan:
    """How a stream is played."""

    n_clusters: int
    order: str
    first_fit: int | None
    """Items that the first model is fitted on; None: all of the first release."""
    reclusters: bool
    """One command at the end of each release; else nothing but tier 2 after the first model."""
    follows: bool = True
    """Whether centroids follow their members: the controls switch it off."""
    force: bool = False
    """Publish what a command found however little it saves."""
    min_gain: float = ReclusterPolicy().min_gain
    """Else the share of the inertia below which a recluster is not published."""
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """A release at rest: the topics against what lives."""

    plan: Plan
    state: State
    picture: Picture
    labels: NDArray[np.intp]  # (n,) in the order of the state's names
    inertia: float
    """Members to their published centroids."""
    stale: int
    """Members that lie nearer to another centroid."""
    moves: Moves
    """By models, since the release began."""
    answer: str
    """To the command; empty without one."""
    is_again: bool = False
    """After a second command, which no change came before."""

    @property
    def cluster_ids(self) -> NDArray[np.str_]:
        """(n,) of the items."""
        ids: NDArray[np.str_] = np.array(self.picture.model.manifest.clusters)[self.labels]
        return ids


def played(packages: Packages, plan: Plan, kernels: Kernels) -> Iterator[Sight]:
    """What is seen after each release, and with reclusters once more after another one.

    Raises
    ------
    RestlessError
    """
    releases = list(ordered(packages, plan.order).releases())
    n_first = len({change.package for change in releases[0][1]})
    eddy = InProcess(_config(packages, plan, n_first), kernels)
    for (_, changes), state in zip(releases, states(packages), strict=True):
        _write(eddy, packages, changes)
        eddy.rest()
        answers = eddy.command(force=plan.force) if plan.reclusters else []
        yield seen(eddy, packages, plan, state, answers)
    if plan.reclusters:
        yield seen(eddy, packages, plan, state, eddy.command(), is_again=True)


def seen(
    eddy: InProcess,
    packages: Packages,
    plan: Plan,
    state: State,
    answers: Sequence[Lifecycle] = (),
    *,
    is_again: bool = False,
) -> Sight:
    """The topics as they are now; every live package must have its assignment, and nothing else."""
    picture = eddy.picture()
    assert picture.clusters.keys() == set(state.names), "assignments are not those of what lives"
    labels, points = picture.labels(state.names), packages.vectors[state.rows]
    centroids = picture.model.centroids
    return Sight(
        plan=plan,
        state=state,
        picture=picture,
        labels=labels,
        inertia=float(distances_squared(points, centroids, labels).sum()),
        stale=n_stale(points, centroids, labels),
        moves=eddy.taken_moves(),
        answer="; ".join(
            f"{event.type}, {event.reason}" if event.reason else str(event.type)
            for event in answers
            if event.cluster is None
        ),
        is_again=is_again,
    )


def _write(eddy: InProcess, packages: Packages, changes: Sequence[Change]) -> None:
    for start in range(0, len(changes), RECORDS_A_TURN):
        for change in changes[start : start + RECORDS_A_TURN]:
            vector = None if change.row < 0 else packages.vectors[change.row]
            eddy.write(change.package, vector)
        eddy.turn()


def _config(packages: Packages, plan: Plan, n_first: int) -> Config:
    """As a user would have it, but that nothing but a command asks for a fit."""
    return Config(
        topics=TopicPolicy(input="packages", prefix="e.", partitions=PARTITIONS),
        embedding=EmbeddingPolicy(dimensions=packages.vectors.shape[1]),
        clustering=ClusteringPolicy(clusters=plan.n_clusters, seed=plan.seed),
        centroids=CentroidPolicy(enabled=plan.follows),
        recluster=ReclusterPolicy(
            bootstrap_items=min(plan.first_fit or n_first, n_first),
            bootstrap_max_wait_s=NEVER_S,
            max_updates=10**12,
            max_age_s=math.inf,
            max_inertia_growth=None,
            min_gain=plan.min_gain,
            on_drift=False,
        ),
        drift=replace(DriftPolicy(), enabled=False),
    )
