"""How a client comes to Kafka: the place that picks the twin."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.client.topics import Topics
from pipeline.errors import UsageError
from pipeline.streams.contract import Broker
from pipeline.streams.kafka.broker import KafkaBroker
from pipeline.streams.topics import TopicPolicy


def open_topics(
    kafka: Mapping[str, object] | None, broker: Broker | None, input_topic: str, prefix: str
) -> Topics:
    """The topics; nothing is connected before it is needed."""
    if kafka is not None and broker is not None:
        raise UsageError("a client takes kafka or broker, not both")
    names = TopicPolicy(input=input_topic, prefix=prefix)
    if broker is not None:
        return Topics(lambda: broker, names.input, names.changes)
    if kafka is not None:
        settings = dict(kafka)
        return Topics(lambda: KafkaBroker(settings), names.input, names.changes)
    return Topics(None, names.input, names.changes)
