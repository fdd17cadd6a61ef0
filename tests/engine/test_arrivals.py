"""Another embedding model takes over: who arrives, who is removed, and what is said of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.engine.arrivals import MAX_LOST
from pipeline.engine.cluster_engine import Restored
from pipeline.errors import Reason, TopicError
from pipeline.kernels.contract import Sums
from pipeline.messages.codec import decode_assignment, decode_vector
from pipeline.messages.embedding import record_model, successor_key
from pipeline.messages.policy import EmbeddingPolicy
from pipeline.messages.records import Record
from pipeline.state.members import Members, Version
from tests.engine.house import KERNELS, TOPICS, model, of_topic, record, write
from tests.engine.migration import (
    EAST,
    NEW_MODEL,
    NORTH,
    NORTH_SOUTH,
    OLD_MODEL,
    SOUTH,
    WEST,
    copies,
    engine,
    events,
    lose,
    new,
    steps,
    sweep,
)


def ready():
    """An engine of four items: both, both but elsewhere, the old alone, the new alone."""
    made = engine()
    write(
        made,
        [
            record(0, "both", WEST, headers=[("eddy-metadata", b'{"kind": "old"}')]),
            record(1, "moves", WEST),
            record(2, "old", EAST),
            new(3, "both", NORTH),
            new(4, "moves", SOUTH),
            new(5, "new", SOUTH),
        ],
    )
    sweep(made)
    return made


def test_items_arrive_in_slices_and_only_changes_are_events():
    made = ready()
    made.install_model(NEW_MODEL)

    slices = sweep(made, max_rows=1)

    outgoing = [out for one in slices for out in one]
    assert sorted(steps(outgoing)) == [("moves", "c1", "c2"), ("new", None, "c2")]
    assert {e.id for e in events(outgoing)} == {"model/2.0/moves", "model/2.0/new"}
    rows = {o.key: decode_assignment(o.value) for o in of_topic(outgoing, TOPICS.assignments)}
    told = {key: (row.cluster, row.offset, row.epoch) for key, row in rows.items()}
    assert told == {b"both": ("c1", 3, 2), b"moves": ("c2", 4, 2), b"new": ("c2", 5, 2)}
    assert sorted(copies(outgoing)) == [(b"both", True), (b"moves", True)]
    assert len([one for one in slices if one]) == 3
    assert made.partitions[0].arrivals is None


def test_until_an_item_has_arrived_nothing_says_that_it_is_nowhere():
    made = ready()
    made.install_model(NEW_MODEL)

    first = made.sweep(0, max_rows=1)
    made.install(first)

    state = made.partitions[0]
    assert set(state.members.ghosts) | set(state.members) >= {b"both", b"moves", b"old"}
    assert lose_is_held_back(made)
    assert len(state.arrivals) == 2


def lose_is_held_back(made):
    return not made.partitions[0].may_lose_ghosts


def test_what_has_no_new_vector_is_removed_by_the_model():
    made = ready()
    made.install_model(NEW_MODEL)
    sweep(made)
    state = made.partitions[0]
    assert state.ghosts_until == 10, "as far as the fit had read"
    assert head(made)["model"] is None, "an assignment is still of the old model"

    outgoing = lose(made)

    assert steps(outgoing) == [("old", "c2", None)]
    (event,) = events(outgoing)
    assert (event.id, event.offset, event.occurred_at_ms) == ("model/2.0/old", 2, 7)
    assert [o.key for o in of_topic(outgoing, TOPICS.assignments)] == [b"old"]
    assert head(made)["model"] == {"epoch": 2, "revision": 0}


def head(made):
    return json.loads(made.publish_head(0).outgoing[-1].value)


def test_the_head_says_when_all_have_arrived():
    made = ready()
    assert "embedding_since" not in head(made)
    made.install_model(NEW_MODEL)
    assert "embedding_since" not in head(made)

    sweep(made)

    assert head(made)["embedding_since"] == 2


def test_ghosts_are_removed_some_at_a_time():
    n = MAX_LOST + 5
    made = engine(max_items=n)
    for start in range(0, n, 500):
        some = range(start, min(start + 500, n))
        write(made, [record(i, f"i{i}", WEST) for i in some])
    made.install_model(NEW_MODEL)
    sweep(made)

    assert [len(events(lose(made))) for _ in range(2)] == [MAX_LOST, 5]
    assert not made.partitions[0].may_lose_ghosts


def test_statistics_are_those_of_who_has_arrived():
    made = ready()
    made.install_model(NEW_MODEL)
    state = made.partitions[0]
    assert int(state.sums.counts.sum()) == 0

    sweep(made, max_rows=2)

    members = state.members
    rows = members.occupied().tolist()
    expected = Sums.zeros(len(made.table), 3, max_component=256.0)
    vectors, nowhere = members.vectors[rows], np.full(len(rows), -1, np.int32)
    KERNELS.accumulate(expected, vectors, nowhere, vectors, members.labels[rows])
    assert state.sums.counts.tolist() == expected.counts.tolist() == [1, 2]
    assert state.sums.sums.tolist() == expected.sums.tolist()
    assert state.swept_to == Version(2, 0)


def test_a_record_of_an_item_that_waits_lets_it_in_first():
    made = ready()
    made.install_model(NEW_MODEL)
    records = [new(6, "moves", NORTH), record(7, "both", None), record(8, "new", EAST)]

    (admitted,) = made.admit(records)
    made.install(admitted)
    outgoing = write(made, records)

    assert steps(admitted.outgoing) == [("moves", "c1", "c2"), ("new", None, "c2")]
    assert steps(outgoing) == [("moves", "c2", "c1"), ("both", "c1", None)]
    assert len(of_topic(outgoing, TOPICS.dead_letters)) == 1
    copy = of_topic(outgoing, TOPICS.vectors)[-1]  # the dead letter of `new` will shadow it
    assert (copy.key, record_model(Record(0, 0, b"", b"", None, copy.headers))) == (b"new", "new")
    assert made.admit(records) == []


def test_a_new_record_for_an_item_without_a_vector_goes_on_from_its_cluster():
    made = ready()
    made.install_model(NEW_MODEL)
    sweep(made)

    outgoing = write(made, [new(6, "old", NORTH)])

    assert steps(outgoing) == [("old", "c2", "c1")]
    assert lose(made) == []


def test_metadata_follows_the_vector_that_counts():
    made = ready()
    write(made, [new(6, "both", SOUTH)])
    made.install_model(NEW_MODEL)
    sweep(made)

    assert b"both" not in made.partitions[0].members.metadata


def test_a_vector_saved_beside_the_old_one_takes_its_place():
    made = ready()
    write(made, [new(6, "both", b"EDV1")])
    made.install_model(NEW_MODEL)

    outgoing = [out for one in sweep(made) for out in one]

    saved = [o for o in of_topic(outgoing, TOPICS.vectors) if o.key.endswith(b"both")]
    assert [(o.key, o.value is None) for o in saved] == [
        (b"both", False), (successor_key(b"both"), True),
    ]  # fmt: skip
    assert decode_vector(saved[0].value, 3)[0].tolist() == NORTH
    assert record_model(Record(0, 0, b"", b"", None, saved[0].headers)) == "new"


def test_a_revision_that_comes_before_all_have_arrived_repeats_no_id():
    made = ready()
    made.install_model(NEW_MODEL)
    first = made.sweep(0, max_rows=1)
    made.install(first)
    moved = model(
        NORTH_SOUTH[::-1].copy(), epoch=2, revision=1, embedding_model="new", embedding_since=2
    )
    made.install_model(moved)

    outgoing = [*first.outgoing, *[out for one in sweep(made) for out in one]]

    ids = [event.id for event in events(outgoing)]
    assert len(ids) == len(set(ids))
    assert made.partitions[0].swept_to == Version(2, 1)
    members = made.partitions[0].members
    found = {key: made.table.ids[members.labels[row]] for key, row in members.items()}
    assert found == {b"both": "c2", b"moves": "c1", b"new": "c1"}


def test_a_partition_read_back_under_the_old_model_goes_over_when_it_is_adopted():
    made = engine()
    old = ready().partitions[0]
    members = old.members
    rows = range(members.n_rows)
    restored = Restored(
        0, 6, members, [OLD_MODEL.manifest.clusters[members.labels[row]] for row in rows], {},
        set(), 6, successors=old.successors,
    )  # fmt: skip
    made.drop([0])
    made.install_model(NEW_MODEL)

    made.adopt(restored)
    outgoing = [out for one in sweep(made) for out in one]

    assert sorted(steps(outgoing)) == [("moves", "c1", "c2"), ("new", None, "c2")]
    assert steps(lose(made)) == [("old", "c2", None)]


def test_a_ghost_with_a_new_vector_is_not_lost():
    made = engine()
    made.drop([0])
    made.adopt(
        Restored(0, 3, Members(2), [], {b"a": ("c1", 0, False), b"b": ("c2", 1, False)}, set(), 9)
    )
    write(made, [new(3, "a", NORTH)])

    assert steps(lose(made)) == [("b", "c2", None)]
    assert not made.partitions[0].may_lose_ghosts

    made.install_model(NEW_MODEL)
    outgoing = [out for one in sweep(made) for out in one]
    assert steps(outgoing) == []
    (assignment,) = of_topic(outgoing, TOPICS.assignments)
    assert decode_assignment(assignment.value).cluster == "c1"


# --- what is configured ---------------------------------------------------------------------------


def test_after_the_change_the_old_name_is_refused_and_so_is_none():
    made = ready()
    made.install_model(NEW_MODEL)

    changes = made.prepare([record(6, "x", WEST), record(7, "y", NORTH), new(8, "z", NORTH)])

    assert changes.tally.dead == {Reason.EMBEDDING_MODEL: 2}
    assert steps(changes.outgoing) == [("z", None, "c1")]


def test_the_new_name_alone_may_be_configured_after_the_change():
    made = engine(first=NEW_MODEL, embedding=EmbeddingPolicy(dimensions=3, model="new"))

    assert steps(write(made, [new(0, "a", NORTH), record(1, "b", NORTH)])) == [("a", None, "c1")]


def test_a_model_of_nobody_configured_is_refused():
    with pytest.raises(TopicError, match="has dimensions 3"):
        engine(first=NEW_MODEL, embedding=EmbeddingPolicy(dimensions=2, model="old"))
    with pytest.raises(TopicError, match="has model 'new'"):
        engine(first=NEW_MODEL, embedding=EmbeddingPolicy(dimensions=3, model="third"))


def test_the_first_model_may_get_its_name_later():
    made = engine(first=model(), embedding=EmbeddingPolicy(dimensions=2, model="old"))

    assert steps(write(made, [record(0, "a", WEST)])) == [("a", None, "c1")]
