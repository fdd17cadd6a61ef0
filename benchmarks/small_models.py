"""Seconds to fit and to assign many small models at once, beside a loop over scikit-learn.

A thousand problems of 100 points each, and real tenants: the packages of each maintainer who has 50
to 200. Everybody fits the same problems to convergence, K = 8, one start each; the loops over faiss
(25 iterations) and over Eddy's own `fit` stand beside that. The mean of the problems' inertias,
computed anew in float64, is compared with scikit-learn's.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from benchmarks import _environment
from benchmarks._contenders import Stage, optional, sklearn_intelex, stage
from benchmarks._environment import settle
from benchmarks._pairs import Contender, Row, measure, show, write
from pipeline.clustering.kmeans import fit
from pipeline.clustering.many import assign_many, fit_many
from pipeline.kernels.contract import Points

TARGET = 10.0
TENANT = (50, 200)
MAX_COMPONENT = 1.0

Problems = list[Points]


def parsed() -> Any:
    parser = _environment.options(__doc__)
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--points", type=int, default=100, help="of each")
    parser.add_argument("--clusters", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def sklearn_loop(problems: Problems, k: int, kind: Any = KMeans) -> list[Points]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            kind(k, n_init=1, random_state=i).fit(points).cluster_centers_
            for i, points in enumerate(problems)
        ]


def faiss_loop(problems: Problems, k: int, faiss: Any) -> list[Points]:
    found = []
    for i, points in enumerate(problems):
        one = faiss.Kmeans(points.shape[1], k, niter=25, seed=i + 1, min_points_per_centroid=1)
        one.train(points)
        found.append(one.centroids)
    return found


def inertias(problems: Problems, models: list[Points]) -> NDArray[np.float64]:
    """(n_problems,) in float64, to the nearest centroid."""
    found = np.empty(len(problems))
    for i, (points, centroids) in enumerate(zip(problems, models, strict=True)):
        gaps = points[:, None].astype(np.float64) - centroids[None]
        found[i] = np.einsum("nkd,nkd->nk", gaps, gaps).min(axis=1).sum()
    return found


def fits(told: str, problems: Problems, k: int, ready: Stage, options: Any) -> list[Row]:
    """Everybody fits all the problems."""
    points = np.concatenate(problems)
    starts = np.concatenate([[0], np.cumsum([len(p) for p in problems])]).astype(np.int64)
    kernels = ready.kernels

    def ours() -> list[Points]:
        found = fit_many(
            points, starts, k, kernels=kernels, seed=options.seed, max_component=MAX_COMPONENT
        )
        return np.split(found.centroids, found.centroid_starts[1:-1])

    def one_by_one() -> list[Points]:
        return [
            fit(p, k, kernels=kernels, seed=i, max_component=MAX_COMPONENT).centroids
            for i, p in enumerate(problems)
        ]

    calls: dict[str, Callable[[], list[Points]]] = {
        "scikit-learn, a loop": lambda: sklearn_loop(problems, k)
    }
    kind = sklearn_intelex(options.threads) if options.isa == "native" else None
    if kind is not None:
        calls["scikit-learn-intelex, a loop"] = lambda: sklearn_loop(problems, k, kind)
    faiss = optional("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(options.threads)
        calls["faiss, a loop of 25 iterations"] = lambda: faiss_loop(problems, k, faiss)
    everybody = [
        Contender("eddy", ours, is_ours=True),
        Contender("eddy, a loop of fits", one_by_one, is_ours=True),
        *(Contender(name, call, is_fair=name == "scikit-learn, a loop")
          for name, call in calls.items()),
    ]  # fmt: skip
    rounds = measure(
        everybody, threads=options.threads, rng=np.random.default_rng([options.seed, 9]),
        min_rounds=options.rounds, seconds=0.0,
    )  # fmt: skip
    peer = inertias(problems, rounds.results["scikit-learn, a loop"]).mean()
    rows = []
    for one in everybody:
        off = inertias(problems, rounds.results[one.name]).mean() / peer - 1.0
        each = rounds.took(one.name)["median"] / len(problems)
        beside = {"mean inertia": f"{off:+.2%}", "each": f"{each * 1e3:.3g} ms"}
        target = TARGET if one.name == "eddy" else None
        rows.append(
            Row.of(
                f"fit, {told}, K = {k}", one.name, rounds,
                scale=1.0, unit="s", beside=beside, target=target,
            )
        )  # fmt: skip
    return rows


def assigns(told: str, problems: Problems, k: int, ready: Stage, options: Any) -> list[Row]:
    """Everybody labels all the points with the same models."""
    models = [points[:k] for points in problems]
    points, centroids = np.concatenate(problems), np.concatenate(models)
    starts = np.concatenate([[0], np.cumsum([len(p) for p in problems])]).astype(np.int64)
    centroid_starts = np.arange(0, len(centroids) + 1, k)
    estimators = []
    for model in models:
        estimator = KMeans(k, init=model, n_init=1, max_iter=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(model)
        estimator.cluster_centers_ = model.copy()
        estimators.append(estimator)

    def by_numpy() -> NDArray[Any]:
        found = []
        for x, c in zip(problems, models, strict=True):
            found.append((np.square(c).sum(axis=1) - 2.0 * (x @ c.T)).argmin(axis=1))
        return np.concatenate(found)

    everybody = [
        Contender(
            "eddy",
            lambda: (
                (
                    assign_many(points, starts, centroids, centroid_starts, kernels=ready.kernels)
                ).labels
            ),
            is_ours=True,
        ),
        Contender(
            "scikit-learn, a loop of predict",
            lambda: np.concatenate(
                [e.predict(p) for e, p in zip(estimators, problems, strict=True)]
            ),
            is_fair=True,
        ),
        Contender("numpy, a loop", by_numpy),
    ]
    rounds = measure(
        everybody, threads=options.threads, rng=np.random.default_rng([options.seed, 10]),
        min_rounds=max(3, options.rounds), seconds=1.0,
    )  # fmt: skip
    labels = rounds.results["eddy"]
    return [
        Row.of(
            f"assign, {told}, K = {k}", one.name, rounds, scale=1e3, unit="ms",
            beside={"labels unlike Eddy's": str(int((rounds.results[one.name] != labels).sum()))},
            target=TARGET if one.is_ours else None,
        )
        for one in everybody
    ]  # fmt: skip


def main() -> int:
    options = parsed()
    settle(options.isa, "small_models")
    ready = stage(options)
    print("× is speed beside the loop over scikit-learn")
    rng = np.random.default_rng([options.seed, 11])
    texts = ready.vectors.texts
    drawn = [
        np.ascontiguousarray(texts[rng.choice(len(texts), options.points, replace=False)])
        for _ in range(options.problems)
    ]
    tenants = [np.ascontiguousarray(p) for p in ready.vectors.tenants(*TENANT)]
    tenants = [p for p in tenants if len(np.unique(p, axis=0)) >= options.clusters]
    n_dims = texts.shape[1]
    scenes = {f"{len(drawn)} problems of {options.points} x {n_dims}": drawn}
    if tenants:
        whose = "sections" if options.folder is None else "maintainers"
        told = f"{len(tenants)} {whose} with {TENANT[0]} to {TENANT[1]} packages, {n_dims}-d"
        scenes[told] = tenants
    rows: list[Row] = []
    for told, problems in scenes.items():
        for part in (fits, assigns):
            rows += (new := part(told, problems, options.clusters, ready, options))
            show(new)
    write("small_models", rows, ready.told, scratch=options.scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
