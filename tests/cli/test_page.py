"""The page is opened where somebody would see it, and nothing ever fails for it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.cli import page
from tests.kafka.site import until


@pytest.fixture
def url():
    """Of a page that is there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def opened(url, monkeypatch, *, has_display, browse=None):
    seen, stop = [], threading.Event()
    monkeypatch.setattr(page, "has_display", lambda: has_display)
    page.open_page(url, stop, browse=browse or seen.append)
    return seen, stop


def test_it_is_opened_once_it_answers(url, monkeypatch):
    seen, _ = opened(url, monkeypatch, has_display=True)
    until(lambda: seen == [url], "it is opened")


def test_without_a_screen_nothing_is_opened(url, monkeypatch):
    n_threads = threading.active_count()
    seen, _ = opened(url, monkeypatch, has_display=False)
    assert seen == []
    assert threading.active_count() == n_threads


def test_a_browser_that_is_none_is_no_failure(url, monkeypatch):
    tried = threading.Event()

    def browse(address):
        tried.set()
        raise OSError("there is no browser")

    opened(url, monkeypatch, has_display=True, browse=browse)
    assert tried.wait(60)


def test_a_pipe_is_no_screen(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    assert not page.has_display()


def test_what_does_not_answer_is_no_page(url):
    assert page.answers(url)
    assert not page.answers(f"{url}elsewhere")
    assert not page.answers("http://127.0.0.1:9/")
    assert not page.answers("file:///etc/hostname")
