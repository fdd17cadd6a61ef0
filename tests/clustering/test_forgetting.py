"""Weights by age: the laws of an exponential, kept to the bit where they can be."""

from __future__ import annotations

from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clustering.forgetting import MAX_HALF_LIFE_S, NO_TIMESTAMP, Decay
from pipeline.errors import ConfigError
from pipeline.kernels.contract import MAX_WEIGHT, WEIGHT_UNIT

DAY_MS = 86_400_000
LANDMARK_MS = 1_700_000_000_000
WEEK = Decay(half_life_s=7 * 86_400.0, landmark_ms=LANDMARK_MS)
WEEK_MS = 7 * DAY_MS
QUANTISED = 4e-4  # what a weight may be off the formula

PURE = settings(max_examples=100, deadline=None)
half_lives_s = st.floats(0.001, MAX_HALF_LIFE_S)
any_time = st.integers(-(2**63), 2**63 - 1)


def weigh(decay, *timestamps_ms):
    return decay.weight(np.array(timestamps_ms, np.int64)).tolist()


def test_a_half_life_halves():
    weights = weigh(WEEK, *(LANDMARK_MS + k * WEEK_MS for k in range(-3, 4)))

    assert weights == [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]


def test_weights_have_these_bits_on_every_machine():
    getcontext().prec = 50
    expected = []
    for i in range(1024):
        root = Decimal(2) ** (Decimal(i) / 1024)
        expected.append(float(int(root * 2**15 + Decimal("0.5"))) / 2**15)
    decay = Decay(half_life_s=1.024, landmark_ms=LANDMARK_MS)  # a step a millisecond

    for doublings in (-16, -1, 0, 7):
        at = LANDMARK_MS + 1024 * doublings + np.arange(1024)
        assert decay.weight(at).tolist() == [w * 2.0**doublings for w in expected]


@PURE
@given(half_life_s=half_lives_s, doublings=st.floats(-15.9, 7.9))
def test_a_weight_is_near_the_formula(half_life_s, doublings):
    decay = Decay(half_life_s, LANDMARK_MS * 100)  # so that no time falls before 1970
    age = round(doublings * decay.half_life_ms)

    (weight,) = weigh(decay, decay.landmark_ms + age)

    assert weight == pytest.approx(2.0 ** (age / decay.half_life_ms), rel=QUANTISED)


def test_a_weight_is_no_nearer_than_it_says():
    ages = np.arange(0, WEEK_MS, 1000)

    off = np.abs(WEEK.weight(LANDMARK_MS + ages) / np.exp2(ages / WEEK_MS) - 1.0)

    assert 3e-4 < off.max() < QUANTISED


def test_a_weight_ends_above_and_below():
    ahead, behind = LANDMARK_MS + 8 * WEEK_MS, LANDMARK_MS - 16 * WEEK_MS

    assert weigh(WEEK, ahead, ahead + 1, 2**63 - 1) == [MAX_WEIGHT] * 3
    assert weigh(WEEK, behind, behind - 1, 0) == [2.0**-16] * 3
    assert weigh(WEEK, ahead - WEEK_MS, behind + WEEK_MS) == [MAX_WEIGHT / 2, 2.0**-15]


@PURE
@given(half_life_s=half_lives_s, times=st.lists(any_time, max_size=20))
def test_any_timestamp_has_a_weight_that_sums_without_rounding(half_life_s, times):
    weights = Decay(half_life_s, LANDMARK_MS).weight(np.array(times, np.int64))

    units = weights / WEIGHT_UNIT
    assert weights.dtype == np.float64
    assert ((weights >= 2.0**-16) & (weights <= MAX_WEIGHT)).all()
    assert (units == np.rint(units)).all()


@PURE
@given(half_life_s=half_lives_s, times=st.lists(st.integers(0, 2**63 - 1), max_size=20))
def test_what_is_newer_weighs_no_less(half_life_s, times):
    weights = Decay(half_life_s, LANDMARK_MS).weight(np.array(sorted(times), np.int64))

    assert (np.diff(weights) >= 0.0).all()


def test_newer_by_a_step_weighs_more():
    decay = Decay(half_life_s=1.024, landmark_ms=LANDMARK_MS)

    weights = decay.weight(LANDMARK_MS + np.arange(-16 * 1024, 8 * 1024 + 1))

    assert (np.diff(weights) > 0.0).all()


@PURE
@given(half_lives=st.integers(-4, 4), ages=st.lists(st.integers(-4 * WEEK_MS, 4 * WEEK_MS)))
def test_a_landmark_whole_half_lives_away_scales_exactly(half_lives, ages):
    times = LANDMARK_MS + np.array(ages, np.int64)
    moved = Decay(WEEK.half_life_s, LANDMARK_MS + half_lives * WEEK_MS)

    assert (moved.weight(times) * 2.0**half_lives == WEEK.weight(times)).all()


@PURE
@given(
    shift_ms=st.integers(-4 * WEEK_MS, 4 * WEEK_MS),
    ages=st.lists(st.integers(-4 * WEEK_MS, 4 * WEEK_MS)),
)
def test_any_other_landmark_scales_all_weights_alike(shift_ms, ages):
    times = LANDMARK_MS + np.array(ages, np.int64)
    moved = Decay(WEEK.half_life_s, LANDMARK_MS + shift_ms)

    scaled = moved.weight(times) * 2.0 ** (shift_ms / WEEK_MS)

    np.testing.assert_allclose(scaled, WEEK.weight(times), rtol=2.1 * QUANTISED)


def test_a_replay_gives_the_same_however_it_is_cut():
    times = np.random.default_rng(0).integers(0, 2 * LANDMARK_MS, 500)
    whole = WEEK.weight(times)

    parts = [Decay(WEEK.half_life_s, LANDMARK_MS).weight(part) for part in np.split(times, 20)]
    backwards = np.concatenate([WEEK.weight(time[None]) for time in times[::-1]])

    assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert backwards[::-1].tobytes() == whole.tobytes()


def test_arguments_are_left_alone():
    times = np.array([NO_TIMESTAMP, 0, LANDMARK_MS])
    times.flags.writeable = False

    assert WEEK.weight(times).flags.writeable
    assert WEEK.weight(times[:0]).tolist() == []


def test_without_a_timestamp_nothing_fades():
    later = Decay(WEEK.half_life_s, LANDMARK_MS + 100 * WEEK_MS)

    assert weigh(WEEK, NO_TIMESTAMP) == weigh(later, NO_TIMESTAMP) == [1.0]


def test_a_new_landmark_is_due_when_the_newest_weighs_the_most():
    at_s = (LANDMARK_MS + 8 * WEEK_MS) / 1000

    assert WEEK.next_landmark_is_due(at_s)
    assert not WEEK.next_landmark_is_due(at_s - 0.001)
    assert weigh(WEEK, round(at_s * 1000)) == [MAX_WEIGHT]


def test_a_new_landmark_is_due_when_a_clock_had_set_it_far_ahead():
    back_s = (LANDMARK_MS - WEEK_MS) / 1000

    assert WEEK.next_landmark_is_due(back_s)
    assert not WEEK.next_landmark_is_due(back_s + 0.001)


@pytest.mark.parametrize("half_life_s", [0.0, -1.0, 0.0009, 1.1e9, float("nan"), float("inf")])
def test_a_half_life_that_cannot_be_counted_is_refused(half_life_s):
    with pytest.raises(ConfigError, match=r"clustering\.half_life_s is"):
        Decay(half_life_s, LANDMARK_MS)
