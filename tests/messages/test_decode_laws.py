"""Laws of decoding, for records that nobody thought of."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.messages.codec import decode, encode_vector
from pipeline.messages.policy import JSON, NATIVE, RAW, EmbeddingPolicy
from pipeline.messages.records import Record
from tests.messages.test_decode import (
    COSINE,
    DEAD_LETTERS,
    FORMS,
    LIMITS,
    POLICY,
    D,
    X,
    as_json,
    base64_of,
    edv1,
    outcome,
    record,
    typed,
)

HALF = EmbeddingPolicy(dimensions=D, max_component=2.0**15, dtype="float16")
POOL = [record(form.values[0], headers=form.values[1]) for form in FORMS]
POOL += [broken for _, broken in DEAD_LETTERS]
POOL += [record(None), record(None, headers=typed("?"))]
POOL += [record(edv1(X * scale, n)) for n, scale in enumerate((0, 0.5, 1))]
POOL += [record(edv1(X), headers=(("eddy-metadata", b'{"a":%d}' % n),)) for n in range(2)]
POOL += [record(edv1(X), key="ключ".encode()), record(edv1(X), key=b"\xd0"), record(None, key=b"x")]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(POOL), max_size=12),
    st.sampled_from([POLICY, COSINE, HALF, EmbeddingPolicy(dimensions=D, content_type=RAW)]),
)
def test_a_record_is_judged_the_same_in_any_batch(records, policy):
    assert outcome(records, policy) == [outcome([one], policy)[0] for one in records]


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "embedding-model", "eddy-metadata", "x"]),
        st.none()
        | st.binary(max_size=20)
        | st.sampled_from([NATIVE.encode(), RAW.encode(), JSON.encode(), b"m1", b'{"a":1}']),
    ),
    max_size=3,
).map(tuple)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
VALUES = (
    st.none()
    | st.binary(max_size=60)
    | st.binary(min_size=4 * D, max_size=4 * D)
    | st.binary(min_size=4 * D, max_size=4 * D).map(lambda body: edv1(X)[:20] + body)
    | st.tuples(st.integers(0, 39), st.integers(0, 255)).map(
        lambda change: edv1(X)[: change[0]] + bytes([change[1]]) + edv1(X)[change[0] + 1 :]
    )
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {},
        optional={
            "vector": st.lists(st.floats() | st.integers(), min_size=D, max_size=D) | JSON_VALUES,
            "sequence": st.integers() | JSON_VALUES,
            "embedding_model": st.sampled_from(["m1", "m2"]) | JSON_VALUES,
            "metadata": st.dictionaries(st.text(max_size=4), JSON_VALUES) | JSON_VALUES,
        },
    ).map(lambda value: json.dumps(value).encode())
)


@pytest.mark.filterwarnings("error")
@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.builds(
            Record,
            st.just(0),
            st.just(0),
            st.none() | st.binary(max_size=4) | st.just(b"item"),
            VALUES,
            st.none(),
            HEADERS,
        ),
        max_size=6,
    ),
    st.sampled_from([POLICY, COSINE, HALF, EmbeddingPolicy(dimensions=D, content_type=JSON)]),
)
def test_nothing_that_may_be_written_raises(records, policy):
    batch = decode(records, policy, LIMITS)

    assert np.isfinite(batch.vectors).all()
    assert np.abs(batch.vectors).max(initial=0) <= policy.largest_component
    assert sorted(row for row in batch.rows.tolist() if row >= 0) == list(range(len(batch.vectors)))
    for i, one in enumerate(records):
        assert (batch.rows[i] >= 0) == (one.value is not None and i not in batch.errors)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-256, 256, width=32), min_size=D, max_size=D),
    st.integers(0, 2**64 - 1),
)
def test_a_vector_survives_every_form(numbers, sequence):
    vector = np.array(numbers, np.float32)
    records = [
        record(encode_vector(vector, sequence)),
        record(vector.tobytes(), headers=typed(RAW)),
        record(as_json(numbers, sequence=sequence), headers=typed(JSON)),
        record(as_json(base64_of(vector), sequence=sequence), headers=typed(JSON)),
    ]

    batch = decode(records, EmbeddingPolicy(dimensions=D), LIMITS)

    assert batch.errors == {}
    assert batch.vectors.tobytes() == np.tile(vector, (4, 1)).tobytes()
    assert batch.sequences == [sequence, 0, sequence, sequence]


def test_a_json_number_is_rounded_to_float32_by_way_of_float64():
    number = 1 + 2.0**-24 + 2.0**-60  # in float64 it is 1 + 2**-24, half way: to even

    batch = decode([record(as_json([number] * D), headers=typed(JSON))], POLICY, LIMITS)

    assert batch.vectors[0, 0] == 1.0
