"""Negative controls: each promise is broken once, and the check that is for it objects.

A check that never objected to anything would pass everything.
"""

from __future__ import annotations

import dataclasses
import json
import struct

import numpy as np
import pytest

from tests.cli.history import (
    FADING,
    HALF_LIFE_MS,
    LANDMARK_MS,
    another,
    broken,
    edv1,
    events,
    told,
    vectors,
)


def row(history, item, partition=0):
    rows = history.broker.records(history.topics.assignments, partition)
    return json.loads([r.value for r in rows if r.key == item.encode() and r.value][-1])


def rewrite(history, item, partition=0, *, to=None, **other):
    """Write an assignment once more, by the newest model, but for what is ``other``."""
    history.assignment(partition, to or item, history.items[partition][item], **other)


def lost_assignment(history):
    history.append(history.topics.assignments, 0, "item-8", None)


def removed_item_keeps_its_assignment(history):
    rewrite(history, "item-10", to="item-2")


def assignment_of_nobody(history):
    rewrite(history, "item-10", to="stranger")


def other_cluster(history):
    rewrite(history, "item-8", cluster=another(history, "item-8"))


def other_source(history):
    rewrite(history, "item-8", source={"partition": 0, "offset": 3})


def other_distance(history):
    rewrite(history, "item-8", distance=row(history, "item-8")["distance"] * 1.0001)


def other_sequence(history):
    rewrite(history, "item-0", sequence=6)


def stale_record_applied(history):
    rewrite(history, "item-0", source={"partition": 0, "offset": stale_offset(history)}, sequence=6)


def stale_offset(history):
    rows = history.broker.records(history.topics.input, 0)
    return [r.offset for r in rows if r.key == b"item-0"][-1]


def model_goes_back(history):
    rewrite(history, "item-10", model={"epoch": 1, "revision": 0})


def vector_not_kept(history):
    history.append(history.topics.vectors, 0, "item-0", None)


def other_vector_kept(history):
    history.append(history.topics.vectors, 0, "item-0", edv1(vectors(1, 8)[0]))


def vector_of_a_removed_item_kept(history):
    history.append(history.topics.vectors, 0, "item-2", edv1(vectors(1, 8)[0]))


def repeated_event(history):
    last = events(history)[-1]
    history.append(history.topics.changes, 0, last.key, last.value)


def missing_step(history):
    item = history.items[0]["item-10"]
    history.event(0, "item-10", "c777", item.cluster, "record", item.offset, id="made-up")


def event_without_a_change(history):
    item = history.items[0]["item-12"]
    history.event(0, "item-12", item.cluster, item.cluster, "record", item.offset)


def event_of_the_past(history):
    item, other = history.items[0]["item-8"], another(history, "item-8")
    history.event(0, "item-8", item.cluster, other, "model", item.offset)
    history.event(0, "item-8", other, item.cluster, "record", 0)


def event_of_an_older_model(history):
    item, other = history.items[0]["item-8"], another(history, "item-8")
    old = {"id": "model/1.0/item-8", "model": {"epoch": 1, "revision": 0}}
    history.event(0, "item-8", item.cluster, other, "model", item.offset, **old)
    history.event(0, "item-8", other, item.cluster, "model", item.offset)


def event_lost(history):
    partition = 1
    log = history.broker._topics.log(history.topics.changes, partition)
    log.records = [r for r in log.records if r.key != b"item-9"]


def event_after_which_nothing_follows(history):
    item = history.items[0]["item-8"]
    history.event(0, "item-8", item.cluster, None, "model", item.offset)


def sum_is_off_by_one(history):
    name = history.items[0]["item-8"].cluster
    members = [i for i in history.items[0].values() if i.cluster == name]
    value = history.eds1(members, add=1)
    history.append(history.topics.statistics, 0, f"0/{name}", value)


def member_counted_twice(history):
    name = history.items[0]["item-8"].cluster
    members = [i for i in history.items[0].values() if i.cluster == name]
    value = history.eds1([*members, members[0]])
    history.append(history.topics.statistics, 0, f"0/{name}", value)


def square_is_off_by_one(history):
    name = history.items[0]["item-8"].cluster
    members = [i for i in history.items[0].values() if i.cluster == name]
    value = bytearray(history.eds1(members))
    struct.pack_into("<q", value, 32, struct.unpack_from("<q", value, 32)[0] + 1)
    history.append(history.topics.statistics, 0, f"0/{name}", bytes(value))


def statistics_missing(history):
    name = history.items[0]["item-8"].cluster
    history.append(history.topics.statistics, 0, f"0/{name}", None)


def statistics_of_a_retired_cluster(history):
    history.append(history.topics.statistics, 0, "0/c1", history.eds1([]))


def head_counts_wrong(history):
    history.head(0, members=1)


def dead_letter_missing(history):
    log = history.broker._topics.log(history.topics.dead_letters, 0)
    log.records = []


def dead_letters_of(history):
    return history.broker.records(history.topics.dead_letters, 0)[0]


def dead_letter_twice(history):
    letter = dead_letters_of(history)
    history.append(history.topics.dead_letters, 0, letter.key, letter.value, letter.headers)


def dead_letter_of_other_bytes(history):
    letter = dead_letters_of(history)
    dead_letter_missing(history)
    history.append(history.topics.dead_letters, 0, letter.key, b"else", letter.headers)


def dead_letter_with_a_wrong_reason(history):
    letter = dead_letters_of(history)
    dead_letter_missing(history)
    headers = [(n, b"dimension" if n.endswith("class.name") else v) for n, v in letter.headers]
    history.append(history.topics.dead_letters, 0, letter.key, letter.value, tuple(headers))


def dead_letter_of_a_good_record(history):
    letter = dead_letters_of(history)
    headers = [(n, b"0" if n.endswith(".offset") else v) for n, v in letter.headers]
    history.append(history.topics.dead_letters, 0, letter.key, letter.value, tuple(headers))


def manifest(history):
    rows = history.broker.records(history.topics.model, 0)
    return json.loads([r.value for r in rows if r.key == b"manifest"][-1])


def other_centroid(history):
    """The last bit of one component: no distance shows it, the digest does."""
    name = next(iter(history.centroids))
    centroid = history.centroids[name].copy()
    centroid[0] = np.nextafter(centroid[0], np.float32(np.inf))
    value = edv1(centroid) + struct.pack("<Qd", 1, 0.5)
    history.append(history.topics.model, 0, f"2/{name}", value)


def epoch_record_is_another(history):
    value = json.dumps(manifest(history) | {"revision": 0}).encode()
    history.append(history.topics.model, 0, "2", value)


def lifecycle_event_twice(history):
    for _ in range(2):
        history.append(history.topics.lifecycle, 0, "model", b'{"id": "1/model/installed"}')


CONTROLS = {
    lost_assignment: {"items", "event_chain", "statistics", "heads"},
    removed_item_keeps_its_assignment: {"items", "event_chain", "heads"},
    assignment_of_nobody: {"items", "event_chain", "heads"},
    other_cluster: {"nearest", "distances", "event_chain", "statistics"},
    other_source: {"sources", "event_order"},
    other_distance: {"distances"},
    other_sequence: {"sources"},
    stale_record_applied: {"sources"},
    model_goes_back: {"model_order"},
    vector_not_kept: {"sources"},
    other_vector_kept: {"sources"},
    vector_of_a_removed_item_kept: {"sources"},
    repeated_event: {"event_ids", "event_chain"},
    missing_step: {"event_chain", "event_ids"},
    event_without_a_change: {"event_chain", "event_ids"},
    event_of_the_past: {"event_order", "event_ids"},
    event_of_an_older_model: {"model_order"},
    event_lost: {"event_chain"},
    event_after_which_nothing_follows: {"event_chain"},
    sum_is_off_by_one: {"statistics"},
    member_counted_twice: {"statistics"},
    square_is_off_by_one: {"statistics"},
    statistics_missing: {"statistics"},
    statistics_of_a_retired_cluster: {"statistics"},
    head_counts_wrong: {"heads"},
    dead_letter_missing: {"dead_letters"},
    dead_letter_twice: {"dead_letters"},
    dead_letter_of_other_bytes: {"dead_letters"},
    dead_letter_with_a_wrong_reason: {"dead_letters"},
    dead_letter_of_a_good_record: {"dead_letters"},
    other_centroid: {"model"},
    epoch_record_is_another: {"model"},
    lifecycle_event_twice: {"event_ids"},
}


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.__name__)
def test_broken_promise_is_reported_by_its_check(control):
    history = told()

    control(history)

    found = broken(history)
    assert found == CONTROLS[control]


def weight_is_off_by_one(history):
    name = history.items[0]["item-8"].cluster
    members = [i for i in history.items[0].values() if i.cluster == name]
    history.append(history.topics.statistics, 0, f"0/{name}", history.eds1(members, add_weight=1))


def member_is_counted_as_if_it_were_a_half_life_older(history):
    name = history.items[0]["item-8"].cluster
    members = [i for i in history.items[0].values() if i.cluster == name]
    members[0] = dataclasses.replace(members[0], timestamp_ms=LANDMARK_MS - 12 * HALF_LIFE_MS)
    history.append(history.topics.statistics, 0, f"0/{name}", history.eds1(members))


def weight_is_missing(history):
    name = history.items[0]["item-8"].cluster
    rows = history.broker.records(history.topics.statistics, 0)
    value = [r.value for r in rows if r.key == f"0/{name}".encode()][-1]
    history.append(history.topics.statistics, 0, f"0/{name}", value[:-8])


def copy_has_the_time_of_its_copying(history):
    copy = edv1(history.items[0]["item-6"].vector)
    history.append(
        history.topics.vectors, 0, "item-6", copy, (("eddy-timestamp", b"1772366400001"),)
    )


def copy_has_no_time(history):
    history.append(history.topics.vectors, 0, "item-6", edv1(history.items[0]["item-6"].vector))


FADING_CONTROLS = {
    sum_is_off_by_one: {"statistics"},
    square_is_off_by_one: {"statistics"},
    weight_is_off_by_one: {"statistics"},
    member_is_counted_as_if_it_were_a_half_life_older: {"statistics"},
    member_counted_twice: {"statistics"},
    weight_is_missing: {"statistics"},
    copy_has_the_time_of_its_copying: {"sources"},
    copy_has_no_time: {"sources"},
}


@pytest.mark.parametrize("control", FADING_CONTROLS, ids=lambda control: control.__name__)
def test_broken_promise_about_members_that_fade_is_reported(control):
    history = told(forgetting=FADING)

    control(history)

    assert broken(history) == FADING_CONTROLS[control]


def test_weights_where_members_do_not_fade_are_reported():
    history = told()
    rows = history.broker.records(history.topics.statistics, 0)
    (*_, last) = [r for r in rows if b"/" in r.key and r.value]
    history.append(history.topics.statistics, 0, last.key, last.value + bytes(8))

    assert broken(history) == {"statistics"}
