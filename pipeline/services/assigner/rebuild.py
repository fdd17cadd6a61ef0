"""The assigner once more over what the input holds, into a prefix of its own.

The input is looked through once before: what there is, where a time lies in it, and which
offsets hold nothing any more. Then the assigner does what it always does, up to the ends that were
found, and stops when every partition is applied, swept and published.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.engine.changes import Changes
from pipeline.errors import FatalError
from pipeline.messages.records import Record
from pipeline.services.assigner.process import Assigner
from pipeline.services.assigner.reports import AssignerReports
from pipeline.streams.bounded import BoundedStream
from pipeline.streams.contract import Range, Stream


@dataclass(slots=True)
class Part:
    """What of one partition is to be read again."""

    start: int
    """The first offset."""
    end: int
    """The first offset that is not read."""
    low: int
    """Where the log begins."""
    target: int
    """The offset after the last record of the part; ``start`` where there is none."""
    n_records: int = 0
    is_cut: bool = False
    """Whether a time ended it, and not the end of the log."""

    @property
    def n_missing(self) -> int:
        """Offsets that hold no record: compaction took it, or they were a transaction's marks."""
        return self.end - self.start - self.n_records


def survey(
    batches: Iterator[Sequence[Record]],
    ranges: Mapping[int, Range],
    starts: Mapping[int, int],
    *,
    until_ms: int | None,
) -> Iterator[dict[int, Part]]:
    """Find the parts; yields them, unfinished, after every batch, so that a caller can tell.

    Parameters
    ----------
    batches
        The input from ``starts`` on, up to the ``ranges`` or beyond.
    starts
        Of every partition.
    until_ms
        A partition ends before its first record that is so late, milliseconds since 1970;
        None: at its end. A record without a time is never late.
    """
    parts = {
        p: Part(start, max(start, ranges[p].high), ranges[p].low, start)
        for p, start in starts.items()
    }
    yield parts
    for records in batches:
        for record in records:
            part = parts[record.partition]
            if record.offset >= part.end:
                continue
            at_ms = record.timestamp_ms
            if until_ms is not None and at_ms is not None and at_ms >= until_ms:
                part.end, part.is_cut = record.offset, True
                continue
            part.target = record.offset + 1
            part.n_records += 1
        yield parts
        if all(part.is_cut for part in parts.values()):
            return


class RebuildReports(AssignerReports):
    """What an assigner tells, and sums of it."""

    n_events = 0
    n_records = 0

    def batch_committed(self, records: Sequence[Record], changes: Changes) -> None:
        super().batch_committed(records, changes)
        self.n_records += len(records)
        self.n_events += changes.tally.n_events
        self.dead.update({str(reason): n for reason, n in changes.tally.dead.items()})

    def swept(self, changes: Changes, *, is_last: bool) -> None:
        super().swept(changes, is_last=is_last)
        self.n_events += changes.tally.n_events

    @property
    def dead(self) -> Counter[str]:
        """Records that could not be used, by reason."""
        found: Counter[str] = self.__dict__.setdefault("_dead", Counter())
        return found


@dataclass(slots=True)
class Rebuild:
    """An assigner that is done some time; a service for `pipeline.services.lifecycle.serve`."""

    assigner: Assigner
    parts: Mapping[int, Part]
    stop: threading.Event
    """Set when it is done; somebody else may set it before."""
    is_done: bool = False
    n_items: int = 0
    _stream: BoundedStream = field(init=False)

    def __post_init__(self) -> None:
        inner: Stream = self.assigner.stream
        starts = {p: part.start for p, part in self.parts.items()}
        ends = {p: part.end for p, part in self.parts.items()}
        self._stream = BoundedStream(inner, starts, ends)
        self.assigner.stream = self._stream

    def step(self) -> None:
        """One turn of the assigner.

        Raises
        ------
        FatalError
            Also when it has no partition left to somebody else who joined its group.
        """
        self.assigner.step()
        if self._stream.revoked:
            raise FatalError(
                f"partitions {sorted(self._stream.revoked)} went to another member of the group: "
                "somebody runs an assigner under the same prefix; end it, delete the prefix's "
                "topics and the group, and begin anew"
            )
        partitions = self.assigner.engine.partitions
        if self._stream.started == self.parts.keys() and all(map(self._is_whole, partitions)):
            self.n_items = sum(state.n_items for state in partitions.values())
            self.is_done = True
            self.stop.set()

    def close(self) -> None:
        self.assigner.close()

    def _is_whole(self, partition: int) -> bool:
        """Applied up to the end, swept, and all of it published."""
        state, part = self.assigner.engine.partitions[partition], self.parts[partition]
        if state.next_offset < part.target and partition not in self._stream.passed:
            return False
        return not (state.to_sweep or state.head_is_due or state.dirty.any())


def check_starts(starts: Mapping[int, int], ranges: Mapping[int, Range], topic: str) -> None:
    """Whether the log holds what was asked for; `FatalError` with what it holds, else."""
    for partition, offset in starts.items():
        if partition not in ranges:
            raise FatalError(f"{topic} has no partition {partition}, but {len(ranges)} of them")
        held = ranges[partition]
        if not held.low <= offset <= held.high:
            raise FatalError(
                f"{topic}/{partition} holds the offsets {held.low} to {held.high}, not {offset}"
            )
