"""The page in a real browser, on a real server: what it shows is what REST says."""

from __future__ import annotations

import json
import urllib.request
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.browser

BUBBLES = "window.__eddy?.map().bubbles.length"
HAS_BUBBLES = f"{BUBBLES} > 0"
IS_LIVE = "window.__eddy?.store.link === 'live'"
VIEWS = ("#map", "#drift", "#flow", "#history", "#search/python")


def rest(running, path):
    with urllib.request.urlopen(f"{running.url}api/v1{path}") as answer:
        return json.load(answer)


def text(browser, selector):
    return browser.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")


@pytest.fixture
def page(browser, running):
    browser.open(running.url)
    browser.wait(HAS_BUBBLES)
    browser.wait(IS_LIVE)
    return browser


# --- the map ----------------------------------------------------------------------------------


def test_every_live_cluster_is_a_bubble_of_its_size(page, running):
    told = {row["cluster"]: row["size"] for row in rest(running, "/clusters?limit=500")["items"]}
    drawn = {one["id"]: one["size"] for one in page.value("window.__eddy.map().bubbles")}
    assert drawn == {cluster: size for cluster, size in told.items() if size}


def test_the_area_of_a_bubble_is_its_size(page):
    found = page.value("window.__eddy.map().bubbles")
    units = [one["r"] ** 2 / one["size"] for one in found if 4 < one["r"] < 80]
    assert len(units) > 10
    assert max(units) / min(units) < 1.001


def test_bubbles_are_there_in_pixels_and_do_not_cover_each_other(page):
    page.wait("window.__eddy.map().drawn.every((d) => d.r > 3)")
    n_painted = page.value(
        """(() => { const canvas = document.getElementById("map"), c = canvas.getContext("2d");
        return window.__eddy.map().drawn.filter(({x, y, r}) =>
          c.getImageData(Math.round(x), Math.round(y - 0.6 * r), 1, 1).data[3] > 0).length; })()"""
    )
    found = page.value("window.__eddy.map().bubbles")
    assert n_painted == len(found)
    for i, a in enumerate(found):
        for b in found[i + 1 :]:
            far = ((a["x"] - b["x"]) ** 2 + (a["y"] - b["y"]) ** 2) ** 0.5
            assert far > 0.9 * (a["r"] + b["r"]), (a, b)


def test_positions_are_those_of_the_server_spread_a_little(page, running):
    """Who is left of whom by far in REST is so on the map."""
    told = {row["cluster"]: row for row in rest(running, "/clusters?limit=500")["items"]}
    found = {one["id"]: one for one in page.value("window.__eddy.map().bubbles")}
    pairs = [(a, b) for a in found for b in found if told[b]["x"] - told[a]["x"] > 0.8]
    assert len(pairs) > 10
    assert sum(found[a]["x"] < found[b]["x"] for a, b in pairs) / len(pairs) > 0.97


def test_a_click_on_a_bubble_opens_its_cluster(page):
    one = page.value("window.__eddy.map().drawn[0]")
    box = page.value("(({x, y}) => [x, y])(document.getElementById('map').getBoundingClientRect())")
    page.point(box[0] + one["x"], box[1] + one["y"])
    page.wait("!document.getElementById('tip').hidden")
    page.tap(box[0] + one["x"], box[1] + one["y"])
    page.wait(f"location.hash === '#cluster/{one['id']}'")
    page.wait("document.querySelectorAll('.members li').length > 8")


# --- the table ---------------------------------------------------------------------------------


def test_the_table_says_what_rest_says(page, running):
    told = rest(running, "/clusters?limit=500")["items"]
    page.wait("document.querySelectorAll('.trending tbody tr').length > 5")
    rows = page.value(
        "[...document.querySelectorAll('.trending tbody tr')].map((row) => "
        "[row.querySelector('a').hash.split('/')[1], row.cells[1].innerText.replace(/,/g, '')])"
    )
    assert dict(rows) == {row["cluster"]: str(row["size"]) for row in told}


def test_a_column_sorts_the_table_and_says_so(page):
    page.click(".trending th.size button")
    page.wait("document.querySelector('th.size').ariaSort === 'descending'")
    sizes = page.value(
        "[...document.querySelectorAll('.trending tbody tr')].map((row) => "
        "Number(row.cells[1].innerText.replace(/,/g, '')))"
    )
    assert sizes == sorted(sizes, reverse=True)


def test_the_health_strip_says_what_stats_say(page, running):
    page.wait("document.querySelector('#health').innerText.includes('live')")
    stats, strip = rest(running, "/stats"), text(page, "#health")
    assert f"{stats['items']:,}" in strip
    assert f"{stats['model']['epoch']}.{stats['model']['revision']}" in strip


# --- one cluster, one item ---------------------------------------------------------------------


def test_a_cluster_shows_both_ends_of_its_members(page, running):
    cluster = rest(running, "/clusters?limit=30")["items"][20]
    members, cursor = [], ""
    while cursor is not None:
        found = rest(running, f"/clusters/{cluster['cluster']}/members?limit=500{cursor}")
        members += [row["item"] for row in found["items"]]
        cursor = found["next_cursor"] and f"&cursor={found['next_cursor']}"
    page.go(f"#cluster/{cluster['cluster']}")
    page.wait("document.querySelectorAll('.members').length === 2")
    typical, odd = page.value(
        "[...document.querySelectorAll('.members')].map((list) => "
        "[...list.querySelectorAll('a')].map((a) => a.innerText))"
    )
    assert typical == members[: len(typical)]
    assert odd == members[::-1][: len(odd)]
    page.wait("document.querySelector('.uplot-box canvas')")


def test_a_retired_cluster_leads_to_its_successors(page, running):
    retired = rest(running, "/lifecycle?type=retired&limit=1")["items"][0]
    page.go(f"#cluster/{retired['cluster']}")
    page.wait("document.querySelector('.panel')?.innerText.includes('has retired')")
    heirs = page.value("[...document.querySelectorAll('p.retired a')].map((a) => a.hash)")
    assert heirs == [f"#cluster/{child}" for child in retired["children"]]


def test_an_item_is_found_and_its_page_says_where_it_is(page, running):
    item = rest(running, "/clusters?limit=1")["items"][0]["exemplar"]
    page.fill("#query", item)
    page.press("Enter")
    page.wait("document.querySelector('.found .item')")
    page.click(".found .item")
    page.wait("document.querySelectorAll('.two .members li').length >= 10")
    told = rest(running, f"/items/{item}")
    assert told["label"] in text(page, ".panel")


def test_a_search_finds_clusters_by_words(page, running):
    told = rest(running, "/clusters?q=python&limit=30")["items"]
    page.go("#search/python")
    page.wait(f"document.querySelectorAll('.near li').length === {len(told)}")
    assert told


def test_an_item_nobody_knows_gets_a_sentence(page):
    page.go("#item/no-such-item-here")
    page.wait("document.querySelector('.panel').innerText.includes('there is no such item')")


# --- flow and time -------------------------------------------------------------------------------


def test_a_split_draws_a_ribbon(page, running):
    page.go("#flow")
    page.wait("document.querySelectorAll('.ribbon').length > 10")
    kinds = page.value(
        "[...new Set([...document.querySelectorAll('.ribbon')].map((r) => r.classList[1]))]"
    )
    assert "kept" in kinds and ("split" in kinds or "born" in kinds)


def test_the_past_is_shown_as_it_was_and_live_comes_back(page, running):
    page.wait("window.__eddy.store.frames.length > 20")
    frame = page.value(
        "(({t, clusters}) => ({t, clusters}))"
        "(window.__eddy.store.frames[Math.floor(window.__eddy.store.frames.length / 2)])"
    )
    page.go(f"#map@{frame['t']}")
    page.wait("document.getElementById('past')?.innerText.includes('As it was at')")
    page.wait(f"window.__eddy.store.past?.t === {json.dumps(frame['t'])}")
    drawn = {one["id"]: one["size"] for one in page.value("window.__eddy.map().bubbles")}
    assert drawn == {row["cluster"]: row["size"] for row in frame["clusters"] if row["size"]}
    page.click("#past button")
    page.wait("!document.getElementById('past') && window.__eddy.store.past === null")


def test_the_scrubber_goes_back_by_keyboard(page):
    page.wait("!document.getElementById('scrub').disabled")
    page.value("document.getElementById('scrub').focus()")
    page.press("PageDown")
    page.wait("window.__eddy.store.past !== null && location.hash.includes('@')")
    assert "as it was at" in page.value(
        "document.getElementById('scrub').getAttribute('aria-valuetext')"
    )


def test_a_permalink_opens_a_cluster_at_a_time(browser, running, page):
    page.wait("window.__eddy.store.frames.length > 30")
    t = page.value("(window.__eddy.store.frames.at(-30) ?? window.__eddy.store.frames[0]).t")
    cluster = page.value("window.__eddy.map().bubbles[0].id")
    browser.open(f"{running.url}#cluster/{cluster}@{t}")
    browser.wait("document.getElementById('past')")
    browser.wait(f"document.querySelector('.head .id').innerText === '{cluster}'")


# --- alone in the world ---------------------------------------------------------------------------


def test_no_request_leaves_the_origin(page, running):
    for view in VIEWS:
        page.go(view)
        page.wait("!document.querySelector('[aria-busy]')")
    notes = page.notes()
    hosts = {urlsplit(url).netloc for url in notes["requests"] + notes["sockets"]}
    assert hosts == {f"127.0.0.1:{running.port}"}
    assert notes["errors"] == []
    assert notes["refused"] == [f"404 {running.url}api/v1/items/python"]  # no package is called so


def test_the_first_frame_comes_soon(browser, running):
    browser.open(running.url)
    browser.wait(HAS_BUBBLES)
    ms = browser.value("performance.getEntriesByName('eddy-first-frame')[0].startTime")
    assert ms < 10_000, "with a machine to itself it is below 1000"
