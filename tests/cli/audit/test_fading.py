"""The judge's own weights against the engine's, and against the formula."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli.audit.fading import Fading
from pipeline.cli.audit.tally import NewestModel
from pipeline.clustering.forgetting import Decay

NOON_MS = 1_772_366_400_000


def fading(told):
    return Fading.of(NewestModel({"forgetting": told}, np.zeros((1, 1), np.float32)))


@settings(deadline=None)
@given(
    st.floats(0.001, 1e9),
    st.integers(0, 4 * NOON_MS),
    st.integers(-(2**62), 2**63 - 1) | st.integers(0, 4 * NOON_MS),
)
def test_both_calculate_the_same_bits(half_life_s, landmark_ms, timestamp_ms):
    decay = Decay(half_life_s, landmark_ms)

    mine = Fading(decay.half_life_ms, landmark_ms).weight(timestamp_ms)

    assert mine == decay.weight(np.array([timestamp_ms]))[0]


def test_both_have_the_same_mantissas():
    steps = np.arange(-17 * 1024, 9 * 1024)

    mine = [Fading(1024, 10**9).weight(10**9 + step) for step in steps.tolist()]

    assert mine == Decay(1.024, 10**9).weight(10**9 + steps).tolist()


def test_the_manifest_says_how_members_fade():
    told = json.loads('{"half_life_s": 1.5, "landmark": "2026-03-01T12:00:00.123Z"}')

    assert fading(told) == Fading(1500, NOON_MS + 123)
    assert fading(None) is None


@pytest.mark.parametrize(
    ("hours", "weight"), [(0, 1.0), (-1, 0.5), (3, 8.0), (-99, 2.0**-16), (99, 2.0**8)]
)
def test_weights_of_whole_half_lives(hours, weight):
    assert Fading(3_600_000, NOON_MS).weight(NOON_MS + 3_600_000 * hours) == weight


@pytest.mark.parametrize("timestamp_ms", [None, -1, -(2**63)])
def test_what_has_no_time_does_not_fade(timestamp_ms):
    assert Fading(3_600_000, NOON_MS).weight(timestamp_ms) == 1.0
