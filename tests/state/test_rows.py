"""Rows under members and samples: columns follow the index of ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.state.members import Members
from pipeline.state.rows import PackedKeys, Rows

BATCHES = st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 300), max_size=80)), max_size=12)


@settings(deadline=None, max_examples=40)
@given(BATCHES, st.sampled_from([np.float32, np.float16]))
def test_a_row_is_of_its_item_as_long_as_the_item_lives(batches, dtype):
    members, model = Members(2, dtype=dtype), {}
    for version, (is_put, items) in enumerate(batches):
        keys = [b"item-%d" % i for i in sorted(items)]
        if is_put:
            rows = members.put(keys) if version % 2 else members.put_packed(PackedKeys.pack(keys))
            members.vectors[rows] = np.arange(len(keys))[:, None]
            members.offsets[rows] = version
            members.proofs[rows] = 0.0
            model |= {key: (i, version) for i, key in enumerate(keys)}
        else:
            gone = members.present(keys)
            assert gone == [key for key in keys if key in model]
            members.remove(iter(gone))
            for key in gone:
                del model[key]
        assert len(members) == members.n_items == len(model)
        assert sorted(members) == sorted(model)
        for key, row in members.items():
            assert members.row_of(key) == members.find(key) == row
            assert (int(members.vectors[row, 0]), int(members.offsets[row])) == model[key]
        is_free = np.isnan(members.proofs[: members.n_rows])
        assert np.flatnonzero(~is_free).tolist() == members.occupied().tolist()
    assert members.vectors.dtype == dtype


def test_an_item_that_must_be_there_and_is_not_is_an_error():
    rows = Rows(1)
    rows.put([b"a", b"b"])

    assert rows.find_all([b"b", b"x"]).tolist() == [1, -1]
    assert rows.find_packed(PackedKeys.pack([b"x", b"a"])).tolist() == [-1, 0]
    with pytest.raises(KeyError, match="x"):
        rows.row_of(b"x")
    with pytest.raises(KeyError, match="x"):
        rows.rows_of([b"b", b"x"])
    assert rows.rows_of([]).tolist() == []


def test_reserved_room_is_not_moved():
    rows = Rows(4)
    rows.reserve(5000)
    vectors = rows.vectors

    rows.put([b"%d" % i for i in range(5000)])

    assert rows.vectors is vectors
    assert rows.names([17, 4999]) == [b"17", b"4999"]
    assert rows.packed_names(np.array([3])).unpack() == [b"3"]


def test_an_item_takes_120_bytes_beside_its_vector_at_most():
    """With ids of 16 bytes, at every number of items: just before arrays grow, and just after."""
    members, worst = Members(1), 0.0
    for start in range(0, 60_000, 500):
        members.put([b"%016d" % i for i in range(start, start + 500)])
        columns = (getattr(members, name).nbytes for name in members.columns if name != "vectors")
        if start >= 5000:
            worst = max(worst, (sum(columns) + members.id_bytes) / len(members))

    assert 90 < worst <= 120
