"""Writing through Kafka's contract, and reading exactly what that did."""

from __future__ import annotations

import pytest

from pipeline.client.problems import NotAppliedError, NotFoundError, ViewBehindError
from pipeline.errors import RecordError, UsageError
from tests.simulation.test_commands import CORNERS


def test_put_returns_the_change_of_exactly_that_record(client):
    first = client.put("put-a", CORNERS[0])
    again = client.put("put-a", CORNERS[3])

    assert (first.change.type, again.change.type) == ("assigned", "reassigned")
    assert again.change.from_cluster == first.cluster
    assert again.change.to_cluster == again.cluster == again.assignment.cluster
    for put in (first, again):
        assert (put.change.partition, put.change.offset) == (put.partition, put.offset)
    assert again.assignment.offset == again.offset


def test_a_record_that_moves_nothing_has_no_change(client):
    client.put("put-b", CORNERS[1])

    again = client.put("put-b", CORNERS[1] + 0.25)

    assert again.change is None
    assert again.assignment.offset == again.offset


def test_delete_takes_the_item_away(client):
    put = client.put("put-c", CORNERS[1])

    gone = client.delete("put-c")

    assert gone.change.type == "removed"
    assert gone.change.from_cluster == put.cluster
    assert gone.assignment is None
    with pytest.raises(NotFoundError):
        client.item("put-c")


@pytest.mark.parametrize("item", ["a/b", "..", "ä\n\t", "~b64:x", "100%", "?x=1", " ", "x" * 512])
def test_any_id_can_be_put_and_asked_for(client, item):
    assert client.put(item, CORNERS[2]).assignment.item == item
    assert client.delete(item).assignment is None


def test_an_answer_after_a_put_knows_of_it(client, living):
    with living.paused():
        put = client.put("put-d", CORNERS[0], wait=False)
        assert put.assignment is None
        with pytest.raises(NotFoundError):
            client.item("put-d")  # negative control

    after = client.after(put)

    assert after.item("put-d").offset == put.offset
    assert "put-d" in {near.item for near in after.similar(CORNERS[0], limit=200)}


def test_what_does_not_show_in_time_is_said_so(living):
    with (
        living.client(timeout_s=2.0) as hurried,
        living.paused(),
        pytest.raises(ViewBehindError),
    ):
        hurried.put("put-e", CORNERS[0])


def test_a_record_that_would_be_a_dead_letter_is_not_written(client, living):
    log = sum(log.high for log in living.broker.ranges(living.topics.input).values())

    with pytest.raises(RecordError, match="2 dimensions, but expected 3"):
        client.put("put-f", [1.0, 2.0])
    with pytest.raises(RecordError):
        client.put("x" * 513, CORNERS[0])
    with pytest.raises(RecordError):
        client.put("put-f", CORNERS[0], {"nested": {"a": 1}})
    with pytest.raises(UsageError):
        client.put("put-f", [float("nan")] * 3)

    assert log == sum(log.high for log in living.broker.ranges(living.topics.input).values())


def test_an_old_sequence_is_told_to_have_done_nothing(client):
    client.put("put-g", CORNERS[0], sequence=7)

    with pytest.raises(NotAppliedError, match="sequence"):
        client.put("put-g", CORNERS[1], sequence=6)

    assert client.put("put-g", CORNERS[1], sequence=8).change.type == "reassigned"


def test_metadata_travels_with_the_record(client, living):
    put = client.put("put-h", CORNERS[0], {"shop": "no", "price": 3})

    record = living.broker.records(living.topics.input, put.partition)[put.offset]

    assert dict(record.headers)["eddy-metadata"] == b'{"shop":"no","price":3}'


def test_without_kafka_it_says_what_is_missing(living):
    with living.client(broker=None) as client, pytest.raises(UsageError, match="bootstrap.servers"):
        client.put("put-i", CORNERS[0])
