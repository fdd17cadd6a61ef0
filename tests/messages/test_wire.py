"""Which wire wrote a model is looked at before anything else in it."""

from __future__ import annotations

import json

import pytest

from pipeline.errors import RecordError, TopicError
from pipeline.messages import manifest as manifests
from pipeline.messages.manifest import WIRE, WireError, decode_manifest, encode_manifest
from pipeline.messages.model import MANIFEST_KEY, ModelFold, model_records
from pipeline.messages.records import Record
from tests.messages.model_topic import FIRST, MOVED, SECOND, TOPIC, Topic, history, same
from tests.schemas import validate_record


def of_wire(wire, model=SECOND):
    """A manifest as another version might write it: nothing else in it need mean anything here."""
    return json.dumps({"wire": wire, "version": [model.manifest.epoch, 0]}).encode()


def told_by(*values):
    """A fold of one model, and of manifests after it."""
    fold = ModelFold()
    fold.fold(history(FIRST).records)
    for offset, value in enumerate(values, 100):
        fold.fold([Record(0, offset, MANIFEST_KEY, value)])
    return fold


def test_a_manifest_that_names_no_wire_is_of_the_first():
    value = encode_manifest(FIRST.manifest)

    assert WIRE == 1 and b"wire" not in value
    assert decode_manifest(value) == FIRST.manifest
    named = json.dumps({**json.loads(value), "wire": 1}).encode()
    assert decode_manifest(named) == FIRST.manifest


def test_what_the_next_wire_writes_is_refused_by_this_one(monkeypatch):
    monkeypatch.setattr(manifests, "WIRE", 2)
    newer = model_records(SECOND, TOPIC, previous=FIRST)
    for record in newer:
        validate_record("cluster-model", record)
    monkeypatch.undo()

    fold, topic = ModelFold(), history(FIRST)
    fold.fold(topic.records)
    fold.fold(topic.write(newer))

    assert fold.other_wire == 2
    assert same(fold.newest, FIRST), "and not a mixture"
    assert list(fold.epochs) == [1]


@pytest.mark.parametrize("wire", [0, -1, True, 1.5, "2", None, [2]])
def test_what_is_no_wire_is_no_manifest(wire):
    with pytest.raises(RecordError) as caught:
        decode_manifest(of_wire(wire))

    assert not isinstance(caught.value, WireError)
    assert told_by(of_wire(wire)).other_wire is None


def test_a_newer_wire_is_refused_with_what_to_do():
    fold = told_by(of_wire(2))

    with pytest.raises(TopicError) as caught:
        fold.check_wire(TOPIC)

    assert str(caught.value) == (
        "the model in eddy.cluster-model is of wire 2, and this Eddy reads 1: "
        "a newer Eddy wrote it; update this one"
    )


def test_an_older_wire_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(manifests, "WIRE", 3)
    monkeypatch.setattr("pipeline.messages.model.WIRE", 3)
    fold = told_by(of_wire(2))

    with pytest.raises(TopicError, match="an older Eddy wrote it; update by way of a release"):
        fold.check_wire(TOPIC)


def test_only_the_last_manifest_counts():
    back = encode_manifest(MOVED.manifest)

    told_by(of_wire(2), back).check_wire(TOPIC)
    with pytest.raises(TopicError):
        told_by(of_wire(2), back, of_wire(2)).check_wire(TOPIC)
    with pytest.raises(TopicError):
        told_by(of_wire(2), b"torn").check_wire(TOPIC)


def test_the_last_manifest_is_found_in_a_batch_of_many():
    records = [Record(0, i, MANIFEST_KEY, v) for i, v in enumerate([of_wire(3), of_wire(2)])]
    fold, topic = ModelFold(), Topic()
    fold.fold([*records, *topic.write(model_records(FIRST, TOPIC))])

    fold.check_wire(TOPIC)
    fold.fold(records)
    assert fold.other_wire == 2
