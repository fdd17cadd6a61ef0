"""Microseconds per `assign` call of the CPU twin, paired with the peers' inexact ones.

In one process, taking turns in random order, with the same number of threads: NumPy's product
and argmin, faiss' flat index (where installed), scikit-learn's `predict`. Eddy also returns the
exact float64 distance and a bound on the gap to the runner-up; the peers return float32 labels,
and how many of those are wrong stands beside their time.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import ThreadpoolController

from benchmarks._stage import describe, machine, quartiles, said, write_results
from benchmarks._workload import make_workload
from pipeline.kernels.cpu import CpuKernels

MIN_ROUNDS = 11
SECONDS = 3.0
"""For the rounds of one shape, once there are enough of them."""
REST_S = 0.05
"""Between two contenders, where they have several threads: a pool that idles spins at first."""


def numpy_peer(centroids: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], Any]:
    squares = np.square(centroids).sum(axis=1)
    return lambda points: (squares - 2.0 * (points @ centroids.T)).argmin(axis=1)


def faiss_peer(
    centroids: NDArray[np.float32], threads: int
) -> Callable[[NDArray[np.float32]], Any] | None:
    try:
        faiss = importlib.import_module("faiss")
    except ImportError:
        return None
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    return lambda points: index.search(points, 1)[1][:, 0]


def sklearn_peer(centroids: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], Any]:
    model = KMeans(len(centroids), init=centroids, n_init=1, max_iter=1).fit(centroids)
    model.cluster_centers_ = centroids
    return model.predict


def measure(
    contenders: dict[str, Callable[[], Any]], rng: np.random.Generator, threads: int
) -> dict[str, list[float]]:
    """Seconds per call, of each contender in each round."""
    controller = ThreadpoolController()
    repeats = {}

    def prepare(name: str) -> None:
        """Eddy calls the BLAS from threads of its own: there it must have one, as in a service."""
        is_ours = name.startswith("eddy")
        controller.limit(limits={"blas": 1 if is_ours else threads, "openmp": threads})
        if threads > 1:
            time.sleep(REST_S)

    for name, call in contenders.items():  # warms up; a call must be long enough for the clock
        prepare(name)
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(2e-4 / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    began = time.perf_counter()
    while len(times["eddy"]) < MIN_ROUNDS or (
        time.perf_counter() - began < SECONDS and len(times["eddy"]) < 200
    ):
        for name in rng.permutation(list(contenders)):
            prepare(name)
            start = time.perf_counter()
            for _ in range(repeats[name]):
                contenders[name]()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 1024])
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--points", type=int, nargs="+", default=[1, 100, 1000, 20_000])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    about = machine()
    print(describe(about))
    print(f"{options.threads} threads each, K={options.clusters}; quartiles of time / Eddy's time")

    rng = np.random.default_rng(options.seed)
    kernels = CpuKernels(options.threads)
    figures = {}
    for dims in options.dims:
        n_most = max(options.points)
        items = make_workload(n_most + options.clusters, dims, options.seed).items
        centroids = np.ascontiguousarray(items[n_most:])
        model = kernels.load(centroids)
        peers = {
            "numpy": numpy_peer(centroids),
            "faiss": faiss_peer(centroids, options.threads),
            "sklearn": sklearn_peer(centroids),
        }
        for n in options.points:
            points = np.ascontiguousarray(items[:n])
            contenders = {"eddy": lambda x=points, m=model: kernels.assign(m, x)}
            contenders["eddy, second"] = lambda x=points, m=model: kernels.assign(m, x, second=True)
            contenders |= {
                name: lambda x=points, p=peer: p(x) for name, peer in peers.items() if peer
            }
            labels = kernels.assign(model, points).labels
            gc.disable()
            times = measure(contenders, rng, options.threads)
            gc.enable()
            print(f"\nd={dims} n={n}, {len(times['eddy'])} rounds")
            for name, taken in times.items():
                ratios = quartiles([t / e for t, e in zip(taken, times["eddy"], strict=True)])
                micros = quartiles([t * 1e6 for t in taken])
                line = f"  {name:<13} {said(micros, ',.1f'):>32} µs"
                if name in peers:
                    n_wrong = int((peers[name](points) != labels).sum())
                    line += f"   {said(ratios, '.2f')} ×, {n_wrong} labels wrong"
                else:
                    n_wrong = 0
                print(line)
                key = f"d={dims} K={options.clusters} n={n} threads={options.threads} {name}"
                figures[key] = {"micros": micros, "times_eddy": ratios, "wrong": n_wrong}
    print(f"\nwritten to {write_results('kernels', figures, about)}")


if __name__ == "__main__":
    main()
