"""The view holds what the records say, however they are cut, and no more than it may."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.messages.codec import encode_assignment, encode_change, encode_lifecycle
from pipeline.messages.events import Cause, ChangeType, ClusterChange, Lifecycle, LifecycleType
from pipeline.messages.policy import EventPolicy
from pipeline.messages.records import Record
from pipeline.state.view.changes import ChangeKey, ChangeLog
from pipeline.state.view.events import LifecycleLog
from pipeline.state.view.fold import View
from pipeline.state.view.items import ClusterNames, Items
from pipeline.state.view.neighbours import ExactSearch, nearest
from pipeline.state.view.series import HOUR_MS, MINUTE_MS, N_MINUTES, Series, surprise

ITEMS = [b"item-%d" % n for n in range(8)]
CLUSTERS = ["c1", "c2", "c3"]

steps = st.lists(
    st.tuples(
        st.sampled_from(ITEMS),
        st.one_of(st.none(), st.sampled_from(CLUSTERS)),
        st.floats(0, 4, width=16),
    ),
    max_size=60,
)


def assignments(history):
    """Records of one partition."""
    return [
        Record(
            0, i, key,
            None if cluster is None else encode_assignment(cluster, distance, 0, 1, 0, 0, i),
            1000 + i,
        )
        for i, (key, cluster, distance) in enumerate(history)
    ]  # fmt: skip


@settings(deadline=None)
@given(history=steps, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_whatever_the_slices_items_are_where_the_last_record_says(history, cuts):
    view, records = View(1), assignments(history)
    edges = sorted({0, len(records), *(cut for cut in cuts if cut < len(records))})
    for start, stop in pairwise(edges):
        view.fold_assignments(records[start:stop])

    truth = {}
    for key, cluster, distance in history:
        truth.pop(key, None)
        if cluster is not None:
            truth[key] = (cluster, distance)

    assert len(view.items) == len(truth)
    for key in ITEMS:
        row = view.items.find(key)
        found = None if row < 0 else view.items.place(row)
        told = None if found is None else (found.cluster, round(found.distance, 3))
        expected = truth.get(key)
        assert told == (None if expected is None else (expected[0], round(expected[1], 3)))
    for cluster in CLUSTERS:
        members = sorted(
            (float(np.float32(float(f"{d:.7g}"))), k) for k, (c, d) in truth.items() if c == cluster
        )
        assert view.items.count(cluster) == len(members)
        found = [(round(d, 4), k) for d, k, _ in view.items.by_distance(cluster, 100, None)]
        assert found == [(round(d, 4), k) for d, k in members]
        paged, after = [], None
        while page := view.items.by_distance(cluster, 2, after):
            paged += page
            after = page[-1][:2]
        assert [k for _, k, _ in paged] == [k for _, k in members]
    nearest = view.items.exemplars()
    assert nearest.keys() == {c for c, _ in truth.values()}
    for cluster, key in nearest.items():
        assert key == view.items.by_distance(cluster, 1, None)[0][1]


def change(item, source, target, offset=0):
    return ClusterChange(
        id=f"in/0/{offset}", type=ChangeType.REASSIGNED, item=item, from_cluster=source,
        to_cluster=target, cause=Cause.RECORD, distance=1.0, margin=1.0, confidence=0.5, epoch=1,
        revision=0, topic="in", partition=0, offset=offset, occurred_at_ms=0,
    )  # fmt: skip


def test_the_ring_of_changes_keeps_the_newest_of_each_partition():
    names = ClusterNames()
    log = ChangeLog(names, n_partitions=2, n_events=20)
    for offset in range(50):
        for partition in range(2):
            event = change(f"item-{offset % 7}", "c1", "c2", offset)
            value, _ = encode_change(event, EventPolicy())
            record = Record(partition, offset, b"k", value, 1000 + offset)
            log.add(record, event, names.number("c1"), names.number("c2"))

    found = log.newest(100)

    assert [kept.key for kept in found] == [
        ChangeKey(1000 + offset, partition, offset)
        for offset in range(49, 39, -1) for partition in (1, 0)
    ]  # fmt: skip
    assert log.newest(3, before=found[6].key) == found[7:10]
    of_one = log.newest(100, item="item-3")
    assert of_one == [kept for kept in found if kept.event.item == "item-3"]
    assert log.newest(100, cluster="c9") == []
    assert log.newest(100, since_ms=1045) == found[:10]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=30), st.integers(1, 35))
def test_pages_of_changes_hold_all_of_them_in_order_however_many_have_one_time(rows, limit):
    names = ClusterNames()
    log = ChangeLog(names, n_partitions=3, n_events=90)
    keys = []
    for offset, (partition, time_ms) in enumerate(rows):
        event = change("a", "c1", "c2", offset)
        value, _ = encode_change(event, EventPolicy())
        log.add(Record(partition, offset, b"a", value, time_ms), event, 0, 1)
        keys.append(ChangeKey(time_ms, partition, offset))

    paged = []
    while page := log.newest(limit, before=paged[-1] if paged else None):
        paged += [kept.key for kept in page]

    assert paged == sorted(keys, reverse=True)


@settings(deadline=None)
@given(
    times=st.lists(st.integers(0, 3 * N_MINUTES), min_size=1, max_size=40),
    window=st.integers(1, N_MINUTES),
)
def test_buckets_hold_what_was_counted_in_their_time_in_any_order(times, window):
    series = Series()
    for minute in times:
        series.add(minute * MINUTE_MS + 7, 1, 2)
    newest = max(times)
    kept = [minute for minute in times if minute > newest - N_MINUTES]
    # what came late is counted as long as the ring reaches: so the order may lose nothing else
    early = [m for i, m in enumerate(times) if m > max(times[: i + 1]) - N_MINUTES]
    counted = [minute for minute in kept if minute in early]
    start = (newest - window + 1) * MINUTE_MS

    counts, starts = series.minutes.between(start, (newest + 1) * MINUTE_MS)

    assert counts[2, 0].sum() == sum(minute * MINUTE_MS >= start for minute in counted)
    assert counts[1, 1].sum() == counts[2, 0].sum()
    assert starts == sorted(starts)


def test_what_moved_in_a_window_is_what_its_trend_says():
    series, names = Series(), ClusterNames()
    numbers = [names.number(f"c{i}") for i in range(5)]
    for i in range(400):
        series.add(i * MINUTE_MS // 3, numbers[i % 5], numbers[i * i % 4])
    for window in ("5m", "1h", "24h"):
        trend = series.trend(window, 133 * MINUTE_MS, 9)

        moved = series.moved(window, 133 * MINUTE_MS, 9)

        assert moved.tolist() == np.column_stack((trend.gained, trend.lost)).tolist()
        assert moved.sum() > 0


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40),
    st.integers(1, 12),
    st.booleans(),
)
def test_pages_of_members_hold_all_of_them_from_either_end(distances, limit, farthest):
    view = View(1)
    view.fold_assignments(assignments([(b"%d" % i, "c1", d) for i, d in enumerate(distances)]))
    paged, after = [], None
    while page := view.items.by_distance("c1", limit, after, farthest=farthest):
        paged += page
        after = page[-1][:2]

    sign = -1.0 if farthest else 1.0
    keys = sorted((sign * d, b"%d" % i) for i, d in enumerate(distances))
    assert [(d, key) for d, key, _ in paged] == [(sign * d, key) for d, key in keys]
    assert all(view.items.name(row) == key for _, key, row in paged)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(CLUSTERS), max_size=3), max_size=20),
    st.integers(1, 9),
    st.integers(0, 20),
)
def test_the_log_of_a_cluster_is_the_newest_events_that_name_it(named, n_kept, before):
    log = LifecycleLog(n_kept)
    for offset, (own, *others) in enumerate([None, *some] for some in named):
        if others:
            own, *others = others
        event = Lifecycle(f"e{offset}", LifecycleType.SPLIT, 1, 0, offset, own, (), tuple(others))
        log.fold(Record(0, offset, event.key, encode_lifecycle(event, EventPolicy())[0], offset))

    for cluster in CLUSTERS:
        found = [kept.offset for kept in log.newest(cluster=cluster, before=before)]

        kept = [offset for offset, some in enumerate(named) if cluster in some]
        oldest = len(named) - n_kept
        assert found == [o for o in reversed(kept) if oldest <= o < before]


def test_a_window_after_long_silence_is_empty():
    series, names = Series(), ClusterNames()
    one, two = names.number("c1"), names.number("c2")
    series.add(0, one, two)

    assert series.trend("5m", 10 * HOUR_MS, 3).gained.sum() == 0
    assert series.flows("1h", 10 * HOUR_MS, 10, names) == []
    assert series.trend("24h", 10 * HOUR_MS, 3).gained[two] == 1


def test_growth_is_measured_against_the_own_past():
    series = Series()
    for minute in range(110):
        series.add(minute * MINUTE_MS, 0, 1)  # one a minute, always
    for _ in range(8):
        series.add(109 * MINUTE_MS, 0, 2)  # eight, where nothing was before
    for _ in range(3):
        series.add(109 * MINUTE_MS, 0, 1)

    trend = series.trend("5m", 109 * MINUTE_MS, 3)
    scores = surprise(trend.gained, trend.expected_gain)

    assert trend.gained.tolist() == [0, 8, 8]
    assert trend.expected_gain.tolist() == pytest.approx([0.0, 5.0, 0.0])
    assert scores[2] > 4.0 > 2.0 > scores[1] > 0.0


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1), limit=st.integers(1, 12), scale=st.sampled_from([1e-3, 1, 1e3])
)
def test_the_scan_finds_what_float64_finds_ties_by_id(seed, limit, scale):
    random = np.random.default_rng(seed)
    names = ClusterNames()
    items = Items(0, names)
    history = [(b"item-%d" % n, "c1", 0.0) for n in range(40)]
    items.fold(assignments(history))
    items.forget_vectors(5)
    search = ExactSearch(items)
    # far from the origin, where float32 products are worst, with ties on purpose
    vectors = (1000 + random.integers(0, 3, (40, 5)) * scale).astype(np.float32)
    keys = [key for key, _, _ in history]
    search.note(items.give(keys, vectors, are_copies=False))
    query = vectors[0]

    found = nearest(
        items, search.proposer(query), query, limit, without=items.find(keys[0]), tell=list
    )

    truth = sorted(
        (float(((v.astype(float) - query) ** 2).sum()), k)
        for v, k in zip(vectors[1:], keys[1:], strict=True)
    )[:limit]
    assert [items.name(one.row) for one in found] == [key for _, key in truth]
    assert [one.distance_squared for one in found] == pytest.approx([d for d, _ in truth])


def test_an_item_takes_the_bytes_that_are_stated():
    view, n = View(1), 20_000
    history = [(b"item-%011d" % i, f"c{i % 50}", 1.0) for i in range(n)]
    view.fold_assignments(assignments(history))

    columns = view.items.state_bytes - view.items.id_bytes

    assert columns / len(view.items.clusters) == 36  # a row, of which some are still to be filled
