"""`eddy watch`: one line an event, for people or for programs, and only what was asked for."""

from __future__ import annotations

import json

import pytest

from pipeline.cli.lines import change_line
from pipeline.messages.events import Cause, ChangeType, LifecycleType
from tests.cli.console import (
    TOPICS,
    Console,
    change,
    write_change,
    write_drift,
    write_lifecycle,
)


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


@pytest.mark.parametrize(
    ("typicality", "words"),
    [
        (None, ""),
        (1.0, ""),
        (0.01, ""),
        (0.0099, "beyond 99.0% of its cluster at the fit"),
        (0.00001, "beyond 99.9% of its cluster at the fit"),
        (0.0, "beyond all of its cluster at the fit"),
    ],
)
def test_an_item_unlike_its_cluster_is_remarked_upon(typicality, words):
    rest = change_line(change("a", typicality=typicality)).plain.partition("7.31")[2]

    assert rest.strip() == words


# Lineage and alarms


@pytest.fixture
def eventful(filled: Console) -> Console:
    """With a line of each kind in lifecycle, and three alarms."""
    broker = filled.broker
    for kind, fields in {
        LifecycleType.INSTALLED: {
            "reason": "drift", "inertia_before": 10.0, "inertia_after": 9.0, "moved": 0.031,
        },
        LifecycleType.BORN: {"cluster": "c59", "parents": ("c12",), "size": 388},
        LifecycleType.SPLIT: {"cluster": "c12", "children": ("c12", "c59"), "size": 412},
        LifecycleType.MERGED: {"cluster": "c3", "parents": ("c3", "c9"), "similarity": 0.8},
        LifecycleType.RETIRED: {"cluster": "c9", "children": ("c3",), "size": 1},
        LifecycleType.RESTORED: {"cluster": "c7", "size": 40},
        LifecycleType.LABELLED: {"cluster": "c3", "label": "[b]\x1b[2J"},
        LifecycleType.REJECTED: {"reason": "saves too little"},
    }.items():  # fmt: skip
        write_lifecycle(broker, kind, **fields)
    write_drift(broker, clusters=("c12",))
    write_drift(broker, scope="model", cluster=None, clusters=("c9", "c12"))
    write_drift(broker, state="cleared", statistic=1.5, clusters=("c12",))
    return filled


def test_lineage_is_readable(eventful: Console):
    assert eventful("watch", "--lifecycle", "--from-beginning", "-n", "8") == 0

    told = [line[14:].split(maxsplit=3) for line in eventful.out.splitlines()]
    assert told == [
        ["installed", "model", "7.0", "drift, inertia -10.00%, 3.1% of the items move"],
        ["born", "c59", "7.0", "out of c12, 388 items"],
        ["split", "c12", "7.0", "into c12, c59, keeps 412 items"],
        ["merged", "c3", "7.0", "from c3, c9, overlap 80%"],
        ["retired", "c9", "7.0", "its members went to c3, 1 item"],
        ["restored", "c7", "7.0", "40 items"],
        ["labelled", "c3", "7.0", "[b]\\x1b[2J"],
        ["rejected", "model", "7.0", "saves too little"],
    ]


def test_alarms_say_what_they_mean_and_whom_they_name(eventful: Console):
    assert eventful("watch", "--drift", "--from-beginning", "-n", "3") == 0

    told = [" ".join(line[14:].split()) for line in eventful.out.splitlines()]
    assert told == [
        "raised c12 occupancy 7.31 9.31 above 8.72, effect 0.14 "
        "its share of the traffic is not that of the fit",
        "raised model occupancy 7.31 9.31 above 8.72, effect 0.14 "
        "the clusters' shares of the traffic are not those of the fit: mostly c9, c12",
        "cleared c12 occupancy 7.31 1.5 not above 8.72, effect 0.14",
    ]


@pytest.mark.parametrize("signal", ["occupancy", "distance", "shift", "imbalance", "churn"])
def test_every_signal_has_a_meaning(eddy_with_topics: Console, signal):
    for cluster in ("c12", None):
        write_drift(eddy_with_topics.broker, signal=signal, cluster=cluster)

    eddy_with_topics("watch", "--drift", "--from-beginning", "-n", "2")

    said = [line.partition("effect 0.14")[2].strip() for line in eddy_with_topics.out.splitlines()]
    assert len(set(said)) == 2
    assert all(said)


def test_a_signal_of_a_later_version_is_shown_without_a_meaning(eddy_with_topics: Console):
    write_drift(eddy_with_topics.broker, signal="novelty")

    assert eddy_with_topics("watch", "--drift", "--from-beginning", "-n", "1") == 0

    assert "novelty" in eddy_with_topics.out


@pytest.mark.parametrize(
    ("options", "n"),
    [
        (["--lifecycle"], 8),
        (["--drift"], 3),
        (["--lifecycle", "--drift"], 11),
        (["--lifecycle", "--cluster", "c9"], 2),
        (["--drift", "--cluster", "c9"], 1),
    ],
)
def test_lineage_and_alarms_can_be_chosen(eventful: Console, options, n):
    eventful("watch", "--from-beginning", "--timeout", "0.3", "--json", *options)

    assert len(eventful.lines) == n


def test_lineage_and_alarms_name_no_items(filled: Console):
    assert filled("watch", "--drift", "--item", "a") == 2

    assert "--item is for change events" in filled.err
