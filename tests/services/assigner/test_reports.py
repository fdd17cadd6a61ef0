"""What a service's gauges say when there is nothing left for them to say."""

from __future__ import annotations

from pipeline.errors import TransientError
from pipeline.services.assigner.reports import AssignerReports
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import Metrics

AS_OF, HELD = "eddy_snapshot_timestamp_seconds", "eddy_snapshot_bytes"


def reports(now):
    health = Health("assigner", poll_timeout_s=1)
    return AssignerReports(
        get_logger(), Metrics("assigner"), health, kernel="cpu", now=lambda: now[0]
    )


def gauges(told):
    return [told.metrics.gauge(name).value for name in (AS_OF, HELD)]


def test_gauges_of_snapshots_tell_of_the_partitions_that_are_left():
    now = [100.0]
    told = reports(now)
    told.snapshot_written(0, n_rows=1, n_bytes=10, duration_s=0.0)
    now[0] = 200.0
    told.snapshot_written(1, n_rows=1, n_bytes=5, duration_s=0.0)
    assert gauges(told) == [100.0, 15.0]

    told.gone({0}, ())

    assert gauges(told) == [200.0, 5.0]


def test_gauges_of_snapshots_go_with_the_last_partition_and_come_back_with_the_next():
    now = [100.0]
    told = reports(now)
    told.snapshot_written(3, n_rows=1, n_bytes=10, duration_s=0.0)

    told.gone((), {3})

    assert gauges(told) == [None, None]
    assert AS_OF not in samples(told), "a moment that stays would look like one that grows old"
    told.snapshot_written(4, n_rows=1, n_bytes=7, duration_s=0.0)
    assert gauges(told) == [100.0, 7.0]


def test_a_step_that_fails_for_now_is_a_sign_of_life():
    """Else probes would end every process whose broker is away."""
    now = [0.0]
    health = Health("assigner", poll_timeout_s=1, now=lambda: now[0])
    told = AssignerReports(
        get_logger(), Metrics("assigner"), health, kernel="cpu", clock=lambda: now[0]
    )
    now[0] = health.deadline_s + 1.0
    assert not health.live()[0].ok

    told.transient(TransientError("no broker"), retry_in_s=5.0)

    assert health.live()[0].ok


def samples(told):
    """What somebody reads who scrapes, without the lines of help."""
    text = told.metrics.exposition()[0].decode()
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))
