"""Davies-Bouldin and Calinski-Harabasz, held against the definitions and against scikit-learn."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score

from pipeline.clustering.scores import calinski_harabasz, davies_bouldin

BOTH = {
    "davies-bouldin": (davies_bouldin, davies_bouldin_score),
    "calinski-harabasz": (calinski_harabasz, calinski_harabasz_score),
}
both = pytest.mark.parametrize(("ours", "theirs"), BOTH.values(), ids=BOTH)


def blobs(n=500, d=6, k=7, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(k, n)
    points = rng.standard_normal((n, d)) + 2.5 * rng.standard_normal((k, d))[labels]
    return points.astype(np.float32), 3 * labels - 8


def plain_davies_bouldin(points, labels):
    names = sorted(set(labels.tolist()))
    means = [points[labels == name].mean(axis=0) for name in names]
    spreads = [
        np.mean([np.linalg.norm(x - mean) for x in points[labels == name]])
        for name, mean in zip(names, means, strict=True)
    ]
    worst = [
        max(
            (spreads[i] + spreads[j]) / np.linalg.norm(means[i] - means[j])
            for j in range(len(names))
            if j != i
        )
        for i in range(len(names))
    ]
    return np.mean(worst)


def plain_calinski_harabasz(points, labels):
    names = sorted(set(labels.tolist()))
    members = [points[labels == name] for name in names]
    between = sum(
        len(own) * np.sum((own.mean(axis=0) - points.mean(axis=0)) ** 2) for own in members
    )
    within = sum(np.sum((own - own.mean(axis=0)) ** 2) for own in members)
    return between / (len(names) - 1) / (within / (len(points) - len(names)))


PLAIN = {
    "davies-bouldin": (davies_bouldin, plain_davies_bouldin),
    "calinski-harabasz": (calinski_harabasz, plain_calinski_harabasz),
}


@pytest.mark.parametrize(("ours", "plain"), PLAIN.values(), ids=PLAIN)
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(4, 60),
    d=st.integers(1, 12),
    k=st.integers(2, 9),
    exponent=st.sampled_from([-12, 0, 12]),
    seed=st.integers(0, 2**32 - 1),
)
def test_scores_are_by_the_definition(ours, plain, n, d, k, exponent, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-k, 0, n)
    assume(1 < len(set(labels.tolist())) < n)
    points = (rng.standard_normal((n, d)) * 10.0**exponent).astype(np.float32)

    assert ours(points, labels) == pytest.approx(plain(points.astype(np.float64), labels), rel=1e-9)


@both
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(4, 60),
    d=st.integers(1, 12),
    k=st.integers(2, 9),
    is_coarse=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_scores_are_scikit_learns(ours, theirs, n, d, k, is_coarse, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-k, 0, n)
    assume(1 < len(set(labels.tolist())) < n)
    points = rng.integers(0, 3, (n, d)) if is_coarse else rng.standard_normal((n, d))
    means = [points[labels == label].mean(axis=0) for label in set(labels.tolist())]
    gaps = np.linalg.norm(np.array(means)[:, None] - means, axis=2)
    assume((gaps[np.triu_indices(len(means), 1)] > 1e-6).all())  # what coincides is its own test

    assert ours(points, labels) == pytest.approx(theirs(points.astype(float), labels), rel=1e-6)


@both
def test_many_points_are_as_few(ours, theirs):
    points, labels = blobs(20_000, 40, 60)

    assert ours(points, labels) == pytest.approx(theirs(points.astype(float), labels), rel=1e-9)


@both
@pytest.mark.parametrize(("offset", "kind"), [(1e4, np.float32), (1e13, np.float64)])
def test_an_offset_costs_no_digit(ours, theirs, offset, kind):
    points, labels = blobs()
    points = (points.astype(np.float64) + offset).astype(kind)
    exact = points.astype(np.float64) - offset

    assert ours(points, labels) == pytest.approx(theirs(exact, labels), rel=1e-6)


@both
@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_the_unit_does_not_matter(ours, theirs, scale):
    points, labels = blobs()
    exact = points.astype(np.float64)

    assert ours(exact * scale, labels) == pytest.approx(theirs(exact, labels), rel=1e-9)


def test_clusters_around_one_place_are_not_compared():
    points = np.float64([[-1], [1], [-2], [2], [9], [11]])
    labels = np.array([0, 0, 1, 1, 2, 2])

    assert davies_bouldin(points, labels) == pytest.approx(davies_bouldin_score(points, labels))
    assert davies_bouldin(points[:4], labels[:4]) == 0.0


@both
def test_points_on_their_means_are_as_in_scikit_learn(ours, theirs):
    points = np.repeat(np.float64([[1.0, 2.0], [3.0, 5.0], [4.0, 4.0]]), 3, axis=0)
    labels = np.repeat([0, 1, 2], 3)

    assert ours(points, labels) == theirs(points, labels)


@both
@pytest.mark.parametrize("labels", [np.zeros(4, int), np.arange(4)])
def test_one_cluster_or_as_many_as_points_are_refused(ours, theirs, labels):
    for score in (ours, theirs):
        with pytest.raises(ValueError):
            score(np.eye(4), labels)


@both
def test_what_is_not_finite_is_refused(ours, theirs):
    points, labels = blobs(30)
    points[4, 2] = np.nan

    with pytest.raises(ValueError, match="NaN or infinite"):
        ours(points, labels)


@both
def test_memory_does_not_grow_with_points_times_clusters(ours, theirs):
    points, labels = blobs(30_000, 2, 3_000)
    tracemalloc.start()

    ours(points, labels)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20 < 30_000 * 3_000
