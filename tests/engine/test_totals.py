"""What partitions say, added up: against the integers of Python, which never overflow."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.totals import Totals
from pipeline.messages.codec import (
    encode_head,
    encode_statistics,
    head_key,
    statistics_key,
)
from pipeline.messages.events import Head, StatisticsRow
from pipeline.messages.records import Record

N_DIMS = 2
UNIT, SQUARE_UNIT = 2.0**-40, 2.0**-48
CLUSTERS = ("c1", "c2", "c3")
WORDS = st.integers(-(2**63) + 1, 2**63 - 1)


class Owner:
    """Writes the statistics of one partition as an assigner does: rows, then the head."""

    def __init__(self, partition=0, since=0, offset=0):
        self.partition = partition
        self.rows = {}
        self.head = Head(1, 0, since, since, 0, 0, 0)
        self.offset = offset
        self.log = []

    def says(self, rows=None, **head):
        """One transaction; the head's members are those of the rows unless told otherwise."""
        start = len(self.log)
        for cluster, row in (rows or {}).items():
            self.rows.pop(cluster, None)
            if row is not None:
                self.rows[cluster] = row
            value = None if row is None else encode_statistics(row)
            self._write(statistics_key(self.partition, cluster), value)
        members = sum(row.count for row in self.rows.values())
        self.head = self.head._replace(**{"members": members, **head})
        self._write(head_key(self.partition), encode_head(self.head))
        return self.log[start:]

    def _write(self, key, value):
        self.log.append(Record(self.partition, self.offset, key, value))
        self.offset += 1


def row(count=1, sums=(0, 0), *, square=0, epoch=1, traffic=(0, 0.0, 0.0)):
    high, low = square if isinstance(square, tuple) else divmod(square, 2**32)
    return StatisticsRow(epoch, count, high, low, *traffic, np.array(sums, np.int64))


def totals(n_partitions=1, *, is_open=True):
    made = Totals(n_partitions, N_DIMS, max_component=1.0)
    if is_open:
        made.opened()
    return made


def compacted(log):
    """What compaction leaves at most: the newest record of each key, in order."""
    newest = {record.key: record for record in log}
    return [record for record in log if newest[record.key] is record]


# Adding up


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(CLUSTERS),
            st.none() | st.tuples(st.integers(0, 2**23), WORDS, WORDS, st.integers(0, 2**85)),
        ),
        max_size=25,
    ),
    st.integers(1, 7),
)
def test_totals_are_those_of_the_newest_rows_in_integers_that_never_overflow(steps, chunk):
    owners = [Owner(p) for p in range(3)]
    log = [record for owner in owners for record in owner.says()]
    for partition, cluster, said in steps:
        made = None if said is None else row(said[0], said[1:3], square=said[3])
        log += owners[partition].says({cluster: made})
    made = totals(3)

    for start in range(0, len(log), chunk):
        made.fold(log[start : start + chunk])

    assert made.is_complete
    for i, cluster in enumerate(CLUSTERS):
        rows = [owner.rows[cluster] for owner in owners if cluster in owner.rows]
        count = sum(r.count for r in rows)
        square = sum((r.square_high << 32) + r.square_low for r in rows)
        assert made.counts(CLUSTERS)[i] == count
        assert_near(made.squares(CLUSTERS)[i], Fraction(SQUARE_UNIT) * square)
        for d in range(N_DIMS):
            total = Fraction(UNIT) * sum(int(r.sums[d]) for r in rows)
            assert_near(made.means(CLUSTERS)[i, d], total / count if count else Fraction(0))


def assert_near(found, exact):
    assert abs(Fraction(float(found)) - exact) <= abs(exact) * Fraction(1, 2**50)


@pytest.mark.parametrize("word", [2**63 - 1, -(2**63)])
def test_sums_over_many_partitions_may_pass_what_an_integer_of_the_machine_holds(word):
    n = 40
    made = totals(n)
    largest = row(2**23 - 1, (word, word), square=(2**53 - 1, 2**55 - 1))

    for p in range(n):
        made.fold(Owner(p).says({"c1": largest}))

    assert made.counts(["c1"]).tolist() == [n * (2**23 - 1)]
    assert_near(made.means(["c1"])[0, 0], Fraction(UNIT) * word / (2**23 - 1))
    square = n * (((2**53 - 1) << 32) + 2**55 - 1)
    assert_near(made.squares(["c1"])[0], Fraction(SQUARE_UNIT) * square)


def test_what_was_taken_out_leaves_no_trace():
    owners, made = [Owner(p) for p in range(3)], totals(3)
    for owner in owners:
        made.fold(owner.says({"c1": row(5, (2**62, -7), square=2**80), "c2": row(1, (1, 1))}))
    for owner in owners:
        made.fold(owner.says({"c1": row(0), "c2": None}))

    assert made.counts(CLUSTERS).tolist() == [0, 0, 0]
    assert not made.means(CLUSTERS).any()
    assert not made.squares(CLUSTERS).any()
    assert made.n_members == 0


def test_places_of_clusters_that_are_gone_serve_others():
    owner, made = Owner(), totals()
    for i in range(500):
        made.fold(owner.says({f"c{i}": row(1, (i, i)), f"c{i - 1}": None}))

    assert made.counts(["c499", "c498"]).tolist() == [1, 0]
    assert made.means(["c499"])[0].tolist() == [499 * UNIT] * 2
    assert len(made._stamps) < 40


def test_an_unknown_cluster_has_nothing():
    assert totals().counts(["c9"]).tolist() == [0]
    assert totals().means([]).shape == (0, N_DIMS)


def test_changed_are_the_clusters_whose_totals_are_others_than_before():
    owner, made = Owner(), totals()
    made.fold(owner.says({"c1": row(1), "c2": row(2), "c3": row(3)}))
    mark = made.mark
    made.fold(owner.says({"c1": row(1), "c2": row(1), "c3": None, "c4": row(0)}))

    assert sorted(made.changed_since(mark)) == ["c2", "c4"]
    assert sorted(made.changed_since(0)) == ["c1", "c2", "c4"]
    assert made.changed_since(made.mark) == []


@pytest.mark.skipif(
    "weight" not in StatisticsRow.__dataclass_fields__, reason="rows have no weights yet"
)
def test_means_of_members_that_fade_are_over_their_weights():
    a, b, made = Owner(0), Owner(1), totals(2)
    half = replace(row(1, (2**30, 0), square=2**38), weight=2**30)  # of the point (0.5, 0)
    whole = replace(row(1, (2**32, 0), square=2**40), weight=2**31)
    made.fold(a.says({"c1": half, "c2": replace(row(0), weight=0)}))
    made.fold(b.says({"c1": whole}))  # of the point (1, 0)

    assert made.weights(["c1", "c2"]).tolist() == [1.5, 0.0]
    assert made.means(["c1"])[0].tolist() == [1.25 / 1.5, 0.0]
    assert made.squares(["c1"]).tolist() == [1.25]
    assert made.counts(["c1"]).tolist() == [2]


# Heads


def test_rows_wait_for_their_head():
    owner, made = Owner(), totals()
    *rows, head = owner.says({"c1": row(3, (2**40, 0)), "c2": row(1)})

    assert made.fold(rows) == []
    assert made.counts(CLUSTERS).sum() == 0
    assert made.fold([head]) == [0]
    assert made.counts(CLUSTERS).tolist() == [3, 1, 0]
    assert made.heads == {0: owner.head}


def test_nothing_is_complete_before_all_partitions_have_spoken_and_the_end_was_read():
    made = totals(2, is_open=False)
    made.fold(Owner(0).says({"c1": row(1)}))
    made.fold(Owner(1).says())
    assert not made.is_complete

    made.opened()
    assert made.is_complete
    assert made.are_swept_to(1)

    other = totals(2)
    other.fold(Owner(0).says())
    assert not other.is_complete


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(CLUSTERS), st.none() | st.integers(0, 9), max_size=3),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 30),
)
def test_older_rows_that_compaction_took_change_nothing(steps, chunk):
    owner = Owner()
    for said in steps:
        owner.says({c: None if n is None else row(n, (n, -n)) for c, n in said.items()})
    whole, thinned = totals(is_open=False), totals(is_open=False)
    whole.fold(owner.log)
    left = compacted(owner.log)
    for start in range(0, len(left), chunk):
        thinned.fold(left[start : start + chunk])
    for made in (whole, thinned):
        made.opened()

    assert thinned.is_complete
    assert thinned.counts(CLUSTERS).tolist() == whole.counts(CLUSTERS).tolist()
    assert thinned.means(CLUSTERS).tolist() == whole.means(CLUSTERS).tolist()
    assert thinned.n_members == whole.n_members == owner.head.members


def test_a_head_over_rows_that_are_not_all_there_stays_aside_until_they_fit():
    owner, made = Owner(), totals()
    made.fold(owner.says({"c1": row(3)}))

    made.fold(owner.says(members=5))
    assert not made.is_complete
    assert made.n_members == 3

    made.fold(owner.says({"c2": row(2)}))
    assert made.is_complete
    assert made.counts(CLUSTERS).tolist() == [3, 2, 0]


@settings(deadline=None)
@given(st.data())
def test_records_that_come_again_change_nothing(data):
    owners, made, naive = [Owner(0), Owner(1)], totals(2), totals(2)
    log = []
    for step in range(data.draw(st.integers(1, 8))):
        owner = data.draw(st.sampled_from(owners))
        new = owner.says({"c1": row(step, (step, 1), traffic=(step, 1.0, 1.0))}, records=step)
        again = log[data.draw(st.integers(0, len(log))) :]
        log += new
        naive.fold(new)
        made.fold([*again, *new, *again, *new])

    assert made.heads == naive.heads
    assert made.means(CLUSTERS).tolist() == naive.means(CLUSTERS).tolist()
    assert made.mark == naive.mark
    assert_same_window(made.take_window(CLUSTERS), naive.take_window(CLUSTERS))


def test_the_same_statistics_written_once_more_change_nothing():
    owner, made = Owner(), totals()
    made.fold(owner.says({"c1": row(3, (1, 2), traffic=(3, 1.5, 1.0))}, records=3))
    mark, window = made.mark, made.take_window(CLUSTERS)

    made.fold(owner.says({"c1": row(3, (1, 2), traffic=(3, 1.5, 1.0))}))

    assert window.landed.tolist() == [3, 0, 0]
    assert made.changed_since(mark) == []
    assert_same_window(made.take_window(CLUSTERS), totals().take_window(CLUSTERS))


def test_what_is_not_ours_is_counted_and_passed_over():
    made = totals()
    values = [
        (b"0/c1", b"EDS1"), (b"0", b"[]"), (b"7", b"{}"), (b"x/c1", b""), (None, b""),
        (b"\xff", b""),
        (b"0/c1", encode_statistics(StatisticsRow(1, 1, 0, 0, 0, 0.0, 0.0, np.zeros(3, np.int64)))),
    ]  # fmt: skip
    made.fold([Record(0, i, key, value) for i, (key, value) in enumerate(values)])

    assert made.n_ignored == len(values)
    assert made.heads == {}


# Sweeps


def test_swept_is_what_all_heads_say():
    a, b, made = Owner(0), Owner(1), totals(2)
    made.fold(a.says({"c1": row(1)}, epoch=1, revision=4))
    made.fold(b.says(epoch=1, revision=3))

    assert made.are_swept_to(1)
    assert made.are_swept_to(1, 3)
    assert not made.are_swept_to(1, 4)
    assert not made.are_swept_to(2)


def test_an_owner_that_has_not_swept_holds_everything_up():
    owner, made = Owner(), totals()
    made.fold(owner.says({"c1": row(1)}))
    made.fold(Owner(0, since=9, offset=owner.offset).says(members=1, epoch=None, revision=None))

    assert made.is_complete
    assert not made.are_swept_to(1)


def test_rows_of_another_epoch_hold_everything_up_while_they_have_members():
    owner, made = Owner(), totals()
    made.fold(owner.says({"c1": row(1, epoch=2), "c2": row(1, epoch=1)}, epoch=2, revision=0))
    assert not made.are_swept_to(2)

    made.fold(owner.says({"c1": row(2, epoch=2), "c2": row(0, epoch=1)}))
    assert made.are_swept_to(2)


def test_offsets_tell_whether_a_record_was_applied_between():
    owners, made = [Owner(0), Owner(1, since=5)], totals(2)
    for owner in owners:
        made.fold(owner.says())
    assert made.next_offset == 5

    made.fold(owners[0].says(next_offset=2))
    assert made.next_offset == 7


# Traffic


def test_a_window_holds_what_landed_since_the_last_one():
    a, b, made = Owner(0), Owner(1), totals(2)
    made.fold(a.says({"c1": row(traffic=(4, 2.0, 1.0))}, records=5, reassigned=2))
    made.fold(b.says({"c1": row(traffic=(1, 1.0, 1.0))}, records=1))
    first = made.take_window(["c2", "c1"])
    assert made.window_records == 0
    made.fold(a.says({"c1": row(traffic=(7, 5.0, 4.5))}, records=9, reassigned=3))

    assert made.window_records == 4
    second = made.take_window(["c1"])

    assert first.landed.tolist() == [0, 5]
    assert first.distances.tolist() == [0.0, 3.0]
    assert first.distances_squared.tolist() == [0.0, 2.0]
    assert (first.n_records, first.n_reassigned) == (6, 2)
    assert (second.landed[0], second.distances[0], second.distances_squared[0]) == (3, 3.0, 3.5)
    assert (second.n_records, second.n_reassigned) == (4, 1)


def test_a_new_owner_counts_from_zero():
    old, made = Owner(since=0), totals()
    made.fold(old.says({"c1": row(9, traffic=(9, 9.0, 9.0))}, records=9, reassigned=9))
    made.take_window(CLUSTERS)
    new = Owner(since=9, offset=old.offset)
    made.fold(new.says(members=9, epoch=None, revision=None))
    made.fold(new.says({"c1": row(9, traffic=(12, 3.0, 3.0))}, records=12, reassigned=1))

    window = made.take_window(CLUSTERS)

    assert window.landed.tolist() == [12, 0, 0]
    assert (window.n_records, window.n_reassigned) == (12, 1)


def test_what_landed_before_the_end_was_read_belongs_to_no_window():
    owner, made = Owner(), totals(is_open=False)
    made.fold(owner.says({"c1": row(traffic=(4, 2.0, 1.0))}, records=4))
    made.opened()
    made.fold(owner.says({"c1": row(traffic=(5, 4.0, 5.0))}, records=6))

    window = made.take_window(["c1"])

    assert (window.landed[0], window.distances[0], window.n_records) == (1, 2.0, 2)


def test_traffic_of_a_cluster_that_is_gone_and_comes_back_counts_anew():
    owner, made = Owner(), totals()
    made.fold(owner.says({"c1": row(traffic=(4, 2.0, 1.0))}))
    made.fold(owner.says({"c1": None}))
    made.take_window(CLUSTERS)
    made.fold(owner.says({"c1": row(traffic=(6, 3.0, 1.0))}))

    assert made.take_window(["c1"]).landed.tolist() == [6]


def assert_same_window(a, b):
    assert a.landed.tolist() == b.landed.tolist()
    assert a.distances.tolist() == b.distances.tolist()
    assert a.distances_squared.tolist() == b.distances_squared.tolist()
    assert (a.n_records, a.n_reassigned) == (b.n_records, b.n_reassigned)
