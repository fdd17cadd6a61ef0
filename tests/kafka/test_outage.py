"""What clients make of an outage: transactions that a broker forgot, calls that wait for one."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from confluent_kafka import Consumer, TopicPartition

from pipeline.errors import AbortedError, FencedError, PipelineError, TransientError
from pipeline.messages.records import Outgoing
from pipeline.streams.broker import start_broker
from pipeline.streams.contract import GroupMember, TopicSettings
from pipeline.streams.kafka import transactions as kafka_transactions
from pipeline.streams.kafka.broker import KafkaBroker
from pipeline.streams.kafka.client import ClientSettings, Watch
from pipeline.streams.kafka.stream import KafkaStream
from pipeline.streams.kafka.transactions import Transactions
from tests.kafka.site import until
from tests.streams.test_kafka import begun, read_all, unread_bytes
from tests.streams.twins import make_topic
from tests.streams.twins_kafka import kafka_twin

pytestmark = pytest.mark.kafka

OPEN_MS = 3000
"""How long a transaction may be open; what is not delivered by then is given up."""
CLIENT = {"producer.transaction.timeout.ms": OPEN_MS}


def output(value):
    return Outgoing("out", 0, b"key", value)


class Call(threading.Thread):
    """One call on a thread of its own, and what became of it."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.problem = call, None
        self.start()

    def run(self):
        try:
            self.call()
        except PipelineError as problem:
            self.problem = problem


def transactions(address, name, tell=lambda *_: None, answers=lambda: True):
    """Transactions by themselves, without a group."""
    settings = ClientSettings(address, 1_048_576)
    return Transactions(settings, name, Watch(tell), limit_s=30.0, answers=answers)


def commit_at_last(stream, value):
    """Poll and commit until a commit succeeds, as a service does."""

    def ask():
        try:
            for partition, offset in stream.poll(10, timeout_s=0.05).assigned.items():
                stream.start(partition, offset or 0)
            stream.commit([output(value)], {0: 0})
        except TransientError:
            stream.rewind()
            return False
        return True

    until(ask, "a commit")


def test_a_stream_outlives_a_transaction_that_the_broker_never_heard_of(own_broker):
    """The end of what is not there is an invalid transition: fatal to the client, not to us."""
    broker = KafkaBroker({"bootstrap.servers": own_broker.bootstrap_servers, **CLIENT})
    broker.create_topics([TopicSettings("in", 1), TopicSettings("out", 1)])
    stream = begun(broker.stream(GroupMember("in", "g", "g.a")))
    assert isinstance(stream, KafkaStream)
    commits = stream._transactions
    stream.commit([output(b"before")], {0: 0})

    os.kill(own_broker.pid, signal.SIGSTOP)
    call = Call(lambda: stream.commit([output(b"forgotten")], {0: 0}))
    port = int(own_broker.bootstrap_servers.rpartition(":")[2])
    until(lambda: unread_bytes(port), "a request that lies there")
    own_broker.kill()
    until(lambda: commits._undelivered, "the record given up")
    own_broker.start()
    call.join(30)
    n_renewed = commits.n_renewed
    commit_at_last(stream, b"after")
    stream.close()

    assert isinstance(call.problem, AbortedError)
    assert n_renewed == 1
    assert [record.value for record in read_all(broker, "out")] == [b"before", b"after"]


def test_control_to_who_was_replaced_the_broker_says_so_first(kafka_cluster):
    """Its transaction is not there any more, either; it is not to take its place back."""
    twin = kafka_twin(kafka_cluster.bootstrap_servers)
    name, out = twin.name("id"), make_topic(twin, "out")
    older = transactions(twin.client, name)
    older._insist(older._producer.begin_transaction)
    older._produce([Outgoing(out, 0, b"key", b"open")])
    older._producer.flush(5.0)

    newer = transactions(twin.client, name)
    with pytest.raises(FencedError):
        older._abort()
    older.close()
    newer.close()

    assert older.n_renewed == 0
    assert read_all(twin.broker, out) == []


def test_a_call_that_heeds_no_limit_is_a_sign_of_life_while_no_broker_answers(
    tmp_path, monkeypatch
):
    """No offsets topic can be made by one broker of two, so no group has a coordinator."""
    monkeypatch.setattr(kafka_transactions, "_OVERDUE_S", 0.5)
    told = []
    with start_broker(
        tmp_path / "broker", extra={"offsets.topic.replication.factor": "2"}
    ) as server:
        address = {"bootstrap.servers": server.bootstrap_servers}
        broker = KafkaBroker(address)
        broker.create_topics([TopicSettings("out", 1)])
        commits = transactions(
            address, "id", lambda *said: told.append(said), lambda: broker._answers("out")
        )
        nobody = Consumer({**address, "group.id": "g"})
        offsets, metadata = [TopicPartition("in", 0, 1)], nobody.consumer_group_metadata()
        call = Call(lambda: commits.write([output(b"late")], offsets, metadata))
        until(lambda: commits._overdue._call, "a call")
        call.join(8.0)  # longer than its limit
        assert call.is_alive()
        assert "_WAIT_COORD" not in dict(told)  # it hangs, and a broker answers

        server.kill()
        until(lambda: "_WAIT_COORD" in dict(told), "a sign of life")
        assert dict(told)["_WAIT_COORD"].startswith("send_offsets_to_transaction has waited")

        server._extra["offsets.topic.replication.factor"] = "1"
        server.start()
        call.join(30.0)
        assert not call.is_alive()
        nobody.close()
        commits.close()
