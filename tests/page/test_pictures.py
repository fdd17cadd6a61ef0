"""The README's pictures, from the history that the tests look at."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from tests.page.stage import trickle
from tests.page.test_page import HAS_BUBBLES, IS_LIVE

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
MAX_BYTES = 300_000
WIDE = {"width": 1280, "height": 740}


@pytest.fixture
def shoot(browser, running):
    """Open a view, let it come to rest, keep a picture of it."""

    def shoot(name, hash, *, ready="true", **settings):
        browser.open(f"{running.url}{hash}", **settings)
        browser.wait(f"{HAS_BUBBLES} && {IS_LIVE}", seconds=90)
        browser.wait("window.__eddy.store.facts.size && window.__eddy.store.frames.length")
        browser.wait("!document.querySelector('[aria-busy]')")
        browser.wait(ready)
        browser.wait("document.fonts.status === 'loaded'")
        browser.wait("window.__eddy.map().drawn.every((d) => d.r > 3)")
        path = PICTURES / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        browser.picture(path)
        assert 10_000 < path.stat().st_size < MAX_BYTES

    return shoot


def rest(running, path):
    with urllib.request.urlopen(f"{running.url}api/v1{path}") as answer:
        return json.load(answer)


def test_map(shoot, running, history):
    """With packages on their way."""
    running.users.append(trickle(history))
    ready = "document.querySelectorAll('.trending tbody tr').length > 9"
    try:
        shoot("map", "#map", ready=f"{ready} && window.__eddy.map().flying > 0", **WIDE)
    finally:
        running.users.clear()


def test_flow(shoot, running):
    """Of the epoch in which most happened."""
    events = rest(running, "/lifecycle?limit=500")["items"]
    told = Counter(
        event["model"]["epoch"] for event in events if event["type"] in ("split", "merged")
    )
    epoch = told.most_common(1)[0][0]
    shoot("flow", f"#flow/{epoch}", ready="document.querySelectorAll('.ribbon').length > 9", **WIDE)


def test_cluster(shoot, running):
    born = [
        event["cluster"]
        for event in rest(running, "/lifecycle?type=born&limit=200")["items"]
        if event["parents"]
    ]
    live = [row["cluster"] for row in rest(running, "/clusters?limit=20&sort=growth")["items"]]
    chosen = next((cluster for cluster in live if cluster in born), live[0])
    shoot(
        "cluster", f"#cluster/{chosen}", ready="document.querySelector('.uplot-box canvas')", **WIDE
    )


def test_dark(shoot):
    shoot(
        "dark", "#drift", scheme="dark", ready="document.querySelector('.board, .alarms')", **WIDE
    )


def test_phone(shoot):
    shoot("phone", "#map", width=390, height=780, touch=True, ratio=2)
