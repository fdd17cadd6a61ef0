"""The commands topic, as the reclusterer reads it: in order, one at a time, each answered once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.messages.records import Outgoing, Record
from pipeline.streams.contract import Broker, Stream
from pipeline.streams.topics import TopicPolicy

COMMANDS_AT_ONCE = 100
COMMANDS = 0
"""The partition of the commands: there is one."""


@dataclass(slots=True)
class Inbox:
    """Commands that wait, and the offset that every transaction of the reclusterer carries."""

    broker: Broker
    stream: Stream
    topics: TopicPolicy
    is_owner: bool = False
    """Whether the partition is ours: without it nothing may be committed."""
    answered: set[str] = field(default_factory=set)
    """Ids that were answered: an offset may expire, an answer does not."""
    _next_offset: int = 0
    _waiting: deque[Record] = field(default_factory=deque)

    def poll(self, *, timeout_s: float) -> None:
        """Take in what was written, and what happened to the partition."""
        polled = self.stream.poll(COMMANDS_AT_ONCE, timeout_s=timeout_s)
        for committed in polled.assigned.values():
            start = self.broker.ranges(self.topics.commands)[COMMANDS].low
            self._next_offset = start if committed is None else committed
            self.stream.start(COMMANDS, self._next_offset)
            self.is_owner = True
        if polled.revoked or polled.lost:
            self.is_owner = False
            self._waiting.clear()  # they come again, to whoever owns them next
        self._waiting.extend(polled.records)

    @property
    def first(self) -> Record | None:
        """The command whose turn it is."""
        return self._waiting[0] if self._waiting else None

    def commit(self, outgoing: Sequence[Outgoing]) -> None:
        """Write in one transaction, and answer nobody.

        Raises
        ------
        AbortedError
        """
        self.stream.commit(outgoing, {COMMANDS: self._next_offset})

    def answer(self, outgoing: Sequence[Outgoing], command_id: str | None = None) -> bool:
        """Write in one transaction with the offset of the first command, which then is done.

        False, and nothing is written, if the partition went away and came back: the command comes
        again. ``command_id`` None: the record needs no answer and is passed over.

        Raises
        ------
        AbortedError
        """
        if not self._waiting:
            return False
        next_offset = self._waiting[0].offset + 1
        self.stream.commit(outgoing, {COMMANDS: next_offset})
        self._waiting.popleft()
        self._next_offset = next_offset
        if command_id is not None:
            self.answered.add(command_id)
        return True
