"""`eddy model history` and `rollback`: every kept epoch, what came of it, and the way back."""

from __future__ import annotations

import pytest

from pipeline.messages.commands import Command, encode_command
from pipeline.messages.events import LifecycleType
from tests.cli.console import (
    NO_MS,
    TOPICS,
    AnsweringBroker,
    Console,
    commands,
    write_lifecycle,
    write_model,
)


def tell(eddy: Console, kind: LifecycleType, epoch: int, **fields) -> None:
    cluster = fields.get("cluster")
    write_lifecycle(
        eddy.broker, kind, id=f"{epoch}/{cluster or 'model'}/{kind}", epoch=epoch, **fields
    )


@pytest.fixture
def filled(eddy_with_topics: Console) -> Console:
    """Three epochs: of the first no lineage is left, the last has a revision."""
    eddy = eddy_with_topics
    write_model(eddy.broker, ["c1", "c2"], [10, 20], epoch=4, revision=3)
    key, value = encode_command(
        Command(id="x", type="split", cluster="c2", requested_by="ann", reason="[two] kinds")
    )
    eddy.broker.append(TOPICS.commands, 0, key, value)
    write_model(eddy.broker, ["c1", "c2", "c3"], [10, 12, 8], epoch=5)
    tell(
        eddy, LifecycleType.INSTALLED, 5, reason="command", command="x",
        inertia_before=60.0, inertia_after=30.0, moved=0.25, occurred_at_ms=NO_MS + 1,
    )  # fmt: skip
    tell(eddy, LifecycleType.BORN, 5, cluster="c3", parents=("c2",), command="x")
    tell(eddy, LifecycleType.SPLIT, 5, cluster="c2", children=("c2", "c3"), command="x")
    write_lifecycle(eddy.broker, LifecycleType.REJECTED, id="5.0/rejected/9", epoch=5)
    write_model(eddy.broker, ["c1", "c2"], [10, 20], epoch=6)
    tell(eddy, LifecycleType.INSTALLED, 6, reason="age", inertia_before=9.0, inertia_after=8.0)
    tell(eddy, LifecycleType.RETIRED, 6, cluster="c3", children=("c2",))
    write_model(eddy.broker, ["c1", "c2"], [10, 20], epoch=6, revision=31, created_at_ms=NO_MS + 5)
    return eddy


def test_every_kept_epoch_has_a_line_of_json(filled: Console):
    assert filled("model", "history", "--json") == 0

    _, second, third = filled.lines
    assert [line["epoch"] for line in filled.lines] == [4, 5, 6]
    assert [line["newest"] for line in filled.lines] == [False, False, True]
    assert (third["revision"], third["revised_at_ms"], third["clusters"]) == (31, NO_MS + 5, 2)
    assert (second["installed_at_ms"], second["reason"], second["moved"]) == (
        NO_MS + 1, "command", 0.25,
    )  # fmt: skip
    assert second["command"] == {
        "id": "x", "type": "split", "requested_by": "ann", "reason": "[two] kinds",
    }  # fmt: skip
    assert {k: second[k] for k in ("born", "split", "merged", "retired", "rejected")} == {
        "born": 1, "split": 1, "merged": 0, "retired": 0, "rejected": 1,
    }  # fmt: skip
    assert (second["inertia_before"], second["inertia_after"]) == (60.0, 30.0)


def test_what_retention_has_cut_is_null_and_not_zero(filled: Console):
    filled("model", "history", "--json")

    first = filled.lines[0]
    assert {first[k] for k in ("born", "retired", "reason", "moved", "installed_at_ms")} == {None}
    assert (first["clusters"], first["items"]) == (2, 30)


def test_a_whole_topic_cut_leaves_the_models(filled: Console):
    end = filled.broker.ranges(TOPICS.lifecycle)[0].high
    filled.broker.truncate(TOPICS.lifecycle, 0, end)

    assert filled("model", "history") == 0
    assert filled.out.count("its lineage is not kept") == 3


def test_people_read_why_an_epoch_came_and_what_became_of_clusters(filled: Console):
    assert filled("model", "history") == 0

    lines = [line.split() for line in filled.out.splitlines()]
    assert lines[0] == ["model", "since", "clusters", "inertia", "per", "item", "moved"]
    assert [line[0] for line in lines[1::2]] == ["4.3", "5.0", "6.31"]
    assert "2 → 1" in filled.out
    assert "25.0%" in filled.out
    assert "split c2 by ann ([two] kinds): 1 born, 1 split; 1 rejected later" in filled.out
    assert "age: 1 retired" in filled.out


def test_an_epoch_in_which_all_ids_stayed_says_so(eddy_with_topics: Console):
    write_model(eddy_with_topics.broker, ["c1"], [1], epoch=1)
    tell(eddy_with_topics, LifecycleType.INSTALLED, 1, reason="updates")

    eddy_with_topics("model", "history")

    assert "updates: all clusters kept their id" in eddy_with_topics.out


# The way back


def test_rollback_writes_the_epoch(filled: Console):
    assert filled("model", "rollback", "5", "--reason", "better") == 0

    command = commands(filled.broker)[-1]
    assert (command.type, command.epoch, command.reason) == ("rollback", 5, "better")
    assert "asked to go back to epoch 5" in filled.out


def test_rollback_tells_what_was_restored(eddy: Console):
    def restores(broker: AnsweringBroker, command: Command) -> None:
        write_lifecycle(broker, LifecycleType.INSTALLED, epoch=8, command=command.id, moved=0.5)
        write_lifecycle(broker, LifecycleType.RESTORED, cluster="c3", command=command.id)
        write_lifecycle(broker, LifecycleType.RETIRED, cluster="c9", command=command.id)

    eddy.broker = AnsweringBroker(restores)
    eddy("topics", "create")
    write_model(eddy.broker, ["c1"], [1], epoch=6)
    write_model(eddy.broker, ["c1"], [1], epoch=7)

    assert eddy("model", "rollback", "6", "--wait") == 0

    assert "went back to epoch 6; 50.0% of the sampled items move (model 8.0)" in eddy.out
    assert [line.split() for line in eddy.out.splitlines()[1:]] == [
        ["retired", "1", "c9"],
        ["restored", "1", "c3"],
    ]


@pytest.mark.parametrize(
    ("epoch", "sentence"),
    [
        ("3", "epoch 3 is not kept: there are 4, 5, 6"),
        ("7", "epoch 7 is not kept"),
        ("6", "epoch 6 is the newest"),
        ("0", "--help"),
    ],
)
def test_an_epoch_that_cannot_be_gone_back_to_is_wrong_use(filled: Console, epoch, sentence):
    n_before = len(commands(filled.broker))

    assert filled("model", "rollback", epoch) == 2

    assert sentence in filled.err
    assert len(commands(filled.broker)) == n_before


def test_an_epoch_of_another_embedding_model_is_not_gone_back_to(eddy_with_topics: Console):
    eddy = eddy_with_topics
    write_model(eddy.broker, ["c1"], [1], epoch=6, embedding_model="old")
    write_model(eddy.broker, ["c1"], [1], epoch=7, embedding_model="new")

    assert eddy("model", "rollback", "6") == 2
    assert "their vectors cannot be compared" in eddy.err
