"""Random histories with crashes, aborts, rebalances and compaction, replayable by their seed."""

from __future__ import annotations

import pytest

from pipeline.services.assigner import Assigner
from tests.simulation.judge import judge
from tests.simulation.world import World

SEEDS = range(25)


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
@pytest.mark.parametrize("seed", range(100, 115))
def test_ghosts_of_a_cleaner_that_overtakes_the_assigners_do_no_harm(seed):
    world, inputs = play(seed, compacts_unread=True)

    judge(world, inputs)


class InstallsFirst(Assigner):
    """Control: the order that loses events when a transaction aborts."""

    def _transact(self, changes):
        self.engine.install(changes)
        changes.partitions.clear()
        return super()._transact(changes)


@pytest.mark.sim
def test_control_an_install_before_the_commit_is_caught():
    caught = []
    for seed in range(16):
        try:
            judge(*play(seed, assigner=InstallsFirst))
        except (AssertionError, KeyError, ValueError) as error:
            caught.append(error)

    assert len(caught) >= 2
