"""Faults of every kind for half a minute, all at once: nothing lost, nothing twice.

The short form of ``make chaos``. A history is drawn from a seed (``EDDY_TEST_CHAOS_SEED``; times
depend on the machine, so a seed gives the same faults, not the same run).
``EDDY_TEST_CHAOS_SECONDS`` makes it longer.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.run import Plan, run

pytestmark = pytest.mark.kafka

TOO_LONG = {"rolling", "leader", "fight"}
"""For half a minute; a broker that dies, and a service that is started again, are in it anyway."""


def test_faults_of_every_kind_leave_no_trace():
    seed = int(os.environ.get("EDDY_TEST_CHAOS_SEED") or time.time_ns() % 1_000_000)
    seconds = float(os.environ.get("EDDY_TEST_CHAOS_SECONDS") or 30.0)
    faults = tuple(name for name in FAULTS if name not in TOO_LONG)
    print(f"EDDY_TEST_CHAOS_SEED={seed}")

    outcome = run(Plan(seed, seconds, faults=faults), print)

    print(outcome.as_json())
    assert outcome.ok, (outcome.problem, *outcome.findings.problems, outcome.folder)
    assert outcome.n_faults.total() >= 3
    assert outcome.findings.n_events > 0
    assert outcome.n_streamed > 0
