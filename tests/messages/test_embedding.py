"""Two embedding models at once: whose a record is, and which one stands."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.errors import ConfigError, Reason, RecordError
from pipeline.messages.codec import decode, encode_vector
from pipeline.messages.embedding import (
    in_force,
    model_headers,
    offset_headers,
    record_model,
    record_offset,
    successor_item,
    successor_key,
)
from pipeline.messages.policy import (
    JSON,
    EmbeddingPolicy,
    LimitPolicy,
    NamedEmbeddingPolicy,
    NextEmbedding,
)
from pipeline.messages.records import Record

LIMITS = LimitPolicy()
OLD = np.array([1, 2], np.float32)
NEW = np.array([3, 4, 5], np.float32)
POLICY = EmbeddingPolicy(dimensions=2, model="old", next=NextEmbedding("new", 3))
AFTER = in_force(POLICY, "new", 4)


def record(vector, model=None, *, sequence=0, headers=()):
    named = () if model is None else (("embedding-model", model.encode()),)
    return Record(0, 0, b"item", encode_vector(vector, sequence), 7, (*named, *headers))


def as_json(vector, **fields):
    value = json.dumps({"vector": np.asarray(vector).tolist(), **fields}).encode()
    return Record(0, 0, b"item", value, 7, (("content-type", JSON.encode()),))


def outcome(records, policy=POLICY):
    """For every record whose it is, or why it is a dead letter."""
    batch = decode(records, policy, LIMITS)
    told = []
    for i, row in enumerate(batch.rows.tolist()):
        if i in batch.errors:
            assert row < 0 and i not in batch.next_rows
            told.append(batch.errors[i].reason)
        elif i in batch.next_rows:
            assert row < 0
            told.append(("next", batch.next_vectors[batch.next_rows[i]].tolist()))
        else:
            told.append(("now", batch.vectors[row].tolist()))
    return told


# --- before the next model takes over -----------------------------------------------------------


def test_both_models_are_accepted_and_a_record_without_a_name_is_one_of_the_old():
    records = [
        record(OLD),
        record(NEW, "new"),
        record(OLD, "old"),
        as_json(NEW, embedding_model="new"),
        as_json(OLD),
    ]

    assert outcome(records) == [
        ("now", [1, 2]), ("next", [3, 4, 5]), ("now", [1, 2]), ("next", [3, 4, 5]), ("now", [1, 2]),
    ]  # fmt: skip


def test_a_vector_counts_by_the_dimensions_of_the_model_that_it_names():
    records = [record(NEW), record(OLD, "new"), record(NEW, "third")]

    assert outcome(records) == [Reason.DIMENSION, Reason.DIMENSION, Reason.EMBEDDING_MODEL]


def test_a_bad_record_of_the_next_model_says_what_is_wrong_with_it():
    bad = np.array([np.nan, 0, 0], np.float32)

    assert outcome([record(bad, "new"), record(NEW, "new")]) == [
        Reason.NOT_FINITE, ("next", [3, 4, 5]),
    ]  # fmt: skip


def test_sequences_and_metadata_come_along():
    seen = ("eddy-metadata", b'{"kind": "b"}')
    batch = decode(
        [record(OLD, sequence=3), record(NEW, "new", sequence=9, headers=[seen])], POLICY, LIMITS
    )

    assert batch.sequences == [3, 9]
    assert batch.metadata == {1: {"kind": "b"}}


def test_control_without_a_next_model_its_records_are_dead_letters():
    alone = EmbeddingPolicy(dimensions=2, model="old")
    batch = decode([record(NEW, "new")], alone, LIMITS)

    assert outcome([record(NEW, "new")], alone) == [Reason.EMBEDDING_MODEL]
    assert batch.next_vectors is None


def test_equal_dimensions_do_not_make_two_models_one():
    same = EmbeddingPolicy(dimensions=2, model="old", next=NextEmbedding("new"))

    assert outcome([record(OLD, "new"), record(OLD)], same) == [("next", [1, 2]), ("now", [1, 2])]


# --- which one stands ---------------------------------------------------------------------------


def test_after_the_change_only_records_that_name_the_new_model_are_good():
    records = [record(NEW, "new"), record(NEW), record(OLD, "old"), as_json(NEW),
               as_json(NEW, embedding_model="new")]  # fmt: skip

    assert outcome(records, AFTER) == [
        ("now", [3, 4, 5]), Reason.EMBEDDING_MODEL, Reason.EMBEDDING_MODEL, Reason.EMBEDDING_MODEL,
        ("now", [3, 4, 5]),
    ]  # fmt: skip


def test_a_header_or_the_field_names_the_model_of_json():
    headers = (("content-type", JSON.encode()), ("embedding-model", b"new"))
    value = json.dumps({"vector": NEW.tolist()}).encode()

    assert outcome([Record(0, 0, b"item", value, 7, headers)], AFTER) == [("now", [3, 4, 5])]


@pytest.mark.parametrize(
    ("configured", "model", "since", "expected"),
    [
        (POLICY, "old", None, POLICY),
        (POLICY, None, None, POLICY),
        (POLICY, "new", 4, NamedEmbeddingPolicy(dimensions=3, model="new")),
        (
            EmbeddingPolicy(dimensions=3, model="new"), "new", 4,
            NamedEmbeddingPolicy(dimensions=3, model="new"),
        ),
        (
            EmbeddingPolicy(dimensions=3, model="new", next=NextEmbedding("third")), "new", 4,
            NamedEmbeddingPolicy(dimensions=3, model="new", next=NextEmbedding("third")),
        ),
        (EmbeddingPolicy(dimensions=3, model="new"), "new", None,
         EmbeddingPolicy(dimensions=3, model="new")),
    ],
)  # fmt: skip
def test_what_stands_follows_from_the_manifest(configured, model, since, expected):
    assert in_force(configured, model, since) == expected


def test_what_stands_is_the_same_however_often_it_is_asked():
    assert in_force(AFTER, "new", 4) == AFTER


# --- configuration ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"next": {"model": "b"}}, "embedding.next.model is 'b', but embedding.model is null"),
        (
            {"model": "a", "next": {"model": "a"}},
            "embedding.next.model is 'a', but must be another",
        ),
        ({"model": "a", "next": {"model": ""}}, "embedding.next.model is empty"),
        (
            {"model": "a", "next": {"dimensions": 3}},
            "embedding.next.dimensions is 3, but embedding",
        ),
        ({"model": "a", "next": {"model": "b", "dimensions": 0}}, "embedding.next.dimensions is 0"),
        ({"model": "a", "next": {"model": "b", "share": 0.0}}, "embedding.next.share is 0.0"),
        ({"model": "a", "next": {"model": "b", "share": 1.1}}, "embedding.next.share is 1.1"),
    ],
)
def test_a_next_model_that_makes_no_sense_is_refused_by_its_path(given, sentence):
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        EmbeddingPolicy(**{**given, "next": NextEmbedding(**given["next"])})


# --- in item-vectors ----------------------------------------------------------------------------


def test_the_key_of_a_successor_is_that_of_no_item():
    assert successor_item(successor_key(b"item")) == b"item"
    assert successor_item(b"item") is None
    with pytest.raises(UnicodeDecodeError):
        successor_key(b"item").decode()


def test_headers_come_back():
    headers = (*model_headers(AFTER), *offset_headers(17))
    told = Record(0, 0, b"item", b"", None, headers)

    assert (record_model(told), record_offset(told)) == ("new", 17)
    assert model_headers(POLICY) == ()
    assert record_model(Record(0, 0, b"item", b"")) is None
    with pytest.raises(RecordError):
        record_offset(Record(0, 0, b"item", b""))
