"""Rounding to float16 and back: bit by bit what numpy's own casts say, and final at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from pipeline.errors import ConfigError, Reason
from pipeline.messages import halves
from pipeline.messages.codec import decode, decode_vectors, encode_vector
from pipeline.messages.halves import round_to_half, widened
from pipeline.messages.policy import (
    JSON,
    RAW,
    EmbeddingPolicy,
    NamedEmbeddingPolicy,
    NextEmbedding,
)
from tests.messages.test_decode import LIMITS, as_json, base64_of, edv1, outcome, record, typed

D = 4
POLICY = EmbeddingPolicy(dimensions=D, dtype="float16")
COSINE = EmbeddingPolicy(dimensions=D, metric="cosine", dtype="float16")
HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)
FINITE = HALVES[np.isfinite(HALVES)]


def cast(matrix):
    return matrix.astype(np.float16).astype(np.float32)


def near_all_halves():
    """Every float16, the middles between neighbours, and what lies right beside these."""
    exact = np.sort(np.unique(FINITE.astype(np.float32)))
    middles = exact[:-1] + np.diff(exact) / 2
    beside = [np.nextafter(x, y, dtype=np.float32) for x in (exact, middles) for y in (-9e9, 9e9)]
    found = np.concatenate([exact, middles, *beside])
    return np.concatenate([found[np.abs(found) <= 65504], np.float32([-0.0, 1e-40, -1e-40])])


def test_every_float16_every_tie_and_their_neighbours_round_as_numpy_rounds_them():
    numbers = near_all_halves()

    assert len(numbers) > 300_000
    assert round_to_half(numbers[None].copy()).tobytes() == cast(numbers[None]).tobytes()


def test_every_finite_float16_is_widened_to_itself():
    wide = widened(FINITE.reshape(-1, 2))

    assert wide.dtype == np.float32 and wide.flags.c_contiguous
    assert wide.tobytes() == FINITE.astype(np.float32).tobytes()


NUMBERS = st.floats(-65504, 65504, width=32)
MATRICES = some.arrays(
    np.float32, st.tuples(st.integers(0, 5), st.integers(1, 7)), elements=NUMBERS
)


@settings(max_examples=100, deadline=None)
@given(MATRICES)
def test_a_rounded_vector_stays_what_it_is(matrix):
    once = round_to_half(matrix.copy())

    assert once.tobytes() == cast(matrix).tobytes()
    assert round_to_half(once.copy()).tobytes() == once.tobytes()
    assert widened(once.astype(np.float16)).tobytes() == once.tobytes()


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_the_size_of_a_block_leaves_no_trace(monkeypatch, block):
    monkeypatch.setattr(halves, "BLOCK", block)
    numbers = near_all_halves()[::997].reshape(-1, 1)

    assert round_to_half(numbers.copy()).tobytes() == cast(numbers).tobytes()
    assert widened(numbers.astype(np.float16)).tobytes() == cast(numbers).tobytes()


def test_widening_takes_rows_as_they_lie_and_leaves_float32_alone():
    matrix = np.arange(12, dtype=np.float16).reshape(3, 4)
    single = np.zeros((2, 2), np.float32)

    assert widened(matrix.T).tolist() == matrix.T.tolist()
    assert widened(matrix[::2, ::2]).tolist() == [[0, 2], [8, 10]]
    assert widened(matrix[:0]).shape == (0, 4)
    assert widened(single) is single


# --- at the door ----------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-256, 256, width=32), min_size=D, max_size=D))
def test_every_form_of_a_vector_is_rounded_alike_and_its_copy_no_more(numbers):
    vector = np.array(numbers, np.float32)
    records = [
        record(encode_vector(vector)),
        record(vector.tobytes(), headers=typed(RAW)),
        record(as_json(numbers), headers=typed(JSON)),
        record(as_json(base64_of(vector)), headers=typed(JSON)),
    ]

    batch = decode(records, POLICY, LIMITS)
    copies = [encode_vector(row) for row in batch.vectors]

    assert batch.errors == {}
    assert batch.vectors.dtype == np.float32
    assert batch.vectors.tobytes() == np.tile(cast(vector), (4, 1)).tobytes()
    assert decode_vectors(copies, D)[0].tobytes() == batch.vectors.tobytes()
    again = decode([record(copy) for copy in copies], POLICY, LIMITS)
    assert again.vectors.tobytes() == batch.vectors.tobytes()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-9, 9, width=32), min_size=D, max_size=D).filter(any))
def test_under_cosine_the_unit_vector_is_rounded(numbers):
    value = encode_vector(np.array(numbers, np.float32))
    whole = EmbeddingPolicy(dimensions=D, metric="cosine")

    ((bytes_, *_),) = outcome([record(value)], COSINE)
    unit = decode([record(value)], whole, LIMITS).vectors

    assert bytes_ == cast(unit).tobytes()


def test_what_float16_cannot_hold_is_a_dead_letter_and_its_neighbours_are_not():
    policy = EmbeddingPolicy(dimensions=D, max_component=2.0**15, dtype="float16")
    good = [0.1, -32768.0, 32767.99, 1e-9]
    bad = [[1, 65520.0, 2, 3], [1e30, 0, 0, 0], [0, 0, 32770.0, 0]]

    batch = decode([record(edv1(v)) for v in (good, *bad, good)], policy, LIMITS)

    assert {i: error.reason for i, error in batch.errors.items()} == dict.fromkeys(
        (1, 2, 3), Reason.OUT_OF_RANGE
    )
    assert np.isfinite(batch.vectors).all()
    assert batch.vectors.tobytes() == cast(np.float32([good, good])).tobytes()


@pytest.mark.filterwarnings("error")
def test_no_number_is_too_strange_to_be_judged():
    strange = [np.nan, np.inf, -np.inf, 3e38, 1e-45]

    for policy in (POLICY, COSINE):
        batch = decode([record(edv1([x, 1, 1, 1])) for x in strange], policy, LIMITS)
        reasons = [str(batch.errors[i].reason) for i in sorted(batch.errors)]
        far = [] if policy is COSINE else ["out_of_range"]
        assert reasons == ["not_finite"] * 3 + far
        assert np.isfinite(batch.vectors).all()


@pytest.mark.parametrize("largest", [2.0**16, 2.0**32, 2.0**-15])
def test_a_bound_that_float16_cannot_hold_is_refused(largest):
    EmbeddingPolicy(max_component=largest)

    with pytest.raises(ConfigError, match=r"^embedding.max_component is .* state.dtype is float16"):
        EmbeddingPolicy(max_component=largest, dtype="float16")


@pytest.mark.parametrize("largest", [2.0**15, 2.0**-14, None])
def test_a_bound_that_float16_can_hold_is_taken(largest):
    EmbeddingPolicy(max_component=largest, dtype="float16")


def test_another_dtype_is_refused():
    with pytest.raises(ConfigError, match="^state.dtype is 'int8'"):
        EmbeddingPolicy(dtype="int8")


def test_the_next_embedding_model_is_held_alike():
    policy = EmbeddingPolicy(
        dimensions=D, model="a", next=NextEmbedding(model="b"), dtype="float16"
    )

    assert isinstance(policy.successor, NamedEmbeddingPolicy)
    assert policy.successor.dtype == "float16"
