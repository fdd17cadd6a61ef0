"""Live streams: what the follower hears goes to the hub, and from there to every client in turn.

The follower's thread puts events in, the event loop takes them out; a lock stands between, held for
as long as a batch takes to be queued or some frames to be made. Events go out in rounds; all else,
and what a round cannot send at once, is sent by a task of each client, as fast as it takes it.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import threading
import time
import uuid
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

from pipeline.messages.codec import timestamp
from pipeline.services.server.desk import Desk
from pipeline.services.server.live.clients import (
    GATHER_S,
    HEARTBEAT_S,
    KEY_S,
    MAX_CLIENTS,
    MAX_FEEDS,
    MAX_PER_ADDRESS,
    MAX_RETRY_MS,
    SEND_S,
    STATS_S,
    Client,
    Direct,
    EndError,
    Feed,
    Out,
    Send,
    bye,
    events_frame,
    heartbeat,
    hello,
    resync_frame,
    state_frame,
    stats_frame,
)
from pipeline.services.server.live.hub import Hub, Subscriber
from pipeline.services.server.live.news import events_of
from pipeline.services.server.live.reports import StreamReports
from pipeline.services.server.live.rounds import Rounds
from pipeline.services.server.live.rows import Sample, sample
from pipeline.services.server.live.state import Board, Frame, Sent
from pipeline.services.server.live.tokens import read_token
from pipeline.services.server.live.wanted import Wanted
from pipeline.services.server.problems import ProblemError
from pipeline.state.view.fold import News

SAMPLE_S: Final = 0.1
SAMPLE_SHARE: Final = 20
"""Looking at the view takes at most one part in so many of the time."""
MAX_ROUNDS: Final = 16
"""Frames of one feed in turn."""
DRAIN_S: Final = 3.0
RETRY_S: Final = 5


class Streams:
    """All clients of one process.

    Parameters
    ----------
    topics
        See `pipeline.services.server.live.tokens.topics_digest`.
    """

    def __init__(
        self,
        desk: Desk,
        reports: StreamReports,
        topics: bytes,
        *,
        version: str = "",
    ) -> None:
        self._desk, self._reports = desk, reports
        self._clock = time.monotonic  # the event loop's own, by which it sleeps
        self._version = version
        self._lock = threading.Lock()
        self._hub = Hub(topics)
        self._board = Board()
        self._stats: tuple[int, str | None, bytes] = (0, None, b"null")
        self._clients: set[Client] = set()
        self._addresses: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rounds = Rounds(self._lock, self._tell)
        self._is_draining = False
        self._is_empty = threading.Event()
        self._is_empty.set()
        self._sampling: asyncio.Task[None] | None = None
        self._is_sampled = False

    # --- on the follower's thread ------------------------------------------------------

    def begin(self, channel: str, positions: Mapping[int, int]) -> None:
        """Say from where on a topic of events is read."""
        with self._lock:
            self._hub.ring.begin(channel, positions)

    def hear(self, news: News) -> None:
        """Listen to the follower."""
        events = events_of(news)
        with self._lock:
            self._hub.epoch = self._desk.view.version[0]
            owners = {one.owner for one in self._hub.offer(events)}
            if self._loop is not None:
                self._rounds.add((o for o in owners if isinstance(o, Client)), self._loop)

    def drain(self) -> None:
        """Say bye to all, and wait a little until they are gone; no new ones from now on."""
        with self._lock:
            self._is_draining = True
            loop = self._loop
        if loop is not None and loop.is_running():
            loop.call_soon_threadsafe(self._wake_all)
            self._is_empty.wait(DRAIN_S)

    # --- on the event loop ----------------------------------------------------------------

    def join(
        self, transport: str, address: str, send: Send, direct: Direct | None = None
    ) -> Client:
        """A new client.

        Raises
        ------
        ProblemError
            ``too-many-clients`` or ``unavailable``.
        """
        if self._is_draining:
            raise ProblemError("unavailable", "the server is ending", retry_after_s=RETRY_S)
        if len(self._clients) >= MAX_CLIENTS or self._addresses[address] >= MAX_PER_ADDRESS:
            self._reports.refused(transport)
            raise ProblemError(
                "too-many-clients",
                f"{MAX_CLIENTS} streams at a time, {MAX_PER_ADDRESS} for each address",
                retry_after_s=RETRY_S,
            )
        self._loop = asyncio.get_running_loop()
        client = Client(uuid.uuid4().hex, transport, address, send, self._clock(), direct)
        self._clients.add(client)
        self._addresses[address] += 1
        self._is_empty.clear()
        self._reports.joined(client)
        return client

    def leave(self, client: Client, reason: str) -> None:
        """It is gone."""
        with self._lock:
            for feed in client.feeds.values():
                self._retire(client, feed)
        client.feeds.clear()
        self._clients.discard(client)
        self._addresses[client.address] -= 1
        if not self._addresses[client.address]:
            del self._addresses[client.address]
        if not self._clients:
            self._is_empty.set()
        self._reports.left(client, reason)

    def subscribe(self, client: Client, name: str, wanted: Wanted, resume: str, place: str) -> None:
        """Begin a subscription, or put another in the place of the one of that name.

        Raises
        ------
        ProblemError
            ``invalid-request``, ``conflict``.
        """
        token = read_token(resume, place) if resume else None
        if name not in client.feeds and len(client.feeds) >= MAX_FEEDS:
            raise ProblemError("conflict", f"a client has {MAX_FEEDS} subscriptions at most")
        with self._lock:
            before = client.feeds.pop(name, None)
            if before is not None:
                self._retire(client, before)
            feed = Feed(name, self._hub.subscribe(wanted, token, client))
            client.feeds[name] = feed
        client.has_asked = True
        client.wake.set()
        if (feed.has_clusters or feed.has_stats) and self._sampling is None:
            self._sampling = asyncio.get_running_loop().create_task(self._sample())

    def unsubscribe(self, client: Client, name: str) -> None:
        """End a subscription, if it is one."""
        with self._lock:
            feed = client.feeds.pop(name, None)
            if feed is not None:
                self._retire(client, feed)

    async def attend(self, client: Client, listening: Coroutine[Any, Any, None]) -> EndError:
        """Write to a client until it ends, or what it says ends it; how."""
        tasks = [asyncio.ensure_future(self._write(client)), asyncio.ensure_future(listening)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        found = [end for end in ends if isinstance(end, Exception)]
        for end in found:
            if isinstance(end, EndError):
                return end
        if found and not isinstance(found[0], OSError):
            self._reports.failed(client, found[0])
            return EndError("error", 1011)
        return EndError("client")

    def _retire(self, client: Client, feed: Feed) -> None:
        self._count_dropped(client, feed.events)
        self._hub.unsubscribe(feed.events)

    def _count_dropped(self, client: Client, one: Subscriber) -> None:
        if one.n_dropped:
            self._reports.dropped(client.transport, one.n_dropped)
            client.n_dropped += one.n_dropped
            one.n_dropped = 0

    def _wake_all(self) -> None:
        for client in self._clients:
            client.wake.set()

    # --- writing ---------------------------------------------------------------------------

    def _tell(self, clients: Sequence[Client]) -> None:
        """Write what is in the queues to those who take it; the tasks of the others are woken."""
        due: list[tuple[Client, Direct, bytes]] = []
        with self._lock:
            for client in clients:
                direct = client.direct
                if not client.is_resting or direct is None or not direct.is_free():
                    client.wake.set()
                    continue
                for feed in client.feeds.values():
                    batch = self._hub.take(feed.events) if feed.events.is_level else None
                    if batch is not None:
                        due.append((client, direct, events_frame(feed, batch).data))
                        self._count_dropped(client, feed.events)
                    if feed.events.has_events:
                        client.wake.set()
        now = self._clock()
        for client, direct, data in due:
            direct.write(data)
            client.sent_at = now
            client.n_sent += 1
            self._reports.sent(client.transport)

    async def _write(self, client: Client) -> None:
        await self._send(client, hello(client.id, self._version, self._first_token(client)))
        while True:
            client.wake.clear()
            if self._is_draining:
                await self._send(client, bye(secrets.randbelow(MAX_RETRY_MS)))
                raise EndError("shutdown", 1012)
            while client.problems:
                await self._send(client, Out(client.problems.pop(0)))
            due_s = math.inf
            for feed in list(client.feeds.values()):
                await self._send_events(client, feed)
                due_s = min(due_s, await self._send_state(client, feed))
            quiet_s = client.sent_at + HEARTBEAT_S - self._clock()
            if quiet_s <= 0.0:
                await self._send_heartbeat(client)
                quiet_s = HEARTBEAT_S
            client.is_resting = True
            await _sleep(client.wake, min(due_s, quiet_s))
            pause_s = client.sent_at + GATHER_S - self._clock()
            if pause_s > 0.0:
                await asyncio.sleep(pause_s)
            client.is_resting = False

    def _first_token(self, client: Client) -> str:
        """Of the subscription that a client of server-sent events comes with."""
        feed = client.feeds.get("")
        if feed is None or not feed.events.wanted.events:
            return ""
        with self._lock:
            return self._hub.token(feed.events)

    async def _send(self, client: Client, out: Out) -> None:
        try:
            async with asyncio.timeout(SEND_S):
                await client.send(out)
        except TimeoutError:
            raise EndError("slow", 1013) from None
        client.sent_at = self._clock()
        client.n_sent += 1
        self._reports.sent(client.transport)

    async def _send_events(self, client: Client, feed: Feed) -> None:
        for _ in range(MAX_ROUNDS):
            if not feed.events.has_events:
                return
            with self._lock:
                batch = self._hub.take(feed.events)
                self._count_dropped(client, feed.events)
            if batch is None:
                await asyncio.sleep(0)  # a long way through the ring: others want to live, too
                continue
            if batch.gap is not None:
                await self._send(client, resync_frame(feed, batch))
                feed.sent = Sent()  # a key follows
            await self._send(client, events_frame(feed, batch))
        client.wake.set()  # there may be more; others of its feeds come first

    async def _send_state(self, client: Client, feed: Feed) -> float:
        """Send what is due; after how many seconds the next may be, infinite: when it changes."""
        if not self._is_sampled:
            return math.inf
        now, due_s, wanted = self._clock(), math.inf, feed.events.wanted
        if feed.has_clusters:
            wait_s = feed.state_at + 1.0 / wanted.rate_hz - now
            with self._lock:
                frame: Frame | None
                if feed.sent.seq < 0 or now - feed.key_at >= KEY_S:
                    frame = self._board.key(wanted.clusters, feed.sent)
                else:
                    frame = self._board.frame(feed.sent, wanted.clusters)
            if frame is not None and wait_s > 0.0:
                due_s = wait_s
            elif frame is not None:
                feed.sent, feed.state_at = frame.sent, now
                if frame.kind == "key":
                    feed.key_at = now
                client.n_coalesced += frame.n_coalesced
                self._reports.coalesced(client.transport, frame.n_coalesced)
                await self._send(client, state_frame(feed, frame))
            due_s = min(due_s, max(0.0, feed.key_at + KEY_S - now))
        seq, taken_at, stats = self._stats
        if feed.has_stats and feed.stats_seq != seq:
            wait_s = feed.stats_at + STATS_S - now
            if wait_s > 0.0:
                return min(due_s, wait_s)
            feed.stats_seq, feed.stats_at = seq, now
            await self._send(client, stats_frame(feed, seq, taken_at, stats))
        return due_s

    async def _send_heartbeat(self, client: Client) -> None:
        now = timestamp(int(self._desk.now() * 1000))
        told = [feed for feed in client.feeds.values() if feed.events.wanted.events]
        for feed in told:
            with self._lock:
                resume = self._hub.token(feed.events)
            await self._send(client, heartbeat(now, feed.id, resume))
        if not told:
            await self._send(client, heartbeat(now))

    # --- state -----------------------------------------------------------------------------

    async def _sample(self) -> None:
        """Look at the view now and then, while anybody wants to know of it."""
        try:
            while watching := [c for c in self._clients if _watches(c)]:
                began_at = self._clock()
                found = await asyncio.to_thread(sample, self._desk)
                if self._take(found) or not self._is_sampled:
                    self._is_sampled = True
                    for client in watching:
                        client.wake.set()
                cost_s = self._clock() - began_at
                await asyncio.sleep(max(SAMPLE_S, SAMPLE_SHARE * cost_s))
        finally:
            self._sampling, self._is_sampled = None, False

    def _take(self, found: Sample) -> bool:
        with self._lock:
            is_other = self._board.update(found.model, found.time, found.rows)
        if found.stats != self._stats[2]:
            self._stats = (self._stats[0] + 1, found.time, found.stats)
            is_other = True
        return is_other


def _watches(client: Client) -> bool:
    return any(feed.has_clusters or feed.has_stats for feed in client.feeds.values())


async def _sleep(wake: asyncio.Event, limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s if limit_s < math.inf else None):
            await wake.wait()
    except TimeoutError:
        pass
