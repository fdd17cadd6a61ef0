"""Of every item the last assignment counts, however the topic is cut into slices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RecordError
from pipeline.messages.codec import decode_assignment, encode_assignment
from pipeline.messages.records import Record
from pipeline.services.assigner.restore_assignments import GONE, Assigned

ITEMS = [f"i{n}".encode() for n in range(200)]


def value_of(number):
    return encode_assignment(f"c{number % 3}", 0.5, 2**64 - 1 - number, number % 5, 0, 0, number)


def record(offset, item, value):
    return Record(0, offset, item, value)


def told(assigned):
    """Item -> what stands there of it, for all that have an assignment."""
    places = assigned.open
    names = [*assigned.names]
    columns = (assigned.sequences, assigned.epochs, assigned.offsets)
    rows = zip(
        assigned.items(places), assigned.clusters[places].tolist(),
        *(column[places].tolist() for column in columns), strict=True,
    )  # fmt: skip
    return {item: (names[number], *rest) for item, number, *rest in rows}


def expected(records):
    """The same out of a dict."""
    last = {r.key: r.value for r in records}
    rows = {key: decode_assignment(value) for key, value in last.items() if value is not None}
    return {key: (r.cluster, r.sequence, r.epoch, r.offset) for key, r in rows.items()}


WRITES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 40), st.booleans()), min_size=1, max_size=60
)


@settings(deadline=None)  # the first call may wait for the compiler
@given(WRITES, st.integers(1, 9))
def test_the_last_one_of_an_item_counts(writes, size):
    records = [
        record(at, ITEMS[item], None if is_null else value_of(number))
        for at, (item, number, is_null) in enumerate(writes)
    ]
    assigned = Assigned()
    for start in range(0, len(records), size):
        assigned.fold(records[start : start + size])
    assigned.check()

    assert told(assigned) == expected(records)
    assert assigned.has_any == bool(expected(records))
    gone = {r.key for r in records} - expected(records).keys()
    places = assigned.find(sorted(gone))
    assert (assigned.offsets[places] == GONE).all()
    assert (assigned.find_open(sorted(gone)) == -1).all()


def test_it_grows_with_what_comes():
    records = [record(at, item, value_of(at)) for at, item in enumerate(ITEMS)]
    assigned = Assigned()
    for start in range(0, len(records), 7):
        assigned.fold(records[start : start + 7])

    assert told(assigned) == expected(records)
    assert len(assigned) == len(ITEMS)


def test_what_was_never_assigned_is_nowhere():
    assigned = Assigned()
    assert assigned.find_open([b"i1"]).tolist() == [-1]
    assert not assigned.has_any

    assigned.fold([record(0, b"i1", value_of(1))])

    assert assigned.find([b"i2", b"i1"]).tolist() == [-1, 0]


@pytest.mark.parametrize("after", [None, value_of(8)], ids=["gone", "assigned-again"])
@pytest.mark.parametrize("is_one_slice", [True, False])
def test_one_that_cannot_be_read_matters_only_while_it_is_the_last(after, is_one_slice):
    records = [
        record(0, b"i1", value_of(1)), record(1, b"i2", b"{}"), record(2, b"i3", value_of(3)),
    ]  # fmt: skip
    later = record(3, b"i2", after)
    assigned = Assigned()
    if is_one_slice:
        assigned.fold([*records, later])
    else:
        assigned.fold(records)
        assert assigned.has_any
        with pytest.raises(RecordError):
            assigned.check()
        assigned.fold([later])
    assigned.check()

    assert told(assigned) == expected([records[0], records[2], later])


def test_what_was_found_is_looked_for_no_more():
    assigned = Assigned()
    assigned.fold([record(n, ITEMS[n], value_of(n)) for n in range(4)])

    assigned.is_open[assigned.find([b"i1", b"i3"])] = False

    assert assigned.items(assigned.open) == [b"i0", b"i2"]
    assert assigned.find_open([b"i0", b"i1", b"i9"]).tolist() == [0, -1, -1]
    assert np.array_equal(assigned.find_packed(assigned.packed(assigned.open)), assigned.open)
