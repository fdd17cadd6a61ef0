"""What happens, told by the server as it comes: every event once, or a word that some are missing.

Server-sent events, since they need nothing but HTTP and pass every proxy. The server hands out a
token with what it tells; a connection that breaks is made anew behind the last one, at whichever
server answers.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import socket
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Collection,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final, Literal, NamedTuple

from pipeline.client.problems import AnswerError, ServerError, error_of
from pipeline.client.results import Change, LifecycleEvent, Signal, Version
from pipeline.client.topics import change_of
from pipeline.client.transport import (
    AsyncTransport,
    Query,
    Response,
    Timeout,
    Transport,
    TransportError,
)
from pipeline.errors import RecordError, UnreachableError
from pipeline.messages.codec import (
    decode_change,
    decode_drift,
    decode_lifecycle,
    json_bytes,
    json_value,
)
from pipeline.messages.envelope import opened
from pipeline.messages.events import Drift, Lifecycle

Channel = Literal["changes", "lifecycle", "drift"]
CHANNELS: Final[tuple[Channel, ...]] = ("changes", "lifecycle", "drift")

_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
_PATH: Final = "/events"
_LIMITS: Final = Timeout(5.0, read=35.0)
"""Without a word for so long a connection is dead: a heartbeat comes every 15 s."""
_AWAY_S: Final = 60.0
"""For so long no server may answer before it is said."""
_FIRST_DELAY_S: Final = 0.5
_MAX_DELAY_S: Final = 15.0
_LEAST_WAIT_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Missed:
    """Events that were wanted did not come: ask the server how things stand now."""

    n: int | None
    """At most so many; None: nobody knows."""
    reason: Literal["dropped", "resync"]
    """They were dropped because this client was slow, or are too old to be told again."""


Event = Change | LifecycleEvent | Signal | Missed


class _Frame(NamedTuple):
    """What came together."""

    events: list[Event]
    token: str
    """Behind them; "": none."""


def query_of(channels: Sequence[Channel], **filters: Collection[str] | None) -> Query:
    """As the server reads it."""
    told = {"channels": channels, **filters}
    return {name: list(names) for name, names in told.items() if names is not None}


class _Course:
    """Where a stream is, whatever carries it: pure but for the clock."""

    def __init__(self, url: str, query: Query, resume: str | None) -> None:
        self.url, self.query = url, query
        self.resume = resume or ""
        self._rest, self._lines = b"", list[bytes]()
        self._pending: list[Event] = []
        self._delay_s = _FIRST_DELAY_S
        self._heard_at = time.monotonic()
        self._has_begun = resume is not None
        self._wait_s: float | None = None
        """As the server wants it, before the next connection."""

    @property
    def headers(self) -> Mapping[str, str]:
        told = {"Accept": "text/event-stream"}
        return told | ({"Last-Event-ID": self.resume} if self.resume else {})

    def connected(self) -> None:
        """A connection begins; where nobody knows behind what, that is said."""
        self._rest, self._lines = b"", []
        self._pending = [Missed(None, "resync")] if self._has_begun and not self.resume else []
        self._has_begun = True

    def greeted(self, frame: _Frame | None) -> _Frame | None:
        """The first frame; where nothing is in it, its token counts at once."""
        if frame is not None and not frame.events:
            self.resume = frame.token or self.resume
        return frame

    def take(self, data: bytes) -> Iterator[_Frame]:
        """The frames that these bytes complete."""
        # by hand: a line ends at a line feed, and an item's id may hold what else Python takes
        # for the end of one
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line:
                self._lines.append(line)
                continue
            told = dict(one.split(b": ", 1) for one in self._lines if b": " in one)
            self._lines = []
            if b"data" in told:
                self._heard_at = time.monotonic()
                events, self._pending = [*self._pending, *self._read(told[b"data"])], []
                yield _Frame(events, told.get(b"id", b"").decode())

    def refused(self, response: Response, body: bytes) -> None:
        """An answer that is no stream.

        Raises
        ------
        ServerError
            It will not be another one later.
        """
        try:
            problem = error_of(response.status_code, json_value(body), None)
        except RecordError:
            problem = error_of(response.status_code, None, None)
        if response.status_code not in _AGAIN:
            raise problem
        told = response.headers.get("retry-after", "")
        self._wait_s = float(told) if told.isdigit() else None
        self._check(problem)

    def lost(self, error: TransportError | None) -> None:
        """The connection is over; `UnreachableError` after a minute without a word."""
        self._check(error)

    def pause_s(self) -> float:
        """Before the next connection: longer each time, and never all at once."""
        if self._wait_s is not None:
            pause_s, self._wait_s = self._wait_s, None
            return pause_s
        delay_s = self._delay_s
        self._delay_s = min(2.0 * delay_s, _MAX_DELAY_S)
        return secrets.randbelow(int(delay_s * 1000) + 1) / 1000.0

    def _check(self, error: BaseException | None) -> None:
        if time.monotonic() - self._heard_at <= _AWAY_S:
            return
        if isinstance(error, ServerError):
            raise error
        why = "" if error is None else f": {str(error) or type(error).__name__}"
        raise UnreachableError(
            f"no Eddy server tells what happens at {self.url} for {_AWAY_S:g} s{why}"
        ) from error

    def _read(self, data: bytes) -> list[Event]:
        try:
            frame = json_value(data)
            kind = frame["type"]
            if kind == "events":
                self._delay_s = _FIRST_DELAY_S
                told = [_event(one) for one in frame["events"]]
                return [Missed(frame["dropped"], "dropped"), *told] if frame["dropped"] else told
            if kind == "resync":
                return [Missed(frame["gap"], "resync")]
            if kind == "bye":
                self._wait_s = frame["retry_after_ms"] / 1000.0
        except (RecordError, KeyError, TypeError) as error:
            raise AnswerError(f"{self.url} tells what is no event: is it an Eddy?") from error
        return []


class Live:
    """Events as the server tells them; to be iterated, by one thread.

    It ends when it is closed, or after ``idle_s`` seconds without an event. Connections that break
    are made anew. Keep `resume` with what you made of the events: another one goes on there, and
    may hand out again what came together with the last of them.

    Raises
    ------
    ServerError, AnswerError
        Made or iterated: the server refuses, or who answers is no Eddy.
    UnreachableError
        No server has answered for a minute.
    """

    def __init__(
        self,
        transport: Transport,
        query: Query,
        resume: str | None,
        idle_s: float | None,
    ) -> None:
        self._transport, self._course = transport, _Course(transport.url, query, resume)
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        self._idle_s, self._idle_from = idle_s, math.inf
        self._frames = self._run()
        # the greeting: nothing is missed from now on
        self._first = self._course.greeted(next(self._frames, None))

    @property
    def resume(self) -> str:
        """Behind what was handed out; "": the server has not said."""
        return self._course.resume

    def __iter__(self) -> Iterator[Event]:
        first, self._first = self._first, None
        self._idle_from = time.monotonic()
        if self._idle_s is not None:
            threading.Thread(target=self._watch, args=(self._idle_s,), daemon=True).start()
        for frame in chain([] if first is None else [first], self._frames):
            if frame.events:
                self._idle_from = math.inf  # what takes long now is what is done with them
                yield from frame.events
                self._idle_from = time.monotonic()
            self._course.resume = frame.token or self._course.resume

    def close(self) -> None:
        """End it; any thread may, and again."""
        self._closed.set()
        found = self._socket
        if found is not None:
            with suppress(OSError):  # it is over already
                found.shutdown(socket.SHUT_RDWR)
        with suppress(ValueError):  # it is at work in another thread, which sees it itself
            self._frames.close()

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> Generator[_Frame, None, None]:
        course = self._course
        while not self._closed.is_set():
            try:
                with self._transport.listen(_PATH, course.query, course.headers, _LIMITS) as reply:
                    if not reply.is_success:
                        course.refused(reply, reply.read())
                    else:
                        course.connected()
                        self._socket = _socket_of(reply)
                        for data in reply.iter_raw():
                            yield from course.take(data)
                        course.lost(None)
            except TransportError as error:
                if self._closed.is_set():
                    return
                course.lost(error)
            self._socket = None
            self._closed.wait(course.pause_s())

    def _watch(self, idle_s: float) -> None:
        """Somebody has to end the wait for what does not come."""
        left_s = idle_s
        while not self._closed.wait(min(max(left_s, _LEAST_WAIT_S), idle_s + _LEAST_WAIT_S)):
            left_s = self._idle_from + idle_s - time.monotonic()
            if left_s <= 0.0:
                self.close()


class AsyncLive:
    """The same for ``async for``; made by `AsyncEddyClient.live`."""

    def __init__(
        self,
        transport: AsyncTransport,
        query: Query,
        resume: str | None,
        idle_s: float | None,
    ) -> None:
        self._transport, self._course = transport, _Course(transport.url, query, resume)
        self._idle_s = idle_s
        self._frames = self._run()
        self._first: _Frame | None = None

    async def begin(self) -> AsyncLive:
        """Connect: nothing is missed from now on."""
        self._first = self._course.greeted(await anext(self._frames, None))
        return self

    @property
    def resume(self) -> str:
        """See `Live.resume`."""
        return self._course.resume

    async def __aiter__(self) -> AsyncIterator[Event]:
        lively_at = time.monotonic()
        while True:
            first, self._first = self._first, None
            if first is not None:
                frame = first
            else:
                try:
                    async with asyncio.timeout(self._left_s(lively_at)):
                        frame = await anext(self._frames)
                except (TimeoutError, StopAsyncIteration):
                    return
            for event in frame.events:
                yield event
            lively_at = time.monotonic() if frame.events else lively_at
            self._course.resume = frame.token or self._course.resume

    async def close(self) -> None:
        """End it; not while it is iterated by another task: cancel that."""
        await self._frames.aclose()

    async def __aenter__(self) -> AsyncLive:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _left_s(self, lively_at: float) -> float | None:
        if self._idle_s is None:
            return None
        return max(lively_at + self._idle_s - time.monotonic(), _LEAST_WAIT_S)

    async def _run(self) -> AsyncGenerator[_Frame, None]:
        course = self._course
        while True:
            try:
                async with self._transport.listen(
                    _PATH, course.query, course.headers, _LIMITS
                ) as reply:
                    if not reply.is_success:
                        course.refused(reply, await reply.aread())
                    else:
                        course.connected()
                        async for data in reply.aiter_raw():
                            for frame in course.take(data):
                                yield frame
                        course.lost(None)
            except TransportError as error:
                course.lost(error)
            await asyncio.sleep(course.pause_s())


def _socket_of(reply: Response) -> socket.socket | None:
    stream = reply.extensions.get("network_stream")
    found: socket.socket | None = None if stream is None else stream.get_extra_info("socket")
    return found


def _event(told: Mapping[str, Any]) -> Event:
    plain, body = opened(told), json_bytes(told)
    if "item" in plain:
        return change_of(decode_change(body), None)
    if plain["type"] == "drift":
        return _signal(decode_drift(body))
    return _lifecycle(decode_lifecycle(body))


def _lifecycle(event: Lifecycle) -> LifecycleEvent:
    return LifecycleEvent(
        id=event.id, type=str(event.type), cluster=event.cluster, parents=event.parents,
        children=event.children, size=event.size, model=Version(event.epoch, event.revision),
        similarity=event.similarity, label=event.label, command=event.command,
        reason=event.reason, inertia_before=event.inertia_before,
        inertia_after=event.inertia_after, moved=event.moved, occurred_at=_time(event),
    )  # fmt: skip


def _signal(alarm: Drift) -> Signal:
    return Signal(
        id=alarm.id, state=alarm.state, scope=alarm.scope, cluster=alarm.cluster,
        clusters=alarm.clusters, signal=alarm.signal, statistic=alarm.statistic,
        threshold=alarm.threshold, effect=alarm.effect, arl0=alarm.arl0, window=alarm.window,
        model=Version(alarm.epoch, alarm.revision), occurred_at=_time(alarm),
    )  # fmt: skip


def _time(event: Lifecycle | Drift) -> datetime | None:
    ms = event.occurred_at_ms
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
