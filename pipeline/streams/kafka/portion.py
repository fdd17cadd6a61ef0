"""How many messages to ask for, so that what one poll joins stays within its records and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from confluent_kafka import Message

_AT_ONCE: Final = 1000
_UNSEEN_BYTES: Final = 2**20  # taken for the size of a record while none was seen
_NO_LIMIT: Final = 2**62


@dataclass(slots=True)
class Portion:
    """What a poll may still take; the sizes of the last messages are remembered for the next one.

    The client takes a number of messages, not of bytes, so the number is of records as large as
    the last ones. Where they grow all at once, a poll takes more bytes than it should, once.
    """

    _mean_bytes: int = _UNSEEN_BYTES
    _left_bytes: int = 0
    _left_records: int = 0

    def begin(self, max_records: int, max_bytes: int | None) -> None:
        self._left_records = max_records
        self._left_bytes = _NO_LIMIT if max_bytes is None else max_bytes

    @property
    def n_asked(self) -> int:
        """For the next call of the client; at least 1."""
        return max(1, min(_AT_ONCE, self._left_records, self._left_bytes // self._mean_bytes))

    def take(self, messages: list[Message]) -> bool:
        """Count them in; whether there was a backlog, and there is room for more of it."""
        if not messages:
            self._mean_bytes = _UNSEEN_BYTES  # what comes next may be of another size
            return False
        n_bytes, n_asked = sum(map(len, messages)), self.n_asked
        self._mean_bytes = 1 + n_bytes // len(messages)
        self._left_bytes -= n_bytes
        self._left_records -= len(messages)
        return len(messages) >= n_asked and self._left_records > 0 and self._left_bytes > 0
