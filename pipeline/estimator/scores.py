"""How good a clustering is: scores of scikit-learn by their names, in memory that stays small.

Where scikit-learn holds a distance for every pair of samples, these go through them in tiles.
float64 is accepted, and kept as float32 where distances of pairs are taken: equal to
scikit-learn's values to 1e-6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.clustering import scores, silhouette
from pipeline.estimator.arrays import Rows, rows_of
from pipeline.estimator.parameters import check_choice, check_int, seed_of
from pipeline.estimator.twins import kernels_for
from pipeline.kernels.contract import Kernels

Ranks = NDArray[np.int64]  # (n_samples,): labels as 0, 1, 2, …
METRICS = ("euclidean", "cosine")


def silhouette_score(
    X: Any,  # noqa: N803 as scikit-learn has it
    labels: ArrayLike,
    *,
    metric: silhouette.Metric = "euclidean",
    sample_size: int | None = None,
    random_state: Any = None,
) -> float:
    """Mean silhouette: 1 is well apart, 0 on the border, below it in the wrong cluster.

    Parameters
    ----------
    X : (n_samples, n_features) of numbers
    labels : (n_samples,) of anything that can be sorted
    metric
        ``euclidean`` or ``cosine``.
    sample_size
        Estimate it from so many samples, drawn from each cluster by its share, and each compared
        with *all* others: nearer to the truth than the silhouette of a sample by itself.
    random_state
        Where the draw begins: an int, None, or a generator of NumPy.

    Raises
    ------
    ValueError
        Fewer than two clusters, as many as samples, or data that cannot be used.
    """
    rows, ranks = _read(X, labels)
    check_choice("metric", metric, METRICS)
    if sample_size is None:
        return silhouette.silhouette(rows, ranks, kernels=_kernels(), metric=metric)
    check_int("sample_size", sample_size)
    estimate = silhouette.sampled_silhouette(
        rows, ranks, sample_size, kernels=_kernels(), seed=seed_of(random_state), metric=metric
    )
    return estimate.value


def silhouette_samples(
    X: Any,  # noqa: N803
    labels: ArrayLike,
    *,
    metric: silhouette.Metric = "euclidean",
) -> NDArray[np.float64]:
    """The silhouette of each sample; 0 where it is alone in its cluster.

    Parameters and errors are those of `silhouette_score`.

    Returns
    -------
    (n_samples,) float64
    """
    rows, ranks = _read(X, labels)
    check_choice("metric", metric, METRICS)
    return silhouette.silhouette_samples(rows, ranks, kernels=_kernels(), metric=metric)


def davies_bouldin_score(X: Any, labels: ArrayLike) -> float:  # noqa: N803
    """How much clusters are like the one they are most like: 0 or more, lower is better.

    Parameters and errors are those of `silhouette_score`.
    """
    return scores.davies_bouldin(*_read(X, labels))


def calinski_harabasz_score(X: Any, labels: ArrayLike) -> float:  # noqa: N803
    """Variance between the clusters over that within them: higher is better.

    Parameters and errors are those of `silhouette_score`.
    """
    return scores.calinski_harabasz(*_read(X, labels))


def _read(x: Any, labels: ArrayLike) -> tuple[Rows, Ranks]:
    rows = rows_of(x, "a score")
    given = np.asarray(labels)
    if given.shape != (len(rows),):
        raise ValueError(f"labels have shape {given.shape}, but must be ({len(rows)},)")
    found, ranks = np.unique(given, return_inverse=True)
    if not 2 <= len(found) < len(rows):
        raise ValueError(
            f"Number of labels is {len(found)}, but must be 2 to n_samples - 1, {len(rows) - 1}"
        )
    return rows, ranks.astype(np.int64)


def _kernels() -> Kernels:
    return kernels_for("auto", None)
