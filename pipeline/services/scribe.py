"""What all snapshots share: the thread that writes them, leftovers, and how old one may be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final
from uuid import uuid4

from pipeline.state.snapshot import Identity, Marks, SnapshotError, SnapshotRows, SnapshotWriter
from pipeline.streams.contract import Broker

LEFTOVER_S: Final = 3600.0
"""An unfinished file that nobody has touched for so long was left by a process that was killed."""


class OneThread(Executor):
    """Runs calls one after the other in a thread that keeps no process from ending.

    The executors of the library are joined before a process ends, however long a disk hangs. What
    a call raises besides `OSError` and `SnapshotError` is a defect, and ends the thread.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def call() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except (OSError, SnapshotError) as error:
                future.set_exception(error)

        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
            self._thread.start()
        self._calls.put(call)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the thread end once it has done what it was given."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def remove_leftovers(path: Path) -> None:
    """Unfinished files of this snapshot that nobody goes on with."""
    for leftover in path.parent.glob(f"{path.name}.*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_S:
                leftover.unlink()


def oldest_s(broker: Broker, names: Sequence[str]) -> float:
    """How old a snapshot may be: half of the shortest time that tombstones stay in these topics.

    Raises
    ------
    SnapshotError
        Nobody may see that time.
    TransientError
        The broker is away.
    """
    limits = []
    for name, topic in broker.topics(names).items():
        if "compact" not in topic.config.get("cleanup.policy", "compact"):
            continue
        told = topic.config.get("delete.retention.ms")
        if told is None:
            raise SnapshotError(f"nobody may see how long {name} keeps its tombstones")
        limits.append(int(told) / 2000.0)
    return min(limits, default=0.0)


def check_age(age_s: float, limit_s: Callable[[], float]) -> None:
    """Refuse a snapshot that a tombstone may be missing after; `limit_s` is asked of the broker.

    Raises
    ------
    SnapshotError
    """
    if age_s < 0:
        raise SnapshotError(f"it was made {-age_s:.0f} s from now: a clock was set back")
    oldest = limit_s()
    if age_s > oldest:
        raise SnapshotError(
            f"it is {age_s:.0f} s old, and a tombstone may be gone after {oldest:.0f} s: "
            "half of the shortest delete.retention.ms of the topics"
        )


@dataclass(slots=True, eq=False)
class Scribe:
    """What the thread does, in this order; every method runs there, and tells the bytes made."""

    path: Path
    identity: Identity
    marks: Marks
    created_at_ms: int
    published: frozenset[str]
    _writer: SnapshotWriter | None = None

    def begin(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path)
        self._writer = SnapshotWriter(
            self.path,
            self.identity,
            self.marks,
            created_at_ms=self.created_at_ms,
            published=self.published,
            suffix=uuid4().hex,
        )
        return 0

    def add(self, rows: SnapshotRows) -> int:
        if self._writer is not None:
            self._writer.add(rows)
        return 0

    def finish(self, next_offset: int) -> int:
        """The bytes of the file; 0 if it was abandoned, or never begun."""
        writer, self._writer = self._writer, None
        if writer is None:
            return 0
        try:
            return writer.finish(next_offset)
        except OSError:
            writer.abandon()
            raise

    def abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abandon()
