"""How good the clusters are at rest, on a slice of real data: the small form of `make quality`.

The same harness and the same figures, with some 2 000 packages and 20 clusters. Of so few, one fit
differs from the next by more than of many. Measured over three seeds, both orders, all releases and
both ways to play them: gaps of -0.9 % to +0.8 %; centroids that stand still end 1.9 % to 7.0 %
above.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from benchmarks._debian import read, thinned
from benchmarks._gap import kept
from benchmarks._peers import Peers
from benchmarks._plays import Plan, played
from pipeline.kernels.cpu.twin import CpuKernels

N_CLUSTERS = 20
FIRST_ITEMS = 500
MAX_GAP = 0.012
MIN_KEPT = 0.95
"""Measured: 98.3 to 99.7 %; refits from scratch, aligned, 65 to 74 %."""

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def packages():
    return thinned(read(None), 2000)


@pytest.fixture(scope="module")
def peers(packages, tmp_path_factory):
    return Peers(packages.vectors, tmp_path_factory.mktemp("peers"))


def play(packages, order, **settings):
    plan = Plan(N_CLUSTERS, order, **settings)
    return list(played(packages, plan, CpuKernels(threads=1)))


def gaps(sights, peers):
    return [sight.inertia / peers.fit(sight.state, N_CLUSTERS).inertia - 1 for sight in sights]


@pytest.mark.parametrize("order", ["hash", "section"])
def test_with_one_recluster_a_release_the_fit_is_near_one_from_scratch(packages, peers, order):
    *sights, again = play(packages, order, first_fit=FIRST_ITEMS, reclusters=True)

    assert [sight.stale for sight in sights] == [0] * 5
    assert max(gaps(sights, peers)) <= MAX_GAP
    assert sum(again.moves.events.values()) == 0, "nothing had changed since the last recluster"


@pytest.mark.parametrize("order", ["hash", "section"])
def test_centroids_that_only_follow_stay_near_a_fit_from_scratch(packages, peers, order):
    sights = play(packages, order, first_fit=None, reclusters=False)

    assert [sight.stale for sight in sights] == [0] * 5
    assert max(gaps(sights, peers)) <= MAX_GAP
    assert {sight.picture.model.manifest.epoch for sight in sights} == {1}
    for before, after in pairwise(sights):
        own, refits = kept(before, after, peers)
        assert own["kept"] >= MIN_KEPT > refits


def test_control_centroids_that_stand_still_are_noticed(packages, peers):
    sights = play(packages, "section", first_fit=FIRST_ITEMS, reclusters=False, follows=False)

    assert gaps(sights, peers)[-1] > MAX_GAP
