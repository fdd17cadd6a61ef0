"""Starts are distinct points; k-means|| asks each point the same, whoever does the asking."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.clustering import seeding
from pipeline.clustering.kmeans import fit, inertia
from pipeline.clustering.seeding import (
    begin,
    lots,
    n_distinct,
    parallel_seeds,
    random_seeds,
    seed_of,
    total,
)
from pipeline.kernels.cpu.twin import CpuKernels

KERNELS = CpuKernels()
INITS = ("k-means++", "k-means||", "random")


def blobs(n=600, d=8, k=6, seed=0, spread=0.3):
    rng = np.random.default_rng(seed)
    places = rng.standard_normal((k, d)) * 3
    return (places[np.arange(n) % k] + spread * rng.standard_normal((n, d))).astype(np.float32)


def begun(init, points, k, seed=0, **given):
    return begin(init, points, k, kernels=KERNELS, seed=seed, **given)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("kind", ["blobs", "weights", "few", "one far"])
def test_a_start_is_distinct_points(init, kind):
    points, weights, k = blobs(), None, 20
    if kind == "weights":
        weights = np.random.default_rng(0).uniform(1e-6, 200.0, len(points))
    if kind == "few":
        points = np.tile(blobs(n=20), (30, 1))
    if kind == "one far":
        points = np.concatenate([np.tile(blobs(n=19), (30, 1)), 1000.0 + blobs(n=1)])

    chosen = begun(init, points, k, weights=weights)

    assert chosen.shape == (k, 8)
    assert n_distinct(chosen) == k
    assert {row.tobytes() for row in chosen} <= {row.tobytes() for row in points}


@pytest.mark.parametrize("init", INITS)
def test_a_start_depends_on_the_seed_alone(init):
    points = blobs(spread=2.0)

    one, again, other = (begun(init, points, 12, seed=seed) for seed in (3, 3, 4))

    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match="init is 'kmeans', but must be"):
        begun("kmeans", blobs(), 3)


def test_scalable_seeds_do_not_depend_on_blocks_or_order(monkeypatch):
    points = blobs(spread=2.0)
    order = np.random.default_rng(0).permutation(len(points))
    keys = np.arange(len(points), dtype=np.uint64)
    given = {"kernels": KERNELS, "seed": 5}

    whole = parallel_seeds(points, 12, **given)
    monkeypatch.setattr(seeding, "BLOCK_ROWS", 7)
    in_blocks = parallel_seeds(points, 12, **given, keys=keys)
    taken = [lots(5, 1, len(points), keys), lots(5, 1, len(points), keys[order])]

    assert whole.tobytes() == in_blocks.tobytes()
    assert taken[0][order].tolist() == taken[1].tolist()


def test_lots_are_uniform_and_independent():
    drawn = [lots(seed, number, 20_000) for seed, number in itertools.product((0, 1), (0, 1))]

    for one in drawn:
        assert 0.0 <= one.min() < 0.001 and 0.999 < one.max() < 1.0
        assert abs(one.mean() - 0.5) < 0.01
    for one, other in itertools.combinations(drawn, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    np.testing.assert_array_equal(lots(0, 1, 10, first=5), drawn[1][5:15])


def test_scalable_seeds_are_as_good_as_greedy_ones():
    points = blobs(n=1200, k=30, spread=0.5)

    left = {
        init: np.median([inertia(points, begun(init, points, 30, s), KERNELS) for s in range(5)])
        for init in INITS
    }

    assert left["k-means||"] < 1.1 * left["k-means++"]
    assert left["random"] > 1.5 * left["k-means++"]  # the control: this data tells starts apart


@pytest.mark.parametrize("init", ["k-means||", "random"])
def test_weights_say_where_seeds_stand(init):
    points = np.concatenate([blobs(n=500, d=2, k=5, seed=1), blobs(n=500, d=2, k=5, seed=2) + 50])
    weights = np.repeat([1.0, 2.0**-16], 500)

    chosen = begun(init, points.astype(np.float32), 5, weights=weights)

    assert np.count_nonzero(chosen[:, 0] > 25) <= 1


def test_random_seeds_are_drawn_alike():
    points = np.arange(10, dtype=np.float32)[:, None]

    chosen = [random_seeds(points, 3, seed=s)[:, 0] for s in range(2000)]

    counts = np.bincount(np.concatenate(chosen).astype(int), minlength=10)
    assert counts.min() > 0.85 * 600 and counts.max() < 1.15 * 600


def test_the_best_of_several_starts_wins():
    points = blobs(n=400, k=12, spread=1.0)
    given = {"kernels": KERNELS, "max_component": 256.0, "init": "random"}
    passes = []

    alone = [fit(points, 12, seed=seed_of(7, number), **given) for number in range(4)]
    best = fit(points, 12, seed=7, n_init=4, on_pass=lambda n, _: passes.append(n), **given)

    inertias = [found.inertia for found in alone]
    assert len(set(inertias)) > 1
    assert best.inertia == min(inertias)
    expected = alone[inertias.index(min(inertias))]
    assert best.centroids.tobytes() == expected.centroids.tobytes()
    assert passes == sorted(set(passes))  # counted on from start to start
    with pytest.raises(ValueError, match="n_init is 0"):
        fit(points, 12, seed=7, n_init=0, **given)


def test_the_first_of_several_seeds_is_the_seed():
    assert seed_of(42, 0) == 42
    assert len({seed_of(seed, number) for seed in range(5) for number in range(5)}) == 25


def test_a_total_is_summed_in_order():
    values = np.random.default_rng(0).standard_normal(1000) * 1e10 ** np.arange(1000)[::-1].clip(
        0, 1
    )

    left = 0.0
    for value in values.tolist():
        left += value

    assert total(values) == left
    assert total(values.reshape(10, 100)) == left
    assert total(values[:0]) == 0.0
