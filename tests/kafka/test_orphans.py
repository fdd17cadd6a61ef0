"""A static member is replaced between the two rebalances of a hand-over: somebody gets its share.

The control shows the group as Kafka and its client leave it: at rest, with partitions that nobody
owns, and members that are all well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer

from pipeline.streams.contract import GroupMember
from pipeline.streams.kafka import orphans as kafka_orphans
from pipeline.streams.kafka.broker import KafkaBroker
from tests.kafka.site import until
from tests.streams.twins import make_topic
from tests.streams.twins_kafka import kafka_twin

pytestmark = pytest.mark.kafka

N_PARTITIONS = 6
LOOK_EVERY_S = 0.5
GROUP = {
    # no member is missed while the test takes its time
    "consumer.session.timeout.ms": "30000",
    "consumer.heartbeat.interval.ms": "200",
}


class Members:
    """Streams by instance, polled in turn; what each owns, and what was taken from it."""

    def __init__(self):
        self.streams, self.owned, self.taken = {}, {}, set()

    def add(self, name, stream):
        self.streams[name], self.owned[name] = stream, set()

    def poll(self):
        for name, stream in self.streams.items():
            poll = stream.poll(10, timeout_s=0.02)
            for partition, offset in poll.assigned.items():
                stream.start(partition, offset or 0)
            self.taken |= poll.revoked | poll.lost
            self.owned[name] |= set(poll.assigned)
            self.owned[name] -= poll.revoked | poll.lost
        return True

    @property
    def all_owned(self):
        return sorted(p for owned in self.owned.values() for p in owned)


@contextmanager
def orphaned(bootstrap, told) -> Iterator[tuple[Members, set[int]]]:
    """Two members and the partitions that one of them owns; the others have no owner."""
    twin = kafka_twin(bootstrap, GROUP)
    broker = KafkaBroker(
        {"bootstrap.servers": bootstrap, **GROUP}, on_error=lambda *said: told.append(said)
    )
    # a second one, for who looks for a topic that is not ours
    topic, _, group = make_topic(twin, "in", N_PARTITIONS), make_topic(twin, "out"), twin.name("g")
    first = Consumer(
        {
            **twin.client,
            "group.id": group,
            "group.instance.id": "a",
            "partition.assignment.strategy": "cooperative-sticky",
            "heartbeat.interval.ms": 200,
            "session.timeout.ms": 30000,
            "auto.offset.reset": "earliest",
        }
    )
    members = Members()
    try:
        first.subscribe([topic])
        until(
            lambda: first.poll(0.1) is None and len(first.assignment()) == N_PARTITIONS,
            "all partitions",
        )
        # from here on nobody polls it: it joins the rebalance, and never hears what to give up
        members.add("b", broker.stream(GroupMember(topic, group, f"{group}.b", "b")))
        asked = twin._admin

        def given():
            members.poll()
            found = asked.describe_consumer_groups([group])[group].result(10.0)
            shares = {m.group_instance_id: m.assignment.topic_partitions for m in found.members}
            if found.state.name != "STABLE" or set(shares) != {"a", "b"}:
                return None
            return {place.partition for place in shares["a"]} if not shares["b"] else None

        until(given, "half of them taken from the first, and given to nobody")
        kept = given()
        members.add("a", broker.stream(GroupMember(topic, group, f"{group}.a", "a")))
        until(lambda: members.poll() and members.owned["a"] == kept, "its share for the successor")
        yield members, kept
    finally:
        for stream in members.streams.values():
            stream.close()
        first.close()  # fenced: the group does not hear of it


def test_partitions_without_an_owner_get_one(kafka_cluster, monkeypatch):
    monkeypatch.setattr(kafka_orphans, "_LOOK_EVERY_S", LOOK_EVERY_S)
    told: list[tuple[str, str]] = []
    with orphaned(kafka_cluster.bootstrap_servers, told) as (members, kept):
        began = time.monotonic()
        until(
            lambda: members.poll() and members.all_owned == list(range(N_PARTITIONS)), "all owned"
        )
        took_s = time.monotonic() - began
        for _ in range(20):  # the visitor leaves: nobody loses anything by it
            members.poll()
        print(f"after {took_s:.1f} s: {members.owned}")
        assert members.all_owned == list(range(N_PARTITIONS))
        assert members.owned["a"] == kept
        assert not members.taken

    said = [message for _, message in told if "have no owner" in message]
    assert len(said) == 1
    assert str(sorted(set(range(N_PARTITIONS)) - kept)) in said[0]
    assert not [thread for thread in threading.enumerate() if thread.name == "eddy-orphans"]


def test_control_nobody_gets_them_where_nobody_looks(kafka_cluster):
    told: list[tuple[str, str]] = []
    with orphaned(kafka_cluster.bootstrap_servers, told) as (members, kept):
        ends_at = time.monotonic() + 6 * LOOK_EVERY_S
        while time.monotonic() < ends_at:
            members.poll()

        assert set(members.all_owned) == kept
        assert 0 < len(kept) < N_PARTITIONS
