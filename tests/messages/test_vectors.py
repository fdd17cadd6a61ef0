"""Vectors that we keep: bit by bit as they were, with what their record had."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RecordError
from pipeline.messages.codec import record_metadata, record_timestamp, vector_headers
from pipeline.messages.records import Record
from pipeline.messages.vectors import decode_vector, decode_vectors, encode_vector
from tests.schemas import validate


@settings(deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40),
    st.integers(0, 2**64 - 1),
)
def test_a_stored_vector_comes_back_bit_by_bit(numbers, sequence):
    vector = np.array(numbers, np.float32)

    value = encode_vector(vector, sequence)
    again, number = decode_vector(value, len(numbers))

    assert again.tobytes() == vector.tobytes()
    assert number == sequence
    assert value == encode_vector(vector.astype(">f4")[::-1][::-1], sequence)


def test_stored_vectors_are_read_together():
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    values = [encode_vector(row, i) for i, row in enumerate(rows)]

    matrix, sequences = decode_vectors(values, 4)

    assert matrix.tolist() == rows.tolist()
    assert sequences == [0, 1, 2]
    assert decode_vectors([], 4)[0].shape == (0, 4)
    with pytest.raises(RecordError, match="4 dimensions, but expected 5"):
        decode_vectors(values, 5)


def test_metadata_travels_with_a_vector():
    metadata = {"section": "ключ", "n": 1, "x": 0.5, "b": True}
    headers = vector_headers(metadata, 1_772_366_400_123)

    validate("item-vectors", b"item", encode_vector(np.ones(3, np.float32)), headers)
    assert record_metadata(Record(0, 0, b"item", b"", None, headers)) == metadata
    assert record_metadata(Record(0, 0, b"item", b"")) is None
    assert record_metadata(Record(0, 0, b"item", b"", 5, vector_headers(None, 5))) is None


@pytest.mark.parametrize("timestamp_ms", [0, 1, 1_772_366_400_123, 2**63 - 1])
def test_the_time_of_its_record_travels_with_a_vector(timestamp_ms):
    headers = vector_headers(None, timestamp_ms)

    validate("item-vectors", b"item", encode_vector(np.ones(3, np.float32)), headers)
    assert headers == (("eddy-timestamp", str(timestamp_ms).encode()),)
    assert record_timestamp(Record(0, 0, b"item", b"", 99, headers)) == timestamp_ms


@pytest.mark.parametrize("timestamp_ms", [None, -1, -(2**63)])
def test_a_record_without_a_time_leaves_none_beside_its_vector(timestamp_ms):
    assert vector_headers(None, timestamp_ms) == ()
    assert record_timestamp(Record(0, 0, b"item", b"", 99, ())) is None, "the copy's time is taken"


@pytest.mark.parametrize("value", [None, b"", b"-1", b"1e3", b"noon", str(2**63).encode()])
def test_a_time_that_is_none_is_no_vector_of_ours(value):
    with pytest.raises(RecordError, match="eddy-timestamp is"):
        record_timestamp(Record(0, 0, b"item", b"", None, (("eddy-timestamp", value),)))
