"""The view follows the topics through what happens to them, and vectors wait within bounds."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

from pipeline.config import ServerPolicy
from pipeline.errors import TransientError
from pipeline.services.server import vectors
from tests.services.server.conftest import Site, TimedWorld
from tests.services.server.test_items import vectors_of
from tests.simulation.test_commands import CORNERS, put


def held(site):
    """Item -> the vector that the server holds."""
    items = site.server.desk.view.items
    rows = np.flatnonzero(items.has_vector())
    return {items.name(row).decode(): items.vectors[row].tolist() for row in rows.tolist()}


def truth(site):
    return {item: vector.tolist() for item, vector in vectors_of(site.world).items()}


@pytest.mark.parametrize("room", [0, 200, 10_000])
def test_rows_that_run_ahead_of_the_assigners_are_not_lost(monkeypatch, room):
    """The input is read before anybody has assigned it; with little room, more than once."""
    monkeypatch.setattr(vectors, "MAX_WAITING_BYTES", room)
    world = TimedWorld(2)
    world.crash_rate = 0.0
    world.start_assigner("a0")
    world.start_reclusterer()
    site = Site(world, ServerPolicy())
    for i in range(90):
        put(world, i % 40, CORNERS[i % 4] + world.rng.normal(0, 1, 3))
        if i % 10 == 0:
            site.follow()
    follower = site.server.follower._vectors
    assert (len(follower._held) > 0) == (room < 10_000)  # negative control: it was too much
    waiting = sum(len(r.value) for w in follower._waiting.values() for r in w.values())
    assert waiting <= room + 3 * 40

    site.settle()

    assert held(site) == truth(site)
    assert not follower._held


def is_fresh(site):
    site.server._reports._gauges_at = float("-inf")  # it looks once a second
    with suppress(TransientError):
        site.server.step()
    (fresh,) = [check.ok for check in site.health.ready() if check.name == "fresh"]
    return fresh


def test_a_view_that_is_cut_off_from_the_broker_is_not_ready_for_ever(make_site):
    site = make_site()
    assert is_fresh(site)
    site.world.broker.is_away = True
    assert is_fresh(site)
    site.ticks += 31.0
    assert not is_fresh(site)
    site.world.broker.is_away = False
    site.follow()
    assert is_fresh(site)


def test_an_outage_of_the_broker_loses_nothing(make_site):
    site = make_site()
    site.world.broker.is_away = True
    with pytest.raises(TransientError):
        site.server.follower.step()
    assert site.ok("/stats")["items"] == 80  # what is known is told

    site.world.broker.is_away = False
    put(site.world, 100, CORNERS[0])
    site.settle()

    assert site.ok("/stats")["items"] == 81
    assert held(site) == truth(site)


def test_what_was_compacted_away_is_not_missed(make_site):
    site = make_site(follows=False)
    for i in range(80):
        put(site.world, i, CORNERS[(i + 1) % 4])
    site.world.settle()
    for partition in range(3):
        for topic in (site.world.topics.assignments, site.world.topics.input):
            site.world.broker.compact(topic, partition, keep_tombstones=True)
    site.follow()
    late = Site(site.world, ServerPolicy())

    assert held(site) == held(late) == truth(site)


def test_a_view_that_is_far_behind_is_not_ready(make_site, monkeypatch):
    site = make_site()
    monkeypatch.setattr("pipeline.services.server.following.SLICE_RECORDS", 0)
    monkeypatch.setattr("pipeline.services.server.following.LAG_INTERVAL_S", 0.0)
    monkeypatch.setattr("pipeline.services.server.reports.GAUGES_INTERVAL_S", 0.0)
    put(site.world, 0, CORNERS[1])
    site.world.settle()
    site.world.now_s += 1000.0

    site.server.step()

    failed = [check.name for check in site.health.ready() if not check.ok]
    assert failed == ["fresh"]
    assert site.client.get("/health").status_code == 503


def test_gauges_tell_what_the_view_holds(make_site):
    site = make_site()
    site.server._reports._gauges_at = -1e9
    site.server._reports.stepped(site.server.desk, site.server.follower)
    site.ok("/items/item-0/similar")

    told = site.metrics.exposition("")[0].decode()

    assert "\neddy_view_items 80.0" in told
    assert 'eddy_search_duration_seconds_count{index="exact"} 1.0' in told
    assert "eddy_model_epoch 1.0" in told


def test_a_removal_does_not_show_before_its_item_is_gone(make_site, monkeypatch):
    """Topics are read side by side: the event is here long before the tombstone is."""
    site = make_site()
    topics, log = site.world.topics, site.world.broker
    for i in range(30):  # of the same partition, and where they are: no events
        put(site.world, i, CORNERS[i % 4])
    offset = log.append(topics.input, 0, b"item-0", None, (), 1)
    site.world.settle()
    monkeypatch.setattr("pipeline.services.server.following.SLICE_RECORDS", 1)
    view, follower, n_early = site.server.desk.view, site.server.follower, 0

    while view.next_offset(0) <= offset:
        assert follower.step() or follower._fences._fences
        if view.next_offset(0) > offset:
            assert view.items.find(b"item-0") < 0
        n_early += view.claims[0] > offset and view.items.find(b"item-0") >= 0

    assert n_early > 3  # negative control: somebody said so before it was true
    assert site.server.desk.reached(0, offset, 0.0)


def test_a_record_does_not_show_before_its_vector_is_here(make_site, monkeypatch):
    site = make_site()
    for i in range(30):
        put(site.world, i, CORNERS[i % 4])
    site.world.settle()
    ends = site.world.broker.ranges(site.world.topics.input)
    monkeypatch.setattr("pipeline.services.server.vectors.SLICE_RECORDS", 1)
    desk, n_waits = site.server.desk, 0

    for partition, found in ends.items():
        while not desk.reached(partition, found.high - 1, 0.0):
            n_waits += desk.view.next_offset(partition) >= found.high
            site.server.follower.step()

    assert n_waits > 3  # negative control: it was assigned, and nothing else was awaited
    assert held(site) == truth(site)
