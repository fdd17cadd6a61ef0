"""What an alarm says, when it begins and when it ends."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clustering.drift.charts import MIN_MEMBERS, N_LEARNING
from pipeline.clustering.drift.monitor import MIN_WINDOWS_TO_CLEAR, DriftMonitor, Key, most
from pipeline.clustering.drift.policy import DriftPolicy
from pipeline.clustering.drift.signals import Baseline, Signal, Window
from pipeline.errors import ConfigError
from tests.clustering.drift_streams import MEAN, Stream, fitted, uneven

POLICY = DriftPolicy(arl0=1000)
K, D = 20, 8


def monitor(profiles=None, policy=POLICY, standing=(), n_members=10**6):
    return DriftMonitor(policy, Baseline(profiles or fitted(K), n_members), standing)


def alarms(watching, windows, signal=None):
    found = [alarm for window in windows for alarm in watching.observe(window)]
    return [alarm for alarm in found if signal in (None, alarm.signal)]


def heavier(shares, label, factor):
    changed = shares * np.where(np.arange(len(shares)) == label, factor, 1.0)
    return changed / changed.sum()


# --- the policy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arl0": 1}, "drift.arl0 is 1, but must be at least 2"),
        ({"window": 0}, "drift.window is 0, but must be at least 1"),
        ({"min_effect": -0.1}, "drift.min_effect is -0.1, but must be finite and not below 0"),
        ({"min_effect": float("nan")}, "drift.min_effect is nan"),
    ],
)
def test_a_policy_that_cannot_be_obeyed_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DriftPolicy(**options)


# --- the stream as it was


def test_a_stream_as_it_was_at_the_fit_raises_nothing():
    watching, stream = monitor(policy=DriftPolicy(arl0=10_000)), Stream(uneven(K))

    assert alarms(watching, (stream.window(churn=0.02) for _ in range(200))) == []
    assert watching.standing == frozenset()
    assert {*watching.readings} == {*Signal} - {Signal.SHIFT}, "no centroid has moved"


def test_the_same_windows_give_the_same_alarms():
    def told():
        stream = Stream(heavier(uneven(K), 7, 1.3), seed=3)
        return alarms(monitor(), (stream.window(shift=0.1) for _ in range(60)))

    assert told() == told() != []


def test_records_before_any_landed_are_no_reason_for_anything():
    watching = monitor()
    nothing = Window(np.zeros(K, np.int64), np.zeros(K), n_records=0, n_reassigned=0, n_members=5)

    assert alarms(watching, [nothing] * 30) == []
    assert watching.readings == {}


# --- occupancy


def test_occupancy_names_the_cluster_whose_traffic_grew():
    watching, stream = monitor(), Stream(heavier(uneven(K), 7, 1.6))

    raised = alarms(watching, (stream.window() for _ in range(40)), Signal.OCCUPANCY)

    assert [(a.state, a.label, a.labels[0]) for a in raised] == [("raised", None, 7)]
    assert raised[0].statistic > raised[0].threshold
    assert watching.standing >= {Key(Signal.OCCUPANCY, None)}


def test_the_effect_of_occupancy_is_cohens_w():
    shares, changed = uneven(K), heavier(uneven(K), 7, 1.6)
    watching, stream = monitor(), Stream(changed)

    alarms(watching, (stream.window() for _ in range(80)))

    w = np.sqrt(((changed - shares) ** 2 / shares).sum())
    assert watching.readings[Signal.OCCUPANCY].effects[0] == pytest.approx(w, rel=0.05)


def test_an_alarm_that_ended_is_cleared_once():
    watching, stream = monitor(), Stream(uneven(K))
    changed = heavier(uneven(K), 7, 1.6)

    told = alarms(
        watching,
        itertools.chain(
            (stream.window(shares=changed) for _ in range(30)),
            (stream.window() for _ in range(100)),
        ),
        Signal.OCCUPANCY,
    )

    assert [a.state for a in told] == ["raised", "cleared"]
    assert watching.standing == frozenset()


def test_a_change_that_hovers_at_the_threshold_is_one_alarm():
    watching, stream = monitor(), Stream(heavier(uneven(K), 7, 1.10))

    told, passed = [], 0
    was_above = False
    for _ in range(300):
        told += [a for a in watching.observe(stream.window()) if a.signal is Signal.OCCUPANCY]
        reading = watching.readings[Signal.OCCUPANCY]
        is_above = bool(reading.statistics[0] > reading.thresholds[0])
        passed, was_above = passed + (is_above and not was_above), is_above

    assert passed > 10, "it does not hover"
    assert len(told) <= 5


def test_a_certain_change_that_is_too_small_is_none():
    policy = dataclasses.replace(POLICY, min_effect=0.05)
    changed = heavier(uneven(K), 7, 1.1)

    def told(policy):
        stream = Stream(changed, n=10**6)
        watching = monitor(policy=policy)
        return alarms(watching, (stream.window() for _ in range(20)), Signal.OCCUPANCY)

    assert told(policy) == []
    assert told(dataclasses.replace(policy, min_effect=0.0)) != []


def test_an_alarm_whose_effect_has_gone_is_cleared_however_certain_what_is_left():
    watching = monitor(policy=dataclasses.replace(POLICY, min_effect=0.1))
    stream = Stream(uneven(K), n=10**6)
    strong, weak = heavier(uneven(K), 7, 2.0), heavier(uneven(K), 7, 1.05)

    told = alarms(
        watching,
        [stream.window(shares=s) for s in [strong] * 20 + [weak] * 40],
        Signal.OCCUPANCY,
    )

    assert [a.state for a in told] == ["raised", "cleared"]
    assert told[1].statistic > told[1].threshold


def test_new_items_of_the_same_kind_are_no_change():
    truth, rng = uneven(K), np.random.default_rng(5)
    profiles = fitted(K, counts=rng.multinomial(2000, truth))
    policy = DriftPolicy(arl0=10_000)

    def told(n_new):
        stream = Stream(truth, seed=6, n_members=2000)
        watching = monitor(profiles, policy=policy, n_members=2000)
        windows = (stream.window(n_new=n_new) for _ in range(60))
        return alarms(watching, windows, Signal.OCCUPANCY)

    assert told(n_new=4096) == []
    assert told(n_new=0) != [], "the control: items that the fit has seen land where they were"


def test_a_fit_on_some_of_the_items_does_not_know_the_shares_of_all():
    truth, rng = uneven(K), np.random.default_rng(5)
    profiles = fitted(K, counts=rng.multinomial(2000, truth))

    def told(n_items):
        stream = Stream(truth, seed=6)
        baseline = Baseline(profiles, 10**6, n_items=n_items)
        watching = DriftMonitor(DriftPolicy(arl0=10_000), baseline)
        return alarms(watching, (stream.window() for _ in range(60)), Signal.OCCUPANCY)

    assert told(n_items=10**6) == []
    assert told(n_items=None) != []


def test_a_cluster_empty_at_the_fit_is_named_when_it_fills():
    counts = np.rint(uneven(K) * 10**5).astype(np.int64)
    counts[3] = 0
    changed = counts / counts.sum()
    watching = monitor(fitted(K, counts=counts))
    stream = Stream((changed + 0.05 * (np.arange(K) == 3)) / 1.05)

    raised = alarms(watching, (stream.window() for _ in range(20)), Signal.OCCUPANCY)

    assert raised[0].labels == (3,)


# --- imbalance


def test_imbalance_says_that_traffic_is_more_concentrated_and_never_that_it_is_less():
    largest = heavier(uneven(K), 0, 1.8)
    watching, stream = monitor(), Stream(largest)
    raised = alarms(watching, (stream.window() for _ in range(40)), Signal.IMBALANCE)

    even, stream = monitor(), Stream(np.full(K, 1 / K))

    assert [(a.state, a.labels) for a in raised] == [("raised", (0,))]
    effective = [1 / (s**2).sum() for s in (uneven(K), largest)]
    for _ in range(60):
        watching.observe(Stream(largest, n=10**7).window())
    effect = watching.readings[Signal.IMBALANCE].effects[0]
    assert effect == pytest.approx(1 - effective[1] / effective[0], rel=0.02)
    assert alarms(even, (stream.window() for _ in range(40)), Signal.IMBALANCE) == []


# --- distance


def test_distance_names_the_cluster_where_records_land_farther():
    watching, stream = monitor(), Stream(uneven(K))
    shift = np.where(np.arange(K) == 4, 0.5, 0.0)

    raised = alarms(watching, (stream.window(shift=shift) for _ in range(60)), Signal.DISTANCE)

    assert [(a.label, a.labels, a.state) for a in raised] == [
        (4, (4,), "raised"),
        (None, (4,), "raised"),  # so much that all clusters together show it
    ]
    effects = watching.readings[Signal.DISTANCE].effects
    assert effects[4] == pytest.approx(0.5, rel=0.2)


def test_a_rise_too_small_for_any_cluster_is_seen_in_all_together():
    watching, stream = monitor(), Stream(uneven(K))

    raised = alarms(watching, (stream.window(shift=0.02) for _ in range(40)), Signal.DISTANCE)

    assert (raised[0].label, raised[0].state) == (None, "raised")
    assert watching.readings[Signal.DISTANCE].effects[-1] == pytest.approx(0.02, rel=0.4)


def test_records_that_land_nearer_raise_nothing():
    watching, stream = monitor(), Stream(uneven(K))

    assert alarms(watching, (stream.window(shift=-1.0) for _ in range(60))) == []


def test_a_cluster_with_too_few_members_has_no_spread_to_compare_with():
    counts = np.rint(uneven(K) * 10**5).astype(np.int64)
    counts[5] = MIN_MEMBERS - 1
    watching, stream = monitor(fitted(K, counts=counts)), Stream(uneven(K))
    shift = np.where(np.arange(K) == 5, 9.0, 0.0)

    assert alarms(watching, (stream.window(shift=shift) for _ in range(20)), Signal.DISTANCE) == []


def test_distances_of_a_cluster_of_equal_vectors_are_judged_by_the_usual_spread():
    profiles = fitted(K)
    profiles.mean_distances[5] = profiles.mean_squared_distances[5] = 0.0
    profiles.quantiles[5] = 0.0
    watching, stream = monitor(profiles), Stream(uneven(K))
    first = stream.window(shift=np.where(np.arange(K) == 5, -MEAN / 0.1, 0.0))
    first.distances[5] = 1e-4  # one record that is not quite the same

    assert alarms(watching, [first], Signal.DISTANCE) == []


# --- churn


def test_churn_learns_what_is_usual_and_tells_what_is_more():
    watching, stream = monitor(), Stream(uneven(K))

    usual = alarms(watching, (stream.window(churn=0.02) for _ in range(N_LEARNING + 40)))
    raised = alarms(watching, (stream.window(churn=0.04) for _ in range(40)), Signal.CHURN)

    assert usual == []
    assert [(a.state, a.label, a.labels) for a in raised] == [("raised", None, ())]


def test_churn_says_nothing_while_it_learns():
    watching, stream = monitor(), Stream(uneven(K))

    told = alarms(watching, (stream.window(churn=0.01 * t) for t in range(N_LEARNING)))

    assert told == []
    assert Signal.CHURN not in watching.readings


# --- shift


def walk(watching, steps):
    place, told, stream = np.zeros((K, D)), [], Stream(uneven(K))
    for step in steps:
        place += step
        lengths = np.linalg.norm(place, axis=1)
        told += watching.observe(stream.window(moves=step, displacements=lengths))
    return [a for a in told if a.signal is Signal.SHIFT], lengths


def test_shift_names_the_centroid_that_goes_on_in_one_direction():
    rng = np.random.default_rng(2)
    steps = rng.normal(size=(150, K, D)) * 0.01
    steps[:, 6] += 0.03

    told, _ = walk(monitor(), steps)

    assert [(a.label, a.state) for a in told] == [(6, "raised")]
    assert told[0].effect > POLICY.min_effect


def test_a_centroid_may_be_far_away_without_having_gone_there():
    rng = np.random.default_rng(2)

    told, lengths = walk(monitor(), rng.normal(size=(300, K, D)))

    assert lengths.min() > 10 * MEAN
    assert told == []


def test_a_walk_that_ended_is_cleared():
    rng = np.random.default_rng(2)
    steps = rng.normal(size=(600, K, D)) * 0.01
    steps[:120, 6] += 0.03

    told, _ = walk(monitor(), steps)

    assert [a.state for a in told] == ["raised", "cleared"]


def test_windows_without_a_step_change_nothing():
    watching, stream = monitor(), Stream(uneven(K))
    step = stream.window(moves=np.ones((K, D), np.float32), displacements=np.ones(K))
    watching.observe(step)
    before = watching.readings[Signal.SHIFT].statistics

    watching.observe(stream.window())

    assert (watching.readings[Signal.SHIFT].statistics == before).all()


# --- what stands


def test_standing_alarms_are_not_raised_again_and_are_cleared_when_enough_was_seen():
    rising = {Key(Signal.DISTANCE, 4), Key(Signal.DISTANCE, None)}
    standing = rising | {Key(Signal.OCCUPANCY, None), Key(Signal.DISTANCE, 0)}
    watching, stream = monitor(standing=standing), Stream(uneven(K))
    shift = np.where(np.arange(K) == 4, 1.0, 0.0)

    early = alarms(watching, (stream.window(shift=shift) for _ in range(MIN_WINDOWS_TO_CLEAR - 1)))
    later = alarms(watching, (stream.window(shift=shift) for _ in range(40)))

    assert early == []
    assert {(a.signal, a.label, a.state) for a in later} == {
        (Signal.OCCUPANCY, None, "cleared"),
        (Signal.DISTANCE, 0, "cleared"),
    }
    assert watching.standing == rising


def test_alarms_end_with_their_model():
    watching, stream = monitor(), Stream(heavier(uneven(K), 7, 2.0))
    alarms(watching, (stream.window() for _ in range(20)))
    stood = watching.standing

    ended = watching.end()

    assert {Key(a.signal, a.label) for a in ended} == stood != frozenset()
    assert {a.state for a in ended} == {"cleared"}
    assert watching.standing == frozenset() and watching.end() == []


def test_an_alarm_names_the_clusters_in_which_the_change_is_seen_by_itself():
    assert most(np.array([30.0, 1.0, 90.0, 2.0])) == (2, 0)
    assert most(np.full(100, 50.0)) == (0, 1, 2, 3, 4)
    assert most(np.array([1.0, 3.0, 2.0])) == (1,), "in none of them: the clearest"
    assert most(np.zeros(3)) == ()


# --- whatever comes

WINDOWS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 50), min_size=4, max_size=4),
        st.floats(0.0, 100.0),
        st.integers(0, 300),
        st.integers(0, 10**6),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 1000), min_size=4, max_size=4),
    windows=WINDOWS,
    n_clusters=st.integers(1, 4),
)
def test_any_history_gives_finite_numbers_and_alarms_that_alternate(counts, windows, n_clusters):
    profiles = fitted(n_clusters, counts=np.array(counts[:n_clusters]))
    watching = monitor(profiles, DriftPolicy(arl0=2, window=5), n_members=100)
    raised: dict[Key, bool] = {}

    for landed, distance, n_reassigned, n_members in windows:
        n = sum(landed[:n_clusters])
        window = Window(
            np.array(landed[:n_clusters]),
            np.array(landed[:n_clusters]) * distance,
            n_records=n + 3,
            n_reassigned=min(n_reassigned, n),
            n_members=n_members,
            moves=np.full((n_clusters, 2), distance - 50.0),
            displacements=np.full(n_clusters, distance),
        )
        for alarm in watching.observe(window):
            key = Key(alarm.signal, alarm.label)
            assert np.isfinite([alarm.statistic, alarm.threshold, alarm.effect]).all()
            assert raised.get(key, False) is (alarm.state == "cleared")
            raised[key] = alarm.state == "raised"

    assert {key for key, stands in raised.items() if stands} == watching.standing
