"""Silhouettes, held against the definition and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_samples as scikit_learns
from sklearn.metrics.pairwise import cosine_distances, euclidean_distances

from pipeline.clustering.quality import simplified_silhouette
from pipeline.clustering.silhouette import (
    sampled_silhouette,
    silhouette,
    silhouette_samples,
    simplified,
)
from pipeline.kernels.cpu.twin import CpuKernels
from tests import naive

KERNELS = CpuKernels()
EASY = settings(max_examples=60, deadline=None)


@st.composite
def clusterings(draw):
    """Points, some of them twice, and labels that are neither in order nor without gaps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(2, 40)), draw(st.integers(1, 30))
    steps = draw(st.sampled_from([0, 3]))
    points = rng.integers(1, steps, (n, d)) if steps else rng.standard_normal((n, d)) + 0.1
    names = rng.permutation(np.arange(-50, 50))[: draw(st.integers(2, n))]
    labels = np.concatenate([names[:2], rng.choice(names, n - 2)])
    return points.astype(np.float32), rng.permutation(labels)


def distances_of(points, metric="euclidean"):
    exact = points.astype(np.float64)
    if metric == "cosine":
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    gaps = np.square(exact[:, None] - exact).sum(axis=2)
    gaps[gaps < 1e-29] = 0.0  # what rounding a direction leaves of nothing
    return gaps / 2.0 if metric == "cosine" else np.sqrt(gaps)


def defined(distances, labels, *, counts_itself=False, alone=0.0):
    """The definition, one point at a time; the arguments make it what is wrong elsewhere."""
    scores = []
    for i, label in enumerate(labels):
        own = labels == label
        if own.sum() == 1:
            scores.append(alone)
            continue
        a = distances[i, own].sum() / (own.sum() - (not counts_itself))
        b = min(distances[i, labels == other].mean() for other in set(labels[~own].tolist()))
        scores.append((b - a) / max(a, b) if max(a, b) else 0.0)
    return np.array(scores)


def blobs(n=600, d=4, k=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(k, n, p=np.arange(1, k + 1) / (k * (k + 1) / 2))
    points = rng.standard_normal((n, d)) + 2.5 * rng.standard_normal((k, d))[labels]
    return points.astype(np.float32), labels


# What it is


@EASY
@given(clusterings(), st.sampled_from(["euclidean", "cosine"]))
def test_samples_are_by_the_definition(clustering, metric):
    points, labels = clustering

    found = silhouette_samples(points, labels, kernels=KERNELS, metric=metric)

    assert found == pytest.approx(defined(distances_of(points, metric), labels), abs=1e-6)


@EASY
@given(clusterings(), st.sampled_from(["euclidean", "cosine"]))
def test_samples_are_scikit_learns(clustering, metric):
    points, labels = clustering
    if len(set(labels.tolist())) == len(labels):
        return  # refused there
    exact = points.astype(np.float64)
    distances = euclidean_distances(exact) if metric == "euclidean" else cosine_distances(exact)
    distances[distances_of(points, metric) == 0.0] = 0.0  # there some 1e-8, as products cancel
    right = scikit_learns(distances, labels, metric="precomputed")

    found = silhouette_samples(points, labels, kernels=KERNELS, metric=metric)

    assert found == pytest.approx(right, abs=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_many_samples_are_scikit_learns(metric):
    points, labels = blobs(1500, 24, 9)

    found = silhouette_samples(points, labels, kernels=KERNELS, metric=metric)

    assert found == pytest.approx(
        scikit_learns(points.astype(np.float64), labels, metric=metric), abs=1e-6
    )
    assert silhouette(points, labels, kernels=KERNELS, metric=metric) == found.mean()


@pytest.mark.parametrize("mistake", [{"counts_itself": True}, {"alone": 1.0}])
def test_what_is_wrong_elsewhere_would_be_seen(mistake):
    points, labels = blobs(60)
    labels[7] = -1
    distances = distances_of(points)

    found = silhouette_samples(points, labels, kernels=KERNELS)

    assert found == pytest.approx(defined(distances, labels), abs=1e-6)
    assert found != pytest.approx(defined(distances, labels, **mistake), abs=1e-3)


def test_a_point_that_is_alone_has_0():
    points, _ = blobs(20)

    assert not silhouette_samples(points, np.arange(20), kernels=KERNELS).any()
    assert silhouette_samples(points, np.arange(20) // 19, kernels=KERNELS)[19] == 0.0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_what_nothing_tells_apart_has_0(metric):
    points = np.repeat(np.random.default_rng(0).standard_normal((1, 5)), 18, axis=0)

    found = silhouette_samples(points, np.arange(18) // 7, kernels=KERNELS, metric=metric)

    assert not found.any()


# What does not matter


@pytest.mark.parametrize("scale", [1e-300, 1e-42, 1e-20, 1e20, 1e37, 1e300])
def test_the_unit_does_not_matter(scale):
    points, labels = blobs(50)
    kind = np.float32 if 1e-45 < scale < 1e38 else np.float64
    scaled = (points.astype(np.float64) * scale).astype(kind)
    exact = scaled.astype(np.float64) / scale  # denormal numbers have lost digits

    found = silhouette_samples(scaled, labels, kernels=KERNELS)

    assert found == pytest.approx(defined(distances_of(exact), labels), abs=1e-6)


@pytest.mark.parametrize(("offset", "kind"), [(1e4, np.float32), (1e10, np.float64)])
def test_an_offset_does_not_matter(offset, kind):
    points, labels = blobs(80)
    shifted = (points.astype(np.float64) + offset).astype(kind)
    shifted[11:14] = shifted[20]

    found = silhouette_samples(shifted, labels, kernels=KERNELS)

    assert found == pytest.approx(defined(distances_of(shifted), labels), abs=1e-6)


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int16, np.uint8])
def test_any_real_numbers_are_points(kind):
    points, labels = blobs(40)
    points = (np.abs(points) * 10).astype(kind)

    found = silhouette_samples(points, labels, kernels=KERNELS)

    assert found == pytest.approx(defined(distances_of(points), labels), abs=1e-6)


def test_points_may_be_read_only_and_in_any_layout():
    points, labels = blobs(40)
    right = silhouette_samples(points, labels, kernels=KERNELS)
    columns = np.asfortranarray(points)
    points.flags.writeable = columns.flags.writeable = labels.flags.writeable = False

    for given_points in (points, columns):
        found = silhouette_samples(given_points, labels, kernels=KERNELS)
        assert found.tolist() == right.tolist()


def test_angles_may_be_tiny_beside_others():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 12)
    base = rng.standard_normal(30)
    points = np.stack([base, base, -base])[labels] + 1e-8 * rng.standard_normal((36, 30))
    points[12:24, 0] += 4e-8

    found = silhouette_samples(points, labels, kernels=KERNELS, metric="cosine")

    assert found == pytest.approx(defined(distances_of(points, "cosine"), labels), abs=1e-6)


# What it refuses


@pytest.mark.parametrize(
    ("points", "labels", "reason"),
    [
        (np.ones((3, 2), np.float32), np.zeros(3, int), "compares clusters"),
        (np.empty((0, 2), np.float32), np.empty(0, int), "compares clusters"),
        (np.ones((3, 2), np.float32), np.arange(2), "labels have shape"),
        (np.ones((3, 2), np.float32), np.arange(3.0), "must be integers"),
        (np.ones(3, np.float32), np.arange(3), "rows of real numbers"),
        (np.ones((3, 2), complex), np.arange(3), "rows of real numbers"),
        (np.float32([[1.0], [math.nan]]), np.arange(2), "NaN or infinite"),
        (np.float32([[1.0], [-math.inf]]), np.arange(2), "NaN or infinite"),
    ],
)
def test_what_is_no_clustering_is_refused(points, labels, reason):
    with pytest.raises(ValueError, match=reason):
        silhouette_samples(points, labels, kernels=KERNELS)


def test_a_direction_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no direction"):
        silhouette_samples(np.eye(4)[:, :3], np.arange(4) % 2, kernels=KERNELS, metric="cosine")


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="euclidean or cosine"):
        silhouette_samples(np.eye(4), np.arange(4) % 2, kernels=KERNELS, metric="manhattan")


# Of a sample


def test_a_sample_of_all_is_exact():
    points, labels = blobs(200)
    labels[3] = 77
    right = silhouette(points, labels, kernels=KERNELS)

    for n_sample in (200, 10_000):
        found = sampled_silhouette(points, labels, n_sample, kernels=KERNELS, seed=0)
        assert found[:3] == pytest.approx((right, right, right), abs=1e-12)


@pytest.mark.parametrize(("confidence", "least", "most"), [(0.5, 0.42, 0.58), (0.95, 0.91, 0.98)])
def test_intervals_cover_the_mean_as_often_as_they_say(confidence, least, most):
    points, labels = blobs()
    labels[:2] = 100, 101  # alone
    right = silhouette(points, labels, kernels=KERNELS)

    found = [
        sampled_silhouette(points, labels, 120, kernels=KERNELS, seed=seed, confidence=confidence)
        for seed in range(400)
    ]

    covered = np.mean([estimate.low <= right <= estimate.high for estimate in found])
    values = np.array([estimate.value for estimate in found])
    assert least <= covered <= most
    assert abs(values.mean() - right) < 4 * values.std() / math.sqrt(len(values))


def test_intervals_of_another_draw_would_be_too_narrow():
    """The control: as if the sample were four times as large as it is."""
    points, labels = blobs()
    right = silhouette(points, labels, kernels=KERNELS)

    found = [
        sampled_silhouette(points, labels, 120, kernels=KERNELS, seed=seed) for seed in range(200)
    ]

    covered = np.mean([abs(e.value - right) <= (e.high - e.value) / 2.0 for e in found])
    assert covered < 0.8


def test_an_interval_shrinks_with_the_sample():
    points, labels = blobs()

    widths = [
        found.high - found.low
        for n in (20, 60, 200, 590)
        for found in [sampled_silhouette(points, labels, n, kernels=KERNELS, seed=1)]
    ]

    assert widths == sorted(widths, reverse=True)


def test_each_cluster_is_in_the_sample():
    points, labels = blobs(400)
    labels[:4] = 50, 50, 51, 51
    points[:4] += np.float32(1000.0)  # they are everything that is well apart

    found = sampled_silhouette(points, labels, 3, kernels=KERNELS, seed=5)

    assert found.low <= found.value <= found.high
    assert found == sampled_silhouette(points, labels, 3, kernels=KERNELS, seed=5)
    assert found != sampled_silhouette(points, labels, 3, kernels=KERNELS, seed=6)


def test_where_all_are_alone_the_mean_is_known():
    points, _ = blobs(10)

    found = sampled_silhouette(points, np.arange(10), 5, kernels=KERNELS, seed=0)

    assert found[:3] == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("wrong", [{"n_sample": 0}, {"confidence": 1.0}, {"confidence": 0.0}])
def test_what_is_no_sample_is_refused(wrong):
    points, labels = blobs(20)

    with pytest.raises(ValueError, match=next(iter(wrong))):
        sampled_silhouette(points, labels, kernels=KERNELS, seed=0, **{"n_sample": 5, **wrong})


# By centroids


def test_the_simplified_one_takes_the_two_nearest_centroids():
    points, labels = blobs(50)
    centroids = np.stack([points[labels == k].mean(axis=0) for k in range(6)])
    _, first, _, second = naive.assign(points, centroids)

    found = simplified(points, centroids, kernels=KERNELS)

    assert found == simplified_silhouette(np.array(first), np.array(second))
    assert simplified(points, centroids[:1], kernels=KERNELS) is None
