"""When snapshots are written, which are used, and that nothing of it ends a service."""

from __future__ import annotations

import os
import resource
import threading
import time

import pytest

from benchmarks._inprocess import Inline
from pipeline.errors import FatalError, TransientError
from pipeline.services.assigner.pace import SlicePace
from pipeline.services.assigner.snapshots import CLOSE_LIMIT_S, REFRESH_S, Snapshots
from pipeline.services.scribe import LEFTOVER_S, OneThread
from pipeline.state.policy import StatePolicy
from pipeline.state.snapshot import SnapshotError
from tests.simulation.world import World

INTERVAL_S = 10.0
HALF_OF_RETENTION_S = 3.5 * 86_400
"""What topics are made with: seven days."""


class Told:
    """Reports, as a test reads them."""

    def __init__(self):
        self.written, self.failed, self.rejected, self.stood = [], [], [], []

    def snapshot_written(self, partition, **figures):
        self.written.append((partition, figures))

    def snapshot_failed(self, partition, problem):
        self.failed.append((partition, problem))

    def snapshot_rejected(self, partition, reason):
        self.rejected.append((partition, reason))

    def snapshot_stands(self, partition):
        self.stood.append(partition)


class Owner:
    """An assigner with everything settled, whose snapshots a test turns by hand."""

    def __init__(self, folder, *, executor=None):
        self.world = world = World(3, n_partitions=1)
        world.crash_rate = 0.0
        world.start_assigner("a0")
        world.start_reclusterer()
        world.write(60)
        world.settle()
        self.assigner = world.assigners["a0"]
        self.engine, self.told = self.assigner.engine, Told()
        self.n_fences = 0
        self.snapshots = Snapshots(
            StatePolicy(str(folder), snapshot_interval_s=INTERVAL_S),
            world.broker,
            self.engine,
            "t.assigner",
            lambda: world.now_s,
            self.told,
            executor or Inline(),
            lambda: world.now_s,
            SlicePace(n_rows=4, min_rows=4, max_rows=4),
        )
        self.path = self.snapshots._path(0)

    def fence(self, partition):
        self.n_fences += 1
        return self.assigner._fence(partition)

    def step(self, n=1, *, after_s=0.0):
        self.world.now_s += after_s
        for _ in range(n):
            self.snapshots.step([0], self.fence)

    def write_one(self):
        self.step()  # notes when it is due
        self.step(20, after_s=INTERVAL_S)


@pytest.fixture
def owner(tmp_path):
    return Owner(tmp_path / "state")


def test_nothing_is_written_before_the_interval_is_over(owner):
    owner.step(5)
    owner.step(5, after_s=INTERVAL_S - 1)
    assert not owner.path.exists()

    owner.step(20, after_s=1)

    ((partition, figures),) = owner.told.written
    assert partition == 0
    assert figures["n_rows"] == len(owner.engine.partitions[0].members) > 8
    assert figures["n_bytes"] == owner.path.stat().st_size
    assert owner.n_fences == 1
    assert owner.path == owner.path.parents[1] / "t.assigner" / "0.snapshot"


def test_what_was_written_is_found_with_every_member(owner):
    owner.write_one()

    snapshot = owner.snapshots.find(0)

    members = owner.engine.partitions[0].members
    keys = [key for rows in snapshot.slices() for key in rows.keys]
    assert sorted(keys) == sorted(members)
    assert snapshot.next_offset == owner.engine.partitions[0].next_offset
    assert snapshot.published == owner.engine.partitions[0].published


def test_a_snapshot_that_still_says_everything_is_not_written_again_until_it_grows_old(owner):
    owner.write_one()

    owner.step(20, after_s=INTERVAL_S)
    assert (len(owner.told.written), owner.told.stood) == (1, [0])

    owner.world.write(3)
    owner.world.turn("a0")
    owner.step(20, after_s=INTERVAL_S)
    assert len(owner.told.written) == 2

    owner.step(20, after_s=REFRESH_S + 1)
    assert len(owner.told.written) == 3


def test_it_is_abandoned_when_the_commit_is_refused(owner):
    owner.fence = lambda _: False

    owner.write_one()

    assert not owner.told.written
    assert list(owner.path.parent.iterdir()) == []


def test_it_is_abandoned_when_the_partition_goes(owner):
    owner.step()
    owner.step(1, after_s=INTERVAL_S)
    assert len(list(owner.path.parent.iterdir())) == 1  # begun

    owner.snapshots.forget({0})

    assert list(owner.path.parent.iterdir()) == []


def test_it_is_abandoned_when_a_new_epoch_comes(owner):
    owner.step()
    owner.step(1, after_s=INTERVAL_S)

    owner.world.command(force=True)
    owner.world.settle()
    owner.step()

    assert list(owner.path.parent.iterdir()) == []


def test_no_snapshot_is_written_while_there_are_ghosts(owner):
    members = owner.engine.partitions[0].members
    members.ghosts = {b"ghost": None}

    owner.write_one()

    assert not owner.path.exists()


def test_no_snapshot_is_begun_while_the_broker_is_away(owner):
    owner.world.broker.is_away = True

    owner.write_one()

    assert not owner.told.written
    assert not owner.told.failed


def test_one_that_is_too_old_for_the_tombstones_is_refused_and_removed(owner):
    owner.write_one()
    owner.world.now_s += HALF_OF_RETENTION_S - 1
    assert owner.snapshots.find(0) is not None

    owner.world.now_s += 2

    assert owner.snapshots.find(0) is None
    assert "tombstone" in owner.told.rejected[0][1]
    assert not owner.path.exists()
    assert owner.snapshots.find(0) is None
    assert len(owner.told.rejected) == 1  # there is none: nothing to tell


def test_one_from_the_future_is_refused(owner):
    owner.write_one()
    owner.world.now_s -= 60

    assert owner.snapshots.find(0) is None
    assert "a clock was set back" in owner.told.rejected[0][1]


def test_one_that_is_damaged_is_refused_and_removed(owner):
    owner.write_one()
    owner.path.write_bytes(owner.path.read_bytes()[:-1])

    assert owner.snapshots.find(0) is None
    assert owner.told.rejected
    assert not owner.path.exists()


def test_one_of_topics_that_were_made_anew_is_refused(owner):
    owner.write_one()
    broker, name = owner.world.broker, owner.world.topics.vectors
    settings = broker.topics([name])[name]
    broker.delete_topic(name)
    broker.create_topics([settings])
    owner.snapshots._topic_ids = None  # as a process that starts

    assert owner.snapshots.find(0) is None
    assert "it is of topics" in owner.told.rejected[0][1]


def test_a_process_that_ends_leaves_a_last_snapshot(owner):
    owner.snapshots.close([0], owner.fence)

    assert owner.snapshots.find(0).n_rows == len(owner.engine.partitions[0].members)


def test_a_process_that_ends_goes_on_with_the_one_that_was_begun(tmp_path):
    owner = Owner(tmp_path, executor=OneThread())
    owner.step()
    owner.step(1, after_s=INTERVAL_S)

    owner.snapshots.close([0], owner.fence)

    assert [partition for partition, _ in owner.told.written] == [0]
    assert owner.snapshots.find(0) is not None


@pytest.mark.parametrize("error", [TransientError("away"), FatalError("fenced")])
def test_a_process_that_ends_does_not_mind_what_keeps_it_from_writing(owner, error):
    def fence(_):
        raise error

    owner.snapshots.close([0], fence)

    assert list(owner.path.parent.iterdir()) == []


def test_a_disk_that_hangs_holds_up_neither_the_loop_nor_the_end(tmp_path):
    executor, released = OneThread(), threading.Event()
    owner = Owner(tmp_path, executor=executor)
    executor.submit(released.wait)
    ticking = iter(range(10**9))
    owner.snapshots.clock = lambda: 1e6 + CLOSE_LIMIT_S / 50 * next(ticking)
    try:
        for _ in range(200):
            owner.snapshots.step([0], owner.fence)
        assert not owner.told.written
        assert len(owner.snapshots._running.pending) <= 5  # slices in memory, whatever comes

        owner.snapshots.clock = lambda: 1e9 + CLOSE_LIMIT_S * next(ticking)
        owner.snapshots.close([0], owner.fence)
    finally:
        released.set()
    assert not owner.told.written


def test_a_full_disk_is_told_and_counted_and_the_older_snapshot_stays(owner):
    owner.write_one()
    before = owner.path.read_bytes()
    owner.world.write(3)
    owner.world.turn("a0")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        owner.step(20, after_s=INTERVAL_S)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    ((partition, problem),) = owner.told.failed
    assert partition == 0 and "File too large" in problem
    assert owner.path.read_bytes() == before
    assert [path.name for path in owner.path.parent.iterdir()] == ["0.snapshot"]
    owner.step(20, after_s=INTERVAL_S)  # there is room again
    assert len(owner.told.written) == 2


def test_a_folder_that_cannot_be_written_to_is_told_at_the_start_and_is_no_end(tmp_path):
    (tmp_path / "state").write_text("a file where a folder should be")  # root may write anywhere
    owner = Owner(tmp_path / "state")

    owner.snapshots.check()
    owner.write_one()

    assert [partition for partition, _ in owner.told.failed] == [None, 0]
    assert all("Not a directory" in problem for _, problem in owner.told.failed)
    assert owner.snapshots.find(0) is None


def test_what_a_killed_process_left_unfinished_is_removed_once_nobody_can_be_writing_it(owner):
    owner.path.parent.mkdir(parents=True)

    fresh, old = (owner.path.with_name(f"0.snapshot.{name}") for name in ("fresh", "old"))
    for path in (fresh, old):
        path.touch()
    os.utime(old, times=(time.time() - LEFTOVER_S - 60,) * 2)

    owner.write_one()

    assert fresh.exists() and not old.exists()


def test_a_group_is_a_folder_whatever_its_name(owner):
    for group in ("..", ".", "a/../../b", "/etc"):
        owner.snapshots.group = group
        path = owner.snapshots._path(0)
        assert path.parents[1] == owner.path.parents[1]
        assert path.parent.name not in ("..", ".")


def test_the_thread_tells_what_the_disk_said():
    executor = OneThread()

    def fail(error):
        raise error

    for error in (OSError(28, "full"), SnapshotError("no")):
        with pytest.raises(type(error)):
            executor.submit(fail, error).result(5)
    assert executor.submit(len, "ab").result(5) == 2
    executor.shutdown()
