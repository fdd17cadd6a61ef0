"""Contract suite, third part: reading alone, and the end that a restore waits for."""

from __future__ import annotations

import time

from pipeline.messages.records import Outgoing
from tests.streams.steps import (
    POLL_S,
    fill,
    offsets,
    read,
    read_to_end,
)
from tests.streams.twins import Twin, make_topic


def test_a_reader_is_at_its_end_only_when_what_was_undecided_is_decided(twin: Twin):
    """Barrier 2 of a restore."""
    topic = make_topic(twin, "log")
    fill(twin, topic, 1)
    opened = twin.begin(twin.name("t"), [Outgoing(topic, 0, b"k", b"late")])
    fill(twin, topic, 1, first=1)
    reader = twin.broker.reader(topic)
    before = read(reader, 1)
    for _ in range(5):
        before += reader.read(100, timeout_s=POLL_S)
    assert [r.value for r in before] == [b"v0"]
    assert not reader.at_end

    opened.commit()
    after = read_to_end(reader)
    reader.close()

    assert [r.value for r in after] == [b"late", b"v1"]


def test_a_reader_comes_to_its_end_over_what_was_aborted(twin: Twin):
    topic = make_topic(twin, "log")
    opened = twin.begin(twin.name("t"), [Outgoing(topic, 0, b"k", b"no")])
    reader = twin.broker.reader(topic)
    opened.abort()

    found = read_to_end(reader)
    positions = dict(reader.positions)
    reader.close()

    assert found == []
    assert positions == {0: 2}


def test_a_reader_that_comes_to_its_end_over_markers_waits_for_nothing_more(twin: Twin):
    topic = make_topic(twin, "log")
    twin.begin(twin.name("t"), [Outgoing(topic, 0, b"k", b"no")]).abort()
    reader = twin.broker.reader(topic)

    began_at = time.monotonic()
    found = reader.read(100, timeout_s=120.0)
    took_s = time.monotonic() - began_at
    is_at_end = reader.at_end
    reader.close()

    assert not found
    assert is_at_end
    assert took_s < 100.0


def test_a_reader_of_empty_partitions_is_at_its_end(twin: Twin):
    topic = make_topic(twin, "log", 2)
    reader = twin.broker.reader(topic)

    assert read_to_end(reader) == []
    assert reader.positions == {0: 0, 1: 0}
    reader.close()


def test_a_reader_follows_what_is_written_after_its_end(twin: Twin):
    topic = make_topic(twin, "log")
    fill(twin, topic, 2)
    reader = twin.broker.reader(topic)
    read_to_end(reader)

    fill(twin, topic, 2, first=2)
    after = read(reader, 2)

    assert offsets(after) == [2, 3]
    assert reader.at_end
    assert reader.positions == {0: 4}
    reader.close()


def test_a_reader_reads_the_given_partitions_from_the_given_offsets(twin: Twin):
    topic = make_topic(twin, "log", 3)
    for partition in range(3):
        fill(twin, topic, 4, partition=partition)

    reader = twin.broker.reader(topic, {2: 3, 0: 1})
    found = read_to_end(reader)
    positions = dict(reader.positions)
    reader.close()

    assert sorted((r.partition, r.offset) for r in found) == [(0, 1), (0, 2), (0, 3), (2, 3)]
    assert positions == {0: 4, 2: 4}


def test_a_reader_that_starts_at_the_end_is_there(twin: Twin):
    topic = make_topic(twin, "log")
    fill(twin, topic, 3)

    reader = twin.broker.reader(topic, {0: 3})

    assert read_to_end(reader) == []
    reader.close()


def test_a_start_below_the_beginning_of_the_log_begins_there(twin: Twin):
    topic = make_topic(twin, "log")
    fill(twin, topic, 5)
    twin.truncate(topic, 0, 3)

    reader = twin.broker.reader(topic, {0: 1})
    found = read_to_end(reader)
    reader.close()

    assert offsets(found) == [3, 4]
