"""Written while everything goes on, a snapshot is mended by what is behind its marks."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._inprocess import Inline
from pipeline.messages.codec import decode_assignment
from pipeline.services.assigner.pace import SlicePace
from pipeline.services.assigner.snapshots import Snapshots
from pipeline.state.policy import StatePolicy
from pipeline.state.snapshot import open_snapshot
from tests.simulation.judge import stored, vector_of
from tests.simulation.sleep import SleepyWorld
from tests.simulation.test_simulation import Inputs
from tests.simulation.world import N_DIMS, World

SEEDS = range(4)


def with_snapshots(world_class, folder):
    """A world whose assigners write snapshots of two or three rows a slice."""

    class Snapshooting(world_class):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            compact = self.broker.compact

            def kept(*place, keep_tombstones, **rest):
                """A snapshot is younger than `delete.retention.ms`, or refused."""
                compact(*place, keep_tombstones=True, **rest)

            self.broker.compact = kept

        def start_assigner(self, instance):
            super().start_assigner(instance)
            assigner = self.assigners[instance]
            assigner.snapshots = Snapshots(
                StatePolicy(str(folder), snapshot_interval_s=2.0),
                self.broker,
                assigner.engine,
                "t.assigner",
                lambda: self.now_s,
                assigner.reports,
                Inline(),
                lambda: self.now_s,
                SlicePace(n_rows=2, min_rows=1, max_rows=3),
            )

    return Snapshooting


def snapshots(world):
    """Partition -> its snapshot, as any owner under the present model would find it."""
    found = {}
    for assigner in world.assigners.values():
        if assigner.engine.version is None:
            continue
        for partition in range(world.topics.partitions):
            path = assigner.snapshots._path(partition)
            if path.exists() and partition not in found:
                found[partition] = open_snapshot(path, assigner.snapshots._identity(partition))
    return found


def assigned(world, partition, rows, start):
    """Item -> (cluster, offset): rows, and the changelog from ``start`` on over them."""
    found = dict(rows)
    for record in world.broker.records(world.topics.assignments, partition):
        if record.offset >= start:
            found.pop(record.key, None)
            if record.value is not None:
                row = decode_assignment(record.value)
                found[record.key] = row.cluster, row.offset
    return found


def check(world, inputs):
    """Whether snapshot and changelogs say what the changelogs alone say; how many were fuzzy."""
    n_fuzzy = 0
    for partition, snapshot in snapshots(world).items():
        clusters, vectors = {}, {}
        for rows in snapshot.slices():
            for i, key in enumerate(rows.keys):
                offset = int(rows.offsets[i])
                clusters[key] = rows.cluster_ids[rows.clusters[i]], offset
                vectors[key, offset] = rows.vectors[i]
        found = assigned(world, partition, clusters, snapshot.marks.assignments)

        assert found == assigned(world, partition, {}, 0), f"partition {partition}"
        by_offset = {record.offset: record for record in inputs[partition]}
        for key, (_, offset) in found.items():
            if offset < snapshot.marks.next_offset:
                wanted, _ = vector_of(by_offset[offset], N_DIMS)
                assert np.array_equal(vectors[key, offset], stored(wanted, world.embedding))
        n_fuzzy += snapshot.next_offset > snapshot.marks.next_offset
    return n_fuzzy


def play(seed, folder, world_class, **settings):
    world = with_snapshots(world_class, folder)(seed, n_partitions=2, **settings)
    inputs = Inputs(world).records
    world.start_assigner("a0")
    world.start_assigner("a1")
    world.start_reclusterer()
    n_fuzzy = n_snapshots = 0
    for _ in range(30):
        world.live(8)
        n_snapshots += len(snapshots(world))
        n_fuzzy += check(world, inputs)
    world.settle()
    check(world, inputs)
    return n_snapshots, n_fuzzy


@pytest.mark.sim
@pytest.mark.parametrize("world_class", [World, SleepyWorld])
@pytest.mark.parametrize("compacted", [True, False], ids=["compact", "delete"])
def test_a_snapshot_and_what_came_after_its_marks_are_the_state(tmp_path, world_class, compacted):
    n_snapshots = n_fuzzy = 0
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        more, fuzzy = play(seed, folder, world_class, compacted=compacted)
        n_snapshots, n_fuzzy = n_snapshots + more, n_fuzzy + fuzzy

    assert n_snapshots > 20
    assert n_fuzzy > 2  # histories in which nothing happened meanwhile would prove little


def slept_through(tmp_path):
    """One that owned everything, and a world in which another has taken it and worked on."""
    world = with_snapshots(World, tmp_path)(1, n_partitions=1)
    world.crash_rate = 0.0
    world.start_assigner("a0")
    world.start_reclusterer()
    inputs = Inputs(world).records
    world.write(40)
    world.settle()
    sleeper = world.assigners.pop("a0")
    world.broker.expire_session(world.streams["a0"][-1])
    world.start_assigner("a1")
    for _ in range(30):
        world.write(3)
        world.turn("a1")
        world.now_s += 1
    world.assigners["a1"].snapshots.forget([0])
    sleeper.snapshots._path(0).unlink(missing_ok=True)  # the next is the sleeper's, or nobody's
    world.assigners["a1"].snapshots = None
    sleeper.snapshots._last.clear()
    world.now_s += 10
    world.assigners = {"a1": sleeper}  # whose identity is asked for
    return world, inputs, sleeper


def test_one_that_slept_through_a_rebalance_writes_no_snapshot(tmp_path):
    world, _, sleeper = slept_through(tmp_path)

    for _ in range(40):
        sleeper.snapshots.step([0], sleeper._fence)
        world.now_s += 1

    assert snapshots(world) == {}
    sleeper.snapshots.forget([0])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_control_without_the_commit_its_snapshot_is_wrong(tmp_path):
    world, inputs, sleeper = slept_through(tmp_path)

    for _ in range(40):
        sleeper.snapshots.step([0], lambda _: True)
        world.now_s += 1

    with pytest.raises(AssertionError, match="partition 0"):
        check(world, inputs)
