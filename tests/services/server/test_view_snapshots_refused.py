"""What a copy of the view is refused for, and when one is written."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from pipeline.messages.policy import EmbeddingPolicy
from pipeline.services.server import view_snapshots
from pipeline.services.server.live.ring import CHANGES
from pipeline.services.server.routes.frames import take_frame
from pipeline.state.view import snapshot_file
from pipeline.streams.topics import expected_topics
from tests.services.server.places import (
    Place,
    TidyWorld,
    items,
)
from tests.simulation.test_commands import CORNERS, put

# refusals


def flipped(path):
    for at in (3, 40, 400, path.stat().st_size // 2, path.stat().st_size - 30):
        data = bytearray(path.read_bytes())
        data[at] ^= 4
        yield bytes(data)


def cut(path):
    data = path.read_bytes()
    for n in (0, 10, 300, len(data) // 2, len(data) - 1):
        yield data[:n]
    yield data + b"\0"


@pytest.mark.parametrize("damaged", [flipped, cut])
def test_a_damaged_one_is_refused_and_removed(world, tmp_path, damaged):
    site = Place(world, tmp_path)
    site.take()
    whole = site.path.read_bytes()
    for data in list(damaged(site.path)):
        site.path.write_bytes(data)
        assert site.server.snapshots.load() is None
        assert not site.path.exists()
    site.path.write_bytes(whole)
    assert site.server.snapshots.load() is not None  # negative control


def test_one_of_another_format_or_configuration_or_time_is_refused(world, tmp_path, monkeypatch):
    site = Place(world, tmp_path)
    site.take()
    whole, snapshots = site.path.read_bytes(), site.server.snapshots

    def is_refused():
        site.path.write_bytes(whole)
        return snapshots.load() is None

    assert not is_refused()  # negative control
    with monkeypatch.context() as patch:
        patch.setattr(snapshot_file, "VERSION", 2)
        assert is_refused()
    config = snapshots._config
    others = {
        "embedding": EmbeddingPolicy(dimensions=3, metric="cosine"),
        "limits": replace(config.limits, max_items_per_partition=7),
        "server": replace(config.server, vectors="none"),
    }
    for name, other in others.items():
        snapshots._config = replace(config, **{name: other})
        assert is_refused(), name
    snapshots._config = config
    world.now_s -= 3600.0
    assert is_refused()
    world.now_s += 3600.0
    monkeypatch.setattr(view_snapshots, "HISTORY_EVENTS", -1)
    assert is_refused()


def test_one_of_another_prefix_or_of_topics_made_anew_is_refused(world, tmp_path):
    site = Place(world, tmp_path)
    site.take()
    whole = site.path.read_bytes()
    other = TidyWorld(3)
    other.topics = replace(other.topics, prefix="u.")
    settings = expected_topics(other.topics, other.limits.max_record_bytes)
    other.broker.create_topics(settings)
    (tmp_path / "u.view.snapshot").write_bytes(whole)
    assert not Place(other, tmp_path).was_resumed

    topics = world.topics
    (anew,) = (one for one in settings_of(world) if one.name == topics.changes)
    world.broker.delete_topic(topics.changes)
    world.broker.create_topics([anew])
    assert not Place(world, tmp_path).was_resumed


def settings_of(world):
    return expected_topics(world.topics, world.limits.max_record_bytes)


def test_marks_outside_of_the_logs_are_refused(world, tmp_path):
    site = Place(world, tmp_path)
    site.take()
    whole, topics = site.path.read_bytes(), world.topics
    log = world.broker._topics.log(topics.assignments, 1)
    high, log.high = log.high, log.high - 1
    assert site.server.snapshots.load() is None
    log.high = high
    site.path.write_bytes(whole)
    assert site.server.snapshots.load() is not None  # negative control
    put(world, 1, CORNERS[0])
    world.settle()
    world.broker.truncate(topics.changes, 1, world.broker.ranges(topics.changes)[1].high)
    assert site.server.snapshots.load() is None


# writing


def test_a_disk_that_fails_is_told_and_nothing_else_happens(world, tmp_path):
    folder = tmp_path / "no-folder"
    folder.write_text("a file")
    site = Place(world, folder)
    site.begin()
    site.later.run()
    site.server.snapshots._look()

    assert not site.server.snapshots._last
    assert site.ok("/stats")["items"] == 24
    assert folder.read_text() == "a file"


def test_vectors_that_are_forgotten_meanwhile_leave_no_file(world, tmp_path):
    site = Place(world, tmp_path)
    site.begin()
    with site.server.desk.changed:
        site.server.desk.search_by(None)
    site.later.run()

    assert os.listdir(tmp_path) == []


def test_the_last_one_is_made_at_the_end_but_not_of_a_view_with_a_gap(world, tmp_path):
    for is_whole in (False, True):
        site = Place(world, tmp_path)
        site.later.is_prompt = True
        site.server.snapshots.close(site.server.desk, site.server.follower, is_whole=is_whole)
        assert site.path.exists() == is_whole

    late = Place(world, tmp_path)
    assert late.was_resumed
    assert items(late) == items(site)


def test_nothing_new_is_not_written_again(world, tmp_path):
    site = Place(world, tmp_path)
    site.take()
    before = site.path.stat().st_mtime_ns
    site.begin()
    assert not site.later.calls
    put(world, 100, CORNERS[0])
    world.settle()
    site.follow()
    site.take()

    assert site.path.stat().st_mtime_ns > before
    assert os.listdir(tmp_path) == [site.path.name]


# what else goes on


def test_frames_and_live_streams_go_on_where_they_were(world, tmp_path):
    site = Place(world, tmp_path)
    for i in range(8):
        world.now_s += 10.0
        put(world, i, CORNERS[(i + 1) % 4])
        world.settle()
        site.follow()
        take_frame(site.server.desk)
    site.take()
    late = Place(world, tmp_path)

    told = late.ok("/frames")["items"]
    assert told == site.ok("/frames")["items"]
    assert len(told) == 8
    rings = [one.server.streams._hub.ring for one in (site, late)]
    for ring in rings:
        events = [ring.get(n) for n in range(ring.oldest, ring.next)]
        found = sorted((e.partition, e.offset, e.body) for e in events if e.channel == CHANGES)
        assert len(found) == 24 + 8
        ring.found = found if ring is rings[0] else None
        assert found == rings[0].found
    start = {(CHANGES, 0): min(o for p, o, _ in rings[0].found if p == 0)}
    assert rings[1].find(start, frozenset([CHANGES]))[1] == 0  # nothing is missing
