"""What a fit is, and what its parameters say."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning

from pipeline import KMeans
from pipeline.estimator import arrays
from tests import naive
from tests.estimator.house import blobs, fitted


def test_labels_are_the_exact_argmin_over_the_centroids():
    x = blobs(dtype=np.float32)
    km = fitted(x, k=7)

    labels, squared, _, _ = naive.assign(x, km.cluster_centers_)

    assert km.labels_.tolist() == labels
    assert km.predict(x).tolist() == labels
    assert km.inertia_ == pytest.approx(sum(squared), rel=1e-12)
    assert km.score(x) == pytest.approx(-km.inertia_, rel=1e-12)
    assert km.n_iter_ >= 1


def test_distances_are_those_of_float64():
    x = blobs(dtype=np.float32)
    x[7] = fitted(x).cluster_centers_[2] + np.float32(1e-6)  # a product would lose this one
    km = fitted(x)

    gaps = x[:, None, :].astype(np.float64) - km.cluster_centers_[None]

    expected = np.sqrt(np.square(gaps).sum(axis=2))
    np.testing.assert_allclose(km.transform(x), expected, rtol=1e-9)
    assert (km.fit_transform(x) == km.transform(x)).all()
    assert km.transform(x).dtype == np.float64


@given(st.permutations(range(12)), st.lists(st.integers(0, 3), min_size=12, max_size=12))
@settings(max_examples=20, deadline=None)
def test_few_rows_know_no_order_and_a_weight_is_a_repeat(order, counts):
    x = np.random.default_rng(1).normal(size=(12, 4))
    counts = np.array(counts)
    counts[:3] += 1
    order = np.array(order)

    weighted = fitted(x[order], k=3, n_init=2).set_params()
    weighted.fit(x[order], sample_weight=counts[order])
    repeated = fitted(x.repeat(counts, axis=0), k=3, n_init=2)

    assert weighted.cluster_centers_.tobytes() == repeated.cluster_centers_.tobytes()
    assert (weighted.predict(x) == repeated.predict(x)).all()
    assert weighted.inertia_ == pytest.approx(repeated.inertia_, rel=1e-12)


def test_weights_count_relative_to_each_other():
    x = blobs()
    weights = np.random.default_rng(0).uniform(0.5, 50.0, len(x))
    one, other = fitted(x), fitted(x)

    one.fit(x, sample_weight=weights)
    other.fit(x, sample_weight=weights * 2.0**30)

    assert (one.cluster_centers_ == other.cluster_centers_).all()
    assert other.inertia_ == one.inertia_ * 2.0**30
    assert fitted(x).fit(x, sample_weight=3.0).inertia_ == pytest.approx(3 * fitted(x).inertia_)


def test_many_rows_are_weighted_too():
    x = blobs(n=5000)
    weights = np.where(x[:, 0] > 0.0, 4.0, 1.0)
    assert len(x) > arrays.MAX_MERGED_ROWS

    km = KMeans(1, n_threads=1).fit(x, sample_weight=weights)

    np.testing.assert_allclose(km.cluster_centers_[0], np.average(x, axis=0, weights=weights))


def test_a_weight_of_zero_leaves_a_row_out():
    x = blobs()
    weights = np.ones(len(x))
    weights[:100] = 0.0
    x[0] = 1e9

    km = KMeans(5, random_state=0, n_threads=1).fit(x, sample_weight=weights)

    assert (km.cluster_centers_ == fitted(x[100:]).cluster_centers_).all()
    assert km.labels_.shape == (300,)
    assert (km.labels_ == km.predict(x)).all()


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (np.zeros(300), "zero for every sample"),
        (np.full(300, -1.0), "not below 0"),
        (np.full(300, np.nan), "finite"),
        (np.ones(299), r"must be \(300,\)"),
        (np.geomspace(1e-9, 1.0, 300), "a ratio above 1048576"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights, sentence):
    with pytest.raises(ValueError, match=sentence):
        KMeans(2, n_threads=1).fit(blobs(), sample_weight=weights)


def test_fewer_distinct_points_than_clusters_are_fewer_clusters():
    x = np.repeat([[0.0, 1.0], [2.0, 3.0]], 10, axis=0)

    with pytest.warns(ConvergenceWarning, match=r"clusters \(2\) found smaller"):
        km = fitted(x, k=5)

    assert km.cluster_centers_.shape == (5, 2)
    assert sorted(set(km.labels_.tolist())) == [0, 1]
    assert (km.labels_ == km.predict(x)).all()
    assert km.inertia_ == 0.0
    with pytest.raises(ValueError, match="n_samples=3 should be at least n_clusters=5"):
        fitted(x[:3], k=5)


def test_batches_end_near_a_fit():
    x = blobs(n=2000)
    km = KMeans(5, random_state=0, n_threads=1)

    for part in np.array_split(x, 20):
        km.partial_fit(part)

    assert km.n_iter_ == 20
    assert km.labels_.shape == (100,)
    assert -km.score(x) < 1.02 * fitted(x).inertia_
    assert (km.predict(x[-100:]) == km.labels_).all()
    assert km.inertia_ == pytest.approx(-km.score(x[-100:]), rel=1e-12)


def test_centroids_of_batches_are_the_means_of_what_came_to_them():
    x = np.concatenate([blobs(n=200, k=1) - 100.0, blobs(n=200, k=1) + 100.0])[::3]
    km = KMeans(2, init=x[[0, -1]], n_threads=1)
    weights = np.random.default_rng(0).integers(0, 4, len(x)) * 1000.0

    for rows in np.array_split(np.random.default_rng(1).permutation(len(x)), 4):
        km = pickle.loads(pickle.dumps(km.partial_fit(x[rows], sample_weight=weights[rows])))

    expected = [np.average(x[s], axis=0, weights=weights[s]) for s in (x[:, 0] < 0, x[:, 0] > 0)]
    np.testing.assert_allclose(km.cluster_centers_, expected, rtol=1e-6)


def test_a_batch_after_a_fit_finds_it_as_heavy_as_its_rows():
    x = blobs(n=600, k=2)
    km = fitted(x, k=1)

    km.partial_fit(x[:1] + 600.0)

    np.testing.assert_allclose(
        km.cluster_centers_[0], (x.sum(axis=0) + x[0] + 600.0) / 601, rtol=1e-6
    )
    with pytest.raises(ValueError, match="has 1 distinct points, fewer than n_clusters=2"):
        KMeans(2, n_threads=1).partial_fit(np.ones((4, 2)))


# Parameters


@pytest.mark.parametrize("init", ["k-means++", "k-means||", "random"])
def test_every_start_finds_clusters_that_lie_apart(init):
    x = make_blobs(400, 2, centers=4, cluster_std=0.1, random_state=3)[0]

    km = fitted(x, k=4, init=init, n_init=10)

    assert sorted(np.bincount(km.labels_)) == [100] * 4


def test_start_may_be_given_or_made():
    x = blobs()
    start = x[:5].copy()

    given = fitted(x, init=start)
    made = fitted(x, init=lambda x, k, random_state: x[:k], n_init=1)

    assert (given.cluster_centers_ == made.cluster_centers_).all()
    assert (start == x[:5]).all()
    with pytest.warns(RuntimeWarning, match="one fit"):
        fitted(x, init=start, n_init=3)
    with pytest.raises(ValueError, match=r"init has shape \(4, 3\), but must be \(5, 3\)"):
        fitted(x, init=start[:4])


def test_more_starts_are_no_worse():
    x = np.random.default_rng(0).normal(size=(500, 2))

    assert fitted(x, k=20, n_init=5).inertia_ <= fitted(x, k=20).inertia_


@pytest.mark.parametrize(
    "options",
    [
        {"n_clusters": 0},
        {"n_clusters": 2.0},
        {"n_init": 0},
        {"n_init": "many"},
        {"max_iter": 0},
        {"tol": -1.0},
        {"tol": "little"},
        {"init": "k-means+++"},
        {"device": "tpu"},
        {"n_threads": 0},
        {"random_state": -1},
        {"random_state": "x"},
    ],
    ids=str,
)
def test_parameter_that_cannot_be_used_is_named(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        KMeans(**{"n_clusters": 2} | options).fit(blobs())


def test_random_state_decides():
    x = np.random.default_rng(0).normal(size=(300, 2))

    def centers(state):
        return KMeans(30, random_state=state, n_threads=1).fit(x).cluster_centers_.tobytes()

    assert centers(3) == centers(np.int64(3))
    assert len({centers(seed) for seed in range(4)}) > 1
    for make in (np.random.RandomState, np.random.default_rng):
        assert centers(make(7)) == centers(make(7))
    np.random.seed(1)
    first = centers(None)
    np.random.seed(1)
    assert centers(None) == first


def test_verbose_says_how_a_fit_goes(capfd):
    fitted(blobs(), verbose=1)

    assert "pass 1: inertia" in capfd.readouterr().err
