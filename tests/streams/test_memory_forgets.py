"""The twin in memory: a broker that forgets what was open, and who may go on after it."""

from __future__ import annotations

import pytest

from pipeline.errors import AbortedError, FencedError
from pipeline.streams.contract import TopicSettings
from pipeline.streams.memory import MemoryBroker, MemoryStream, Stage
from tests.streams.test_memory import joined, out, values


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.create_topics([TopicSettings("in", 4), TopicSettings("out", 1)])
    return broker


@pytest.mark.parametrize("stage", [Stage.WRITTEN, Stage.OFFSETS_SENT])
def test_a_transaction_that_the_broker_forgot_is_aborted_and_the_next_one_works(
    broker: MemoryBroker, stage: Stage
):
    stream = joined(broker)

    def forget(reached: Stage, who: MemoryStream) -> None:
        if reached is stage:
            broker.forget_transaction(who.who.transactional_id)

    broker.between = forget
    with pytest.raises(AbortedError) as caught:
        stream.commit([out(b"forgotten")], {0: 1})
    broker.between = None
    stream.commit([out(b"kept")], {0: 1})

    assert caught.value.code == "INVALID_TXN_STATE"
    assert values(broker) == [b"kept"]
    assert broker.committed("group", "in")[0] == 1


@pytest.mark.parametrize("stage", [Stage.WRITTEN, Stage.OFFSETS_SENT])
def test_who_was_replaced_ends_whatever_the_broker_forgot(broker: MemoryBroker, stage: Stage):
    """Its epoch is looked at first: else two of one name would fence each other for ever."""
    stream = joined(broker)

    def replace(reached: Stage, who: MemoryStream) -> None:
        if reached is stage:
            broker.forget_transaction(who.who.transactional_id)
            broker.stream(who.who)

    broker.between = replace
    with pytest.raises(FencedError):
        stream.commit([out(b"too late")], {0: 1})
    broker.between = None

    assert values(broker) == []
    with pytest.raises(FencedError):
        stream.commit([out(b"again")], {0: 1})
