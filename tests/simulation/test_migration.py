"""Another embedding model takes over, in the middle of everything else that may happen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.messages.policy import NextEmbedding
from pipeline.services.assigner.process import Assigner
from tests.simulation.migration import MigrationWorld, judge, judge_unread, verify
from tests.simulation.seeds import seeds
from tests.simulation.sleep import SleepyWorld
from tests.simulation.test_simulation import Inputs

pytestmark = pytest.mark.sim


class SleepyMigrationWorld(MigrationWorld, SleepyWorld):
    """And processes that sleep inside their commits, and markers that are late."""


def begun(seed, *, n_steps=60, share_of_new=0.3, world=MigrationWorld, **settings):
    """A world in which both models are written, and none has enough of the new one."""
    world = world(seed, **settings)
    inputs = Inputs(world)
    for instance in ("a0", "a1"):
        world.start_assigner(instance)
    world.start_reclusterer()
    world.write(40)
    world.live(20)
    world.share_of_new = share_of_new
    world.live(n_steps)
    return world, inputs


def changed(seed, *, n_steps=60, **settings):
    """The same, with the change in the middle of faults, and life after it.

    Where the seed is odd the assigners are far behind when the new model is published.
    """
    world, inputs = begun(seed, n_steps=n_steps, **settings)
    world.share_of_new = 0.8
    world.write_all_next()
    if seed % 2 == 0:
        for _ in range(8):
            for instance in sorted(world.assigners):
                world.turn(instance)
    world.publish_change()
    world.crash_rate = 0.03
    world.live(n_steps)
    world.settle()
    return world, inputs


@pytest.mark.parametrize("seed", seeds(0, 10, usual=4))
def test_before_the_change_the_old_model_stands_as_ever(seed):
    world, inputs = begun(seed, share=1.0)
    world.settle()

    if not world.has_changed:
        judge(world, inputs.records)


@pytest.mark.parametrize("seed", seeds(0, 20, usual=6))
@pytest.mark.parametrize("n_next_dims", [2, 3], ids=["other dimensions", "equal dimensions"])
def test_every_invariant_holds_after_a_change_among_faults(seed, n_next_dims):
    world, inputs = changed(seed, n_next_dims=n_next_dims)

    assert world.has_changed
    judge(world, inputs.records)


@pytest.mark.parametrize("seed", seeds(100, 110, usual=4))
def test_every_invariant_holds_when_all_start_again_with_the_new_name(seed):
    world, inputs = changed(seed, metric="cosine", metadata=("kind",))
    world.speak_new()
    world.crash_rate = 0.02
    world.live(60)
    world.settle()

    judge(world, inputs.records)


@pytest.mark.parametrize("seed", seeds(200, 206, usual=3))
def test_every_invariant_holds_where_members_fade(seed):
    world, inputs = changed(seed, half_life_s=20.0)

    judge(world, inputs.records)


@pytest.mark.parametrize("seed", seeds(300, 310, usual=4))
def test_items_without_a_new_vector_are_removed_once_and_the_others_never(seed):
    world, inputs = begun(seed, share=0.5)
    world.share_of_new = 0.6
    world.live(60)
    world.settle()
    if not world.has_changed:
        world.write_all_next()
        world.settle()

    judge(world, inputs.records)


@pytest.mark.parametrize("seed", seeds(500, 508, usual=4))
def test_memory_is_right_after_sleepers_and_late_markers(seed):
    world, inputs = changed(seed, world=SleepyMigrationWorld)

    judge(world, inputs.records)


@pytest.mark.parametrize("seed", seeds(2050, 2062, usual=4))
def test_a_cleaner_that_overtakes_the_assigners_leaves_nothing_behind(seed):
    world, inputs = changed(seed, compacts_unread=True)

    judge_unread(world, inputs.records)


def waiting(world):
    """Of every partition what waits for the next model, as its owner remembers it."""
    found = {}
    for assigner in world.assigners.values():
        for p, state in assigner.engine.partitions.items():
            successors = state.successors
            found[p] = {
                key: (
                    successors.vectors[row].tolist(), int(successors.sequences[row]),
                    int(successors.offsets[row]), bool(successors.kept[row]),
                    successors.metadata.get(key),
                )
                for key, row in successors.items()
            }  # fmt: skip
    return found


@pytest.mark.parametrize("seed", seeds(400, 412, usual=4))
def test_what_waits_is_read_back_as_it_was(seed):
    world, _ = begun(seed, share=1.0, share_of_new=0.6, metadata=("kind",))
    world.settle()
    assert not world.has_changed
    before = waiting(world)
    assert any(before.values())

    world._compact()
    for instance in sorted(world.assigners):
        world.start_assigner(instance)
    world.settle()

    assert waiting(world) == before


def test_histories_save_vectors_of_the_next_model():
    kept = 0
    for seed in range(400, 412):
        world, _ = begun(seed, share=1.0, share_of_new=0.6)
        world.settle()
        kept += sum(one[3] for of in waiting(world).values() for one in of.values())
        if kept >= 5:
            return

    raise AssertionError(f"kept {kept}")


def test_control_without_the_next_model_configured_its_records_are_missed_as_dead_letters():
    world, _ = begun(0, share=1.0)
    world.settle()
    verify(world)
    world.embedding = replace(world.embedding, next=NextEmbedding())

    with pytest.raises(AssertionError, match="dead_letters"):
        verify(world)


class ForgetsWhoWaits(Assigner):
    """Control: what waits for its embedding model is not read back."""

    def _adopt(self, result):
        for partition, restored in result.partitions.items():
            result.partitions[partition] = replace(restored, successors=None, arrivals=None)
        super()._adopt(result)


def test_control_vectors_that_a_restore_forgets_are_missed():
    caught = []
    for seed in range(12):
        try:
            world, inputs = changed(seed, assigner=ForgetsWhoWaits)
            judge(world, inputs.records)
        except (AssertionError, KeyError, ValueError) as error:
            caught.append(error)
        if len(caught) == 2:
            return

    raise AssertionError(f"caught {caught}")
