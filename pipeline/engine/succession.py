"""Records of the next embedding model, folded beside those of the one that stands.

Such a record leaves its item where it is, since its vector can be compared with nothing yet; it
waits in a second set until the next model takes over. A compacted input no longer has the vector
by which the item stands, so that one is written to `item-vectors`, as for a dead letter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.clustering.forgetting import NO_TIMESTAMP
from pipeline.engine.setting import EngineSettings
from pipeline.kernels.contract import Kernels, Points
from pipeline.messages.codec import encode_vector, vector_headers
from pipeline.messages.embedding import model_headers, offset_headers, successor_key
from pipeline.messages.records import Headers, Outgoing, Record
from pipeline.state.members import Metadata, PartitionState
from pipeline.state.rows import NOWHERE
from pipeline.state.successors import Successors

IN_STATE = -1


@dataclass(slots=True)
class _Next:
    """An item's vector of the next model, as it is after the records folded so far."""

    vector: int  # row in the batch; -1: the one in the state
    sequence: int
    kept: bool
    offset: int
    timestamp_ms: int
    metadata: Metadata | None


@dataclass(slots=True, eq=False)
class Succeeded:
    """What becomes of the second set of a partition."""

    partition: int
    keys: list[bytes]
    """(n,) distinct items that have a new vector of the next model."""
    vectors: Points  # (n, n_next_dims)
    sequences: list[int]
    offsets: list[int]
    kept: list[bool]
    timestamps: list[int]
    metadata: list[Metadata | None]
    removed: list[bytes]
    kept_anew: list[bytes]
    cleared: list[bytes]
    """Items of which a stray vector is gone from `item-vectors`."""

    def install(self, state: PartitionState, kernels: Kernels) -> None:
        successors = state.successors
        assert successors is not None
        successors.remove(self.removed)
        successors.strays.difference_update(self.cleared)
        if self.kept_anew:
            successors.kept[successors.rows_of(self.kept_anew)] = True
        if not self.keys:
            return
        successors.write(
            self.keys, self.vectors, self.sequences, self.offsets, self.kept, self.timestamps
        )
        for key, metadata in zip(self.keys, self.metadata, strict=True):
            if metadata:
                successors.metadata[key] = metadata
            else:
                successors.metadata.pop(key, None)


@dataclass(slots=True, eq=False)
class SuccessionFold:
    """The second set of one partition in one batch."""

    settings: EngineSettings
    partition: int
    successors: Successors
    vectors: Points
    """(n_next_vectors, n_next_dims) of the batch."""
    outgoing: list[Outgoing]
    _touched: dict[bytes, _Next | None] = field(default_factory=dict)
    """By item; None: it has no such vector any more."""
    _cleared: dict[bytes, None] = field(default_factory=dict)
    _n_more: int = 0
    """Items that the batch has added, less those it removed."""

    def is_stale(self, key: bytes, sequence: int) -> bool:
        """Whether the item's vector of the next model is as new; each model counts for itself."""
        known = self._of(key)
        return known is not None and 0 < sequence <= known.sequence

    def is_above_limit(self, key: bytes) -> bool:
        """Whether there is no room for an item that has no such vector yet."""
        n_items = len(self.successors) + self._n_more
        is_full = n_items >= self.settings.limits.max_items_per_partition
        return is_full and self._of(key) is None

    def apply(
        self, record: Record, key: bytes, row: int, sequence: int, metadata: Metadata | None
    ) -> None:
        """The item has a vector of the next model: ``row`` of the batch."""
        known = self._of(key)
        self._clear_stray(key)
        if known is None:
            self._n_more += 1
        elif known.kept:
            self._write(key, None)
        time = record.timestamp_ms
        time = NO_TIMESTAMP if time is None or time < 0 else time
        self._touched[key] = _Next(row, sequence, False, record.offset, time, metadata)

    def outdate(self, key: bytes) -> None:
        """The item is gone, or has a newer vector of the model that stands."""
        known = self._of(key)
        self._clear_stray(key)
        if known is None:
            return
        if known.kept:
            self._write(key, None)
        self._touched[key] = None
        self._n_more -= 1

    def keep(self, key: bytes) -> None:
        """Save the vector from compaction, which will take it for a newer record."""
        known = self._of(key)
        if known is None or known.kept:
            return
        row = self.successors.row_of(key) if known.vector == IN_STATE else known.vector
        vector = (self.successors.vectors if known.vector == IN_STATE else self.vectors)[row]
        embedding = self.settings.embedding.successor
        assert embedding is not None
        headers = (
            *vector_headers(known.metadata or None, known.timestamp_ms),
            *model_headers(embedding),
            *offset_headers(known.offset),
        )
        self._write(key, encode_vector(vector, known.sequence), headers)
        known.kept = True
        self._touched[key] = known
        if key in self.successors.strays:
            self._cleared[key] = None  # it was written over

    def change(self) -> Succeeded | None:
        """What the batch makes of the set; None: it leaves it as it is."""
        if not self._touched and not self._cleared:
            return None
        put = [(k, n) for k, n in self._touched.items() if n is not None and n.vector != IN_STATE]
        stays = [(k, n) for k, n in self._touched.items() if n is not None and n.vector == IN_STATE]
        found = [n for _, n in put]
        return Succeeded(
            partition=self.partition,
            keys=[key for key, _ in put],
            vectors=self.vectors[np.array([n.vector for n in found], np.intp)],
            sequences=[n.sequence for n in found],
            offsets=[n.offset for n in found],
            kept=[n.kept for n in found],
            timestamps=[n.timestamp_ms for n in found],
            metadata=[n.metadata for n in found],
            removed=self.successors.present([k for k, n in self._touched.items() if n is None]),
            kept_anew=[key for key, n in stays if n.kept],
            cleared=list(self._cleared),
        )

    def _clear_stray(self, key: bytes) -> None:
        if key in self.successors.strays and key not in self._cleared:
            self._write(key, None)
            self._cleared[key] = None

    def _of(self, key: bytes) -> _Next | None:
        if key in self._touched:
            return self._touched[key]
        successors = self.successors
        row = successors.find(key)
        if row == NOWHERE:
            return None
        return _Next(
            IN_STATE,
            int(successors.sequences[row]),
            bool(successors.kept[row]),
            int(successors.offsets[row]),
            int(successors.timestamps[row]),
            successors.metadata.get(key),
        )

    def _write(self, key: bytes, value: bytes | None, headers: Headers = ()) -> None:
        topic = self.settings.topics.vectors
        self.outgoing.append(Outgoing(topic, self.partition, successor_key(key), value, headers))
