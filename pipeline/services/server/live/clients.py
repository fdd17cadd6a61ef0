"""One client of the streams: what it asked for, what it is owed, and when it was last told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pipeline.messages.codec import json_bytes
from pipeline.services.server.live.hub import Batch, Subscriber
from pipeline.services.server.live.state import Frame, Sent
from pipeline.services.server.live.wanted import CLUSTERS, STATS

PROTOCOL: Final = "eddy.v1"
MAX_CLIENTS: Final = 1000
MAX_PER_ADDRESS: Final = 20
MAX_FEEDS: Final = 4
"""Subscriptions of one client; each has a queue."""
MAX_FEED_ID: Final = 64
MAX_MESSAGE_BYTES: Final = 4096
MAX_MESSAGES_PER_S: Final = 10
FIRST_SUBSCRIBE_S: Final = 10.0
SEND_S: Final = 5.0
"""A client that does not take a frame for so long is let go."""
HEARTBEAT_S: Final = 15.0
KEY_S: Final = 60.0
STATS_S: Final = 1.0
GATHER_S: Final = 0.05
"""Between two rounds, or two frames of state: what comes meanwhile is one frame."""
MAX_RETRY_MS: Final = 5000


class Out(NamedTuple):
    """A frame on its way."""

    data: bytes
    """JSON in one line."""
    resume: str = ""
    """"": none."""


Send = Callable[[Out], Awaitable[None]]


class Direct(NamedTuple):
    """The way past all layers to a connection that has room: no task, no queue, no waiting."""

    is_free: Callable[[], bool]
    """Whether it takes a frame now."""
    write: Callable[[bytes], None]
    """Send the text of a frame; only while it is free."""


class EndError(Exception):
    """A client is let go."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        """As the metric has it."""
        self.code = code
        """To close a WebSocket by; None: it is closed."""


@dataclass(slots=True, eq=False)
class Feed:
    """One subscription of a client."""

    id: str
    events: Subscriber
    sent: Sent = field(default_factory=Sent)
    state_at: float = float("-inf")
    key_at: float = 0.0
    stats_at: float = float("-inf")
    stats_seq: int = 0
    head: bytes = field(init=False)
    """With which every frame of it begins, behind its type."""

    def __post_init__(self) -> None:
        self.head = b'"id":' + json_bytes(self.id)

    @property
    def has_clusters(self) -> bool:
        """Whether it wants the state of clusters."""
        return CLUSTERS in self.events.wanted.channels

    @property
    def has_stats(self) -> bool:
        """Whether it wants totals."""
        return STATS in self.events.wanted.channels


@dataclass(slots=True, eq=False)
class Client:
    """One connection; everything but ``wake`` belongs to the event loop."""

    id: str
    transport: str
    """ws or sse."""
    address: str
    send: Send
    joined_at: float
    direct: Direct | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    feeds: dict[str, Feed] = field(default_factory=dict)
    has_asked: bool = False
    """Whether it ever subscribed."""
    is_resting: bool = False
    """Whether the task that writes to it is between two frames, and waits."""
    problems: list[bytes] = field(default_factory=list)
    sent_at: float = 0.0
    n_sent: int = 0
    n_coalesced: int = 0
    n_dropped: int = 0


def hello(client_id: str, version: str, resume: str = "") -> Out:
    """What a client is told first; ``resume``: from where it is told events, if it asked already.

    Who loses the connection before the first event would not know where to go on.
    """
    body = {
        "type": "hello",
        "protocol": PROTOCOL,
        "version": version,
        "client_id": client_id,
        "limits": {
            "subscriptions": MAX_FEEDS,
            "message_bytes": MAX_MESSAGE_BYTES,
            "messages_per_s": MAX_MESSAGES_PER_S,
            "heartbeat_s": HEARTBEAT_S,
        },
    }
    if resume:
        body["resume"] = resume
    return Out(json_bytes(body), resume)


def state_frame(feed: Feed, frame: Frame) -> Out:
    """A key or a delta."""
    return Out(b'{"type":"%s",%s,%s}' % (frame.kind.encode(), feed.head, frame.fields))


def stats_frame(feed: Feed, seq: int, time: str | None, stats: bytes) -> Out:
    """Totals."""
    return Out(
        b'{"type":"stats",%s,"seq":%d,"t":%s,"stats":%s}'
        % (feed.head, seq, json_bytes(time), stats)
    )


def resync_frame(feed: Feed, batch: Batch) -> Out:
    """Something is missing from here on; ``gap`` null: nobody knows how much."""
    gap = None if batch.gap == -1 else batch.gap
    return Out(b'{"type":"resync",%s,"gap":%s}' % (feed.head, json_bytes(gap)))


def events_frame(feed: Feed, batch: Batch) -> Out:
    """Events, and from where to go on after them."""
    bodies = b",".join([told.body for told in batch.events])
    data = b'{"type":"events",%s,"events":[%s],"dropped":%d,"resume":"%s"}' % (
        feed.head, bodies, batch.dropped, batch.resume.encode(),
    )  # fmt: skip
    return Out(data, batch.resume)


def heartbeat(time: str | None, feed_id: str | None = None, resume: str = "") -> Out:
    """Nothing happened, and here we are."""
    body: dict[str, Any] = {"type": "heartbeat", "t": time}
    if feed_id is not None:
        body |= {"id": feed_id, "resume": resume}
    return Out(json_bytes(body), resume)


def bye(retry_after_ms: int) -> Out:
    """The server ends; come again, elsewhere."""
    return Out(json_bytes({"type": "bye", "reason": "shutdown", "retry_after_ms": retry_after_ms}))
