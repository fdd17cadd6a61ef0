"""State as frames: all of it once, and then what has changed since the frame before.

What a client has is two numbers, however long it does not read: the frame is made when it can take
it, out of what holds then. So it gets newer state, never older, and nothing waits for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from pipeline.messages.codec import json_bytes

_MAX_FRAMES = 256


class Sent(NamedTuple):
    """What a client has of the board; to begin with: nothing."""

    generation: int = -1
    seq: int = -1


class Frame(NamedTuple):
    """What is sent next, and what the client has then."""

    kind: str
    """key or delta."""
    fields: bytes
    """Of a JSON object, without the braces."""
    sent: Sent
    n_coalesced: int
    """States in between, which it never sees."""


class Board:
    """The newest state of all clusters, and when each changed."""

    def __init__(self) -> None:
        self.seq = self.generation = 0
        self._rows: dict[str, bytes] = {}
        self._changed: OrderedDict[str, int] = OrderedDict()
        """Cluster -> the seq of its last change, in that order."""
        self._model, self._time = b"null", b"null"
        self._model_seq = 0
        """Of the last change of the model."""
        self._frames: dict[tuple[int, frozenset[str]], tuple[bytes, bool]] = {}

    def update(
        self, model: tuple[int, int] | None, time: str | None, rows: Mapping[str, bytes]
    ) -> bool:
        """Take over what holds now; whether anything is another.

        Parameters
        ----------
        model
            Epoch and revision.
        rows
            Cluster -> JSON of what is told of it, in the order of the model.
        """
        told = None if model is None else {"epoch": model[0], "revision": model[1]}
        model_bytes = json_bytes(told)
        changed = [cluster for cluster, row in rows.items() if self._rows.get(cluster) != row]
        is_other = list(rows) != list(self._rows)
        if not changed and not is_other and model_bytes == self._model:
            return False
        self.seq += 1
        self.generation += is_other
        if model_bytes != self._model:
            self._model_seq = self.seq
        self._rows, self._model, self._time = dict(rows), model_bytes, json_bytes(time)
        if is_other:
            self._changed = OrderedDict((cluster, self.seq) for cluster in rows)
        for cluster in changed:
            self._changed[cluster] = self.seq
            self._changed.move_to_end(cluster)
        self._frames.clear()
        return True

    def key(self, clusters: frozenset[str], sent: Sent) -> Frame:
        """All of it, or of some clusters."""
        fields, _ = self._cached(-1, clusters)
        return Frame("key", fields, Sent(self.generation, self.seq), self._skipped(sent))

    def frame(self, sent: Sent, clusters: frozenset[str]) -> Frame | None:
        """What is to be sent to somebody who has ``sent``; None: nothing."""
        if sent.generation != self.generation:
            return self.key(clusters, sent)
        if sent.seq == self.seq:
            return None
        fields, says_something = self._cached(sent.seq, clusters)
        if not says_something:
            return None
        return Frame("delta", fields, Sent(self.generation, self.seq), self._skipped(sent))

    def _skipped(self, sent: Sent) -> int:
        return max(0, self.seq - sent.seq - 1) if sent.seq >= 0 else 0

    def _cached(self, base: int, clusters: frozenset[str]) -> tuple[bytes, bool]:
        """Clients that have the same want the same."""
        found = self._frames.get((base, clusters))
        if found is None:
            if len(self._frames) >= _MAX_FRAMES:
                self._frames.clear()
            found = self._frames[base, clusters] = self._made(base, clusters)
        return found

    def _made(self, base: int, clusters: frozenset[str]) -> tuple[bytes, bool]:
        rows: list[bytes] = []
        if base < 0:
            rows = [row for name, row in self._rows.items() if not clusters or name in clusters]
        else:
            for name in reversed(self._changed):
                if self._changed[name] <= base:
                    break
                if not clusters or name in clusters:
                    rows.append(self._rows[name])
        head = b'"seq":%d,' % self.seq
        if base >= 0:
            head += b'"base":%d,' % base
        told = b'%s"model":%s,"t":%s,"clusters":[%s]' % (
            head, self._model, self._time, b",".join(rows),
        )  # fmt: skip
        return told, bool(rows) or self._model_seq > base
