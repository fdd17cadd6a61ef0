"""What an assigner does between batches."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np

from pipeline.clustering.centroids import CentroidPolicy
from pipeline.messages.codec import encode_vector
from pipeline.messages.model import digest
from pipeline.services.assigner.pace import SlicePace
from pipeline.state.members import Version
from tests.simulation.world import World


def at_rest(n_items=60):
    """An assigner that has swept its two partitions under a first model, and its world."""
    world = World(0, n_partitions=2, follows=False)
    world.crash_rate = 0.0
    world.start_assigner("a0")
    world.start_reclusterer()
    put(world, range(n_items))
    world.settle()
    return world, world.assigners["a0"]


def put(world, items):
    for item in items:
        vector = world.rng.integers(-3, 4, 3).astype(np.float32) + np.float32(0.5)
        key, value = b"item-%d" % item, encode_vector(vector)
        world.broker.append(world.topics.input, item % 2, key, value, (), 1)


def revised(model, by):
    """The next revision, all centroids moved."""
    moved = model.centroids + np.float32(by)
    manifest = dataclasses.replace(
        model.manifest, revision=model.manifest.revision + 1, digest=digest(moved)
    )
    return dataclasses.replace(model, manifest=manifest, centroids=moved)


def test_statistics_follow_every_record_of_an_idle_stream():
    world, assigner = at_rest()
    ticks = itertools.count()
    assigner.clock = lambda: world.now_s + 0.01 * next(ticks)  # publishing takes its time
    assigner.centroids = CentroidPolicy(min_updates=1, min_interval_s=0)

    for item in range(10):
        put(world, [item])
        world.turn("a0")
        world.turn("a0")

        (end,) = {state.next_offset for state in (assigner.engine.partitions[item % 2],)}
        rows = world.committed(world.topics.statistics)[item % 2]
        heads = [json.loads(row.value) for row in rows if row.key == b"%d" % (item % 2)]
        assert heads[-1]["next"] == end
        assert not assigner.engine.partitions[item % 2].dirty.any()


def test_partitions_are_swept_in_turn_though_revisions_come_faster():
    world, assigner = at_rest()
    assigner.sweep_pace = SlicePace(n_rows=1, min_rows=1, max_rows=1)
    engine, swept = assigner.engine, set()

    for _ in range(40):
        engine.install_model(revised(engine.loaded.model, 5.0))
        before = {p: state.sweep_pending for p, state in engine.partitions.items()}
        world.turn("a0")
        swept |= {p for p, state in engine.partitions.items() if state.sweep_pending < before[p]}

    assert swept == {0, 1}


def test_the_size_of_a_slice_follows_the_clock():
    world, assigner = at_rest()
    ticks = itertools.count()
    assigner.clock = lambda: world.now_s + 0.5 * next(ticks)

    assigner.engine.install_model(revised(assigner.engine.loaded.model, 5.0))
    while any(state.to_sweep for state in assigner.engine.partitions.values()):
        world.turn("a0")

    assert assigner.sweep_pace.n_rows == assigner.sweep_pace.min_rows
    assert {s.swept_to for s in assigner.engine.partitions.values()} == {Version(1, 1)}
