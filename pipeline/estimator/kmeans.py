"""`KMeans`: Eddy's exact fit behind the interface of scikit-learn's estimator of that name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.clustering.kmeans import FewerPointsError, Fit, fit
from pipeline.clustering.minibatch import MiniBatch
from pipeline.estimator.arrays import (
    Frame,
    Rows,
    check_names,
    frame_of,
    max_component,
    merged,
    names_of,
    rows_of,
    scaled,
    weighing,
    weights_of,
)
from pipeline.estimator.bases import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    ConvergenceWarning,
    NotFittedError,
    TransformerMixin,
)
from pipeline.estimator.model import Model
from pipeline.estimator.parameters import check_choice, check_int, check_number, seed_of
from pipeline.estimator.starts import METHODS, Start, start_of_batches, starts
from pipeline.estimator.twins import kernels_for
from pipeline.kernels.contract import DEVICE_KINDS, Kernels, Labels, Points, Weights


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """K-means with exact labels, in the interface of ``sklearn.cluster.KMeans``.

    A label is the argmin over all centroids, equal to float64, ties to the lower label; a fit
    depends on its arguments alone, not on threads or device. Where scikit-learn is installed this
    is one of its estimators (pipelines, searches, ``clone``, ``set_output``); it is not needed.

    Parameters
    ----------
    n_clusters
        How many; with fewer distinct points there are fewer, and a ConvergenceWarning.
    init
        ``k-means++`` (greedy), ``k-means||``, ``random``, centroids (n_clusters, n_features), or
        a function of ``X, n_clusters, random_state`` that returns such.
    n_init
        The best of so many starts; ``auto``: 10 for ``random`` and for a function, else 1.
    max_iter
        Passes over the points, at most.
    tol
        A fit ends when the centroids' shift, squared and summed, is at most so many times the
        mean variance of a feature.
    verbose
        Above 0: a line on stderr after each pass.
    random_state
        An int for results that repeat; None or a generator of NumPy: the seed is drawn from it.
    copy_x, algorithm
        Taken so that a call written for scikit-learn works; both change nothing. ``X`` is never
        modified, and every algorithm of that name has the same result.
    device
        ``auto``: a CUDA device where one answers, else the CPU; ``cpu``; ``cuda``.
    n_threads
        At most so many compute on the CPU; None: what the container may use.

    Attributes
    ----------
    cluster_centers_ : (n_clusters, n_features) float32 or, unless X was float32, float64
    labels_ : (n_samples,) int32
        Of the points of the last fit, or of the last batch.
    inertia_ : float
        The sum of their squared distances to their centroids, each times its weight.
    n_iter_ : int
        Passes over the points; after `partial_fit`: batches.
    n_features_in_ : int
    feature_names_in_ : (n_features,) object
        Where X was a table whose columns have names.

    Notes
    -----
    **What is kept is float32.** float32 rows are used as they are, without a copy if they are
    packed in C order: a memory-mapped file may be larger than memory. Other types are copied to
    float32; from float64 values that it cannot hold, the value of their feature that is nearest to
    0 is first taken away, so the error of a value is at most 2**-24 of its feature's range,
    wherever the data lie. Centroids are float32 too; shown as float64 they are the sum of both.
    NaN, infinity, and values that are beyond float32 even so, are a ValueError.

    **Weights** of 0 leave a sample out of the fit; the others may span a ratio of 2**20.
    Up to 4 096 rows, a weight of two gives what the row given twice gives, to the bit, and the
    order of the rows has no influence.

    **Threads and processes.** Fits of several threads are right, and take turns. A forked child
    computes on one thread, with the same results; a spawned one on all.

    Examples
    --------
    >>> from pipeline import KMeans
    >>> km = KMeans(n_clusters=2, random_state=0).fit([[1, 2], [1, 4], [10, 2], [10, 4]])
    >>> sorted(km.cluster_centers_.tolist())
    [[1.0, 3.0], [10.0, 3.0]]
    >>> bool(km.predict([[0, 0]]) == km.labels_[0])
    True
    """

    cluster_centers_: NDArray[np.float32] | NDArray[np.float64]
    labels_: Labels
    inertia_: float
    n_iter_: int
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]
    _model: Model

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: str | ArrayLike | Callable[..., Any] = "k-means++",
        n_init: int | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        verbose: int = 0,
        random_state: Any = None,
        copy_x: bool = True,
        algorithm: str = "lloyd",
        device: str = "auto",
        n_threads: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose
        self.random_state = random_state
        self.copy_x = copy_x
        self.algorithm = algorithm
        self.device = device
        self.n_threads = n_threads

    def fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803 as scikit-learn has it
        """Find the centroids.

        Parameters
        ----------
        X : (n_samples, n_features) of numbers
        y
            Ignored.
        sample_weight : (n_samples,), optional
            How much each counts, 0 or more.

        Raises
        ------
        ValueError, TypeError
            X, a weight or a parameter cannot be used; the sentence says why.
        """
        self._check_parameters()
        rows = self._first_rows(X)
        weights = weights_of(sample_weight, len(rows))
        counting, heaviness = weighing(rows, weights)
        frame = frame_of(counting)
        found, factor = self._fit(counting, frame, heaviness)
        masses = np.bincount(found.labels, heaviness, self.n_clusters).astype(np.float64)
        self._keep(Model(frame, found.centroids, masses), rows.dtype)
        self.labels_ = found.labels
        if counting is not rows:
            self.labels_, _ = self._model.nearest(rows, self._kernels())
        self.inertia_ = found.inertia * factor
        self.n_iter_ = min(found.n_iterations, self.max_iter)
        return self

    def partial_fit(
        self,
        X: Any,  # noqa: N803
        y: Any = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn from a batch of rows that are not seen again; the first one makes the start.

        A centroid becomes the mean of all rows that were nearest to it when they came. After a
        `fit`, the rows of that count as come. Rows that can be read again, in memory or mapped
        from a file, are clustered better by `fit`.

        Parameters and errors are those of `fit`.
        """
        self._check_parameters()
        is_first = not hasattr(self, "_model")
        rows = self._first_rows(X) if is_first else self._later_rows(X)
        weights = weights_of(sample_weight, len(rows))
        counting, heaviness = weighing(rows, weights)
        frame = frame_of(counting) if is_first else self._model.frame
        points, (heaviness, factor) = frame.kept(counting), scaled(heaviness)
        if is_first:
            seed = seed_of(self.random_state)
            centroids = start_of_batches(
                self._starts(counting, frame, seed)[0],
                points,
                self.n_clusters,
                kernels=self._kernels(),
                seed=seed,
                weights=heaviness,
            )
            self._keep(Model(frame, centroids, np.zeros(len(centroids))), rows.dtype)
            self.n_iter_ = 0
        before = self._model
        learner = MiniBatch(
            before.centroids if before.means is None else before.means,
            masses=before.masses / factor,
            kernels=self._kernels(),
            max_component=max_component(points),
        )
        learner.step(points, heaviness)
        after = Model(frame, learner.centroids, learner.masses * factor, learner.means)
        self._keep(after, self.cluster_centers_.dtype)
        self.labels_, self.inertia_ = after.nearest(rows, self._kernels(), weights)
        self.n_iter_ += 1
        return self

    def fit_predict(
        self,
        X: Any,  # noqa: N803
        y: Any = None,
        sample_weight: ArrayLike | None = None,
    ) -> Labels:
        """`fit`, then the labels of the same rows."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def fit_transform(
        self,
        X: Any,  # noqa: N803
        y: Any = None,
        sample_weight: ArrayLike | None = None,
    ) -> NDArray[np.float64]:
        """`fit`, then `transform` of the same rows."""
        self.fit(X, sample_weight=sample_weight)
        return self._model.distances(rows_of(X, "KMeans"))

    def predict(self, X: Any) -> Labels:  # noqa: N803
        """Label each row with its nearest centroid; ties go to the lower label.

        Returns
        -------
        (n_samples,) int32
        """
        rows = self._later_rows(X)
        return self._model.nearest(rows, self._kernels())[0]

    def transform(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """How far each row is from every centroid.

        Returns
        -------
        (n_samples, n_clusters) float64
            Distances, not squared.
        """
        rows = self._later_rows(X)
        return self._model.distances(rows)

    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:  # noqa: N803
        """Minus the inertia of these rows: larger is better."""
        rows = self._later_rows(X)
        weights = weights_of(sample_weight, len(rows))
        return -self._model.nearest(rows, self._kernels(), weights)[1]

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    # Fitting

    def _fit(self, rows: Rows, frame: Frame, weights: Weights | None) -> tuple[Fit, float]:
        """The best fit of rows that all count, and what one unit of its inertia stands for."""
        seed = seed_of(self.random_state)
        points, weights, places = merged(frame.kept(rows), weights)
        weights, factor = scaled(weights)
        settings: dict[str, Any] = {
            "kernels": self._kernels(),
            "seed": seed,
            "max_component": max_component(points),
            "weights": weights,
            "max_iterations": self.max_iter,
            "tol": float(self.tol),
            "on_pass": _report if self.verbose else None,
        }
        try:
            found = min(
                (
                    fit(points, self.n_clusters, **start, **settings)
                    for start in self._starts(rows, frame, seed)
                ),
                key=lambda found: found.inertia,
            )
        except FewerPointsError as fewer:
            found = self._fit_fewer(points, fewer.n_distinct, settings)
        labels = found.labels if places is None else found.labels[places]
        return _with(found, labels, self.n_clusters), factor

    def _fit_fewer(self, points: Points, n_distinct: int, settings: dict[str, Any]) -> Fit:
        warnings.warn(
            f"Number of distinct clusters ({n_distinct}) found smaller than n_clusters "
            f"({self.n_clusters}): there are no more distinct points in X.",
            ConvergenceWarning,
            stacklevel=4,
        )
        return fit(points, n_distinct, **settings)

    def _starts(self, rows: Rows, frame: Frame, seed: int) -> list[Start]:
        return starts(self.init, self.n_init, rows, frame, n_clusters=self.n_clusters, seed=seed)

    def _check_parameters(self) -> None:
        check_int("n_clusters", self.n_clusters)
        check_int("max_iter", self.max_iter)
        if self.n_init != "auto":
            check_int("n_init", self.n_init)
        if self.n_threads is not None:
            check_int("n_threads", self.n_threads)
        check_number("tol", self.tol)
        if isinstance(self.init, str):
            check_choice("init", self.init, METHODS)
        check_choice("device", self.device, DEVICE_KINDS)

    def _keep(self, model: Model, dtype: np.dtype[Any]) -> None:
        self._model = model
        self.cluster_centers_ = model.frame.given(model.centroids).astype(dtype)

    # Rows, before and after a fit

    def _first_rows(self, x: Any) -> Rows:
        """Rows of a fit; what they are like is noted."""
        rows = rows_of(x, "KMeans")
        if len(rows) < self.n_clusters:
            raise ValueError(
                f"n_samples={len(rows)} should be at least n_clusters={self.n_clusters}"
            )
        self.n_features_in_ = rows.shape[1]
        names = names_of(x)
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return rows

    def _later_rows(self, x: Any) -> Rows:
        """Rows that must be like those of the fit."""
        if not hasattr(self, "_model"):
            raise NotFittedError("This KMeans instance is not fitted yet: call fit first")
        check_names(getattr(self, "feature_names_in_", None), x, "KMeans")
        rows = rows_of(x, "KMeans")
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[1]} features, but KMeans is expecting "
                f"{self.n_features_in_} features as input"
            )
        return rows

    def _kernels(self) -> Kernels:
        return kernels_for(self.device, self.n_threads)


def _with(found: Fit, labels: Labels, n_clusters: int) -> Fit:
    """A fit with the labels of all rows, and with as many centroids as were asked for.

    Those that are too many stand on the first one, and as ties go to the lower label, nothing is
    in them.
    """
    spare = np.repeat(found.centroids[:1], n_clusters - len(found.centroids), axis=0)
    return Fit(
        centroids=np.concatenate([found.centroids, spare]) if len(spare) else found.centroids,
        labels=labels,
        distances_squared=found.distances_squared,
        inertia=found.inertia,
        n_iterations=found.n_iterations,
        has_converged=found.has_converged,
    )


def _report(n_pass: int, inertia: float) -> None:
    sys.stderr.write(f"pass {n_pass}: inertia {inertia:.6g}\n")
