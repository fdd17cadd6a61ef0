"""What we write: the bytes themselves, and that they come back as they were."""

from __future__ import annotations

import datetime
import json
import math

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Reason, RecordError
from pipeline.messages.codec import (
    AssignmentRow,
    decode_assignment,
    decode_change,
    decode_drift,
    decode_head,
    decode_lifecycle,
    decode_statistics,
    encode_assignment,
    encode_change,
    encode_drift,
    encode_head,
    encode_lifecycle,
    head_key,
    json_value,
    milliseconds,
    timestamp,
    wire_number,
)
from pipeline.messages.events import (
    Cause,
    ChangeType,
    ClusterChange,
    Drift,
    Head,
    Lifecycle,
    LifecycleType,
    change_id,
    confidence,
)
from pipeline.messages.policy import EventPolicy
from pipeline.messages.vectors import decode_vector
from tests.schemas import validate

PLAIN = EventPolicy()
ENVELOPES = ["plain", "cloudevents-structured", "cloudevents-binary"]
NOON_MS = 1_772_366_400_123
CHANGE = ClusterChange(
    id="embedding-changes/3/1841",
    type=ChangeType.REASSIGNED,
    item="python3-numpy",
    from_cluster="c12",
    to_cluster="c40",
    cause=Cause.RECORD,
    distance=0.412,
    margin=0.083,
    confidence=0.17,
    epoch=7,
    revision=31,
    topic="embedding-changes",
    partition=3,
    offset=1841,
    occurred_at_ms=NOON_MS,
    typicality=0.04,
)
COUNTS = st.integers(0, 2**53)
DISTANCES = st.floats(0, 1e30)
CLUSTERS = st.integers(1, 10**9).map("c{}".format)
ITEMS = st.text(min_size=1, max_size=30).filter(lambda text: len(text.encode()) <= 512)
TIMES = st.none() | st.integers(-62_135_596_800_000, 253_402_300_799_999)
SCALARS = st.text(max_size=9) | st.integers(-(2**53), 2**53) | st.booleans() | st.floats(-9, 9)


# --- numbers and times ------------------------------------------------------------------------


@settings(deadline=None)
@given(st.floats(-3e38, 3e38))
def test_a_number_is_float32_rounded_to_seven_digits(number):
    assert wire_number(number) == float(f"{float(np.float32(number)):.7g}")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.412, b"0.412"),
        (0.0, b"0.0"),
        (2.0, b"2.0"),
        (1 / 3, b"0.3333333"),
        (123_456_789.0, b"123456800.0"),
        (0.1 + 0.2, b"0.3"),
    ],
)
def test_numbers_look_as_people_write_them(number, text):
    value = encode_assignment("c1", number, 0, 1, 0, 0, 0)

    assert value.split(b'"distance":')[1].split(b",")[0] == text


def test_a_time_is_iso_8601_with_milliseconds():
    assert timestamp(NOON_MS) == "2026-03-01T12:00:00.123Z"
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(-1) == "1969-12-31T23:59:59.999Z"
    assert timestamp(None) is None


@settings(deadline=None)
@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_a_time_comes_back(ms):
    told = timestamp(ms)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

    assert milliseconds(told) == ms
    assert datetime.datetime.fromisoformat(told) - epoch == datetime.timedelta(milliseconds=ms)


@pytest.mark.parametrize("ms", [-(2**63), 2**63 - 1, 253_402_300_800_000, -62_135_596_800_001])
def test_a_time_that_no_calendar_has_is_none(ms):
    assert timestamp(ms) is None


# --- change events ----------------------------------------------------------------------------


def test_a_change_is_written_as_documented():
    value, headers = encode_change(CHANGE, PLAIN)

    assert headers == ()
    assert value == (
        b'{"id":"embedding-changes/3/1841","type":"reassigned","item":"python3-numpy",'
        b'"from":"c12","to":"c40","cause":"record",'
        b'"distance":0.412,"margin":0.083,"confidence":0.17,"typicality":0.04,'
        b'"model":{"epoch":7,"revision":31},'
        b'"source":{"topic":"embedding-changes","partition":3,"offset":1841},'
        b'"occurred_at":"2026-03-01T12:00:00.123Z"}'
    )


@st.composite
def changes(draw):
    kind = draw(st.sampled_from(ChangeType))
    cause = draw(st.sampled_from(Cause))
    joined, left = kind is not ChangeType.REMOVED, kind is not ChangeType.ASSIGNED
    before, after = draw(CLUSTERS), draw(CLUSTERS)
    if kind is ChangeType.REASSIGNED and before == after:
        after += "0"
    best, second = sorted([draw(DISTANCES), draw(DISTANCES | st.just(math.inf))])
    margin, sure = confidence(best, second) if joined else (None, None)
    topic, partition, offset, item = "in.put", draw(COUNTS), draw(COUNTS), draw(ITEMS)
    epoch, revision = draw(st.integers(1, 9)), draw(st.integers(0, 9))
    return ClusterChange(
        change_id(cause, topic, partition, offset, epoch=epoch, revision=revision, item=item),
        kind, item, before if left else None, after if joined else None, cause,
        best if joined else None, margin, sure, epoch, revision, topic, partition, offset,
        draw(TIMES), draw(st.none() | st.dictionaries(st.text(max_size=5), SCALARS, max_size=3)),
        draw(st.none() | st.floats(0, 1)) if joined else None,
    )  # fmt: skip


@settings(deadline=None)
@given(changes(), st.sampled_from(ENVELOPES))
def test_a_change_fits_the_schema_and_comes_back_from_any_envelope(change, envelope):
    names = tuple(change.metadata or ())[:2]
    policy = EventPolicy(envelope, tuple(name for name in names if name))
    shown = {name: change.metadata[name] for name in policy.metadata} if policy.metadata else {}
    numbers = ("distance", "margin", "confidence", "typicality")

    value, headers = encode_change(change, policy)

    validate("cluster-changes", change.item.encode(), value, headers)
    assert decode_change(value) == change._replace(
        metadata=shown or None,
        **{n: None if (x := getattr(change, n)) is None else wire_number(x) for n in numbers},
    )
    assert (value, headers) == encode_change(change, policy), "no byte depends on when"


def test_an_event_carries_the_metadata_that_is_named_and_no_other():
    change = CHANGE._replace(metadata={"section": "python", "secret": "x"})

    assert b"metadata" not in encode_change(change, PLAIN)[0]
    assert b"metadata" not in encode_change(change, EventPolicy(metadata=("other",)))[0]
    told = json.loads(encode_change(change, EventPolicy(metadata=("other", "section")))[0])
    assert told["metadata"] == {"section": "python"}


def test_a_structured_cloud_event_holds_the_plain_one():
    plain, _ = encode_change(CHANGE, PLAIN)
    value, headers = encode_change(CHANGE, EventPolicy("cloudevents-structured"))

    assert headers == (("content-type", b"application/cloudevents+json; charset=UTF-8"),)
    assert json.loads(value) == {
        "specversion": "1.0",
        "id": "embedding-changes/3/1841",
        "source": "/eddy/embedding-changes",
        "type": "eddy.cluster-change.reassigned",
        "subject": "python3-numpy",
        "time": "2026-03-01T12:00:00.123Z",
        "datacontenttype": "application/json",
        "data": json.loads(plain),
    }


def test_a_binary_cloud_event_is_the_plain_one_with_headers():
    plain, _ = encode_change(CHANGE, PLAIN)
    value, headers = encode_change(CHANGE, EventPolicy("cloudevents-binary"))

    assert value == plain
    assert dict(headers) == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_id": b"embedding-changes/3/1841",
        "ce_source": b"/eddy/embedding-changes",
        "ce_type": b"eddy.cluster-change.reassigned",
        "ce_subject": b"python3-numpy",
        "ce_time": b"2026-03-01T12:00:00.123Z",
    }


def test_the_id_of_a_change_is_made_of_its_cause():
    ids = {
        cause: change_id(cause, "in", 3, 1841, epoch=7, revision=31, item="a/b") for cause in Cause
    }

    assert ids == {
        Cause.RECORD: "in/3/1841",
        Cause.MODEL: "model/7.31/a/b",
        Cause.LOST: "lost/in/3/1841",
    }


@pytest.mark.parametrize(
    ("best", "second", "expected"),
    [
        (1.0, 4.0, (3.0, 0.75)),
        (2.0, 2.0, (0.0, 0.0)),
        (0.0, 0.0, (0.0, 0.0)),
        (0.0, 5e-324, (5e-324, 1.0)),
        (3.0, math.inf, (None, 1.0)),
        (0.0, math.inf, (None, 1.0)),
    ],
)
def test_confidence_is_how_much_nearer_the_nearest_is(best, second, expected):
    assert confidence(best, second) == expected


# --- assignments, statistics, heads -----------------------------------------------------------


def test_an_assignment_is_written_as_documented():
    assert encode_assignment("c40", 0.412, 0, 7, 31, 3, 1841) == (
        b'{"cluster":"c40","distance":0.412,"sequence":0,"model":{"epoch":7,"revision":31},'
        b'"source":{"partition":3,"offset":1841}}'
    )


@settings(deadline=None)
@given(
    st.builds(
        AssignmentRow, CLUSTERS, DISTANCES, st.integers(0, 2**64 - 1),
        st.integers(1, 2**53), COUNTS, COUNTS, COUNTS,
    )
)  # fmt: skip
def test_an_assignment_fits_the_schema_and_comes_back(row):
    value = encode_assignment(*row)

    validate("cluster-assignments", b"item", value)
    assert decode_assignment(value) == row._replace(distance=wire_number(row.distance))
    assert orjson.dumps(orjson.loads(value)) == value


def test_readers_pass_over_fields_they_do_not_know():
    value = json.loads(encode_assignment("c40", 0.412, 0, 7, 31, 3, 1841)) | {"new": [1]}
    event = json.loads(encode_change(CHANGE, PLAIN)[0]) | {"new": {"a": 1}}

    assert decode_assignment(json.dumps(value).encode()).cluster == "c40"
    assert decode_change(json.dumps(event).encode()) == CHANGE


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 99), COUNTS) | st.just((None, None)),
    st.lists(COUNTS, min_size=5, max_size=5),
)
def test_a_head_fits_the_schema_and_comes_back(version, counts):
    head = Head(*version, *counts)

    validate("cluster-stats", head_key(3), encode_head(head))
    assert decode_head(encode_head(head)) == head


# --- lifecycle and drift ----------------------------------------------------------------------

SHARES = st.none() | st.floats(0, 1)
LINEAGE = st.lists(CLUSTERS, max_size=3).map(tuple)
LIFECYCLES = st.builds(
    Lifecycle, id=st.text(min_size=1, max_size=9), type=st.sampled_from(LifecycleType),
    epoch=COUNTS, revision=COUNTS, occurred_at_ms=TIMES, cluster=st.none() | CLUSTERS,
    parents=LINEAGE, children=LINEAGE, size=st.none() | COUNTS, similarity=SHARES,
    label=st.none() | st.text(), command=st.none() | st.text(), reason=st.none() | st.text(),
    inertia_before=st.none() | DISTANCES, inertia_after=st.none() | DISTANCES, moved=SHARES,
)  # fmt: skip


@settings(deadline=None)
@given(LIFECYCLES, st.sampled_from(ENVELOPES))
def test_a_lifecycle_event_fits_the_schema_and_comes_back(event, envelope):
    numbers = ("similarity", "inertia_before", "inertia_after", "moved")

    value, headers = encode_lifecycle(event, EventPolicy(envelope))

    validate("cluster-lifecycle", event.key, value, headers)
    assert decode_lifecycle(value) == event._replace(
        **{n: None if (x := getattr(event, n)) is None else wire_number(x) for n in numbers}
    )


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_an_alarm_fits_the_schema_and_comes_back(envelope):
    alarm = Drift(
        "7.31/c12/occupancy/raised/1772366400123", "raised", "cluster", "c12", "occupancy",
        9.31, 8.72, 0.14, 10_000, 4096, 7, 31, NOON_MS,
    )  # fmt: skip

    value, headers = encode_drift(alarm, EventPolicy(envelope))

    validate("cluster-drift", alarm.key, value, headers)
    assert decode_drift(value) == alarm


def test_an_alarm_names_the_clusters_that_contribute_most():
    alarm = Drift(
        "7.31/model/occupancy/raised/1772366400123", "raised", "model", None, "occupancy",
        9.31, 8.72, 0.14, 10_000, 4096, 7, 31, NOON_MS, ("c40", "c12"),
    )  # fmt: skip

    value, headers = encode_drift(alarm, PLAIN)

    validate("cluster-drift", alarm.key, value, headers)
    assert json.loads(value)["clusters"] == ["c40", "c12"]
    assert decode_drift(value) == alarm


def test_events_of_an_older_version_are_read():
    change = json.loads(encode_change(CHANGE, PLAIN)[0])
    del change["typicality"]
    alarm = {
        "id": "x", "type": "drift", "state": "raised", "scope": "model", "cluster": None,
        "signal": "churn", "statistic": 1.0, "threshold": 0.5, "effect": 0.5, "arl0": 100,
        "window": 10, "model": {"epoch": 1, "revision": 0}, "occurred_at": None,
    }  # fmt: skip

    assert decode_change(json.dumps(change).encode()) == CHANGE._replace(typicality=None)
    assert decode_drift(json.dumps(alarm).encode()).clusters == ()


# --- what is not ours -------------------------------------------------------------------------

DECODERS = [
    decode_assignment, decode_change, decode_drift, decode_head, decode_lifecycle,
    decode_statistics, json_value, lambda value: decode_vector(value, 3),
]  # fmt: skip


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"\xff", b"[]", b"{}", b"null", b"1", b'"x"', b'{"model":1}', b'{"model":{}}',
     b"EDS1", b"EDS1" + bytes(60) + b"x", b"EDV1" + bytes(16)],
)  # fmt: skip
def test_what_is_not_ours_is_a_record_error(decoder, value):
    if decoder is json_value and value[:1] in b'[{n1"' and value not in (b"", b"{"):
        decoder(value)
        return
    with pytest.raises(RecordError) as caught:
        decoder(value)

    assert caught.value.reason in (Reason.DECODE, Reason.DIMENSION)
