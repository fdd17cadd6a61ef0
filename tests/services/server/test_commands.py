"""Commands are jobs, and replicas that know the same topics say the same."""

from __future__ import annotations

import json

import pytest

from pipeline.config import ServerPolicy
from pipeline.services.server.app import openapi
from tests.services.server.conftest import Site
from tests.simulation.test_commands import CORNERS, corner_of, put


def post(site, path, body, **headers):
    return site.client.post(f"/api/v1{path}", json=body, headers=headers)


def test_a_command_is_a_job_from_the_queue_to_its_outcome(make_site):
    site = make_site()
    cluster = corner_of(site.world, 0)

    asked = post(site, f"/clusters/{cluster}/split", {"reason": "too wide"})

    assert asked.status_code == 202
    job = asked.json()
    assert (job["state"], job["kind"]) == ("queued", "split")
    assert asked.headers["location"] == f"/api/v1/jobs/{job['id']}"
    site.follow()
    assert site.client.get(asked.headers["location"]).json()["state"] == "queued"
    site.settle()
    done = site.client.get(asked.headers["location"]).json()
    assert done["state"] == "succeeded"
    assert {"split", "born"} <= {event["type"] for event in done["result"]}
    assert [one["id"] for one in site.pages("/jobs")] == [job["id"]]


def test_a_command_that_is_not_carried_out_says_why(make_site):
    site = make_site()
    job = post(site, "/recluster", {}).json()  # without a gain
    site.settle()

    told = site.ok(f"/jobs/{job['id']}")

    assert told["state"] in ("failed", "succeeded")
    assert (told["state"] == "failed") == bool(told["problem"])


def test_a_label_is_shown_once_it_is_carried_out(make_site):
    site = make_site()

    answer = site.client.put("/api/v1/clusters/c1/label", json={"label": "Fonts & Töne"})
    assert answer.status_code == 202
    site.settle()

    assert site.ok("/clusters/c1")["label"] == "Fonts & Töne"


def test_an_idempotency_key_makes_one_job_of_many_askings(make_site):
    site = make_site()
    first = post(site, "/recluster", {"force": True}, **{"Idempotency-Key": "k"}).json()
    site.settle()

    again = post(site, "/recluster", {"force": True}, **{"Idempotency-Key": "k"})
    other = post(site, "/recluster", {"cold": True}, **{"Idempotency-Key": "k"})

    assert again.json()["id"] == first["id"]
    assert again.json()["state"] == "succeeded"
    assert (other.status_code, other.json()["type"]) == (422, "/problems/conflict")
    (records,) = site.world.committed(site.world.topics.commands)
    assert len(records) == 1


def test_the_server_writes_to_no_topic_but_that_of_commands(make_site):
    site = make_site()
    names = [name for name in site.world.topics.names if name != site.world.topics.commands]
    before = {name: site.world.committed(name) for name in names}

    post(site, "/recluster", {})
    for path in ("/clusters", "/items/item-0", "/items/item-0/similar", "/stats"):
        site.ok(path)

    assert {name: site.world.committed(name) for name in names} == before


QUESTIONS = [
    "/clusters", "/clusters?sort=growth", "/clusters/c1", "/clusters/c1/members",
    "/clusters/c1/members?order=item_id", "/clusters/c1/similar", "/clusters/c1/timeline",
    "/items/item-0", "/items/item-0/related", "/items/item-0/similar?limit=30", "/trending",
    "/flows", "/drift", "/drift/alarms", "/lifecycle", "/model", "/models",
    "/changes", "/changes?item=item-3", "/jobs",
]  # fmt: skip


@pytest.mark.sim
@pytest.mark.parametrize("seed", range(2))
def test_replicas_give_the_same_answers_whenever_they_began(make_site, seed):
    """One follows from the beginning, through faults; one begins at the end."""
    early = make_site()
    world = early.world
    world.rng = type(world.rng)(type(world.rng.bit_generator)(seed))
    world.crash_rate = 0.01
    for _ in range(3):
        world.live(40)
        early.server.follower.step()
        for i in range(0, 80, 8):
            put(world, i, CORNERS[int(world.rng.integers(4))] + world.rng.normal(0, 2, 3))
    early.settle()

    late = Site(world, ServerPolicy())

    for question in QUESTIONS:
        one, other = (site.client.get(f"/api/v1{question}") for site in (early, late))
        assert one.status_code == other.status_code, question
        assert one.json().get("items", one.json()) == other.json().get("items", other.json())
        assert one.headers.get("etag") == other.headers.get("etag"), question
    cursor = early.ok("/changes", limit=5)["next_cursor"]
    assert late.ok("/changes", limit=5, cursor=cursor) == early.ok(
        "/changes", limit=5, cursor=cursor
    )


def test_listeners_are_told_every_change_once_and_in_order(make_site):
    site = make_site()
    told = [change for news in site.news for change in news.changes]

    written = [
        json.loads(record.value)["id"]
        for records in site.world.committed(site.world.topics.changes)
        for record in records
    ]
    assert sorted(change.id for change in told) == sorted(written)
    for partition in range(site.world.topics.partitions):
        offsets = [change.offset for change in told if change.partition == partition]
        assert offsets == sorted(offsets)
    assert any(news.has_new_model for news in site.news)
    assert any(news.lifecycle for news in site.news)


def test_behind_a_proxy_under_a_path_addresses_have_it(make_site):
    site = make_site(ServerPolicy(root_path="/eddy"))

    def get(path):
        return site.client.get(f"/eddy{path}")

    assert get("/api/v1/clusters?limit=1").headers["link"].startswith("</eddy/api/v1/clusters?")
    asked = site.client.post("/eddy/api/v1/recluster", json={})
    assert asked.headers["location"].startswith("/eddy/api/v1/jobs/")
    assert get("/api/v1/items/none").json()["type"] == "/eddy/problems/not-found"
    assert get("/problems/not-found").status_code == 200


def test_the_description_tells_of_every_route(corners):
    told = openapi(corners.server.api)

    assert "/api/v1/clusters/{cluster_id}/members" in told["paths"]
    assert "/health" not in told["paths"]
