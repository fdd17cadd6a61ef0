"""Vectors of another embedding model, read back beside the members of a partition."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.clustering.forgetting import NO_TIMESTAMP
from pipeline.messages.codec import (
    decode,
    decode_vector,
    record_metadata,
    record_timestamp,
)
from pipeline.messages.embedding import record_model, record_offset
from pipeline.messages.policy import EmbeddingPolicy, LimitPolicy
from pipeline.messages.records import Record
from pipeline.services.assigner.restore_assignments import GONE, Assigned
from pipeline.state.successors import Successors


@dataclass(slots=True, eq=False)
class Waiting:
    """Of each item of a partition the vector of this model that counts.

    That is the newest good one, unless it was stale; then the one that counts is in `item-vectors`.
    A record that was a dead letter because there was no room may be among them: it has another try.
    """

    embedding: EmbeddingPolicy
    """Of this model alone."""
    limits: LimitPolicy
    shown: Collection[str]
    """The keys of metadata that events show."""
    kept: Mapping[bytes, Record]
    """By item, out of `item-vectors`: of any model."""
    found: Successors = field(init=False)
    _shadowed: set[bytes] = field(default_factory=set)
    """Items whose copy was made for a record that still stands in the input."""

    def __post_init__(self) -> None:
        self.kept = {
            key: record
            for key, record in self.kept.items()
            if record_model(record) == self.embedding.model
        }
        self.found = Successors(self.embedding.dimensions, dtype=self.embedding.dtype)

    def take(self, records: Sequence[Record]) -> None:
        """The next records of the partition, in offset order, none beyond the committed offset."""
        batch = decode(records, self.embedding, self.limits)
        rows = batch.rows.tolist()
        newest: dict[bytes, int] = {}  # item -> its place; -1: it is gone
        for i, record in enumerate(records):
            if record.key is None:
                continue
            if record.value is None:
                newest[record.key] = -1
            elif rows[i] >= 0:
                newest[record.key] = i
            if record.key in self.kept and record.offset > record_offset(self.kept[record.key]):
                self._shadowed.add(record.key)
        self.found.remove(self.found.present([key for key, i in newest.items() if i < 0]))
        put = {key: i for key, i in newest.items() if i >= 0}
        if not put:
            return
        at = list(put.values())
        self.found.write(
            list(put),
            batch.vectors[[rows[i] for i in at]],
            [batch.sequences[i] for i in at],
            [records[i].offset for i in at],
            [False] * len(at),
            [_time(records[i].timestamp_ms) for i in at],
        )
        for key, i in put.items():
            self._note(key, batch.metadata.get(i))

    def counting(self, assigned: Assigned, since: int | None) -> Successors:
        """What is left once the assignments have spoken.

        Parameters
        ----------
        since
            The epoch with which this model took over: an item that it has assigned does not wait.
            None: it has yet to take over.
        """
        for key in self._shadowed:
            record = self.kept[key]
            vector, sequence = decode_vector(record.value or b"", self.embedding.dimensions)
            self.found.write(
                [key], vector[None, :], [sequence], [record_offset(record)], [True],
                [_time(record_timestamp(record))],
            )  # fmt: skip
            self._note(key, record_metadata(record))
        found = self.found
        rows = found.occupied()
        places = assigned.find_packed(found.packed_names(rows))
        # of an item that is gone the offset says so, and is before any other
        rows, places = rows[places >= 0], places[places >= 0]
        out_of_date = assigned.offsets[places] > found.offsets[rows]
        if since is not None:
            is_there = assigned.offsets[places] != GONE
            out_of_date |= is_there & (assigned.epochs[places] >= since)
        found.remove(found.names(rows[out_of_date]))
        rows_left = found.occupied()
        saved = found.names(rows_left[found.kept[rows_left]])
        found.strays = set(self.kept).difference(saved)
        return found

    def _note(self, key: bytes, metadata: Mapping[str, Any] | None) -> None:
        shown = {k: metadata[k] for k in self.shown if k in metadata} if metadata else {}
        if shown:
            self.found.metadata[key] = shown
        else:
            self.found.metadata.pop(key, None)


def _time(timestamp_ms: int | None) -> int:
    return NO_TIMESTAMP if timestamp_ms is None or timestamp_ms < 0 else timestamp_ms
