"""A second set beside the members, while another embedding model is on its way."""

from __future__ import annotations

import pytest

from pipeline.errors import Reason
from pipeline.messages.codec import decode_vector
from pipeline.messages.embedding import record_model, record_offset, successor_key
from pipeline.messages.records import Record
from tests.engine.house import TOPICS, of_topic, record, write
from tests.engine.migration import (
    EAST,
    NORTH,
    SOUTH,
    WEST,
    copies,
    engine,
    new,
    steps,
)


def test_a_record_of_the_next_model_leaves_its_item_where_it_is():
    made = engine()
    write(made, [record(0, "a", WEST)])

    changes = made.prepare([new(1, "a", NORTH)])
    made.install(changes)

    assert copies(changes.outgoing) == [(b"a", False)]
    (kept,) = changes.outgoing
    assert decode_vector(kept.value, 2)[0].tolist() == WEST
    assert changes.tally.outcomes == {("upsert", "unchanged"): 1}
    assert changes.next_offsets == {0: 2}
    state = made.partitions[0]
    assert (len(state.members), len(state.successors)) == (1, 1)
    assert state.members.offsets[state.members.row_of(b"a")] == 0


def test_the_old_vector_is_saved_once():
    made = engine()
    write(made, [record(0, "a", WEST), new(1, "a", NORTH)])

    assert write(made, [new(2, "a", SOUTH)]) == []


def test_an_item_that_only_the_next_model_knows_waits_without_an_assignment():
    made = engine()

    assert write(made, [new(0, "a", NORTH)]) == []
    assert (len(made.partitions[0].members), len(made.partitions[0].successors)) == (0, 1)


def test_a_newer_record_of_the_old_model_makes_the_new_vector_out_of_date():
    made = engine()
    write(made, [record(0, "a", WEST), new(1, "a", NORTH)])

    outgoing = write(made, [record(2, "a", EAST)])

    assert steps(outgoing) == [("a", "c1", "c2")]
    assert copies(outgoing) == [(b"a", True)]  # the input has it again
    assert len(made.partitions[0].successors) == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_batch_boundaries_leave_no_trace(at_once):
    records = [
        record(0, "a", WEST), new(1, "a", NORTH), new(2, "b", SOUTH), record(3, "a", b"EDV1"),
        new(4, "a", SOUTH), record(5, "b", EAST), new(6, "b", NORTH), record(7, "b", None),
    ]  # fmt: skip
    made = engine()

    batches = [records] if at_once else [[one] for one in records]
    outgoing = [(o.topic, o.key, o.value) for batch in batches for o in write(made, batch)]

    state = made.partitions[0]
    assert list(state.successors) == [b"a"]
    assert state.successors.vectors[state.successors.row_of(b"a")].tolist() == SOUTH
    per_topic = {
        topic: [(key, value) for t, key, value in outgoing if t == topic]
        for topic, _, _ in outgoing
    }
    assert [key for key, _ in per_topic[TOPICS.vectors]] == [
        b"a", successor_key(b"a"), successor_key(b"a"), b"b", b"b"
    ]  # fmt: skip
    assert len(per_topic[TOPICS.dead_letters]) == 1
    assert [key for key, _ in per_topic[TOPICS.assignments]] == [b"a", b"b", b"b"]


def test_sequences_count_for_each_model_alone():
    made = engine()
    write(made, [record(0, "a", WEST, sequence=7), new(1, "a", NORTH, sequence=3)])

    changes = made.prepare([new(2, "a", SOUTH, sequence=3), record(3, "a", EAST, sequence=7)])
    made.install(changes)

    assert changes.tally.outcomes == {("upsert", "stale"): 2}
    successors = made.partitions[0].successors
    assert successors.vectors[successors.row_of(b"a")].tolist() == NORTH


@pytest.mark.parametrize(
    "newer",
    [new(2, "a", b"EDV1"), new(2, "a", SOUTH, sequence=1), record(2, "a", b"EDV1"),
     record(2, "a", EAST, sequence=1)],
    ids=["bad", "stale", "bad, of the old model", "stale, of the old model"],
)  # fmt: skip
def test_a_vector_that_compaction_will_take_is_saved_beside_the_old_one(newer):
    made = engine()
    write(made, [record(0, "a", WEST, sequence=1), new(1, "a", NORTH, sequence=1)])

    outgoing = write(made, [newer])

    (copy,) = of_topic(outgoing, TOPICS.vectors)
    assert copy.key == successor_key(b"a")
    assert decode_vector(copy.value, 3)[0].tolist() == NORTH
    told = Record(0, 0, copy.key, copy.value, None, copy.headers)
    assert (record_model(told), record_offset(told)) == ("new", 1)
    assert copies(write(made, [new(3, "a", SOUTH)])) == [(successor_key(b"a"), True)]


def test_a_tombstone_removes_both():
    made = engine()
    write(made, [record(0, "a", WEST), new(1, "a", NORTH), new(2, "a", b"EDV1")])

    outgoing = write(made, [record(3, "a", None)])

    assert steps(outgoing) == [("a", "c1", None)]
    assert copies(outgoing) == [(successor_key(b"a"), True), (b"a", True)]
    assert len(made.partitions[0].successors) == 0


def test_the_second_set_has_a_limit_too():
    made = engine(max_items=1)
    write(made, [new(0, "a", NORTH)])

    changes = made.prepare([new(1, "b", NORTH), new(2, "a", SOUTH)])

    assert changes.tally.dead == {Reason.LIMIT: 1}
