"""Fits in threads, in forked children and in a spawned one: what `test_processes.py` runs apart.

A process of its own, because what is tested for ends a process, or hangs it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

import numpy as np

from pipeline import KMeans

N_CLUSTERS = 20
LIMIT_S = 60


def points():
    return np.random.default_rng(5).normal(size=(20_000, 24)).astype(np.float32)


def fitted(x):
    return KMeans(N_CLUSTERS, random_state=0, max_iter=10, tol=0.0).fit(x)


def in_fork(work) -> int:
    """The exit status of ``work`` in a forked child; a child that hangs is killed."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(LIMIT_S)
        os._exit(0 if work() else 1)
    _, status = os.waitpid(pid, 0)
    return status


def spawned(expected) -> bool:
    return bool((fitted(points()).labels_ == expected).all())


def main() -> None:
    signal.alarm(2 * LIMIT_S)
    x = points()
    model = fitted(x)
    expected = model.labels_

    def is_right() -> bool:
        return bool((fitted(x).labels_ == expected).all())

    # two fits, and predictions beside them
    wrong = []

    def fit_beside() -> None:
        if not is_right():
            wrong.append("fit")

    def predict_beside() -> None:
        if not all((model.predict(x) == expected).all() for _ in range(10)):
            wrong.append("predict")

    jobs = [threading.Thread(target=f) for f in (fit_beside, fit_beside, predict_beside)]
    for job in jobs:
        job.start()
    while any(job.is_alive() for job in jobs):  # forks while kernels are at work
        assert in_fork(is_right) == 0
    for job in jobs:
        job.join()
    assert wrong == []

    # a child that inherits a fitted model
    assert in_fork(is_right) == 0
    assert in_fork(lambda: (model.predict(x) == expected).all()) == 0
    assert is_right()  # and the parent is none the worse

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(spawned, (expected,))
    print("right")


if __name__ == "__main__":
    main()
