"""Traces of micro-batches, reclusters and requests, as a collector gets them."""

from __future__ import annotations

import io
import itertools
import json
import re
import sys

import numpy as np
import pytest
import structlog

from pipeline.config import Config, ServerPolicy
from pipeline.errors import ConfigError
from pipeline.messages.codec import encode_vector
from pipeline.services.launch import rejecting, traced
from pipeline.services.reclusterer.reports import ReclustererReports
from pipeline.services.server.request_spans import RequestSpans
from pipeline.services.spans import BatchTraces, Phases
from pipeline.streams.memory import Fault
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import configure, get_logger
from pipeline.telemetry.metrics import Metrics
from pipeline.telemetry.policy import TelemetryPolicy, TracingPolicy
from tests.schemas import validate_record
from tests.services.assigner.test_assigner import at_rest
from tests.services.server.conftest import Site, world_of_corners
from tests.simulation.world import World
from tests.telemetry.collector import collecting, tracing_to

PHASES = ["decode", "assign", "apply", "send", "commit", "install"]


@pytest.fixture
def collector():
    with collecting() as found:
        yield found


@pytest.fixture
def log():
    stream = io.StringIO()
    configure(service="a", instance="a-0", version="1", level="debug", stream=stream, strict=True)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


def context(n, sampled=True):
    return (("traceparent", f"00-{n:032x}-{n:016x}-{'01' if sampled else '00'}".encode()),)


def parent_of(n):
    return f"00-{n:032x}-{n:016x}-01".encode()


class Traced:
    """An assigner at rest whose micro-batches may have traces, and what it then writes."""

    def __init__(self, collector, ratio):
        self.world, self.assigner = at_rest()
        self.collector, self.tracing = collector, tracing_to(collector, ratio)
        topics = self.world.topics
        self.assigner.traces = BatchTraces(self.tracing, topics.input, topics.changes, "group")
        self.seen = {p: len(rows) for p, rows in enumerate(self._changes())}

    def _changes(self):
        return self.world.committed(self.world.topics.changes)

    def put(self, item, headers=(), vector=None):
        """A record that makes an event: of a new item, or with a vector far from the last one."""
        vector = np.array([60.5, 7.5, -3.5] if vector is None else vector, np.float32)
        key, value = b"item-%d" % item, encode_vector(vector)
        self.world.broker.append(self.world.topics.input, item % 2, key, value, headers, 1)

    def turn(self):
        for _ in range(20):
            self.world.turn("a0")

    def events(self):
        """Item -> the traceparents of its new events, in order."""
        found = {}
        for p, rows in enumerate(self._changes()):
            for row in rows[self.seen[p] :]:
                validate_record("cluster-changes", row)
                parents = [value for name, value in row.headers if name == "traceparent"]
                found.setdefault(row.key.decode(), []).append(parents)
        return found

    def end(self):
        self.tracing.close()
        return self.collector.named("process")


def test_a_micro_batch_is_a_trace_with_its_phases_in_order(collector):
    traced = Traced(collector, ratio=1.0)
    traced.put(1001)
    traced.turn()

    (batch,) = traced.end()
    children = collector.children(batch)
    assert [span.name.split()[0] for span in children if span.name != "send t.cluster-stats"] == [
        "decode", "assign", "apply", "send", "send", "commit", "install",
    ]  # fmt: skip
    assert {span.name for span in children if span.kind == "PRODUCER"} == {
        "send t.cluster-assignments",
        "send t.cluster-changes",
    }
    assert batch.name == "process in"
    assert batch.kind == "CONSUMER"
    assert not batch.is_error
    assert batch.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "in",
        "messaging.consumer.group.name": "group",
        "messaging.batch.message_count": 1,
        "eddy.epoch": 1,
        "eddy.revision": 0,
        "eddy.events": 1,
        "eddy.dead_letters": 0,
    }
    for before, after in itertools.pairwise(children):
        assert batch.began_ns <= before.began_ns <= before.ended_ns <= batch.ended_ns
        assert before.ended_ns <= after.began_ns or before.kind == after.kind == "PRODUCER"


def test_only_sampled_records_are_linked_and_only_their_events_go_on_with_a_context(collector):
    traced = Traced(collector, ratio=0.0)
    traced.put(1000, context(5))
    traced.put(1002, context(6, sampled=False))
    traced.put(1004)
    traced.turn()

    batches = traced.end()
    assert [link for batch in batches for link in batch.links] == [(f"{5:032x}", f"{5:016x}")]
    assert traced.events() == {"item-1000": [[parent_of(5)]], "item-1002": [[]], "item-1004": [[]]}


def test_each_event_of_an_item_has_the_context_of_its_own_record(collector):
    traced = Traced(collector, ratio=0.0)
    world = traced.world
    world.broker._batch_sizes = lambda: 50  # all of them in one micro-batch
    far = [-100.5, 100.5, 100.5]
    traced.put(1000, context(1))
    world.broker.append(world.topics.input, 0, b"item-1000", None, (), 1)
    traced.put(1000, context(2), vector=far)
    traced.turn()

    traced.end()
    assert traced.events() == {"item-1000": [[parent_of(1)], [], [parent_of(2)]]}


def test_events_of_a_chosen_micro_batch_go_on_with_its_own_context(collector):
    traced = Traced(collector, ratio=1.0)
    traced.put(1000, context(5))
    traced.put(1002)
    traced.turn()

    batches = traced.end()
    own = {f"00-{batch.trace_id}-{batch.span_id}-01".encode() for batch in batches}
    events = traced.events()
    assert events["item-1000"] == [[parent_of(5)]]
    ((parent,),) = events["item-1002"]
    assert parent in own


def test_what_nobody_traces_has_no_trace(collector):
    traced = Traced(collector, ratio=0.0)
    traced.put(1000, context(6, sampled=False))
    traced.put(1002)
    traced.turn()

    assert traced.end() == []
    assert traced.events() == {"item-1000": [[]], "item-1002": [[]]}


def test_an_abort_is_an_error_of_its_trace_and_the_batch_that_comes_again_has_another(collector):
    traced = Traced(collector, ratio=1.0)
    traced.world.broker.faults[traced.world.broker.n_commits] = Fault.ABORTED
    traced.put(1000)
    traced.turn()

    first, second = traced.end()
    assert first.attributes["error.type"] == "aborted"
    assert first.is_error
    assert not second.is_error
    assert first.trace_id != second.trace_id
    assert len(traced.events()["item-1000"]) == 1


def test_lines_of_the_log_name_the_micro_batch_they_are_about(collector, log):
    traced = Traced(collector, ratio=1.0)
    traced.put(1000)
    traced.turn()

    (batch,) = traced.end()
    committed = [line for line in log() if line["event"] == "batch_committed"]
    assert (committed[-1]["trace_id"], committed[-1]["span_id"]) == (batch.trace_id, batch.span_id)
    assert all("trace_id" not in line for line in log() if line["event"] == "model_installed")


# Reclusters


def test_a_recluster_is_a_trace_of_five_phases_and_the_metric_says_the_same(collector, log):
    tracing = tracing_to(collector, 0.0)  # reclusters are few: each has one
    world = World(3, min_gain=0.5)
    world.crash_rate = 0.0
    world.start_assigner("a0")
    world.start_reclusterer()
    metrics = Metrics("reclusterer")
    world.reclusterer.reports = ReclustererReports(
        get_logger(), metrics, Health("reclusterer", poll_timeout_s=1), tracing=tracing
    )
    world.write(60)
    world.settle()
    world.command()
    world.settle()
    tracing.close()

    first, second = collector.named("recluster")
    for span in (first, second):
        names = [child.name for child in collector.children(span)]
        assert [n for i, n in enumerate(names) if n not in names[:i]] == [
            "load", "fit", "align", "judge", "publish",
        ]  # fmt: skip
    assert first.attributes["eddy.recluster.reason"] == "first"
    assert first.attributes["eddy.recluster.result"] == "published"
    assert second.attributes["eddy.recluster.result"] == "rejected"
    (finished,) = [line for line in log() if line["event"] == "recluster_finished"]
    assert finished["span_id"] == first.span_id
    assert finished["recluster_id"] == first.attributes["eddy.recluster.id"]
    for phase in ("load", "fit", "align", "judge", "publish"):
        counts, _ = metrics.histogram("eddy_recluster_duration_seconds", phase=phase).read()
        assert counts[-1] == 2


def test_phases_are_whole_and_what_lies_between_them_is_nobody_s():
    now = iter([1.0, 3.0, 6.0, 10.0, 15.0])
    phases = Phases(lambda: next(now))

    phases.at("load")
    phases.at("judge")
    phases.at(None)
    phases.at("judge")
    phases.at(None)

    assert phases.began_ns == 1_000_000_000
    assert phases.seconds == {"load": 2.0, "judge": 3.0 + 5.0}


# Requests


@pytest.fixture
def asked(collector):
    """A server whose requests may have spans, by ratio."""

    def make(ratio):
        site = Site(world_of_corners(n_items=20), ServerPolicy())
        tracing = tracing_to(collector, ratio)
        site.server.app._spans = RequestSpans(tracing)
        return site, tracing

    return make


def test_a_request_is_a_span_named_by_its_route_and_its_ids_stay_out(asked, collector, log):
    site, tracing = asked(1.0)
    site.ok("/items/item-7")
    site.get("/clusters/c999")
    tracing.close()

    found, missing = sorted(collector.spans, key=lambda s: s.began_ns)
    assert found.name == "GET /api/v1/items/{item_id}"
    assert found.kind == "SERVER"
    assert found.attributes["http.route"] == "/api/v1/items/{item_id}"
    assert found.attributes["http.response.status_code"] == 200
    assert "item-7" not in repr(found)
    assert missing.attributes["http.response.status_code"] == 404
    assert not missing.is_error  # it is the caller's
    lines = [line for line in log() if line["event"] == "request_finished"]
    assert [line["trace_id"] for line in lines] == [found.trace_id, missing.trace_id]
    assert lines[0]["request_id"] == found.attributes["eddy.request_id"]


def test_a_problem_names_its_trace(asked, collector):
    site, tracing = asked(1.0)
    problem = site.get("/clusters/c999").json()
    tracing.close()

    assert problem["trace_id"] == collector.spans[0].trace_id


def test_who_calls_decides_and_is_the_parent(asked, collector):
    site, tracing = asked(0.0)
    for headers in ({}, {"traceparent": parent_of(9)[:-1] + b"0"}, {"traceparent": parent_of(9)}):
        assert site.client.get("/api/v1/stats", headers=headers).status_code == 200
    tracing.close()

    (span,) = collector.spans
    assert (span.trace_id, span.parent) == (f"{9:032x}", f"{9:016x}")


def test_chance_does_not_overrule_a_caller_who_does_not_trace(asked, collector):
    site, tracing = asked(1.0)
    site.client.get("/api/v1/stats", headers={"traceparent": parent_of(9)[:-1] + b"0"})
    tracing.close()

    assert collector.spans == []


def test_the_metric_names_routes_as_openapi_does(asked):
    site, tracing = asked(0.0)
    site.ok("/items/item-7")
    site.client.get("/health")
    site.client.get("/api/v1/nothing")
    tracing.close()

    text = site.metrics.exposition()[0].decode()
    routes = set(
        re.findall(r'eddy_http_request_duration_seconds_count\{[^}]*route="([^"]*)"', text)
    )
    assert routes == {"/api/v1/items/{item_id}", "/health", "other"}


# The way to the collector


def test_a_service_that_lacks_the_library_says_what_to_install_and_ends(monkeypatch, log):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    config = Config(telemetry=TelemetryPolicy(tracing=TracingPolicy(endpoint="http://x:4318")))

    with (
        pytest.raises(ConfigError, match=r"eddy-stream\[otel\]"),
        rejecting(config),
        traced("assigner", config),
    ):
        raise AssertionError("it goes on")

    (line,) = [line for line in log() if line["event"] == "config_rejected"]
    assert line["key"] == "telemetry.tracing.endpoint"


def test_without_an_endpoint_nobody_traces():
    with traced("assigner", Config()) as tracing:
        assert tracing is None


def test_what_cannot_be_sent_is_one_line_of_the_log(collector, log):
    collector.status = 400
    policy = TracingPolicy(endpoint=collector.endpoint)
    with traced("assigner", Config(telemetry=TelemetryPolicy(tracing=policy))) as tracing:
        tracing.begin("one").end()

    (line,) = [line for line in log() if line["event"] == "traces_not_sent"]
    assert line["problem"]
    assert line["level"] == "warning"
