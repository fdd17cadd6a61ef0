"""What people ask of the model, from the command's record to the last event about it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.messages.codec import encode_vector
from tests.simulation.judge import assigned, judge, newest_model
from tests.simulation.test_simulation import Inputs
from tests.simulation.world import Crash, World

pytestmark = pytest.mark.sim

CORNERS = np.array([[0, 0, 0], [40, 0, 0], [0, 40, 0], [40, 40, 0]], np.float32)


def world_of_corners(n_items=80, **settings):
    """Four clusters that nobody can mistake, and a model of them, at rest."""
    world = World(1, **settings)
    world.crash_rate = 0.0
    inputs = Inputs(world)
    world.start_assigner("a0")
    world.start_assigner("a1")
    world.start_reclusterer()
    for i in range(n_items):
        put(world, i, CORNERS[i % 4] + world.rng.normal(0, 1, 3))
    world.settle()
    return world, inputs.records


def put(world, i, vector):
    world.now_s += 0.01
    value = encode_vector(np.asarray(vector, np.float32))
    partition = i % world.topics.partitions
    ms = int(world.now_s * 1000)
    world.broker.append(world.topics.input, partition, b"item-%d" % i, value, (), ms)


def lineage(world, n=0):
    """The lifecycle events, from the n-th on."""
    (records,) = world.committed(world.topics.lifecycle)
    return [json.loads(record.value) for record in records][n:]


def asked(world, type, **fields):
    """The events that a command caused, and how many items moved for it."""
    n, moved = len(lineage(world)), n_changes(world)
    world.command(type, **fields)
    world.settle()
    return lineage(world, n), n_changes(world) - moved


def n_changes(world):
    return sum(len(records) for records in world.committed(world.topics.changes))


def of_type(events, kind):
    return [event for event in events if event["type"] == kind]


def corner_of(world, corner):
    """The cluster at a corner."""
    ids, centroids, _ = newest_model(world)
    return ids[int(((centroids - CORNERS[corner]) ** 2).sum(axis=1).argmin())]


def test_a_split_cluster_keeps_its_id_in_the_larger_half():
    world, inputs = world_of_corners()
    cluster = corner_of(world, 0)

    events, moved = asked(world, "split", cluster=cluster)

    (split,) = of_type(events, "split")
    (born,) = of_type(events, "born")
    assert split["children"] == [cluster, born["cluster"]]
    assert born["parents"] == [cluster]
    assert born["cluster"] == "c5"
    assert 0 < moved <= 10  # of twenty items the smaller half
    assert {event["command"] for event in events} == {"command-1"}
    judge(world, inputs)


def test_merged_clusters_go_on_as_one_and_nobody_else_moves():
    world, inputs = world_of_corners()
    one, other = corner_of(world, 0), corner_of(world, 1)

    events, moved = asked(world, "merge", clusters=[one, other])

    (merged,) = of_type(events, "merged")
    (retired,) = of_type(events, "retired")
    assert {merged["cluster"], retired["cluster"]} == {one, other}
    assert retired["children"] == [merged["cluster"]]
    assert moved == 20
    judge(world, inputs)


def test_a_rollback_brings_ids_back_under_a_new_epoch():
    world, inputs = world_of_corners()
    before = [{k: v["cluster"] for k, v in assigned(world, p).items()} for p in range(3)]
    asked(world, "merge", clusters=[corner_of(world, 0), corner_of(world, 1)])
    (retired,) = of_type(lineage(world), "retired")

    events, moved = asked(world, "rollback", epoch=1)

    (restored,) = of_type(events, "restored")
    assert restored["cluster"] == retired["cluster"]
    assert not of_type(events, "born")
    assert newest_model(world)[2]["epoch"] == 3
    assert moved == 20
    after = [{k: v["cluster"] for k, v in assigned(world, p).items()} for p in range(3)]
    assert after == before
    judge(world, inputs)


def test_a_number_is_never_used_again_also_not_after_a_rollback():
    world, inputs = world_of_corners()
    asked(world, "split", cluster=corner_of(world, 0))
    asked(world, "rollback", epoch=1)

    events, _ = asked(world, "split", cluster=corner_of(world, 1))

    assert [event["cluster"] for event in of_type(events, "born")] == ["c6"]
    judge(world, inputs)


def test_a_label_sticks_to_its_id_and_follows_the_largest_heir():
    world, inputs = world_of_corners(n_items=81)
    one, other = corner_of(world, 0), corner_of(world, 1)  # one item more in the first
    events, moved = asked(world, "label", cluster=other, label="south")
    assert (events[0]["type"], events[0]["label"], moved) == ("labelled", "south", 0)

    events, _ = asked(world, "merge", clusters=[one, other])

    (labelled,) = of_type(events, "labelled")
    assert (labelled["cluster"], labelled["label"]) == (one, "south")
    (records,) = world.committed(world.topics.model)
    labels = {r.key.decode(): json.loads(r.value) for r in records if r.key.startswith(b"label:")}
    assert labels[f"label:{one}"] == {"label": "south"}
    judge(world, inputs)


def test_an_epoch_that_is_kept_no_longer_is_removed_once_and_nobody_goes_back_to_it():
    world, inputs = world_of_corners()
    for _ in range(5):  # two epochs are kept
        asked(world, "recluster", force=True)

    events, moved = asked(world, "rollback", epoch=1)

    assert [event["reason"] for event in of_type(events, "rejected")] == [
        "epoch 1 is not kept: 5, 6 are"
    ]
    assert moved == 0
    (records,) = world.committed(world.topics.model)
    removed = [r.key for r in records if r.value is None and not r.key.startswith(b"label:")]
    assert {key.partition(b"/")[0] for key in removed} == {b"1", b"2", b"3", b"4"}
    assert len(removed) == len(set(removed)) == 4 * (1 + 4)
    judge(world, inputs)


def test_a_label_goes_once_no_kept_epoch_has_its_cluster():
    world, inputs = world_of_corners()
    one, other = corner_of(world, 0), corner_of(world, 1)
    asked(world, "label", cluster=one, label="a")
    asked(world, "label", cluster=other, label="b")
    asked(world, "merge", clusters=[one, other])
    (gone,) = [e["cluster"] for e in of_type(lineage(world), "retired")]

    for _ in range(3):  # two epochs are kept
        asked(world, "recluster", force=True)

    (records,) = world.committed(world.topics.model)
    newest = {record.key: record.value for record in records}
    assert newest[f"label:{gone}".encode()] is None
    judge(world, inputs)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ({"type": "split", "cluster": "c99"}, "c99 is no cluster of model 1"),
        ({"type": "merge", "clusters": ["c1", "c98"]}, "c98 is no cluster of model 1"),
        ({"type": "label", "cluster": "c97", "label": "x"}, "c97 is no cluster of model 1"),
        ({"type": "rollback", "epoch": 7}, "epoch 7 is not kept"),
        ({"type": "rollback", "epoch": 1}, "epoch 1 is the newest one"),
    ],
)
def test_what_cannot_be_done_is_answered_with_the_reason(command, reason):
    world, inputs = world_of_corners()

    events, moved = asked(world, **command)

    assert [event["type"] for event in events] == ["rejected"]
    assert events[0]["reason"].startswith(reason)
    assert moved == 0
    judge(world, inputs)


def test_a_cluster_in_one_place_cannot_be_split():
    world, inputs = world_of_corners(n_items=0)
    for i in range(20):
        put(world, i, CORNERS[i % 4])
    world.settle()

    events, _ = asked(world, "split", cluster="c1")

    assert events[0]["type"] == "rejected"
    assert "two places" in events[0]["reason"]
    judge(world, inputs)


@pytest.mark.parametrize("kill_at", range(8))
def test_a_reclusterer_killed_at_any_point_leaves_no_half_model(kill_at):
    world, inputs = world_of_corners()
    n_stages = 0

    def between(_stage, stream):
        nonlocal n_stages
        if stream is world.reclusterer.stream:
            n_stages += 1
            if n_stages == kill_at + 1:
                world.broker.crash(stream)
                raise Crash

    world.broker.between = between
    put(world, 0, CORNERS[0] + 3)
    world.command("split", cluster=corner_of(world, 0))
    world.command("recluster", force=True)
    world.settle()

    assert len(of_type(lineage(world), "split")) == 1
    assert len({e["command"] for e in lineage(world)} - {None}) == 2
    judge(world, inputs)


def test_with_k_fixed_a_recluster_after_a_split_returns_to_k_and_ids_survive():
    world, inputs = world_of_corners()
    before = set(newest_model(world)[0])
    asked(world, "split", cluster=corner_of(world, 0))

    events, _ = asked(world, "recluster")

    assert len(newest_model(world)[0]) == 4
    assert len(before & set(newest_model(world)[0])) >= 3
    assert of_type(events, "installed")[0]["reason"] == "command"
    judge(world, inputs)
