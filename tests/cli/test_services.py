"""What the commands of the services do around them."""

from __future__ import annotations

from pipeline.cli.services import Survived
from pipeline.telemetry.health import Health


def test_who_waits_for_a_broker_lives():
    """A commit is tried again for minutes within one turn of the loop."""
    now = [0.0]
    health = Health("assigner", poll_timeout_s=1, now=lambda: now[0])
    told = Survived(clock=lambda: now[0])
    told("_TIMED_OUT", "nobody answers yet, and there is no health")
    told.attend(health)
    now[0] = health.deadline_s + 1.0
    assert not health.live()[0].ok

    told("_TIMED_OUT", "nobody answers")

    assert health.live()[0].ok
