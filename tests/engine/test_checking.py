"""What the state claims is held against what it must be; what is wrong is found."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from pipeline.engine import checking
from pipeline.engine.checking import (
    MAX_TERMS,
    Violation,
    check_counts,
    check_labels,
    check_sums,
    distances_squared,
)
from pipeline.engine.cluster_engine import Restored
from pipeline.state.members import Members
from tests import naive
from tests.engine.house import KERNELS, engine, model, record, write
from tests.engine.test_forgetting import at, fading, sweep

CORNERS = np.array([[-9, -9], [-9, 9], [9, -9], [9, 9], [0, 0]], np.float32)
RNG = np.random.default_rng


def crowd(n=60, *, first=None, n_partitions=2, seed=1, dtype=np.float32):
    """An engine with members in every cluster, some of them removed again."""
    made = engine(first=first or model(CORNERS), n_partitions=n_partitions)
    if dtype != np.float32:
        for p in range(n_partitions):
            made.adopt(Restored(p, 0, Members(2, dtype=dtype), [], {}, set(), 0))
    rng = RNG(seed)
    points = rng.normal(0, 8, (n, 2)).astype(np.float16).astype(np.float32)
    records = [
        record(i, f"item-{i}", point, partition=i % n_partitions) for i, point in enumerate(points)
    ]
    write(made, records)
    write(made, [record(n + i, f"item-{i}", None, partition=i % n_partitions) for i in range(9)])
    return made


def looks(made, n=40):
    """Everything that many looks of each kind find, and how much they saw."""
    rng = RNG(0)
    found, n_checked = [], 0
    for look in (
        *(check_labels(made, rng, 16) for _ in range(n)),
        *(check_counts(made, rng) for _ in range(n)),
        *(check_sums(made, rng) for _ in range(n)),
    ):
        found += look.violations
        n_checked += look.n_checked
    return found, n_checked


# The canonical distance


@pytest.mark.parametrize("n_dims", [1, 2, 31, 32, 33, 100, 384])
def test_the_distance_is_the_canonical_one_bit_by_bit(n_dims):
    rng = RNG(n_dims)
    centroids = (rng.normal(size=(7, n_dims)) * 10.0 ** rng.integers(-9, 9, (7, 1))).astype("f4")
    point = rng.normal(size=n_dims).astype(np.float32)

    found = distances_squared(point, centroids)

    assert found.tolist() == [naive.squared_distance(point, c) for c in centroids]
    (kernels_say,) = KERNELS.assign(KERNELS.load(centroids), point[None]).distances_squared
    assert found.min() == kernels_say


# Nothing is wrong


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_state_that_is_right_is_not_blamed(dtype):
    found, n_checked = looks(crowd(dtype=dtype))

    assert found == []
    assert n_checked > 1000


def test_a_tie_belongs_to_the_lower_label():
    made = engine(first=model(np.array([[-1, 0], [1, 0], [1, 0]], np.float32)))
    write(made, [record(0, "middle", [0, 5]), record(1, "twins", [3, 0])])

    assert check_labels(made, RNG(0), 30) == (30, [])


def test_members_that_fade_are_added_up_with_what_they_were_counted_with():
    made = engine(first=fading())
    write(made, [at(i, f"item-{i}", [i - 5, 1], i - 6) for i in range(11)])

    assert looks(made)[0] == []


def test_before_a_model_and_without_members_there_is_nothing_to_look_at():
    assert looks(engine()) == ([], 0)


@pytest.mark.parametrize("epoch", [1, 2])
def test_only_what_the_sweep_has_passed_or_a_proof_stands_for_is_claimed(epoch):
    made = crowd(400, n_partitions=1)
    moved = CORNERS + np.array([[0, 0]] * 4 + [[8, 0]], np.float32)
    made.install_model(model(moved, epoch=epoch, revision=2 - epoch))
    labels = made.partitions[0].members.labels
    nearest = KERNELS.assign(made.loaded.device, made.partitions[0].members.vectors).labels

    n_checked = 0
    while made.partitions[0].to_sweep:
        assert any(labels[9:] != nearest[9:]), "somebody stands where he may not stay"
        found, n_seen = check_labels(made, RNG(n_checked), 200)[::-1]
        assert found == []
        n_checked += n_seen
        made.install(made.sweep(0, max_rows=300))
        labels = made.partitions[0].members.labels

    assert n_checked or epoch == 2  # after an epoch nobody is proven before he is swept
    assert looks(made)[0] == []


def test_an_epoch_that_forgets_and_its_sweep_are_not_blamed():
    made = engine(first=fading())
    write(made, [at(i, f"item-{i}", [i - 5, 1], i - 6) for i in range(11)])
    made.install_model(fading(epoch=2, landmark_ms=1_772_366_400_000 + 7_200_000))

    assert looks(made)[0] == []
    sweep(made)
    assert looks(made)[0] == []


# Controls: what is wrong is found


def test_control_a_flipped_label_is_found():
    made = crowd(n_partitions=1)
    members = made.partitions[0].members
    row = int(members.occupied()[7])
    right, wrong = int(members.labels[row]), int(members.labels[row] + 1) % 5
    members.labels[row] = wrong

    found = {violation for seed in range(30) for violation in check_labels(made, RNG(seed), 64)[1]}

    name = members.name(row)
    ids = made.table.ids
    assert found == {Violation("exact_label", 0, ids[wrong], ids[right], ids[wrong], name)}


def test_control_a_label_that_is_none_is_told_and_ends_nothing():
    made = crowd(n_partitions=1)
    members = made.partitions[0].members
    members.labels[members.occupied()[0]] = -7
    members.labels[members.occupied()[1]] = 99

    found, _ = looks(made)

    assert {v.cluster_id for v in found if v.invariant == "exact_label"} == {"label -7", "label 99"}
    assert {v.invariant for v in found} == {"exact_label", "counts", "sums"}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_control_one_bit_of_a_stored_vector_is_found(dtype):
    made = crowd(n_partitions=1, dtype=dtype)
    members = made.partitions[0].members
    row = members.occupied()[5]
    members.vectors[row, 1] = np.nextafter(members.vectors[row, 1], dtype(99))

    found, _ = looks(made)

    assert {v.invariant for v in found} == {"sums"}


def test_control_a_wrong_count_is_found():
    made = crowd(n_partitions=1)
    right = int(made.partitions[0].sums.counts[2])
    made.partitions[0].sums.counts[2] += 1

    assert check_counts(made, RNG(0)).violations == [Violation("counts", 0, "c3", right, right + 1)]


@pytest.mark.parametrize("name", ["sums", "squares", "weights"])
def test_control_a_word_that_is_off_by_one_is_found(name):
    made = engine(first=fading(CORNERS))
    write(made, [at(i, f"item-{i}", [i - 5, 1], i - 6) for i in range(11)])
    words = getattr(made.partitions[0].sums, name)
    words[4] += 1  # all of a cluster's: the first is told

    found = {v for seed in range(40) for v in check_sums(made, RNG(seed)).violations}

    (violation,) = found
    first = int(np.atleast_1d(words[4])[0])
    assert violation[:3] == ("sums", 0, "c5")
    assert violation.found == f"{name}[0] {first}"
    assert violation.expected == f"{name}[0] {first - 1}"


def test_control_what_was_left_in_an_empty_cluster_is_found():
    made = engine(first=model(CORNERS))
    write(made, [record(0, "one", [9, 9])])
    made.partitions[0].sums.sums[1, 1] = -1

    found = {v for seed in range(40) for v in check_sums(made, RNG(seed)).violations}

    assert found == {Violation("sums", 0, "c2", "sums[1] 0", "sums[1] -1")}


# How much it may cost


def test_a_large_model_means_fewer_labels(monkeypatch):
    made = crowd()

    assert check_labels(made, RNG(0), 64).n_checked > 40
    monkeypatch.setattr(checking, "MAX_TERMS", 5 * CORNERS.size)
    assert 0 < check_labels(made, RNG(0), 64).n_checked <= 5
    monkeypatch.setattr(checking, "MAX_TERMS", 1)
    assert check_labels(made, RNG(0), 64).n_checked <= 1
    assert MAX_TERMS // (500 * 384) == 13


def test_of_a_large_cluster_some_dimensions_are_added_up_and_all_of_them_in_time(monkeypatch):
    made = crowd()
    monkeypatch.setattr(checking, "MAX_ADDED", 1)
    assert looks(made)[0] == []

    for state in made.partitions.values():
        state.sums.sums[:, 1] += 1
    found = {v.found.split()[0] for s in range(20) for v in check_sums(made, RNG(s)).violations}

    assert found == {"sums[1]"}


def test_a_look_changes_nothing():
    made = crowd()
    before = copy.deepcopy(made.partitions)

    looks(made)

    for partition, state in made.partitions.items():
        for name in ("labels", "proofs", "vectors"):
            mine, its = getattr(state.members, name), getattr(before[partition].members, name)
            assert mine.tobytes() == its.tobytes()
        for name in ("counts", "sums", "squares"):
            assert (getattr(state.sums, name) == getattr(before[partition].sums, name)).all()
