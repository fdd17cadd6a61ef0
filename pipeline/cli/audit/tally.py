"""What a check found, and what was read for the checks: facts only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cli.audit.input import PartitionInput
from pipeline.messages.records import Record

MAX_EXAMPLES = 5
BLOCK_BYTES = 64 << 20
"""Of a block of float64 numbers, so that a check of millions of items fits into memory."""

Version = tuple[int, int]


@dataclass(slots=True)
class Tally:
    """The outcome of one check."""

    name: str
    promise: str
    n_checked: int = 0
    n_unchecked: int = 0
    n_broken: int = 0
    examples: list[str] = field(default_factory=list)
    note: str | None = None
    """Why something was not checked."""

    def broken(self, what: str) -> None:
        """Count a fault; the first few are kept in words."""
        self.n_broken += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(what)

    def unchecked(self, n: int, why: str) -> None:
        """Count what could not be looked at."""
        if n:
            self.n_unchecked += n
            self.note = why


@dataclass(frozen=True, slots=True)
class Assigned:
    """One row of ``cluster-assignments``."""

    cluster: str
    distance: float
    sequence: int
    version: Version
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """One row of ``item-vectors``."""

    value: bytes
    timestamp_ms: int | None
    """Of the record that it was copied from."""


@dataclass(frozen=True, slots=True, eq=False)
class NewestModel:
    """The newest manifest and the centroids that it speaks of."""

    manifest: Mapping[str, Any]
    centroids: NDArray[np.float32]
    """(K, d); a missing one is a row of NaN."""

    @property
    def version(self) -> Version:
        return int(self.manifest["epoch"]), int(self.manifest["revision"])

    @property
    def clusters(self) -> list[str]:
        return list(self.manifest["clusters"])


@dataclass(slots=True)
class Topics:
    """Everything that was read, at one quiet moment."""

    input_topic: str
    compacted: bool
    """Whether the input's policy is exactly ``compact``."""
    metric: str
    inputs: Mapping[int, PartitionInput]
    committed: Mapping[int, int]
    assignments: Mapping[int, Mapping[str, Assigned]]
    vectors: Mapping[int, Mapping[str, Kept]]
    dead_letters: Mapping[int, list[Record]]
    dead_letters_cut: frozenset[int]
    statistics: Mapping[int, Mapping[str, bytes]]
    heads: Mapping[int, Mapping[str, Any]]
    model: NewestModel
    dtype: str = "float32"
    """As which the assigners hold vectors: `state.dtype`."""


@dataclass(slots=True)
class Members:
    """The items whose vector is known, ready for arithmetic."""

    partitions: list[int] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    assigned: list[Assigned] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    timestamps: list[int | None] = field(default_factory=list)
    """Of the records that count; milliseconds."""
    n_left_out: dict[tuple[int, str], int] = field(default_factory=dict)
    """Per (partition, cluster) the assignments whose vector is not known for certain."""


def version_text(version: Version) -> str:
    """``7.31``."""
    return f"{version[0]}.{version[1]}"


def item_text(partition: int, item: str) -> str:
    """Where an item is, for a sentence."""
    return f"partition {partition}, {item}"
