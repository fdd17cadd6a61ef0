"""The face of the package, and what scikit-learn asks of an estimator, or does without."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import pipeline
from pipeline import KMeans
from tests.estimator.house import ROOT, blobs, fitted, run

# The face


def test_importing_the_package_imports_nothing():
    done = run(
        "-c",
        "import sys, pipeline\n"
        "print({m.split('.')[0] for m in sys.modules} & {'numba', 'numpy', 'scipy', 'sklearn'})\n"
        "print(sorted(set(pipeline.__all__) - set(dir(pipeline))))",
    )

    assert done.stdout.split("\n")[:2] == ["set()", "[]"], done.stderr


def test_every_name_of_the_face_is_there():
    for name in pipeline.__all__:
        assert getattr(pipeline, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pipeline.no_such_name


@pytest.mark.parametrize(
    "example",
    re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S),
)
def test_examples_of_the_readme_run(example):
    exec(compile(example, "README.md", "exec"), {})


# scikit-learn


@pytest.mark.parametrize("n_clusters", [8, 2])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_finds_nothing_wrong(n_clusters):
    results = check_estimator(KMeans(n_clusters, n_threads=1), on_fail=None, on_skip=None)

    assert [r["check_name"] for r in results if r["status"] in ("failed", "xfail")] == []
    assert len([r for r in results if r["status"] == "passed"]) > 40


def test_works_in_a_pipeline_and_a_search():
    x = blobs()
    chain = make_pipeline(StandardScaler(), KMeans(n_threads=1, random_state=0))

    search = GridSearchCV(chain, {"kmeans__n_clusters": [2, 5]}, cv=3).fit(x)

    assert search.best_params_ == {"kmeans__n_clusters": 5}
    assert search.best_estimator_.predict(x).shape == (300,)


def test_copies_are_alike():
    x = blobs()
    km = fitted(x)

    for other in (pickle.loads(pickle.dumps(km)), copy.deepcopy(km)):
        assert (other.predict(x) == km.labels_).all()
        assert (other.transform(x) == km.transform(x)).all()
    assert clone(km).get_params() == km.get_params()
    assert not hasattr(clone(km), "labels_")


def test_names_of_columns_are_kept_and_compared():
    km = fitted(Table(blobs(), ["a", "b", "c"]))

    assert km.feature_names_in_.tolist() == ["a", "b", "c"]
    km.predict(Table(blobs(), ["a", "b", "c"]))
    with pytest.raises(ValueError, match="same order"):
        km.predict(Table(blobs(), ["c", "b", "a"]))
    with pytest.raises(ValueError, match=r"unseen at fit time:\n- x\n[^-]*missing:\n- b\n"):
        km.predict(Table(blobs(), ["a", "x", "c"]))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        km.predict(blobs())
    with pytest.warns(UserWarning, match="was fitted without feature names"):
        fitted(blobs()).predict(Table(blobs(), ["a", "b", "c"]))
    with pytest.raises(TypeError, match="all of them are strings"):
        fitted(Table(blobs(), ["a", 1, "c"]))
    assert not hasattr(km.fit(blobs()), "feature_names_in_")


class Table:
    """As much of a data frame as is looked at."""

    def __init__(self, values, columns):
        self.values, self.columns = values, columns

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


WITHOUT = """
import pickle, sys
sys.modules["sklearn"] = None
import numpy as np
from pipeline import KMeans, silhouette_score
x = np.random.default_rng(0).normal(size=(200, 3)) + 5 * np.arange(200)[:, None]
km = KMeans(3, random_state=0, n_threads=1)
assert km.get_params()["n_clusters"] == 3
assert repr(km) == "KMeans(n_clusters=3, n_threads=1, random_state=0)", km
try:
    km.predict(x)
except (ValueError, AttributeError) as error:
    assert "not fitted" in str(error)
else:
    raise AssertionError
assert km.set_params(n_clusters=4).fit(x).n_clusters == 4
try:
    km.set_params(n_cluster=4)
except ValueError as error:
    assert "n_clusters" in str(error)
else:
    raise AssertionError
again = pickle.loads(pickle.dumps(km))
assert (again.predict(x) == km.labels_).all()
assert (km.fit_transform(x) == km.transform(x)).all()
assert km.get_feature_names_out().tolist() == ["kmeans0", "kmeans1", "kmeans2", "kmeans3"]
assert silhouette_score(x, km.labels_) > 0.3
import warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    km.fit([[0.0], [0.0], [1.0], [1.0]])
assert said[0].category.__name__ == "ConvergenceWarning"
assert "sklearn.base" not in sys.modules
print("right")
"""


def test_needs_no_scikit_learn():
    done = run("-c", WITHOUT)

    assert done.stdout == "right\n", done.stderr
