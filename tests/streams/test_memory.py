"""What only the twin in memory can do: faults as values, and time as a call."""

from __future__ import annotations

import pytest

from pipeline.errors import AbortedError, FatalError, FencedError, TopicError, TransientError
from pipeline.messages.records import Outgoing
from pipeline.streams.contract import GroupMember, Range, TopicSettings
from pipeline.streams.memory import OFFSETS, Fault, MemoryBroker, MemoryStream, Stage


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.create_topics(
        [
            TopicSettings("in", 4),
            TopicSettings("out", 1),
            TopicSettings("log", 1, {"cleanup.policy": "compact"}),
        ]
    )
    return broker


def member(who: str = "a", *, is_static: bool = False) -> GroupMember:
    return GroupMember("in", "group", f"group.{who}", who if is_static else None)


def joined(broker: MemoryBroker, who: str = "a", *, is_static: bool = False) -> MemoryStream:
    stream = broker.stream(member(who, is_static=is_static))
    for partition, offset in stream.poll(0, timeout_s=0).assigned.items():
        stream.start(partition, offset or 0)
    return stream


def out(value: bytes, topic: str = "out") -> Outgoing:
    return Outgoing(topic, 0, b"k", value)


def values(broker: MemoryBroker, topic: str = "out", *, committed: bool = True) -> list[bytes]:
    return [r.value or b"" for r in broker.records(topic, 0, committed=committed)]


# Faults


def test_a_commit_told_to_abort_shows_nothing_and_the_next_one_works(broker: MemoryBroker):
    stream = joined(broker)
    broker.faults[broker.n_commits + 1] = Fault.ABORTED
    stream.commit([out(b"1")], {0: 1})

    with pytest.raises(AbortedError):
        stream.commit([out(b"2")], {0: 2})
    offsets = broker.committed("group", "in")
    stream.commit([out(b"3")], {0: 2})

    assert offsets[0] == 1
    assert values(broker) == [b"1", b"3"]
    assert broker.ranges("out")[0] == Range(0, 6)  # what was aborted took offsets, and its marker


def test_a_fault_may_be_given_by_its_plain_word(broker: MemoryBroker):
    """As `numpy.random.Generator.choice` returns it."""
    stream = joined(broker)
    broker.faults = dict.fromkeys([0], "aborted")

    with pytest.raises(AbortedError):
        stream.commit([out(b"1")], {0: 1})


def test_a_commit_without_an_end_stays_undecided_until_its_successor_comes(broker: MemoryBroker):
    stream = joined(broker)
    broker.faults[0] = Fault.UNDECIDED

    with pytest.raises(FatalError):
        stream.commit([out(b"1")], {0: 1})
    stream.close()
    broker.append("out", 0, b"k", b"behind")

    assert values(broker) == []
    assert values(broker, committed=False) == [b"1", b"behind"]
    with pytest.raises(TransientError):
        broker.committed("group", "in")
    joined(broker)
    assert values(broker) == [b"behind"]
    assert broker.committed("group", "in")[0] is None


def test_a_commit_without_an_answer_is_found_by_the_successor(broker: MemoryBroker):
    stream = joined(broker)
    broker.faults[0] = Fault.UNANSWERED

    with pytest.raises(FatalError):
        stream.commit([out(b"1")], {0: 1})
    with pytest.raises(FatalError):
        stream.poll(1, timeout_s=0)
    stream.close()

    assert values(broker) == [b"1"]
    assert broker.stream(member()).poll(0, timeout_s=0).assigned[0] == 1


@pytest.mark.parametrize("stage", Stage)
def test_a_crash_inside_a_commit_leaves_what_was_done_until_then(
    broker: MemoryBroker, stage: Stage
):
    class CrashError(Exception):
        pass

    def between(reached: Stage, stream: MemoryStream) -> None:
        if reached is stage:
            broker.crash(stream)
            raise CrashError

    stream = joined(broker, is_static=True)
    broker.between = between
    with pytest.raises(CrashError):
        stream.commit([out(b"1")], {0: 1})
    stream.close()  # as a process would on its way out; a dead one has no say
    left_open = values(broker, committed=False) != values(broker)
    broker.between = None
    successor = broker.stream(member(is_static=True))

    assert left_open == (stage is not Stage.ENDED)
    is_committed = stage is Stage.ENDED
    assert values(broker) == ([b"1"] if is_committed else [])
    assert successor.poll(0, timeout_s=0).assigned[0] == (1 if is_committed else None)


def test_an_outage_loses_nothing(broker: MemoryBroker):
    stream = joined(broker)
    for n in range(3):
        broker.append("in", 0, b"k", b"%d" % n)
    stream.poll(2, timeout_s=0)
    stream.commit([], {0: 1})

    broker.is_away = True
    with pytest.raises(TransientError):
        stream.poll(1, timeout_s=0)
    with pytest.raises(AbortedError):
        stream.commit([out(b"1")], {0: 2})
    with pytest.raises(TransientError):
        broker.ranges("in")
    broker.is_away = False

    assert [r.offset for r in stream.poll(9, timeout_s=0).records] == [1, 2]
    assert values(broker) == []


def test_a_producer_keeps_what_it_could_not_write(broker: MemoryBroker):
    producer = broker.producer()
    broker.is_away = True
    producer.write(out(b"1"))
    with pytest.raises(FatalError, match="1 records"):
        producer.flush()
    broker.is_away = False

    producer.flush()

    assert values(broker) == [b"1"]


def test_batch_sizes_decide_how_much_is_handed_out(broker: MemoryBroker):
    for n in range(6):
        broker.append("in", 0, b"k", b"%d" % n)
    sizes = iter([2, 0, 1, 9])
    stream = joined(broker)
    broker.batch_sizes = lambda: next(sizes)

    polls = [len(stream.poll(100, timeout_s=0).records) for _ in range(4)]

    assert polls == [2, 0, 1, 3]


# Groups


def test_shares_are_even_and_a_partition_moves_only_once_it_was_given_up(broker: MemoryBroker):
    streams = [joined(broker, "a")]
    second = broker.stream(member("b"))

    assert second.poll(0, timeout_s=0).assigned == {}
    revoked = streams[0].poll(0, timeout_s=0).revoked
    assigned = second.poll(0, timeout_s=0).assigned.keys()

    assert len(revoked) == 2
    assert assigned == revoked


def test_a_member_with_a_stale_generation_commits_nothing(broker: MemoryBroker):
    stream = joined(broker)
    broker.stream(member("b")).poll(0, timeout_s=0)

    with pytest.raises(AbortedError) as refused:
        stream.commit([out(b"1")], {0: 1})

    assert refused.value.code == "ILLEGAL_GENERATION"
    assert values(broker) == []


def test_a_zombie_loses_its_partitions_and_joins_again(broker: MemoryBroker):
    zombie = joined(broker)
    broker.append("in", 0, b"k", b"1")
    broker.expire_session(zombie)
    heir = joined(broker, "b")

    with pytest.raises(AbortedError) as refused:
        zombie.commit([out(b"1")], {0: 1})
    awake = zombie.poll(9, timeout_s=0)
    heir_gives = heir.poll(9, timeout_s=0).revoked
    back = zombie.poll(9, timeout_s=0).assigned.keys()

    assert refused.value.code == "UNKNOWN_MEMBER_ID"
    assert awake.lost == {0, 1, 2, 3}
    assert awake.records == ()
    assert back == heir_gives
    assert values(broker) == []


def test_a_zombie_that_sent_its_offsets_before_commits_legally_and_its_heir_waits(
    broker: MemoryBroker,
):
    """What barrier 1 is for: the generation was looked at before the process slept."""
    zombie = joined(broker)
    heir = broker.stream(member("b"))
    seen_by_heir = []

    def sleep(stage: Stage, stream: MemoryStream) -> None:
        if stage is Stage.OFFSETS_SENT:
            broker.expire_session(stream)
            seen_by_heir.append(heir.poll(0, timeout_s=0).assigned)

    broker.between = sleep
    zombie.commit([out(b"late")], {0: 5})

    assert seen_by_heir == [{1: None, 2: None, 3: None}]
    assert heir.poll(0, timeout_s=0).assigned == {0: 5}
    assert values(broker) == [b"late"]


def test_a_zombie_whose_transaction_timed_out_is_fenced(broker: MemoryBroker):
    zombie = joined(broker)

    def sleep(stage: Stage, stream: MemoryStream) -> None:
        if stage is Stage.OFFSETS_SENT:
            broker.expire_transaction(stream.who.transactional_id)

    broker.between = sleep
    with pytest.raises(FencedError):
        zombie.commit([out(b"late")], {0: 5})

    assert values(broker) == []
    assert broker.committed("group", "in")[0] is None


def test_a_static_member_takes_the_place_of_its_predecessor_without_a_rebalance(
    broker: MemoryBroker,
):
    other = joined(broker, "b")
    old = joined(broker, is_static=True)
    for stream in (other, old, other):
        stream.poll(0, timeout_s=0)
    owned = set(old.member.told)
    new = joined(broker, is_static=True)

    assert new.member.told == owned == {2, 3}
    other.commit([out(b"1")], {0: 1})  # its generation still holds
    assert values(broker) == [b"1"]


# Logs


def test_compaction_keeps_the_newest_of_each_key_and_all_offsets(broker: MemoryBroker):
    for key, value in [(b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"b", None), (b"c", b"1")]:
        broker.append("log", 0, key, value)

    broker.compact("log", 0, keep_tombstones=True)
    with_tombstones = [r.offset for r in broker.records("log", 0)]
    broker.compact("log", 0, keep_tombstones=False)
    without = [r.offset for r in broker.records("log", 0)]

    assert with_tombstones == [2, 3, 4]
    assert without == [2, 4]
    assert broker.ranges("log")[0] == Range(0, 5)


def test_compaction_spares_tombstones_that_are_young(broker: MemoryBroker):
    for key in (b"a", b"b"):
        broker.append("log", 0, key, None)

    broker.compact("log", 0, keep_tombstones=False, young_from=1)

    assert [r.offset for r in broker.records("log", 0)] == [1]


def test_compaction_looks_at_nothing_undecided_and_nothing_beyond_its_bound(broker: MemoryBroker):
    for n in range(3):
        broker.append("log", 0, b"k", b"%d" % n)
    stream = joined(broker)
    broker.faults[0] = Fault.UNDECIDED
    with pytest.raises(FatalError):
        stream.commit([out(b"open", "log")], {0: 1})
    broker.append("log", 0, b"k", b"behind")

    broker.compact("log", 0, keep_tombstones=False, before=2)
    bounded = values(broker, "log", committed=False)
    broker.compact("log", 0, keep_tombstones=False)

    assert bounded == [b"1", b"2", b"open", b"behind"]
    assert values(broker, "log", committed=False) == [b"2", b"open", b"behind"]


def test_readers_pass_over_the_gaps_that_compaction_leaves(broker: MemoryBroker):
    for n in range(5):
        broker.append("log", 0, b"k", b"%d" % n)
    reader = broker.reader("log")
    reader.read(2, timeout_s=0)
    broker.compact("log", 0, keep_tombstones=False)

    assert [r.offset for r in reader.read(9, timeout_s=0)] == [4]
    assert reader.at_end


def test_a_topic_made_anew_knows_nothing_of_the_old_one(broker: MemoryBroker):
    stream = joined(broker)
    stream.commit([out(b"1")], {0: 1})
    broker.delete_topic("in")
    broker.delete_topic("out")
    with pytest.raises(TopicError, match="out does not exist"):
        broker.reader("out")

    broker.create_topics([TopicSettings("in", 4), TopicSettings("out", 1)])

    assert broker.ranges("out")[0] == Range(0, 0)
    assert broker.committed("group", "in")[0] is None


def test_forgotten_offsets_are_none(broker: MemoryBroker):
    stream = joined(broker)
    stream.commit([], {0: 1})

    broker.forget_offsets("group", "in")

    assert broker.committed("group", "in")[0] is None


# Markers that come late


def test_a_held_marker_hides_a_partition_while_another_already_shows_the_transaction(
    broker: MemoryBroker,
):
    stream = joined(broker)
    broker.hold_markers("log", 0)

    stream.commit([out(b"1"), out(b"1", "log")], {0: 1})

    assert broker.committed("group", "in")[0] == 1
    assert (values(broker), values(broker, "log")) == ([b"1"], [])
    broker.release_markers("log")
    assert values(broker, "log") == [b"1"]


def test_held_markers_of_the_offsets_keep_the_assignment_waiting(broker: MemoryBroker):
    first = joined(broker)
    broker.hold_markers(*OFFSETS)
    first.commit([out(b"1")], {0: 1})
    broker.expire_session(first)
    heir = broker.stream(member("b"))

    early = heir.poll(0, timeout_s=0).assigned
    broker.release_markers()
    late = heir.poll(0, timeout_s=0).assigned

    assert 0 not in early
    assert late == {0: 1}


def test_the_next_transaction_of_a_producer_waits_for_the_markers_of_its_last(
    broker: MemoryBroker,
):
    stream = joined(broker)
    broker.hold_markers("log", 0)
    stream.commit([out(b"1", "log")], {0: 1})

    stream.commit([out(b"2", "log")], {0: 2})
    before = values(broker, "log")
    broker.release_markers()

    assert before == [b"1"]
    assert values(broker, "log") == [b"1", b"2"]


@pytest.mark.parametrize("is_right_order", [True, False])
def test_only_the_right_order_of_the_barriers_finds_what_the_committed_offset_stands_for(
    broker: MemoryBroker, is_right_order: bool
):
    """The predecessor sleeps between its offsets and its commit, with records in its queue."""
    zombie = joined(broker)
    heir = broker.stream(member("b"))
    found: list[bytes] = []

    def restore() -> None:
        reader = broker.reader("log")
        found.extend(r.value or b"" for r in reader.read(9, timeout_s=0))
        if not reader.at_end:  # barrier 2: a marker is still on its way
            broker.release_markers()
            found.extend(r.value or b"" for r in reader.read(9, timeout_s=0))
        assert reader.at_end

    def sleep(stage: Stage, stream: MemoryStream) -> None:
        if stage is Stage.OFFSETS_SENT:
            broker.expire_session(stream)
            assert 0 not in heir.poll(0, timeout_s=0).assigned
            if not is_right_order:
                restore()

    broker.hold_markers("log", 0)
    broker.n_queued = 1
    broker.between = sleep
    zombie.commit([out(b"label", "log")], {0: 1})
    assert heir.poll(0, timeout_s=0).assigned == {0: 1}
    if is_right_order:
        restore()

    assert found == ([b"label"] if is_right_order else [])


def test_a_topic_that_is_made_anew_has_another_id():
    broker = MemoryBroker()
    broker.create_topics([TopicSettings("a", 1), TopicSettings("b", 1)])
    before = broker.topic_ids(["a", "b"])

    broker.delete_topic("a")
    assert broker.topic_ids(["a", "b"]) == {"b": before["b"]}
    broker.create_topics([TopicSettings("a", 1)])

    assert broker.topic_ids(["b"]) == {"b": before["b"]}
    assert broker.topic_ids(["a"])["a"] not in before.values()
