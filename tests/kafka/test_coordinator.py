"""The coordinator of a group dies for good: what commits offsets of that group finds the next one.

The client forgets a broker that is no longer part of the cluster, and what waited for it as a
coordinator would wait for ever. The control shows that it still does without Eddy's setting; once
it answers, the client has been mended and the setting may go.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from itertools import cycle

import pytest
from confluent_kafka.admin import AdminClient

from pipeline.errors import AbortedError, PipelineError, TransientError
from pipeline.messages.records import Outgoing
from pipeline.streams.contract import GroupMember, TopicSettings
from pipeline.streams.kafka.broker import KafkaBroker
from tests.chaos.cluster import Cluster
from tests.chaos.proxy import Network
from tests.kafka.site import until

pytestmark = [pytest.mark.kafka, pytest.mark.pressure]

ANSWER_S = 15.0
"""An idle connection ends within five, and after this the transaction is over."""
FREE_S = 30.0
CLIENT = {
    "topic.metadata.refresh.interval.ms": "1000",  # it soon hears of a broker that has gone,
    "metadata.max.age.ms": "900000",  # and remembers coordinators for as long as it does by itself
}
CONTROL = {"producer.connections.max.idle.ms": "0"}
OUTPUT = Outgoing("out", 0, b"key", b"value", ())


def place_of(name, n_partitions):
    """The partition that a group or a transactional id lives in: Java's hash of the name."""
    hashed = 0
    for letter in name:
        hashed = (31 * hashed + ord(letter)) % 2**32
    return abs(hashed - 2**32 if hashed >= 2**31 else hashed) % n_partitions


def coordinator(admin, topic, name):
    """The node id of the broker that looks after a name."""
    partitions = admin.list_topics(topic, timeout=5.0).topics[topic].partitions
    return partitions[place_of(name, len(partitions))].leader


def named(admin, topic, stem, *, leader):
    """Some name that a broker looks after."""
    names = (f"{stem}-{n}" for n in range(100))
    return next(name for name in names if coordinator(admin, topic, name) == leader)


def owner(broker, group, transactional_id):
    """A member that owns the only partition, and has committed once."""
    stream = broker.stream(GroupMember("in", group, transactional_id))

    def owns():
        assigned = stream.poll(1, timeout_s=0.2).assigned
        for partition in assigned:
            stream.start(partition, 0)
        return assigned

    until(owns, "the partition is ours")
    stream.commit([OUTPUT], {0: 0})
    return stream


class Commit(threading.Thread):
    """One more commit, until it succeeds."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self.stream, self.took_s = stream, None
        self.problem: PipelineError | None = None

    def run(self):
        began = time.monotonic()
        while self.took_s is None:
            try:
                self.stream.poll(1, timeout_s=0.1)
                self.stream.commit([OUTPUT], {0: 0})
                self.took_s = time.monotonic() - began
            except (AbortedError, TransientError):
                continue
            except PipelineError as problem:
                self.problem = problem
                return

    def has_ended(self, limit_s):
        self.join(max(0.0, limit_s))
        return not self.is_alive()


@pytest.fixture(scope="module")
def commits(tmp_path_factory):
    """By settings: how commits ended that began when the coordinator of the group had gone."""
    with ExitStack() as stack:
        network = stack.enter_context(Network(3))
        cluster = stack.enter_context(Cluster(tmp_path_factory.mktemp("three"), network))
        admin = AdminClient({"bootstrap.servers": cluster.direct})
        shared = {"bootstrap.servers": cluster.bootstrap, **CLIENT}
        brokers = {"ours": KafkaBroker(shared), "control": KafkaBroker(shared | CONTROL)}
        topics = [TopicSettings("in", 1), TopicSettings("out", 1)]
        brokers["ours"].create_topics(topics, replication_factor=3)
        owner(brokers["ours"], "warm", "warm").close()  # makes the topics of the coordinators
        cluster.wait_until_in_sync()

        # not who leads what is written to, nor who looks after transactions: both would reconnect
        leader = cluster.leader("out", 0) + 1
        victim = leader % 3 + 1
        found = {}
        for kind, broker in brokers.items():
            group = named(admin, "__consumer_offsets", f"group-{kind}", leader=victim)
            name = named(admin, "__transaction_state", f"id-{kind}", leader=leader)
            found[kind] = Commit(owner(broker, group, name))
        cluster.brokers[victim - 1].kill()
        until(lambda: victim not in admin.list_topics(timeout=5.0).brokers, "it is out")
        ends_at = time.monotonic() + 3.0
        while time.monotonic() < ends_at:  # for as long as clients take to hear of it
            for commit in found.values():
                commit.stream.poll(1, timeout_s=0.1)
        for commit in found.values():
            commit.start()
        for commit in found.values():
            commit.has_ended(ends_at + ANSWER_S - time.monotonic())
        yield {kind: (commit.took_s, commit.problem) for kind, commit in found.items()}

        waiting, proxies = set(found.values()), cycle(network.proxies)
        ends_at = time.monotonic() + FREE_S
        while waiting and time.monotonic() < ends_at:
            next(proxies).drop()  # one connection goes and comes: that frees who still waits
            waiting = {commit for commit in waiting if not commit.has_ended(FREE_S / 10)}
        for commit in set(found.values()) - waiting:
            commit.stream.close()
        assert not waiting


def test_a_commit_goes_on_when_the_coordinator_of_its_group_has_gone(commits):
    took_s, problem = commits["ours"]
    assert problem is None
    print(f"after {took_s} s")
    assert took_s is not None, f"no answer within {ANSWER_S:.0f} s"


def test_control_a_client_that_keeps_its_connections_waits_for_ever(commits):
    assert commits["control"] == (None, None)
