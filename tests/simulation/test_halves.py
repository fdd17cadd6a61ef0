"""Histories in which vectors are held as float16: exact over what is held, found by who rounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.state.snapshot import SnapshotError, open_snapshot
from tests.simulation.judge import judge
from tests.simulation.migration import judge as judge_migration
from tests.simulation.migration import verify
from tests.simulation.test_migration import changed
from tests.simulation.test_simulation import Inputs, play
from tests.simulation.test_snapshots import play as play_with_snapshots
from tests.simulation.test_snapshots import snapshots, with_snapshots
from tests.simulation.world import World

pytestmark = pytest.mark.sim
HALF = {"dtype": "float16"}


def audit(world, inputs):
    """Both judges: that of the simulation, and `eddy verify`."""
    judge(world, inputs)
    verify(world)


def held(world):
    """Every matrix of vectors that a process holds."""
    for assigner in world.assigners.values():
        for state in assigner.engine.partitions.values():
            yield state.members.vectors
            if state.successors is not None:
                yield state.successors.vectors
    yield world.reclusterer.sampling.sample.vectors


@pytest.mark.parametrize("seed", range(900, 903))
@pytest.mark.parametrize("compacted", [True, False], ids=["compact", "delete"])
def test_every_invariant_holds_over_what_is_held(seed, compacted):
    world, inputs = play(seed, compacted=compacted, **HALF)

    audit(world, inputs)
    assert {vectors.dtype for vectors in held(world)} == {np.dtype(np.float16)}


@pytest.mark.parametrize(
    "settings",
    [{"metric": "cosine", "metadata": ("kind",)}, {"half_life_s": 4.0}, {"compacts_unread": True}],
    ids=["cosine", "forgetting", "ghosts"],
)
@pytest.mark.parametrize("seed", range(910, 912))
def test_every_invariant_holds_over_what_is_held_with(seed, settings):
    world, inputs = play(seed, **settings, **HALF)

    judge(world, inputs)


@pytest.mark.parametrize("seed", range(920, 922))
def test_another_embedding_model_takes_over(seed):
    world, inputs = changed(seed, **HALF)

    judge_migration(world, inputs.records)
    assert {vectors.dtype for vectors in held(world)} == {np.dtype(np.float16)}


def test_a_snapshot_holds_what_the_rows_held(tmp_path):
    n_snapshots, _ = play_with_snapshots(0, tmp_path, World, **HALF)

    assert n_snapshots > 2


@pytest.mark.parametrize("seed", range(930, 932))
@pytest.mark.parametrize("compacted", [True, False], ids=["compact", "delete"])
def test_control_who_does_not_round_finds_differences(seed, compacted):
    world, inputs = play(seed, compacted=compacted, **HALF)
    audit(world, inputs)

    world.embedding = replace(world.embedding, dtype="float32")

    with pytest.raises(AssertionError):
        judge(world, inputs)
    if compacted:
        with pytest.raises(AssertionError, match="statistics"):
            verify(world)
    else:
        verify(world)  # each item has a copy, and that is what is held


@pytest.mark.parametrize("seed", range(940, 942))
@pytest.mark.parametrize("compacted", [True, False], ids=["compact", "delete"])
def test_what_was_held_as_float32_is_rounded_by_a_restart(seed, compacted):
    world, inputs = play(seed, n_steps=50, compacted=compacted)
    world.unit = np.float32(1 / 3)
    world.live(20)
    world.settle()

    restart_as(world, "float16")

    audit(world, inputs)


@pytest.mark.parametrize("seed", range(950, 952))
@pytest.mark.parametrize("compacted", [True, False], ids=["compact", "delete"])
def test_float32_again_begins_with_whole_vectors_but_for_copies_that_were_rounded(seed, compacted):
    world, _ = play(seed, n_steps=50, compacted=compacted, **HALF)

    restart_as(world, "float32")

    verify(world)
    assert {vectors.dtype for vectors in held(world)} == {np.dtype(np.float32)}


def test_a_snapshot_of_the_other_dtype_is_refused_and_does_no_harm(tmp_path):
    world = with_snapshots(World, tmp_path)(1, n_partitions=1, **HALF)
    world.crash_rate = 0.0
    world.start_assigner("a0")
    world.start_reclusterer()
    inputs = Inputs(world).records
    world.write(40)
    world.settle()
    (loaded,) = snapshots(world).values()
    copy = tmp_path / "copy"
    copy.write_bytes(loaded.path.read_bytes())

    world.embedding = replace(world.embedding, dtype="float32")
    world.start_assigner("a0")
    while world.assigners["a0"].engine.version is None:
        world.turn("a0")

    with pytest.raises(SnapshotError, match="it is of dtype 'float16', and not of 'float32'"):
        open_snapshot(copy, world.assigners["a0"].snapshots._identity(0))
    world.now_s += 10
    world.settle()
    verify(world)
    judge(world, inputs)
    ((part,),) = ([*loaded.slices()][:1] for loaded in snapshots(world).values())
    assert part.vectors.dtype == np.float32


def restart_as(world, dtype):
    """Every process ends, and begins again with another `state.dtype`."""
    world.embedding = replace(world.embedding, dtype=dtype)
    for instance in sorted(world.assigners):
        world.start_assigner(instance)
    world.start_reclusterer()
    world.crash_rate = 0.02
    world.live(20)
    world.settle()
