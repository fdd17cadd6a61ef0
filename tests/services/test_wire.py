"""No service works beside a model that it cannot read: it stops and says what to do."""

from __future__ import annotations

import pytest

from pipeline.errors import TopicError
from tests.services.assigner.test_assigner import at_rest

NEWER = rb'{"wire":2}'
SENTENCE = r"t\.cluster-model is of wire 2, and this Eddy reads 1: a newer Eddy wrote it; update"


def upgraded():
    """A world at rest whose model another version of Eddy has written over."""
    world, _ = at_rest()
    world.broker.append(world.topics.model, 0, b"manifest", NEWER, (), 1)
    return world


def log_ends(world):
    """What would have grown if anybody had written anything."""
    names = (world.topics.model, world.topics.changes, world.topics.assignments)
    return [len(records) for name in names for records in world.committed(name)]


def test_an_assigner_that_starts_stops_again():
    world = upgraded()
    before = log_ends(world)
    world.start_assigner("a1")

    with pytest.raises(TopicError, match=SENTENCE):
        world.assigners["a1"].step()
    assert log_ends(world) == before


def test_an_assigner_at_work_stops():
    world = upgraded()
    world.now_s += 10.0

    with pytest.raises(TopicError, match=SENTENCE):
        world.assigners["a0"].step()


def test_a_reclusterer_does_not_take_it_for_no_model_and_make_a_first_one():
    world = upgraded()
    world.broker.compact(world.topics.model, 0, keep_tombstones=True)
    before = log_ends(world)
    world.start_reclusterer()

    with pytest.raises(TopicError, match=SENTENCE):
        for _ in range(100):
            world.reclusterer.step()
    assert log_ends(world) == before


def test_a_manifest_that_can_be_read_again_ends_it():
    world, _ = at_rest()
    (records,) = world.committed(world.topics.model)
    ours = [record.value for record in records if record.key == b"manifest"][-1]
    for value in (NEWER, ours):
        world.broker.append(world.topics.model, 0, b"manifest", value, (), 1)
    world.start_assigner("a1")
    world.start_reclusterer()

    world.settle()

    assert world.assigners["a1"].engine.version == world.assigners["a0"].engine.version
    assert world.ends == []
