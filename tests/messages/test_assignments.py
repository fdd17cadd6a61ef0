"""Assignments decoded by the thousand say what each says alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecordError
from pipeline.messages.assignments import decode_assignments
from pipeline.messages.codec import decode_assignment, encode_assignment

NUMBERS = st.integers(0, 2**63 - 1)
VALUES = st.builds(
    encode_assignment, st.text(max_size=8), st.floats(0, 1e30), st.integers(0, 2**64 - 1),
    NUMBERS, NUMBERS, st.integers(0, 1000), NUMBERS,
)  # fmt: skip
GOOD = {
    "cluster": "c1", "distance": 0.5, "sequence": 7, "model": {"epoch": 3, "revision": 1},
    "source": {"partition": 0, "offset": 9},
}  # fmt: skip


def told(values):
    columns = decode_assignments(values)
    arrays = (columns.sequences, columns.epochs, columns.offsets)
    return list(zip(columns.clusters, *(a.tolist() for a in arrays), strict=True))


@given(st.lists(VALUES, max_size=8))
def test_a_batch_says_what_each_of_it_says(values):
    rows = [decode_assignment(value) for value in values]

    assert told(values) == [(r.cluster, r.sequence, r.epoch, r.offset) for r in rows]


def test_fields_that_are_not_known_are_no_reason_to_refuse_it():
    newer = {**GOOD, "colour": "red", "source": {**GOOD["source"], "epoch": 5}}

    assert told([json.dumps(newer, indent=1).encode()]) == [("c1", 7, 3, 9)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cluster": None}, {"cluster": ["c1"]}, {"sequence": -1}, {"sequence": 2**64},
        {"sequence": 1.5}, {"model": {}}, {"model": None}, {"source": {"offset": "9"}},
        {"source": {"offset": 2**63}}, {"source": []}, {"sequence": True},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_assignment_is_refused_whatever_stands_beside_it(wrong):
    good = json.dumps(GOOD).encode()

    with pytest.raises(RecordError):
        decode_assignments([good, json.dumps({**GOOD, **wrong}).encode(), good])


@pytest.mark.parametrize("value", [b"", b"null", b"[]", b"{", b"\xff", b'{"cluster":"c"},{}'])
def test_what_is_no_json_or_no_object_is_refused(value):
    with pytest.raises(RecordError):
        decode_assignments([value])
