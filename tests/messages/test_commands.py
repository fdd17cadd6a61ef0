"""Commands: what people may ask, and that everything else is refused in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Reason, RecordError
from pipeline.messages.commands import Command, decode_command, encode_command
from pipeline.messages.records import Record
from tests.schemas import validate

TEXTS = st.none() | st.text(max_size=9)
IDS = st.text(min_size=1, max_size=20)
NAMES = st.integers(1, 99).map("c{}".format)
COMMANDS = st.one_of(
    st.builds(
        Command, id=IDS, type=st.just("recluster"), requested_by=TEXTS, reason=TEXTS,
        cold=st.booleans(), force=st.booleans(),
    ),
    st.builds(Command, id=IDS, type=st.just("rollback"), reason=TEXTS, epoch=st.integers(1, 99)),
    st.builds(Command, id=IDS, type=st.just("split"), cluster=NAMES),
    st.builds(
        Command, id=IDS, type=st.just("merge"),
        clusters=st.lists(NAMES, min_size=2, max_size=4, unique=True).map(tuple),
    ),
    st.builds(Command, id=IDS, type=st.just("label"), cluster=NAMES, label=st.text()),
)  # fmt: skip


@settings(deadline=None)
@given(COMMANDS)
def test_a_command_fits_the_schema_and_comes_back(command):
    key, value = encode_command(command)

    validate("recluster-commands", key, value)
    assert decode_command(Record(0, 0, key, value)) == command


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"{", b"[]", b"null", b"{}", b'{"type":"explode"}', b'{"type":["recluster"]}',
        b'{"type":"recluster","forced":true}', b'{"type":"recluster","force":1}',
        b'{"type":"recluster","epoch":1}', b'{"type":"recluster","reason":7}',
        b'{"type":"rollback"}', b'{"type":"rollback","epoch":"5"}',
        b'{"type":"rollback","epoch":0}',
        b'{"type":"rollback","epoch":true}', b'{"type":"split"}', b'{"type":"split","cluster":""}',
        b'{"type":"merge","clusters":["c1"]}', b'{"type":"merge","clusters":["c1","c1"]}',
        b'{"type":"merge","clusters":"c1"}', b'{"type":"label","cluster":"c1"}',
        b'{"type":"label","cluster":"c1","label":null}',
    ],
)  # fmt: skip
def test_a_value_that_is_no_command_is_refused_by_decoder_and_schema(value):
    with pytest.raises(RecordError) as caught:
        decode_command(Record(0, 0, b"id", value))
    assert caught.value.reason is Reason.DECODE

    with pytest.raises(Exception, match=r".*"):
        validate("recluster-commands", b"id", value)


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"k" * 513])
def test_a_command_has_an_id(key):
    with pytest.raises(RecordError):
        decode_command(Record(0, 0, key, b'{"type":"recluster"}'))


@settings(deadline=None)
@given(
    st.none() | st.binary(max_size=9),
    st.binary(max_size=30)
    | st.dictionaries(
        st.sampled_from(["type", "epoch", "cluster", "clusters", "label", "force", "reason"]),
        st.sampled_from(["recluster", "rollback", "split", "merge", "label", 1, None, ["a", "b"]]),
    ).map(lambda fields: json.dumps(fields).encode()),
)
def test_nothing_else_is_raised(key, value):
    try:
        decode_command(Record(0, 0, key, value))
    except RecordError as error:
        assert error.reason is Reason.DECODE
