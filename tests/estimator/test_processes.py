"""Threads, forks and spawned children, each layer of threads in a process of its own."""

from __future__ import annotations

import pytest

from tests.estimator.house import run


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_threads_forks_and_spawns_end_right(layer):
    """Two fits at once with predictions beside them, forks meanwhile and after, a spawned child."""
    done = run("-m", "tests.estimator.processes", NUMBA_THREADING_LAYER=layer)

    assert done.stdout == "right\n", done.stderr
