"""Scores: scikit-learn's own are the judge."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

import pipeline
from pipeline import silhouette_score
from tests.estimator.house import blobs, fitted


@pytest.mark.parametrize("make", [np.asarray, lambda x: x + 1e6, lambda x: x.astype(np.float32)])
@pytest.mark.parametrize("name", [name for name in pipeline.__all__ if name.islower()])
def test_scores_are_those_of_scikit_learn(name, make):
    x = make(blobs(n=400, k=6))
    labels = np.array(["red", "green", "blue", "grey"])[fitted(x, k=4).labels_]

    found = getattr(pipeline, name)(x, labels)

    # theirs loses digits to an offset
    centred = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
    expected = getattr(metrics, name)(centred, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_silhouette_of_a_sample_is_near_that_of_all():
    x = blobs(n=2000)
    labels = fitted(x).labels_

    one, other = (silhouette_score(x, labels, sample_size=300, random_state=1) for _ in range(2))

    assert one == other
    assert one == pytest.approx(silhouette_score(x, labels), abs=0.03)
    cosine = silhouette_score(x, labels, metric="cosine")
    assert cosine == pytest.approx(metrics.silhouette_score(x, labels, metric="cosine"), abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "options", "sentence"),
    [
        ([0] * 300, {}, "Number of labels is 1"),
        (range(300), {}, "Number of labels is 300"),
        ([0, 1], {}, r"must be \(300,\)"),
        ([0, 1] * 150, {"metric": "cityblock"}, "metric is 'cityblock'"),
        ([0, 1] * 150, {"sample_size": 0}, "sample_size is 0"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        silhouette_score(blobs(), list(labels), **options)
