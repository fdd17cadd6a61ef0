"""The two barriers of a restore, and what becomes of those who slept through a rebalance.

Wrong memory writes perfect events for a while: it shows only when an item is touched again, so
every item gets one more record before the verdict.
"""

from __future__ import annotations

import json

import pytest

from pipeline.errors import AbortedError
from pipeline.messages.records import Outgoing
from pipeline.services.assigner.pace import SlicePace
from pipeline.services.assigner.process import Assigner
from pipeline.streams.memory import Stage
from tests.simulation.judge import judge
from tests.simulation.seeds import seeds
from tests.simulation.sleep import (
    A_BATCH,
    ReadsChangelogsFirst,
    SleepyWorld,
    StopsAtTheFirstEnd,
    have_a_sweep_come_first,
)
from tests.simulation.test_simulation import Inputs

pytestmark = pytest.mark.sim

SEEDS = seeds(200, 216, usual=6)


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
    slept = [stage for seed in range(200, 204) for stage in play(seed)[0].slept]

    assert set(slept) == set(Stage)


@pytest.mark.parametrize("wrong", [changelogs_first, first_end])
def test_control_wrong_barriers_are_caught(wrong):
    caught = []
    for seed in range(200, 216):
        try:
            judge(*play(seed, assigner=wrong))
        except (AssertionError, KeyError, ValueError) as error:
            caught.append((seed, error))
        if len(caught) == 2:
            return

    raise AssertionError(f"caught {caught}")


# --- the smallest histories -----------------------------------------------------------------------


class Noted(Assigner):
    """Keeps what became of its transactions: the causes of their events, whether committed."""

    def _transact(self, changes, trace=None):
        outgoing = list(changes.outgoing)
        causes = [json.loads(o.value)["cause"] for o in outgoing if "changes" in o.topic]
        is_committed = super()._transact(changes, trace)
        self.__dict__.setdefault("notes", []).append((causes, is_committed))
        return is_committed


def at_rest(assigner=Assigner):
    """A world with a model and two assigners that have nothing to do."""
    world = SleepyWorld(7, assigner=assigner)
    inputs = Inputs(world)
    for instance in ("a0", "a1"):
        world.start_assigner(instance)
    world.start_reclusterer()
    world.write(60)
    world.settle()
    return world, inputs


def judge_again(world, inputs):
    """The verdict after every item was touched once more."""
    world.settle()
    world.touch_every_item()
    world.settle()
    judge(world, inputs.records)


def test_an_heir_waits_for_the_commit_of_a_sleeper():
    world, inputs = at_rest()

    world.sleep_in_commit("a0", Stage.OFFSETS_SENT, n_queued=A_BATCH)

    judge_again(world, inputs)


def test_control_an_heir_that_read_the_changelogs_before_is_caught():
    world, inputs = at_rest(changelogs_first)

    world.sleep_in_commit("a0", Stage.OFFSETS_SENT, n_queued=A_BATCH)

    with pytest.raises(AssertionError):
        judge_again(world, inputs)


def test_a_batch_of_a_sleeper_is_refused_once_its_partitions_are_somebody_elses():
    world, inputs = at_rest(Noted)
    sleeper = world.assigners["a0"]
    sleeper.__dict__["notes"] = []

    world.sleep_in_commit("a0", Stage.WRITTEN)

    (causes, is_committed), *_ = sleeper.notes
    assert "record" in causes
    assert not any(committed for _, committed in sleeper.notes)
    assert not is_committed
    judge_again(world, inputs)


def test_a_slice_of_a_sweep_is_refused_from_a_sleeper_like_a_batch():
    world, inputs = at_rest(Noted)
    world.touch_every_item()
    world.settle()
    have_a_sweep_come_first(world)
    sleeper = world.assigners["a0"]
    sleeper.sweep_pace = SlicePace()  # all of it in one slice
    sleeper.__dict__["notes"] = []

    for _ in range(world.topics.partitions):  # a slice in which nobody moves commits nothing
        if not world.slept[Stage.WRITTEN]:
            world.sleep_in_commit("a0", Stage.WRITTEN)

    assert ("model" in sleeper.notes[0][0], sleeper.notes[0][1]) == (True, False)
    assert world.slept[Stage.WRITTEN] == 1
    judge_again(world, inputs)


def test_the_contract_refuses_what_would_let_a_sleeper_through():
    world, _ = at_rest()
    stream = world.streams["a0"][-1]

    with pytest.raises(AssertionError, match="without offsets"):
        stream.commit([Outgoing(world.topics.changes, 0, b"item-0", b"{}")], {})


def test_what_is_no_longer_ours_is_refused_by_name():
    world, _ = at_rest()
    world.broker.expire_session(world.streams["a0"][-1])
    (owned, *_) = world.assigners["a0"].engine.partitions

    world.turn_others("a0", 4)

    with pytest.raises(AbortedError) as refused:
        world.streams["a0"][-1].commit([], {owned: 0})
    assert refused.value.code == "UNKNOWN_MEMBER_ID"
