"""`eddy watch`: one line an event, for people or for programs, and only what was asked for."""

from __future__ import annotations

import json

import pytest

from pipeline.cli.watch import change_line
from pipeline.messages.events import Cause, ChangeType
from tests.cli.console import TOPICS, Console, change, write_change


@pytest.fixture
def filled(eddy_with_topics: Console) -> Console:
    """With four events in the topic."""
    broker = eddy_with_topics.broker
    write_change(broker, change("a", type=ChangeType.ASSIGNED, from_cluster=None, to_cluster="c1"))
    write_change(broker, change("b", type=ChangeType.ASSIGNED, from_cluster=None, to_cluster="c2"))
    write_change(broker, change("a"))
    gone = {"to_cluster": None, "distance": None, "margin": None, "confidence": None}
    write_change(broker, change("b", type=ChangeType.REMOVED, from_cluster="c2", **gone))
    return eddy_with_topics


def test_a_line_says_when_what_who_and_where(filled: Console):
    assert filled("watch", "--from-beginning", "-n", "4") == 0

    lines = [line.split() for line in filled.out.splitlines()]
    assert [line[-5:] for line in lines[:1]] == [["+", "a", "c1", "17%", "7.31"]]
    assert lines[2][-7:] == ["~", "a", "c1", "→", "c2", "17%", "7.31"]
    assert lines[3][-6:] == ["-", "b", "c2", "→", "gone", "7.31"]


def test_json_is_the_event_as_it_stands_in_the_topic(filled: Console):
    filled("watch", "--from-beginning", "-n", "4", "--json")

    held = [json.loads(r.value or b"") for r in filled.broker.records(TOPICS.changes, 0)]
    assert filled.lines == held


@pytest.mark.parametrize(
    ("options", "n"),
    [
        (["--item", "a"], 2),
        (["--cluster", "c2"], 3),
        (["--cluster", "c1"], 2),
        (["--item", "b", "--cluster", "c1"], 0),
    ],
)
def test_only_what_was_asked_for_is_shown(filled: Console, options, n):
    filled("watch", "--from-beginning", "--timeout", "0.05", "--json", *options)

    assert len(filled.lines) == n


def test_what_was_there_before_is_shown_only_on_request(filled: Console):
    assert filled("watch", "--timeout", "0.05", "--json") == 0
    assert filled.lines == []

    assert filled("watch", "--timeout", "0.05", "--count", "1") == 1  # they did not come


@pytest.mark.parametrize("envelope", ["cloudevents-structured", "cloudevents-binary"])
def test_any_envelope_is_read(eddy_with_topics: Console, envelope):
    write_change(eddy_with_topics.broker, change("boxed"), envelope)

    assert eddy_with_topics("watch", "--from-beginning", "-n", "1") == 0

    assert "boxed" in eddy_with_topics.out


def test_what_is_no_event_is_said_and_passed_over(filled: Console):
    filled.broker.append(TOPICS.changes, 0, b"x", b"nonsense")
    write_change(filled.broker, change("after"))

    assert filled("watch", "--from-beginning", "-n", "5") == 0

    assert "no event at partition 0 offset 4" in filled.err
    assert "after" in filled.out


def test_an_item_id_cannot_speak_to_the_terminal():
    line = change_line(change("\x1b[2Jbad\n[red]id")).plain

    assert "\\x1b[2Jbad\\n[red]id" in line


def test_a_long_item_id_is_cut_and_columns_stay_in_place():
    short, long = change_line(change("a")).plain, change_line(change("a" * 99)).plain

    assert short.index("c1") == long.index("c1")
    assert "a…" in long


def test_causes_other_than_the_record_are_named():
    assert change_line(change("a", cause=Cause.MODEL)).plain.endswith("7.31  new model")
    assert change_line(change("a", cause=Cause.LOST)).plain.endswith("tombstone lost")


def test_an_event_without_a_time_says_so():
    assert change_line(change("a", occurred_at_ms=None)).plain.startswith("no time")
