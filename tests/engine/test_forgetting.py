"""Members that fade: statistics are exact sums of weighted members, whatever happened before."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.cluster_engine import Restored
from pipeline.engine.setting import decay_of
from pipeline.engine.totals import Totals
from pipeline.messages.codec import decode_statistics, record_timestamp
from pipeline.messages.records import Record
from pipeline.state.members import Members, Version
from tests import naive
from tests.engine.house import TOPICS, engine, model, of_topic, record, write

HOUR_S = 3600.0
T0 = 1_772_366_400_000
HOUR_MS = 3_600_000
LINE = np.array([[-10.0, 0.0], [0.0, 0.0], [10.0, 0.0]], np.float32)


def fading(centroids=LINE, *, landmark_ms=T0, half_life_s=HOUR_S, **fields):
    return model(centroids, half_life_s=half_life_s, landmark_ms=landmark_ms, **fields)


def at(offset, item, vector, hours, **fields):
    """A record of so many hours after T0; None: it has no time."""
    found = record(offset, item, vector, **fields)
    return found._replace(timestamp_ms=None if hours is None else T0 + round(hours * HOUR_MS))


def sweep(made, partition=0, max_rows=2):
    out = []
    while made.partitions[partition].to_sweep:
        changes = made.sweep(partition, max_rows=max_rows)
        made.install(changes)
        out += changes.outgoing
    return out


def weights_of(made, partition=0):
    """Item -> what it was counted with."""
    members = made.partitions[partition].members
    return {key.decode(): float(members.weights[row]) for key, row in members.items()}


def check(made, partition=0, *, is_at_rest=False):
    """Statistics are those of the members, each with the weight that its row tells."""
    state = made.partitions[partition]
    members, rows, largest = state.members, state.members.occupied(), 256.0
    vectors, labels = members.vectors[rows], members.labels[rows]
    decay = decay_of(made.loaded.model.manifest)
    if decay is None:
        assert state.sums.weights is None
        counts, sums, squares = naive.statistics(
            vectors, labels, len(made.table), max_component=largest
        )
    else:
        weights = members.weights[rows]
        counts, sums, squares, totals = naive.weighted_statistics(
            vectors, labels, weights, len(made.table), max_component=largest
        )
        assert state.sums.weights.tolist() == totals
        if is_at_rest:
            assert weights.tolist() == decay.weight(members.timestamps[rows]).tolist()
    assert state.sums.counts.tolist() == counts
    assert state.sums.sums.tolist() == sums
    assert naive.square_totals(state.sums.squares) == squares


def published(made, partition=0):
    """Cluster -> its row, of all clusters."""
    state = made.partitions[partition]
    state.dirty[:] = True
    changes = made.publish_statistics(partition)
    made.install(changes)
    rows = {out.key.decode().partition("/")[2]: out.value for out in changes.outgoing}
    rows.pop("")
    return rows


def statistics(made):
    """Cluster -> what its members add up to, as published."""
    rows = {cluster: decode_statistics(row) for cluster, row in published(made).items()}
    return {
        cluster: (row.count, row.square_high, row.square_low, row.weight, row.sums.tolist())
        for cluster, row in rows.items()
    }


# --- records ------------------------------------------------------------------------------


def test_an_item_counts_by_the_time_of_its_record():
    made = engine(first=fading())

    write(made, [at(0, "now", [0, 1], 0), at(1, "old", [0, 2], -1), at(2, "new", [0, 3], 2)])

    assert weights_of(made) == {"now": 1.0, "old": 0.5, "new": 4.0}
    row = decode_statistics(published(made)["c2"])
    assert (row.count, row.weight * 2.0**-31) == (3, 5.5)
    assert (row.sums * 256.0 * 2.0**-32).tolist() == [0.0, 1 + 1 + 12]
    check(made, is_at_rest=True)


def test_an_item_without_a_time_does_not_fade():
    made = engine(first=fading(landmark_ms=T0 + 10 * HOUR_MS))

    write(made, [at(0, "none", [0, 1], None), at(1, "old", [0, 1], 0)])
    write(made, [at(2, "odd", [0, 1], 0)._replace(timestamp_ms=-7)])

    assert weights_of(made) == {"none": 1.0, "old": 2.0**-10, "odd": 1.0}
    assert made.partitions[0].members.timestamps[:3].tolist() == [-1, T0, -1]
    check(made, is_at_rest=True)


def test_a_late_record_counts_by_its_own_time():
    made = engine(first=fading())
    write(made, [at(0, "a", [-9, 0], 3)])

    write(made, [at(1, "a", [9, 0], 1)])

    assert weights_of(made) == {"a": 2.0}
    check(made, is_at_rest=True)
    write(made, [at(2, "a", None, 5)])
    check(made)
    assert not made.partitions[0].sums.weights.any()
    assert not made.partitions[0].sums.sums.any()


def test_a_stale_record_leaves_the_weight_alone():
    made = engine(first=fading())

    write(made, [at(0, "a", [0, 1], 1, sequence=5), at(1, "a", [0, 1], 3, sequence=4)])
    write(made, [at(2, "a", [0, 1], 3, sequence=5)])

    assert weights_of(made) == {"a": 2.0}
    check(made, is_at_rest=True)


@pytest.mark.parametrize("is_same_batch", [True, False])
def test_a_copy_carries_the_time_of_its_own_record(is_same_batch):
    made = engine(first=fading())
    good, bad = at(0, "a", [0, 1], -2), at(1, "a", b"no vector", 5)

    out = write(made, [good, bad]) if is_same_batch else write(made, [good]) + write(made, [bad])

    (copy,) = of_topic(out, TOPICS.vectors)
    assert record_timestamp(Record(0, 0, b"a", b"", 99, copy.headers)) == T0 - 2 * HOUR_MS
    assert copy.timestamp_ms is None
    assert weights_of(made) == {"a": 0.25}


def test_every_copy_carries_its_time_where_the_input_keeps_nothing():
    made = engine(compacted=False, first=fading(input_policy="delete"))

    out = write(made, [at(0, "a", [0, 1], -2), at(1, "b", [0, 1], None)])

    a, b = of_topic(out, TOPICS.vectors)
    assert a.headers == (("eddy-timestamp", str(T0 - 2 * HOUR_MS).encode()),)
    assert b.headers == ()


# --- models -------------------------------------------------------------------------------


def test_a_new_landmark_counts_every_member_anew_without_an_event():
    made = engine(first=fading())
    write(made, [at(n, f"i{n}", [n - 3, 0], -n) for n in range(7)])
    sweep(made)
    published(made)

    made.install_model(fading(epoch=2, landmark_ms=T0 + 3 * HOUR_MS))
    check(made)
    made.install(made.sweep(0, max_rows=3))

    halfway = weights_of(made)
    assert halfway == {f"i{n}": 2.0 ** -(n + 3 if n < 3 else n) for n in range(7)}
    check(made)
    assert sweep(made) == []
    assert weights_of(made) == {f"i{n}": 2.0 ** -(n + 3) for n in range(7)}
    assert made.partitions[0].swept_to == Version(2, 0)
    check(made, is_at_rest=True)


def test_records_in_the_middle_of_it_count_by_the_new_landmark():
    made = engine(first=fading())
    write(made, [at(n, f"i{n}", [n - 3, 0], 0) for n in range(6)])
    sweep(made)
    made.install_model(fading(epoch=2, landmark_ms=T0 + HOUR_MS))
    made.install(made.sweep(0, max_rows=2))

    write(made, [at(6, "i0", [1, 1], 0), at(7, "i5", [9, 0], 2), at(8, "i4", None, 2)])
    check(made)
    write(made, [at(9, "new", [9, 0], 2), at(10, "i1", None, 2)])
    check(made)

    sweep(made)
    assert weights_of(made) == {"i0": 0.5, "i2": 0.5, "i3": 0.5, "i5": 2.0, "new": 2.0}
    check(made, is_at_rest=True)


def test_an_epoch_with_the_same_landmark_counts_nobody_anew():
    made = engine(first=fading())
    write(made, [at(n, f"i{n}", [n - 3, 0], -n) for n in range(7)])
    sweep(made)

    made.install_model(fading(epoch=2))
    changes = made.sweep(0, max_rows=10)

    assert len(changes.partitions[0].recounted) == 0
    assert changes.tally.n_checked == 7


def test_a_revision_keeps_weights_and_proofs():
    made = engine(first=fading())
    write(made, [at(n, f"i{n}", [x, 0], -n) for n, x in enumerate([-10, -5.1, 0, 4.9])])
    sweep(made)

    made.install_model(fading(LINE - np.float32([0.5, 0]), revision=1))
    assert made.n_unproven() == 2
    assert len(of_topic(sweep(made), TOPICS.changes)) == 2

    assert weights_of(made) == {f"i{n}": 2.0**-n for n in range(4)}
    check(made, is_at_rest=True)


def test_another_landmark_is_never_taken_for_a_revision():
    made = engine(first=fading())
    write(made, [at(n, f"i{n}", [0, 0], -n) for n in range(4)])
    sweep(made)

    made.install_model(fading(revision=1, landmark_ms=T0 - HOUR_MS))
    sweep(made)

    check(made, is_at_rest=True)
    assert weights_of(made)["i0"] == 2.0


def test_the_same_epoch_met_by_another_way_gives_the_same_statistics():
    """A crash in the middle of the sweep: the partition is read back under the new landmark."""
    later = fading(epoch=2, landmark_ms=T0 + HOUR_MS)
    made = engine(first=fading())
    write(made, [at(n, f"i{n}", [n - 3, 1], n / 7 - 3) for n in range(7)])
    write(made, [at(7, "i2", None, 0), at(8, "i6", [5, 5], None)])
    sweep(made)
    made.install_model(later)
    made.install(made.sweep(0, max_rows=2))
    again = engine(first=later, n_partitions=0)

    again.adopt(read_back(made))
    sweep(made)

    check(again)
    sweep(again)
    assert weights_of(again) == weights_of(made)
    assert statistics(again) == statistics(made)


def read_back(made):
    """What a restore finds of partition 0: labels by name, rows without holes."""
    state = made.partitions[0]
    old, rows = state.members, state.members.occupied()
    members = Members(old.vectors.shape[1])
    new = members.put(old.names(rows))
    for name in ("vectors", "sequences", "offsets", "kept", "timestamps"):
        getattr(members, name)[new] = getattr(old, name)[rows]
    names = [made.table.ids[label] for label in old.labels[rows]]
    return Restored(0, state.next_offset, members, names, {}, set(), 0)


def test_switching_forgetting_on_and_off_leaves_the_plain_sums_as_they_were():
    made = engine(first=model(LINE))
    write(made, [at(n, f"i{n}", [n - 3, 0.1], -n) for n in range(7)])
    write(made, [at(7, "i2", None, 0)])
    sweep(made)
    before = statistics(made)
    made.install_model(model(LINE, epoch=2))
    made.install(made.sweep(0, max_rows=2))  # and in the middle of a sweep

    made.install_model(fading(epoch=3))
    check(made, is_at_rest=True)
    assert {decode_statistics(row).weight is None for row in published(made).values()} == {False}
    made.install(made.sweep(0, max_rows=2))
    made.install_model(model(LINE, epoch=4))
    check(made)
    sweep(made)

    assert statistics(made) == before
    assert {weight for _, _, _, weight, _ in before.values()} == {None}


def test_members_of_a_retired_cluster_keep_their_weight_until_they_are_swept():
    made = engine(first=fading())
    write(made, [at(0, "a", [-9, 0], -1), at(1, "b", [9, 0], -2)])
    sweep(made)

    made.install_model(fading(LINE[:2], epoch=2, clusters=("c2", "c9"), landmark_ms=T0 + HOUR_MS))
    check(made)
    sweep(made)

    check(made, is_at_rest=True)
    assert weights_of(made) == {"a": 0.25, "b": 0.125}


def test_totals_are_the_weighted_means_of_all_partitions():
    made = engine(first=fading(), n_partitions=2)
    write(made, [at(0, "a", [0, 4], 0), at(0, "b", [0, 1], 1, partition=1)])
    totals = Totals(2, 2, max_component=256.0)
    totals.opened()
    for p in range(2):
        sweep(made, p)
        out = made.publish_statistics(p).outgoing
        totals.fold([Record(p, n, o.key, o.value) for n, o in enumerate(out)])

    assert totals.are_swept_to(1)
    assert totals.counts(["c2"]).tolist() == [2]
    assert totals.weights(["c2"]).tolist() == [3.0]
    assert totals.means(["c2"]).tolist() == [[0.0, (4 + 2) / 3]]
    assert totals.squares(["c2"]).tolist() == [16 + 2]


# --- laws ---------------------------------------------------------------------------------

hours = st.none() | st.floats(-40, 20, allow_nan=False) | st.integers(-3, 3)
places = st.tuples(st.floats(-12, 12, width=32), st.floats(-3, 3, width=32))
upserts = st.tuples(st.just("put"), st.integers(0, 5), places, hours, st.integers(0, 3))
removals = st.tuples(st.just("remove"), st.integers(0, 5))
others = st.tuples(st.sampled_from(["sweep", "revise", "landmark", "switch", "restore"]))
steps = st.lists(upserts | removals | others, max_size=25)


@settings(deadline=None, max_examples=60)
@given(steps=steps, data=st.data())
def test_statistics_are_a_recomputation_after_every_step_and_zeros_at_the_end(steps, data):
    made = engine(first=fading())
    epoch = 1
    for offset, step in enumerate([*steps, *(("remove", n) for n in range(6))]):
        manifest = made.loaded.model.manifest
        landmark_ms, half_life_s = manifest.landmark_ms, manifest.half_life_s
        if step[0] == "put":
            _, item, place, hour, sequence = step
            write(made, [at(offset, f"i{item}", place, hour, sequence=sequence)])
        elif step[0] == "remove":
            write(made, [at(offset, f"i{step[1]}", None, 0)])
        elif step[0] == "sweep":
            if made.partitions[0].to_sweep:
                made.install(made.sweep(0, max_rows=2))
        elif step[0] == "restore":
            made.adopt(read_back(made))
        elif step[0] == "revise":
            centroids = LINE + np.float32(data.draw(st.floats(-2, 2)))
            made.install_model(
                model(centroids, epoch=epoch, revision=manifest.revision + 1,
                      half_life_s=half_life_s, landmark_ms=landmark_ms)
            )  # fmt: skip
        else:
            epoch += 1
            made.install_model(
                model(LINE, epoch=epoch)
                if step[0] == "switch" and half_life_s is not None
                else fading(epoch=epoch, landmark_ms=T0 + HOUR_MS * data.draw(st.integers(-9, 9)))
            )
        check(made, is_at_rest=not made.partitions[0].to_sweep)
    sums = made.partitions[0].sums
    for name in sums.arrays:
        assert not getattr(sums, name).any()


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.none() | places, hours), min_size=1, max_size=30),
    st.data(),
)
def test_a_replay_gives_the_same_bytes_whatever_the_batches(history, data):
    records = [at(n, f"i{item}", place, hour) for n, (item, place, hour) in enumerate(history)]
    cut = data.draw(st.integers(0, len(records)))

    def played(*batches):
        made = engine(compacted=False, first=fading(input_policy="delete"))
        copies = {}
        for batch in batches:
            if batch:
                twice = made.prepare(batch).outgoing  # an aborted transaction left no trace
                out = write(made, batch)
                assert out == twice
                copies |= {o.key: o for o in of_topic(out, TOPICS.vectors)}
        sweep(made)
        return copies, statistics(made)

    assert played(records) == played(records[:cut], records[cut:])


def test_weights_of_far_times_stay_within_their_bounds():
    made = engine(first=fading())

    write(made, [record(0, "past", [0, 1])._replace(timestamp_ms=0)])
    write(made, [record(1, "future", [0, 1])._replace(timestamp_ms=2**63 - 1)])

    assert weights_of(made) == {"past": 2.0**-16, "future": 2.0**8}
    assert math.isfinite(decode_statistics(published(made)["c2"]).weight)
    check(made, is_at_rest=True)
