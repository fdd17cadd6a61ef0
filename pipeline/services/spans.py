"""Traces of micro-batches and of reclusters: what has a span, and what it says.

    process <input>            decode | assign | apply | send <topic> ... | commit | install
    recluster                  load | fit | align | judge | publish

A micro-batch has many causes, so it is a trace of its own, with links to those of its records that
somebody else traces. Their events carry on the context that their record came with; the other
events of a sampled micro-batch carry the micro-batch's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

from pipeline.engine.changes import Changes
from pipeline.messages.records import Headers, Outgoing, Record
from pipeline.state.members import Version
from pipeline.telemetry import tracing as names
from pipeline.telemetry.tracing import Context, Span, Tracing, now_ns, sampled

KAFKA = "kafka"


@dataclass(frozen=True, slots=True)
class BatchTraces:
    """Which micro-batches have a trace."""

    tracing: Tracing
    topic: str
    """The input."""
    changes: str
    """Where events go."""
    group: str

    def begin(self, records: Sequence[Record], version: Version | None) -> BatchTrace | None:
        """The trace of a micro-batch; None: it has none, and no record of it asks for one."""
        found: dict[tuple[int, int], Context] = {}
        for record in records:
            if record.headers:
                context = sampled(record.headers)
                if context is not None:
                    found[record.partition, record.offset] = context
        is_chosen = self.tracing.chooses()
        if not (is_chosen or found):
            return None
        span = self.tracing.begin(f"process {self.topic}", kind="CONSUMER", links=[*found.values()])
        span.note(
            {
                names.SYSTEM: KAFKA,
                names.OPERATION: "process",
                names.OPERATION_TYPE: "process",
                names.DESTINATION: self.topic,
                names.GROUP: self.group,
                names.MESSAGES: len(records),
                names.EPOCH: None if version is None else version.epoch,
                names.REVISION: None if version is None else version.revision,
            }
        )
        return BatchTrace(span, self.changes, found, span.headers if is_chosen else ())


@dataclass(slots=True)
class BatchTrace:
    """One micro-batch, from its records to its state. A context: it ends where that ends."""

    span: Span
    _topic: str
    _contexts: dict[tuple[int, int], Context]
    """(partition, offset) -> what its record came with."""
    _own: Headers
    """What events have whose record came with nothing."""
    _phase: Span | None = None
    _is_done: bool = False
    _logged: AbstractContextManager[None] | None = None

    def __enter__(self) -> BatchTrace:
        self._logged = self.span.current()
        self._logged.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        error = None if self._is_done else "aborted"
        if kind is not None:
            error = kind.__name__
        if self._phase is not None:
            self._phase.end(error=error)
        self.span.end(error=error)
        if self._logged is not None:
            self._logged.__exit__(kind, problem, traceback)

    def at(self, phase: str) -> None:
        """A phase begins, and the one before it is over."""
        now = now_ns()
        if self._phase is not None:
            self._phase.end(ended_ns=now)
        self._phase = self.span.child(phase, began_ns=now)

    def sending(self, changes: Changes) -> Iterator[Outgoing]:
        """What goes out, as it goes out; then the commit begins."""
        headers = self._headers_of(changes)
        counts: Counter[str] = Counter()
        began = now_ns()
        if self._phase is not None:
            self._phase.end(ended_ns=began)
            self._phase = None
        for index, record in enumerate(changes.outgoing):
            counts[record.topic] += 1
            more = headers.get(index, self._own) if record.topic == self._topic else ()
            yield record._replace(headers=(*record.headers, *more)) if more else record
        ended = now_ns()
        for topic, n_records in sorted(counts.items()):
            sent = self.span.child(f"send {topic}", kind="PRODUCER", began_ns=began)
            sent.note(
                {
                    names.SYSTEM: KAFKA,
                    names.OPERATION: "send",
                    names.OPERATION_TYPE: "send",
                    names.DESTINATION: topic,
                    names.MESSAGES: n_records,
                }
            )
            sent.end(ended_ns=ended)
        self._phase = self.span.child("commit", began_ns=ended)

    def committed(self, changes: Changes) -> None:
        """Everybody can read it; what is left is to install it."""
        self._is_done = True
        tally = changes.tally
        self.span.note({names.EVENTS: tally.n_events, names.DEAD: sum(tally.dead.values())})
        self.at("install")

    def _headers_of(self, changes: Changes) -> dict[int, Headers]:
        """Index in ``outgoing`` -> the context of the record behind that event."""
        if not self._contexts:
            return {}
        return {
            begin + i: context.headers
            for begin, steps in changes.written
            for i, step in enumerate(steps)
            if (context := self._contexts.get((step.partition, step.offset))) is not None
        }


class Phase(NamedTuple):
    """A part of a job's time, in seconds since 1970."""

    name: str
    began_s: float
    ended_s: float


@dataclass(slots=True)
class Phases:
    """What a job spends its time on, one phase after the other; one thread at a time tells."""

    clock: Callable[[], float]
    """Seconds since 1970."""
    past: list[Phase] = field(default_factory=list)
    _open: tuple[str, float] | None = None

    def at(self, name: str | None) -> None:
        """A phase begins, and the one before it is over; None: nothing is done for now."""
        now = self.clock()
        if self._open is not None:
            self.past.append(Phase(*self._open, max(now, self._open[1])))
        self._open = None if name is None else (name, now)

    @property
    def began_ns(self) -> int | None:
        """Since 1970; None: it has not begun."""
        first = self.past[0].began_s if self.past else self._open[1] if self._open else None
        return None if first is None else int(first * 1e9)

    @property
    def seconds(self) -> dict[str, float]:
        """Phase -> how long it took, all its parts together."""
        spent: dict[str, float] = {}
        for phase in self.past:
            spent[phase.name] = spent.get(phase.name, 0.0) + phase.ended_s - phase.began_s
        return spent

    def trace(self, span: Span) -> None:
        """A child for every part."""
        for phase in self.past:
            child = span.child(phase.name, began_ns=int(phase.began_s * 1e9))
            child.end(ended_ns=int(phase.ended_s * 1e9))
