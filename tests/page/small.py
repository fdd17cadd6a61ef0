"""Small worlds for the page: clusters that nobody can mistake, made in a moment."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.config import ServerPolicy
from tests.page.stage import Stage, configured

N_DIMS = 8


def corners(n: int, seed: int = 7) -> NDArray[np.float32]:
    """(n, n_dims) directions of unit length."""
    found = np.random.default_rng(seed).normal(size=(n, N_DIMS)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def small_stage(
    policy: ServerPolicy | None = None, *, n_clusters: int = 6, n_items: int = 240
) -> Stage:
    """Clusters of different sizes, an hour old."""
    stage = Stage(configured(N_DIMS, n_clusters, n_items, policy), time.time() - 3600.0)
    places = corners(n_clusters)
    rng = np.random.default_rng(1)
    stage.broker.now_ms = int(stage.now_s * 1000)
    for i in range(n_items):
        place = places[int(n_clusters * (i / n_items) ** 2)]
        stage.write(f"item-{i}", noisy(place, rng))
    stage.rest()
    stage.now_s = max(stage.now_s, time.time() - 60.0)
    stage.rest()
    stage.start_server()
    return stage


def empty_stage(policy: ServerPolicy | None = None) -> Stage:
    """Topics without a record."""
    stage = Stage(configured(N_DIMS, 4, 100, policy), time.time())
    stage.start_server()
    return stage


def noisy(place: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A vector near a place."""
    return (place + rng.normal(0.0, 0.06, place.shape)).astype(np.float32)


def crowd(stage: Stage, n_clusters: int, per_s: float) -> Callable[[], None]:
    """A user who lets items wander from cluster to cluster, so many a second."""
    places = corners(n_clusters)
    rng = np.random.default_rng(2)
    state = {"at": time.monotonic(), "owed": 0.0}

    def write() -> None:
        now = time.monotonic()
        state["owed"] += (now - state["at"]) * per_s
        state["at"] = now
        n = int(min(state["owed"], per_s))
        state["owed"] -= n
        for item, place in zip(
            rng.integers(0, 20 * n_clusters, n), rng.integers(0, n_clusters, n), strict=True
        ):
            stage.write(f"item-{item}", noisy(places[place], rng))

    return write
