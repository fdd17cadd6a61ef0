"""A partition read back from a snapshot is the one that the topics tell, whenever it was taken.

Snapshots here are fuzzy as they are in a service: their slices are captured while the history goes
on. Nothing is held against what the owner remembers alone: the topics are asked each time, too.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.engine.setting import EngineSettings
from pipeline.errors import AbortedError
from pipeline.messages.model import model_records
from pipeline.messages.policy import EventPolicy
from pipeline.services.assigner.restore import Restore
from pipeline.state.snapshot import Identity, Marks, SnapshotWriter, capture, open_snapshot
from tests.engine.house import WEST_EAST, model
from tests.services.assigner.test_restore import GROUP, T0, Site

IDENTITY = Identity(
    0, GROUP, {"in": "x"}, 2, "float32", "euclidean", 256.0, None, None, (), "compact"
)
N_ITEMS = 12
SLICE = 3
POLICIES = ["compact", "delete"]


class Owner(Site):
    """Lives at random, and takes snapshots of it in slices."""

    def __init__(self, seed, policy, folder):
        super().__init__(policy, model(WEST_EAST, input_policy=policy))
        self.rng = np.random.default_rng(seed)
        self.policy, self.epoch, self.path = policy, 1, folder / "0.snapshot"
        self.settings: EngineSettings = dataclasses.replace(
            self.settings, events=EventPolicy(metadata=("colour",))
        )
        self.engine.settings = self.settings

    @property
    def state(self):
        return self.engine.partitions[0]

    def live(self, n_steps):
        for _ in range(n_steps):
            fate = self.rng.random()
            if fate < 0.8:
                self.something_of_an_item()
            elif fate < 0.85:
                self.commit(self.engine.publish_statistics(0))
            elif fate < 0.9:
                self.new_model()
            elif self.state.to_sweep:
                self.commit(self.engine.sweep(0, max_rows=2))

    def something_of_an_item(self):
        item, vector = f"i{self.rng.integers(N_ITEMS)}", self.rng.integers(-4, 5, 2).tolist()
        fate, hours = self.rng.random(), int(self.rng.integers(9))
        if self.rng.random() < 0.1:
            self.abort()
        if fate < 0.6:
            self.write(item, vector, hours, sequence=int(self.rng.integers(4)))
        elif fate < 0.7:
            self.write(item, b'{"vector": [1, 2], "metadata": {"colour": "red"}}', hours)
        elif fate < 0.8:
            self.write(item, b"no vector", hours)
        elif fate < 0.95:
            self.write(item, None, hours)

    def abort(self):
        """A transaction that left its records in the logs, and no more."""
        self.broker.faults = {self.broker.n_commits: "aborted"}
        changes = self.engine.publish_statistics(0)
        with pytest.raises(AbortedError):
            self.stream.commit(changes.outgoing, changes.next_offsets)
        self.stream.rewind()

    def new_model(self):
        self.epoch += 1
        angle = self.rng.random() * 6
        turned = WEST_EAST @ np.array(
            [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32
        )
        newer = model(
            turned, epoch=self.epoch, input_policy=self.policy,
            clusters=(f"c{self.epoch}", f"c{self.epoch + 1}"),
        )  # fmt: skip
        for out in model_records(newer, self.topics.model):
            self.broker.append(out.topic, 0, out.key, out.value)
        self.engine.install_model(newer)

    def compact(self, *, keep_tombstones=True):
        for topic in (self.topics.assignments, self.topics.vectors, self.topics.statistics):
            self.broker.compact(topic, 0, keep_tombstones=keep_tombstones)
        if self.policy == "compact":
            self.broker.compact("in", 0, keep_tombstones=keep_tombstones)

    def marks(self):
        topics, high = self.topics, lambda name: self.broker.ranges(name)[0].high
        changelogs = (topics.assignments, topics.vectors, topics.statistics)
        return Marks(self.state.next_offset, *map(high, changelogs))

    def snapshot(self, n_steps=0, *, marks_after=0):
        """Write one, living on between its slices; the marks belong before the first of them."""
        while self.state.members.ghosts:
            self.live(1)
        slices, marks = [], self.marks()
        start = 0
        while start < self.state.members.n_rows:
            rows = capture(self.state.members, self.engine.table.ids, start, start + SLICE)
            slices.append(rows)
            start += SLICE
            self.live(n_steps)
            if len(slices) == marks_after:
                marks = self.marks()
        writer = SnapshotWriter(
            self.path, IDENTITY, marks, created_at_ms=T0, published=frozenset(self.state.published)
        )
        for rows in slices:
            writer.add(rows)
        writer.finish(self.state.next_offset)

    def read_back(self, find=None, reject=None):
        committed = self.broker.committed(GROUP, "in")
        run = Restore(self.broker, self.settings, committed, find=find, reject=reject).run()
        read = []
        while True:
            try:
                read.append(next(run))
            except StopIteration as end:
                (found,) = end.value.partitions.values()
                again = self.new_engine(end.value.model)
                again.adopt(found)
                return again, end.value, read

    def from_topics(self):
        return view(self.read_back()[0])

    def from_snapshot(self):
        told = []
        again, result, _ = self.read_back(
            lambda n: open_snapshot(self.path, IDENTITY), lambda n, why: told.append(why)
        )
        assert told == []
        assert result.sources == {0: "snapshot"}
        return view(again)


def view(engine):
    """All that a restored partition says, with the names of clusters for their labels."""
    state, ids = engine.partitions[0], engine.table.ids
    members = state.members
    columns = ("sequences", "offsets", "kept", "timestamps")
    return {
        "items": {
            key: [
                ids[members.labels[row]], members.vectors[row].tolist(),
                *(getattr(members, name)[row].item() for name in columns),
            ]
            for key, row in members.items()
        },
        "metadata": members.metadata,
        "ghosts": {k: (ids[g.label], *g[1:]) for k, g in members.ghosts.items()},
        "sums": {
            cluster: [getattr(state.sums, name)[label].tolist() for name in state.sums.arrays]
            for label, cluster in enumerate(ids)
            if state.sums.counts[label]
        },
        "published": state.published,
        "next_offset": state.next_offset,
    }  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(12))
def test_any_snapshot_and_what_came_after_it_is_what_the_topics_say(seed, policy, tmp_path):
    owner = Owner(seed, policy, tmp_path)
    owner.live(int(owner.rng.integers(60)))
    owner.snapshot(n_steps=int(owner.rng.integers(12)))
    for _ in range(6):  # dies at any of these moments
        assert owner.from_snapshot() == owner.from_topics()
        owner.live(int(owner.rng.integers(8)))
        if owner.rng.random() < 0.4:
            owner.compact()
    assert owner.from_snapshot()["items"].keys() == {*owner.state.members}


@pytest.mark.parametrize("policy", POLICIES)
def test_topics_whose_tombstones_are_gone_still_tell_all_of_it(policy, tmp_path):
    for seed in range(3):
        owner = Owner(seed, policy, tmp_path)
        owner.live(80)
        before = owner.from_topics()
        owner.compact(keep_tombstones=False)

        assert owner.from_topics() == before
        assert before["items"].keys() == {*owner.state.members}


# --- controls -------------------------------------------------------------------------------------


def wrong(owner):
    """Whether a snapshot tells something else than the topics, or is found out."""
    told = []
    again, _, _ = owner.read_back(
        lambda n: open_snapshot(owner.path, IDENTITY), lambda n, why: told.append(why)
    )
    return view(again) != owner.from_topics()


@pytest.mark.parametrize("policy", POLICIES)
def test_control_marks_that_are_noted_after_the_first_slice_lose_something(policy, tmp_path):
    caught = []
    for seed in range(8):
        owner = Owner(seed, policy, tmp_path)
        owner.live(50)
        owner.snapshot(n_steps=6, marks_after=2)
        caught.append(wrong(owner))

    assert sum(caught) >= 2


def test_control_a_snapshot_older_than_the_tombstones_brings_the_dead_back(tmp_path):
    owner = Owner(1, "compact", tmp_path)
    for n in range(N_ITEMS):
        owner.write(f"i{n}", [n, 1], 1)
    owner.snapshot()
    owner.write("i3", None, 2)
    assert owner.from_snapshot() == owner.from_topics()

    owner.compact(keep_tombstones=False)

    assert b"i3" in owner.from_snapshot()["items"]
    assert b"i3" not in owner.from_topics()["items"]


# --- snapshots that do not fit --------------------------------------------------------------------


def at_rest(tmp_path, policy="compact"):
    owner = Owner(3, policy, tmp_path)
    for n in range(N_ITEMS):
        owner.write(f"i{n}", [n, 1], 1)
    owner.commit(owner.engine.publish_statistics(0))
    owner.snapshot()
    return owner


def refused(owner, **changes):
    """Why a snapshot with these changes is left aside; what is read is right all the same."""
    told = []
    again, result, _ = owner.read_back(
        lambda n: dataclasses.replace(open_snapshot(owner.path, IDENTITY), **changes),
        lambda n, why: told.append((n, why)),
    )
    assert view(again) == owner.from_topics()
    assert result.sources == {0: "topic"}
    ((partition, why),) = told
    assert partition == 0
    return why


def test_one_of_an_offset_that_nobody_committed_is_left_aside(tmp_path):
    assert "12 is committed" in refused(at_rest(tmp_path), next_offset=13)


@pytest.mark.parametrize("name", ["assignments", "vectors", "statistics"])
def test_one_whose_marks_are_beyond_the_logs_is_left_aside(name, tmp_path):
    owner = at_rest(tmp_path)
    marks = dataclasses.replace(owner.marks(), **{name: 10**6})

    assert "not its 1000000" in refused(owner, marks=marks)


def test_one_from_before_the_beginning_of_a_compacted_input_is_left_aside(tmp_path):
    owner = at_rest(tmp_path)
    owner.write("i0", [2, 2], 1)
    owner.broker.truncate("in", 0, before=13)

    assert "begins at 13" in refused(owner)


def test_retention_of_an_input_that_is_not_compacted_does_no_harm(tmp_path):
    owner = at_rest(tmp_path, "delete")
    owner.write("i0", [2, 2], 1)
    owner.write("i4", None, 1)
    owner.broker.truncate("in", 0, before=14)

    assert owner.from_snapshot() == owner.from_topics()
    assert len(owner.from_snapshot()["items"]) == N_ITEMS - 1


def test_one_of_another_embedding_model_is_left_aside(tmp_path):
    other = dataclasses.replace(IDENTITY, embedding_since=7)

    assert "embedding model" in refused(at_rest(tmp_path), identity=other)


def test_one_that_lacks_an_item_which_was_assigned_before_it_is_left_aside(tmp_path):
    owner = at_rest(tmp_path)
    owner.new_model()
    while owner.state.to_sweep:
        owner.commit(owner.engine.sweep(0, max_rows=3))
    assert owner.from_snapshot() == owner.from_topics()
    marks = owner.marks()
    told = open_snapshot(owner.path, IDENTITY)
    writer = SnapshotWriter(
        owner.path, IDENTITY, dataclasses.replace(told.marks, next_offset=marks.next_offset),
        created_at_ms=T0, published=frozenset(),
    )  # fmt: skip
    writer.finish(marks.next_offset)

    assert "lacks its row" in refused(owner)


def test_one_that_turns_out_to_be_damaged_is_left_aside(tmp_path):
    owner = at_rest(tmp_path)
    damaged = bytearray(owner.path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    owner.path.write_bytes(damaged)

    assert "damaged" in refused(owner)


def test_how_far_it_is_goes_from_nothing_to_all(tmp_path):
    owner = at_rest(tmp_path)
    owner.live(20)
    for find in (None, lambda n: open_snapshot(owner.path, IDENTITY)):
        _, _, read = owner.read_back(find)
        ratios = [part.ratio for part in read]

        assert ratios == sorted(ratios)
        assert 0.0 < ratios[0] < 1.0
        assert ratios[-1] == 1.0
    assert {part.source for part in read} == {"snapshot", "topic"}
    assert sum(part.n_records for part in read if part.source == "snapshot") == N_ITEMS
