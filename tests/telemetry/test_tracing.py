"""Contexts of others, spans, and the way to the collector."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import load
from pipeline.errors import ConfigError
from pipeline.telemetry import tracing as names
from pipeline.telemetry.policy import TracingPolicy
from pipeline.telemetry.tracing import (
    MAX_LINKS,
    SCHEMA_URL,
    Context,
    Tracing,
    current,
    is_unsampled,
    sampled,
)
from tests.telemetry.collector import RESOURCE, collecting, tracing_to

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


@pytest.fixture
def collector():
    with collecting() as found:
        yield found


# Contexts


def test_a_sampled_context_is_read_and_passed_on_as_it_came():
    headers = (("x", b"1"), ("traceparent", PARENT), ("tracestate", b"vendor=1"))

    found = sampled(headers)

    assert found == Context(int(TRACE, 16), int(SPAN, 16), PARENT, b"vendor=1")
    assert found.headers == (("traceparent", PARENT), ("tracestate", b"vendor=1"))


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"00",
        PARENT[:-1] + b"0",  # not sampled
        PARENT[:-1],
        PARENT + b"-more",  # the first version has no more
        b"ff" + PARENT[2:],
        PARENT.upper(),
        PARENT.replace(TRACE.encode(), b"0" * 32),
        PARENT.replace(SPAN.encode(), b"0" * 16),
        PARENT.replace(b"-", b"_"),
    ],
)
def test_what_is_no_sampled_context_is_none(value):
    assert sampled((("traceparent", value),)) is None
    assert sampled(()) is None


def test_a_later_version_may_say_more():
    assert sampled((("traceparent", b"01" + PARENT[2:] + b"-more"),)) is not None


def test_a_state_that_is_too_long_or_stands_twice_is_left_behind():
    for states in ([b"a=" + b"x" * 600], [b"a=1", b"b=2"]):
        headers = (("traceparent", PARENT), *(("tracestate", one) for one in states))
        found = sampled(headers)
        assert found is not None
        assert found.state is None


def test_only_a_context_that_says_so_is_unsampled():
    assert is_unsampled((("traceparent", PARENT[:-1] + b"0"),))
    for value in (PARENT, b"nonsense", None):
        assert not is_unsampled((("traceparent", value),))


WHOLE = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]")


HEX = st.text("0123456789abcdef", min_size=1, max_size=2)


@given(
    st.one_of(
        st.binary(max_size=70),
        st.tuples(HEX, st.sampled_from([TRACE, "0" * 32, TRACE[:-1]]), HEX).map(
            lambda parts: f"0{parts[0][0]}-{parts[1]}-{SPAN}-0{parts[2][-1]}".encode()
        ),
    )
)
def test_whatever_stands_in_a_header_is_a_whole_context_or_none(value):
    found = sampled((("traceparent", value),))

    if value.startswith(b"00"):
        assert (found is not None) == (WHOLE.fullmatch(value) is not None)
    if found is not None:
        assert found.trace_id > 0 < found.span_id


# Spans


def test_spans_arrive_with_what_was_said_of_them(collector):
    tracing = tracing_to(collector)
    span = tracing.begin("process in", kind="CONSUMER")
    span.note({names.MESSAGES: 3, names.EPOCH: None})
    span.child("decode").end()
    span.end(error="aborted")
    tracing.close()

    (parent,), (child,) = collector.named("process"), collector.named("decode")
    assert (parent.kind, child.kind) == ("CONSUMER", "INTERNAL")
    assert parent.attributes == {"messaging.batch.message_count": 3, "error.type": "aborted"}
    assert parent.is_error
    assert not child.is_error
    assert child.parent == parent.span_id
    assert child.trace_id == parent.trace_id
    assert (parent.trace_id, parent.span_id) == span.ids
    assert parent.resource.items() >= RESOURCE.items()
    assert parent.schema_url == SCHEMA_URL
    assert set(collector.paths) == {"/v1/traces"}


def test_a_span_without_a_parent_is_a_trace_of_its_own(collector):
    tracing = tracing_to(collector)
    for _ in range(2):
        tracing.begin("one").end()
    tracing.close()

    assert len({span.trace_id for span in collector.spans}) == 2
    assert {span.parent for span in collector.spans} == {""}


def test_a_caller_is_the_parent_and_others_are_linked_so_many_at_most(collector):
    tracing = tracing_to(collector)
    caller = Context(7, 8, b"", b"vendor=1")
    others = [Context(n, 1, b"", b"vendor=1") for n in range(1, 50)]
    tracing.begin("one", parent=caller, links=[*others, others[0]]).end()
    tracing.close()

    (span,) = collector.spans
    assert span.trace_id == f"{7:032x}"
    assert span.parent == f"{8:016x}"
    assert span.links == [(f"{n:032x}", f"{1:016x}") for n in range(1, MAX_LINKS + 1)]


def test_lines_know_their_span_in_their_own_thread_only(collector):
    tracing = tracing_to(collector)
    span = tracing.begin("one")
    elsewhere = []
    with span.current():
        thread = threading.Thread(target=lambda: elsewhere.append(current()))
        thread.start()
        thread.join()
        assert current() == span.ids
    span.end()
    tracing.close()

    assert current() is None
    assert elsewhere == [None]


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0), (1.0, 1000), (0.2, 200)])
def test_chance_chooses_as_often_as_it_is_told(collector, ratio, expected):
    tracing = tracing_to(collector, ratio)

    chosen = sum(tracing.chooses() for _ in range(1000))
    tracing.close()

    assert abs(chosen - expected) <= (0 if ratio in (0.0, 1.0) else 80)


# What goes wrong


def test_a_collector_that_is_away_costs_a_complaint_and_nobody_waits():
    said = []
    with socket.socket() as held:  # bound, so that nobody else gets it; nobody listens
        held.bind(("127.0.0.1", 0))
        policy = TracingPolicy(endpoint=f"http://127.0.0.1:{held.getsockname()[1]}")
        tracing = Tracing(policy, RESOURCE, complain=said.append)
        began = time.monotonic()
        tracing.begin("one").end()
        assert time.monotonic() - began < 1.0
        tracing.close()

    assert said
    assert time.monotonic() - began < 30.0


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(ModuleNotFoundError, match=r"opentelemetry.sdk.trace"):
        Tracing(TracingPolicy(endpoint="http://x:4318"), RESOURCE, complain=print)


@pytest.mark.parametrize(
    ("given_", "problem"),
    [
        ("telemetry.tracing.endpoint=collector:4318", "must begin with http:// or https://"),
        ("telemetry.tracing.sample_ratio=1.5", "must be 0 to 1"),
    ],
)
def test_a_value_that_cannot_work_is_refused(given_, problem):
    with pytest.raises(ConfigError, match=problem):
        load(None, {}, [given_])


def test_off_the_library_is_not_even_loaded():
    code = (
        "import sys, pipeline.services.launch, pipeline.services.launch_server as s;"
        "print([m for m in sys.modules if m.startswith('opentelemetry.sdk')"
        " or m.startswith('opentelemetry.exporter')])"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "[]"
