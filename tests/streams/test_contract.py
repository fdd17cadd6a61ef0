"""What every twin of the broker does; the one in memory is trusted because Kafka passes too.

Beside it: `test_contract_group` (who owns what), `test_contract_reader`.
"""

from __future__ import annotations

import pytest

from pipeline.errors import TopicError, UnreachableError
from pipeline.messages.records import Outgoing, Record
from pipeline.streams.contract import Range, TopicSettings
from tests.streams.steps import (
    POLL_S,
    Join,
    assigned,
    begin_at,
    fill,
    offsets,
    read_to_end,
    take,
    values,
)
from tests.streams.twins import Twin, eventually, make_topic

# What comes in


def test_records_come_in_offset_order_with_everything_that_is_in_them(twin: Twin, join: Join):
    topic = make_topic(twin, "in")
    headers = (("form", b"json"), ("empty", b""), ("form", None))
    producer = twin.broker.producer()
    producer.write(Outgoing(topic, 0, b"a", b"1", headers, 1_700_000_000_123))
    producer.write(Outgoing(topic, 0, b"b", None, (), 5))
    producer.write(Outgoing(topic, 0, None, b"", (), 1_700_000_000_000))
    producer.flush()
    stream = join(topic)
    begin_at(stream, assigned(stream, 1))

    records = take(stream, 3)

    assert records == [
        Record(0, 0, b"a", b"1", 1_700_000_000_123, headers),
        Record(0, 1, b"b", None, 5, ()),
        Record(0, 2, None, b"", 1_700_000_000_000, ()),
    ]


def test_polls_are_joined_up_to_max_bytes_and_nothing_is_passed_over(twin: Twin, join: Join):
    topic = make_topic(twin, "in")
    producer = twin.broker.producer()
    for number in range(40):
        producer.write(Outgoing(topic, 0, b"%d" % number, bytes(100_000)))
    producer.flush()
    stream = join(topic)
    begin_at(stream, assigned(stream, 1))
    sizes, found = [], []

    def ask() -> bool:
        records = stream.poll(1000, timeout_s=POLL_S, max_bytes=300_000).records
        sizes.append(len(records))
        found.extend(records)
        return len(found) == 40

    eventually(ask, "forty records")

    assert [record.offset for record in found] == list(range(40))
    assert max(sizes) <= 4  # the one that reaches the bound is still among them


def test_a_poll_hands_out_at_most_max_records_and_the_next_goes_on(twin: Twin, join: Join):
    topic = make_topic(twin, "in")
    fill(twin, topic, 10)
    stream = join(topic)
    begin_at(stream, assigned(stream, 1))
    sizes, found = [], []

    def ask() -> bool:
        records = stream.poll(3, timeout_s=POLL_S).records
        sizes.append(len(records))
        found.extend(records)
        return len(found) == 10

    eventually(ask, "ten records")

    assert max(sizes) <= 3
    assert offsets(found) == list(range(10))


def test_a_partition_hands_out_nothing_before_it_is_started(twin: Twin, join: Join):
    topic = make_topic(twin, "in", 2)
    fill(twin, topic, 3, partition=0)
    fill(twin, topic, 3, partition=1)
    stream = join(topic)
    assert assigned(stream, 2) == {0: None, 1: None}

    stream.start(1, 1)
    records = take(stream, 2)

    assert [(r.partition, r.offset) for r in records] == [(1, 1), (1, 2)]


def test_a_stopped_partition_hands_out_nothing_until_it_is_started_again(twin: Twin, join: Join):
    topic = make_topic(twin, "in", 2)
    stream = join(topic)
    begin_at(stream, assigned(stream, 2))
    fill(twin, topic, 3, partition=0)
    take(stream, 3)

    stream.stop(0)
    fill(twin, topic, 3, partition=0, first=3)
    fill(twin, topic, 2, partition=1)
    while_stopped = take(stream, 2)
    stream.start(0, 2)
    after = take(stream, 4)

    assert {r.partition for r in while_stopped} == {1}
    assert [(r.partition, r.offset) for r in after] == [(0, 2), (0, 3), (0, 4), (0, 5)]


def test_rewind_goes_back_to_where_the_partition_was_started(twin: Twin, join: Join):
    topic = make_topic(twin, "in")
    fill(twin, topic, 5)
    stream = join(topic)
    assigned(stream, 1)
    stream.start(0, 2)
    first = take(stream, 3)

    stream.rewind()

    assert take(stream, 3) == first


def test_rewind_goes_back_to_what_was_committed_last(twin: Twin, join: Join):
    topic = make_topic(twin, "in")
    fill(twin, topic, 5)
    stream = join(topic)
    begin_at(stream, assigned(stream, 1))
    take(stream, 5)
    stream.commit([], {0: 3})

    stream.rewind()

    assert offsets(take(stream, 2)) == [3, 4]


def test_a_start_that_the_log_does_not_hold_any_more_is_an_error(twin: Twin, join: Join):
    topic = make_topic(twin, "in")
    fill(twin, topic, 4)
    twin.truncate(topic, 0, 2)
    stream = join(topic)
    assigned(stream, 1)
    stream.start(0, 1)

    with pytest.raises(TopicError):
        take(stream, 1)


def test_what_a_producer_aborted_is_never_handed_out(twin: Twin, join: Join):
    topic = make_topic(twin, "in")
    fill(twin, topic, 1)
    twin.begin(twin.name("t"), [Outgoing(topic, 0, b"x", b"no")]).abort()
    twin.begin(twin.name("t"), [Outgoing(topic, 0, b"x", b"yes")]).commit()
    stream = join(topic)
    begin_at(stream, assigned(stream, 1))

    records = take(stream, 2)

    assert [record.value for record in records] == [b"v0", b"yes"]


# What goes out


def test_a_commit_makes_records_of_several_partitions_and_its_offsets_visible(
    twin: Twin, join: Join
):
    topic, out, other = make_topic(twin, "in", 2), make_topic(twin, "out", 2), make_topic(twin, "x")
    fill(twin, topic, 2)
    stream = join(topic)
    begin_at(stream, assigned(stream, 2))
    take(stream, 2)

    stream.commit(
        [
            Outgoing(out, 0, b"a", b"1", (("h", b"2"),), 7),
            Outgoing(out, 1, b"b", b"3"),
            Outgoing(other, 0, b"c", None),
        ],
        {0: 2, 1: 0},
    )

    reader = twin.broker.reader(out)
    found = sorted(read_to_end(reader))
    reader.close()
    assert found[0] == Record(0, 0, b"a", b"1", 7, (("h", b"2"),))
    assert found[1][:4] == (1, 0, b"b", b"3")
    assert values(twin, other) == [None]
    assert twin.broker.committed(join.group_id, topic) == {0: 2, 1: 0}


def test_a_commit_whose_offset_has_not_moved_is_legal(twin: Twin, join: Join):
    topic, out = make_topic(twin, "in"), make_topic(twin, "out")
    fill(twin, topic, 2)
    stream = join(topic)
    begin_at(stream, assigned(stream, 1))

    stream.commit([Outgoing(out, 0, b"s", b"1")], {0: 0})
    stream.commit([Outgoing(out, 0, b"s", b"2")], {0: 0})

    assert values(twin, out) == [b"1", b"2"]
    assert twin.broker.committed(join.group_id, topic) == {0: 0}
    assert offsets(take(stream, 2)) == [0, 1]


def test_a_new_member_starts_from_what_was_committed_and_not_from_what_was_polled(
    twin: Twin, join: Join
):
    topic = make_topic(twin, "in")
    fill(twin, topic, 5)
    first = join(topic)
    begin_at(first, assigned(first, 1))
    take(first, 5)
    first.commit([], {0: 2})
    first.close()

    second = join(topic)

    assert assigned(second, 1) == {0: 2}


def test_committed_offsets_are_none_where_there_are_none(twin: Twin, join: Join):
    topic = make_topic(twin, "in", 2)

    assert twin.broker.committed(join.group_id, topic) == {0: None, 1: None}


# Lag


def test_lag_is_zero_at_the_end_although_markers_take_offsets(twin: Twin, join: Join):
    topic = make_topic(twin, "in")
    twin.begin(twin.name("t"), [Outgoing(topic, 0, b"k", b"%d" % n) for n in range(4)]).commit()
    stream = join(topic)
    begin_at(stream, assigned(stream, 1))
    take(stream, 4)
    behind = stream.lag()[0]

    stream.commit([], {0: 4})
    eventually(
        lambda: stream.poll(10, timeout_s=POLL_S) and stream.lag() == {0: 0}, "no lag at the end"
    )

    assert behind >= 4  # polled is not committed


# The cluster


def test_ranges_count_markers_and_what_is_open(twin: Twin):
    topic = make_topic(twin, "log", 2)
    fill(twin, topic, 3)
    twin.truncate(topic, 0, 1)
    twin.begin(twin.name("t"), [Outgoing(topic, 0, b"k", b"1")]).commit()
    opened = twin.begin(twin.name("t"), [Outgoing(topic, 0, b"k", b"2")])

    ranges = dict(twin.broker.ranges(topic))

    opened.abort()
    assert ranges == {0: Range(1, 6), 1: Range(0, 0)}


def test_a_producer_without_a_partition_goes_by_the_key(twin: Twin):
    topic = make_topic(twin, "log", 4)
    producer = twin.broker.producer()
    for key in (b"a", b"b", b"a", b"b", b"a", b"b"):
        producer.write(Outgoing(topic, -1, key, b"v"))
    producer.flush()

    reader = twin.broker.reader(topic)
    found = read_to_end(reader)
    reader.close()

    assert len(found) == 6
    for key in (b"a", b"b"):
        assert len({r.partition for r in found if r.key == key}) == 1


def test_a_topic_that_exists_is_left_as_it_is(twin: Twin):
    topic = make_topic(twin, "log", 2, cleanup_policy="compact")
    fill(twin, topic, 1)

    twin.broker.create_topics(
        [TopicSettings(topic, 5), TopicSettings(twin.name("new"), 1, {"retention.ms": "-1"})]
    )

    settings = twin.broker.topics([topic, "nobody.made.this"])
    assert settings.keys() == {topic}
    assert settings[topic].n_partitions == 2
    assert settings[topic].config["cleanup.policy"] == "compact"
    assert values(twin, topic) == [b"v0"]


def test_a_topic_is_made_with_its_settings(twin: Twin):
    topic = make_topic(twin, "log", 3, cleanup_policy="delete", retention_ms="-1")

    settings = twin.broker.topics([topic])[topic]

    assert (settings.name, settings.n_partitions) == (topic, 3)
    assert settings.config["cleanup.policy"] == "delete"
    assert settings.config["retention.ms"] == "-1"


def test_topics_have_ids_of_their_own_that_stay(twin: Twin):
    first, second = make_topic(twin, "log", 2), make_topic(twin, "other")

    ids = twin.broker.topic_ids([first, second, "nobody.made.this"])

    assert ids.keys() == {first, second}
    assert all(ids.values()) and ids[first] != ids[second]
    fill(twin, first, 1)
    assert twin.broker.topic_ids([first]) == {first: ids[first]}
    assert twin.broker.topic_ids([]) == {}


def test_waiting_for_a_cluster_that_does_not_answer_ends(twin: Twin):
    twin.broker.wait(30)
    with pytest.raises(UnreachableError):
        twin.nowhere().wait(0.5)
