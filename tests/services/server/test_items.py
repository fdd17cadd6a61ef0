"""What the server says of items, of their changes, and of what is like them."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from pipeline.config import ServerPolicy
from pipeline.messages.codec import encode_vector
from tests.services.server.test_clusters import everywhere
from tests.simulation.judge import newest_model
from tests.simulation.test_commands import CORNERS, corner_of, put


def vectors_of(world):
    """Item -> its vector, by the input alone."""
    found = {}
    for records in world.committed(world.topics.input):
        for record in records:
            if record.value is None:
                found.pop(record.key.decode(), None)
            else:
                found[record.key.decode()] = np.frombuffer(record.value[20:], "<f4")
    return found


def test_every_item_is_where_the_assignments_say(corners):
    for item, cluster in everywhere(corners.world).items():
        body = corners.ok(f"/items/{item}")

        assert (body["item"], body["cluster"]) == (item, cluster)


def test_margin_is_to_the_second_nearest_centroid(corners):
    _, centroids, _ = newest_model(corners.world)
    vector = vectors_of(corners.world)["item-7"]
    best, second = sorted(np.linalg.norm(centroids.astype(float) - vector, axis=1))[:2]

    body = corners.ok("/items/item-7")

    assert body["margin"] == pytest.approx(second - best, rel=1e-6)
    assert body["confidence"] == pytest.approx((second - best) / second, rel=1e-6)


def test_an_item_that_moved_shows_where_from(make_site):
    site = make_site(follows=False)
    before, after = corner_of(site.world, 0), corner_of(site.world, 1)
    put(site.world, 0, CORNERS[1])
    site.settle()

    body = site.ok("/items/item-0")

    assert body["cluster"] == after
    assert [(c["from"], c["to"]) for c in body["changes"]] == [(before, after), (None, before)]
    moves = site.pages("/changes", item="item-0", limit=1)
    assert moves == body["changes"]
    assert site.ok("/flows")["items"] == [{"from": before, "to": after, "count": 1}]
    trends = {row["cluster"]: row for row in site.ok("/trending", by="net")["items"]}
    assert (trends[before]["lost"], trends[after]["net"]) == (1, 21)
    sizes = site.ok(f"/clusters/{before}/timeline")["sizes"]
    assert (sizes[-1]["size"], sizes[0]["size"]) == (19, 0)
    assert sum(b["gained"] - b["lost"] for b in sizes) == 19


def test_a_removed_item_is_nowhere(make_site):
    site = make_site()
    site.world.broker.append(site.world.topics.input, 0, b"item-0", None, (), 1)
    site.settle()

    assert site.get("/items/item-0").status_code == 404
    assert site.ok("/stats")["items"] == 79
    newest = site.ok("/changes", item="item-0")["items"][0]
    assert (newest["type"], newest["to"]) == ("removed", None)
    assert site.ok("/items/item-4/similar", limit=200)["items"][-1]["item"] != "item-0"


def test_ids_that_fit_into_no_path_are_written_in_base64(make_site):
    site = make_site()
    strange = "a/b\n~c é"
    value = encode_vector(np.array([1, 1, 0], np.float32))
    site.world.broker.append(site.world.topics.input, 0, strange.encode(), value, (), 1)
    site.settle()
    word = base64.urlsafe_b64encode(strange.encode()).decode().rstrip("=")

    assert site.ok(f"/items/~b64:{word}")["item"] == strange
    assert site.get("/items/~b64:!").status_code == 422


def test_changes_come_newest_first_and_each_once(corners):
    rows = corners.pages("/changes", limit=9)

    assert len({row["id"] for row in rows}) == len(rows) == 80
    times = [row["emitted_at"] for row in rows]
    assert times == sorted(times, reverse=True)
    of_one = corners.pages("/changes", cluster="c1")
    assert {row["to"] for row in of_one} == {"c1"}
    assert corners.pages("/changes", since="2999-01-01T00:00:00Z") == []


@pytest.mark.parametrize("scope", ["related", "similar"])
def test_neighbours_are_those_of_a_plain_scan(corners, scope):
    vectors, where = vectors_of(corners.world), everywhere(corners.world)

    for item in ("item-0", "item-13", "item-79"):
        found = corners.ok(f"/items/{item}/{scope}", limit=15)["items"]

        pool = [o for o in vectors if o != item and (scope == "similar" or where[o] == where[item])]
        truth = sorted(
            (float(np.linalg.norm(vectors[o].astype(float) - vectors[item])), o) for o in pool
        )[:15]
        assert [row["item"] for row in found] == [o for _, o in truth]
        assert [row["distance"] for row in found] == pytest.approx([d for d, _ in truth])


def test_min_similarity_cuts_the_far_ones(corners):
    everything = corners.ok("/items/item-0/similar", limit=50)["items"]
    border = everything[9]["similarity"]

    near = corners.ok("/items/item-0/similar", limit=50, min_similarity=border)["items"]

    assert near == everything[:10]


def test_a_vector_finds_its_items_and_its_cluster(corners):
    vector = vectors_of(corners.world)["item-5"].tolist()

    answer = corners.client.post("/api/v1/similar", json={"vector": vector, "limit": 1})
    near = answer.json()["items"]
    belongs = corners.client.post("/api/v1/assign", json={"vector": vector}).json()

    assert [(row["item"], row["distance"]) for row in near] == [("item-5", 0.0)]
    assert belongs["cluster"] == corners.ok("/items/item-5")["cluster"]


def test_a_vector_that_changed_is_found_by_what_it_is_now(make_site):
    site = make_site(follows=False)
    put(site.world, 0, [40.25, 39.75, 0])
    site.settle()

    body = {"vector": [40.25, 39.75, 0], "limit": 1}
    (found,) = site.client.post("/api/v1/similar", json=body).json()["items"]

    assert (found["item"], found["distance"]) == ("item-0", 0.0)


def test_vectors_come_from_their_copies_where_the_input_keeps_none(make_site):
    site = make_site(compacted=False)
    site.world.broker.truncate(site.world.topics.input, 0, before=5)
    put(site.world, 1, [3, 3, 3])
    site.settle()

    near = site.ok("/items/item-1/similar", limit=200)["items"]

    assert len(near) == 79


def test_a_dead_letter_leaves_the_vector_that_counts(make_site):
    """The input forgets it, and the copy stands in; so for a server that begins later."""
    site = make_site(follows=False)
    before = site.ok("/items/item-0/similar", limit=5)["items"]
    site.world.broker.append(site.world.topics.input, 0, b"item-0", b"EDV1", (), 1)
    site.world.settle()
    site.world.broker.compact(site.world.topics.input, 0, keep_tombstones=True)

    later = type(site)(site.world, ServerPolicy())

    assert later.ok("/items/item-0/similar", limit=5)["items"] == before


def test_without_vectors_nothing_is_compared(make_site):
    site = make_site(ServerPolicy(vectors="none"))

    for path in ("/items/item-0/related", "/items/item-0/similar"):
        answer = site.get(path)
        assert (answer.status_code, answer.json()["type"]) == (501, "/problems/vectors-not-kept")
    body = site.ok("/items/item-0")
    assert body["margin"] == body["changes"][0]["margin"]
    assert site.ok("/stats")["vectors"] is False


def test_vectors_that_would_not_fit_are_not_kept(make_site):
    site = make_site(ServerPolicy(max_vector_bytes=100))

    assert site.get("/items/item-0/similar").status_code == 501
    assert site.ok("/items/item-0")["cluster"]


def test_cosine_distances_are_those_of_the_wire(make_site):
    site = make_site(metric="cosine", n_clusters=2)
    item = site.ok("/items/item-1")
    vector = vectors_of(site.world)["item-1"].tolist()

    (found,) = site.client.post(
        "/api/v1/similar", json={"vector": [2 * x for x in vector], "limit": 1}
    ).json()["items"]

    assert found["item"] == "item-1"
    assert found["similarity"] == pytest.approx(1.0)
    belongs = site.client.post("/api/v1/assign", json={"vector": vector}).json()
    assert belongs["cluster"] == item["cluster"]
