"""`eddy topics`, and what every verb does about a broker or a configuration that is wrong."""

from __future__ import annotations

import pytest

from pipeline.streams.contract import TopicSettings
from tests.cli.console import TOPICS, Console


def test_create_makes_all_and_a_second_time_none(eddy: Console):
    assert eddy("topics", "create", "--json") == 0
    first = eddy.lines[0]
    assert eddy("topics", "create", "--json") == 0
    second = eddy.lines[0]

    assert [topic["name"] for topic in first["topics"]] == list(TOPICS.names)
    assert all(topic["created"] and topic["exists"] for topic in first["topics"])
    assert not any(topic["created"] for topic in second["topics"])
    assert first["problems"] == second["problems"] == []


def test_check_names_what_is_missing(eddy: Console):
    assert eddy("topics", "check") == 1

    assert "embedding-changes does not exist: run eddy topics create" in eddy.out
    assert eddy.out.count("missing") == len(TOPICS.names)


def test_create_leaves_a_wrong_topic_alone_and_says_so(eddy: Console):
    eddy.broker.create_topics([TopicSettings(TOPICS.changes, 3, {"cleanup.policy": "compact"})])

    assert eddy("topics", "create", "--json") == 1

    problems = eddy.lines[0]["problems"]
    assert {(p["severity"], p["topic"]) for p in problems} == {("error", TOPICS.changes)}
    assert eddy.broker.topics([TOPICS.changes])[TOPICS.changes].n_partitions == 3


def test_a_warning_alone_is_no_failure(eddy: Console):
    config = {"cleanup.policy": "compact", "delete.retention.ms": "1", "min.compaction.lag.ms": "1"}
    eddy.broker.create_topics([TopicSettings(TOPICS.input, 6, config)])

    assert eddy("topics", "create") == 0

    assert "warning" in eddy.out


@pytest.mark.parametrize(
    "verb",
    [
        ("topics", "check"),
        ("topics", "create"),
        ("watch",),
        ("recluster",),
        ("model", "show"),
    ],
)
def test_a_broker_that_is_away_is_exit_code_4_and_one_line(eddy: Console, verb):
    eddy.broker.is_away = True

    assert eddy(*verb) == 4

    assert "no broker answered" in eddy.err
    assert eddy.err.count("\n") == 1


@pytest.mark.parametrize("verb", [("watch",), ("recluster",), ("model", "show")])
def test_a_missing_topic_is_exit_code_3_and_says_how_to_make_it(eddy: Console, verb):
    assert eddy(*verb) == 3

    assert "does not exist: run eddy topics create" in eddy.err


def test_a_wrong_option_names_the_nearest_one(eddy: Console):
    assert eddy("topics", "check", "--set", "topics.partitoins=3") == 3

    assert "topics.partitions" in eddy.err
    assert eddy.err.count("\n") == 1


def test_a_setting_without_a_value_is_wrong_use(eddy: Console):
    assert eddy("topics", "check", "--set", "topics.partitions") == 2
