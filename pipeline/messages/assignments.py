"""Assignments by the thousand, as columns: what a restore reads of each item's place.

A fact of its own for every item costs twice the time of its JSON, and the collector of circles
looks through millions of them again and again. So a batch becomes a few lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Reason, RecordError
from pipeline.messages.codec import json_value

_Whole = TypeVar("_Whole", np.int64, np.uint64)


class AssignmentColumns(NamedTuple):
    """What a restore needs of some assignments; all are parallel."""

    clusters: list[str]
    sequences: NDArray[np.uint64]
    epochs: NDArray[np.int64]
    offsets: NDArray[np.int64]


def decode_assignments(values: Sequence[bytes]) -> AssignmentColumns:
    """What `pipeline.messages.codec.decode_assignment` says of each, in 0.6 instead of 1.1 µs.

    Raises
    ------
    RecordError
        One of them is no assignment, or a number of it has no room in its column.
    """
    clusters, sequences, epochs, offsets = [], [], [], []
    try:
        for value in values:
            row = json_value(value)
            clusters.append(row["cluster"])
            sequences.append(row["sequence"])
            epochs.append(row["model"]["epoch"])
            offsets.append(row["source"]["offset"])
        if set(map(type, clusters)) - {str}:
            raise TypeError("a cluster is no text")
        return AssignmentColumns(
            clusters,
            _whole(sequences, np.uint64),
            _whole(epochs, np.int64),
            _whole(offsets, np.int64),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        message = f"no assignment: {type(error).__name__} {error}"[:200]
        raise RecordError(Reason.DECODE, message) from error


def _whole(numbers: list[int], dtype: type[_Whole]) -> NDArray[_Whole]:
    if set(map(type, numbers)) - {int}:
        raise TypeError("what should be a whole number is none")
    return np.array(numbers, dtype)
