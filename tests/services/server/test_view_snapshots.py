"""A server that goes on from a snapshot answers as one that has read everything."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.config import ServerPolicy
from pipeline.services.server.vectors import VectorFollower, VectorMarks
from tests.services.server.conftest import Site
from tests.services.server.places import (
    Place,
    differing,
    everything,
    items,
    metadata,
    random_world,
    read_ahead,
    without_requests,
)
from tests.services.server.test_following import held

N_HISTORIES = 6


@pytest.mark.parametrize("seed", range(N_HISTORIES))
def test_it_answers_as_one_that_read_everything(tmp_path, seed):
    rng = np.random.default_rng(seed)
    compacts, has_open = (bool(one) for one in rng.integers(2, size=2))
    n_before, n_between, n_steps, n_later = rng.integers((1, 0, 0, 0), (90, 90, 40, 20)).tolist()
    world = random_world(seed, compacted=seed % 3 > 0)
    world.live(60)
    live = Place(world, tmp_path)
    world.live(n_before)
    if has_open:  # a transaction stays undecided in some partitions, and is decided later
        for topic in (world.topics.assignments, world.topics.changes):
            world.broker.hold_markers(topic, int(rng.integers(3)))
        world.live(10)
    for _ in range(n_steps):
        live.server.follower.step()
    live.begin()
    world.live(n_between)
    for _ in range(n_later):  # vectors are written while others come
        live.server.follower.step()
    live.later.run()
    world.broker.release_markers()
    world.settle()
    if compacts:
        world._compact()
    live.follow()

    site, fresh = Place(world, tmp_path), Site(world, ServerPolicy())

    assert site.was_resumed
    told, truth = everything(site), everything(fresh)
    assert differing(told, truth) == []
    assert held(site) == held(fresh)
    assert metadata(site) == metadata(fresh)
    assert told["/changes"] == without_requests(live.pages("/changes", limit=200))
    assert site.server.desk.view.shown == fresh.server.desk.view.shown


# what the law would not hold without


def test_rows_that_wait_for_an_assignment_are_read_again(world, tmp_path):
    read_ahead(world, tmp_path).take()
    world.settle()

    site, fresh = Place(world, tmp_path), Site(world, ServerPolicy())

    assert site.was_resumed
    assert held(site) == held(fresh)
    assert len(held(site)) == 30


def test_without_the_marks_of_what_waits_vectors_are_missing(world, tmp_path, monkeypatch):
    """Negative control: the position of the reader is not the mark."""

    def wrong(self):
        return VectorMarks(self._input.positions, self._copies.positions)

    monkeypatch.setattr(VectorFollower, "marks", property(wrong))
    read_ahead(world, tmp_path).take()
    world.settle()

    site, fresh = Place(world, tmp_path), Site(world, ServerPolicy())

    assert site.was_resumed
    assert len(held(site)) == 24
    assert differing(everything(site), everything(fresh)) != []


@pytest.mark.parametrize("commits", [True, False])
def test_of_a_transaction_that_is_undecided_nothing_is_below_the_marks(world, tmp_path, commits):
    site, name = Place(world, tmp_path), world.topics.assignments
    values = {r.key: r.value for r in world.broker.records(name, 0)}
    log, transaction = world.broker._topics.log(name, 0), object()
    log.append(0, b"item-0", values[b"item-3"], (), 1, transaction)
    site.follow()
    site.take()
    data, marks = site.path.read_bytes(), site.server.follower.marks()
    ends = {p: found.high for p, found in world.broker.ranges(name).items()}
    assert marks.assignments != ends
    site.server.snapshots._last = None
    site.server.follower.marks = lambda: marks._replace(assignments=ends)
    site.take()
    wrong = site.path.read_bytes()
    log.end(transaction, commits=commits)

    def answer(site):
        return site.ok("/items/item-0")["cluster"]

    truth = answer(Site(world, ServerPolicy()))
    site.path.write_bytes(data)
    late = Place(world, tmp_path)
    assert late.was_resumed
    assert answer(late) == truth
    site.path.write_bytes(wrong)
    late = Place(world, tmp_path)
    assert late.was_resumed
    assert (answer(late) != truth) == commits  # negative control


def test_a_removal_whose_tombstone_is_gone_is_why_an_old_one_is_refused(world, tmp_path):
    site = Place(world, tmp_path)
    site.take()
    world.broker.append(world.topics.input, 0, b"item-0", None, (), 1)
    world.settle()
    for name in (world.topics.assignments, world.topics.input):
        world.broker.compact(name, 0, keep_tombstones=False)

    assert "item-0" in items(Place(world, tmp_path))  # negative control: nobody says it is gone
    world.now_s += 8 * 86_400.0 / 2
    late = Place(world, tmp_path)

    assert not late.was_resumed
    assert items(late) == items(Site(world, ServerPolicy()))
    assert "item-0" not in items(late)
