"""The two barriers of a restore, and what becomes of those who slept through a rebalance.

Wrong memory writes perfect events for a while: it shows only when an item is touched again, so
every item gets one more record before the verdict.
"""

from __future__ import annotations

import json

import pytest

from pipeline.errors import AbortedError
from pipeline.messages.records import Outgoing
from pipeline.services.assigner import Assigner
from pipeline.streams.memory import Stage
from tests.simulation.judge import judge
from tests.simulation.sleep import (
    A_BATCH,
    ReadsChangelogsFirst,
    SleepyWorld,
    StopsAtTheFirstEnd,
)
from tests.simulation.test_simulation import Inputs
from tests.simulation.world import World

pytestmark = pytest.mark.sim

SEEDS = range(200, 216)


def changelogs_first(broker, stream, engine, *rest):
    """An assigner with its barriers in the wrong order."""
    wrong = ReadsChangelogsFirst(broker, stream, engine.settings.topics)
    return Assigner(wrong, wrong, engine, *rest)


def first_end(broker, stream, engine, *rest):
    """An assigner whose second barrier is none."""
    return Assigner(StopsAtTheFirstEnd(broker, engine.settings.topics), stream, engine, *rest)


def play(seed, *, n_steps=100, assigner=Assigner):
    """A history with sleepers and late markers; then every item is touched once more."""
    world = SleepyWorld(seed, assigner=assigner)
    inputs = Inputs(world)
    for instance in ("a0", "a1", "a2"):
        world.start_assigner(instance)
    world.start_reclusterer()
    world.write(15)
    world.settle()  # without a model nobody restores
    world.live(n_steps)
    world.settle()
    world.touch_every_item()
    world.settle()
    return world, inputs.records


@pytest.mark.parametrize("seed", SEEDS)
def test_memory_is_right_after_sleepers_and_late_markers(seed):
    world, inputs = play(seed)

    judge(world, inputs)


def test_histories_sleep_at_every_stage_of_a_commit():
    slept = [stage for seed in SEEDS[:4] for stage in play(seed)[0].slept]

    assert set(slept) == set(Stage)


@pytest.mark.parametrize("wrong", [changelogs_first, first_end])
def test_control_wrong_barriers_are_caught(wrong):
    caught = []
    for seed in SEEDS:
        try:
            judge(*play(seed, assigner=wrong))
        except (AssertionError, KeyError, ValueError) as error:
            caught.append((seed, error))

    assert len(caught) >= 2


# --- the smallest history of each kind ------------------------------------------------------------


def two_assigners(assigner=Assigner):
    """A world at rest with a model, and the slot that owns the partition of item-0."""
    world = World(3, assigner=assigner)
    world.broker.batch_sizes = None
    inputs = Inputs(world)
    world.start_assigner("a0")
    world.start_assigner("a1")
    world.start_reclusterer()
    world.write(60)
    world.settle()
    (owner,) = (i for i, a in world.assigners.items() if 0 in a.engine.partitions)
    return world, inputs, owner
