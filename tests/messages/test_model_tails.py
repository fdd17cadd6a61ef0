"""The model's topic through versions of ours: shorter and longer records, lagging readers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.messages.model import (
    ModelFold,
    label_record,
    model_records,
)
from pipeline.messages.records import Outgoing, Record
from tests.messages.model_topic import (
    FIRST,
    MOVED,
    TOPIC,
    D,
    Topic,
    history,
    model,
    moved_to,
    same,
)
from tests.schemas import validate_record


def older(records):
    """The same, as a version wrote them that knew no profile."""
    end = 20 + 4 * D + 16
    return [
        r._replace(value=r.value[:end]) if b"/" in (r.key or b"") and r.value else r
        for r in records
    ]


def test_the_short_tail_of_an_older_version_is_read():
    fold = ModelFold()
    fold.fold(older(history(FIRST).records))

    assert fold.newest.manifest == FIRST.manifest
    assert fold.newest.counts.tolist() == FIRST.counts.tolist()
    assert fold.newest.mean_squared_distances.tolist() == [0.0, 0.5, 1.0]
    assert fold.newest.mean_distances.tolist() == [0.0, 0.0, 0.0]
    assert fold.newest.quantiles.tolist() == [[0.0] * 9] * 3
    assert fold.newest.fitted.tobytes() == FIRST.centroids.tobytes()
    assert fold.newest.is_profiled.tolist() == [False, False, False]
    assert FIRST.is_profiled.tolist() == [False, True, True], "c1 had no members"


def test_a_revision_over_an_older_tail_is_read_too():
    topic = Topic()
    topic.write(older(model_records(FIRST, TOPIC)))
    fold = ModelFold()
    fold.fold(topic.records)
    base = fold.newest
    moved = moved_to(base, 1, [[1, 0, 0], [0, 2, 0], [0, 0, 1]])

    fold.fold(topic.write(model_records(moved, TOPIC, previous=base)))

    assert same(fold.newest, moved)


def test_what_a_later_version_says_behind_the_fitted_centroid_is_passed_over():
    topic = history(FIRST)
    written = model_records(MOVED, TOPIC, previous=FIRST)
    written[0] = written[0]._replace(value=written[0].value + b"more")
    fold = ModelFold()

    fold.fold([*topic.records, *topic.write(written)])

    assert same(fold.newest, MOVED)


@pytest.mark.parametrize(
    "broken",
    [
        lambda value: value[:-1], lambda value: value[: 20 + 4 * D], lambda value: value[:40],
        lambda value: b"EDV2" + value[4:], lambda value: value[:8] + b"\x04" + value[9:],
        lambda value: b"",
    ],
)  # fmt: skip
def test_a_centroid_that_is_none_keeps_the_model_from_being_installed(broken):
    topic = history(FIRST)
    topic.records[1] = topic.records[1]._replace(value=broken(topic.records[1].value))
    fold = ModelFold()

    fold.fold(topic.records)
    assert fold.newest is None

    fold.fold(topic.write(model_records(MOVED, TOPIC, previous=FIRST)))
    assert same(fold.newest, MOVED), "the next revision writes it over"


def test_a_lagging_reader_of_its_own_records_never_goes_back():
    topic, fold = history(FIRST), ModelFold()
    fold.fold(topic.records)
    later = moved_to(FIRST, 2, [[1, 0, 0], [0, 3, 0], [0, 0, 1]])
    own = topic.write(model_records(MOVED, TOPIC, previous=FIRST))
    fold.install(MOVED)
    own += topic.write(model_records(later, TOPIC, previous=MOVED))
    fold.install(later)

    for record in own:
        fold.fold([record])
        assert same(fold.newest, later)
        assert same(fold.model_of(1), later)
    assert fold._known[1].values == {}, "what it knows is not kept twice"


def test_a_revision_is_decoded_over_the_model_at_hand_which_stays_as_it_is():
    topic, fold = history(FIRST), ModelFold()
    fold.fold(topic.records)
    before = fold.newest

    fold.fold(topic.write(model_records(MOVED, TOPIC, previous=FIRST)))

    assert same(before, FIRST)
    assert same(fold.newest, MOVED)
    assert fold.newest.fitted is before.fitted, "what did not change is shared"


def test_a_removed_centroid_takes_its_model_along():
    fold = ModelFold()
    fold.fold(history(FIRST).records)

    fold.fold([Record(0, 99, b"1/c2", None)])

    assert fold.model_of(1) is None


NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda n: st.lists(arrays(np.float32, (n, D), elements=NUMBERS), min_size=1, max_size=5)
    ),
    st.data(),
)
def test_revisions_come_back_bit_by_bit_however_they_are_compacted(places, data):
    n = len(places[0])
    draw = data.draw
    start = dataclasses.replace(
        model(1, 0, places[0]),
        counts=draw(arrays(np.int64, n, elements=st.integers(0, 2**53))),
        mean_squared_distances=draw(arrays(np.float64, n, elements=st.floats(0, 1e30))),
        mean_distances=draw(arrays(np.float64, n, elements=st.floats(0, 1e15))),
        quantiles=draw(arrays(np.float32, (n, 9), elements=NUMBERS)),
    )
    models = [start] + [moved_to(start, i, place) for i, place in enumerate(places) if i]
    topic, tail = history(*models), ModelFold()

    for record in topic.records:
        tail.fold([record])
    late = ModelFold()
    late.fold(topic.compacted())

    assert same(tail.newest, models[-1])
    assert same(late.newest, models[-1])
    assert same(late.model_of(1), models[-1])


def test_a_label_comes_and_goes_as_a_record():
    fold = ModelFold()
    for offset, label in enumerate(["Python", "Ключ", None]):
        written = label_record("c1", label, TOPIC)
        validate_record("cluster-model", written)
        fold.fold([Record(0, offset, written.key, written.value)])
        assert fold.labels.get("c1") == label


def test_a_model_is_what_its_manifest_says():
    with pytest.raises(AssertionError):
        dataclasses.replace(FIRST, centroids=FIRST.centroids[:2])
    assert isinstance(model_records(FIRST, TOPIC)[0], Outgoing)
