"""What users write: every form, every reason for a dead letter, and no effect on neighbours."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
import pytest

from pipeline.errors import Reason
from pipeline.messages.codec import decode, encode_vector
from pipeline.messages.policy import JSON, NATIVE, RAW, EmbeddingPolicy, LimitPolicy
from pipeline.messages.records import Record

D = 5
X = np.array([0.5, -0.25, 1.0, 2.0, -256.0], np.float32)
LIMITS = LimitPolicy(max_record_bytes=8192)
POLICY = EmbeddingPolicy(dimensions=D, model="m1")
COSINE = EmbeddingPolicy(dimensions=D, metric="cosine")


def edv1(vector, sequence=0, *, dtype=0, magic=b"EDV1", flags=0, reserved=0, dims=None):
    body = np.asarray(vector).astype("<f2" if dtype == 1 else "<f4").tobytes()
    n_dims = len(vector) if dims is None else dims
    return struct.pack("<4sBBHIQ", magic, dtype, flags, reserved, n_dims, sequence) + body


LIST = X.tolist()


def as_json(vector=LIST, **fields):
    return json.dumps({"vector": vector, **fields}).encode()


def base64_of(vector):
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def record(value, *, key=b"item", headers=(), offset=0):
    return Record(0, offset, key, value, None, tuple(headers))


def typed(content_type, *more):
    return (("content-type", content_type.encode()), *more)


def outcome(records, policy=POLICY, limits=LIMITS):
    """For every record: its reason, None for a tombstone, or (bytes, sequence, metadata)."""
    batch = decode(records, policy, limits)
    told = []
    for i, row in enumerate(batch.rows.tolist()):
        if i in batch.errors:
            told.append(batch.errors[i].reason)
        elif row < 0:
            told.append(None)
        else:
            told.append((batch.vectors[row].tobytes(), batch.sequences[i], batch.metadata.get(i)))
    return told


FORMS = [
    pytest.param(edv1(X, 7), (), 7, id="native"),
    pytest.param(edv1(X, 2**64 - 1), typed(NATIVE), 2**64 - 1, id="native, said so"),
    pytest.param(edv1(X, 7, dtype=1), (), 7, id="float16"),
    pytest.param(X.tobytes(), typed(RAW), 0, id="raw"),
    pytest.param(as_json(), typed(JSON), 0, id="JSON list"),
    pytest.param(as_json(sequence=2**64 - 1), typed(JSON), 2**64 - 1, id="JSON sequence"),
    pytest.param(as_json(base64_of(X)), typed(JSON), 0, id="JSON base64"),
    pytest.param(as_json(embedding_model="m1"), typed(JSON), 0, id="JSON model"),
    pytest.param(edv1(X), (("embedding-model", b"m1"), ("traceparent", b"00-1")), 0, id="headers"),
    pytest.param(edv1(X), typed(" Application/VND.eddy.vector "), 0, id="case of a media type"),
    pytest.param(edv1(X), (("Content-Type", b"?"),), 0, id="case of a header's name"),
    pytest.param(
        edv1(X), (("content-type", b"?"), ("content-type", NATIVE.encode())), 0, id="last header"
    ),
    pytest.param(
        as_json(embedding_model=""), typed(JSON, ("embedding-model", None)), 0, id="no model"
    ),
    pytest.param(edv1(X), (("h", b"x" * 9000),), 0, id="only the value has a limit"),
]


@pytest.mark.parametrize(("value", "headers", "sequence"), FORMS)
def test_every_form_gives_the_vector(value, headers, sequence):
    batch = decode([record(value, headers=headers)], POLICY, LIMITS)

    assert batch.errors == {}
    assert batch.vectors.tolist() == [X.tolist()]
    assert batch.vectors.dtype == np.float32
    assert batch.vectors.flags.c_contiguous
    assert batch.vectors.flags.writeable
    assert batch.rows.tolist() == [0]
    assert batch.sequences == [sequence]


@pytest.mark.parametrize("content_type", [NATIVE, RAW, JSON])
def test_without_a_header_the_configuration_says_the_form(content_type):
    values = {NATIVE: edv1(X), RAW: X.tobytes(), JSON: as_json()}
    policy = EmbeddingPolicy(dimensions=D, content_type=content_type)

    told = {form: outcome([record(value)], policy)[0] for form, value in values.items()}

    assert told.pop(content_type) == (X.tobytes(), 0, None)
    assert set(told.values()) <= {Reason.DECODE, Reason.DIMENSION}


def bad(vector_value):
    vector = X.copy()
    vector[3] = vector_value
    return vector


M1, M2 = ("embedding-model", b"m1"), ("embedding-model", b"m2")
SIGNALLING = np.array([0x7FA00000], "<u4").tobytes()
DEAD_LETTERS = [
    ("key", record(edv1(X), key=None)),
    ("key", record(edv1(X), key=b"")),
    ("key", record(edv1(X), key=b"k" * 513)),
    ("key", record(edv1(X), key=b"\xff")),
    ("key", record(edv1(X), key=b"\xed\xa0\x80")),  # a surrogate alone
    ("key", record(None, key=b"")),
    ("key", record(None, key=None)),
    ("key", record(None, key=b"\xc3")),
    ("key", record(None, key=b"k" * 9000)),
    ("content_type", record(edv1(X), headers=typed("text/plain"))),
    ("content_type", record(edv1(X), headers=typed(""))),
    ("content_type", record(edv1(X), headers=(("content-type", None),))),
    ("content_type", record(edv1(X), headers=(("content-type", b"\xff"),))),
    ("decode", record(b"")),
    ("decode", record(b"EDV1")),
    ("decode", record(edv1(X, magic=b"EDV2"))),
    ("decode", record(edv1(X)[:-1])),
    ("decode", record(edv1(X) + b"\0")),
    ("decode", record(edv1(X, dims=D + 1))),
    ("decode", record(edv1(X, dims=2**32 - 1))),
    ("decode", record(edv1(X, dtype=2))),
    ("decode", record(edv1(X, flags=1))),
    ("decode", record(edv1(X, reserved=1))),
    ("decode", record(b"", headers=typed(RAW))),
    ("decode", record(X.tobytes()[:-1], headers=typed(RAW))),
    ("decode", record(b"", headers=typed(JSON))),
    ("decode", record(b"{", headers=typed(JSON))),
    ("decode", record(b"\xff", headers=typed(JSON))),
    ("decode", record(b"[]", headers=typed(JSON))),
    ("decode", record(b"null", headers=typed(JSON))),
    ("decode", record(b"{}", headers=typed(JSON))),
    ("decode", record(b"[" * 5000, headers=typed(JSON))),
    ("decode", record(as_json(None), headers=typed(JSON))),
    ("decode", record(as_json(3), headers=typed(JSON))),
    ("decode", record(as_json([1, 2, 3, 4, True]), headers=typed(JSON))),
    ("decode", record(as_json([1, 2, 3, 4, "5"]), headers=typed(JSON))),
    ("decode", record(as_json([1, 2, 3, 4, [5]]), headers=typed(JSON))),
    ("decode", record(as_json([1, 2, 3, 4, None]), headers=typed(JSON))),
    ("decode", record(as_json([1, 2, 3, 4, float("nan")]), headers=typed(JSON))),
    ("decode", record(as_json("?"), headers=typed(JSON))),
    ("decode", record(as_json("ä"), headers=typed(JSON))),
    ("decode", record(as_json(base64_of(X)[:-1]), headers=typed(JSON))),
    ("decode", record(as_json(base64.b64encode(b"12345").decode()), headers=typed(JSON))),
    ("decode", record(as_json(sequence=-1), headers=typed(JSON))),
    ("decode", record(as_json(sequence=2**64), headers=typed(JSON))),
    ("decode", record(as_json(sequence=1.0), headers=typed(JSON))),
    ("decode", record(as_json(sequence=True), headers=typed(JSON))),
    ("decode", record(as_json(sequence=None), headers=typed(JSON))),
    ("decode", record(as_json(embedding_model=7), headers=typed(JSON))),
    ("decode", record(as_json(sequnce=7), headers=typed(JSON))),
    ("decode", record(as_json(metadata=[]), headers=typed(JSON))),
    ("decode", record(as_json(metadata={"a": None}), headers=typed(JSON))),
    ("decode", record(as_json(metadata={"a": {}}), headers=typed(JSON))),
    ("decode", record(as_json(metadata={"a": "x" * 4089}), headers=typed(JSON))),
    ("decode", record(edv1(X), headers=(("eddy-metadata", b"{"),))),
    ("decode", record(edv1(X), headers=(("eddy-metadata", None),))),
    ("decode", record(edv1(X), headers=(("eddy-metadata", b'["a"]'),))),
    ("decode", record(edv1(X), headers=(("eddy-metadata", b'{"a":"%s"}' % (b"x" * 4089)),))),
    ("dimension", record(edv1(X[:-1]))),
    ("dimension", record(edv1(X[:-1], dtype=1))),
    ("dimension", record(edv1([]))),
    ("dimension", record(X[:-1].tobytes(), headers=typed(RAW))),
    ("dimension", record(as_json([1.0]), headers=typed(JSON))),
    ("dimension", record(as_json([]), headers=typed(JSON))),
    ("dimension", record(as_json(base64_of(X[:-1])), headers=typed(JSON))),
    ("not_finite", record(edv1(bad(np.nan)))),
    ("not_finite", record(edv1(bad(-np.inf)))),
    ("not_finite", record(edv1(bad(np.nan), dtype=1))),
    ("not_finite", record(edv1(bad(np.inf), dtype=1))),
    ("not_finite", record(edv1(X)[:-4] + SIGNALLING)),
    ("not_finite", record(edv1(X, dtype=1)[:-2] + b"\x01\x7d")),
    ("not_finite", record(bad(np.nan).tobytes(), headers=typed(RAW))),
    ("not_finite", record(as_json(base64_of(bad(np.inf))), headers=typed(JSON))),
    ("out_of_range", record(edv1(bad(256.0001)))),
    ("out_of_range", record(edv1(bad(-1e30)))),
    ("out_of_range", record(edv1(bad(257), dtype=1))),
    ("out_of_range", record(as_json([1, 2, 3, 4, 257]), headers=typed(JSON))),
    ("out_of_range", record(as_json([1, 2, 3, 4, 1e39]), headers=typed(JSON))),
    ("out_of_range", record(as_json([1, 2, 3, 4, -(2**64)]), headers=typed(JSON))),
    ("embedding_model", record(edv1(X), headers=(("embedding-model", b"m2"),))),
    ("embedding_model", record(edv1(X), headers=(("embedding-model", b"\xff"),))),
    ("embedding_model", record(as_json(embedding_model="m2"), headers=typed(JSON))),
    ("embedding_model", record(as_json(embedding_model="m1"), headers=typed(JSON, M2))),
    ("embedding_model", record(as_json(embedding_model="m2"), headers=typed(JSON, M1))),
    ("embedding_model", record(as_json(), headers=typed(JSON, ("embedding-model", b"m2")))),
    ("too_large", record(b"x" * 8193)),
    ("too_large", record(b"x" * 8193, key=b"k" * 9000)),
    ("key", record(edv1(X), key=b"k" * 9000)),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("reason", "broken"), DEAD_LETTERS)
def test_every_reason_is_found_and_leaves_the_neighbours_alone(reason, broken):
    before, after = record(edv1(X, 3), offset=1), record(edv1(2 * X / 4, 4), offset=2)

    batch = decode([before, broken, after], POLICY, LIMITS)

    assert {i: error.reason for i, error in batch.errors.items()} == {1: Reason(reason)}
    assert str(batch.errors[1])
    assert len(str(batch.errors[1])) < 400
    assert batch.rows.tolist() == [0, -1, 1]
    assert batch.vectors.tolist() == [X.tolist(), (X / 2).tolist()]
    assert batch.sequences == [3, 0, 4]
    assert 1 not in batch.metadata


def test_the_reasons_of_decoding_are_all_tried():
    tried = {reason for reason, _ in DEAD_LETTERS} | {"zero_vector"}

    assert tried == set(Reason) - {Reason.LIMIT, Reason.POISON}


@pytest.mark.parametrize("headers", [(), typed("?"), (("h", b"x" * 10_000),), (("h", None),)])
def test_a_tombstone_with_a_key_is_good_whatever_its_headers(headers):
    assert outcome([record(None, headers=headers)]) == [None]


def test_a_model_is_compared_only_when_both_are_given():
    named = record(edv1(X), headers=(("embedding-model", b"m2"),))

    assert outcome([named], EmbeddingPolicy(dimensions=D)) == [(X.tobytes(), 0, None)]
    assert outcome([record(edv1(X))], POLICY) == [(X.tobytes(), 0, None)]


def test_metadata_comes_from_the_field_or_the_header():
    told = {"section": "python", "kib": 1.5, "count": 3, "essential": False}
    header = ("eddy-metadata", json.dumps(told).encode())
    records = [
        record(edv1(X), headers=(header,)),
        record(as_json(metadata=told), headers=typed(JSON)),
        record(as_json(), headers=typed(JSON, header)),
        record(as_json(metadata={"other": 1}), headers=typed(JSON, header)),
        record(edv1(X)),
        record(edv1(X), headers=(("eddy-metadata", b"{}"),)),
        record(None, headers=(header,)),
    ]

    batch = decode(records, POLICY, LIMITS)

    assert batch.errors == {}
    assert batch.metadata == {0: told, 1: told, 2: told, 3: {"other": 1}, 5: {}}


def test_the_first_check_that_fails_gives_the_reason():
    model, kind = ("embedding-model", b"m2"), ("content-type", b"text/plain")
    broken = edv1(bad(np.nan), flags=1)
    steps = [
        (record(broken + b"x" * 9000, key=b"", headers=(kind, model)), Reason.TOO_LARGE),
        (record(broken, key=b"", headers=(kind, model)), Reason.KEY),
        (record(broken, headers=(kind, model)), Reason.CONTENT_TYPE),
        (record(broken, headers=(model, ("eddy-metadata", b"{"))), Reason.EMBEDDING_MODEL),
        (record(broken), Reason.DECODE),
        (record(edv1(bad(np.nan)[1:])), Reason.DIMENSION),
        (record(edv1([np.nan, 1e9, 0, 0, 0])), Reason.NOT_FINITE),
        (record(edv1([1, 1e9, 0, 0, 0])), Reason.OUT_OF_RANGE),
    ]

    assert [outcome([one])[0] for one, _ in steps] == [reason for _, reason in steps]


def test_a_message_never_holds_the_vector():
    for _, broken in DEAD_LETTERS:
        error = decode([broken], POLICY, LIMITS).errors[0]
        assert "-256" not in str(error)
        assert "0.25" not in str(error)


def test_an_empty_batch_is_a_batch():
    batch = decode([], POLICY, LIMITS)

    assert batch.vectors.shape == (0, D)
    assert (batch.rows.tolist(), batch.sequences, batch.errors) == ([], [], {})


# --- cosine -----------------------------------------------------------------------------------


def test_under_cosine_a_long_vector_is_as_good_as_a_short_one():
    scales = np.array([1e-38, 1e-30, 1.0, 1e35], np.float32)
    batch = decode([record(edv1(X * scale)) for scale in scales], COSINE, LIMITS)

    assert batch.errors == {}
    expected = X.astype(np.float64) / np.linalg.norm(X.astype(np.float64))
    assert batch.vectors[2].tolist() == expected.astype(np.float32).tolist()
    np.testing.assert_allclose(batch.vectors, np.tile(expected, (4, 1)), rtol=1e-6)
    assert np.abs(batch.vectors).max() <= 1.0


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_under_cosine_the_zero_vector_is_a_dead_letter(zero):
    zeros = np.full(D, zero, np.float32)

    told = outcome([record(edv1(zeros)), record(edv1(X))], COSINE)

    assert told[0] is Reason.ZERO_VECTOR
    assert told[1][0] != bytes(4 * D)
    assert outcome([record(edv1(zeros))], POLICY) == [(zeros.tobytes(), 0, None)]


def test_under_cosine_numbers_must_still_be_numbers():
    values = [edv1(bad(np.nan)), edv1(bad(np.inf)), as_json([1e39, 0, 0, 0, 0])]
    headers = [(), (), typed(JSON)]
    records = [record(v, headers=h) for v, h in zip(values, headers, strict=True)]

    assert outcome(records, COSINE) == [Reason.NOT_FINITE, Reason.NOT_FINITE, Reason.OUT_OF_RANGE]


@pytest.mark.parametrize("n_dims", [1, 2, 3, 31, 32, 33, 64, 100, 384, 1024, 4099])
def test_a_unit_vector_has_the_same_bits_alone_and_in_any_batch(n_dims):
    rng = np.random.default_rng(n_dims)
    rows = (rng.standard_normal((9, n_dims)) * 10.0 ** rng.integers(-6, 6, (9, 1))).astype("<f4")
    policy = EmbeddingPolicy(dimensions=n_dims, metric="cosine")
    records = [record(encode_vector(row)) for row in rows]
    limits = LimitPolicy()

    together = decode(records, policy, limits).vectors
    alone = np.concatenate([decode([one], policy, limits).vectors for one in records])
    shifted = decode([record(b"?"), record(None), *records[1:]], policy, limits).vectors

    assert together.tobytes() == alone.tobytes()
    assert shifted.tobytes() == together[1:].tobytes()
    for row, unit in zip(rows, together, strict=True):
        assert unit.tobytes() == unit_by_hand(row).tobytes()


def unit_by_hand(row):
    """The written order of additions, one number at a time."""
    sums = [0.0] * 32
    for i, x in enumerate(row.tolist()):
        sums[i % 32] += x * x
    while len(sums) > 1:
        half = len(sums) // 2
        sums = [a + b for a, b in zip(sums[:half], sums[half:], strict=True)]
    length = np.sqrt(np.float64(sums[0]))
    return np.array([np.float32(x / length) for x in row.tolist()], np.float32)
