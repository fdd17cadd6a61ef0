"""What producers say of items beside the vector is told, and asked for by value."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.config import ServerPolicy
from pipeline.messages.codec import encode_vector
from pipeline.services.server.live.news import events_of
from pipeline.services.server.live.wanted import wanted_of_message
from pipeline.services.server.problems import ProblemError
from tests.services.server.conftest import Site, world_of_corners
from tests.simulation.test_commands import CORNERS, put


def say(world, i, metadata, corner=None):
    """Item i once more, with metadata; like `put`, but for the header."""
    vector = np.asarray(CORNERS[i % 4 if corner is None else corner], np.float32)
    headers = (("eddy-metadata", json.dumps(metadata).encode()),)
    value, key = encode_vector(vector + np.float32(i / 1000)), f"item-{i}".encode()
    partition = i % world.topics.partitions
    world.broker.append(world.topics.input, partition, key, value, headers, 1)


@pytest.fixture(scope="module")
def told():
    """Eighty items, of which forty have metadata."""
    site = Site(world_of_corners(), ServerPolicy())
    for i in range(40):
        say(site.world, i, {"section": f"s{i % 2}", "size": i, "free": i % 3 == 0})
    site.settle()
    return site


def test_items_tell_what_was_said_of_them(told):
    assert told.ok("/items/item-3")["metadata"] == {"section": "s1", "size": 3, "free": True}
    assert told.ok("/items/item-70")["metadata"] == {}
    near = told.ok("/items/item-3/similar", limit=5)["items"]
    assert all(row["metadata"] == told.ok(f"/items/{row['item']}")["metadata"] for row in near)


def test_everything_may_be_asked_for_by_value(told):
    cluster = told.ok("/items/item-4")["cluster"]
    fits = [f"item-{i}" for i in range(4, 40, 4) if i % 3 == 0]
    where = ["section:s0", "free:true"]

    members = told.pages(f"/clusters/{cluster}/members", where=where, order="item_id", limit=2)
    assert [row["item"] for row in members] == sorted([*fits, "item-0"])
    related = told.ok("/items/item-4/related", where=where, limit=200)["items"]
    assert {row["item"] for row in related} == {*fits, "item-0"}
    similar = told.ok("/items/item-4/similar", where=["free:true"], limit=200)
    assert {row["item"] for row in similar["items"]} == {f"item-{i}" for i in range(0, 40, 3)}
    assert similar["index"] == "exact"
    body = {"vector": [0.0, 0.0, 0.0], "limit": 200, "where": ["size:7"]}
    (row,) = told.client.post("/api/v1/similar", json=body).json()["items"]
    assert row["item"] == "item-7"
    assert told.ok("/items/item-4/similar", where=["size:7", "section:s0"])["items"] == []


@pytest.mark.parametrize("where", ["section", ":s0", "x" * 600 + ":y"])
def test_conditions_that_are_none_are_refused(told, where):
    assert told.get("/items/item-4/similar", where=where).status_code == 422
    body = {"vector": [0.0, 0.0, 0.0], "where": [where]}
    assert told.client.post("/api/v1/similar", json=body).status_code == 422


def test_too_many_conditions_are_refused(told):
    many = [f"k{i}:v" for i in range(9)]
    assert told.get("/items/item-4/related", where=many).status_code == 422
    body = {"vector": [0.0, 0.0, 0.0], "where": many}
    assert told.client.post("/api/v1/similar", json=body).status_code == 422


def test_metadata_goes_with_its_record():
    site = Site(world_of_corners(), ServerPolicy())
    say(site.world, 0, {"section": "old"})
    site.settle()
    assert site.ok("/items/item-0")["metadata"] == {"section": "old"}

    put(site.world, 0, CORNERS[0])  # says nothing any more
    say(site.world, 1, {"section": "new"})
    site.settle()
    assert site.ok("/items/item-0")["metadata"] == {}
    site.world.broker.append(site.world.topics.input, 0, b"item-1", None, (), 1)
    site.settle()

    assert site.server.desk.view.items.metadata.fits([("section", "new")], 80).sum() in (0, 1)


def test_without_vectors_there_is_no_metadata_to_ask_for(make_site):
    site = make_site(ServerPolicy(vectors="none"))
    cluster = site.ok("/items/item-0")["cluster"]

    answer = site.get(f"/clusters/{cluster}/members", where="a:b")

    assert (answer.status_code, answer.json()["type"]) == (501, "/problems/vectors-not-kept")
    assert site.ok("/items/item-0")["metadata"] == {}


def test_events_bring_the_metadata_that_they_are_filtered_by():
    site = Site(world_of_corners(metadata=("section",)), ServerPolicy())
    site.news.clear()
    say(site.world, 0, {"section": "s0", "size": 1}, corner=1)
    site.settle()

    wanted = wanted_of_message({"channels": ["changes"], "filter": {"where": ["section:s0"]}})
    (told,) = [told for news in site.news for told in events_of(news) if told.item == "item-0"]
    assert told.metadata == {"section": "s0"}
    assert wanted.takes(told)
    other = wanted_of_message({"channels": ["changes"], "filter": {"where": ["section:s1"]}})
    assert not other.takes(told)
    with pytest.raises(ProblemError):
        wanted_of_message({"channels": ["changes"], "filter": {"where": ["section"]}})
