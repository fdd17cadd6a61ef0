"""Members held against newer models: only those whose proof is spent, and never a wrong label."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.cluster_engine import Restored
from pipeline.state.members import Members, Version
from tests import naive
from tests.engine.house import KERNELS, TOPICS, engine, model, of_topic, record, write

LINE = np.array([[-10.0, 0.0], [0.0, 0.0], [10.0, 0.0]], np.float32)


def shifted(x):
    """The centroids on the line, moved along it."""
    return LINE + np.array([x, 0], np.float32)


class Counting:
    """Kernels that note how many points they were asked about."""

    name = "cpu"
    load = staticmethod(KERNELS.load)
    accumulate = staticmethod(KERNELS.accumulate)

    def __init__(self):
        self.n_points = 0

    def assign(self, device, points, *, second=False):
        self.n_points += len(points)
        return KERNELS.assign(device, points, second=second)


def on_a_line(places, **settings):
    """An engine that has swept one item at each place of the first axis: i0, i1, ..."""
    made = engine(first=model(LINE), **settings)
    write(made, [record(n, f"i{n}", [x, 0]) for n, x in enumerate(places)])
    sweep(made)
    made.kernels = Counting()
    return made


def slice_of(made, max_rows=2):
    changes = made.sweep(0, max_rows=max_rows)
    made.install(changes)
    return changes


def sweep(made, max_rows=2):
    out = []
    while made.partitions[0].to_sweep:
        out += slice_of(made, max_rows).outgoing
    return out


def events(outgoing):
    return [json.loads(out.value) for out in of_topic(outgoing, TOPICS.changes)]


def moves(outgoing):
    return [(e["id"], e["from"], e["to"]) for e in events(outgoing)]


def check(made, partition=0):
    """Proven or swept labels are the canonical argmin; statistics are those of the members."""
    state, centroids = made.partitions[partition], made.loaded.model.centroids
    members, rows = state.members, state.members.occupied()
    labels = members.labels[rows]
    nearest = np.array(naive.assign(members.vectors[rows], centroids)[0], np.int32)
    to_sweep = {row for span in state.to_sweep for row in span}
    is_swept = np.array([row not in to_sweep for row in rows.tolist()], bool)
    is_proven = members.proofs[rows] > made.drift[labels]
    sure = is_swept | is_proven
    assert labels[sure].tolist() == nearest[sure].tolist()
    counts, sums, squares = naive.statistics(
        members.vectors[rows], labels, len(made.table),
        max_component=made.loaded.model.manifest.max_component,
    )  # fmt: skip
    assert state.sums.counts.tolist() == counts
    assert state.sums.sums.tolist() == sums
    assert naive.square_totals(state.sums.squares) == squares


# --- what is looked at --------------------------------------------------------------------


def test_a_revision_looks_only_at_members_whose_proof_is_spent():
    made = on_a_line([-10, -6, -5.1, 0, 4.9, 10])

    made.install_model(model(shifted(0.5), revision=1))
    assert made.n_unproven() == 2  # i2 and i4

    assert sweep(made) == []
    assert made.kernels.n_points == 2
    check(made)


def test_a_member_that_the_centroids_leave_behind_moves():
    made = on_a_line([-10, -5.1, 0, 4.9])

    made.install_model(model(shifted(-0.5), revision=1))

    assert moves(sweep(made)) == [("model/1.1/i1", "c1", "c2"), ("model/1.1/i3", "c2", "c3")]
    check(made)


def test_small_steps_add_up():
    made = on_a_line([4.0])

    labels = []
    for revision in range(1, 9):
        made.install_model(model(shifted(-0.25 * revision), revision=revision))
        sweep(made)
        labels.append(int(made.partitions[0].members.labels[0]))
        check(made)

    assert labels == [1, 1, 1, 1, 2, 2, 2, 2]  # at the fourth step as near to both
    assert made.kernels.n_points < 8


def test_an_epoch_looks_at_everybody():
    made = on_a_line([-10, -6, 0, 6, 10])

    made.install_model(model(LINE, epoch=2))
    sweep(made)

    assert made.kernels.n_points == 5


def test_a_restored_partition_is_looked_at_from_the_start():
    made = on_a_line([])
    members = Members(2)
    rows = members.put([b"a", b"b", b"c"])
    members.vectors[rows] = np.array([[-10, 0], [0, 0], [9, 0]], np.float32)

    made.adopt(Restored(1, 3, members, ["c1", "c2", "c2"], {}, set(), 3))

    assert (made.n_unproven(), made.partitions[1].sweep_pending) == (3, 3)
    changes = made.sweep(1, max_rows=10)
    assert moves(changes.outgoing) == [("model/1.0/c", "c2", "c3")]


def test_rows_that_are_free_are_never_looked_at():
    made = on_a_line([-10, 4.9, 10])
    write(made, [record(3, "i1", None)])

    made.install_model(model(shifted(0.5), revision=1))
    made.install_model(model(LINE, epoch=2))

    assert made.n_unproven() == 2
    assert sweep(made) == []
    assert made.kernels.n_points == 2


def test_who_is_as_near_to_two_is_looked_at_again_and_stays_with_the_first():
    made = on_a_line([5, -5])

    made.install_model(model(LINE, revision=1))

    assert made.n_unproven() == 2
    assert sweep(made) == []
    check(made)


def test_one_slice_looks_over_many_proven_rows_and_compares_no_more_than_told():
    made = on_a_line([-10] * 50 + [4.9] * 3 + [10] * 50)

    made.install_model(model(shifted(0.5), revision=1))
    first = slice_of(made)

    assert first.tally.n_checked == 2
    assert made.partitions[0].sweep_pending == 51
    assert slice_of(made).tally.n_checked == 1
    assert made.partitions[0].swept_to == Version(1, 1)


# --- in the middle of a sweep -------------------------------------------------------------


def test_a_revision_in_the_middle_of_a_sweep_goes_round_once_from_there():
    made = on_a_line([4.9] * 6)
    made.install_model(model(shifted(0.5), revision=1))
    slice_of(made)

    made.install_model(model(shifted(1.0), revision=2))

    assert made.partitions[0].to_sweep == (range(2, 6), range(2))
    slice_of(made)
    assert made.partitions[0].swept_to == Version(1, 0)
    sweep(made)
    assert made.partitions[0].swept_to == Version(1, 2)
    check(made)


def test_an_epoch_in_the_middle_of_a_sweep_goes_round_once_from_there():
    made = on_a_line([4.9] * 3 + [-10] * 3)
    made.install_model(model(shifted(-0.5), revision=1))
    before = slice_of(made).outgoing

    made.install_model(model(LINE[:2], epoch=2, clusters=("c1", "c3")))
    assert made.n_unproven() == 6
    out = sweep(made)

    assert [m[0] for m in moves(before)] == ["model/1.1/i0", "model/1.1/i1"]
    assert moves(out) == [("model/2.0/i2", "c2", "c3")]
    assert made.partitions[0].swept_to == Version(2, 0)
    check(made)


def test_rows_that_come_after_the_revision_do_not_make_the_round_longer():
    made = on_a_line([4.9] * 4)
    made.install_model(model(shifted(0.5), revision=1))

    slice_of(made)
    write(made, [record(4 + n, f"new{n}", [9, n]) for n in range(100)])
    slice_of(made)

    assert made.partitions[0].to_sweep == ()
    check(made)


def test_a_slice_that_was_aborted_comes_again_as_it_was():
    made = on_a_line([4.9] * 3)
    made.install_model(model(shifted(-0.5), revision=1))

    aborted = made.sweep(0, max_rows=2)

    assert made.sweep(0, max_rows=2).outgoing == aborted.outgoing
    assert made.n_unproven() == 3


def test_a_retired_cluster_gets_its_null_though_revisions_never_cease():
    made = on_a_line([-10, 0, 10])
    made.install(made.publish_statistics(0))
    made.install_model(model(LINE[:2], epoch=2, clusters=("c1", "c2")))
    sweep(made)
    made.install_model(model(shifted(1)[:2], epoch=2, revision=1, clusters=("c1", "c2")))

    published = made.publish_statistics(0)
    made.install(published)

    nulls = [out.key for out in of_topic(published.outgoing, TOPICS.statistics) if not out.value]
    assert nulls == [b"0/c3"]
    assert made.table.ids == ["c1", "c2"]
    assert len(made.drift) == 2


def test_a_revision_makes_nothing_dirty_and_an_epoch_everything():
    made = on_a_line([-10, 0, 10])
    made.install(made.publish_statistics(0))

    made.install_model(model(shifted(0.1), revision=1))
    sweep(made)
    assert not made.partitions[0].dirty.any()
    assert made.partitions[0].head_is_due  # the head says how far the sweep is

    made.install_model(model(LINE, epoch=2))
    assert made.partitions[0].dirty.all()


# --- any history --------------------------------------------------------------------------


class History:
    """A life of one partition, from a seed; every step is checked."""

    def __init__(self, seed, metric):
        self.rng, self.metric = np.random.default_rng(seed), metric
        self.version, self.n_offsets = Version(1, 0), 0
        self.made = engine(first=self.model(self.places(int(self.rng.integers(1, 5)))))
        self.seen, self.at = set(), {}

    def places(self, n):
        """Centroids on a grid: ties and duplicates are common."""
        found = self.rng.integers(-2, 3, (n, 2)).astype(np.float64)
        if self.metric == "cosine":
            found[~found.any(axis=1)] = [1, 0]
            found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found.astype(np.float32)

    def model(self, centroids, clusters=None):
        about = {"metric": "cosine", "max_component": 1.0} if self.metric == "cosine" else {}
        epoch, revision = self.version
        return model(centroids, epoch=epoch, revision=revision, clusters=clusters, **about)

    def step(self):
        fate = self.rng.random()
        if fate < 0.4:
            self.write()
        elif fate < 0.65:
            self.revise()
        elif fate < 0.72:
            self.refit()
        else:
            self.slice()
        check(self.made)

    def write(self):
        records = []
        for _ in range(int(self.rng.integers(1, 5))):
            vector = None if self.rng.random() < 0.25 else self.rng.integers(-2, 3, 2)
            records.append(record(self.n_offsets, f"i{self.rng.integers(8)}", vector))
            self.n_offsets += 1
        self.take(write(self.made, records))

    def revise(self):
        current = self.made.loaded.model
        self.version = Version(self.version.epoch, self.version.revision + 1)
        moved, n = current.centroids.copy(), len(current.centroids)
        who = self.rng.random(n) < 0.5
        if self.metric == "cosine" or self.rng.random() < 0.3:
            moved[who] = self.places(n)[who]  # anywhere
        else:
            moved[who] += self.rng.choice([-0.25, 0.0, 0.25, 0.5], (n, 2))[who]
        self.install(self.model(moved, current.manifest.clusters))

    def refit(self):
        self.version = Version(self.version.epoch + 1, 0)
        n = int(self.rng.integers(1, 5))
        names = tuple(f"c{i}" for i in sorted(self.rng.choice(range(1, 9), n, replace=False)))
        self.install(self.model(self.places(n), names))

    def install(self, newer):
        assert self.made.install_model(newer)

    def slice(self):
        if self.made.partitions[0].to_sweep:
            self.take(slice_of(self.made, int(self.rng.integers(1, 4))).outgoing)

    def settle(self):
        self.take(sweep(self.made))
        check(self.made)
        members = self.made.partitions[0].members
        ids = self.made.table.ids
        assert self.at == {key.decode(): ids[members.labels[row]] for key, row in members.items()}

    def take(self, outgoing):
        for event in events(outgoing):
            assert event["id"] not in self.seen, f"{event['id']} occurs twice"
            self.seen.add(event["id"])
            assert event["from"] == self.at.get(event["item"])
            assert event["from"] != event["to"]
            self.at[event["item"]] = event["to"]
            if event["to"] is None:
                del self.at[event["item"]]


@given(seed=st.integers(0, 2**32), metric=st.sampled_from(["euclidean", "cosine"]))
@settings(max_examples=40, deadline=None)
def test_no_history_of_records_revisions_and_epochs_leaves_a_wrong_label(seed, metric):
    history = History(seed, metric)

    for _ in range(25):
        history.step()

    history.settle()


class Forgetful(History):
    """Control: a bound that knows the own centroid's move and forgets those of the others."""

    def install(self, newer):
        before, centroids = self.made.drift, self.made.loaded.model.centroids
        is_revision = self.made.loaded.is_revised_by(newer)
        super().install(newer)
        if is_revision:
            own = np.linalg.norm(newer.centroids - centroids, axis=1)
            self.made.drift = before + np.pad(own, (0, len(before) - len(own)))


def test_control_a_bound_that_forgets_the_moves_of_the_others_is_caught():
    caught = 0
    for seed in range(10):
        history = Forgetful(seed, "euclidean")
        try:
            for _ in range(25):
                history.step()
        except AssertionError:
            caught += 1

    assert caught >= 5


# --- typicality ---------------------------------------------------------------------------


def test_an_event_says_how_usual_its_item_is_for_the_cluster_as_it_was_fitted():
    quantiles = [[1, 2, 3, 4, 5, 6, 7, 8, 9]] * 3
    made = engine(first=model(LINE, counts=[9, 0, 9], quantiles=quantiles))

    first = events(write(made, [
        record(0, "near", [10.5, 0]), record(1, "median", [10, 4]), record(2, "far", [10, 60]),
        record(3, "unknown", [0, 0]), record(4, "near", None),
    ]))  # fmt: skip
    made.install_model(model(LINE - [0, 4], revision=1, counts=[9, 0, 9], quantiles=quantiles))
    mirrored = LINE[::-1].copy()
    made.install_model(model(mirrored, epoch=2, counts=[9, 9, 9], quantiles=quantiles))
    second = events(sweep(made))

    assert [e["typicality"] for e in first] == [1, 0.5, 0, None, None]
    assert {e["item"]: e["typicality"] for e in second} == {"median": 0.5, "far": 0}


def test_under_cosine_it_is_taken_from_the_distance_between_the_vectors():
    unit = np.array([[1, 0], [-1, 0]], np.float32)
    quantiles = [[0, 0.25, 0.5, 1, 1.25, 1.5, 1.75, 2, 2]] * 2
    made = engine(first=model(
        unit, metric="cosine", max_component=1.0, counts=[5, 5], quantiles=quantiles,
    ))  # fmt: skip

    (event,) = events(write(made, [record(0, "a", [0.5, 0.75**0.5])]))  # 60 degrees: 1 away

    assert event["distance"] == pytest.approx(0.5)
    assert event["typicality"] == pytest.approx(0.5, rel=1e-6)
