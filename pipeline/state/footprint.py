"""What the memory of a partition's state is made of, and what an item of it takes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sized
from typing import Final, NamedTuple

from pipeline.state.members import PartitionState
from pipeline.state.rows import Rows

ITEM_OVERHEAD_BYTES: Final = 120
"""What an item takes beside its vector, at most, where ids have 16 bytes: its id, the index of it,
and its numbers, with the room that is kept for more (`benchmarks/memory.py` counts it)."""


class Footprint(NamedTuple):
    """Bytes that are held, by what they are for."""

    vectors: int
    """Matrices of vectors, rows that wait for an item included."""
    ids: int
    """Ids and their index; of ghosts and metadata the tables, without what stands in them."""
    bounds: int
    """The other numbers of an item: label, proof, sequence, offset, time, weight."""
    statistics: int
    """What clusters add up to, and what landed in them."""


def footprint(states: Iterable[PartitionState]) -> Footprint:
    """What partitions hold together, without counting through their items."""
    total = Footprint(0, 0, 0, 0)
    for state in states:
        total = Footprint(*(sum(pair) for pair in zip(total, _of_partition(state), strict=True)))
    return total


def item_bytes(n_dims: int, component_bytes: int) -> int:
    """What an item takes at most, with a short id and no metadata."""
    return n_dims * component_bytes + ITEM_OVERHEAD_BYTES


def _of_partition(state: PartitionState) -> Footprint:
    sums, traffic, members = state.sums, state.traffic, state.members
    sets: list[Rows] = [members]
    tables: list[Sized] = [members.metadata, members.ghosts]
    for other in (state.successors, state.arrivals):
        if other is not None:
            sets.append(other)
            tables += [other.metadata, other.strays]
    arrays = [getattr(sums, name) for name in sums.arrays]
    arrays += [traffic.landed, traffic.distances, traffic.distances_squared, state.dirty]
    return Footprint(
        vectors=sum(rows.vectors.nbytes for rows in sets),
        ids=sum(rows.id_bytes for rows in sets) + sum(map(sys.getsizeof, tables)),
        bounds=sum(
            getattr(rows, name).nbytes
            for rows in sets
            for name in rows.columns
            if name != "vectors"
        ),
        statistics=sum(array.nbytes for array in arrays),
    )
