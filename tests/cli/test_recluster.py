"""`eddy recluster`, `split`, `merge`, `label`: the command, and what is made of its answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.messages.commands import Command
from pipeline.messages.events import LifecycleType
from pipeline.messages.model import label_record
from pipeline.streams.memory import MemoryBroker
from tests.cli.console import (
    TOPICS,
    AnsweringBroker,
    Console,
    commands,
    write_lifecycle,
    write_model,
)


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


# Split, merge, label


CLUSTERS = ["c1", "c2", "c9", "c12"]


@pytest.fixture
def eddy_with_model(eddy_with) -> Callable[..., Console]:
    """The same, with a model of four clusters."""

    def arrange(answer: Callable[[AnsweringBroker, Command], None]) -> Console:
        eddy = eddy_with(answer)
        write_model(eddy.broker, CLUSTERS, [10, 20, 30, 40])
        return eddy

    return arrange


def nobody(broker: MemoryBroker, command: Command) -> None:
    """No reclusterer runs."""


def splits(broker: MemoryBroker, command: Command) -> None:
    with_id = {"command": command.id, "epoch": 8}
    write_lifecycle(broker, LifecycleType.INSTALLED, reason="command", moved=0.031, **with_id)
    write_lifecycle(
        broker, LifecycleType.BORN, cluster="c59", parents=("c12",), size=388, **with_id
    )
    write_lifecycle(
        broker, LifecycleType.SPLIT, cluster="c12", children=("c12", "c59"), size=412, **with_id
    )


def merges(broker: MemoryBroker, command: Command) -> None:
    with_id = {"command": command.id, "epoch": 8}
    write_lifecycle(broker, LifecycleType.INSTALLED, reason="command", moved=0.012, **with_id)
    write_lifecycle(
        broker, LifecycleType.MERGED, cluster="c2", parents=("c2", "c9"), size=1800, **with_id
    )
    write_lifecycle(broker, LifecycleType.RETIRED, cluster="c9", children=("c2",), **with_id)


def labels(broker: MemoryBroker, command: Command) -> None:
    write_lifecycle(
        broker,
        LifecycleType.LABELLED,
        cluster=command.cluster,
        label=command.label,
        command=command.id,
    )


def test_each_verb_writes_its_command(eddy_with_model):
    eddy = eddy_with_model(nobody)

    assert eddy("split", "c12", "--reason", "two kinds") == 0
    assert "asked to split c12; command " in eddy.out
    assert eddy("merge", "c9", "c1", "c2") == 0
    assert "asked to merge c9, c1, c2; command " in eddy.out
    assert eddy("label", "c1", " python modules ", "--json") == 0

    split, merge, label = commands(eddy.broker)
    assert (split.type, split.cluster, split.reason) == ("split", "c12", "two kinds")
    assert (merge.type, merge.clusters) == ("merge", ("c9", "c1", "c2"))
    assert (label.type, label.cluster, label.label) == ("label", "c1", "python modules")
    assert eddy.lines == [{"command": label.id}]


@pytest.mark.parametrize(
    ("arguments", "answer", "sentence"),
    [
        (
            ["split", "c12"],
            splits,
            "c12 was split: c12 keeps 412 items, c59 gets 388 items; "
            "3.1% of the sampled items move (model 8.0)",
        ),
        (
            ["merge", "c2", "c9"],
            merges,
            "c2 and c9 were merged: c2 has 1\N{NO-BREAK SPACE}800 items, c9 retired; "
            "1.2% of the sampled items move (model 8.0)",
        ),
        (["label", "c12", "[red]modules[/]"], labels, "c12 is called [red]modules[/] now"),
    ],
)
def test_the_outcome_is_a_sentence(eddy_with_model, arguments, answer, sentence):
    eddy = eddy_with_model(answer)

    assert eddy(*arguments, "--wait") == 0

    assert eddy.out == sentence + "\n"


def test_a_split_without_a_heir_is_told_by_what_was_born(eddy_with_model):
    def answer(broker, command):
        write_lifecycle(broker, LifecycleType.INSTALLED, command=command.id, epoch=8)
        write_lifecycle(broker, LifecycleType.BORN, cluster="c59", command=command.id)

    eddy = eddy_with_model(answer)

    assert eddy("split", "c12", "--wait") == 0
    assert eddy.out == "c12 was split: c59 is new (model 8.0)\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["split", "c12"], "not split"),
        (["merge", "c1", "c2"], "not merged"),
        (["label", "c1", "x"], "not labelled"),
    ],
)
def test_a_rejected_command_says_why_and_fails(eddy_with_model, arguments, words):
    eddy = eddy_with_model(rejects)

    assert eddy(*arguments, "--wait") == 1
    assert f"{words}: saves 0.1%, below [min_gain]; model 7.0 stays" in eddy.out

    assert eddy(*arguments, "--wait", "--json") == 1
    assert [event["type"] for event in eddy.lines] == ["rejected"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["split", "12"], "the nearest name is c12"),
        (["split", "C13"], "the nearest name is c1"),
        (["split", "python"], "python is no cluster of model 7.0, but the label of c9"),
        (["split", "c3"], "it retired in epoch 6, and its members went to c1, c2"),
        (["merge", "c1", "c77"], "c77 is no cluster of model 7.0"),
        (["merge", "c1", "c2", "c1"], "c1 stands there twice"),
        (["merge", "c1"], "needs two clusters at least, not c1 alone"),
        (["label", "c1", "  "], "at least one character"),
        (["label", "c1", "x" * 201], "at most 200 characters, not 201"),
        (["label", "c1", "two\nlines"], "one line of printable characters"),
        (["label", "c77", "x"], "c77 is no cluster"),
    ],
)
def test_what_cannot_be_done_is_refused_without_a_command(eddy_with_model, arguments, sentence):
    eddy = eddy_with_model(nobody)
    record = label_record("c9", "python", TOPICS.model)
    eddy.broker.append(record.topic, 0, record.key, record.value)
    write_lifecycle(
        eddy.broker, LifecycleType.RETIRED, epoch=6, cluster="c3", children=("c1", "c2")
    )

    assert eddy(*arguments) == 2

    assert sentence in eddy.err
    assert commands(eddy.broker) == []


def test_a_label_of_the_greatest_length_is_no_wrong_use(eddy_with_model):
    assert eddy_with_model(nobody)("label", "c1", "x" * 200) == 0


def test_before_the_first_model_there_is_nothing_to_split(eddy_with):
    eddy = eddy_with(nobody)

    assert eddy("split", "c1") == 1
    assert "there is no model yet" in eddy.err


def test_without_its_topics_nothing_is_written(eddy: Console):
    assert eddy("recluster") == 3

    assert "run eddy topics create" in eddy.err
