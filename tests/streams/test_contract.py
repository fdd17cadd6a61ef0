"""What every twin of the broker does; the one in memory is trusted because Kafka passes too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from pipeline.errors import AbortedError, FatalError, FencedError, UnreachableError
from pipeline.messages.records import Outgoing, Record
from pipeline.streams.contract import GroupMember, Range, Reader, Stream, TopicSettings
from tests.streams.twins import MemoryTwin, Twin, eventually, make_topic
from tests.streams.twins_kafka import kafka_twin

POLL_S = 0.05


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def twin(request: pytest.FixtureRequest) -> Iterator[Twin]:
    if request.param == "memory":
        yield MemoryTwin()
        return
    yield kafka_twin(request.getfixturevalue("kafka_cluster").bootstrap_servers)


@pytest.fixture
def join(twin: Twin) -> Iterator[Join]:
    joined = Join(twin)
    yield joined
    joined.close()


class Join:
    """Makes members of one group, and sees that they leave it."""

    def __init__(self, twin: Twin) -> None:
        self.twin = twin
        self.group_id = twin.name("group")
        self.streams: list[Stream] = []

    def __call__(self, topic: str, who: str = "a", *, instance_id: str | None = None) -> Stream:
        stream = self.twin.broker.stream(self.member(topic, who, instance_id))
        self.streams.append(stream)
        return stream

    def member(self, topic: str, who: str = "a", instance_id: str | None = None) -> GroupMember:
        return GroupMember(topic, self.group_id, f"{self.group_id}.{who}", instance_id)

    def close(self) -> None:
        for stream in self.streams:
            stream.close()


def fill(twin: Twin, topic: str, n_records: int, partition: int = 0, first: int = 0) -> None:
    producer = twin.broker.producer()
    for n in range(first, first + n_records):
        producer.write(Outgoing(topic, partition, b"k%d" % n, b"v%d" % n))
    producer.flush()


def assigned(stream: Stream, n_partitions: int) -> dict[int, int | None]:
    """Poll until so many partitions came; they are not started."""
    offsets: dict[int, int | None] = {}

    def ask() -> bool:
        offsets.update(stream.poll(10, timeout_s=POLL_S).assigned)
        return len(offsets) == n_partitions

    eventually(ask, f"{n_partitions} partitions assigned, have {sorted(offsets)}")
    return offsets


def begin_at(stream: Stream, offsets: Mapping[int, int | None]) -> None:
    for partition, offset in offsets.items():
        stream.start(partition, offset or 0)


def take(stream: Stream, n_records: int, max_records: int = 100) -> list[Record]:
    """Poll until so many records came, or more in the last poll."""
    records: list[Record] = []

    def ask() -> bool:
        records.extend(stream.poll(max_records, timeout_s=POLL_S).records)
        return len(records) >= n_records

    eventually(ask, f"{n_records} records")
    return records


def read_to_end(reader: Reader) -> list[Record]:
    records: list[Record] = []

    def ask() -> bool:
        records.extend(reader.read(100, timeout_s=POLL_S))
        return reader.at_end

    eventually(ask, "the reader at its end")
    return records


def read(reader: Reader, n_records: int) -> list[Record]:
    records: list[Record] = []

    def ask() -> bool:
        records.extend(reader.read(100, timeout_s=POLL_S))
        return len(records) >= n_records

    eventually(ask, f"{n_records} records")
    return records


def values(twin: Twin, topic: str) -> list[bytes | None]:
    """What an independent reader at read_committed finds."""
    reader = twin.broker.reader(topic)
    found = [record.value for record in read_to_end(reader)]
    reader.close()
    return found


def offsets(records: list[Record]) -> list[int]:
    return [record.offset for record in records]


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


# Who may


def test_the_next_one_with_the_same_transactional_id_fences_the_older(twin: Twin, join: Join):
    topic, out = make_topic(twin, "in"), make_topic(twin, "out")
    older = join(topic)
    begin_at(older, assigned(older, 1))
    older.commit([Outgoing(out, 0, b"k", b"before")], {0: 0})

    join(topic)
    with pytest.raises(FencedError):
        older.commit([Outgoing(out, 0, b"k", b"after")], {0: 0})

    assert values(twin, out) == [b"before"]
    with pytest.raises(FatalError):
        older.commit([], {0: 0})


def test_making_a_stream_ends_what_its_predecessor_had_open(twin: Twin, join: Join):
    topic, out = make_topic(twin, "in"), make_topic(twin, "out")
    opened = twin.begin(
        join.member(topic).transactional_id,
        [Outgoing(out, 0, b"k", b"open")],
        group_id=join.group_id,
        topic=topic,
        next_offsets={0: 7},
    )

    stream = join(topic)

    assert values(twin, out) == []
    assert assigned(stream, 1) == {0: None}
    del opened  # only now: a producer that goes away could end its transaction itself


def test_two_members_share_the_partitions_and_one_inherits_the_other(twin: Twin, join: Join):
    topic = make_topic(twin, "in", 2)
    first = join(topic, "a")
    begin_at(first, assigned(first, 2))
    first.commit([], {0: 0, 1: 0})

    second = join(topic, "b")
    given, taken, back = set(), set(), set()

    def split() -> bool:
        given.update(first.poll(10, timeout_s=POLL_S).revoked)
        taken.update(second.poll(10, timeout_s=POLL_S).assigned)
        return len(given) == len(taken) == 1

    eventually(split, "one partition each")
    fill(twin, topic, 3, partition=0)
    fill(twin, topic, 3, partition=1)
    kept_records = take(first, 3)
    second.close()

    def inherit() -> bool:
        back.update(first.poll(10, timeout_s=POLL_S).assigned)
        return bool(back)

    eventually(inherit, "the partition is back")

    assert given == taken == back
    assert {r.partition for r in kept_records} == {0, 1} - given


def test_nothing_is_committed_for_a_partition_that_was_given_away(twin: Twin, join: Join):
    topic, out = make_topic(twin, "in", 2), make_topic(twin, "out")
    fill(twin, topic, 1, partition=0)
    fill(twin, topic, 1, partition=1)
    first = join(topic, "a")
    begin_at(first, assigned(first, 2))
    take(first, 2)
    second = join(topic, "b")
    given: set[int] = set()

    def split() -> bool:
        given.update(first.poll(10, timeout_s=POLL_S).revoked)
        second.poll(10, timeout_s=POLL_S)
        return bool(given)

    eventually(split, "a partition given away")
    with pytest.raises(AbortedError):
        first.commit([Outgoing(out, 0, b"k", b"stale")], dict.fromkeys(given, 1))

    assert values(twin, out) == []
    assert twin.broker.committed(join.group_id, topic) == {0: None, 1: None}


def test_after_a_refusal_the_partitions_that_stayed_can_be_committed(twin: Twin, join: Join):
    topic, out = make_topic(twin, "in", 2), make_topic(twin, "out")
    fill(twin, topic, 2, partition=0)
    fill(twin, topic, 2, partition=1)
    first = join(topic, "a")
    begin_at(first, assigned(first, 2))
    take(first, 4)
    second = join(topic, "b")
    owned = {0, 1}

    def commit_what_is_ours() -> bool:
        owned.difference_update(first.poll(10, timeout_s=POLL_S).revoked)
        second.poll(10, timeout_s=POLL_S)
        if len(owned) == 2:
            return False
        try:
            first.commit([Outgoing(out, 0, b"k", b"1")], dict.fromkeys(owned, 2))
        except AbortedError:  # the rebalance goes on
            first.rewind()
            return False
        return True

    eventually(commit_what_is_ours, "a commit of the partition that stayed")

    assert values(twin, out) == [b"1"]
    committed = twin.broker.committed(join.group_id, topic)
    assert committed == {p: 2 if p in owned else None for p in (0, 1)}


def test_a_static_member_that_comes_back_has_its_partitions_again(twin: Twin, join: Join):
    topic = make_topic(twin, "in", 4)
    first = join(topic, "a", instance_id="a")
    second = join(topic, "b", instance_id="b")
    owned: tuple[set[int], set[int]] = (set(), set())

    def split() -> bool:
        for stream, have in zip((first, second), owned, strict=True):
            poll = stream.poll(10, timeout_s=POLL_S)
            have.update(poll.assigned)
            have.difference_update(poll.revoked | poll.lost)
        return [len(have) for have in owned] == [2, 2]

    eventually(split, "two partitions each")
    first.close()
    again = join(topic, "a", instance_id="a")
    back: set[int] = set()
    elsewhere: set[int] = set()

    def restarted() -> bool:
        back.update(again.poll(10, timeout_s=POLL_S).assigned)
        elsewhere.update(second.poll(10, timeout_s=POLL_S).assigned)
        return len(back) == 2

    eventually(restarted, "the same partitions")

    assert back == owned[0]
    assert not elsewhere


def test_nothing_is_assigned_while_its_offsets_are_pending(twin: Twin, join: Join):
    """Barrier 1 of a restore: what was sent before may still become visible."""
    topic, out = make_topic(twin, "in", 2), make_topic(twin, "out")
    opened = twin.begin(
        twin.name("t"),
        [Outgoing(out, 0, b"k", b"late")],
        group_id=join.group_id,
        topic=topic,
        next_offsets={0: 7},
    )
    stream = join(topic)
    found: dict[int, int | None] = {}
    for _ in range(5):
        found.update(stream.poll(10, timeout_s=POLL_S).assigned)
    assert 0 not in found

    opened.commit()
    eventually(
        lambda: found.update(stream.poll(10, timeout_s=POLL_S).assigned) or len(found) == 2,
        "both partitions",
    )

    assert found == {0: 7, 1: None}


def test_close_may_be_called_twice(twin: Twin, join: Join):
    stream = join(make_topic(twin, "in"))
    assigned(stream, 1)

    stream.close()
    stream.close()


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


# Readers


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


def test_waiting_for_a_cluster_that_does_not_answer_ends(twin: Twin):
    twin.broker.wait(30)
    with pytest.raises(UnreachableError):
        twin.nowhere().wait(0.5)
