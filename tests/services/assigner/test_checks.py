"""How often an assigner looks at itself, what it may cost, and how it is told."""

from __future__ import annotations

import io
import json

import pytest
import structlog

from pipeline.engine.checking import Violation
from pipeline.services.assigner import checks as checks_module
from pipeline.services.assigner.checks import COUNTS_INTERVAL_S, PAUSE, SUMS_INTERVAL_S, Checks
from pipeline.services.assigner.reports import AssignerReports
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import configure, get_logger, hash_item_id
from pipeline.telemetry.metrics import Metrics
from tests.engine.test_checking import crowd


class Clock:
    """Every look takes ``cost_s``, by this clock."""

    def __init__(self, cost_s=0.0):
        self.now_s, self.cost_s = 100.0, cost_s

    def __call__(self):
        self.now_s += self.cost_s / 2
        return self.now_s


def test_about_once_a_second_sixty_four_labels_are_proved_again():
    made, checks, clock = crowd(), Checks(), Clock()

    for _ in range(10_000):  # a turn of the loop every 10 ms
        clock.now_s += 0.01
        assert checks.look(made, clock) == []

    assert 0.7 * 64 < checks.n_checked / 100 <= 64  # some rows of this crowd are free


def test_a_loop_that_turns_rarely_proves_no_more_at_once():
    made, checks, clock = crowd(), Checks(), Clock()

    for _ in range(30):
        clock.now_s += 100.0
        before = checks.n_checked
        checks.look(made, clock)
        assert checks.n_checked - before <= 64


class Counted(Checks):
    """Counts its looks."""

    n_looks = 0

    def _look(self, engine, now):
        self.n_looks += 1
        return super()._look(engine, now)


@pytest.mark.parametrize("cost_s", [0.001, 0.02, 3.0])
def test_looks_take_one_percent_of_the_loop_whatever_they_cost(cost_s):
    made, checks, clock = crowd(), Counted(), Clock()
    began = clock.now_s

    while clock.now_s - began < max(10.0, 500 * cost_s):
        clock.now_s += 0.01
        clock.cost_s = 2 * cost_s  # asked twice around a look
        n_looks, at = checks.n_looks, clock.now_s
        checks.look(made, clock)
        if checks.n_looks == n_looks:
            clock.now_s = at  # to be asked once costs nothing

    assert checks.n_looks > 3
    assert (checks.n_looks - 2) * cost_s <= (clock.now_s - began) / PAUSE


def test_counts_and_sums_have_their_turn(monkeypatch):
    made, checks, clock = crowd(), Checks(), Clock()
    called = {"check_counts": 0, "check_sums": 0}
    for name in called:
        whole = getattr(checks_module, name)

        def noted(engine, rng, name=name, whole=whole):
            called[name] += 1
            return whole(engine, rng)

        monkeypatch.setattr(checks_module, name, noted)

    for _ in range(6000):
        clock.now_s += 0.1
        checks.look(made, clock)

    assert called["check_counts"] == pytest.approx(600 / COUNTS_INTERVAL_S, abs=1)
    assert called["check_sums"] == pytest.approx(600 / SUMS_INTERVAL_S, rel=0.1)


@pytest.fixture
def log():
    stream = io.StringIO()
    configure(service="assigner", instance="a-0", version="1", stream=stream, strict=True)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


def test_a_violation_is_counted_and_told_once_a_minute_and_ends_nothing(log):
    now = [0.0]
    metrics, health = Metrics("assigner"), Health("assigner", poll_timeout_s=1)
    told = AssignerReports(get_logger(), metrics, health, kernel="cpu", clock=lambda: now[0])
    made = crowd()
    label = Violation("exact_label", 1, "c2", "c1", "c2", b"item-3")

    for _ in range(5):
        told.violated(label, made)
    told.violated(Violation("sums", 0, "c4", "sums[2] 5", "sums[2] 6"), made)
    now[0] = 61.0
    told.violated(label, made)

    counters = {
        kind: metrics.counter("eddy_invariant_violations_total", invariant=kind).value
        for kind in ("exact_label", "counts", "sums")
    }
    assert counters == {"exact_label": 6, "counts": 0, "sums": 1}
    first, sums, later = log()
    assert first["level"] == "error"
    assert first.items() >= {
        "event": "invariant_violated", "invariant": "exact_label", "partition": 1,
        "cluster_id": "c2", "expected": "c1", "found": "c2", "suppressed": 0,
        "item_id_hash": hash_item_id(b"item-3"), "epoch": 1, "revision": 0,
    }.items()  # fmt: skip
    assert (sums["expected"], sums["found"]) == ("sums[2] 5", "sums[2] 6")
    assert later["suppressed"] == 4
