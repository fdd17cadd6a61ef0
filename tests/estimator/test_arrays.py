"""What is kept of the data that people pass."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from pipeline import KMeans
from pipeline.estimator import arrays
from tests.estimator.house import blobs, fitted


@pytest.mark.parametrize(
    ("dtype", "shown"),
    [
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.float16, np.float32),
        (np.int64, np.float64),
        (np.uint8, np.float32),
        (bool, np.float32),
        (object, np.float64),
        (">f8", np.float64),
    ],
)
def test_numbers_of_any_type_are_taken(dtype, shown):
    x = (blobs() > 0).astype(dtype) if dtype is bool else (100 + blobs()).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        km, wide = fitted(x), fitted(x.astype(np.float64))

    assert km.cluster_centers_.dtype == shown
    assert (km.labels_ == wide.labels_).all()
    assert (km.predict(x.tolist()) == km.labels_).all()
    assert (km.predict(np.asfortranarray(x)) == km.labels_).all()


def test_rows_of_float32_are_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", blobs(dtype=np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")

    kept = arrays.frame_of(arrays.rows_of(x, "")).kept(arrays.rows_of(x, ""))

    assert np.shares_memory(kept, x)
    assert (fitted(x).labels_ == fitted(np.array(x)).labels_).all()


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e9, -1e12])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_offset_costs_no_digits(offset):
    x = blobs() / 7.0
    moved = x + offset

    km, reference = fitted(moved), fitted(moved - offset)

    assert km.inertia_ == pytest.approx(reference.inertia_, rel=1e-5)
    assert (km.predict(moved) == km.labels_).all()
    centers, expected = km.cluster_centers_ - offset, reference.cluster_centers_
    np.testing.assert_allclose(np.sort(centers, axis=0), np.sort(expected, axis=0), atol=1e-3)
    lost = fitted(moved.astype(np.float32)).score(moved.astype(np.float32))
    assert offset < 1e9 or -lost != pytest.approx(reference.inertia_, rel=1e-5)  # the control


def test_what_float32_holds_is_kept_as_it_is():
    x = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]]) + 1_000_000

    centers = fitted(x, k=2).cluster_centers_

    assert sorted(centers.tolist()) == [[1_000_001.0, 1_000_002.0], [1_000_010.0, 1_000_002.0]]


def test_an_outlier_costs_no_digits_near_zero():
    x = blobs()
    x[0] = 1e9

    kept = arrays.frame_of(x).kept(x)

    assert (kept == x.astype(np.float32)).all()


@given(st.floats(-1e30, 1e30), st.floats(1e-20, 1e20), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_a_kept_value_is_off_by_little_of_its_columns_range(offset, width, seed):
    x = offset + width * np.random.default_rng(seed).uniform(-1.0, 1.0, (20, 2))
    frame = arrays.frame_of(x)

    error = np.abs(frame.given(frame.kept(x)) - x)

    rounding = 2.0**-52 * np.abs(x).max()  # of float64, when it is moved there and back
    assert (error <= 2.0**-24 * np.ptp(x, axis=0) + rounding).all()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda x: x * np.nan, "contains NaN"),
        (lambda x: x * np.inf, "contains NaN|contains infinity"),
        (lambda x: np.where(x > 0, np.inf, x), "contains infinity"),
        (lambda x: x * 1e300, "too large for float32"),
        (lambda x: x * 1e-50, "too small to be told apart"),
        (lambda x: x[0], "Reshape your data"),
        (lambda x: x[None], "Reshape your data"),
        (lambda x: x[:0], r"0 sample\(s\)"),
        (lambda x: x[:, :0], r"0 feature\(s\)"),
        (lambda x: x.astype(complex), "Complex data not supported"),
        (lambda x: x.astype(str), "X is text"),
    ],
)
def test_data_that_cannot_be_used_are_refused(spoil, sentence):
    with pytest.raises(ValueError, match=sentence):
        fitted(spoil(blobs()))


@pytest.mark.parametrize("make", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_sparse_data_are_refused(make):
    with pytest.raises(TypeError, match="Sparse input is not supported"):
        fitted(make(blobs()))


def test_later_rows_must_fit_the_model():
    km = fitted(blobs())

    with pytest.raises(ValueError, match="X has 2 features, but KMeans is expecting 3"):
        km.predict(blobs(d=2))
    with pytest.raises(ValueError, match="contains NaN"):
        km.predict([[0.0, np.nan, 0.0]])
    with pytest.raises(NotFittedError, match="not fitted"):
        KMeans().transform(blobs())


@pytest.mark.parametrize(
    ("values", "power"),
    [([0.0], 1.0), ([1.0], 1.0), ([-1.5], 2.0), ([4.0, 3.0], 4.0), ([1e-40], 2.0**-132)],
)
def test_the_range_of_sums_comes_from_the_data(values, power):
    assert arrays.max_component(np.array([values], np.float32)) == power
