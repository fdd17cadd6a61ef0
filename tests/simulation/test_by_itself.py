"""What the model does without being asked: follow, alarm, fit anew, grow, fade."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.clustering.drift.policy import DriftPolicy
from tests.simulation.judge import assigned, judge, newest_model
from tests.simulation.test_commands import CORNERS, lineage, n_changes, of_type, put
from tests.simulation.test_commands import world_of_corners as world_of
from tests.simulation.world import World

pytestmark = pytest.mark.sim


def alarms(world):
    (records,) = world.committed(world.topics.drift)
    return [json.loads(record.value) for record in records]


def test_centroids_follow_their_members_and_say_who_moved():
    world, inputs = world_of()
    put(world, 1, [21, 0, 0])  # just nearer to the second corner
    world.settle()
    moved = n_changes(world)

    for i in range(0, 80, 4):  # the first one comes closer
        put(world, i, np.array([16, 0, 0]) + world.rng.normal(0, 1, 3))
    world.settle()

    _, _, manifest = newest_model(world)
    assert manifest["epoch"] == 1
    assert manifest["revision"] > 0
    changes = [
        json.loads(record.value)
        for records in world.committed(world.topics.changes)
        for record in records
    ]
    (told,) = [change for change in changes if change["cause"] == "model"]
    assert (told["item"], told["source"]["offset"] > 0) == ("item-1", True)
    assert n_changes(world) == moved + 1
    judge(world, inputs)


def test_neither_centroids_nor_fits_wait_for_a_clock_that_was_set_back():
    world, inputs = world_of(recluster={"max_updates": 60, "min_interval_s": 1})
    world.ahead_s = 86_400.0
    for i in range(80):
        put(world, i, CORNERS[i % 4] + world.rng.normal(0, 2, 3))
    world.settle(ahead_s=86_400.0)
    for i in range(1, 80, 4):  # too few for a fit
        put(world, i, CORNERS[1] + [4, 0, 0])
    world.settle(ahead_s=86_400.0)
    before = newest_model(world)[2]
    assert (before["epoch"], before["revision"]) > (2, 0)  # both are of tomorrow

    for i in range(0, 80, 4):
        put(world, i, CORNERS[0] + [4, 0, 0])
    world.settle()
    assert newest_model(world)[2]["epoch"] == before["epoch"]
    judge(world, inputs)

    for i in range(80):
        put(world, i, CORNERS[i % 4] + world.rng.normal(0, 3, 3))
    world.settle()
    assert newest_model(world)[2]["epoch"] > before["epoch"]
    judge(world, inputs)


def test_without_tier_2_no_centroid_moves():
    world, inputs = world_of(follows=False)
    before = newest_model(world)
    for i in range(0, 80, 4):
        put(world, i, CORNERS[0] + 5)

    world.settle()

    assert newest_model(world)[2] == before[2]
    judge(world, inputs)


def test_a_change_of_traffic_raises_an_alarm_that_names_the_cluster_and_asks_for_a_fit():
    world, inputs = world_of(recluster={"on_drift": True}, drift=DriftPolicy(arl0=1000, window=40))
    # the charts have seen the stream as it is
    for _ in range(3):
        for i in world.rng.permutation(80):
            put(world, i, CORNERS[i % 4] + world.rng.normal(0, 1, 3))
        world.settle()
    assert not alarms(world)

    for _ in range(4):
        for i in range(0, 80, 4):
            put(world, i, CORNERS[0] + world.rng.normal(0, 1, 3))
            put(world, i, CORNERS[0] + world.rng.normal(0, 1, 3))
        world.settle()

    raised = [a for a in alarms(world) if a["state"] == "raised" and a["signal"] == "occupancy"]
    ids, centroids, _ = newest_model(world)
    cluster = ids[int(((centroids - CORNERS[0]) ** 2).sum(axis=1).argmin())]
    assert raised[0]["clusters"][0] == cluster
    attempts = [e for e in lineage(world) if e["type"] in ("installed", "rejected")]
    assert len(attempts) > 1
    judge(world, inputs)


def test_reassignments_that_a_model_caused_never_ask_for_another_model():
    world, _ = world_of(
        recluster={"max_updates": 90, "min_gain": 0.005, "on_drift": True, "min_interval_s": 1}
    )
    for i in range(80):  # all of it moves once
        put(world, i, CORNERS[(i + 1) % 4] + world.rng.normal(0, 3, 3))
    world.settle()

    for _ in range(300):  # and then nothing is written for a long time
        world.now_s += 5.0
        world.turn_reclusterer()
        world.turn("a0")
        world.turn("a1")

    attempts = [e for e in lineage(world) if e["type"] in ("installed", "rejected")]
    assert len(attempts) <= 4


def test_auto_takes_in_a_dense_group_far_from_everything_as_a_cluster():
    world = World(3, n_clusters="auto")
    world.crash_rate = 0.0
    world.start_assigner("a0")
    world.start_reclusterer()
    for i in range(400):
        put(world, i, CORNERS[i % 4] + world.rng.normal(0, 1, 3))
    world.settle()
    n = len(newest_model(world)[0])

    for i in range(1000, 1030):
        put(world, i, np.array([0, 0, 90]) + world.rng.normal(0, 0.5, 3))
    world.settle()
    for _ in range(30):
        world.now_s += 1.0
        world.turn_reclusterer()
    world.settle()

    (installed,) = [e for e in lineage(world) if e.get("reason") == "births"]
    born = [e["cluster"] for e in of_type(lineage(world), "born")][n:]
    assert installed["model"]["epoch"] > 1
    assert len(born) == 1
    found = {k: v["cluster"] for p in range(3) for k, v in assigned(world, p).items()}
    assert {found[f"item-{i}"] for i in range(1000, 1030)} == set(born)


def test_one_item_far_away_founds_nothing_however_often_it_speaks():
    world = World(3, n_clusters="auto")
    world.crash_rate = 0.0
    world.start_assigner("a0")
    world.start_reclusterer()
    for i in range(400):
        put(world, i, CORNERS[i % 4] + world.rng.normal(0, 1, 3))
    world.settle()

    for _ in range(60):
        put(world, 1000, np.array([0, 0, 90]) + world.rng.normal(0, 0.5, 3))
        world.now_s += 1.0
        world.turn_reclusterer()
    world.settle()

    assert not [e for e in lineage(world) if e.get("reason") == "births"]


def test_where_items_fade_the_centroid_is_where_the_young_ones_are():
    world, _ = world_of(half_life_s=100.0)
    world.now_s += 1000.0  # ten half-lives: the old hardly count
    ages = np.arange(0, 80, 8)
    for i in ages:  # half of the first corner
        put(world, i, CORNERS[0] + [4, 4, 0])

    world.settle()

    centroids = newest_model(world)[1]
    nearest = ((centroids - (CORNERS[0] + [4, 4, 0])) ** 2).sum(axis=1).min()
    assert nearest < 0.1
