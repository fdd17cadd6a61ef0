"""The sample follows updates and deletes, and stays within its bound."""

from __future__ import annotations

import numpy as np

from pipeline.state.sample import FULL_RANGE, GONE, Sample


def put(sample, keys, value=1.0, sequences=None, time=None):
    vectors = np.full((len(keys), 2), value, np.float32)
    n = len(keys)
    sample.apply(keys, range(n), vectors, sequences or [0] * n, [time] * n)


def keys(n):
    return [b"item-%d" % i for i in range(n)]


def test_everything_is_in_while_it_fits():
    sample = Sample(2, max_items=100)

    put(sample, keys(100))

    assert len(sample) == 100
    assert sample.hash_range == FULL_RANGE


def test_an_overflow_halves_the_range_and_later_items_follow_it():
    sample = Sample(2, max_items=100)

    put(sample, keys(1000))

    assert 25 <= len(sample) <= 100
    assert all(sample.holds(key) for key in sample)
    assert {key for key in keys(1000) if sample.holds(key)} == set(sample)


def test_updates_and_deletes_of_sampled_items_are_followed():
    sample = Sample(2, max_items=10)
    put(sample, [b"a", b"b"])

    sample.apply([b"a", b"b"], [0, GONE], np.full((1, 2), 7, np.float32), [0, 0], [9, 9])

    ids, vectors, timestamps = sample.snapshot()
    assert (ids, vectors.tolist(), timestamps.tolist()) == ([b"a"], [[7, 7]], [9])


def test_a_stale_change_is_ignored_and_a_tombstone_forgets_the_sequence():
    sample = Sample(2, max_items=10)
    put(sample, [b"a"], 1, [5])

    put(sample, [b"a"], 2, [5])
    assert sample.snapshot()[1].tolist() == [[1, 1]]
    sample.apply([b"a", b"a"], [GONE, 0], np.full((1, 2), 3, np.float32), [0, 1],
                 [None, None])  # fmt: skip

    assert sample.snapshot()[1].tolist() == [[3, 3]]


def test_a_sample_that_deletes_made_thin_asks_for_a_wider_range():
    sample = Sample(2, max_items=100)
    put(sample, keys(1000))
    narrow = sample.hash_range

    sample.apply(list(sample)[5:], [GONE] * (len(sample) - 5), np.empty((0, 2), np.float32),
                 [0] * (len(sample) - 5), [None] * (len(sample) - 5))  # fmt: skip

    assert sample.is_thin
    assert sample.wider().hash_range == 2 * narrow


def test_the_snapshot_does_not_depend_on_the_order_of_arrival():
    one, two = Sample(2, max_items=100), Sample(2, max_items=100)
    vectors = np.arange(40, dtype=np.float32).reshape(20, 2)
    order = np.random.default_rng(0).permutation(20)

    one.apply(keys(20), range(20), vectors, [0] * 20, range(20))
    two.apply([keys(20)[i] for i in order], order.tolist(), vectors, [0] * 20, order.tolist())

    assert one.snapshot()[0] == two.snapshot()[0]
    assert one.snapshot()[1].tobytes() == two.snapshot()[1].tobytes()
    assert one.snapshot()[2].tobytes() == two.snapshot()[2].tobytes()


def test_the_time_is_that_of_the_record_that_counts():
    sample = Sample(2, max_items=10)
    put(sample, [b"old", b"new", b"none", b"odd"], 1, [5] * 4, time=1000)

    put(sample, [b"old"], 2, [5], time=2000)  # stale
    put(sample, [b"new"], 2, [6], time=500)  # late, and newer all the same
    put(sample, [b"none"], 2, [6], time=None)
    put(sample, [b"odd"], 2, [6], time=-7)

    ids, _, timestamps = sample.snapshot()
    assert dict(zip(ids, timestamps.tolist(), strict=True)) == {
        b"old": 1000, b"new": 500, b"none": -1, b"odd": -1,
    }  # fmt: skip
