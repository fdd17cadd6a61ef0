"""Among ways that give the same, the cheapest is taken; what that is, the records say."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.kernels.cpu import ways
from pipeline.kernels.cpu.ways import BLOCK, PATIENCE, TRIAL, Model, Way

FAST_NS, SLOW_NS = 1_000.0, 10_000.0


def model_of(*given):
    model = Model(np.zeros((500, 64), np.float32))
    for name, work_ns in given:
        model.ways.append(Way(name, work_ns, object, is_prefixed=name == "prefix"))
    return model


@pytest.fixture
def choice():
    return model_of(("fast", FAST_NS), ("slow", SLOW_NS)).choice(second=False, margin=False)


def search(choice, n, compared):
    """Search for n records, each of which compares so many in a way; how many went which way."""
    went = dict.fromkeys(compared, 0)
    while n:
        part = min(n, choice.left)
        went[choice.way.name] += part
        choice.learn(part, round(part * compared[choice.way.name]))
        n -= part
    return went


def test_the_fastest_way_comes_first_and_stays_where_it_holds(choice):
    assert search(choice, 10 * BLOCK, {"fast": 1.1, "slow": 1.0})["slow"] == 0


def test_a_way_that_disappoints_is_left_after_a_trial(choice):
    went = search(choice, PATIENCE, {"fast": 400.0, "slow": 1.0})

    assert went == {"fast": TRIAL, "slow": PATIENCE - TRIAL}


def test_a_way_that_disappointed_gets_another_trial_ever_later(choice):
    went = search(choice, 20 * PATIENCE, {"fast": 400.0, "slow": 1.0})

    assert 3 * TRIAL <= went["fast"] <= 6 * TRIAL


def test_better_records_bring_the_better_way_back(choice):
    search(choice, BLOCK, {"fast": 400.0, "slow": 1.0})

    went = search(choice, 4 * PATIENCE, {"fast": 1.0, "slow": 1.0})

    assert went["fast"] > went["slow"]


def test_where_every_way_disappoints_the_least_bad_is_taken(choice):
    went = search(choice, PATIENCE, {"fast": 400.0, "slow": 400.0})

    assert went["slow"] <= TRIAL


def test_records_that_come_one_by_one_are_counted_together(choice):
    for _ in range(TRIAL):
        choice.learn(1, 400)

    assert choice.way.name == "slow"


def test_a_way_that_is_added_competes_at_once():
    model = model_of(("slow", SLOW_NS))
    choice = model.choice(second=False, margin=False)
    search(choice, BLOCK, {"slow": 1.0})

    model.add(Way("prefix", FAST_NS, object, is_prefixed=True))

    assert choice.way.name == "prefix"
    assert model.choice(second=False, margin=True).way.name == "slow"


def test_calls_that_ask_for_more_are_judged_apart():
    model = model_of(("fast", FAST_NS), ("slow", SLOW_NS))
    search(model.choice(second=False, margin=False), BLOCK, {"fast": 400.0, "slow": 1.0})

    assert model.choice(second=True, margin=False).way.name == "fast"


def test_a_search_is_made_once_and_only_when_it_is_wanted():
    made = []
    way = Way("any", 1.0, lambda: made.append(1) or object())

    assert made == []
    assert way.search is way.search
    assert made == [1]


def test_results_have_what_was_asked_for():
    found = ways.Results.empty(5, second=False, margin=True)

    assert [array.size for array in found] == [5, 5, 5, 0, 0, 5]
    assert [array.size for array in found.part(1, 3)] == [2, 2, 2, 0, 0, 2]
