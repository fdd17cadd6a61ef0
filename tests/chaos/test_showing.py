"""The judge of servers says nothing about a right one, and catches each wrong one.

In memory, where a server is a second's work; on a real Kafka the same judge stands behind every run
of faults, and behind two controls (``test_controls_on_kafka.py``).
"""

from __future__ import annotations

import importlib
from collections import Counter

import pytest

from pipeline.streams.contract import Place
from tests.chaos.asking import Address, Asked, Asker, Seen
from tests.chaos.onlooker import Onlooker
from tests.chaos.showing import (
    KINDS,
    differences,
    judge_answers,
    judge_stream,
    truth_of,
)
from tests.client.conftest import Living
from tests.kafka.site import until
from tests.simulation.test_commands import CORNERS

LIMIT_S = 60.0


@pytest.fixture
def make_living():
    made = []

    def make():
        made.append(Living())
        return made[-1]

    yield make
    for living in made:
        living.close()


@pytest.fixture
def wrong(monkeypatch, tmp_path):
    """The controls; their module is a program, which wants a folder."""
    monkeypatch.setenv("CHAOS_FOLDER", str(tmp_path))
    return importlib.import_module("tests.chaos.service")


def port_of(living):
    return int(living.url.rpartition(":")[2])


def told(living, *, waits=True):
    """What the stream told of some items and labels, and what the topics say of them."""
    before = truth_of(living.site.world)
    onlooker = Onlooker((Address("server-1", port_of(living), 0),))
    onlooker.start()
    assert onlooker.is_there.wait(LIMIT_S)
    with living.client() as client:
        for n in range(8):
            client.put(f"new-{n}", CORNERS[n % 4])
        for n in range(4):
            client.label("c1", f"name {n}").wait()
    with living.paused():
        truth = truth_of(living.site.world)
    owed = {
        kind: [ids[len(known) :] for ids, known in
               zip(truth.events[kind], before.events[kind], strict=True)]
        for kind in KINDS
    }  # fmt: skip
    truth.events = owed
    last = truth.events["lifecycle"][0][-1] if waits else truth.events["change"][0][-1]
    sizes = Counter(row["cluster"] for row in truth.rows.values())
    until(lambda: last in {one.id for one in list(onlooker.followed.events)}, "the last event")
    until(lambda: onlooker.followed.sizes == sizes, "the sizes of clusters")
    living.close()
    return truth, onlooker.finish()


# --- answers --------------------------------------------------------------------------------------


def test_a_server_at_rest_shows_what_stands_in_the_topics(make_living):
    living = make_living()
    truth = truth_of(living.site.world)
    assert len(truth.rows) == 80
    assert differences(truth, port_of(living), 1) == []


@pytest.mark.parametrize(
    ("kind", "said"), [("Forgetful", "changes"), ("Careless", "sizes of clusters")]
)
def test_control_a_view_that_loses_records_is_caught(make_living, wrong, monkeypatch, kind, said):
    monkeypatch.setattr(*wrong.ANSWERS[kind])
    living = make_living()
    problems = differences(truth_of(living.site.world), port_of(living), 1)
    assert any(problem.startswith(said) for problem in problems), problems


def test_control_an_answer_that_never_was_true_is_caught(make_living):
    living = make_living()
    truth = truth_of(living.site.world)
    row = truth.rows["item-7"]
    place = row["source"]["offset"], row["model"]["epoch"], row["model"]["revision"]
    right = Seen("item-7", row["cluster"], *place)
    assert judge_answers(truth, Asked(answers={right})) == []
    assert judge_answers(truth, Asked(answers={right, right._replace(cluster="c0")}))


# --- read your writes -----------------------------------------------------------------------------


class Paper:
    """A broker that takes records to nowhere, and says where they would stand."""

    def __init__(self):
        self.n = 1000

    def producer(self):
        return self

    def deliver(self, record, *, timeout_s):
        self.n += 1
        return Place(0, self.n)


def test_control_a_server_that_claims_to_know_what_it_does_not_is_caught(
    make_living, wrong, monkeypatch
):
    monkeypatch.setattr(*wrong.ANSWERS["Hasty"])
    living = make_living()
    with living.client() as client:
        for n in range(8):
            client.put(f"own-{n}", CORNERS[0], wait=False)
    address = Address("server-1", port_of(living), 0)
    asker = Asker(Paper(), living.topics, (address,), dict, seed=1)
    asker.start()
    until(lambda: asker.asked.problems, "it is caught")
    assert any("claims to know" in problem for problem in asker.finish().problems)


# --- the stream -----------------------------------------------------------------------------------


def test_a_stream_tells_every_event_once_and_the_sizes_that_come_of_it(make_living):
    truth, followed = told(make_living())
    assert sum(len(ids) for kind in KINDS for ids in truth.events[kind]) >= 12
    assert judge_stream(truth, followed) == (0, [])


def test_control_a_stream_that_skips_an_event_is_caught(make_living, wrong, monkeypatch):
    monkeypatch.setattr(*wrong.ANSWERS["Skipping"])
    truth, followed = told(make_living(), waits=False)
    n_silent, problems = judge_stream(truth, followed)
    assert n_silent == 2
    assert any("did not come over the stream" in problem for problem in problems)


def test_control_what_was_said_to_be_missing_is_no_silent_loss(make_living):
    truth, followed = told(make_living())
    gone = followed.events.pop(3)
    assert judge_stream(truth, followed)[0] == 1
    assert gone.kind == "change"
    followed.n_dropped = 1
    assert judge_stream(truth, followed) == (0, [])
    last = next(one for one in reversed(followed.events) if one.kind == "lifecycle")
    followed.events.remove(last)
    followed.events.insert(3, gone)
    assert judge_stream(truth, followed)[0] == 1, "only changes may be dropped"
    followed.events.append(last)
    followed.events.append(followed.events.pop(0))
    assert any("out of order" in problem for problem in judge_stream(truth, followed)[1])
