"""When things are not as they should be: no model, no server, no WebSocket, no right, a proxy."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from pipeline.config import ServerPolicy
from tests.page.conftest import READER, WRITER
from tests.page.proxy import Proxy
from tests.page.small import corners, crowd, empty_stage
from tests.page.test_page import HAS_BUBBLES, IS_LIVE

pytestmark = pytest.mark.browser

N_BUBBLES = 6


def opened(browser, url):
    browser.open(url)
    browser.wait(f"{HAS_BUBBLES} && {IS_LIVE}", seconds=120)


def test_without_a_model_the_page_says_so(browser):
    with empty_stage().live() as running:
        browser.open(running.url)
        browser.wait("document.getElementById('empty').innerText.includes('No model yet')")
        browser.go("#drift")
        browser.wait("document.querySelector('.panel').innerText.includes('No signal is known')")


def test_a_killed_server_shows_a_banner_and_the_page_recovers(browser, make_small):
    running = make_small()
    opened(browser, running.url)
    running.kill()
    browser.wait("document.getElementById('lost')?.innerText.includes('does not answer')")
    assert browser.value("window.__eddy.map().bubbles.length") == N_BUBBLES, (
        "the last that is known"
    )
    running.start()
    browser.wait(f"!document.getElementById('lost') && {IS_LIVE}", seconds=120)
    running.users.append(_writer(running))
    browser.wait("window.__eddy.store.stats.items > 240", seconds=120)


def _writer(running):
    n = iter(range(20))

    def write():
        i = next(n, None)
        if i is not None:
            running.stage.write(f"new-{i}", _place())

    return write


def _place():
    return corners(1)[0]


def test_what_moves_is_seen_to_fly(browser, make_small):
    running = make_small()
    opened(browser, running.url)
    running.users.append(crowd(running.stage, N_BUBBLES, 50.0))
    browser.wait("window.__eddy.map().flying > 0", seconds=120)
    browser.media(scheme="light", motion="reduce")
    browser.wait("window.__eddy.map().flying === 0", seconds=120)


def test_behind_a_proxy_under_a_path_everything_works(browser, make_small):
    running = make_small(replace(ServerPolicy(port=0), root_path="/some/path"))
    with Proxy("/some/path", running.port) as proxy:
        opened(browser, proxy.url)
        browser.go("#history")
        browser.wait("document.querySelectorAll('.panel tbody tr').length > 0")
        notes = browser.notes()
        paths = {urlsplit(url).path for url in notes["requests"] + notes["sockets"]}
        assert all(path.startswith("/some/path/") for path in paths)
        assert notes["sockets"]


def test_without_a_websocket_it_lives_on_events(browser, make_small):
    running = make_small()
    with Proxy("", running.port, has_sockets=False) as proxy:
        browser.open(proxy.url)
        browser.wait(f"{HAS_BUBBLES} && {IS_LIVE}", seconds=120)
        assert browser.value("window.__eddy.store.transport") == "sse"


def test_a_guarded_server_asks_for_a_token_and_takes_it(browser, make_small, guarded):
    running = make_small(guarded)
    browser.open(running.url)
    browser.wait("document.querySelector('dialog #token')", seconds=120)
    browser.fill("#token", "eddy_wrong")
    browser.press("Enter")
    browser.wait("document.querySelector('dialog .error')?.innerText.includes('not known')")
    browser.fill("#token", WRITER)
    browser.press("Enter")
    browser.wait(f"{HAS_BUBBLES} && {IS_LIVE}", seconds=120)
    browser.go("#history")
    browser.wait(
        "[...document.querySelectorAll('button')].some((b) => b.innerText === 'Recluster')"
    )


def test_a_reader_gets_no_buttons(browser, make_small, guarded):
    running = make_small(guarded)
    browser.open(running.url)
    browser.wait("document.querySelector('dialog #token')", seconds=120)
    browser.fill("#token", READER)
    browser.press("Enter")
    browser.wait(f"{HAS_BUBBLES} && {IS_LIVE}", seconds=120)
    browser.go("#history")
    browser.wait("document.querySelectorAll('.panel tbody tr').length > 0")
    assert not browser.value("document.querySelectorAll('.command').length")


def test_a_new_label_is_asked_for_and_shows(browser, make_small):
    running = make_small()
    opened(browser, running.url)
    cluster = browser.value("window.__eddy.map().bubbles[0].id")
    browser.go(f"#cluster/{cluster}")
    browser.click(".head .plain")
    browser.fill(".rename input", "quite another name")
    browser.press("Enter")
    browser.wait("document.querySelector('.notice.good')", seconds=120)
    with urllib.request.urlopen(f"{running.url}api/v1/clusters/{cluster}") as answer:
        assert json.load(answer)["label"] == "quite another name"
    browser.wait("document.querySelector('.head h1').innerText === 'quite another name'")


def test_a_recluster_is_confirmed_first(browser, make_small):
    running = make_small()
    opened(browser, running.url)
    browser.go("#history")
    browser.click(".head .command")
    browser.wait("document.querySelector('dialog[open]')")
    browser.press("Escape")
    browser.wait("!document.querySelector('dialog')")
    with urllib.request.urlopen(f"{running.url}api/v1/jobs") as answer:
        assert json.load(answer)["items"] == []
    browser.click(".head .command")
    browser.click("dialog .command")
    browser.wait("document.querySelector('.notice.good, .notice.bad')", seconds=120)
