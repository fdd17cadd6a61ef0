"""Following the events of the topic, and going on where one stopped."""

from __future__ import annotations

import json
import threading

import pytest

from pipeline.errors import UsageError
from tests.simulation.test_commands import CORNERS


def test_a_subscription_hands_out_what_comes_after_it(client):
    with client.subscribe(idle_s=0.0) as events:
        put = client.put("sub-a", CORNERS[0])
        assert [event for event in events if event.item == "sub-a"] == [put.change]


def test_it_goes_on_where_the_one_before_stopped(client):
    with client.subscribe(items=["sub-b"], idle_s=0.0) as events:
        for n in range(4):
            client.put("sub-b", CORNERS[n])
        seen = [next(iter(events)).to_cluster]
        kept = json.loads(json.dumps(dict(events.positions)))

    positions = {int(partition): offset for partition, offset in kept.items()}
    with client.subscribe(start=positions, items=["sub-b"], idle_s=0.0) as rest:
        seen += [event.to_cluster for event in rest]

    assert seen == [change.to_cluster for change in reversed(list(client.changes(item="sub-b")))]
    assert len(seen) == 4


def test_only_what_is_wanted_is_handed_out(client):
    cluster = client.put("sub-c", CORNERS[0]).cluster
    client.put("sub-c", CORNERS[1])
    client.delete("sub-c")

    def told(**wanted):
        with client.subscribe(start="earliest", idle_s=0.0, **wanted) as events:
            return [(event.item, event.type) for event in events]

    everything = told()
    assert ("item-1", "assigned") in everything
    assert told(items=["sub-c"], types=["removed"]) == [("sub-c", "removed")]
    assert told(items=["sub-c"], clusters=[cluster]) == [
        ("sub-c", "assigned"), ("sub-c", "reassigned"),
    ]  # fmt: skip
    assert told(items=[]) == []


def test_it_ends_when_it_is_closed_by_another(client):
    events = client.subscribe()
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(events), daemon=True)
    reader.start()

    events.close()
    reader.join(30)

    assert not reader.is_alive()
    assert seen == []


def test_a_start_that_is_none_is_refused(client):
    with pytest.raises(UsageError, match="latest"):
        client.subscribe(start="now")
