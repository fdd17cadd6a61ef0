"""Where fits start from: what ``init`` and ``n_init`` of an estimator mean."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from pipeline.clustering.seeding import Init, begin, n_distinct
from pipeline.estimator.arrays import Frame, Rows, rows_of
from pipeline.kernels.contract import Kernels, Points, Weights

METHODS = ("k-means++", "k-means||", "random")
MANY_STARTS = 10  # what ``auto`` means where a start knows nothing of the data


class Start(TypedDict, total=False):
    """What `pipeline.clustering.kmeans.fit` is told of where it starts."""

    init: Init
    n_init: int
    start: Points


def starts(
    init: str | ArrayLike | Callable[..., Any],
    n_init: int | str,
    rows: Rows,
    frame: Frame,
    *,
    n_clusters: int,
    seed: int,
) -> list[Start]:
    """One for each call of a fit; the best of them is wanted.

    Raises
    ------
    ValueError
        Centroids that are given are not of the shape that they must have.
    """
    if isinstance(init, str):
        if n_init == "auto":
            n_init = MANY_STARTS if init == "random" else 1
        return [{"init": init, "n_init": n_init}]  # type: ignore[typeddict-item]  # it is checked
    wanted = n_clusters, rows.shape[1]
    if not callable(init):
        if n_init not in ("auto", 1):
            warnings.warn(
                "init gives the centroids: one fit starts from them, whatever n_init",
                RuntimeWarning,
                stacklevel=6,
            )
        return [{"start": _start(init, frame, wanted)}]
    random = np.random.RandomState(seed)
    n_starts = MANY_STARTS if n_init == "auto" else int(n_init)
    return [
        {"start": _start(init(rows, n_clusters, random_state=random), frame, wanted)}
        for _ in range(n_starts)
    ]


def start_of_batches(
    start: Start,
    points: Points,
    n_clusters: int,
    *,
    kernels: Kernels,
    seed: int,
    weights: Weights | None,
) -> Points:
    """Where the first batch finds the centroids.

    Raises
    ------
    ValueError
        They are to be found in a batch with fewer distinct points.
    """
    if "start" in start:
        return start["start"]
    n_found = n_distinct(points, at_most=n_clusters)
    if n_found < n_clusters:
        raise ValueError(
            f"the first batch has {n_found} distinct points, fewer than n_clusters={n_clusters}"
        )
    return begin(start["init"], points, n_clusters, kernels=kernels, seed=seed, weights=weights)


def _start(centroids: Any, frame: Frame, wanted: tuple[int, int]) -> Points:
    start = rows_of(centroids, "init")
    if start.shape != wanted:
        raise ValueError(f"init has shape {start.shape}, but must be {wanted}")
    return frame.kept(start)
