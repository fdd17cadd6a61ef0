"""A collector of traces, in small: takes what comes by OTLP over HTTP, and keeps it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from pipeline.telemetry.policy import TracingPolicy
from pipeline.telemetry.tracing import Tracing

RESOURCE = {"service.name": "eddy-test", "service.version": "1"}


class Received(NamedTuple):
    """A span as it came over the wire."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent: str
    attributes: dict[str, object]
    links: list[tuple[str, str]]
    """(trace id, span id)."""
    began_ns: int
    ended_ns: int
    is_error: bool
    resource: dict[str, object]
    schema_url: str


class Collector:
    """Holds the spans that came; ``status`` is what it answers."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.paths: list[str] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.paths.append(self.path)
                if collector.status == 200:
                    collector.spans += received(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(collector.status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def named(self, name: str) -> list[Received]:
        """Spans whose name begins so, in the order of their beginning."""
        return sorted((s for s in self.spans if s.name.startswith(name)), key=lambda s: s.began_ns)

    def children(self, span: Received) -> list[Received]:
        """In the order of their beginning."""
        inside = [s for s in self.spans if s.parent == span.span_id]
        return sorted(inside, key=lambda s: (s.began_ns, s.ended_ns))


def received(request: ExportTraceServiceRequest) -> Iterator[Received]:
    """The spans of one message."""
    for resource in request.resource_spans:
        told = values(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    span.name,
                    Message.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    values(span.attributes),
                    [(x.trace_id.hex(), x.span_id.hex()) for x in span.links],
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == Status.STATUS_CODE_ERROR,
                    told,
                    scope.schema_url,
                )


def values(attributes: object) -> dict[str, object]:
    """Attributes of OTLP as Python has them."""
    return {
        one.key: getattr(one.value, one.value.WhichOneof("value"))
        for one in attributes  # type: ignore[attr-defined]
    }


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that ends with the test."""
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


def tracing_to(collector: Collector, ratio: float = 1.0, complain=lambda problem: None) -> Tracing:
    """What a service would hold; close it to have everything sent."""
    policy = TracingPolicy(endpoint=collector.endpoint, sample_ratio=ratio)
    return Tracing(policy, RESOURCE, complain=complain)
