"""Traces for OpenTelemetry; the only module that knows its library, which is an extra.

A span begins and ends by calls, so that a loop can open one for each phase it comes through. What
is not sampled has no span at all, and where tracing is off nobody holds a `Tracing`: what is left
of it is a comparison with None.

Contexts of others come as W3C text, ``traceparent`` and ``tracestate``, and are read here, by the
flags first: most of them are not sampled, and then nothing more is looked at.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from pipeline.telemetry.policy import TracingPolicy

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""Of the conventions by which attributes are named; they still change."""

MAX_LINKS: Final = 32
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

# Attributes, as the conventions name them, and ours
SYSTEM: Final = "messaging.system"
OPERATION: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
GROUP: Final = "messaging.consumer.group.name"
MESSAGES: Final = "messaging.batch.message_count"
METHOD: Final = "http.request.method"
ROUTE: Final = "http.route"
STATUS: Final = "http.response.status_code"
REQUEST_ID: Final = "eddy.request_id"
ERROR: Final = "error.type"
EPOCH: Final = "eddy.epoch"
REVISION: Final = "eddy.revision"
EVENTS: Final = "eddy.events"
DEAD: Final = "eddy.dead_letters"
REASON: Final = "eddy.recluster.reason"
RESULT: Final = "eddy.recluster.result"
RECLUSTER_ID: Final = "eddy.recluster.id"
ITEMS: Final = "eddy.recluster.items"
PASSES: Final = "eddy.recluster.passes"

Kind = Literal["CONSUMER", "INTERNAL", "PRODUCER", "SERVER"]

_SENDING_LIMIT_S: Final = 5
_MAX_STATE: Final = 512  # characters of a tracestate that W3C asks everybody to pass on
_PARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_ODD: Final = frozenset(b"13579bdf")
_FLAGS_AT: Final = 54  # the second digit of the flags; its lowest bit says: sampled


class Context(NamedTuple):
    """A sampled span of somebody else, as W3C writes it."""

    trace_id: int
    span_id: int
    parent: bytes
    """The whole ``traceparent``, to be passed on as it came."""
    state: bytes | None = None
    """``tracestate``."""

    @property
    def headers(self) -> tuple[tuple[str, bytes | None], ...]:
        """It again, for a record that goes on."""
        own = ((TRACEPARENT, self.parent),)
        return own if self.state is None else (*own, (TRACESTATE, self.state))


def sampled(headers: Iterable[tuple[str, bytes | None]]) -> Context | None:
    """The context in the headers of a record or a request; None: none, unsampled, or malformed."""
    for name, value in headers:
        if name == TRACEPARENT:
            if value is None or len(value) <= _FLAGS_AT or value[_FLAGS_AT] not in _ODD:
                return None
            return _parsed(value, headers)
    return None


def is_unsampled(headers: Iterable[tuple[str, bytes | None]]) -> bool:
    """Whether somebody has decided already that there shall be no trace."""
    return any(
        name == TRACEPARENT
        and value is not None
        and _PARENT.match(value) is not None
        and value[_FLAGS_AT] not in _ODD
        for name, value in headers
    )


def _parsed(value: bytes, headers: Iterable[tuple[str, bytes | None]]) -> Context | None:
    found = _PARENT.match(value)
    # later versions may append; the first one may not
    if found is None or (value.startswith(b"00") and len(value) > found.end()):
        return None
    trace_id, span_id = int(found[1], 16), int(found[2], 16)
    if not trace_id or not span_id:
        return None
    states = [text for name, text in headers if name == TRACESTATE and text]
    state = states[0] if len(states) == 1 and len(states[0]) <= _MAX_STATE else None
    return Context(trace_id, span_id, value[: found.end()], state)


class Ids(NamedTuple):
    """By which a line of the log and a span find each other."""

    trace_id: str
    span_id: str


_CURRENT: ContextVar[Ids | None] = ContextVar("span", default=None)


def current() -> Ids | None:
    """The span that this thread or task is in."""
    return _CURRENT.get()


class Span:
    """Something that takes time. It has to be ended, once; who opens it sees to that."""

    def __init__(self, tracing: Tracing, span: Any) -> None:
        self._tracing, self._span = tracing, span
        context = span.get_span_context()
        self.ids = Ids(f"{context.trace_id:032x}", f"{context.span_id:016x}")

    @property
    def headers(self) -> tuple[tuple[str, bytes | None], ...]:
        """Its context, for what it sends."""
        return ((TRACEPARENT, f"00-{self.ids.trace_id}-{self.ids.span_id}-01".encode()),)

    def child(self, name: str, *, kind: Kind = "INTERNAL", began_ns: int | None = None) -> Span:
        """A part of it; ``began_ns``: since 1970, None: now."""
        return self._tracing.begin(name, kind=kind, parent=self, began_ns=began_ns)

    def note(self, attributes: Mapping[str, str | int | float | bool | None]) -> None:
        """What is known of it; None is left out."""
        self._span.set_attributes({k: v for k, v in attributes.items() if v is not None})

    def rename(self, name: str) -> None:
        """A better name is known only now."""
        self._span.update_name(name)

    def end(self, *, error: str | None = None, ended_ns: int | None = None) -> None:
        """It is over; ``error``: the kind of failure, of a closed set."""
        if error is not None:
            self._span.set_attribute(ERROR, error)
            self._span.set_status(self._tracing.failed)
        self._span.end(ended_ns)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Lines of the log that are written meanwhile name it."""
        token = _CURRENT.set(self.ids)
        try:
            yield
        finally:
            _CURRENT.reset(token)


class Tracing:
    """Where spans begin, and the way to the collector: a queue with a bound, and a thread.

    A collector that is away costs its spans and one line of the log a minute; nobody waits for it.

    Parameters
    ----------
    resource
        What is true of all spans: service, instance, version.
    complain
        Told of what could not be sent.

    Raises
    ------
    ModuleNotFoundError
        The extra is not installed.
    """

    def __init__(
        self,
        policy: TracingPolicy,
        resource: Mapping[str, str],
        *,
        complain: Callable[[str], None],
    ) -> None:
        assert policy.endpoint is not None, "tracing is off"
        exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        export = import_module("opentelemetry.sdk.trace.export")
        sdk = import_module("opentelemetry.sdk.trace")
        sampling = import_module("opentelemetry.sdk.trace.sampling")
        resources = import_module("opentelemetry.sdk.resources")
        self._api = import_module("opentelemetry.trace")
        self.failed = self._api.Status(self._api.StatusCode.ERROR)
        self._ratio = policy.sample_ratio
        self._rng = np.random.default_rng()
        _listen(complain)
        self._provider = sdk.TracerProvider(
            # what is sampled is decided before there is a span
            sampler=sampling.ALWAYS_ON,
            resource=resources.Resource.create(dict(resource), schema_url=SCHEMA_URL),
            shutdown_on_exit=False,
        )
        address = f"{policy.endpoint.rstrip('/')}/v1/traces"
        sender = exporter.OTLPSpanExporter(endpoint=address, timeout=_SENDING_LIMIT_S)
        self._provider.add_span_processor(export.BatchSpanProcessor(sender))
        version = resource.get("service.version")
        self._tracer = self._provider.get_tracer("eddy", version, schema_url=SCHEMA_URL)

    def chooses(self) -> bool:
        """Whether chance gives this one a trace; ask once for each."""
        return bool(self._rng.random() < self._ratio)

    def begin(
        self,
        name: str,
        *,
        kind: Kind = "INTERNAL",
        parent: Span | Context | None = None,
        links: Iterable[Context] = (),
        began_ns: int | None = None,
    ) -> Span:
        """A span from now on; without a parent a trace of its own.

        Parameters
        ----------
        links
            `MAX_LINKS` at most are kept.
        began_ns
            Since 1970; None: now.
        """
        api = self._api
        if isinstance(parent, Span):
            within = api.set_span_in_context(parent._span)
        elif parent is not None:
            within = api.set_span_in_context(api.NonRecordingSpan(self._remote(parent)))
        else:  # not the one that some other library may have made current
            within = api.set_span_in_context(api.INVALID_SPAN)
        chosen = list(dict.fromkeys(links))[:MAX_LINKS]
        span = self._tracer.start_span(
            name,
            context=within,
            kind=api.SpanKind[kind],
            links=[api.Link(self._remote(one)) for one in chosen],
            start_time=began_ns,
        )
        return Span(self, span)

    def _remote(self, context: Context) -> Any:
        api = self._api
        state = (context.state or b"").decode("ascii", "replace")
        return api.SpanContext(
            context.trace_id,
            context.span_id,
            is_remote=True,
            trace_flags=api.TraceFlags(api.TraceFlags.SAMPLED),
            trace_state=api.TraceState.from_header([state]) if state else None,
        )

    def close(self) -> None:
        """Send what is left, for some seconds at most."""
        self._provider.shutdown()


class _Complaints(logging.Handler):
    """What the library logs, where it would print."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._complain = complain

    def emit(self, record: logging.LogRecord) -> None:
        self._complain(record.getMessage()[:500])


def _listen(complain: Callable[[str], None]) -> None:
    logger = logging.getLogger("opentelemetry")
    logger.handlers[:] = [_Complaints(complain)]
    logger.propagate = False


def now_ns() -> int:
    """Since 1970, as spans count."""
    return time.time_ns()
