"""What a micro-batch makes of its records, and that it makes nothing before the install."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.messages.codec import decode_vector
from tests import naive
from tests.engine.house import KERNELS, TOPICS, engine, model, of_topic, record, write


def events(outgoing):
    return [json.loads(out.value) for out in of_topic(outgoing, TOPICS.changes)]


def steps(outgoing):
    return [(e["type"], e["from"], e["to"]) for e in events(outgoing)]


def test_prepare_leaves_the_state_as_it_is():
    made = engine()
    write(made, [record(0, "a", [-1, 0])])
    state = made.partitions[0]
    before = (state.sums.sums.tobytes(), len(state.members), state.next_offset)

    made.prepare([record(1, "a", [1, 0]), record(2, "b", [1, 1])])

    assert (state.sums.sums.tobytes(), len(state.members), state.next_offset) == before


def test_two_records_of_an_item_in_a_batch_give_the_events_of_two_batches():
    records = [record(0, "a", [-1, 0]), record(1, "a", [1, 0]), record(2, "a", None)]
    expected = [("assigned", None, "c1"), ("reassigned", "c1", "c2"), ("removed", "c2", None)]

    together = write(engine(), records)

    assert steps(together) == expected
    assert [out.value for out in of_topic(together, TOPICS.assignments)][-1] is None


def test_a_record_that_leaves_its_item_in_place_makes_no_event_but_an_assignment():
    made = engine()
    write(made, [record(0, "a", [-1, 0])])

    out = write(made, [record(1, "a", [-2, 0])])

    assert events(out) == []
    (row,) = of_topic(out, TOPICS.assignments)
    assert json.loads(row.value)["source"] == {"partition": 0, "offset": 1}


def test_an_event_says_how_near_the_runner_up_is():
    (event,) = events(write(engine(), [record(0, "a", [-0.5, 0])]))

    assert (event["distance"], event["margin"]) == (0.5, 1.0)
    assert event["confidence"] == pytest.approx(1 / 1.5, rel=1e-6)


def test_with_a_single_cluster_there_is_no_margin_and_no_doubt():
    made = engine(first=model([[0, 0]]))

    (event,) = events(write(made, [record(0, "a", [1, 0])]))

    assert event["margin"] is None
    assert event["confidence"] == 1


def test_deleting_everything_leaves_exact_zeros():
    made, rng = engine(n_partitions=2), np.random.default_rng(0)
    for n in range(200):
        write(made, [record(n, f"i{n % 17}", rng.standard_normal(2), partition=n % 17 % 2)])

    for n in range(17):
        write(made, [record(300 + n, f"i{n}", None, partition=n % 2)])

    for state in made.partitions.values():
        assert len(state.members) == 0
        assert not state.sums.counts.any()
        assert not state.sums.sums.any()
        assert not state.sums.squares.any()


def test_a_sequence_that_is_not_above_the_last_one_is_stale():
    made = engine()
    write(made, [record(0, "a", [-1, 0], sequence=5)])

    changes = made.prepare([record(1, "a", [1, 0], sequence=5), record(2, "a", [1, 0], sequence=4)])

    assert changes.tally.outcomes["upsert", "stale"] == 2
    assert events(changes.outgoing) == []


def test_a_record_without_a_sequence_clears_it():
    made = engine()
    write(made, [record(0, "a", [-1, 0], sequence=5), record(1, "a", [-1, 0])])

    out = write(made, [record(2, "a", [1, 0], sequence=1)])

    assert steps(out) == [("reassigned", "c1", "c2")]


@pytest.mark.parametrize("newer", [b"EDV1", [np.nan, 0]], ids=["undecodable", "not finite"])
def test_the_vector_under_a_dead_letter_is_saved_from_compaction(newer):
    made = engine()
    write(made, [record(0, "a", [-1, 0], sequence=3)])

    out = write(made, [record(1, "a", newer)])

    (kept,) = of_topic(out, TOPICS.vectors)
    vector, sequence = decode_vector(kept.value, 2)
    assert (vector.tolist(), sequence) == ([-1, 0], 3)
    assert len(of_topic(out, TOPICS.dead_letters)) == 1


def test_the_copy_of_a_vector_goes_when_the_input_has_it_again():
    made = engine()
    write(made, [record(0, "a", [-1, 0]), record(1, "a", b"EDV1")])

    out = write(made, [record(2, "a", [1, 0])])

    assert [o.value for o in of_topic(out, TOPICS.vectors)] == [None]


def test_an_input_that_forgets_has_every_vector_copied():
    out = write(engine(compacted=False), [record(0, "a", [-1, 0]), record(1, "a", None)])

    assert [o.value is None for o in of_topic(out, TOPICS.vectors)] == [False, True]


def test_a_new_item_above_the_limit_is_a_dead_letter_and_a_known_one_is_not():
    made = engine(max_items=1)
    write(made, [record(0, "a", [-1, 0])])

    out = write(made, [record(1, "b", [1, 0]), record(2, "a", [1, 0])])

    (dead,) = of_topic(out, TOPICS.dead_letters)
    assert dict(dead.headers)["eddy.errors.exception.class.name"] == b"limit"
    assert steps(out) == [("reassigned", "c1", "c2")]


def test_a_record_that_breaks_the_arithmetic_is_found_by_bisection():
    made = engine()
    records = [record(n, f"i{n}", [float(n), 0]) for n in range(9)]

    class Fragile:
        """Kernels that cannot bear one value."""

        name = "cpu"
        load = staticmethod(KERNELS.load)
        accumulate = staticmethod(KERNELS.accumulate)

        def assign(self, device, points, *, second=False):
            if (points[:, 0] == 5).any():
                raise ZeroDivisionError("five")
            return KERNELS.assign(device, points, second=second)

    made.kernels = Fragile()
    out = write(made, records)

    (dead,) = of_topic(out, TOPICS.dead_letters)
    assert dict(dead.headers)["eddy.errors.exception.class.name"] == b"poison"
    assert [e["item"] for e in events(out)] == [f"i{n}" for n in range(9) if n != 5]


def test_events_carry_the_metadata_they_are_told_to():
    made = engine(metadata=("kind",))
    headers = [("eddy-metadata", b'{"kind": "book", "price": 3}')]

    added = write(made, [record(0, "a", [-1, 0], headers=headers)])
    removed = write(made, [record(1, "a", None)])

    assert [e["metadata"] for e in events(added) + events(removed)] == [{"kind": "book"}] * 2


@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 59), max_size=8))
@settings(max_examples=40, deadline=None)
def test_batch_boundaries_leave_no_trace(seed, cuts):
    rng = np.random.default_rng(seed)
    records = []
    for n in range(60):
        vector = None if rng.random() < 0.2 else rng.integers(-2, 3, 2)
        records.append(record(n, f"i{rng.integers(9)}", vector, sequence=int(rng.integers(3))))
    whole, parts = engine(), engine()

    at_once = write(whole, records)
    bounds = [0, *sorted(set(cuts)), 60]
    slices = itertools.pairwise(bounds)
    piecewise = [out for a, b in slices for out in write(parts, records[a:b])]

    for topic in TOPICS.names:
        assert of_topic(at_once, topic) == of_topic(piecewise, topic)
    assert whole.partitions[0].sums.sums.tobytes() == parts.partitions[0].sums.sums.tobytes()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_statistics_equal_a_recomputation(seed):
    rng = np.random.default_rng(seed)
    made = engine()
    for n in range(80):
        vector = (
            None if rng.random() < 0.2 else rng.standard_normal(2) * 10.0 ** rng.integers(-3, 2)
        )
        write(made, [record(n, f"i{rng.integers(12)}", vector)])
    state = made.partitions[0]
    rows = state.members.occupied()

    counts, sums, squares = naive.statistics(
        state.members.vectors[rows], state.members.labels[rows], 2, max_component=256.0
    )

    assert state.sums.counts.tolist() == counts
    assert state.sums.sums.tolist() == sums
    assert naive.square_totals(state.sums.squares) == squares
