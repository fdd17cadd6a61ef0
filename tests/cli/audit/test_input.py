"""The rules of the input as the judge reads them: forms, faults, and what a cut log can tell."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from pipeline.cli.audit.forms import decode, lane_sums
from pipeline.cli.audit.input import PartitionInput, fold
from pipeline.messages.policy import EmbeddingPolicy, LimitPolicy
from pipeline.messages.records import Record
from tests.cli.history import canonical, edv1

D = 5
POLICY = EmbeddingPolicy(dimensions=D, model="m1")
LIMITS = LimitPolicy(max_record_bytes=4096, max_items_per_partition=2)
X = np.arange(1, D + 1, dtype=np.float32)


def record(value, *, key=b"a", headers=(), offset=0):
    return Record(0, offset, key, value, 0, tuple(headers))


def typed(form, *more):
    return (("content-type", form.encode()), *more)


def js(**fields):
    return json.dumps({"vector": X.tolist()} | fields).encode()


AS_JSON = typed("application/json")
AS_RAW = typed("application/octet-stream")


@pytest.mark.parametrize(
    ("value", "headers", "sequence"),
    [
        (edv1(X, 7), (), 7),
        (edv1(X, 7, dtype=1), (), 7),
        (edv1(X), typed("application/vnd.eddy.vector", ("traceparent", b"00-")), 0),
        (X.tobytes(), AS_RAW, 0),
        (
            js(sequence=9, embedding_model="m1", metadata={"a": "b", "n": 1.5, "t": True}),
            AS_JSON,
            9,
        ),
        (js(vector=base64.b64encode(X.tobytes()).decode()), AS_JSON, 0),
        (edv1(X), (("embedding-model", b"m1"), ("eddy-metadata", b'{"a": 1}')), 0),
    ],
)
def test_every_form_gives_the_vector(value, headers, sequence):
    read = decode([record(value, headers=headers)], POLICY, LIMITS)

    assert read.faults == {}
    assert read.vectors[read.rows[0]].tolist() == X.tolist()
    assert read.sequences == [sequence]


NAN = np.array([np.nan, *X[1:]], np.float32)
LARGE = np.array([257.0, *X[1:]], np.float32)


@pytest.mark.parametrize(
    ("value", "key", "headers", "reason"),
    [
        (edv1(X), b"", (), "key"),
        (edv1(X), None, (), "key"),
        (edv1(X), b"a" * 513, (), "key"),
        (edv1(X), b"\xff", (), "key"),
        (None, b"\xff", (), "key"),
        (edv1(X), b"a", typed("text/plain"), "content_type"),
        (b"", b"a", (), "decode"),
        (b"EDV2" + edv1(X)[4:], b"a", (), "decode"),
        (edv1(X)[:-1], b"a", (), "decode"),
        (X.tobytes()[:-1], b"a", AS_RAW, "decode"),
        (b"{", b"a", AS_JSON, "decode"),
        (b"\xff", b"a", AS_JSON, "decode"),
        (b"[]", b"a", AS_JSON, "decode"),
        (b"{}", b"a", AS_JSON, "decode"),
        (js(vector=None), b"a", AS_JSON, "decode"),
        (js(vector="?"), b"a", AS_JSON, "decode"),
        (js(vector=[1, 2, 3, 4, True]), b"a", AS_JSON, "decode"),
        (js(sequence=-1), b"a", AS_JSON, "decode"),
        (js(sequence=1.5), b"a", AS_JSON, "decode"),
        (js(vectr=[]), b"a", AS_JSON, "decode"),
        (js(metadata={"a": []}), b"a", AS_JSON, "decode"),
        (js(vector=[float("nan")] * D), b"a", AS_JSON, "decode"),
        (edv1(X), b"a", (("eddy-metadata", b"{"),), "decode"),
        (edv1(X[:-1]), b"a", (), "dimension"),
        (X[:-1].tobytes(), b"a", AS_RAW, "dimension"),
        (js(vector=[1.0]), b"a", AS_JSON, "dimension"),
        (edv1(NAN), b"a", (), "not_finite"),
        (edv1(X * np.inf), b"a", (), "not_finite"),
        (edv1(LARGE), b"a", (), "out_of_range"),
        (js(vector=[1e300] * D), b"a", AS_JSON, "out_of_range"),
        (edv1(X), b"a", (("embedding-model", b"m2"),), "embedding_model"),
        (js(embedding_model="m2"), b"a", AS_JSON, "embedding_model"),
        (b"x" * 4097, b"a", (), "too_large"),
    ],
)
def test_every_fault_has_its_reason_and_leaves_the_others_alone(value, key, headers, reason):
    good = record(edv1(X, 3), offset=1)

    read = decode([record(value, key=key, headers=headers), good], POLICY, LIMITS)

    assert reason in read.faults[0]
    assert read.faults.keys() == {0}
    assert read.vectors[read.rows[1]].tolist() == X.tolist()


def test_under_cosine_vectors_become_unit_and_zero_is_a_fault():
    cosine = EmbeddingPolicy(dimensions=D, metric="cosine")

    read = decode([record(edv1(X * 1000)), record(edv1(X * 0))], cosine, LIMITS)

    assert read.faults == {1: frozenset({"zero_vector"})}
    assert np.linalg.norm(read.vectors[read.rows[0]]) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("n_dims", [1, 31, 32, 33, 384])
def test_sums_of_squares_are_those_of_the_published_order(n_dims):
    x = np.random.default_rng(n_dims).standard_normal((3, n_dims))

    assert lane_sums(x * x).tolist() == [canonical(row) for row in x]


# Which record counts


def folded(*changes, whole=True, told=None):
    """``(offset, key, sequence)``; a sequence of None is a tombstone, -1 a bad value."""
    state = PartitionInput(whole=whole)
    records = [
        record(
            None if sequence is None else b"bad" if sequence < 0 else edv1(X, sequence),
            key=key.encode(),
            offset=offset,
        )
        for offset, key, sequence in changes
    ]
    for one in records:  # batch boundaries leave no trace
        fold(state, [one], POLICY, LIMITS, told or {})
    together = PartitionInput(whole=whole)
    fold(together, records, POLICY, LIMITS, told or {})
    assert [(k, h.offset, h.known) for k, h in state.items.items()] == [
        (k, h.offset, h.known) for k, h in together.items.items()
    ]
    return state


def counts(*changes, **kwargs):
    history = folded(*changes, **kwargs).items["a"]
    return history.offset, history.sequence, history.n_later


def test_a_sequence_that_is_not_above_the_last_is_stale():
    assert counts((0, "a", 5), (1, "a", 5), (2, "a", 4)) == (0, 5, 2)
    assert counts((0, "a", 5), (1, "a", 6)) == (1, 6, 0)


def test_a_record_without_a_sequence_clears_it():
    assert counts((0, "a", 5), (1, "a", 0), (2, "a", 1)) == (2, 1, 0)


def test_a_tombstone_forgets_the_sequence():
    assert counts((0, "a", 5), (1, "a", None), (2, "a", 1)) == (2, 1, 0)


def test_a_bad_record_leaves_the_item_as_it_was():
    assert counts((0, "a", 5), (1, "a", -1), (2, "a", 4)) == (0, 5, 2)


def test_a_removed_item_says_by_which_record():
    state = folded((0, "a", 0), (1, "a", None), (2, "a", None), (3, "b", None))

    assert state.items["a"].removed_at == 1
    assert not state.items["a"].live
    assert state.items["b"].removed_at == -1


def test_an_item_above_the_limit_is_bad_until_there_is_room():
    state = folded((0, "a", 0), (1, "b", 0), (2, "c", 0), (3, "a", None), (4, "c", 0))

    assert {offset: bad.reasons for offset, bad in state.bad.items()} == {2: {"limit"}}
    assert state.items["c"].offset == 4


def test_a_limit_is_believed_where_the_log_is_cut():
    state = folded((7, "a", 0), (8, "c", 0), whole=False, told={8: "limit"})

    assert not state.items["c"].live
    assert state.bad.keys() == {8}


def test_a_gapless_beginning_of_a_compacted_log_tells_everything():
    state = folded((0, "a", 5), (1, "b", -1), (5, "c", 3), whole=False)

    assert state.items["a"].known
    assert state.items["b"].known
    assert not state.items["c"].known, "an older record with a higher sequence may be gone"


def test_what_a_cut_log_cannot_know_is_kept_in_mind():
    state = folded((5, "a", 3), (6, "b", 0), (7, "c", -1), (8, "d", None), whole=False)

    assert (state.items["a"].known, state.items["a"].least_sequence) == (False, 3)
    assert state.items["b"].known
    assert not state.items["c"].known
    assert state.items["d"].known
