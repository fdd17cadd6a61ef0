"""`eddy dlq`: what could not be used, why not, and its way back, never over a newer one."""

from __future__ import annotations

import base64
import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.dlq.letters import portrait_of
from pipeline.cli.options import moment_ms, place
from pipeline.errors import Reason, RecordError, UsageError
from pipeline.messages.codec import encode_vector
from pipeline.messages.dead_letters import dead_letter, read_letter, redriven
from pipeline.messages.records import Record
from pipeline.streams.contract import TopicSettings
from pipeline.streams.topics import expected_topics
from tests.cli.console import NO_MS, TOPICS, Console

HEADERS = (("content-type", b"application/json"), ("traceparent", None))
NEWER = "the input holds a newer record of the item"


def bad(eddy: Console, key=b"a", value=b"{}", *, reason=Reason.DIMENSION, partition=0, headers=()):
    """A record that cannot be used, in the input, and its letter; the offset of both."""
    broker = eddy.broker
    source = broker.append(TOPICS.input, partition, key, value, headers, NO_MS)
    record = Record(partition, source, key, value, NO_MS, headers)
    letter = letter_of(record, reason)
    at = broker.append(
        letter.topic, partition, letter.key, letter.value, letter.headers, NO_MS + source
    )
    return source, at


def letter_of(record, reason=Reason.DIMENSION):
    error = RecordError(reason, f"it is {reason}")
    return dead_letter(
        record, topic=TOPICS.input, to=TOPICS.dead_letters, error=error, stage="decode"
    )


def held(eddy: Console, partition=0):
    return eddy.broker.records(TOPICS.input, partition)


@pytest.fixture
def filled(eddy_with_topics: Console) -> Console:
    """Three letters of two reasons, in two partitions."""
    bad(eddy_with_topics, b"a", b'{"vector": [1]}', headers=HEADERS)
    bad(eddy_with_topics, b"b", b"nonsense", reason=Reason.DECODE)
    bad(eddy_with_topics, b"c", None, reason=Reason.KEY, partition=3)
    return eddy_with_topics


# --- list -----------------------------------------------------------------------------------------


def test_list_counts_by_reason_and_shows_the_newest_first(filled: Console):
    assert filled("dlq", "list", "--json", "--limit", "2") == 0

    (said,) = filled.lines
    assert said["topic"] == TOPICS.dead_letters
    assert (said["letters"], said["reasons"]) == (3, {"dimension": 1, "decode": 1, "key": 1})
    first, second = said["newest"]
    assert (first["partition"], first["offset"], first["key"]) == (0, 1, "b")
    assert first["source"] == {"topic": TOPICS.input, "partition": 0, "offset": 1}
    assert (first["reason"], first["message"]) == ("decode", "it is decode")
    assert second["written_at"] == "2026-03-01T12:00:00.123Z"


def test_list_is_a_line_of_counts_and_a_table(filled: Console):
    assert filled("dlq", "list") == 0

    assert filled.out.startswith("3 in embedding-changes.dlq: ")
    row = next(line for line in filled.out.splitlines() if line.startswith("3:0"))
    assert row.split()[:2] == ["3:0", "3:0"]
    assert row.split()[-5:] == ["key", "c", "it", "is", "key"]


@pytest.mark.parametrize(
    ("options", "n"),
    [
        (["--reason", "decode"], 1),
        (["--reason", "poison"], 0),
        (["--since", str(NO_MS + 1)], 1),
        (["--since", "2026-03-01T12:00:00.124Z", "--reason", "decode"], 1),
        (["--since", "2026-03-02"], 0),
    ],
)
def test_list_of_some(filled: Console, options, n):
    filled("dlq", "list", "--json", *options)

    assert filled.lines[0]["letters"] == len(filled.lines[0]["newest"]) == n


def test_no_letters_are_said_in_a_sentence(eddy_with_topics: Console):
    assert eddy_with_topics("dlq", "list") == 0

    assert eddy_with_topics.out == "no dead letters in embedding-changes.dlq\n"


def test_without_the_topic_there_is_nothing_to_list(eddy: Console):
    assert eddy("dlq", "list") == 3
    assert "embedding-changes.dlq does not exist" in eddy.err


# --- show -----------------------------------------------------------------------------------------


def test_show_tells_all_of_a_letter(filled: Console):
    assert filled("dlq", "show", "0:0", "--json") == 0

    (said,) = filled.lines
    assert said["headers"] == [
        {"name": "content-type", "text": "application/json", "base64": "YXBwbGljYXRpb24vanNvbg=="},
        {"name": "traceparent", "text": None, "base64": None},
    ]
    assert said["value"]["form"] == "json"
    assert base64.b64decode(said["value"]["base64"]) == b'{"vector": [1]}'
    assert base64.b64decode(said["key_base64"]) == b"a"
    assert said["timestamp"] == "2026-03-01T12:00:00.123Z"

    assert filled("dlq", "show", "0:0") == 0
    assert 'as JSON   {"vector": [1]}' in filled.out
    assert "header    content-type: application/json" in filled.out


def test_show_of_a_tombstone_and_of_what_was_left_out(filled: Console):
    bad(filled, b"k" * 513, b"v" * 99, reason=Reason.TOO_LARGE, partition=4)

    filled("dlq", "show", "3:0")
    assert "value     (none: a tombstone)" in filled.out
    filled("dlq", "show", "4:0")
    assert "value     (left out: 99 bytes)" in filled.out
    assert "key       (left out: 513 bytes)" in filled.out


@pytest.mark.parametrize("word", ["0:9", "17:0"])
def test_show_of_a_letter_that_is_not_there(filled: Console, word):
    assert filled("dlq", "show", word) == 2
    assert f"holds no letter {word}" in filled.err


def test_a_native_vector_is_read_as_far_as_it_goes():
    vector = encode_vector(np.array([1, -2.5, np.nan], np.float32), 7)

    whole, torn = portrait_of(vector)["vector"], portrait_of(vector[:-5])["vector"]

    assert whole == {
        "dtype": "float32", "flags": 0, "dims": 3, "sequence": 7, "fits": True,
        "numbers": ["1", "-2.5", "nan"],
    }  # fmt: skip
    assert (torn["fits"], torn["numbers"]) == (False, ["1"])
    assert portrait_of(b"EDV1" + b"\xff" * 16)["vector"]["fits"] is False


def test_what_strangers_wrote_cannot_speak_to_the_terminal(eddy_with_topics: Console):
    evil = "\x1b[31m\x9b2J[bold]\n".encode()
    headers = (
        ("eddy.errors.exception.class.name", evil), ("eddy.errors.exception.message", evil),
        ("eddy.errors.topic", evil), ("eddy.errors.offset", b"9" * 5000), ("h\x1b", evil),
        ("eddy.errors.partition", "٣".encode()), ("eddy.errors.value.bytes", b"-"),
    )  # fmt: skip
    for value in (evil, b'{"a": "\x1b"}', "{}\x9b".encode(), None):
        eddy_with_topics.broker.append(TOPICS.dead_letters, 0, evil + b"\xff", value, headers)

    for words in (["list"], ["show", "0:0"], ["show", "0:1"], ["redrive"]):
        for options in ([], ["--json"]):
            assert eddy_with_topics("dlq", *words, *options) == 0
            assert all(c.isprintable() for line in eddy_with_topics.out.split("\n") for c in line)
    assert held(eddy_with_topics) == []


@given(
    st.lists(st.tuples(st.text(max_size=20) | st.sampled_from(["topic", "offset", "key.bytes"]),
                       st.none() | st.binary(max_size=30))),
    st.booleans(),
)  # fmt: skip
def test_reading_a_letter_never_raises(pairs, is_ours):
    prefix = "eddy.errors." if is_ours else ""
    headers = tuple((prefix + name, text) for name, text in pairs)

    letter = read_letter(Record(0, 0, None, None, None, headers))

    assert len(letter.headers) <= (0 if is_ours else len(headers))


# --- redrive --------------------------------------------------------------------------------------


def test_what_is_redriven_is_the_record_as_it_was(filled: Console):
    assert filled("dlq", "redrive", "0:0", "3:0") == 0

    assert filled.out == "2 went back to embedding-changes\n"
    *_, record = held(filled)
    assert (record.key, record.value) == (b"a", b'{"vector": [1]}')
    assert record.headers == (*HEADERS, ("eddy-redriven", b"embedding-changes.dlq/0/0"))
    *_, tombstone = held(filled, 3)
    assert (tombstone.key, tombstone.value) == (b"c", None)


def test_nothing_is_written_outside_the_input(filled: Console):
    others = [name for name in TOPICS.names if name != TOPICS.input]
    before = {name: filled.broker.ranges(name) for name in others}

    filled("dlq", "redrive")

    assert {name: filled.broker.ranges(name) for name in others} == before
    assert sum(len(held(filled, p)) for p in range(TOPICS.partitions)) == 6


def test_a_dry_run_writes_nothing(filled: Console):
    assert filled("dlq", "redrive", "--dry-run") == 0

    assert filled.out == "3 would go back to embedding-changes\n"
    assert len(held(filled)) == 2


@pytest.mark.parametrize("options", [[], ["--even-if-newer"]])
def test_twice_is_once(filled: Console, options):
    filled("dlq", "redrive", "--reason", "dimension", *options)
    filled("dlq", "redrive", "--json", *options)

    assert filled.lines[0]["redriven"] == 2, "the letters of the other reasons"
    assert filled.lines[0]["skipped"] == {"newer": 0, "redriven_before": 1}
    filled("dlq", "redrive", "--json", *options)
    assert filled.lines[0]["skipped"] == {"newer": 0, "redriven_before": 3}
    assert len(held(filled)) == 4


def test_twice_is_once_also_where_compaction_took_the_first_copy(filled: Console):
    filled("dlq", "redrive", "0:0")
    filled.broker.append(TOPICS.input, 0, b"a", b"newer")
    filled.broker.compact(TOPICS.input, 0, keep_tombstones=True)

    filled("dlq", "redrive", "0:0", "--json")

    assert filled.lines[0]["redriven"] == 0
    assert filled.lines[0]["skipped"] == {"newer": 1, "redriven_before": 0}


def test_an_item_that_was_written_again_is_passed_over_unless_asked_for(filled: Console):
    filled.broker.append(TOPICS.input, 0, b"a", b"newer")

    assert filled("dlq", "redrive", "0:0") == 0
    assert "0 went back" in filled.out
    assert f"1 passed over: {NEWER}" in filled.out
    assert held(filled)[-1].value == b"newer"

    filled("dlq", "redrive", "0:0", "--even-if-newer")
    assert "1 went back" in filled.out
    assert held(filled)[-1].value == b'{"vector": [1]}'


def test_the_same_key_in_another_partition_is_another_item(filled: Console):
    filled.broker.append(TOPICS.input, 1, b"a", b"elsewhere")

    filled("dlq", "redrive", "0:0")

    assert "1 went back" in filled.out


def test_of_several_letters_of_an_item_only_the_last_one_goes_back(eddy_with_topics: Console):
    for value in (b"1", b"2", b"3"):
        bad(eddy_with_topics, b"a", value)

    eddy_with_topics("dlq", "redrive", "--json")

    assert eddy_with_topics.lines[0]["redriven"] == 1
    assert eddy_with_topics.lines[0]["skipped"]["newer"] == 2
    assert held(eddy_with_topics)[-1].value == b"3"


def test_a_record_that_fails_again_can_come_back_again(filled: Console):
    filled("dlq", "redrive", "0:0")
    again = held(filled)[-1]
    letter = letter_of(again)
    filled.broker.append(letter.topic, 0, letter.key, letter.value, letter.headers, NO_MS)

    filled("dlq", "redrive", "0:2")

    assert "1 went back" in filled.out
    *_, record = held(filled)
    assert record.headers == (*HEADERS, ("eddy-redriven", b"embedding-changes.dlq/0/2"))


@pytest.mark.parametrize(
    ("given_", "because"),
    [
        ({"value": b"v" * 9, "reason": Reason.TOO_LARGE}, "its value was too large"),
        ({"key": b"k" * 513, "reason": Reason.KEY}, "its key was too large"),
        ({"headers": (("h", b"x" * 40_000),)}, "its headers were too large"),
    ],
)
def test_what_is_not_whole_is_refused_with_a_sentence(eddy_with_topics: Console, given_, because):
    bad(eddy_with_topics, **given_)
    bad(eddy_with_topics, b"whole")
    before = len(held(eddy_with_topics))

    assert eddy_with_topics("dlq", "redrive") == 0, "nobody named it"

    assert "1 refused: it" in eddy_with_topics.out
    assert because in " ".join(eddy_with_topics.out.split())
    assert len(held(eddy_with_topics)) == before + 1
    assert eddy_with_topics("dlq", "redrive", "0:0", "--json") == 1
    ((refused,),) = [line["refused"] for line in eddy_with_topics.lines]
    assert refused["letters"] == ["0:0"]


def test_a_record_without_a_key_goes_back_where_the_input_takes_it(eddy: Console):
    for settings in expected_topics(TOPICS, 1_048_576):
        config = {"cleanup.policy": "delete"} if settings.name == TOPICS.input else settings.config
        eddy.broker.create_topics([TopicSettings(settings.name, settings.n_partitions, config)])
    bad(eddy, None, b"{}", reason=Reason.KEY)

    for n_back in (1, 0):
        eddy("dlq", "redrive", "--json")
        assert eddy.lines[0]["redriven"] == n_back


def test_a_record_without_a_key_stays_where_the_input_is_compacted_now(eddy_with_topics: Console):
    letter = letter_of(Record(0, 0, None, b"{}"), Reason.KEY)
    eddy_with_topics.broker.append(TOPICS.dead_letters, 0, None, b"{}", letter.headers)

    eddy_with_topics("dlq", "redrive")

    assert "it has no key, and embedding-changes is compacted" in eddy_with_topics.out
    assert held(eddy_with_topics) == []


@pytest.mark.parametrize(
    ("name", "text", "because"),
    [
        ("topic", b"other", "another topic"),
        ("partition", b"6", "a partition that embedding-changes does not have"),
        ("offset", b"-1", "does not say where it comes from"),
        ("exception.class.name", None, "does not say where it comes from"),
    ],
)
def test_a_letter_of_somebody_else_stays(eddy_with_topics: Console, name, text, because):
    letter = letter_of(Record(0, 0, b"a", b"{}"))
    kept = [pair for pair in letter.headers if pair[0] != f"eddy.errors.{name}"]
    kept += [] if text is None else [(f"eddy.errors.{name}", text)]
    eddy_with_topics.broker.append(TOPICS.dead_letters, 0, b"a", b"{}", tuple(kept))

    eddy_with_topics("dlq", "redrive")

    assert because in " ".join(eddy_with_topics.out.split())
    assert held(eddy_with_topics) == []


def test_a_letter_from_before_the_input_was_made_anew_is_no_reason_to_stop(filled: Console):
    filled.broker.delete_topic(TOPICS.input)
    assert filled("topics", "create") == 0

    assert filled("dlq", "redrive", "0:1") == 0

    assert [record.value for record in held(filled)] == [b"nonsense"]


def test_a_letter_that_is_not_there_ends_it_before_anything_is_written(filled: Console):
    assert filled("dlq", "redrive", "0:0", "5:5") == 2

    assert "holds no letter 5:5" in filled.err
    assert len(held(filled)) == 2


def test_what_was_made_by_us_comes_back_to_the_byte():
    record = Record(2, 9, b"k", b"v", 5, HEADERS)
    sent = letter_of(record)

    letter = read_letter(Record(2, 0, sent.key, sent.value, 6, sent.headers))
    back = redriven(Record(2, 0, sent.key, sent.value), letter, dead_letters="in.dlq")

    assert (letter.source_partition, letter.source_offset, letter.timestamp_ms) == (2, 9, 5)
    assert back[:4] == (TOPICS.input, 2, b"k", b"v")
    assert back.headers[:-1] == HEADERS


# --- words ----------------------------------------------------------------------------------------


def test_times_are_iso_or_milliseconds():
    assert moment_ms("2026-03-01T12:00:00.123Z", "--at") == NO_MS
    assert moment_ms("2026-03-01T13:00:00.123+01:00", "--at") == NO_MS
    assert moment_ms(str(NO_MS), "--at") == NO_MS
    local = datetime.datetime(2026, 3, 1).timestamp()
    assert moment_ms("2026-03-01", "--at") == moment_ms("20260301", "--at") == local * 1000


@pytest.mark.parametrize("word", ["", "yesterday", "17", "9" * 40, "2026-13-01", "-5"])
def test_what_is_no_time_is_wrong_use(word):
    with pytest.raises(UsageError, match="--at is"):
        moment_ms(word, "--at")


@pytest.mark.parametrize(
    "word", ["", "3", ":", "3:", "a:1", "1:-1", "1:2:3", "²:1", "1:" + "9" * 40]
)
def test_what_is_no_place_is_wrong_use(word):
    with pytest.raises(UsageError, match="PARTITION:OFFSET"):
        place(word, "a letter")
