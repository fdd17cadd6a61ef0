"""Bad input, and who may not ask: a documented status, a problem object, and no more than that."""

from __future__ import annotations

import base64
import json

import pytest

from pipeline.config import AuthPolicy, ServerPolicy
from pipeline.errors import ConfigError
from pipeline.services.server.access import Doorkeeper, check_exposure, read_tokens
from pipeline.services.server.problems import MEANINGS, TITLES
from tests.services.server.conftest import READER, WRITER, Site, TimedWorld

FIELDS = {"type", "title", "status", "detail", "instance", "request_id", "trace_id", "errors"}


def problem(answer, status, name):
    """The problem object, after a look at its form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body.keys() >= FIELDS
    assert (body["type"], body["status"]) == (f"/problems/{name}", status)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return body


@pytest.mark.parametrize(
    ("path", "status", "name"),
    [
        ("/items/nobody", 404, "not-found"),
        ("/nowhere", 404, "not-found"),
        ("/jobs/none", 404, "not-found"),
        ("/clusters?limit=0", 422, "invalid-request"),
        ("/clusters?limit=501", 422, "invalid-request"),
        ("/clusters?sort=luck", 422, "invalid-request"),
        ("/clusters?cursor=abc", 400, "invalid-cursor"),
        ("/clusters?cursor=%C3%A9", 400, "invalid-cursor"),
        ("/changes?since=yesterday", 422, "invalid-request"),
        ("/items/item-0/similar?limit=201", 422, "invalid-request"),
        ("/items/item-0/similar?min_similarity=nan", 422, "invalid-request"),
        ("/items/~b64:%F0", 422, "invalid-request"),
        ("/stats?min_offset=7:0", 422, "invalid-request"),
        ("/stats?min_offset=x", 422, "invalid-request"),
        ("/clusters/c1/timeline?from=2020-01-01&to=2019-01-01", 422, "invalid-request"),
    ],
)
def test_a_bad_question_is_answered_by_a_problem(corners, path, status, name):
    problem(corners.client.get(f"/api/v1{path}"), status, name)


@pytest.mark.parametrize(
    ("path", "body", "status", "name"),
    [
        ("/similar", {"vector": [1.0, 2.0]}, 422, "dimension-mismatch"),
        ("/assign", {"vector": [1.0] * 4}, 422, "dimension-mismatch"),
        ("/similar", {"vector": ["x", 1, 2]}, 422, "invalid-request"),
        ("/similar", {"vector": [1e300, 1, 2]}, 422, "invalid-request"),
        ("/similar", {"vector": [1000.0, 1, 2]}, 422, "invalid-request"),
        ("/similar", {"vector": [1, 1, 2], "limit": 0}, 422, "invalid-request"),
        ("/assign", [], 422, "invalid-request"),
        ("/clusters/c99/split", {}, 404, "not-found"),
        ("/clusters/merge", {"clusters": ["c1"]}, 422, "invalid-request"),
        ("/clusters/merge", {"clusters": ["c1", "c1"]}, 422, "invalid-request"),
        ("/model/rollback", {"epoch": 99}, 422, "invalid-request"),
        ("/model/rollback", {"epoch": 1, "reason": "a\nb"}, 422, "invalid-request"),
    ],
)
def test_a_bad_body_is_answered_by_a_problem(corners, path, body, status, name):
    problem(corners.client.post(f"/api/v1{path}", json=body), status, name)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_no_component(corners, text):
    answer = corners.client.post(
        "/api/v1/assign",
        content=f'{{"vector": [1, 2, {text}]}}',
        headers={"content-type": "application/json"},
    )

    problem(answer, 422, "invalid-request")


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(corners):
    many = b'{"vector": [' + b"1," * 5_000_000 + b"1]}"

    problem(corners.client.post("/api/v1/assign", content=many), 413, "payload-too-large")
    in_parts = corners.client.post("/api/v1/assign", content=iter([b"[" * 300_000] * 5))
    problem(in_parts, 413, "payload-too-large")


def test_an_unknown_method_names_those_there_are(corners):
    answer = corners.client.delete("/api/v1/clusters")

    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET"


def test_a_defect_tells_nothing_of_itself(make_site, monkeypatch):
    site = make_site()

    def broken(*_, **__):
        raise RuntimeError("secret words")

    monkeypatch.setattr(type(site.server.desk.view.items), "place", broken)
    answer = site.get("/items/item-0")

    problem(answer, 500, "internal")
    assert "secret" not in answer.text


def test_every_problem_has_a_page(corners):
    assert TITLES.keys() == MEANINGS.keys()
    for name in TITLES:
        assert corners.client.get(f"/problems/{name}").json()["type"] == name
    assert corners.client.get("/problems/none").status_code == 404


# cursors


def test_a_cursor_that_was_changed_is_refused(corners):
    cursor = corners.ok("/clusters", limit=1)["next_cursor"]
    raw = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    raw[-3] ^= 1
    forged = base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")

    problem(corners.get("/clusters", cursor=forged), 400, "invalid-cursor")


def test_a_cursor_belongs_to_its_question_and_its_filters(corners):
    cursor = corners.ok("/clusters", limit=1)["next_cursor"]

    problem(corners.get("/changes", cursor=cursor), 400, "invalid-cursor")
    problem(corners.get("/clusters", cursor=cursor, sort="drift"), 400, "invalid-cursor")
    assert corners.get("/clusters", cursor=cursor, limit=7).status_code == 200


def test_a_cursor_of_a_former_epoch_is_refused(make_site):
    site = make_site()
    cursor = site.ok("/clusters", limit=1)["next_cursor"]
    site.world.command("recluster", force=True)
    site.settle()

    body = problem(site.get("/clusters", cursor=cursor), 400, "invalid-cursor")
    assert "epoch 1" in body["detail"]


def test_a_page_links_to_the_next(corners):
    answer = corners.get("/clusters", limit=1, sort="size")

    link, _, relation = answer.headers["link"].partition("; ")
    assert relation == 'rel="next"'
    following = corners.client.get(link.strip("<>"))
    assert following.json()["items"][0] != answer.json()["items"][0]


# versions


def test_what_the_client_has_is_not_sent_again(corners):
    first = corners.get("/clusters")
    again = corners.client.get("/api/v1/clusters", headers={"if-none-match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["eddy-model"] == "{epoch}.{revision}".format(**corners.ok("/model"))


def test_another_content_has_another_etag(make_site):
    site = make_site(follows=False)
    before = site.get("/items/item-0").headers["etag"]
    site.world.broker.append(site.world.topics.input, 0, b"item-3", None, (), 1)
    site.settle()
    assert site.get("/items/item-0").headers["etag"] == before  # negative control

    site.world.command("label", cluster=site.ok("/items/item-0")["cluster"], label="x")
    site.settle()

    assert site.get("/items/item-0").headers["etag"] != before


def test_a_record_that_does_not_show_yet_is_waited_for(make_site, monkeypatch):
    site = make_site()
    monkeypatch.setattr("pipeline.services.server.routes.asking.BEHIND_S", 0.01)
    next_offset = site.ok("/stats")["partitions"][0]["next_offset"]

    answer = site.get("/items/item-0", min_offset=f"0:{next_offset}")

    problem(answer, 503, "view-behind")
    assert answer.headers["retry-after"] == "1"
    site.world.broker.append(site.world.topics.input, 0, b"item-0", None, (), 1)
    site.settle()
    assert site.get("/items/item-0", min_offset=f"0:{next_offset}").status_code == 404


def test_before_the_first_model_there_is_nothing_and_that_is_said():
    site = Site(TimedWorld(1), ServerPolicy())

    assert site.ok("/clusters")["items"] == []
    assert site.ok("/stats")["model"] is None
    problem(site.get("/model"), 503, "no-model")
    problem(site.get("/clusters/c1"), 503, "no-model")
    assert site.client.post("/api/v1/assign", json={"vector": [1, 2, 3]}).status_code == 503
    assert site.health.ready()[0].ok


# access


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_without_a_token_nothing_is_answered(guarded):
    answer = guarded.get("/clusters")

    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    for wrong in ("Bearer eddy_wrong", "Basic abc", "Bearer"):
        answer = guarded.client.get("/api/v1/clusters", headers={"Authorization": wrong})
        problem(answer, 401, "unauthorized")
    assert guarded.client.get("/health").status_code == 200


def test_a_reader_reads_and_does_not_write(guarded):
    assert guarded.client.get("/api/v1/clusters", headers=bearer(READER)).status_code == 200
    asking = {"vector": [1, 2, 3]}
    answer = guarded.client.post("/api/v1/assign", json=asking, headers=bearer(READER))
    assert answer.status_code == 200

    answer = guarded.client.post("/api/v1/recluster", json={}, headers=bearer(READER))

    problem(answer, 403, "forbidden")
    written = guarded.client.post("/api/v1/recluster", json={}, headers=bearer(WRITER))
    assert (written.status_code, written.json()["requested_by"]) == (202, "w")


def test_tokens_are_read_again_when_the_file_changes(guarded, tokens):
    tokens.write_text(tokens.read_text().replace("r:read:", "other:read,write:"))
    guarded.ticks += 2

    answer = guarded.client.post("/api/v1/recluster", json={}, headers=bearer(READER))

    assert answer.status_code == 202
    tokens.write_text("nonsense")
    guarded.ticks += 2
    assert guarded.client.get("/api/v1/clusters", headers=bearer(READER)).status_code == 200


def test_another_site_may_not_write_in_a_browsers_name(corners):
    foreign = {"Origin": "https://evil.example"}
    own = {"Origin": "http://localhost"}

    answer = corners.client.post("/api/v1/assign", json={"vector": [1, 2, 3]}, headers=foreign)

    problem(answer, 403, "forbidden")
    answer = corners.client.post("/api/v1/assign", json={"vector": [1, 2, 3]}, headers=own)
    assert answer.status_code == 200


def test_without_tokens_only_names_of_this_machine_are_answered(corners):
    for host in ("evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.1", ""):
        answer = corners.client.get("/api/v1/clusters", headers={"Host": host})
        problem(answer, 403, "forbidden")
    for host in ("localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080"):
        answer = corners.client.get("/api/v1/clusters", headers={"Host": host})
        assert answer.status_code == 200, host


def test_who_asks_too_often_has_to_wait():
    now = [0.0]
    door = Doorkeeper(AuthPolicy(), lambda: now[0])
    for _ in range(100):
        door.admit(None, "1.2.3.4", "read")

    with pytest.raises(Exception, match="requests a second") as refused:
        door.admit(None, "1.2.3.4", "read")

    assert (refused.value.name, refused.value.retry_after_s) == ("too-many-requests", 1)
    door.admit(None, "5.6.7.8", "read")  # another one is not held up
    now[0] += 0.05
    door.admit(None, "1.2.3.4", "read")


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "eddy.example"])
def test_strangers_are_not_let_in_by_accident(host):
    with pytest.raises(ConfigError, match="loopback"):
        check_exposure(ServerPolicy(host=host))
    check_exposure(ServerPolicy(host=host, auth=AuthPolicy(allow_unauthenticated=True)))
    check_exposure(ServerPolicy(host="127.0.0.1"))
    check_exposure(ServerPolicy(host=host, auth=AuthPolicy("bearer", "tokens")))


@pytest.mark.parametrize(
    "text", ["", "a:read", "a:admin:" + "0" * 64, "a b:read:" + "0" * 64, "a:read:" + "g" * 64]
)
def test_a_file_that_holds_no_tokens_is_refused(tmp_path, text):
    path = tmp_path / "tokens"
    path.write_text(text)

    with pytest.raises(ConfigError, match="server.auth.file"):
        read_tokens(path)


def test_a_request_id_is_echoed_if_it_is_one(corners):
    answer = corners.client.get("/api/v1/stats", headers={"X-Request-Id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"

    answer = corners.client.get("/api/v1/stats", headers={"X-Request-Id": "a b; c"})
    assert answer.headers["x-request-id"] != "a b; c"


def test_every_request_is_counted_by_its_route_and_never_by_its_path(make_site):
    site = make_site()
    for item in range(5):
        site.get(f"/items/item-{item}")
        site.client.get(f"/no/such/{item}")

    body, _ = site.metrics.exposition("")
    lines = [
        line for line in body.decode().splitlines()
        if line.startswith("eddy_http_request_duration_seconds_count")
    ]  # fmt: skip

    assert not any("item-" in line or "such" in line for line in lines)
    assert any("{item_id}" in line and line.endswith(" 5.0") for line in lines)
    assert json.dumps(lines).count("other") == 1
