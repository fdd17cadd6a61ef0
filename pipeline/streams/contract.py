"""What Eddy asks of a broker; :mod:`pipeline.streams.kafka` and `memory` are twins.

Input and output of a service are one object, `Stream`, because one transaction binds
them: what a batch writes and the offsets behind it become visible together or not
at all. Everything that is read without a group goes through a `Reader`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pipeline.messages.records import Outgoing, Record


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """How a topic is, or shall be, set up."""

    name: str
    n_partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    """The broker's own words: ``cleanup.policy``, ``retention.ms``, ..."""
    operations: frozenset[str] | None = field(default=None, compare=False)
    """What this user may do, in the words of `pipeline.streams.acls.Operation`; None: not told."""


@dataclass(frozen=True, slots=True)
class GroupMember:
    """Who a `Stream` is to the broker."""

    topic: str
    group_id: str
    transactional_id: str
    instance_id: str | None = None
    """Static membership: the same instance within the session timeout keeps its partitions."""


class Range(NamedTuple):
    """What the log of a partition holds: ``low <= offset < high``, control records included."""

    low: int
    high: int


class Place(NamedTuple):
    """Where a record of a topic stands."""

    partition: int
    offset: int


@dataclass(slots=True)
class Poll:
    """What one call of `Stream.poll` brought. Changes of ownership come before the records.

    A partition in ``assigned`` is owned from now on, but hands out nothing before
    `Stream.start`. One in ``revoked`` or ``lost`` is no longer ours: nothing of it may be
    committed any more, and no record of it is in ``records``.
    """

    records: Sequence[Record] = ()
    assigned: Mapping[int, int | None] = field(default_factory=dict)
    """Partition -> committed offset, None where there is none. It was fetched after every
    transaction that holds offsets of the partition had ended: barrier 1 of a restore."""
    revoked: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()


class Stream(Protocol):
    """A member of a consumer group whose output and offsets are one transaction.

    One thread calls it. Making one ends what a predecessor with the same transactional id
    had open, and fences it.
    """

    def poll(self, max_records: int, *, timeout_s: float, max_bytes: int | None = None) -> Poll:
        """Records of the started partitions, each partition's in offset order; possibly none.

        Polls are joined up to ``max_records`` only while there is a backlog: a record never
        waits for another longer than ``timeout_s``. Nothing more is joined once the values have
        ``max_bytes`` bytes together; a client goes over by what it fetches at once, at most.

        Raises
        ------
        TransientError
            Nothing is lost: what comes next begins where the last commit or `start` ended.
        FencedError, FatalError
        """
        ...

    def start(self, partition: int, offset: int) -> None:
        """Hand out the records of an owned partition from ``offset`` on."""
        ...

    def stop(self, partition: int) -> None:
        """Hand out nothing of an owned partition until `start` is called again."""
        ...

    def commit(self, outgoing: Iterable[Outgoing], next_offsets: Mapping[int, int]) -> None:
        """Write in one transaction; return once it is committed.

        ``next_offsets`` holds, for every partition that is written for, the first offset
        not covered, also where it has not moved: without it nothing would stop a process that
        slept through a rebalance.

        Raises
        ------
        AbortedError
            Nothing became visible. The records come again after a `rewind`. So it is also where
            the broker has forgotten the transaction, as long as nobody else has our place.
        FencedError, FatalError
            Whether the transaction was committed is for the successor to find out.
        """
        ...

    def rewind(self) -> None:
        """Go back to what was last committed or started from, in every started partition."""
        ...

    def lag(self) -> Mapping[int, int]:
        """Records behind the newest known end, per started partition.

        0 at the end of the partition (control records are not lag); a watermark is not asked
        for but remembered from the last fetch.
        """
        ...

    def close(self) -> None:
        """Leave the group and free everything; an open transaction is aborted. Idempotent."""
        ...


class Reader(Protocol):
    """Reads partitions of one topic at read_committed, alone: no group, nothing committed."""

    def read(self, max_records: int, *, timeout_s: float) -> Sequence[Record]:
        """The next records, each partition's in offset order; possibly none yet.

        Raises
        ------
        TransientError
            The broker is away; the next call goes on where this one stopped.
        """
        ...

    @property
    def at_end(self) -> bool:
        """Whether every partition was read to the end that it had when the reader was made.

        The end is the high watermark, open transactions included; so this is the second
        barrier of a restore: it waits for what was undecided then. It never turns False again;
        the reader goes on following what is written later.
        """
        ...

    @property
    def positions(self) -> Mapping[int, int]:
        """Partition -> the first offset not yet handed out or passed over."""
        ...

    def close(self) -> None: ...


class Producer(Protocol):
    """Writes without a transaction, for tools that feed a topic."""

    def write(self, record: Outgoing) -> None:
        """Queue one record; blocks while the queue is full. ``partition`` -1: by key."""
        ...

    def flush(self) -> None:
        """Return once everything queued is acknowledged; FatalError names what was not."""
        ...

    def deliver(self, record: Outgoing, *, timeout_s: float) -> Place:
        """Write one record, and return where it stands once it is acknowledged; threads may.

        It is not ordered with what `write` queued.

        Raises
        ------
        TransientError
            Not acknowledged in time; it may still be written.
        FatalError
        """
        ...


class Broker(Protocol):
    """A cluster of brokers, seen by one process."""

    def wait(self, timeout_s: float) -> None:
        """Return once the broker answers; UnreachableError after ``timeout_s``."""
        ...

    def topics(self, names: Iterable[str]) -> Mapping[str, TopicSettings]:
        """Those of the topics that exist, with their settings."""
        ...

    def topic_ids(self, names: Iterable[str]) -> Mapping[str, str]:
        """Ids of those of the topics that exist; one that is made anew gets another."""
        ...

    def create_topics(
        self, topics: Iterable[TopicSettings], *, replication_factor: int = 1
    ) -> None:
        """Make topics; one that exists already is left as it is."""
        ...

    def ranges(self, topic: str) -> Mapping[int, Range]:
        """The present range of every partition, open transactions included."""
        ...

    def committed(self, group_id: str, topic: str) -> Mapping[int, int | None]:
        """Per partition the committed offset of a group, once no transaction is pending on it."""
        ...

    def stream(self, member: GroupMember) -> Stream:
        """Join a group; see `Stream`."""
        ...

    def reader(self, topic: str, starts: Mapping[int, int] | None = None) -> Reader:
        """Read the partitions in ``starts`` from there on; None: all of them from the beginning.

        A start below the log's beginning begins at its beginning.
        """
        ...

    def producer(self) -> Producer: ...
