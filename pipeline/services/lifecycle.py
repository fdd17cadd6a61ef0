"""How a process begins, goes on, and ends: the same for every service."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from pipeline.errors import (
    FatalError,
    PipelineError,
    TopicError,
    TransientError,
    UnreachableError,
)
from pipeline.streams.acls import Role, lacking
from pipeline.streams.contract import Broker
from pipeline.streams.topics import Severity, TopicPolicy, check_topics, cleanup_policy
from pipeline.telemetry.logs import get_logger

BROKER_LIMIT_S = 60.0
"""How long a service waits for a first answer before it ends."""
BROKER_SLICE_S = 5.0
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 5.0


class Service(Protocol):
    """What `serve` turns."""

    def step(self) -> None: ...
    def close(self) -> None: ...


class Reports(Protocol):
    """Who is told how a service fares."""

    def transient(self, error: PipelineError, *, retry_in_s: float) -> None: ...
    def draining(self) -> None: ...
    def failed(self, error: PipelineError) -> None: ...
    def stopped(self, reason: str, duration_s: float) -> None: ...


def require_topics(
    broker: Broker,
    topics: TopicPolicy,
    role: Role,
    *,
    max_record_bytes: int,
    stop: threading.Event,
) -> str | None:
    """Refuse to start on a topic that breaks a promise, or that the role may not do its work on;
    else the cleanup policy of the input.

    None if ``stop`` was set while the broker was waited for.

    Raises
    ------
    UnreachableError
        No broker answered in time.
    TopicError
        Names every topic that is wrong.
    """
    if not _wait(broker, stop):
        return None
    found = broker.topics(topics.names)
    problems = [
        problem.message
        for problem in check_topics(found, topics, max_record_bytes)
        if problem.severity is Severity.ERROR
    ]
    if problems:
        raise TopicError("; ".join(problems) + " (`eddy topics check` tells more)")
    missing = lacking(role, topics, found)
    if missing:
        raise TopicError(
            "; ".join(missing) + f": grant it (eddy topics acls --role {role} tells how)"
        )
    return cleanup_policy(found[topics.input])


def _wait(broker: Broker, stop: threading.Event) -> bool:
    """Wait for a broker that is away, but not longer than the limit, nor than we are wanted."""
    ends_at = time.monotonic() + BROKER_LIMIT_S
    while not stop.is_set():
        try:
            broker.wait(min(BROKER_SLICE_S, BROKER_LIMIT_S))
            return True
        except UnreachableError as error:
            left_s = ends_at - time.monotonic()
            if left_s <= 0:
                raise
            get_logger().warning(
                "kafka_error",
                code="unreachable",
                problem=str(error),
                retriable=True,
                retry_in_s=round(left_s, 1),
            )
    return False


def serve(service: Service, *, stop: threading.Event, reports: Reports) -> None:
    """Turn a service until ``stop`` is set, then close it.

    What time heals is tried again, with a growing pause; a broker that is away is waited for,
    however long, because nothing is lost meanwhile.
    """
    began_at, retry_in_s, reason = time.monotonic(), FIRST_RETRY_S, "stopped"
    try:
        while not stop.is_set():
            try:
                service.step()
                retry_in_s = FIRST_RETRY_S
            except TransientError as error:
                reports.transient(error, retry_in_s=retry_in_s)
                stop.wait(retry_in_s)
                retry_in_s = min(2 * retry_in_s, LAST_RETRY_S)
        reports.draining()
    except FatalError as error:
        reason = type(error).__name__
        reports.failed(error)
        raise
    finally:
        service.close()
        reports.stopped(reason, time.monotonic() - began_at)
