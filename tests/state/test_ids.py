"""The index of ids: whatever is put and removed, it says what a dict would say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import lookup, siphash
from pipeline.state.ids import MIN_ARENA, MIN_SLOTS, Ids, PackedKeys

KEYS = st.lists(
    st.one_of(
        st.integers(0, 400).map(lambda i: b"%d" % i),  # comes back, of several lengths
        st.binary(max_size=40),
        st.sampled_from([b"", b"\0", b"\0\0", b"12345678", b"123456789", b"x" * 3000]),
    ),
    max_size=120,
    unique=True,
)
STEPS = st.lists(st.tuples(st.sampled_from(["put", "put packed", "remove"]), KEYS), max_size=20)


@settings(deadline=None, max_examples=40)
@given(STEPS)
def test_it_is_a_dict(steps):
    ids, model, free, n_rows = Ids(), {}, [], 0
    for what, keys in steps:
        if what == "remove":
            gone = [key for key in keys if key in model]
            rows = [model.pop(key) for key in gone]
            assert ids.remove(gone).tolist() == rows
            free += rows
        else:
            for key in keys:
                if key not in model:
                    model[key] = free.pop() if free else n_rows
                    n_rows = max(n_rows, model[key] + 1)
            put = ids.put(keys) if what == "put" else ids.put_packed(PackedKeys.pack(keys))
            assert put.tolist() == [model[key] for key in keys]
        assert (len(ids), ids.n_rows, ids.free.tolist()) == (len(model), n_rows, free)
        assert ids.find_all(keys).tolist() == [model.get(key, -1) for key in keys]
        assert ids.find_packed(PackedKeys.pack(keys)).tolist() == ids.find_all(keys).tolist()
        assert [ids.find(key) for key in keys[:5]] == ids.find_all(keys[:5]).tolist()
        assert [key in ids for key in keys[:5]] == [key in model for key in keys[:5]]
    by_row = sorted(model, key=model.__getitem__)
    assert list(ids) == by_row
    assert ids.occupied().tolist() == sorted(model.values())
    assert ids.names([model[key] for key in model]) == list(model)
    assert ids.find_all(list(model)).tolist() == list(model.values())


def test_a_key_that_is_not_there_is_an_error_only_where_it_has_to_be_there():
    ids = Ids()
    ids.put([b"a", b"b"])

    with pytest.raises(KeyError, match="c"):
        ids.remove([b"a", b"c", b"b"])
    with pytest.raises(KeyError):
        ids.remove([b"b", b"b"])

    assert not len(ids)
    assert ids.find(b"a") == -1


def test_a_free_row_has_no_name():
    ids = Ids()
    ids.put([b"a", b"b"])
    ids.remove([b"a"])

    with pytest.raises(AssertionError, match="free row"):
        ids.name(0)
    with pytest.raises(AssertionError):
        ids.name(2)
    assert ids.name(1) == b"b"


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 59), min_size=1), max_size=30))
def test_ids_that_crowd_at_the_end_of_the_table_are_found_and_moved_back(steps):
    """Probing, going on at the beginning, and moving back: ids that an enemy would send."""
    ids, model = Ids(), {}
    ids._table[lookup.KEY_0 :] = 0  # the enemy knows the key
    for step in steps:
        keys = [CROWD[i] for i in step]
        gone, come = [k for k in keys if k in model], [k for k in keys if k not in model]
        assert ids.remove(gone).tolist() == [model.pop(key) for key in gone]
        model |= zip(come, ids.put(come).tolist(), strict=True)
        assert ids.find_all(CROWD).tolist() == [model.get(key, -1) for key in CROWD]
        assert len(set(model.values())) == len(model) == len(ids)


def place(key):
    held = np.frombuffer(key, np.uint8)
    return int(siphash.hashed(held.ctypes.data, len(key), np.int64(0), np.int64(0))) >> (64 - 7)


CANDIDATES = (b"%d" % i for i in itertools.count())
CROWD = [*itertools.islice((k for k in CANDIDATES if place(k) >= MIN_SLOTS - 3), 60)]


def test_ids_that_come_and_go_take_no_more_memory():
    ids = Ids()
    held = [b"%016d" % i for i in range(500)]
    ids.put(held)
    n_bytes = ids.n_bytes

    for i in range(500, 20_000, 500):
        ids.remove(held)
        held = [b"%016d" % (i + j) for j in range(500)]
        ids.put(held)

    assert ids.n_bytes == n_bytes


def test_bytes_of_freed_ids_are_taken_back_once_they_are_half():
    ids = Ids()
    keys = [b"%0100d" % i for i in range(1000)]
    ids.put(keys)
    before = len(ids._arena)

    ids.remove(keys[10:])

    assert len(ids._arena) == MIN_ARENA < before
    assert ids.names(range(10)) == keys[:10]
    assert ids.put([b"new"]).tolist() == [999]  # the last that was freed
    assert ids.name(999) == b"new"


def test_an_index_holds_less_than_half_of_what_a_dict_does():
    ids = Ids()
    n = 30_000
    for start in range(0, n, 1000):
        ids.put([b"%016d" % i for i in range(start, start + 1000)])

    assert ids.n_bytes < 65 * n


def test_packed_ids_are_the_ids():
    keys = [b"a", b"", b"bcd"]
    packed = PackedKeys.pack(keys)

    assert packed.blob.tobytes() == b"abcd"
    assert packed.ends.tolist() == [1, 1, 4]
    assert packed.unpack() == keys
    assert PackedKeys.pack([]).unpack() == []
