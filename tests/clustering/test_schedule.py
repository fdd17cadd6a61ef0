"""Every reason for a fit, and every reason to wait."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from pipeline.clustering.schedule import (
    ReclusterPolicy,
    ReclusterSchedule,
    Standing,
    Trigger,
)
from pipeline.errors import ConfigError

POLICY = ReclusterPolicy(max_updates=100, max_age_s=1000.0, min_interval_s=10.0)
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()


def scheduled(fitted_at=0.0, **changes):
    schedule = ReclusterSchedule(dataclasses.replace(POLICY, **changes), last_attempt_s=fitted_at)
    schedule.fitted(fitted_at)
    return schedule


def test_nothing_is_due_right_after_a_fit():
    assert scheduled().due(500.0, Standing(99)) is None


def test_updates_make_a_fit_due():
    assert scheduled().due(10.0, Standing(100)) is Trigger.UPDATES


def test_age_makes_a_fit_due():
    assert scheduled().due(999.9, Standing(0)) is None
    assert scheduled().due(1000.0, Standing(0)) is Trigger.AGE


def test_two_attempts_are_never_closer_than_the_interval():
    schedule = scheduled(max_age_s=1.0, schedule="* * * * *")

    assert schedule.due(9.9, Standing(10**6)) is None
    assert schedule.due(10.0, Standing(10**6)) is Trigger.UPDATES


def test_age_counts_from_the_last_attempt_whether_published_or_not():
    schedule = scheduled()
    schedule.attempted(600.0, published=False)

    assert schedule.due(1599.0, Standing(0)) is None
    assert schedule.due(1600.0, Standing(0)) is Trigger.AGE


def test_a_rejected_candidate_is_not_tried_again_with_the_same_updates():
    schedule = scheduled()
    schedule.attempted(50.0, published=False, standing=Standing(150))

    assert schedule.due(500.0, Standing(249)) is None
    assert schedule.due(500.0, Standing(250)) is Trigger.UPDATES


def test_after_a_publication_updates_count_from_the_new_fit():
    schedule = scheduled()
    schedule.attempted(50.0, published=False, standing=Standing(150))
    schedule.attempted(200.0, published=True, standing=Standing(7))

    assert schedule.due(300.0, Standing(99)) is None
    assert schedule.due(300.0, Standing(100)) is Trigger.UPDATES


def test_rejections_in_a_row_double_the_pause_up_to_the_age():
    schedule = scheduled(max_age_s=65.0)
    pauses = []

    for _ in range(5):
        pauses.append(schedule.pause_s)
        schedule.attempted(0.0, published=False)
    schedule.attempted(0.0, published=True)

    assert pauses == [10.0, 20.0, 40.0, 65.0, 65.0]
    assert schedule.pause_s == 10.0


def test_updates_wait_for_the_pause():
    schedule = scheduled()
    schedule.attempted(0.0, published=False)

    assert schedule.due(19.9, Standing(10**6)) is None
    assert schedule.due(20.0, Standing(10**6)) is Trigger.UPDATES


def test_many_rejections_do_not_overflow():
    schedule = scheduled()
    schedule.n_rejected = 10**6

    assert schedule.pause_s == 1000.0


def test_cron_is_due_once_for_each_instant_in_utc():
    schedule = scheduled(fitted_at=NOON, max_age_s=1e9, schedule="30 12 * * *")

    assert schedule.due(NOON + 1799.0, Standing(0)) is None
    assert schedule.due(NOON + 1800.0, Standing(0)) is Trigger.SCHEDULE
    assert schedule.due(NOON + 5000.0, Standing(0)) is Trigger.SCHEDULE  # late, but not forgotten

    schedule.attempted(NOON + 5000.0, published=False)
    assert schedule.due(NOON + 80_000.0, Standing(0)) is None
    assert schedule.due(NOON + 86_400.0 + 1800.0, Standing(0)) is Trigger.SCHEDULE


def test_history_told_at_the_start_ends_with_the_latest_attempt():
    schedule = ReclusterSchedule(POLICY, last_attempt_s=5000.0)  # when the process started
    schedule.fitted(100.0)
    schedule.attempted(50.0, published=True)
    schedule.attempted(300.0, published=False)
    schedule.attempted(200.0, published=False)

    assert schedule.last_attempt_s == 300.0
    assert schedule.n_rejected == 2


@pytest.mark.parametrize("back_s", [100.0, 10_000_000.0])
def test_a_clock_that_was_set_back_counts_from_there(back_s):
    fitted_at = 20_000_000.0
    now_s = fitted_at - back_s
    schedule = scheduled(fitted_at, schedule="*/10 * * * *", max_age_s=7200.0)

    assert schedule.due(now_s, Standing(n_updates=10**9)) is None
    assert schedule.due(now_s + 60.0, Standing(n_updates=10**9)) is Trigger.UPDATES
    assert schedule.due(now_s + 600.0, Standing(n_updates=0)) is Trigger.SCHEDULE


def test_a_rejected_attempt_rests_and_not_longer_for_a_clock_set_back():
    schedule = scheduled()
    schedule.attempted(1000.0, published=False)

    assert schedule.rests(1000.0 + schedule.pause_s - 1.0)
    assert not schedule.rests(1000.0 + schedule.pause_s)
    assert schedule.rests(500.0)
    assert not schedule.rests(500.0 + schedule.pause_s)


def test_before_any_attempt_age_counts_from_the_start():
    schedule = ReclusterSchedule(POLICY, last_attempt_s=5000.0)

    assert schedule.due(5999.0, Standing(0)) is None
    assert schedule.due(6000.0, Standing(0)) is Trigger.AGE


def test_an_alarm_makes_a_fit_due_unless_told_otherwise():
    drifting = Standing(0, is_drifting=True)

    assert scheduled().due(9.9, drifting) is None
    assert scheduled().due(10.0, drifting) is Trigger.DRIFT
    assert scheduled(on_drift=False).due(500.0, drifting) is None


@pytest.mark.parametrize("published", [False, True])
def test_an_alarm_that_outlives_its_attempts_asks_ever_more_seldom(published):
    schedule, drifting, now, attempts = scheduled(), Standing(0, is_drifting=True), 0.0, []

    while now < 2000.0:
        now += 1.0
        if schedule.due(now, drifting) is not None:
            schedule.attempted(now, published=published, standing=drifting)
            attempts.append(now)

    assert attempts == [10.0, 30.0, 70.0, 150.0, 310.0, 630.0, 1270.0]


def test_a_new_alarm_does_not_pay_for_an_old_one():
    schedule, drifting = scheduled(), Standing(0, is_drifting=True)
    for now in (10.0, 30.0, 70.0):
        schedule.attempted(now, published=True, standing=drifting)

    assert schedule.due(100.0, drifting) is None
    assert schedule.due(100.0, Standing(0)) is None  # it has ended
    assert schedule.due(101.0, drifting) is Trigger.DRIFT


def test_growth_of_the_inertia_makes_a_fit_due_unless_told_otherwise():
    assert scheduled().due(500.0, Standing(0, inertia_growth=0.09)) is None
    assert scheduled().due(10.0, Standing(0, inertia_growth=0.1)) is Trigger.QUALITY
    assert scheduled(max_inertia_growth=None).due(500.0, Standing(0, inertia_growth=9.0)) is None


def test_growth_that_a_rejected_attempt_has_seen_does_not_ask_again():
    schedule = scheduled()
    schedule.attempted(10.0, published=False, standing=Standing(0, inertia_growth=0.15))

    assert schedule.due(900.0, Standing(0, inertia_growth=0.24)) is None
    assert schedule.due(900.0, Standing(0, inertia_growth=0.26)) is Trigger.QUALITY

    schedule.attempted(900.0, published=True)
    assert schedule.due(1000.0, Standing(0, inertia_growth=0.1)) is Trigger.QUALITY


def test_growth_waits_for_the_pause():
    schedule, worse = scheduled(), Standing(0, inertia_growth=0.5)
    schedule.attempted(0.0, published=False)

    assert schedule.due(19.9, worse) is None
    assert schedule.due(20.0, worse) is Trigger.QUALITY


def attempts_in_a_storm(*, counts_its_own_moves, published):
    """A stream of ten records a second, of which every fit moves ten thousand items."""
    schedule, n_attempts, n_updates = scheduled(max_updates=1000, max_age_s=1e9), 0, 0
    for second in range(1, 3601):
        n_updates += 10
        standing = Standing(n_updates)
        if schedule.due(float(second), standing) is not None:
            n_attempts += 1
            schedule.attempted(float(second), published=published, standing=standing)
            n_updates = 0 if published else n_updates
            n_updates += 10_000 if counts_its_own_moves else 0
    return n_attempts


@pytest.mark.parametrize("published", [False, True])
def test_a_model_that_moves_many_items_does_not_ask_for_the_next(published):
    n_warranted = 36_000 // 1000

    assert attempts_in_a_storm(counts_its_own_moves=False, published=published) <= n_warranted


def test_a_storm_would_be_noticed():
    assert attempts_in_a_storm(counts_its_own_moves=True, published=True) == 3600 // 10 - 9


@pytest.mark.parametrize(
    ("n_items", "waited_s", "expected"),
    [
        (0, None, None),
        (0, 100.0, None),  # came, and was deleted
        (1, 59.9, None),
        (1, 60.0, Trigger.FIRST),
        (4999, 1.0, None),
        (5000, 1.0, Trigger.FIRST),
    ],
)
def test_the_first_fit_waits_for_items_or_for_its_time(n_items, waited_s, expected):
    schedule = ReclusterSchedule(ReclusterPolicy(), last_attempt_s=0.0)

    found = schedule.bootstrap_due(n_items=n_items, waited_s=waited_s)

    assert found is expected


@pytest.mark.parametrize(
    "given",
    [
        {"bootstrap_items": 0},
        {"bootstrap_max_wait_s": -1.0},
        {"bootstrap_max_wait_s": float("nan")},
        {"max_iterations": 0},
        {"max_updates": 0},
        {"max_age_s": 0.0},
        {"max_age_s": float("nan")},
        {"schedule": "every day"},
        {"schedule": "61 * * * *"},
        {"schedule": "0 0 30 2 *"},  # never
        {"min_interval_s": -1.0},
        {"min_interval_s": float("inf")},
        {"sample_items": 0},
        {"sample_items": 2**23},
        {"max_inertia_growth": 0.0},
        {"max_inertia_growth": float("nan")},
        {"max_inertia_growth": float("inf")},
        {"min_gain": -0.1},
        {"min_gain": 1.0},
        {"keep_epochs": 0},
    ],
)
def test_policy_refuses_what_cannot_be_obeyed(given):
    with pytest.raises(ConfigError, match=f"recluster.{next(iter(given))} is .*but must"):
        ReclusterPolicy(**given)
