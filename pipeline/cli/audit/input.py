"""The rules of the input, a second time: which record of an item counts.

A compacted log holds, of every item, the end of its history. So the fold below knows what
it cannot know: whether something before the first record that is left still counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.cli.audit.forms import NO_FAULT, Read, decode, item_id, sequence_of
from pipeline.messages.policy import EmbeddingPolicy, LimitPolicy
from pipeline.messages.records import Record


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that has to be a dead letter, and every reason that would be right."""

    record: Record
    reasons: frozenset[str]


@dataclass(slots=True)
class History:
    """What the log still says about one item of one partition."""

    first: int
    """Offset of its first record in the log."""
    known: bool
    """Whether nothing of it can be missing before ``first``."""
    offset: int = -1
    """Of the record that counts; -1: none of those in the log."""
    sequence: int = 0
    vector: NDArray[np.float32] | None = None
    timestamp_ms: int | None = None
    """Of the record that counts."""
    removed_at: int = -1
    """The tombstone that ended it; -1: it lives, or was not seen alive before it."""
    least_sequence: int = 0
    """If something older still counts, its sequence is at least this."""
    n_later: int = 0
    """Stale records and dead letters after the one that counts."""

    @property
    def live(self) -> bool:
        """Whether a record in the log counts."""
        return self.offset >= 0


@dataclass(slots=True)
class PartitionInput:
    """The fold over one partition of the input."""

    whole: bool
    """Whether the log begins at 0 and loses nothing (no compaction)."""
    items: dict[str, History] = field(default_factory=dict)
    bad: dict[int, BadRecord] = field(default_factory=dict)
    offsets: set[int] = field(default_factory=set)
    """Of all records that are there, to see what a dead letter or an event speaks of."""
    n_records: int = 0
    n_stale: int = 0
    n_live: int = 0
    next_gapless: int = 0
    """Every offset below it was there."""
    letters_cut: bool = False
    """Whether retention has taken its oldest dead letters."""
    n_passed_over: int = 0
    """Records of an embedding model that does not stand, in its own time."""


def fold(
    state: PartitionInput,
    records: Sequence[Record],
    embedding: EmbeddingPolicy,
    limits: LimitPolicy,
    told: Mapping[int, str],
) -> None:
    """Take the next records of one partition in; ``state`` is changed in place.

    ``told`` are the reasons of the partition's dead letters by source offset: ``poison`` cannot
    be recomputed from outside, and ``limit`` only if the whole log is there.
    """
    read = decode(records, embedding, limits)
    of_next = _of_next(records, read, embedding, limits)
    for i, record in enumerate(records):
        offset = record.offset
        gapless = state.whole or offset == state.next_gapless
        if offset == state.next_gapless:
            state.next_gapless = offset + 1
        state.n_records += 1
        state.offsets.add(offset)
        faults = read.faults.get(i, NO_FAULT)
        item = item_id(record.key)
        if item is None:
            state.bad[offset] = BadRecord(record, faults)
            continue
        history = state.items.get(item)
        if history is None:
            history = state.items[item] = History(first=offset, known=gapless)
        if i in of_next:
            faults = _unusual(of_next[i], told.get(offset))
            if not faults:  # it waits beside its item, which stays as it is
                history.n_later += 1
                state.n_passed_over += 1
                continue
        elif embedding.must_name and "embedding_model" in faults:
            if offset not in told:
                _pass_over(state, history, item, record)
                continue
            faults |= {told[offset]}  # before the change it was one of another model's faults
        if faults:
            state.bad[offset] = BadRecord(record, faults)
            history.n_later += 1
        elif record.value is None:
            if history.live:
                state.n_live -= 1
                history.removed_at = offset
            history.known, history.offset, history.sequence = True, -1, 0
            history.vector, history.n_later = None, 0
        else:
            _apply(state, history, record, read, i, limits, told)


def _of_next(
    records: Sequence[Record], read: Read, embedding: EmbeddingPolicy, limits: LimitPolicy
) -> dict[int, frozenset[str]]:
    """The records of the embedding model that is on its way, and what is wrong with them."""
    successor = embedding.successor
    if successor is None:
        return {}
    foreign = [
        i
        for i, faults in read.faults.items()
        if "embedding_model" in faults and records[i].value is not None
    ]
    again = decode([records[i] for i in foreign], successor, limits)
    found = {i: again.faults.get(place, NO_FAULT) for place, i in enumerate(foreign)}
    return {i: faults for i, faults in found.items() if "embedding_model" not in faults}


def _unusual(faults: frozenset[str], reason: str | None) -> frozenset[str]:
    """Faults, with those that only its dead letter can tell."""
    return faults | {reason} if reason in ("limit", "poison") else faults


def _pass_over(state: PartitionInput, history: History, item: str, record: Record) -> None:
    """A record of an embedding model before this one, which is no dead letter: it had its time.

    It put its item where vectors of that model could, so what was there of this one was out of
    date; unless it was stale, which only the sequences of then would tell.
    """
    if history.live:
        state.n_live -= 1
    is_certain = not state.letters_cut and sequence_of(record) == 0
    state.items[item] = History(first=record.offset, known=is_certain)
    state.n_passed_over += 1


def _apply(
    state: PartitionInput,
    history: History,
    record: Record,
    read: Read,
    i: int,
    limits: LimitPolicy,
    told: Mapping[int, str],
) -> None:
    sequence = read.sequences[i]
    reason = told.get(record.offset)
    if history.live and 0 < sequence <= history.sequence:
        history.n_later += 1
        state.n_stale += 1
        return
    full = state.n_live >= limits.max_items_per_partition if state.whole else reason == "limit"
    if full and not history.live:
        state.bad[record.offset] = BadRecord(record, frozenset({"limit"}))
        history.n_later += 1
        return
    if reason == "poison":
        state.bad[record.offset] = BadRecord(record, frozenset({"poison"}))
        history.n_later += 1
        return
    if not history.live:
        state.n_live += 1
    # An older record that is no longer in the log may still win over a sequence.
    history.known = history.known or sequence == 0
    history.least_sequence = max(history.least_sequence, sequence)
    history.offset, history.sequence = record.offset, sequence
    history.vector, history.n_later = read.vectors[read.rows[i]], 0
    history.timestamp_ms = record.timestamp_ms
    history.removed_at = -1
