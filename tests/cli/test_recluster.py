"""`eddy recluster`: the command that is written, and what is made of its answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.messages.commands import Command, decode_command
from pipeline.messages.events import LifecycleType
from pipeline.messages.records import Outgoing
from pipeline.streams.memory import MemoryBroker, MemoryProducer
from tests.cli.console import TOPICS, Console, write_lifecycle


class AnsweringBroker(MemoryBroker):
    """With a reclusterer behind it that answers at once."""

    def __init__(self, answer: Callable[[AnsweringBroker, Command], None]) -> None:
        super().__init__()
        self.answer = answer

    def producer(self) -> MemoryProducer:
        return _AnsweredProducer(self)


class _AnsweredProducer(MemoryProducer):
    def write(self, record: Outgoing) -> None:
        super().write(record)
        broker = self._broker
        assert isinstance(broker, AnsweringBroker)
        broker.answer(broker, commands(broker)[-1])


def commands(broker: MemoryBroker) -> list[Command]:
    return [decode_command(record) for record in broker.records(TOPICS.commands, 0)]


def installs(broker: MemoryBroker, command: Command) -> None:
    write_lifecycle(broker, LifecycleType.INSTALLED, command="somebody else's", reason="age")
    for cluster in ("c8", "c9"):
        write_lifecycle(broker, LifecycleType.BORN, cluster=cluster, command=command.id)
    write_lifecycle(
        broker,
        LifecycleType.INSTALLED,
        command=command.id,
        reason="command",
        inertia_before=100.0,
        inertia_after=90.0,
        moved=0.031,
    )


def rejects(broker: MemoryBroker, command: Command) -> None:
    write_lifecycle(
        broker, LifecycleType.REJECTED, command=command.id, reason="saves 0.1%, below [min_gain]"
    )


@pytest.fixture
def eddy_with(eddy: Console) -> Callable[..., Console]:
    def arrange(answer: Callable[[AnsweringBroker, Command], None]) -> Console:
        eddy.broker = AnsweringBroker(answer)
        assert eddy("topics", "create") == 0
        return eddy

    return arrange


def test_a_command_is_written_with_an_id_of_its_own(eddy_with_topics: Console):
    eddy = eddy_with_topics

    assert eddy("recluster", "--json") == 0
    assert eddy("recluster", "--force", "--cold", "--reason", "new texts") == 0

    first, second = commands(eddy.broker)
    assert first.id != second.id
    assert (first.type, first.force, first.cold, first.reason) == ("recluster", False, False, None)
    assert (second.force, second.cold, second.reason) == (True, True, "new texts")
    assert first.requested_by
    assert second.id in eddy.out


def test_wait_tells_what_was_published(eddy_with):
    eddy = eddy_with(installs)

    assert eddy("recluster", "--wait") == 0

    assert "published model 7.0, inertia -10.00%, 3.1% of the sampled items moved" in eddy.out
    assert "c8, c9" in eddy.out


def test_wait_tells_why_nothing_was_published(eddy_with):
    eddy = eddy_with(rejects)

    assert eddy("recluster", "--wait") == 1

    assert "not published: saves 0.1%, below [min_gain]; model 7.0 stays" in eddy.out


def test_wait_as_json_is_one_line_for_each_event_of_the_command(eddy_with):
    eddy = eddy_with(installs)

    assert eddy("recluster", "--wait", "--json") == 0

    assert [(e["type"], e["cluster"]) for e in eddy.lines] == [
        ("born", "c8"),
        ("born", "c9"),
        ("installed", None),
    ]


def test_no_answer_in_time_says_who_should_have_answered(eddy_with):
    eddy = eddy_with(lambda broker, command: None)

    assert eddy("recluster", "--wait", "--timeout", "0.05") == 1

    assert "look whether eddy reclusterer runs" in eddy.err
