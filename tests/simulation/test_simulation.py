"""Random histories with crashes, aborts, rebalances and compaction, replayable by their seed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.services.assigner.process import Assigner
from pipeline.streams.memory import Fault
from tests.simulation.judge import judge
from tests.simulation.seeds import seeds
from tests.simulation.world import World

SEEDS = seeds(0, 25, usual=8)


def play(seed, *, n_steps=150, **settings):
    world = World(seed, **settings)
    world.start_assigner("a0")
    world.start_assigner("a1")
    world.start_reclusterer()
    inputs = Inputs(world)
    world.live(n_steps)
    world.write(10)  # so that there is a model to be made in every history
    world.settle()
    return world, inputs.records


class Inputs:
    """The input as users wrote it: compaction takes nothing away from the judge."""

    def __init__(self, world):
        self.records = [[] for _ in range(world.topics.partitions)]
        append = world.broker.append

        def noted(topic, partition, *rest):
            offset = append(topic, partition, *rest)
            if topic == world.topics.input:
                self.records[partition].append(world.broker.records(topic, partition)[-1])
            return offset

        world.broker.append = noted


@pytest.mark.sim
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("compacted", [True, False], ids=["compact", "delete"])
def test_every_invariant_holds_after_any_history(seed, compacted):
    world, inputs = play(seed, compacted=compacted)

    judge(world, inputs)


@pytest.mark.sim
@pytest.mark.parametrize("seed", seeds(200, 210, usual=4))
def test_every_invariant_holds_under_cosine_and_with_metadata(seed):
    world, inputs = play(seed, metric="cosine", metadata=("kind",))

    judge(world, inputs)


@pytest.mark.sim
@pytest.mark.parametrize("seed", seeds(300, 305, usual=3))
def test_metadata_comes_back_after_restarts(seed):
    world, inputs = play(seed, metadata=("kind",))
    kinds = {}
    for records in inputs:
        for record in records:
            for name, value in record.headers:
                if name == "eddy-metadata":
                    kinds[record.partition, record.offset] = json.loads(value)

    for p, records in enumerate(world.committed(world.topics.changes)):
        for event in (json.loads(record.value) for record in records):
            if event["to"] is not None:
                assert event["metadata"] == kinds[p, event["source"]["offset"]]


@pytest.mark.sim
@pytest.mark.parametrize("seed", seeds(400, 410, usual=4))
def test_under_one_model_the_events_are_those_of_a_world_without_faults(seed):
    def history(is_kind):
        world = World(seed, n_clusters=4, follows=False)
        world.start_reclusterer()
        world.write(30)
        while world.reclusterer.model is None:
            world.turn_reclusterer()
        world.start_assigner("a0")
        rng = world.rng
        world.rng = np.random.default_rng(seed + 1)  # the same records in both worlds
        world.write(120)
        world.rng = rng
        world.crash_rate = 0.0 if is_kind else 0.03
        if not is_kind:
            for at in range(0, 60, 5):
                world.broker.faults[world.broker.n_commits + at] = str(rng.choice(list(Fault)))
            for _ in range(60):
                world.turn("a0")
        world.settle()
        return [
            [(record.key, record.value) for record in records]
            for topic in (world.topics.changes, world.topics.assignments)
            for records in world.committed(topic)
        ]

    assert history(is_kind=False) == history(is_kind=True)


@pytest.mark.sim
@pytest.mark.parametrize("seed", range(3))
def test_reclustering_identical_data_moves_nobody(seed):
    world = World(seed, min_gain=0.005)
    world.crash_rate = 0.0
    world.start_assigner("a0")
    world.start_reclusterer()
    world.write(200)
    world.settle()
    world.command()
    world.settle()  # the first fit saw the beginning only; this one may win
    before = [len(records) for records in world.committed(world.topics.changes)]

    world.command()
    world.settle()

    assert [len(records) for records in world.committed(world.topics.changes)] == before
    (lineage,) = world.committed(world.topics.lifecycle)
    last = json.loads(lineage[-1].value)
    assert (last["type"], last["command"]) == ("rejected", "command-2")


@pytest.mark.sim
@pytest.mark.parametrize("seed", seeds(100, 115, usual=6))
def test_ghosts_of_a_cleaner_that_overtakes_the_assigners_do_no_harm(seed):
    world, inputs = play(seed, compacts_unread=True)

    judge(world, inputs)


class InstallsFirst(Assigner):
    """Control: the order that loses events when a transaction aborts."""

    def _transact(self, changes, trace=None):
        self.engine.install(changes)
        changes.partitions.clear()
        return super()._transact(changes, trace)


@pytest.mark.sim
def test_control_an_install_before_the_commit_is_caught():
    caught = []
    for seed in range(32):
        try:
            judge(*play(seed, assigner=InstallsFirst))
        except (AssertionError, KeyError, ValueError) as error:
            caught.append(error)
        if len(caught) == 2:
            return

    raise AssertionError(f"caught {caught}")


@pytest.mark.sim
@pytest.mark.parametrize("seed", seeds(800, 815, usual=5))
@pytest.mark.parametrize("compacted", [True, False], ids=["compact", "delete"])
def test_every_invariant_holds_where_members_fade(seed, compacted):
    world, inputs = play(seed, compacted=compacted, half_life_s=4.0)
    judge(world, inputs)
    before = forgetting(world)

    world.now_s += 8 * 4.0
    world.crash_rate = 0.02
    world.live(40)
    world.settle()

    assert forgetting(world)["landmark"] > before["landmark"]
    judge(world, inputs)


@pytest.mark.sim
@pytest.mark.parametrize("seed", seeds(850, 858, usual=3))
def test_forgetting_may_be_switched_on_and_off(seed):
    world, inputs = play(seed, compacted=bool(seed % 2), n_steps=80)

    for half_life_s in (4.0, 60.0, None):
        world.half_life_s = half_life_s
        world.start_reclusterer()
        world.crash_rate = 0.02
        world.live(40)
        world.settle()
        judge(world, inputs)
        told = forgetting(world)
        assert half_life_s == (None if told is None else told["half_life_s"])


def forgetting(world):
    (records,) = world.committed(world.topics.model)
    return json.loads([r.value for r in records if r.key == b"manifest"][-1])["forgetting"]
