"""The model's topic: what is written, and what any reader makes of it."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import struct

import numpy as np
import pytest

from pipeline.errors import RecordError
from pipeline.messages.codec import json_bytes, json_value
from pipeline.messages.model import (
    ModelFold,
    decode_manifest,
    digest,
    encode_manifest,
    label_key,
    model_records,
)
from pipeline.messages.records import Record
from tests.messages.model_topic import (
    FIRST,
    MOVED,
    SECOND,
    TOPIC,
    D,
    Topic,
    history,
    model,
    moved_to,
    same,
)
from tests.schemas import validate_record


def test_a_new_epoch_writes_all_centroids_and_the_manifest_last():
    records = model_records(FIRST, TOPIC)

    assert [record.key for record in records] == [b"1/c1", b"1/c2", b"1/c3", b"1", b"manifest"]
    assert {(record.topic, record.partition) for record in records} == {(TOPIC, 0)}
    assert records[1].value == (
        struct.pack("<4sBBHIQ3f", b"EDV1", 0, 0, 0, D, 0, 0, 1, 0)
        + struct.pack("<Qdd9f", 1, 0.5, 0.25, *(i / 8 for i in range(9, 18)))
    )
    assert records[3].value == records[4].value
    for record in records:
        validate_record("cluster-model", record)


def test_the_digest_is_of_the_bytes_in_label_order():
    bytes_by_hand = struct.pack("<9f", 1, 0, 0, 0, 1, 0, 0, 0, 1)

    assert FIRST.manifest.digest == hashlib.sha256(bytes_by_hand).hexdigest()
    assert digest(FIRST.centroids[::-1]) != FIRST.manifest.digest
    assert digest(np.asfortranarray(FIRST.centroids)) == FIRST.manifest.digest


def test_a_revision_writes_what_moved():
    records = model_records(MOVED, TOPIC, previous=FIRST)

    assert [record.key for record in records] == [b"1/c2", b"1", b"manifest"]
    assert struct.unpack_from("<Q", records[0].value, 12) == (1,)
    profile = struct.pack("<Qdd9f", 1, 0.5, 0.25, *(i / 8 for i in range(9, 18)))
    assert records[0].value[20:] == struct.pack("<3f", 0, 2, 0) + profile + struct.pack(
        "<3f", 0, 1, 0
    ), "where it was fitted"
    for record in records:
        validate_record("cluster-model", record)


def test_a_centroid_that_came_back_to_where_it_was_fitted_is_written_without_that():
    back = dataclasses.replace(FIRST, manifest=dataclasses.replace(FIRST.manifest, revision=2))

    records = model_records(back, TOPIC, previous=MOVED)

    assert [record.key for record in records] == [b"1/c2", b"1", b"manifest"]
    assert len(records[0].value) == 20 + 12 + 60
    fold = ModelFold()
    fold.fold([*history(FIRST, MOVED).records, *Topic().write(records)])
    assert same(fold.newest, back)


def test_a_bit_that_only_the_digest_sees_is_written():
    signed = moved_to(FIRST, 1, [[1, 0, 0], [0, 1, -0.0], [0, 0, 1]])

    records = model_records(signed, TOPIC, previous=FIRST)

    assert [record.key for record in records] == [b"1/c2", b"1", b"manifest"]


def test_a_revision_that_moves_nothing_writes_the_manifest():
    still = dataclasses.replace(FIRST, manifest=dataclasses.replace(FIRST.manifest, revision=1))

    assert [r.key for r in model_records(still, TOPIC, previous=FIRST)] == [b"1", b"manifest"]


def test_epochs_beyond_those_kept_are_removed_with_their_centroids():
    records = model_records(
        SECOND, TOPIC, previous=MOVED, drop=[FIRST.manifest], unlabel=["c1", "c2"]
    )

    gone = [record.key for record in records if record.value is None]
    assert gone == [b"1/c1", b"1/c2", b"1/c3", b"1", b"label:c1", b"label:c2"]
    assert records[-1].key == b"manifest"
    for record in records:
        validate_record("cluster-model", record)


def test_a_manifest_comes_back():
    assert decode_manifest(encode_manifest(FIRST.manifest)) == FIRST.manifest
    assert FIRST.version == "1.0"
    fading = dataclasses.replace(FIRST.manifest, half_life_s=3600.0, landmark_ms=1_772_366_400_123)
    assert decode_manifest(encode_manifest(fading)) == fading
    assert json_value(encode_manifest(fading))["forgetting"] == {
        "half_life_s": 3600.0,
        "landmark": "2026-03-01T12:00:00.123Z",
    }


def test_a_manifest_of_an_older_version_forgets_nothing():
    told = json_value(encode_manifest(FIRST.manifest))
    assert told.pop("forgetting") is None

    assert decode_manifest(json_bytes(told)) == FIRST.manifest


@pytest.mark.parametrize(
    "forgetting", [{}, [], 1, {"half_life_s": 1.0}, {"half_life_s": 1.0, "landmark": None}]
)
def test_control_half_a_way_to_forget_is_no_manifest(forgetting):
    told = json_value(encode_manifest(FIRST.manifest)) | {"forgetting": forgetting}

    with pytest.raises(RecordError):
        decode_manifest(json_bytes(told))


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_the_newest_model_is_found_however_the_topic_is_read(chunk):
    topic = history(FIRST, MOVED, SECOND)
    fold = ModelFold()

    for start in range(0, len(topic.records), chunk):
        fold.fold(topic.records[start : start + chunk])

    assert same(fold.newest, SECOND)
    assert fold.epochs == {1: MOVED.manifest, 2: SECOND.manifest}
    assert same(fold.model_of(1), MOVED)
    assert fold.model_of(3) is None
    assert fold.n_ignored == 0


def test_a_compacted_topic_gives_the_same():
    topic = history(FIRST, MOVED, SECOND)
    fold = ModelFold()

    fold.fold(topic.compacted())

    assert same(fold.newest, SECOND)
    assert same(fold.model_of(1), MOVED)


def test_a_tail_follows_every_revision():
    topic, fold, previous = Topic(), ModelFold(), None

    for one in (FIRST, MOVED, SECOND):
        fold.fold(topic.write(model_records(one, TOPIC, previous=previous)))
        previous = one
        assert same(fold.newest, one)
        fold.fold([])
        assert same(fold.newest, one)


def test_a_manifest_whose_centroids_were_written_over_is_passed_over():
    topic = history(FIRST, MOVED)
    written_over = [r for r in topic.records if not (r.key == b"1/c2" and r.offset < 5)]
    *before, last_centroid, epoch, manifest = written_over
    fold = ModelFold()

    fold.fold(before)
    assert fold.newest is None, "its c2 is gone"
    fold.fold([last_centroid, epoch])
    assert fold.newest is None
    fold.fold([manifest])
    assert same(fold.newest, MOVED)


def test_a_model_that_is_complete_stays_until_the_next_is():
    topic = history(FIRST)
    fold = ModelFold()
    fold.fold(topic.records)
    coming = topic.write(model_records(MOVED, TOPIC, previous=FIRST))

    for record in coming[:-1]:
        fold.fold([record])
        assert same(fold.newest, FIRST)
    fold.fold(coming[-1:])
    assert same(fold.newest, MOVED)


def test_an_older_manifest_never_replaces_a_newer_one():
    fold = ModelFold()
    fold.fold(history(FIRST, MOVED, SECOND).records)

    fold.fold(history(FIRST).records)

    assert same(fold.newest, SECOND)


def test_dropped_epochs_are_forgotten():
    topic = history(FIRST)
    topic.write(model_records(SECOND, TOPIC, previous=FIRST, drop=[FIRST.manifest]))
    fold = ModelFold()

    fold.fold(topic.records)

    assert fold.epochs.keys() == {2}
    assert fold.model_of(1) is None
    assert fold._known.keys() == {2}, "what can grow has a bound"


def test_labels_come_and_go():
    fold = ModelFold()
    fold.fold([Record(0, 0, label_key("c1"), b'{"label":"Python"}')])
    fold.fold([Record(0, 1, label_key("c2"), b'{"label":"C","new":1}')])
    assert fold.labels == {"c1": "Python", "c2": "C"}

    fold.fold([Record(0, 2, label_key("c1"), None)])
    assert fold.labels == {"c2": "C"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"x"), (b"", b"x"), (b"\xff", b"x"), (b"other", b"x"), (b"9" * 5000, b"x"),
        (b"manifest", b"x"), (b"manifest", b"{}"), (b"manifest", b"[]"), (b"3", b"{"),
        (b"label:c1", b"["), (b"label:", b"[]"), (b"1/c1", b"x"), (b"1/c2", b""), (b"7/c1", None),
        (b"7", None), (b"manifest", None),
    ],
)  # fmt: skip
def test_what_nobody_knows_is_passed_over(key, value):
    fold = ModelFold()
    fold.fold(history(FIRST).records)

    fold.fold([Record(0, 99, key, value)])

    assert same(fold.newest, FIRST)


def test_a_fold_that_published_itself_reads_its_own_model_without_harm():
    topic, fold = history(FIRST), ModelFold()
    fold.fold(topic.records)
    own = topic.write(model_records(MOVED, TOPIC, previous=FIRST))

    fold.install(MOVED)
    assert same(fold.newest, MOVED)
    fold.fold(own)

    assert same(fold.newest, MOVED)
    assert same(fold.model_of(1), MOVED)


def test_a_field_of_a_later_version_is_passed_over():
    told = json_value(encode_manifest(FIRST.manifest)) | {"decay": 1}

    assert decode_manifest(json_bytes(told)) == FIRST.manifest


@pytest.mark.parametrize("seed", range(20))
def test_any_prefix_and_any_compaction_gives_a_published_model_or_none(seed):
    rng = random.Random(seed)
    models, previous = [], None
    centroids = np.zeros((4, D), np.float32)
    for _ in range(6):
        if previous is None or rng.random() < 0.3:
            epoch, revision = (previous.manifest.epoch if previous else 0) + 1, 0
        else:
            epoch, revision = previous.manifest.epoch, previous.manifest.revision + 1
        centroids = centroids.copy()
        for label in rng.sample(range(4), rng.randint(0, 4)):
            centroids[label] = rng.random()
        previous = model(epoch, revision, centroids)
        models.append(previous)
    topic = history(*models)
    start = rng.randrange(len(topic.records))
    last = {r.key: r.offset for r in topic.records[: start + 1]}
    kept = [
        r for r in topic.records
        if r.offset > start or last[r.key] == r.offset or rng.random() < 0.3
    ]  # fmt: skip
    fold = ModelFold()

    seen = []
    while kept:
        n = rng.randint(1, 5)
        fold.fold(kept[:n])
        kept = kept[n:]
        if fold.newest is not None:
            seen.append(fold.newest)

    assert same(fold.newest, models[-1])
    by_version = {m.version: m for m in models}
    assert all(same(found, by_version[found.version]) for found in seen)
    versions = [(m.manifest.epoch, m.manifest.revision) for m in seen]
    assert versions == sorted(versions)
