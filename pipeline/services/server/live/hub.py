"""Who gets which event: queues with bounds, filters, and the way on from a resume token.

Pure: no clock, no socket, no lock. What is told is the same whichever way it goes out.

A subscriber that is up to date gets events into a queue of its own. Where the queue is full, and
where somebody comes back, he reads from the ring until he is up to date: after a new model more
changes come at once than any queue takes, and nobody is slow for that. Only what goes from the ring
before he has read it is dropped: changes, and counted. The other events wait for him beside it,
and of these the oldest go where they alone fill the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from pipeline.services.server.live.ring import (
    CHANGES,
    RING_EVENTS,
    Lane,
    Ring,
    Told,
)
from pipeline.services.server.live.tokens import Token, write_token
from pipeline.services.server.live.wanted import Wanted

MAX_QUEUED: Final = 1000
MAX_QUEUED_BYTES: Final = 256 * 1024
MAX_FRAME_BYTES: Final = 64 * 1024
MAX_FRAME_EVENTS: Final = 500
MAX_LOOKED_AT: Final = 4096
"""Events of the ring that one call looks at: some milliseconds."""
GIVEN_UP_AT_ONCE: Final = 256
"""Events of the ring that are given up together, just before they go."""


class Batch(NamedTuple):
    """What a subscriber gets next."""

    events: Sequence[Told]
    dropped: int
    """Events that were wanted, and went before they could be sent, since the batch before."""
    resume: str
    gap: int | None
    """Before these events so many offsets are missing, -1: nobody knows how many; None: none."""
    has_more: bool


class Subscriber:
    """One subscription; made by `Hub.subscribe`.

    Attributes
    ----------
    owner
        Whatever the transport wants to know it by.
    """

    __slots__ = (
        "_changes", "_cursor", "_dropped", "_gap", "_n_bytes", "_others", "_seen", "n_dropped",
        "owner", "wanted",
    )  # fmt: skip

    def __init__(self, wanted: Wanted, owner: object) -> None:
        self.wanted, self.owner = wanted, owner
        self.n_dropped = 0
        """In all."""
        self._changes: deque[Told] = deque()
        self._others: deque[Told] = deque()
        self._n_bytes = self._dropped = 0
        self._cursor: int | None = None
        """The next number to be read from the ring; None: up to date."""
        self._gap: int | None = None
        self._seen: dict[Lane, int] = {}
        """What another replica has told already, where it was ahead of this one."""

    def __len__(self) -> int:
        """Events in the queue."""
        return len(self._changes) + len(self._others)

    @property
    def n_bytes(self) -> int:
        """Of the events in the queue."""
        return self._n_bytes

    @property
    def is_behind(self) -> bool:
        """Whether it still reads from the ring."""
        return self._cursor is not None

    @property
    def is_level(self) -> bool:
        """Whether all that it is owed is in its queue."""
        return self._cursor is None and self._gap is None

    @property
    def has_events(self) -> bool:
        """Whether there is something to take."""
        return bool(self._changes or self._others or self._dropped) or (
            self._cursor is not None or self._gap is not None
        )

    def _push(self, events: Sequence[Told], n_bytes: int) -> bool:
        """Queue events; whether it is for the first time since the last batch."""
        if self._cursor is not None:
            return False  # it comes to them
        if self._seen:
            events = [told for told in events if not self._has_seen(told)]
            n_bytes = sum(len(told.body) for told in events)
        if not events:
            return False
        was_empty = not (self._changes or self._others)
        if events[0].channel == events[-1].channel == CHANGES:  # a batch is of one topic
            self._changes.extend(events)
        else:
            self._others.extend(events)
        self._n_bytes += n_bytes
        return was_empty

    @property
    def _is_full(self) -> bool:
        n = len(self._changes) + len(self._others)
        return n > 1 and (n > MAX_QUEUED or self._n_bytes > MAX_QUEUED_BYTES)

    def _leave_to(self, ring: Ring) -> None:
        """Go on reading from the ring; what is not in it any more is given up."""
        first = min(queue[0].number for queue in (self._changes, self._others) if queue)
        gone = [told for told in self._queued() if told.number < ring.oldest]
        self._changes.clear()
        self._others.clear()
        self._n_bytes = 0
        self._cursor = max(first, ring.oldest)
        self._give_up(gone)

    def _give_up(self, events: Iterable[Told]) -> None:
        """Events go from the ring: changes are dropped, the others wait here."""
        n_dropped = 0
        for told in events:
            if told.channel == CHANGES:
                n_dropped += 1
            else:
                self._others.append(told)
                self._n_bytes += len(told.body)
        while self._is_full:
            self._n_bytes -= len(self._others.popleft().body)
            n_dropped += 1
        self._dropped += n_dropped
        self.n_dropped += n_dropped

    def _lose(self, ring: Ring, stop: int) -> None:
        """All below ``stop`` is about to go from the ring."""
        assert self._cursor is not None
        goes = map(ring.get, range(self._cursor, stop))
        self._cursor = stop
        self._give_up(t for t in goes if self.wanted.takes(t) and not self._has_seen(t))

    def _has_seen(self, told: Told) -> bool:
        return told.offset < self._seen.get((told.channel, told.partition), 0)

    def _pop(self) -> Sequence[Told]:
        """Events in their order, as many as one frame takes."""
        if len(self) <= MAX_FRAME_EVENTS and self._n_bytes <= MAX_FRAME_BYTES:
            found = sorted([*self._changes, *self._others])  # by number: no two have the same
            self._changes.clear()
            self._others.clear()
            self._n_bytes = 0
            return found
        return list(self._some())

    def _some(self) -> Iterator[Told]:
        n_bytes = n = 0
        while self._changes or self._others:
            queue = self._changes or self._others
            if self._changes and self._others and self._others[0].number < queue[0].number:
                queue = self._others
            n, n_bytes = n + 1, n_bytes + len(queue[0].body)
            if n > 1 and (n > MAX_FRAME_EVENTS or n_bytes > MAX_FRAME_BYTES):
                return
            told = queue.popleft()
            self._n_bytes -= len(told.body)
            yield told

    def _queued(self) -> Iterable[Told]:
        yield from self._changes
        yield from self._others


class _Group:
    """All who want the same: what they get is chosen once."""

    __slots__ = ("members", "wanted")

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.members: set[Subscriber] = set()


class Hub:
    """The ring, and everybody who listens.

    Parameters
    ----------
    topics
        See `pipeline.services.server.live.tokens.topics_digest`.
    """

    def __init__(self, topics: bytes, *, capacity: int = RING_EVENTS) -> None:
        self.topics, self.epoch = topics, 0
        self.ring = Ring(capacity)
        self._groups: dict[Wanted, _Group] = {}
        self._open: dict[str, set[_Group]] = {}
        """Channel -> those that no index below finds for its events."""
        self._by_item: dict[str, set[_Group]] = {}
        self._by_cluster: dict[str, set[_Group]] = {}
        self._of_clusters: set[_Group] = set()
        """Those that filter clusters: they get what is about the whole model, too."""
        self._behind: set[Subscriber] = set()
        """Those that read from the ring."""
        self._least = 0
        """None of them has more to read than from here on."""
        self._token: tuple[int, int, str] = (-1, -1, "")

    def offer(self, events: Iterable[Told]) -> list[Subscriber]:
        """Take in events of one channel, in order; who has something now, and had nothing before.

        Those that came already are passed over. ``number`` of an event is set here.
        """
        batch: list[Told] = []
        for event in events:
            if self.ring.is_new(event.channel, event.partition, event.offset):
                told = event._replace(number=self.ring.next)
                if self._behind and self.ring.is_full and self.ring.oldest >= self._least:
                    self._make_room()
                self.ring.add(told)
                batch.append(told)
        if not batch:
            return []
        woken: list[Subscriber] = []
        for group, chosen in self._chosen(batch).items():
            n_bytes = sum([len(told.body) for told in chosen])
            woken += [one for one in group.members if self._push(one, chosen, n_bytes)]
        return woken

    def _push(self, one: Subscriber, events: Sequence[Told], n_bytes: int) -> bool:
        is_first = one._push(events, n_bytes)
        if one._is_full and one._cursor is None:
            one._leave_to(self.ring)
            self._stay_behind(one)
        return is_first

    def _stay_behind(self, one: Subscriber) -> None:
        assert one._cursor is not None
        self._least = min(self._least, one._cursor) if self._behind else one._cursor
        self._behind.add(one)

    def _make_room(self) -> None:
        """The oldest of the ring are about to go: who has not read them gives them up."""
        ring = self.ring
        stop = min(ring.next, ring.oldest + GIVEN_UP_AT_ONCE)
        for one in self._behind:
            if one._cursor is not None and one._cursor <= ring.oldest:
                one._lose(ring, stop)
        self._least = min((one._cursor for one in self._behind if one._cursor is not None),
                          default=ring.next)  # fmt: skip

    def _chosen(self, batch: Sequence[Told]) -> Mapping[_Group, list[Told]]:
        """What of it each group gets: an event is held only against filters that name it."""
        found: dict[_Group, list[Told]] = {}
        for told in batch:
            groups = set(self._open.get(told.channel, ()))
            if told.item is not None:
                groups.update(self._by_item.get(told.item, ()))
            for cluster in told.clusters:
                groups.update(self._by_cluster.get(cluster, ()))
            if not told.clusters:
                groups.update(self._of_clusters)
            for group in groups:
                if group.wanted.takes(told):
                    found.setdefault(group, []).append(told)
        return found

    def subscribe(self, wanted: Wanted, token: Token | None, owner: object) -> Subscriber:
        """Begin with the next event, or behind what a token says."""
        one = Subscriber(wanted, owner)
        if token is not None and wanted.events:
            if token.topics != self.topics:
                one._gap = -1
            else:
                number, gap = self.ring.find(token.positions, wanted.events)
                one._cursor, one._gap = number, gap or None
                heads = self.ring.positions(self.ring.next)
                is_ahead = any(at > heads.get(lane, 0) for lane, at in token.positions.items())
                # in the ring lanes interleave: of some there is more behind the number than is new
                one._seen = token.positions
                if number == self.ring.next and not is_ahead:
                    one._cursor, one._seen = None, {}
                else:
                    self._stay_behind(one)
        self._enlist(one, is_in=True)
        return one

    def unsubscribe(self, one: Subscriber) -> None:
        """Nothing more for it."""
        self._behind.discard(one)
        self._enlist(one, is_in=False)

    def take(self, one: Subscriber) -> Batch | None:
        """What it gets next; None: nothing."""
        gap, one._gap = one._gap, None
        if one._cursor is not None and not len(one):
            self._read_on(one)
        events = one._pop()
        dropped, one._dropped = one._dropped, 0
        if not events and not dropped and gap is None:
            return None
        return Batch(events, dropped, self.token(one), gap, one.has_events)

    def token(self, one: Subscriber) -> str:
        """From where on it has not seen everything."""
        ring = self.ring
        first = ring.next if one._cursor is None else one._cursor
        if len(one):
            first = min(queue[0].number for queue in (one._changes, one._others) if queue)
        if first == ring.next and not one._seen:
            if self._token[:2] != (first, self.epoch):
                text = write_token(self.topics, self.epoch, ring.positions(first))
                self._token = (first, self.epoch, text)
            return self._token[2]
        positions = ring.positions(first)
        for lane, offset in one._seen.items():
            positions[lane] = max(offset, positions.get(lane, 0))
        if first < ring.oldest:  # what waits is not in the ring any more
            for told in one._queued():
                lane = (told.channel, told.partition)
                positions[lane] = min(told.offset, positions[lane])
        return write_token(self.topics, self.epoch, positions)

    def _read_on(self, one: Subscriber) -> None:
        """Queue what follows in the ring; up to date at its end."""
        ring, number = self.ring, one._cursor
        assert number is not None
        stop = min(ring.next, number + MAX_LOOKED_AT)
        n_bytes = n = 0
        while number < stop and n < MAX_FRAME_EVENTS and n_bytes < MAX_FRAME_BYTES:
            told = ring.get(number)
            number += 1
            if one.wanted.takes(told) and not one._has_seen(told):
                (one._changes if told.channel == CHANGES else one._others).append(told)
                n, n_bytes = n + 1, n_bytes + len(told.body)
        one._n_bytes += n_bytes
        one._cursor = number
        if number == ring.next:
            heads = ring.positions(number)
            one._cursor = None
            one._seen = {lane: at for lane, at in one._seen.items() if at > heads.get(lane, 0)}
            self._behind.discard(one)

    def _enlist(self, one: Subscriber, *, is_in: bool) -> None:
        key = one.wanted.of_events
        if not key.channels:
            return
        group = self._groups.get(key)
        if is_in:
            if group is None:
                group = self._groups[key] = _Group(key)
                self._register(group, is_in=True)
            group.members.add(one)
        elif group is not None:
            group.members.discard(one)
            if not group.members:
                del self._groups[key]
                self._register(group, is_in=False)

    def _register(self, group: _Group, *, is_in: bool) -> None:
        wanted = group.wanted
        open_channels = set(wanted.channels)
        if wanted.clusters:
            open_channels.clear()
            (self._of_clusters.add if is_in else self._of_clusters.discard)(group)
        elif wanted.items:
            open_channels.discard(CHANGES)
        for channel in open_channels:
            _list(self._open, channel, group, is_in)
        for item in wanted.items:
            _list(self._by_item, item, group, is_in)
        for cluster in wanted.clusters:
            _list(self._by_cluster, cluster, group, is_in)


def _list(register: dict[str, set[_Group]], key: str, group: _Group, is_in: bool) -> None:
    """Add a group under a key, or take it away; no empty set stays."""
    if is_in:
        register.setdefault(key, set()).add(group)
        return
    found = register.get(key)
    if found is not None:
        found.discard(group)
        if not found:
            del register[key]
