"""Probes say what the service said, and that it has stopped saying anything."""

from __future__ import annotations

import http.client
import json
import socket
import threading

import pytest

from pipeline.telemetry.health import (
    LEAST_DEADLINE_S,
    MAX_CONNECTIONS,
    READY_CHECKS,
    STARTUP_CHECKS,
    Health,
    HealthServer,
)
from pipeline.telemetry.metrics import Metrics


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health("assigner", poll_timeout_s=0.1, now=clock)


@pytest.fixture
def server(health):
    with HealthServer(health, Metrics("assigner").exposition, host="127.0.0.1") as running:
        yield running


def get(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def are_ok(checks):
    return all(check.ok for check in checks)


# What a check is


@pytest.mark.parametrize("service", READY_CHECKS)
def test_a_service_is_ready_once_every_check_is(service, clock):
    health = Health(service, poll_timeout_s=0.1, now=clock)
    assert not are_ok(health.ready())

    for name in READY_CHECKS[service]:
        health.set(name, True)
    assert are_ok(health.ready())

    health.set("not_draining", False, "SIGTERM")
    assert not are_ok(health.ready())


def test_what_came_up_once_stays_up(health):
    for name in STARTUP_CHECKS:
        assert not are_ok(health.started())
        health.set(name, True)

    health.set("broker", False, "gone")

    assert are_ok(health.started())


def test_a_check_that_no_probe_has_is_a_defect(health):
    with pytest.raises(AssertionError):
        health.set("partitions_restroed", True)


@pytest.mark.parametrize(
    ("poll_timeout_s", "batch_s", "deadline_s"),
    [(0.1, 0.0, LEAST_DEADLINE_S), (20.0, 0.0, 60.0), (0.1, 40.0, 80.0), (20.0, 40.0, 80.0)],
)
def test_the_deadline_follows_the_loop(poll_timeout_s, batch_s, deadline_s, clock):
    health = Health("assigner", poll_timeout_s=poll_timeout_s, now=clock)
    health.beat(clock(), batch_s=batch_s)
    health.beat(clock(), batch_s=batch_s / 2)  # the longest counts

    clock.now += deadline_s
    assert are_ok(health.live())

    clock.now += 0.1
    assert not are_ok(health.live())

    health.beat(clock())
    assert are_ok(health.live())


# Over HTTP


def test_probes_answer_200_or_503(server, health, clock):
    assert [get(server, path)[0] for path in ("/livez", "/readyz", "/startupz")] == [200, 503, 503]

    for name in (*STARTUP_CHECKS, *READY_CHECKS["assigner"]):
        health.set(name, True)
    assert [get(server, path)[0] for path in ("/livez", "/readyz", "/startupz")] == [200, 200, 200]

    clock.now += 31
    assert [get(server, path)[0] for path in ("/livez", "/readyz", "/startupz")] == [503, 200, 200]


def test_verbose_lists_the_checks(server, health):
    health.set("partitions_restored", False, "2 of 6")

    status, body, headers = get(server, "/readyz?verbose")

    assert status == 503
    assert headers["Content-Type"] == "application/json"
    answer = json.loads(body)
    assert answer["ok"] is False
    assert {"name": "partitions_restored", "ok": False, "detail": "2 of 6"} in answer["checks"]


def test_a_short_answer_names_what_failed(server):
    assert get(server, "/readyz")[1] == "failed: partitions_restored\n"
    assert get(server, "/livez")[1] == "ok\n"


def test_metrics_are_there(server):
    status, body, headers = get(server, "/metrics")

    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE eddy_records_total counter" in body


def test_other_paths_are_not_there(server):
    assert get(server, "/")[0] == 404
    assert get(server, "/livez/")[0] == 404


def test_the_probes_answer_while_the_loop_hangs(server):
    """The server has a thread of its own: nothing that the calling thread holds is needed."""
    answers = []
    asking = threading.Thread(target=lambda: answers.append(get(server, "/livez")[0]))
    asking.start()
    asking.join(10)

    assert answers == [200]


def test_a_port_that_is_taken_is_an_error(server, health):
    with pytest.raises(OSError, match="in use"):
        HealthServer(health, Metrics("assigner").exposition, host="127.0.0.1", port=server.port)


def test_every_address_is_listened_on_by_default(health):
    with HealthServer(health, Metrics("assigner").exposition) as server:
        assert get(server, "/livez")[0] == 200


def test_clients_that_say_nothing_do_not_keep_others_out(server):
    """Up to the bound; one beyond it is turned away, not queued."""
    address = ("127.0.0.1", server.port)
    silent = [socket.create_connection(address) for _ in range(MAX_CONNECTIONS - 1)]
    try:
        assert get(server, "/livez")[0] == 200
    finally:
        for connection in silent:
            connection.close()


def test_closing_frees_the_port(health):
    with HealthServer(health, Metrics("assigner").exposition, host="127.0.0.1") as server:
        port = server.port

    with HealthServer(
        health, Metrics("assigner").exposition, host="127.0.0.1", port=port
    ) as server:
        assert server.port == port
