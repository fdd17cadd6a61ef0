"""What the state takes is what its arrays and ids take."""

from __future__ import annotations

import numpy as np

from pipeline.state.footprint import Footprint, footprint
from pipeline.state.members import Members, empty_partition, write_members
from pipeline.state.successors import Successors

N_DIMS, N_LABELS = 6, 4


def partition_of(n):
    members = Members(N_DIMS)
    numbers = np.arange(n)
    write_members(
        members, [b"item-%d" % i for i in range(n)], np.ones((n, N_DIMS), np.float32),
        numbers.astype(np.int32) % N_LABELS, np.ones(n), numbers.astype(np.uint64), numbers,
        np.zeros(n, np.bool_), numbers, None,
    )  # fmt: skip
    return empty_partition(0, members, n_labels=N_LABELS, max_component=1.0, next_offset=0)


def test_every_kind_is_counted():
    state = partition_of(200)
    members = state.members

    found = footprint([state])

    capacity = len(members.vectors)
    assert found.vectors == capacity * N_DIMS * 4
    assert found.bounds == capacity * (4 + 8 + 8 + 8 + 1 + 8 + 8)  # a number of each column
    assert found.ids >= members.id_bytes > 200 * len(b"item-0")
    assert found.statistics == N_LABELS * (8 * N_DIMS + 8 + 2 * 8 + 3 * 8 + 1)


def test_partitions_and_the_sets_of_other_embedding_models_add_up():
    one, other = partition_of(100), partition_of(300)
    apart = [footprint([one]), footprint([other])]
    assert footprint([one, other]) == Footprint(*map(sum, zip(*apart, strict=True)))

    one.successors = Successors(N_DIMS)
    one.successors.put([b"a"])

    assert footprint([one]).vectors == apart[0].vectors + one.successors.vectors.nbytes
    assert footprint([]) == Footprint(0, 0, 0, 0)
