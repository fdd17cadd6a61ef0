"""Records that are written without a transaction, and where they stand: what every twin does."""

from __future__ import annotations

from pipeline.messages.records import Outgoing
from pipeline.streams.contract import Place
from tests.streams.twins import Twin, make_topic


def test_a_record_that_is_delivered_stands_where_it_is_said_to(twin: Twin):
    topic = make_topic(twin, "in", n_partitions=3)
    producer = twin.broker.producer()

    places = [
        producer.deliver(Outgoing(topic, -1, b"k%d" % n, b"v%d" % n), timeout_s=30)
        for n in range(12)
    ]
    chosen = producer.deliver(Outgoing(topic, 2, b"k0", None), timeout_s=30)

    reader = twin.broker.reader(topic)
    found = {}
    while len(found) < 13:
        found |= {Place(r.partition, r.offset): r for r in reader.read(100, timeout_s=0.05)}
    reader.close()
    assert [found[place].value for place in places] == [b"v%d" % n for n in range(12)]
    assert chosen.partition == 2
    assert found[chosen].key == b"k0"


def test_the_same_key_is_always_in_the_same_partition(twin: Twin):
    topic = make_topic(twin, "in", n_partitions=5)
    producer = twin.broker.producer()
    for n in range(20):
        producer.write(Outgoing(topic, -1, b"k%d" % n, b""))
    producer.flush()

    placed = {n: producer.deliver(Outgoing(topic, -1, b"k%d" % n, b""), timeout_s=30).partition
              for n in range(20)}  # fmt: skip

    reader = twin.broker.reader(topic)
    records = []
    while len(records) < 40:
        records += reader.read(100, timeout_s=0.05)
    reader.close()
    assert {(r.key, r.partition) for r in records} == {(b"k%d" % n, p) for n, p in placed.items()}
