"""The harness of the benchmarks: what a ratio says, what a promise is held against, the page."""

from __future__ import annotations

import json
from argparse import Namespace

import numpy as np
import pytest

from benchmarks._oracle import Truth, canonical
from benchmarks._pairs import Contender, Rounds, Row, measure
from benchmarks._results import figures, text
from benchmarks.exactness import Unbounded, faults
from benchmarks.load import LOADS
from benchmarks.soak import judged
from tests.naive import assign, squared_distance


def rounds(**wall):
    return Rounds(wall, wall, ("slow", "fast"))


def test_headline_peer_is_the_fastest_of_each_round():
    found = rounds(ours=[1.0, 1.0, 1.0], slow=[9.0, 2.0, 9.0], fast=[4.0, 8.0, 5.0], odd=[0.1] * 3)

    assert found.ratio("ours")["median"] == 4.0
    assert found.ratio("ours", "slow")["median"] == 9.0


def test_peer_is_held_against_the_other_peers():
    found = rounds(ours=[1.0], slow=[8.0], fast=[2.0])

    assert found.ratio("fast")["median"] == 4.0
    assert found.ratio("slow")["median"] == 0.25


def test_every_contender_has_a_turn_in_every_round():
    calls: list[str] = []
    everybody = [Contender(name, lambda n=name: calls.append(n)) for name in "abc"]

    found = measure(everybody, threads=1, rng=np.random.default_rng(0), min_rounds=4, seconds=0.0)

    assert {name: len(times) for name, times in found.wall.items()} == dict.fromkeys("abc", 4)


THREE = {"median": 3.0, "q1": 3.0, "q3": 3.0}


@pytest.mark.parametrize(
    ("promised", "is_met"),
    [
        ({}, None),
        ({"target": 2.9}, True),
        ({"target": 3.1}, False),
        ({"limit": 3.1}, True),
        ({"limit": 2.9}, False),
        ({"target": 2.9, "limit": 2.9}, False),
        ({"target": 2.9, "kept": {"no wrong label": False}}, False),
    ],
)
def test_promise_is_held_against_the_median(promised, is_met):
    row = Row("work", "eddy", THREE, "s", ratio=THREE, **promised)

    assert row.is_met is is_met


def machine(day: str) -> dict:
    return {
        "class": "a machine", "threads": 2, "isa": "native", "data": "texts", "blas": ["one"],
        "versions": {"numpy": day}, "command": "python -m benchmarks assign",
    }  # fmt: skip


def test_page_has_the_newest_figure_of_a_row(tmp_path):
    for day, took in (("2026-01-02", 4.0), ("2026-01-01", 8.0)):
        row = Row("work", "eddy", {"median": took, "q1": took, "q3": took}, "s", ratio=THREE)
        held = {"assign": {"work: eddy": row.figure() | {"machine": machine(day)}}}
        held["sweep"] = {"else": {"machine": machine(day)}}
        (tmp_path / f"{day}-a-machine-2c.json").write_text(json.dumps(held))

    page = text(figures(tmp_path))

    assert "| work | eddy | 3.00 |" in page
    assert "4 s" in page
    assert "8 s" not in page


def test_page_says_what_was_not_run(tmp_path):
    page = text(figures(tmp_path))

    assert "Not run yet: `make bench RUN=fit`" in page
    assert "none was run on one" in page


def test_oracle_knows_the_canonical_distance():
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((5, 70)).astype(np.float32)

    found = canonical(rows[1:], rows[0])

    assert found.tolist() == [squared_distance(row, rows[0]) for row in rows[1:]]


def test_kernel_without_a_bound_is_caught():
    rng = np.random.default_rng(6)
    points = (10.0 + 1e-4 * rng.standard_normal((60, 40))).astype(np.float32)
    points, centroids = points[:50], points[50:]
    known = Truth(*map(np.array, assign(points, centroids)), np.full(50, np.inf), np.zeros(50))

    found = faults(Unbounded().assign(centroids, points, second=True, margin=True), known)

    assert min(found[kind] for kind in ("labels", "distances", "gaps", "second labels")) > 0


def soaked(*, mb_per_min=0.0, threads=0.0, slower=0.0, first_fit=(0.0, 0.0), noisy=1.0):
    samples = []
    for i in range(60):
        minute = i / 12
        sample = {"minute": minute, "lag": 0, "p50": 10.0 + slower * minute, "p99": 20.0}
        sample["reclusters"] = int(minute > first_fit[0])
        for name in ("assigner", "reclusterer"):
            noise = noisy * (i * 7 % 5) / 10 + (first_fit[1] if minute > first_fit[0] else 0.0)
            sample |= {
                f"{name} rss_mb": 300 + mb_per_min * minute + noise,
                f"{name} threads": 9 + threads * minute, f"{name} descriptors": 30.0,
            }  # fmt: skip
        samples.append(sample)
    return judged(samples, Namespace(warm_minutes=1.0))


def test_soak_calls_flat_what_is_flat():
    found = soaked()

    assert found["assigner"]["is_flat"]
    assert abs(found["assigner"]["slope_mb_per_min"]) < 0.2
    assert found["p50"]["is_flat"]


@pytest.mark.parametrize("creeps", [{"mb_per_min": 2.0}, {"threads": 1.0}])
def test_soak_sees_what_grows(creeps):
    assert not soaked(**creeps)["assigner"]["is_flat"]


def test_soak_calls_no_growth_what_the_first_fit_takes():
    found = soaked(first_fit=(2.5, 80.0))["reclusterer"]

    assert found["is_flat"]
    assert found["rss_mb"] > 380.0


def test_soak_says_when_it_was_too_short_to_tell():
    assert soaked()["assigner"]["is_certain"]
    assert soaked(mb_per_min=5.0)["assigner"]["is_certain"]
    assert not soaked(mb_per_min=0.8, noisy=40.0)["assigner"]["is_certain"]


def test_soak_sees_a_latency_that_creeps():
    assert not soaked(slower=5.0)["p50"]["is_flat"]


def test_named_loads_have_the_records_of_their_names():
    rng = np.random.default_rng(0)
    (hour, hour_s), (minutes, minutes_s) = (load(rng) for load in LOADS.values())

    assert (len(hour), hour_s) == (417, 3600.0)
    assert (len(minutes), minutes_s) == (1420, 420.0)
    assert (np.diff(hour) >= 0).all()
    assert (np.diff(minutes) >= 0).all()
