"""Dead letters keep the record, say what is wrong with it, and always fit their topic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Reason, RecordError
from pipeline.messages.codec import decode, encode_vector
from pipeline.messages.dead_letters import dead_letter
from pipeline.messages.policy import EmbeddingPolicy, LimitPolicy
from pipeline.messages.records import Record
from tests.messages.test_decode import DEAD_LETTERS, LIMITS, POLICY
from tests.schemas import validate_record

ERROR = RecordError(Reason.DIMENSION, "384 dimensions, but expected 1024")


def letter_of(record, error=ERROR):
    return dead_letter(record, topic="in", to="in.dlq", error=error, stage="decode")


def test_a_dead_letter_keeps_the_record_and_says_why():
    headers = (("content-type", b"application/json"), ("traceparent", None))
    record = Record(3, 1841, b"item", b"value", 1_772_366_400_123, headers)

    letter = letter_of(record)

    assert letter[:4] == ("in.dlq", 3, b"item", b"value")
    assert letter.headers[:2] == headers
    assert dict(letter.headers[2:]) == {
        "eddy.errors.topic": b"in",
        "eddy.errors.partition": b"3",
        "eddy.errors.offset": b"1841",
        "eddy.errors.timestamp": b"1772366400123",
        "eddy.errors.stage": b"decode",
        "eddy.errors.exception.class.name": b"dimension",
        "eddy.errors.exception.message": b"384 dimensions, but expected 1024",
    }
    assert letter.timestamp_ms is None, "the old time could be beyond the topic's retention"


@pytest.mark.parametrize(("reason", "record"), DEAD_LETTERS)
def test_every_dead_letter_is_as_described_and_fits(reason, record):
    error = decode([record], POLICY, LIMITS).errors[0]

    letter = letter_of(record, error)

    validate_record("dead-letters", letter)
    assert size(letter) <= LIMITS.max_record_bytes + 64 * 1024
    if reason not in ("too_large", "key"):
        assert (letter.key, letter.value) == (record.key, record.value)
        assert letter.headers[: len(record.headers)] == record.headers


def size(letter):
    headers = sum(len(name.encode()) + len(value or b"") for name, value in letter.headers)
    return len(letter.key or b"") + len(letter.value or b"") + headers


def told(letter):
    return {k.removeprefix("eddy.errors."): v for k, v in letter.headers if k.startswith("eddy.")}


def test_what_is_too_large_is_left_out_and_measured():
    error = RecordError(Reason.TOO_LARGE, "too large")
    record = Record(0, 0, b"k" * 600, b"v" * 9000, None, (("h", b"x" * 40_000),))

    letter = letter_of(record, error)

    assert (letter.key, letter.value) == (None, None)
    assert told(letter)["value.bytes"] == b"9000"
    assert told(letter)["key.bytes"] == b"600"
    assert told(letter)["headers.bytes"] == b"40001"
    assert all(name.startswith("eddy.errors.") for name, _ in letter.headers)


def test_an_oversized_key_is_left_out_and_the_value_stays():
    record = Record(0, 0, b"k" * 513, b"v")

    letter = letter_of(record, RecordError(Reason.KEY, "long"))

    assert (letter.key, letter.value) == (None, b"v")
    assert told(letter)["key.bytes"] == b"513"
    assert "timestamp" not in told(letter)


def test_a_record_that_comes_again_does_not_grow():
    once = letter_of(Record(0, 7, b"item", b"v", None, (("a", b"b"),)))

    again = letter_of(Record(1, 9, once.key, once.value, None, once.headers))

    assert len(again.headers) == len(once.headers)
    assert told(again)["offset"] == b"9"


def test_a_message_is_bounded_utf_8():
    letter = letter_of(Record(0, 0, b"k", b"v"), RecordError(Reason.POISON, "ä" * 5000 + "\ud800"))

    validate_record("dead-letters", letter)
    assert len(told(letter)["exception.message"]) == 1024


@settings(max_examples=60, deadline=None)
@given(
    st.none() | st.binary(max_size=700),
    st.integers(13, 9000),
    st.lists(st.integers(0, 40_000), max_size=2),
)
def test_any_record_that_is_refused_fits_its_topic(key, n_value, n_headers):
    limits = LimitPolicy(max_record_bytes=8192)
    headers = tuple((f"h{i}", bytes(n)) for i, n in enumerate(n_headers))
    record = Record(0, 0, key, bytes(n_value), None, headers)
    error = decode([record], EmbeddingPolicy(dimensions=3), limits).errors[0]

    letter = letter_of(record, error)

    validate_record("dead-letters", letter)
    assert size(letter) <= limits.max_record_bytes + 48 * 1024


def test_a_good_record_has_no_dead_letter():
    vector = np.ones(3, np.float32)
    batch = decode(
        [Record(0, 0, b"k", encode_vector(vector))], EmbeddingPolicy(dimensions=3), LimitPolicy()
    )

    assert batch.errors == {}
