"""The page's files, and what they may do in a browser."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from hatchling.builders.wheel import WheelBuilder
from starlette.testclient import TestClient

from pipeline.services.server.problems import ProblemError, problem_response
from pipeline.services.server.routes import page as page_route


@pytest.fixture
def folder(tmp_path):
    web = tmp_path / "web"
    (web / "vendor").mkdir(parents=True)
    (web / "index.html").write_text("<!doctype html><title>Eddy</title>")
    (web / "map.js").write_text("export const a = 1")
    (web / "vendor" / "lib.min.js").write_text("1")
    (web / "vendor" / "LICENSE").write_text("free")
    (web / ".hidden.js").write_text("2")
    (web / "notes.py").write_text("3")
    (tmp_path / "secret.js").write_text("4")
    return web


@pytest.fixture
def page(folder):
    app = FastAPI()
    app.include_router(page_route.router(folder))
    app.add_exception_handler(
        ProblemError, lambda request, error: problem_response(error, instance="", request_id="")
    )
    return TestClient(app)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/web/index.html", "text/html; charset=utf-8"),
        ("/web/map.js", "text/javascript; charset=utf-8"),
        ("/web/vendor/lib.min.js", "text/javascript; charset=utf-8"),
        ("/web/vendor/LICENSE", "text/plain; charset=utf-8"),
    ],
)
def test_a_file_comes_with_its_type_and_what_it_may_do(page, path, kind):
    answer = page.get(path)

    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    assert page.head(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/web/", "/web/none.js", "/web/vendor", "/web/.hidden.js", "/web/notes.py",
        "/web/../secret.js", "/web/%2e%2e/secret.js", "/web/..%2fsecret.js", "/web/%5c..%5cmap.js",
        "/web//etc/passwd", "/web/map.js%00.html", "/web/vendor/../../secret.js",
    ],
)  # fmt: skip
def test_nothing_else_is_shown(page, path):
    assert page.get(path).status_code == 404


def test_a_file_that_the_browser_has_is_not_sent_again_until_it_changes(page, folder):
    etag = page.get("/web/map.js").headers["etag"]
    again = page.get("/web/map.js", headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert again.headers["content-security-policy"]

    (folder / "map.js").write_text("export const a = 22")

    changed = page.get("/web/map.js", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.text) == (200, "export const a = 22")


def test_all_of_the_page_is_in_the_wheel_and_is_shown():
    packed = {
        one.distribution_path
        for one in WheelBuilder(str(page_route.WEB.parents[1])).recurse_included_files()
    }
    app = FastAPI()
    app.include_router(page_route.router())
    page = TestClient(app)

    files = [path for path in page_route.WEB.rglob("*") if path.is_file()]

    assert any(path.name == page_route.INDEX for path in files)
    for path in files:
        name = path.relative_to(page_route.WEB).as_posix()
        assert f"pipeline/web/{name}" in packed
        answer = page.get(f"/web/{name}")
        assert (answer.status_code, answer.content) == (200, path.read_bytes())


def test_the_server_shows_the_page_without_a_token(guarded):
    answer = guarded.client.get("/web/no-such-file.js")

    assert answer.status_code == 404
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert guarded.client.get("/").status_code in (200, 404)  # as it is built
