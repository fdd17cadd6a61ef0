"""Centroids follow their members, and come to rest where Lloyd's algorithm does."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.clustering.centroids import CentroidPolicy
from pipeline.engine.revision import RevisionRule, next_revision
from pipeline.engine.totals import Totals
from pipeline.messages.model import digest, model_records
from pipeline.messages.records import Record
from tests.engine import house
from tests.engine.slow_motion import AT_MS, EXACT, MAX_COMPONENT, Partition, Site, nearest


def members(points, labels, centroids, **fields):
    """A model over ``centroids``, and the totals of one partition that is swept to it."""
    points, centroids = np.asarray(points, np.float32), np.asarray(centroids, np.float32)
    model = house.model(centroids, **fields)
    totals = Totals(1, centroids.shape[1], max_component=MAX_COMPONENT)
    totals.fold(Partition(0, points.reshape(-1, centroids.shape[1]), labels, model).statistics())
    totals.opened()
    return model, totals


def centroids_after(points, labels, centroids, *, tolerance=0.0, **fields):
    model, totals = members(points, labels, centroids, **fields)
    found = next_revision(model, totals, CentroidPolicy(tolerance=tolerance), AT_MS)
    return None if found is None else found.centroids.tolist()


# What a revision says


@settings(deadline=None)
@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 12), st.just(3)), elements=st.floats(-9, 9, width=16)
    ),
    st.randoms(),
)
def test_centroids_become_the_means_of_their_members(points, random):
    labels = [random.randrange(3) for _ in points]
    centroids = np.float32([[random.uniform(-9, 9) for _ in range(3)] for _ in range(3)])

    found = centroids_after(points, labels, centroids) or centroids.tolist()

    for label in range(3):
        mine = [x for x, its in zip(points.tolist(), labels, strict=True) if its == label]
        for i in range(3):
            if not mine:
                assert found[label][i] == centroids[label, i]
                continue
            mean = float(sum(Fraction(x[i]) for x in mine) / len(mine))
            unit = MAX_COMPONENT * 2.0**-40
            assert abs(found[label][i] - mean) <= np.spacing(np.float32(abs(mean))) + unit


def test_only_what_moved_is_written():
    model, totals = members([[-1, 0], [-1, 2], [1, 0]], [0, 0, 1], [[-1, 0], [1, 0], [5, 5]])

    found = next_revision(model, totals, EXACT, AT_MS)

    assert found.centroids.tolist() == [[-1, 1], [1, 0], [5, 5]]
    assert found.manifest.revision == model.manifest.revision + 1
    assert found.manifest.epoch == model.manifest.epoch
    assert found.manifest.created_at_ms == AT_MS
    assert found.manifest.digest == digest(found.centroids)
    assert model.centroids.tolist() == [[-1, 0], [1, 0], [5, 5]]
    written = [out.key for out in model_records(found, "m", previous=model)]
    assert written == [b"1/c1", b"1", b"manifest"]


def test_centroids_at_the_means_make_no_revision():
    assert centroids_after([[-1, 0], [1, 0]], [0, 1], house.WEST_EAST) is None


def test_a_cluster_without_members_keeps_its_centroid():
    assert centroids_after([[2, 0]], [1], house.WEST_EAST) == [[-1, 0], [2, 0]]
    assert centroids_after(np.empty((0, 2)), [], house.WEST_EAST) is None


def test_a_move_within_the_tolerance_is_none():
    # members at 0 and 4: the mean is 2; seen from 1.5 their root mean squared distance is ~2.06
    points, labels = [[0, 0], [4, 0]], [0, 0]
    share = 0.5 / np.sqrt((1.5**2 + 2.5**2) / 2)

    assert centroids_after(points, labels, [[1.5, 0]], tolerance=share * 1.0001) is None
    assert centroids_after(points, labels, [[1.5, 0]], tolerance=share * 0.9999) == [[2, 0]]


def test_a_move_of_exactly_the_tolerance_is_none():
    # one member at distance 1: the distance to the mean and the spread are the same number
    assert centroids_after([[1, 0]], [0], [[0, 0]], tolerance=1.0) is None
    assert centroids_after([[1, 0]], [0], [[0, 0]], tolerance=0.999) == [[1, 0]]


def test_identical_members_take_their_centroid_along_however_little_it_is():
    point = np.float32([[100.0, 1.0]])
    almost = np.nextafter(point, np.float32(0))

    found = centroids_after(np.repeat(point, 5, axis=0), [0] * 5, almost, tolerance=1e-4)

    assert found == point.tolist()


def test_under_cosine_centroids_are_unit_vectors():
    points = np.float32([[1, 0], [0, 1], [0.6, 0.8]])

    found = centroids_after(
        points, [0, 0, 1], [[1, 0], [0, 1]], metric="cosine", max_component=MAX_COMPONENT
    )

    half = np.float32(np.sqrt(0.5))
    assert found == [[half, half], points[2].tolist()]


def test_under_cosine_members_that_cancel_out_leave_the_centroid_where_it_is():
    opposite = [[1, 0], [-1, 0]]

    assert centroids_after(opposite, [0, 0], [[0, 1]], metric="cosine") is None
    assert centroids_after(opposite, [0, 0], [[0, 1]]) == [[0, 0]]


def test_only_the_clusters_that_are_asked_for_are_looked_at():
    model, totals = members([[-3, 0], [3, 0]], [0, 1], house.WEST_EAST)

    found = next_revision(model, totals, EXACT, AT_MS, clusters=["c2", "c77"])

    assert found.centroids.tolist() == [[-1, 0], [3, 0]]


def test_many_clusters_are_looked_at_in_parts():
    centroids = np.arange(600, dtype=np.float32)[:, None] * 0.25
    labels = list(range(0, 600, 7))

    found = centroids_after(centroids[::7] + np.float32(0.125), labels, centroids)

    expected = centroids.copy()
    expected[::7] += np.float32(0.125)
    assert found == expected.tolist()


# When it may be published


def random_site(seed, *, tolerance=0.0):
    rng = np.random.default_rng(seed)
    model = house.model(rng.normal(size=(4, 2)) * 3)
    partitions = []
    for number in range(3):
        points = rng.integers(-9, 10, size=(12, 2)).astype(np.float32)
        labels = [nearest(x, model) for x in points]
        partitions.append(Partition(number, points, labels, model))
    policy = CentroidPolicy(tolerance=tolerance)
    return Site(partitions, model, rule=RevisionRule(policy), policy=policy)


def some_steps(site, dice, n_steps, *, with_records):
    """Sweeps in slices, statistics in flight, models that arrive late; all in any order."""
    in_flight = {partition.number: [] for partition in site.partitions}
    for _ in range(n_steps):
        partition = dice.choice(site.partitions)
        step = dice.random()
        if with_records and step < 0.2:
            vector = np.float32([dice.randint(-9, 9), dice.randint(-9, 9)])
            partition.apply(dice.randrange(len(partition.points)), vector)
        elif step < 0.4:
            partition.install(site.model)
        elif step < 0.7:
            partition.sweep(dice.randint(1, 12))
        elif step < 0.85:
            in_flight[partition.number].append(partition.statistics())
        elif in_flight[partition.number]:
            site.fold(in_flight[partition.number].pop(0))
    for waiting in in_flight.values():
        for records in waiting:
            site.fold(records)


def fair_round(site):
    """Everybody is up to date and says so; whether a revision came of it."""
    for partition in site.partitions:
        partition.install(site.model)
        partition.sweep()
    told = [site.fold(partition.statistics()) for partition in site.partitions]
    return any(told)


@pytest.mark.parametrize("tolerance", [0.0, 1e-2])
@pytest.mark.parametrize("seed", range(8))
def test_the_loop_comes_to_rest_however_late_sweeps_and_statistics_are(seed, tolerance):
    site, dice = random_site(seed, tolerance=tolerance), random.Random(seed)
    some_steps(site, dice, 120, with_records=True)
    n_before = site.n_revisions

    some_steps(site, dice, 600, with_records=False)
    n_turns = next(n for n in range(50) if not fair_round(site))
    n_at_rest = site.n_revisions
    some_steps(site, dice, 100, with_records=False)

    assert n_before > 2
    assert n_turns < 20
    assert site.n_revisions == n_at_rest
    site.check_rest()


@pytest.mark.parametrize("seed", range(8))
def test_without_new_records_every_revision_lowers_the_inertia(seed):
    site = random_site(seed)
    fair_round(site)

    inertias = [site.inertia()]
    while fair_round(site):
        inertias.append(site.inertia())

    assert all(after < before for before, after in pairwise(inertias))
    site.check_rest()


# A rectangle has two optima: its upper and lower sides, or its left and right ones.
CORNERS = np.float32([[0, 0], [1.5, 0], [0, 1], [1.5, 1]])
LEFT_RIGHT = np.float32([[0, 0.5], [1.5, 0.5]])
DOWN_UP = np.float32([[0.75, 0], [0.75, 1]])


def lagging_site(rule):
    """Members still stand as revision 0 had it when revision 1 is out, which has it otherwise."""
    old = house.model(LEFT_RIGHT)
    new = house.model(DOWN_UP, revision=1)
    partitions = [Partition(p, CORNERS, [nearest(x, old) for x in CORNERS], old) for p in range(2)]
    return Site(partitions, new, rule=rule)


def turns_with_a_lag(site, n):
    """Statistics are folded before the sweep to the newest model has begun: one behind."""
    for _ in range(n):
        in_flight = [record for p in site.partitions for record in p.statistics()]
        for partition in site.partitions:
            partition.install(site.model)
        site.fold(in_flight)
        for partition in site.partitions:
            partition.sweep()


def test_revisions_that_do_not_wait_for_the_sweep_run_in_circles():
    """The control: what the rule is for."""
    hasty, waiting = lagging_site(None), lagging_site(RevisionRule(EXACT))

    turns_with_a_lag(hasty, 40)
    turns_with_a_lag(waiting, 40)

    assert hasty.n_revisions >= 40
    assert waiting.n_revisions == 0
    waiting.check_rest()
    with pytest.raises(AssertionError):
        hasty.check_rest()


# The rule, step by step


def one_partition(points=((-1, 0), (3, 0)), labels=(0, 1), rule=None):
    model = house.model()
    partition = Partition(0, np.float32(points), labels, model)
    return partition, Site([partition], model, rule=rule or RevisionRule(EXACT))


def test_the_first_revision_of_an_epoch_waits_for_the_heads_of_all_partitions():
    model = house.model()
    owners = [Partition(p, np.float32([[-1, 0], [3, 0]]), [0, 1], model) for p in range(2)]
    owners[1].swept_to = house.model(epoch=7).manifest
    site = Site(owners, model, rule=RevisionRule(EXACT))
    assert not site.fold(owners[0].statistics())
    assert not site.fold(owners[1].statistics())

    owners[1].swept_to = model.manifest

    assert site.fold(owners[1].statistics())


def test_while_records_are_applied_a_revision_does_not_wait_for_sweeps():
    partition, site = one_partition()
    assert site.fold(partition.statistics())
    partition.apply(1, np.float32([5, 0]))

    assert site.fold(partition.statistics())
    assert partition.swept_to.revision == 0


def test_without_new_records_a_revision_waits_for_the_sweep():
    partition, site = one_partition()
    assert site.fold(partition.statistics())
    partition.points[1] = [5, 0]  # as if the sweep had moved something
    assert not site.fold(partition.statistics())

    partition.install(site.model)
    partition.sweep()

    assert site.fold(partition.statistics())


def test_a_process_that_starts_anew_waits_for_the_sweep_whatever_was_applied():
    partition, site = one_partition()
    assert site.fold(partition.statistics())
    partition.apply(1, np.float32([5, 0]))
    site.rule = RevisionRule(EXACT)

    assert not site.fold(partition.statistics())


def test_a_proposal_that_was_not_published_is_made_again():
    partition, site = one_partition()
    site.totals.fold(partition.statistics())

    first = site.rule.propose(site.model, site.totals, AT_MS)
    again = site.rule.propose(site.model, site.totals, AT_MS)

    assert first.manifest == again.manifest


def test_a_new_epoch_is_looked_at_as_a_whole():
    partition, site = one_partition()
    site.fold(partition.statistics())
    site.model = partition.model = house.model(epoch=2)
    partition.swept_to = site.model.manifest

    assert site.fold(partition.statistics())
    assert site.model.centroids.tolist() == [[-1, 0], [3, 0]]


def test_a_revision_that_was_there_in_the_same_rest_is_not_published_again():
    partition, site = one_partition()

    def says(x):
        partition.points[1] = [x, 0]
        partition.model = site.model
        partition.swept_to = site.model.manifest
        return site.fold(partition.statistics())

    assert [says(3), says(4), says(3)] == [True, True, False]
    assert says(5)

    partition.n_applied += 1
    assert says(4)


def test_nothing_is_proposed_where_centroids_are_to_stay():
    partition, site = one_partition(rule=RevisionRule(CentroidPolicy(enabled=False)))

    assert not site.fold(partition.statistics())


# With the engine that assigners run


@pytest.mark.parametrize("seed", range(4))
def test_partitions_of_real_engines_come_to_rest(seed):
    dice, model = random.Random(seed), house.model(np.random.default_rng(seed).normal(size=(5, 2)))
    engine = house.engine(first=model, n_partitions=3)
    site = Site(list(engine.partitions.values()), model, rule=RevisionRule(EXACT))
    n_applied, n_said = [0] * 3, [0] * 3

    def publish(p):
        changes = engine.publish_statistics(p)
        engine.install(changes)
        said = changes.outgoing
        records = [Record(p, n_said[p] + i, out.key, out.value) for i, out in enumerate(said)]
        n_said[p] += len(records)
        return site.fold(records)

    def sweep(p):
        if engine.partitions[p].to_sweep:
            engine.install(engine.sweep(p, max_rows=3))
        return engine.partitions[p].to_sweep

    for _ in range(300):
        p = dice.randrange(3)
        step = dice.choice(["record", "record", "model", "sweep", "publish"])
        if step == "record":
            item = f"i{p}-{dice.randrange(15)}"
            vector = None if dice.random() < 0.15 else [dice.randint(-9, 9), dice.randint(-9, 9)]
            house.write(engine, [house.record(n_applied[p], item, vector, partition=p)])
            n_applied[p] += 1
        elif step == "model":
            engine.install_model(site.model)
        elif step == "sweep":
            sweep(p)
        else:
            publish(p)
    assert site.n_revisions > 2
    is_moving = True
    while is_moving:
        engine.install_model(site.model)
        for p in range(3):
            while sweep(p):
                pass
        told = [publish(p) for p in range(3)]
        is_moving = any(told)

    assert site.totals.are_swept_to(1, site.model.manifest.revision)
    for state in engine.partitions.values():
        rows = state.members.occupied(0, state.members.n_rows)
        vectors, labels = state.members.vectors[rows], state.members.labels[rows]
        assert labels.tolist() == [nearest(x, site.model) for x in vectors]
    sums = sum(state.sums.sums for state in engine.partitions.values())
    counts = sum(state.sums.counts for state in engine.partitions.values())
    means = sums[counts > 0] * engine.partitions[0].sums.unit / counts[counts > 0, None]
    assert site.model.centroids[counts > 0].tolist() == means.astype(np.float32).tolist()
