"""Contract suite, second part: who owns a partition, and who may still commit."""

from __future__ import annotations

import pytest

from pipeline.errors import AbortedError, FatalError, FencedError
from pipeline.messages.records import Outgoing
from tests.streams.steps import (
    POLL_S,
    Join,
    assigned,
    begin_at,
    fill,
    take,
    values,
)
from tests.streams.twins import Twin, eventually, make_topic


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


def test_a_static_member_that_was_replaced_while_it_lived_is_told(twin: Twin, join: Join):
    topic = make_topic(twin, "in")
    older = join(topic, "a", instance_id="a")
    assigned(older, 1)
    newer = join(topic, "a", instance_id="a")

    def both_poll() -> bool:
        newer.poll(10, timeout_s=POLL_S)
        older.poll(10, timeout_s=POLL_S)
        return False

    with pytest.raises(FencedError):
        eventually(both_poll, "the older one told")


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
