"""The page comes in by a token once, and by a cookie from then on."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import AuthPolicy, ServerPolicy
from pipeline.services.server.logins import (
    COOKIE,
    LASTS_S,
    Token,
    cookie_in,
    cookie_of,
    set_cookie,
    token_of,
)
from tests.services.server.conftest import READER, WRITER, Site
from tests.services.server.test_problems import problem

NOW = 1_800_000_000.0


def token(name="page", scopes=("read",), secret="eddy_x"):
    return Token(name, frozenset(scopes), hashlib.sha256(secret.encode()).hexdigest())


# cookies by themselves


def test_a_cookie_stands_for_its_token_until_it_ends():
    one = token()
    cookie = cookie_of(one, NOW)

    assert token_of(cookie, [token("other", secret="y"), one], NOW) == one
    assert token_of(cookie, [one], NOW + LASTS_S - 1) == one
    assert token_of(cookie, [one], NOW + LASTS_S) is None


def test_a_cookie_ends_with_the_line_of_its_token():
    one = token()
    cookie = cookie_of(one, NOW)

    assert token_of(cookie, [], NOW) is None
    assert token_of(cookie, [replaced(one, digest=token(secret="new").digest)], NOW) is None
    # what its token may do is asked of the file, not of the cookie
    assert token_of(cookie, [replaced(one, scopes=frozenset({"read", "write"}))], NOW).scopes == {
        "read", "write",
    }  # fmt: skip


def replaced(one, **fields):
    return one._replace(**fields)


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_cookie_that_was_changed_stands_for_nobody(place, flip):
    one = token("näme")
    raw = bytearray(cookie_of(one, NOW).encode())
    raw[place % len(raw)] ^= flip
    changed = raw.decode("latin-1")

    found = token_of(changed, [one], NOW)

    # the last character of base64 has bits that say nothing, and they are not looked at here
    assert found is None or changed == cookie_of(one, NOW)


@given(st.text(max_size=200))
def test_what_is_no_cookie_stands_for_nobody(text):
    assert token_of(text, [token()], NOW) is None
    cookie_in(text)


def test_a_name_in_a_cookie_is_nobody_elses():
    one, other = token("one"), token("other", secret="y")
    _, _, ends_at, signature = cookie_of(one, NOW).split(".")
    name = base64.urlsafe_b64encode(b"other").decode().rstrip("=")

    assert token_of(f"v1.{name}.{ends_at}.{signature}", [one, other], NOW) is None


def test_ours_is_found_among_others():
    assert cookie_in("a=1; eddy_login=v1.x.2.y; b=3") == "v1.x.2.y"
    assert cookie_in("xeddy_login=1; a=eddy_login=2") == ""
    assert cookie_in("") == ""


def test_a_cookie_is_for_the_page_alone():
    told = set_cookie("v", path="/eddy", is_secure=True)

    assert told.split("; ") == [
        "eddy_login=v", "Path=/eddy", f"Max-Age={LASTS_S}", "HttpOnly", "SameSite=Strict", "Secure",
    ]  # fmt: skip
    assert "Secure" not in set_cookie("v", path="", is_secure=False)
    assert "Path=/;" in set_cookie("v", path="", is_secure=False)


# over the server


@pytest.fixture
def locked(corners, tokens):
    """A site that asks for tokens, over a world to which nobody writes."""
    return Site(corners.world, ServerPolicy(auth=AuthPolicy("bearer", str(tokens))))


def log_in(site, secret, **headers):
    return site.client.post("/login", json={"token": secret}, headers=headers)


def cookie(answer):
    """As a browser would send it back."""
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


def test_who_shows_a_token_is_known_by_its_cookie(guarded):
    problem(guarded.get("/clusters"), 401, "unauthorized")

    answer = log_in(guarded, WRITER)
    guarded.client.cookies.clear()

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["cache-control"] == "no-store"
    known = cookie(answer)
    assert guarded.client.get("/api/v1/clusters", headers=known).status_code == 200
    asked = guarded.client.post("/api/v1/recluster", json={}, headers=known)
    assert (asked.status_code, asked.json()["requested_by"]) == (202, "w")
    wrong = {"Authorization": "Bearer eddy_wrong", **known}
    problem(guarded.client.get("/api/v1/clusters", headers=wrong), 401, "unauthorized")


def test_a_readers_cookie_does_not_write(locked):
    known = cookie(log_in(locked, READER))
    locked.client.cookies.clear()

    answer = locked.client.post("/api/v1/recluster", json={}, headers=known)

    problem(answer, 403, "forbidden")


@pytest.mark.parametrize("body", [{"token": "eddy_wrong"}, {"token": ""}, {"token": "ä"}])
def test_a_wrong_token_gets_no_cookie(locked, body):
    answer = locked.client.post("/login", json=body)

    problem(answer, 401, "unauthorized")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("body", [{}, [], {"token": 1}, {"token": "x" * 1000}])
def test_what_is_no_token_is_a_bad_request(locked, body):
    problem(locked.client.post("/login", json=body), 422, "invalid-request")


def test_guessing_has_a_bound(locked):
    locked.server.app._doorkeeper._clock = lambda: 1e6

    refusals = [log_in(locked, f"eddy_{n}").status_code for n in range(15)]

    assert refusals == [401] * 10 + [429] * 5
    assert log_in(locked, WRITER).status_code == 429
    # who has a token already is not held up by somebody who guesses
    known = {"Authorization": f"Bearer {READER}"}
    assert locked.client.get("/api/v1/stats", headers=known).status_code == 200


def test_a_cookie_ends_when_its_token_is_revoked(locked, tokens):
    known = cookie(log_in(locked, READER))
    locked.client.cookies.clear()
    assert locked.client.get("/api/v1/stats", headers=known).status_code == 200

    tokens.write_text(
        "\n".join(one for one in tokens.read_text().splitlines() if not one.startswith("r:"))
    )
    locked.ticks += 2

    problem(locked.client.get("/api/v1/stats", headers=known), 401, "unauthorized")


def test_another_replica_knows_the_cookie(locked):
    other = Site(locked.world, locked.server.desk.policy)
    known = cookie(log_in(locked, READER))

    assert other.client.get("/api/v1/stats", headers=known).status_code == 200


def test_another_site_may_neither_log_in_nor_out(locked):
    problem(log_in(locked, WRITER, Origin="https://evil.example"), 403, "forbidden")
    foreign = {"Origin": "https://evil.example"}
    problem(locked.client.post("/logout", headers=foreign), 403, "forbidden")
    own = log_in(locked, WRITER, Origin="http://localhost")
    assert own.status_code == 204


def test_logging_out_takes_the_cookie_back(locked):
    log_in(locked, READER)

    answer = locked.client.post("/logout")

    assert answer.status_code == 204
    assert answer.headers["set-cookie"].startswith(f"{COOKIE}=; Path=/; Max-Age=0;")


def test_a_cookie_is_secure_wherever_a_browser_would_keep_it(locked):
    for host, forwarded, is_secure in (
        ("localhost:8080", "", False),
        ("127.0.0.1:8080", "", False),
        ("eddy.example", "", True),  # over plain HTTP it is dropped, and the page says so
        ("localhost:8080", "https", True),
    ):
        headers = {"Host": host, "X-Forwarded-Proto": forwarded}
        told = log_in(locked, READER, **headers).headers["set-cookie"]
        assert told.endswith("; Secure") == is_secure, host


def test_everybody_may_ask_who_he_is(locked, corners):
    def session(site, **headers):
        answer = site.client.get("/api/v1/session", headers=headers)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        return answer.json()

    assert session(corners) == {"auth": "none", "name": None, "scopes": ["read", "write"]}
    assert session(locked) == {"auth": "bearer", "name": None, "scopes": []}
    by_token = session(locked, Authorization=f"Bearer {WRITER}")
    assert by_token == {"auth": "bearer", "name": "w", "scopes": ["read", "write"]}
    by_cookie = session(locked, **cookie(log_in(locked, READER)))
    assert by_cookie == {"auth": "bearer", "name": "r", "scopes": ["read"]}


def test_where_nobody_needs_a_token_there_is_no_cookie(corners):
    answer = log_in(corners, "anything")

    assert answer.status_code == 204
    assert "set-cookie" not in answer.headers
    problem(corners.client.post("/login", json={"token": "x"}, headers={"Host": "evil.example"}),
            403, "forbidden")  # fmt: skip
