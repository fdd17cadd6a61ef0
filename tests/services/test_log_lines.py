"""What assigners and the reclusterer write into the log while they work, line by line."""

from __future__ import annotations

import io
import json

import pytest
import structlog

from pipeline.telemetry.logs import configure
from tests.simulation.world import World
from tests.telemetry.test_logs import FIELDS


@pytest.fixture
def log():
    stream = io.StringIO()
    configure(service="assigner", instance="a-0", version="1", stream=stream, strict=True)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


@pytest.mark.sim
def test_every_line_of_a_history_with_faults_has_what_its_event_promises(log):
    world = World(9)
    world.start_assigner("a0")
    world.start_assigner("a1")
    world.start_reclusterer()
    world.live(150)
    world.command(force=True)
    world.settle()
    world.write(60)  # so that centroids have members to follow
    world.settle()

    lines = log()
    assert {line["event"] for line in lines} >= {
        "partitions_assigned", "restore_finished", "model_installed", "sweep_finished",
        "recluster_due", "recluster_finished", "revision_published",
        "transaction_aborted", "command_done",
    }  # fmt: skip
    for line in lines:
        promised = set(FIELDS[line["event"]].split()) - {"item_id_hash", "problem"}
        assert promised <= line.keys(), line


@pytest.mark.sim
def test_a_fit_is_due_then_started_then_finished_under_one_id(log):
    world = World(3)
    world.crash_rate = 0.0
    world.start_assigner("a0")
    world.start_reclusterer()
    world.write(60)
    world.settle()

    world.command(force=True)
    world.settle()

    fits = [line for line in log() if line["event"].startswith("recluster_")]
    told = [(line["event"], line["reason"]) for line in fits]
    assert told == [
        ("recluster_due", "first"),
        ("recluster_started", "first"),
        ("recluster_finished", "first"),
        ("recluster_started", "command"),  # nothing was due: somebody asked
        ("recluster_finished", "command"),
    ]
    assert len({line["recluster_id"] for line in fits[:3]}) == 1
    assert len({line["recluster_id"] for line in fits}) == 2
    assert fits[2]["born"] == 4
    assert all(line["members"] > 10 for line in fits)


def test_a_reclusterer_that_starts_again_knows_when_the_last_fit_was():
    world = World(3)
    world.crash_rate = 0.0
    world.start_assigner("a0")
    world.start_reclusterer()
    world.write(60)
    world.settle()
    fitted_at = world.reclusterer.model.manifest.created_at_ms / 1000.0
    world.now_s += 1000.0

    world.start_reclusterer()
    world.settle()

    metrics = world.reclusterer.reports.metrics
    said = metrics.gauge("eddy_recluster_finished_timestamp_seconds").value
    assert said == pytest.approx(fitted_at, abs=400.0)
