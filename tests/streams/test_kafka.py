"""What only a real broker shows, beside the contract suite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec

from pipeline.errors import (
    AbortedError,
    FatalError,
    TopicError,
    TransientError,
)
from pipeline.messages.records import Outgoing, Record
from pipeline.streams.broker import RunningBroker
from pipeline.streams.contract import GroupMember, Stream, TopicSettings
from pipeline.streams.kafka.broker import KafkaBroker
from pipeline.streams.kafka.stream import KafkaStream
from tests.conftest import KafkaCluster
from tests.streams import zombie
from tests.streams.twins import eventually, make_topic
from tests.streams.twins_kafka import QUICK, KafkaTwin, kafka_twin

POLL_S = 0.05
NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}


@pytest.fixture
def twin(kafka_cluster: KafkaCluster) -> KafkaTwin:
    return kafka_twin(kafka_cluster.bootstrap_servers)


def fill(broker: KafkaBroker, topic: str, n_records: int, partition: int = 0) -> None:
    producer = broker.producer()
    for n in range(n_records):
        producer.write(Outgoing(topic, partition, b"k", b"%d" % n))
    producer.flush()


def begun(stream: Stream, n_partitions: int = 1) -> Stream:
    """The stream, once it has all partitions and hands out what is not committed."""
    owned: set[int] = set()

    def ask() -> bool:
        for partition, offset in stream.poll(10, timeout_s=POLL_S).assigned.items():
            stream.start(partition, offset or 0)
            owned.add(partition)
        return len(owned) == n_partitions

    eventually(ask, f"{n_partitions} partitions")
    return stream


def take(stream: Stream, n_records: int) -> list[Record]:
    records: list[Record] = []

    def ask() -> bool:
        records.extend(stream.poll(1000, timeout_s=POLL_S).records)
        return len(records) >= n_records

    eventually(ask, f"{n_records} records")
    return records


def read_all(broker: KafkaBroker, topic: str) -> list[Record]:
    reader = broker.reader(topic)
    records: list[Record] = []

    def ask() -> bool:
        records.extend(reader.read(10_000, timeout_s=POLL_S))
        return reader.at_end

    eventually(ask, f"the end of {topic}")
    reader.close()
    return records


# Transactions


@pytest.mark.kafka
def test_what_fails_while_records_are_made_leaves_nothing_behind(twin):
    topic, out = make_topic(twin, "in"), make_topic(twin, "out")
    stream = begun(twin.broker.stream(GroupMember(topic, twin.name("g"), twin.name("t"))))

    def outgoing() -> Iterator[Outgoing]:
        yield Outgoing(out, 0, b"k", b"never seen")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stream.commit(outgoing(), {0: 0})
    stream.commit([Outgoing(out, 0, b"k", b"seen")], {0: 0})
    stream.close()

    assert [record.value for record in read_all(twin.broker, out)] == [b"seen"]


@pytest.mark.kafka
def test_a_record_that_its_topic_does_not_take_is_fatal_and_names_the_topic(twin):
    topic, out = make_topic(twin, "in"), make_topic(twin, "out", max_message_bytes="1000")
    stream = begun(twin.broker.stream(GroupMember(topic, twin.name("g"), twin.name("t"))))

    with pytest.raises(TopicError, match=rf"{out}.*max\.message\.bytes"):
        stream.commit([Outgoing(out, 0, b"k", bytes(2000))], {0: 0})
    stream.close()

    assert read_all(twin.broker, out) == []


@pytest.mark.kafka
def test_the_largest_dead_letter_can_be_written(twin):
    largest = 1_048_576
    topic = make_topic(twin, "in")
    out = make_topic(twin, "dlq", max_message_bytes=str(largest + 65_536))
    stream = begun(twin.broker.stream(GroupMember(topic, twin.name("g"), twin.name("t"))))

    stream.commit([Outgoing(out, 0, b"k", bytes(largest), (("reason", b"x" * 1000),))], {0: 0})
    stream.close()

    assert [len(record.value or b"") for record in read_all(twin.broker, out)] == [largest]


@pytest.mark.kafka
def test_a_member_that_slept_between_offsets_and_commit_is_waited_for(kafka_cluster):
    """Barrier 1: it wakes up and commits legally, after its partition was given away."""
    twin = kafka_twin(
        kafka_cluster.bootstrap_servers,
        {"consumer.session.timeout.ms": "6000", "consumer.heartbeat.interval.ms": "200"},
    )
    topic, out, group = make_topic(twin, "in"), make_topic(twin, "out"), twin.name("g")
    fill(twin.broker, topic, 1)
    script = Path(zombie.__file__)
    command = [sys.executable, "-m", "tests.streams.zombie", kafka_cluster.bootstrap_servers]
    sleeper = subprocess.Popen(
        [*command, topic, out, group, f"{group}.a"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=script.parents[2],
    )
    try:
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == "sent\n"
        successor = twin.broker.stream(GroupMember(topic, group, f"{group}.b"))
        assert isinstance(successor, KafkaStream)
        # it was given the partition, and has not been told so
        eventually(lambda: successor.poll(10, timeout_s=POLL_S) and successor._new, "a rebalance")
        for _ in range(3):
            assert not successor.poll(10, timeout_s=POLL_S).assigned

        os.kill(sleeper.pid, signal.SIGCONT)
        assert sleeper.stdout.readline() == "committed\n"
        assigned: dict[int, int | None] = {}
        eventually(
            lambda: assigned.update(successor.poll(10, timeout_s=POLL_S).assigned) or assigned,
            "the partition",
        )
        verdict = sleeper.stdout.readline().strip()
        successor.close()
    finally:
        sleeper.kill()
        sleeper.communicate()

    assert assigned == {0: 1}
    assert verdict in ("UNKNOWN_MEMBER_ID", "ILLEGAL_GENERATION")
    assert [record.value for record in read_all(twin.broker, out)] == [b"of the zombie"]


# Groups


@pytest.mark.kafka
@pytest.mark.parametrize(
    "settings",
    [
        {"consumer.group.protocol": "consumer"},
        {**QUICK, "consumer.partition.assignment.strategy": "range"},
    ],
    ids=["kip-848", "eager"],
)
def test_two_members_share_the_work_under_other_protocols_too(kafka_cluster, settings):
    twin = kafka_twin(kafka_cluster.bootstrap_servers, settings)
    topic, out, group = make_topic(twin, "in", 2), make_topic(twin, "out", 2), twin.name("g")
    for partition in range(2):
        fill(twin.broker, topic, 50, partition)
    members: list[Stream] = []
    owned: list[set[int]] = [set(), set()]

    def step() -> None:
        for stream, have in zip(members, owned, strict=False):
            poll = stream.poll(5, timeout_s=POLL_S)
            have.difference_update(poll.revoked | poll.lost)
            for partition, offset in poll.assigned.items():
                stream.start(partition, offset or 0)
                have.add(partition)
            if poll.records:
                copies = [Outgoing(out, r.partition, r.key, r.value) for r in poll.records]
                try:
                    stream.commit(copies, {r.partition: r.offset + 1 for r in poll.records})
                except AbortedError:
                    stream.rewind()

    def n_committed() -> int:
        return sum(offset or 0 for offset in twin.broker.committed(group, topic).values())

    members.append(twin.broker.stream(GroupMember(topic, group, f"{group}.a")))
    eventually(lambda: step() or owned[0] == {0, 1}, "both partitions")
    members.append(twin.broker.stream(GroupMember(topic, group, f"{group}.b")))
    eventually(lambda: step() or [len(have) for have in owned] == [1, 1], "one each")
    eventually(lambda: step() or n_committed() == 100, "all records")
    for stream in members:
        stream.close()

    copied = sorted((r.partition, int(r.value or b"")) for r in read_all(twin.broker, out))
    assert copied == [(partition, n) for partition in range(2) for n in range(50)]


@pytest.mark.kafka
def test_a_consumer_that_gets_nothing_of_what_is_there_is_replaced(twin):
    topic = make_topic(twin, "in")
    stream = begun(twin.broker.stream(GroupMember(topic, twin.name("g"), twin.name("t"))))
    assert isinstance(stream, KafkaStream)
    stream._consumer.pause([TopicPartition(topic, 0)])  # as if its fetcher had died
    fill(twin.broker, topic, 3)
    gone: set[int] = set()

    def ask() -> bool:
        poll = stream.poll(10, timeout_s=POLL_S)
        gone.update(poll.revoked | poll.lost)
        return bool(gone)

    stream._stall_limit_s = 0.5
    eventually(ask, "the partition is lost")
    stream._stall_limit_s = 30.0  # a new consumer may take its time
    begun(stream)
    records = take(stream, 3)
    stream.close()

    assert [record.offset for record in records] == [0, 1, 2]
    assert stream.n_recreated == 1


@pytest.mark.kafka
def test_a_consumer_at_the_end_or_before_an_open_transaction_has_not_stalled(twin):
    topic = make_topic(twin, "in")
    twin.begin(twin.name("t"), [Outgoing(topic, 0, b"k", b"1")]).commit()
    opened = twin.begin(twin.name("t"), [Outgoing(topic, 0, b"k", b"2")])
    stream = begun(twin.broker.stream(GroupMember(topic, twin.name("g"), twin.name("t"))))
    assert isinstance(stream, KafkaStream)
    take(stream, 1)
    eventually(lambda: stream.poll(10, timeout_s=POLL_S) and stream._ends, "the end")

    stream._stall_limit_s = 0.1
    looked_until = time.monotonic() + 1.0
    eventually(
        lambda: stream.poll(10, timeout_s=POLL_S) and time.monotonic() > looked_until,
        "several looks",
    )
    opened.abort()
    stream.close()

    assert stream.n_recreated == 0


@pytest.mark.kafka
def test_a_place_outside_the_log_is_an_error_and_not_a_jump(twin):
    topic = make_topic(twin, "in")
    fill(twin.broker, topic, 5)
    twin.truncate(topic, 0, 3)
    stream = twin.broker.stream(GroupMember(topic, twin.name("g"), twin.name("t")))
    eventually(lambda: stream.poll(10, timeout_s=POLL_S).assigned, "the partition")

    stream.start(0, 1)
    with pytest.raises(TopicError, match="holds no offset 1"):
        eventually(lambda: stream.poll(10, timeout_s=POLL_S).records, "an error")
    stream.close()


@pytest.mark.kafka
def test_joined_polls_bring_a_backlog_in_one_go_and_wait_for_nothing(twin):
    topic = make_topic(twin, "in")
    fill(twin.broker, topic, 9000)
    stream = begun(twin.broker.stream(GroupMember(topic, twin.name("g"), twin.name("t"))))
    sizes: list[int] = []

    def ask() -> bool:
        sizes.append(len(stream.poll(4000, timeout_s=POLL_S).records))
        return sum(sizes) == 9000

    eventually(ask, "all records")
    stream.close()

    assert max(sizes) > 1000  # more than one call of the client brings
    assert max(sizes) <= 4000


# The broker goes away


@pytest.mark.kafka
def test_a_transactional_loop_goes_on_after_every_restart_of_the_broker(own_broker: RunningBroker):
    """Guards the pin of confluent-kafka: 2.16 hangs in ``send_offsets_to_transaction`` for ever."""
    n_restarts = 2
    broker = KafkaBroker({"bootstrap.servers": own_broker.bootstrap_servers, **QUICK})
    broker.create_topics([TopicSettings("in", 2), TopicSettings("out", 2)])
    stop, failures = threading.Event(), list[Exception]()
    n_written, n_copied, n_commits = [0], [0], [0]

    def step(stream: Stream) -> None:
        try:
            poll = stream.poll(1000, timeout_s=0.02)
            for partition, offset in poll.assigned.items():
                stream.start(partition, offset or 0)
            if poll.records:
                copies = [Outgoing("out", r.partition, r.key, r.value) for r in poll.records]
                stream.commit(copies, {r.partition: r.offset + 1 for r in poll.records})
                n_copied[0] += len(copies)
                n_commits[0] += 1
        except TransientError:
            stream.rewind()

    def loop() -> None:  # the stream's one thread; a call that never returns must not take the test
        producer = broker.producer()
        stream = broker.stream(GroupMember("in", "g", "g.a"))
        try:
            while not stop.is_set():
                for n in range(n_written[0], n_written[0] + 20):
                    producer.write(Outgoing("in", n % 2, b"k", b"%d" % n))
                n_written[0] += 20
                step(stream)
            producer.flush()
            while n_copied[0] < n_written[0]:
                step(stream)
        except (FatalError, AssertionError) as error:
            failures.append(error)
        finally:
            stream.close()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    for n_kill in range(n_restarts + 1):
        before = n_commits[0]
        eventually(lambda at=before: n_commits[0] > at + 20 or failures, f"commits, {n_kill} kills")
        if n_kill < n_restarts:
            own_broker.kill()
            own_broker.start()
    stop.set()
    thread.join(30)

    assert not failures
    assert not thread.is_alive()
    records = read_all(broker, "out")
    for partition in range(2):
        values = [int(r.value or b"") for r in records if r.partition == partition]
        assert values == list(range(partition, n_written[0], 2))


@pytest.mark.kafka
def test_a_reader_goes_on_where_it_was_when_the_broker_comes_back(own_broker: RunningBroker):
    broker = KafkaBroker({"bootstrap.servers": own_broker.bootstrap_servers})
    broker.create_topics([TopicSettings("log", 1)])
    fill(broker, "log", 5000)
    reader = broker.reader("log")
    records = list(reader.read(100, timeout_s=5.0))

    own_broker.kill()
    while_away = list(reader.read(100, timeout_s=0.2))
    own_broker.start()
    records += while_away

    def ask() -> bool:
        records.extend(reader.read(1000, timeout_s=POLL_S))
        return reader.at_end

    eventually(ask, "the end")
    reader.close()

    assert [record.offset for record in records] == list(range(5000))
    assert broker.ranges("log")[0].high == 5000  # offsets too can be asked for again


def unread_bytes(port: int) -> int:
    """What clients have sent to a port and nobody has read yet."""
    found = 0
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(path).read_text().splitlines()[1:]:
            _, local, _, _, queues, *_ = line.split()
            if int(local.rpartition(":")[2], 16) == port:
                found += int(queues.partition(":")[2], 16)
    return found


def test_a_question_that_dies_with_the_broker_is_asked_again(own_broker: RunningBroker):
    # the client answers it with offsets of -1001 and no error: the end of every log
    broker = KafkaBroker({"bootstrap.servers": own_broker.bootstrap_servers})
    broker.create_topics([TopicSettings("asked", 1)])
    fill(broker, "asked", 500)
    end = OffsetSpec.latest()
    assert broker._offsets("asked", [0], end) == {0: 500}
    answers: list[object] = []

    def ask() -> None:  # this question alone: `ranges` asks for the partitions before it
        answers.append(broker._offsets("asked", [0], end))

    os.kill(own_broker.pid, signal.SIGSTOP)
    asking = threading.Thread(target=ask)
    asking.start()
    port = int(own_broker.bootstrap_servers.rpartition(":")[2])
    eventually(lambda: unread_bytes(port) > 0, "a question that lies there")
    own_broker.kill()
    own_broker.start()
    asking.join(60.0)

    assert answers == [{0: 500}]
