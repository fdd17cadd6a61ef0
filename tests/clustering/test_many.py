"""A problem in a batch is the problem alone, to the byte."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clustering import kmeans
from pipeline.clustering.kmeans import fit
from pipeline.clustering.many import assign_many, fit_many, problem_seeds
from pipeline.kernels.contract import ManyKernels
from pipeline.kernels.cpu.twin import CpuKernels
from tests import naive
from tests.kernels import cases

KERNELS = CpuKernels()
MAX_COMPONENT = 256.0


class OnlyTheContract:
    """A twin that takes no batches, as one of CUDA."""

    name = "cpu"
    load, assign, accumulate, separations = (
        KERNELS.load,
        KERNELS.assign,
        KERNELS.accumulate,
        KERNELS.separations,
    )


def starts_of(sizes):
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def batch(sizes, n_dims=5, seed=0, grain=0.0):
    """Problems of some sizes; a grain makes duplicates."""
    points = np.random.default_rng(seed).standard_normal((sum(sizes), n_dims)).astype(np.float32)
    return np.round(points / grain).astype(np.float32) * np.float32(grain) if grain else points


def fitted(points, starts, n_clusters, seed=0, **given):
    given = {"kernels": KERNELS, "max_component": MAX_COMPONENT, **given}
    return fit_many(points, starts, n_clusters, seed=seed, **given)


def bytes_of(many, starts):
    """All that a fit of each problem says."""
    return [
        (
            many.centroids[many.centroid_starts[p] : many.centroid_starts[p + 1]].tobytes(),
            many.labels[first:last].tobytes(),
            many.distances_squared[first:last].tobytes(),
            float(many.inertias[p]),
            int(many.n_iterations[p]),
            bool(many.has_converged[p]),
        )
        for p, (first, last) in enumerate(itertools.pairwise(starts))
    ]


def bytes_alone(points, starts, n_clusters, seeds, weights=None, **given):
    """The same of `fit`, for problems that have rows."""
    found = []
    for p, (first, last) in enumerate(itertools.pairwise(starts)):
        alone = fit(
            points[first:last],
            int(n_clusters[p]),
            kernels=KERNELS,
            seed=int(seeds[p]),
            weights=None if weights is None else weights[first:last],
            **{"max_component": MAX_COMPONENT, **given},
        )
        found.append(
            (
                alone.centroids.tobytes(),
                alone.labels.tobytes(),
                alone.distances_squared.tobytes(),
                alone.inertia,
                alone.n_iterations,
                alone.has_converged,
            )
        )
    return found


def test_twins_of_the_cpu_take_batches_and_others_need_not():
    assert isinstance(KERNELS, ManyKernels)
    assert not isinstance(OnlyTheContract(), ManyKernels)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    n_clusters=st.integers(1, 20),
    n_dims=st.sampled_from([1, 2, 7, 33]),
    grain=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**31),
    n_init=st.integers(1, 2),
    max_iterations=st.sampled_from([1, 300]),
    tol=st.sampled_from([0.0, 1e-4, 0.1]),
    is_weighted=st.booleans(),
    is_spherical=st.booleans(),
)
def test_each_problem_has_the_bytes_of_its_fit_alone(
    sizes, n_clusters, n_dims, grain, seed, n_init, max_iterations, tol, is_weighted, is_spherical
):
    points, starts = batch(sizes, n_dims, seed, grain), starts_of(sizes)
    rng = np.random.default_rng(seed)
    options = {
        "weights": rng.uniform(2.0**-10, 4.0, len(points)) if is_weighted else None,
        "spherical": is_spherical,
        "n_init": n_init,
        "max_iterations": max_iterations,
        "tol": tol,
    }
    if is_spherical:
        points[~points.any(axis=1), 0] = 1.0
        points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)

    many = fitted(points, starts, n_clusters, seed, **options)

    distinct = [len(np.unique(points[a:b], axis=0)) for a, b in itertools.pairwise(starts)]
    assert many.n_clusters.tolist() == [min(n_clusters, n) for n in distinct]
    seeds = problem_seeds(seed, len(sizes))
    assert bytes_of(many, starts) == bytes_alone(points, starts, many.n_clusters, seeds, **options)


@pytest.mark.parametrize("offset", [0.0, 30_000.0])
def test_larger_problems_too_and_far_from_zero(offset):
    sizes = [900, 100, 333]
    points, starts = batch(sizes, 64) + np.float32(offset), starts_of(sizes)
    given = {"max_component": 2.0**16}

    many = fitted(points, starts, [40, 8, 64], seed=3, **given)

    seeds = problem_seeds(3, 3)
    assert bytes_of(many, starts) == bytes_alone(points, starts, [40, 8, 64], seeds, **given)


@pytest.mark.parametrize("scale", [2.0**-140, 2.0**70])
def test_scales_at_which_float32_ends(scale):
    sizes = [50, 30]
    points, starts = batch(sizes, 9) * np.float32(scale), starts_of(sizes)
    given = {"max_component": scale * 16}

    many = fitted(points, starts, 6, seed=1, **given)

    seeds = problem_seeds(1, 2)
    assert bytes_of(many, starts) == bytes_alone(points, starts, [6, 6], seeds, **given)


@pytest.mark.parametrize("weight", [None, 0.75])
def test_clusters_that_fall_empty_are_refilled_as_alone(monkeypatch, weight):
    # components of less than a unit or two: means round to one place, and leave clusters empty
    points, starts = batch([60, 25], 2) * np.float32(2.0**-34), starts_of([60, 25])
    weights = None if weight is None else np.full(85, weight)
    given = {"weights": weights, "tol": 0.0, "max_iterations": 9}
    relocated, n_relocated = kmeans.relocated, []
    monkeypatch.setattr(
        kmeans, "relocated", lambda *args: n_relocated.append(1) or relocated(*args)
    )

    many = fitted(points, starts, 12, seed=2, **given)

    alone = bytes_alone(points, starts, many.n_clusters, problem_seeds(2, 2), **given)
    assert bytes_of(many, starts) == alone
    assert n_relocated


def test_threads_and_the_place_in_the_batch_change_nothing(monkeypatch):
    monkeypatch.setattr("pipeline.kernels.many.problems.SERIAL_WORK", 0)
    sizes = [40, 3, 0, 90, 17, 60]
    points, starts, seeds = batch(sizes), starts_of(sizes), np.arange(6)
    back = np.concatenate([points[a:b] for b, a in itertools.pairwise(starts[::-1])])

    one = fitted(points, starts, 4, seeds, kernels=CpuKernels(1))
    two = fitted(points, starts, 4, seeds, kernels=CpuKernels(2))
    turned = fitted(back, starts_of(sizes[::-1]), 4, seeds[::-1])

    assert bytes_of(one, starts) == bytes_of(two, starts)
    assert bytes_of(one, starts) == bytes_of(turned, starts_of(sizes[::-1]))[::-1]


def test_another_seed_gives_other_bytes():
    points, starts = batch([80]), starts_of([80])

    assert bytes_of(fitted(points, starts, 9, 1), starts) != bytes_of(
        fitted(points, starts, 9, 2), starts
    )


def test_a_problem_has_its_own_unit_and_number_of_clusters():
    sizes = [30, 30]
    points, starts = batch(sizes), starts_of(sizes)
    points[30:] *= np.float32(2.0**-30)
    units = np.array([256.0, 2.0**-20])

    many = fitted(points, starts, [3, 5], np.array([7, 7]), max_component=units)

    for p, (n_clusters, unit) in enumerate(zip([3, 5], units.tolist(), strict=True)):
        rows = slice(30 * p, 30 * p + 30)
        alone = fit(points[rows], n_clusters, kernels=KERNELS, seed=7, max_component=unit)
        assert many.labels[rows].tobytes() == alone.labels.tobytes()
        assert many.inertias[p] == alone.inertia


def test_one_tenant_without_enough_points_does_not_stop_the_others():
    sizes = [20, 0, 6, 1]
    points, starts = batch(sizes), starts_of(sizes)
    points[20:26] = points[20]
    points[23] = 1.0

    many = fitted(points, starts, 5)

    assert many.n_clusters.tolist() == [5, 0, 2, 1]
    assert many.centroid_starts.tolist() == [0, 5, 5, 7, 8]
    assert len(many.centroids) == 8
    assert many.inertias[1:].tolist() == [0.0, 0.0, 0.0]
    assert many.n_iterations[1] == 0
    assert many.has_converged.all()
    assert (many.labels >= 0).all()


@pytest.mark.parametrize("sizes", [[], [0], [0, 0]])
def test_nothing_is_a_batch(sizes):
    many = fitted(np.empty((0, 3), np.float32), starts_of(sizes), 4)

    assert many.centroids.shape == (0, 3)
    assert many.n_clusters.tolist() == [0] * len(sizes)
    found = assign_many(
        np.empty((0, 3), np.float32),
        starts_of(sizes),
        many.centroids,
        many.centroid_starts,
        kernels=KERNELS,
    )
    assert len(found.labels) == len(found.gaps) == 0


@pytest.mark.parametrize("limit", ["MIN_SEED_POINTS", "MAX_SEED_WORK"])
def test_what_is_too_large_for_a_batch_is_fitted_alone(monkeypatch, limit):
    sizes = [15, 80, 15, 0]
    points, starts = batch(sizes), starts_of(sizes)
    points[:15] = points[0]
    points[14] = 1.0
    whole = fitted(points, starts, 3, n_init=2)
    monkeypatch.setattr(
        f"pipeline.clustering.many.{limit}", {"MIN_SEED_POINTS": 20, "MAX_SEED_WORK": 2000}[limit]
    )

    mixed = fitted(points, starts, 3, n_init=2)

    assert mixed.n_clusters.tolist() == [2, 3, 3, 0]
    assert bytes_of(mixed, starts) == bytes_of(whole, starts)


def test_a_twin_that_takes_no_batches_gives_the_same():
    sizes = [30, 0, 2, 50]
    points, starts = batch(sizes, grain=0.5), starts_of(sizes)

    together = fitted(points, starts, 4, n_init=2)
    apart = fitted(points, starts, 4, n_init=2, kernels=OnlyTheContract())

    assert bytes_of(together, starts) == bytes_of(apart, starts)
    of = points, starts, together.centroids, together.centroid_starts
    one, other = assign_many(*of, kernels=KERNELS), assign_many(*of, kernels=OnlyTheContract())
    assert one.labels.tobytes() == other.labels.tobytes()
    assert one.distances_squared.tobytes() == other.distances_squared.tobytes()


HOSTILE = {
    "plain": cases.plain(),
    "duplicated centroids": cases.duplicated_centroids(),
    "points on centroids": cases.points_on_centroids(),
    "far from zero": cases.far_from_zero(1e4),
    "heavy tails": cases.heavy_tails(),
    "near ties": cases.near_ties(),
    "tiny": cases.scaled(2.0**-140),
    "huge": cases.scaled(1e30),
    "one centroid": cases.plain(k=1),
    "many rows": cases.plain(n=131, d=3, k=64),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_labels_and_distances_are_the_canonical_ones_and_gaps_are_not_high(case):
    points, centroids = HOSTILE[case]
    labels, distances, _, seconds = naive.assign(points, centroids)

    found = assign_many(
        np.concatenate([points, points]),
        starts_of([len(points), 0, len(points)]),
        np.concatenate([centroids, centroids]),
        starts_of([len(centroids), 0, len(centroids)]),
        kernels=KERNELS,
    )

    assert found.labels.tolist() == labels * 2
    assert found.distances_squared.tolist() == distances * 2
    true_gaps = np.subtract(seconds, distances)
    assert (found.gaps[: len(points)] <= true_gaps).all()
    assert (found.gaps >= 0.0).all()


def test_float32_alone_would_be_wrong_here():
    points, centroids = HOSTILE["far from zero"]

    scores = np.square(centroids).sum(axis=1) - 2 * points @ centroids.T

    assert scores.argmin(axis=1).tolist() != naive.assign(points, centroids)[0]


def test_gaps_prove_something():
    points, centroids = HOSTILE["plain"]
    _, distances, _, seconds = naive.assign(points, centroids)

    found = assign_many(
        points, starts_of([len(points)]), centroids, starts_of([len(centroids)]), kernels=KERNELS
    )

    assert np.allclose(found.gaps, np.subtract(seconds, distances), rtol=0, atol=1e-3)


def test_labels_of_a_fit_are_those_of_its_centroids():
    sizes = [40, 9, 77]
    points, starts = batch(sizes), starts_of(sizes)
    many = fitted(points, starts, 4)

    found = assign_many(points, starts, many.centroids, many.centroid_starts, kernels=KERNELS)

    assert found.labels.tobytes() == many.labels.tobytes()
    assert found.distances_squared.tobytes() == many.distances_squared.tobytes()


def test_arguments_may_be_read_only_and_are_not_modified():
    sizes = [40, 40]
    points, starts, weights = batch(sizes), starts_of(sizes), np.ones(80)
    before = points.tobytes()
    expected = fitted(points, starts, 4, weights=weights)
    for array in (points, starts, weights):
        array.flags.writeable = False

    many = fitted(points, starts, 4, weights=weights)
    found = assign_many(points, starts, many.centroids, many.centroid_starts, kernels=KERNELS)

    assert bytes_of(many, starts) == bytes_of(expected, starts)
    assert found.labels.tobytes() == many.labels.tobytes()
    assert points.tobytes() == before


def test_two_callers_at_once_get_what_one_gets(monkeypatch):
    monkeypatch.setattr("pipeline.kernels.many.problems.SERIAL_WORK", 0)
    sizes = [60] * 20
    points, starts = batch(sizes), starts_of(sizes)
    expected, found = bytes_of(fitted(points, starts, 5), starts), []

    callers = [
        threading.Thread(target=lambda: found.append(bytes_of(fitted(points, starts, 5), starts)))
        for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert found == [expected] * 3


def test_the_seed_of_a_problem_does_not_depend_on_how_many_follow():
    assert problem_seeds(5, 3).tolist() == problem_seeds(5, 9)[:3].tolist()
    assert len(set(problem_seeds(5, 1000).tolist())) == 1000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"starts": np.array([0, 3], np.int64)}, "do not rise from 0 to 4"),
        ({"starts": np.array([0, 3, 2, 4], np.int64)}, "do not rise from 0 to 4"),
        ({"starts": np.array([1, 4], np.int64)}, "do not rise from 0 to 4"),
        ({"starts": np.array([], np.int64)}, "the starts of points are"),
        ({"starts": np.array([0.0, 4.0])}, "the starts of points are"),
        ({"n_clusters": 0}, "0 clusters in a problem"),
        ({"n_init": 0}, "n_init is 0"),
        ({"seed": np.arange(2)}, "seeds of"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(given, message):
    given = {"starts": starts_of([4]), "n_clusters": 2, **given}

    with pytest.raises(ValueError, match=message):
        fitted(np.ones((4, 2), np.float32), **given)


@pytest.mark.parametrize(
    ("sizes", "model_sizes", "n_dims", "message"),
    [
        ([2, 2], [4], 3, "2 problems, but models of 1"),
        ([2, 2], [4, 0], 3, "points, but no centroids"),
        ([2, 2], [2, 2], 2, "points of 3, but centroids of 2"),
    ],
)
def test_models_that_do_not_fit_the_points_are_refused(sizes, model_sizes, n_dims, message):
    with pytest.raises(ValueError, match=message):
        assign_many(
            np.ones((sum(sizes), 3), np.float32),
            starts_of(sizes),
            np.ones((sum(model_sizes), n_dims), np.float32),
            starts_of(model_sizes),
            kernels=KERNELS,
        )
