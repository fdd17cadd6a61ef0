"""The view as a file, so that a server that starts reads only what came since.

In it is what grows with items and their changes, and from where on the topics that tell it are to
be read:

    view, between two steps -> marks -> copy -> (a thread) file, vectors slice by slice, rename

The copy is consistent, since who takes it is the one who folds; who reads the view goes on
meanwhile. Vectors are too many to be copied at once. The thread writes them from where they lie, a
slice at a time with the lock held, so some are newer than the marks: those of records behind the
marks, which are read again. Models, heads, lifecycle, alarms and commands are not in it: they grow
with clusters, and are read from the beginning of their topics at every start, as streams want them.

A snapshot is only ever an accelerator: what is wrong with it, or with the disk, is told, and the
topics have everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.messages.codec import json_bytes, json_value
from pipeline.services.scribe import OneThread, check_age, oldest_s, remove_leftovers
from pipeline.services.server.desk import Desk
from pipeline.services.server.following import HISTORY_EVENTS, Follower, Marks
from pipeline.services.server.map_frames import MapFrames
from pipeline.services.server.reports import ServerReports
from pipeline.services.server.vectors import VectorMarks
from pipeline.state.snapshot_bytes import SnapshotError
from pipeline.state.view.fold import View
from pipeline.state.view.snapshot_file import ViewFile, ViewWriter, open_view
from pipeline.streams.contract import Broker

SLICE_BYTES: Final = 4 * 2**20
"""Of vectors that are copied with the lock held: a millisecond."""
REFRESH_S: Final = 6 * 3600.0
"""A snapshot that still says everything is written again all the same: it must not grow old."""
CLOSE_LIMIT_S: Final = 10.0
"""For the last one of a process that ends; it is given 30 s for everything."""
_VECTORS: Final = "vectors"


class Found(NamedTuple):
    """What a snapshot had."""

    view: View
    frames: MapFrames
    marks: Marks


class ViewSnapshots:
    """The snapshots of one process; the thread that turns the server calls everything.

    Parameters
    ----------
    now
        Seconds since 1970.
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        config: Config,
        broker: Broker,
        *,
        input_is_compacted: bool,
        reports: ServerReports,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
    ) -> None:
        policy = config.server
        self._config, self._broker, self._reports = config, broker, reports
        self._is_compacted, self._now, self._clock = input_is_compacted, now, clock
        self._executor = OneThread() if executor is None else executor
        self._interval_s = policy.snapshot_interval_s
        self._path: Path | None = None
        if policy.snapshot_directory is not None:
            self._path = Path(policy.snapshot_directory) / f"{config.topics.prefix}view.snapshot"
        self._due_at = clock() + self._interval_s
        self._running: tuple[Future[int], int, float] | None = None
        self._last: tuple[Marks, float] | None = None
        self._is_closing = False
        self._identity: Mapping[str, Any] = {}

    # --- reading ------------------------------------------------------------------

    def load(self) -> Found | None:
        """The view to go on from, if there is one to be used; one that is not is removed.

        Raises
        ------
        TransientError
            The broker is away.
        """
        if self._path is None:
            return None
        self._identity = self._present()
        if not self._path.exists():
            return None
        try:
            file = open_view(self._path)
            marks = self._checked(file)
            found = self._read(file, marks)
        except SnapshotError as error:
            self._reports.snapshot_rejected(str(error))
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            return None
        age_s = self._now() - file.header["created_at_ms"] / 1000.0
        self._reports.view_resumed(len(found.view.items), file.n_bytes, age_s)
        return found

    def _checked(self, file: ViewFile) -> Marks:
        told, wanted = file.header.get("identity"), json_value(json_bytes(self._identity))
        if not isinstance(told, dict) or told.keys() != wanted.keys():
            raise SnapshotError("its header does not say what it is of")
        for name, value in wanted.items():
            if told[name] != value:
                raise SnapshotError(f"it is of {name} {told[name]!r}, and not of {value!r}")
        try:
            marks = _marks_of(file.header["marks"])
            check_age(self._now() - file.header["created_at_ms"] / 1000.0, self._oldest_s)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SnapshotError(f"its header does not say what it should: {error}") from error
        topics, vectors = self._config.topics, marks.vectors
        self._check_marks(topics.assignments, marks.assignments)
        n_behind = self._check_marks(topics.changes, marks.changes)
        if n_behind > HISTORY_EVENTS:
            raise SnapshotError(
                f"{n_behind} changes came since, more than the {HISTORY_EVENTS} that a start reads"
            )
        if vectors is not None:
            self._check_marks(topics.vectors, vectors.copies)
            if vectors.input is not None:
                self._check_marks(topics.input, vectors.input)
        return marks

    def _check_marks(self, topic: str, marks: Mapping[int, int]) -> int:
        """Whether a topic can be read on from here; how many offsets are behind."""
        ranges = self._broker.ranges(topic)
        if ranges.keys() != marks.keys():
            raise SnapshotError(f"it is of partitions {sorted(marks)} of {topic}")
        for partition, (low, high) in ranges.items():
            if not low <= marks[partition] <= high:
                raise SnapshotError(
                    f"it goes on at offset {marks[partition]} of partition {partition} of {topic}, "
                    f"which has {low} to {high}"
                )
        return sum(log.high - marks[p] for p, log in ranges.items())

    def _oldest_s(self) -> float:
        topics = self._config.topics
        return oldest_s(self._broker, (topics.assignments, topics.vectors, topics.input))

    def _read(self, file: ViewFile, marks: Marks) -> Found:
        n_dims = marks.embedding[1] if marks.vectors is not None else 0
        view, frames = View(self._config.topics.partitions, n_dims), MapFrames()
        parts: dict[str, Any] = {}
        at = -1  # before the first vector
        try:
            for name, part in file.parts():
                if name != _VECTORS:
                    parts[name] = part
                    continue
                if at < 0:
                    at = _resume(view, frames, parts)
                view.items.vectors[at : at + len(part)] = part
                at += len(part)
            if at < 0:
                at = _resume(view, frames, parts)
            if marks.vectors is not None and at != len(view.items):
                raise SnapshotError(f"it has {at} vectors of {len(view.items)} items")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise SnapshotError(f"it does not hold what it should: {error!r}") from error
        return Found(view, frames, marks)

    # --- writing ------------------------------------------------------------------

    def step(self, desk: Desk, follower: Follower) -> None:
        """Begin a snapshot if one is due; never waits for it. Between two steps of the follower."""
        if self._path is None:
            return
        self._look()
        if self._running is None and self._clock() >= self._due_at:
            self._begin(desk, follower)

    def close(self, desk: Desk, follower: Follower, *, is_whole: bool) -> None:
        """Make a last one, as far as there is time.

        Parameters
        ----------
        is_whole
            The follower's last step came to its end.
        """
        if self._path is not None:
            ends_at = self._clock() + CLOSE_LIMIT_S
            self._wait(ends_at)
            if self._running is None and is_whole:
                self._begin(desk, follower)
                self._wait(ends_at)
            self._is_closing = True
        self._executor.shutdown(wait=False)

    def _wait(self, ends_at: float) -> None:
        if self._running is not None:
            wait([self._running[0]], timeout=max(0.0, ends_at - self._clock()))
            self._look()

    def _look(self) -> None:
        """Tell of the one that was being written, if that is over."""
        if self._running is None or not self._running[0].done():
            return
        (future, n_items, began_at), self._running = self._running, None
        try:
            n_bytes = future.result()
        except (OSError, SnapshotError) as error:
            self._last = None
            self._reports.snapshot_failed(str(error))
            return
        if n_bytes:
            self._reports.snapshot_written(n_items, n_bytes, self._clock() - began_at)
        else:
            self._last = None

    def _begin(self, desk: Desk, follower: Follower) -> None:
        began_at = self._clock()
        self._due_at = began_at + self._interval_s
        marks = follower.marks()
        if marks is None:
            return
        last, written_at = (None, 0.0) if self._last is None else self._last
        if last == marks and began_at - written_at < REFRESH_S:
            return
        header = {
            "identity": self._identity,  # of the start: a topic made anew since is another
            "marks": _told(marks),
            "created_at_ms": int(self._now() * 1000),
        }
        rows, parts = desk.view.parts()
        parts |= {f"frames.{name}": part for name, part in desk.frames.parts().items()}
        write = _Writing(self._path, header, rows, parts, marks.vectors is not None, desk)
        self._last = marks, began_at
        future = self._executor.submit(write, lambda: self._is_closing)
        self._running = future, len(rows), began_at
        self._look()

    def _present(self) -> dict[str, Any]:
        """What a snapshot is of. One that differs in anything is of something else."""
        config = self._config
        topics = config.topics
        names = (topics.input, topics.changes, topics.assignments, topics.vectors, topics.model)
        return {
            "topics": dict(self._broker.topic_ids(names)),
            "partitions": topics.partitions,
            "input_is_compacted": self._is_compacted,
            "embedding": asdict(config.embedding),
            "limits": asdict(config.limits),
            "vectors": config.server.vectors,
            "max_vector_bytes": config.server.max_vector_bytes,
        }


class _Writing:
    """What the thread does; the bytes of the file, or 0: other vectors are kept by now."""

    def __init__(
        self,
        path: Path | None,
        header: Mapping[str, Any],
        rows: NDArray[np.intp],
        parts: Mapping[str, Any],
        has_vectors: bool,
        desk: Desk,
    ) -> None:
        assert path is not None
        self._path, self._header, self._parts = path, header, parts
        self._rows, self._desk = rows, desk
        self._search = desk.search if has_vectors else None

    def __call__(self, is_given_up: Callable[[], bool]) -> int:
        path = self._path
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        writer = ViewWriter(path, self._header, suffix=uuid4().hex)
        try:
            for name, part in self._parts.items():
                writer.add(name, part)
            if self._search is not None:
                for start in range(0, len(self._rows), self._n_at_once):
                    vectors = self._vectors(start)
                    if vectors is None or is_given_up():
                        writer.abandon()
                        return 0
                    writer.add(_VECTORS, vectors)
            return writer.finish()
        except OSError:
            writer.abandon()
            raise
        finally:
            self._parts = {}  # who ran this may keep it until the next

    @property
    def _n_at_once(self) -> int:
        return max(1, SLICE_BYTES // (4 * max(1, self._desk.embedding.dimensions)))

    def _vectors(self, start: int) -> NDArray[np.float32] | None:
        """Some of them, as they are by now; None: those that there were are forgotten."""
        rows: Any = self._rows[start : start + self._n_at_once]
        if rows[-1] - rows[0] == len(rows) - 1:
            rows = slice(rows[0], rows[-1] + 1)  # copied three times as fast
        with self._desk.changed:
            if self._desk.search is not self._search:
                return None
            found: NDArray[np.float32] = self._desk.view.items.vectors[rows].copy()
            return found


def _resume(view: View, frames: MapFrames, parts: Mapping[str, Any]) -> int:
    n = len("frames.")
    view.resume({name: part for name, part in parts.items() if not name.startswith("frames.")})
    frames.resume({name[n:]: part for name, part in parts.items() if name.startswith("frames.")})
    return 0


def _told(marks: Marks) -> dict[str, Any]:
    """As JSON has it: pairs, since its keys are text."""
    vectors = marks.vectors
    places = {"changes": marks.changes, "assignments": marks.assignments}
    if vectors is not None:
        places["copies"] = vectors.copies
        if vectors.input is not None:
            places["input"] = vectors.input
    return {
        "places": {name: sorted(found.items()) for name, found in places.items()},
        "embedding": marks.embedding,
    }


def _marks_of(told: Mapping[str, Any]) -> Marks:
    places = {name: dict(found) for name, found in told["places"].items()}
    name, n_dims, since = told["embedding"]
    vectors = None
    if "copies" in places:
        vectors = VectorMarks(places.get("input"), places["copies"])
    return Marks(places["changes"], places["assignments"], vectors, (name, n_dims, since))
