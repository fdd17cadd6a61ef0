"""The twin that is Apache Kafka, with what a test does to it from outside."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from itertools import count

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.messages.records import Outgoing
from pipeline.streams.kafka.broker import KafkaBroker
from tests.streams.twins import DEADLINE_S

QUICK = {
    # a member that was killed is missed soon; the broker of the tests allows it
    "consumer.session.timeout.ms": "6000",
    "consumer.heartbeat.interval.ms": "200",
}
"""Settings for tests of groups: rebalances begin at a heartbeat."""


class KafkaTransaction:
    """Open until told otherwise; implements `OpenTransaction`."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer

    def commit(self) -> None:
        self.producer.commit_transaction(DEADLINE_S)

    def abort(self) -> None:
        self.producer.abort_transaction(DEADLINE_S)


class KafkaTwin:
    """Implements `Twin`. All its names are new, so that tests can share a broker."""

    def __init__(self, bootstrap: str, settings: Mapping[str, object]) -> None:
        self.client = {"bootstrap.servers": bootstrap, "log_level": 0}
        self.broker = KafkaBroker({"bootstrap.servers": bootstrap, **settings})
        self._admin = AdminClient(self.client)
        self._run = uuid.uuid4().hex[:8]
        self._numbers = count()

    def name(self, what: str) -> str:
        return f"{what}-{self._run}-{next(self._numbers)}"

    def begin(
        self,
        transactional_id: str,
        outgoing: Iterable[Outgoing],
        *,
        group_id: str | None = None,
        topic: str | None = None,
        next_offsets: Mapping[int, int] | None = None,
    ) -> KafkaTransaction:
        producer = Producer(self.client | {"transactional.id": transactional_id})
        producer.init_transactions(DEADLINE_S)
        producer.begin_transaction()
        for record in outgoing:
            producer.produce(record.topic, record.value, record.key, record.partition)
        producer.flush(DEADLINE_S)
        if next_offsets is not None:
            nobody = Consumer(self.client | {"group.id": group_id})
            offsets = [TopicPartition(topic, p, offset) for p, offset in next_offsets.items()]
            producer.send_offsets_to_transaction(
                offsets, nobody.consumer_group_metadata(), DEADLINE_S
            )
            nobody.close()
        return KafkaTransaction(producer)

    def truncate(self, topic: str, partition: int, before: int) -> None:
        place = TopicPartition(topic, partition, before)
        self._admin.delete_records([place])[place].result(DEADLINE_S)

    def nowhere(self) -> KafkaBroker:
        return KafkaBroker({"bootstrap.servers": "127.0.0.1:1"})


def kafka_twin(bootstrap: str, settings: Mapping[str, object] = QUICK) -> KafkaTwin:
    """A twin at a broker that runs."""
    return KafkaTwin(bootstrap, settings)
