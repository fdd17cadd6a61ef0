"""For everybody: axe-core finds nothing serious, keys reach everything, small windows do."""

from __future__ import annotations

import pytest

from tests.page.test_page import HAS_BUBBLES, IS_LIVE

pytestmark = pytest.mark.browser


def views(browser):
    cluster = browser.value("window.__eddy.map().bubbles[3].id")
    item = browser.value("[...window.__eddy.store.facts.values()][0].exemplar")
    frame = browser.value("window.__eddy.store.frames.at(-40)?.t ?? ''")
    return [
        "#map", f"#cluster/{cluster}", f"#item/{item}", "#search/python", "#drift", "#flow",
        "#history", *([f"#map@{frame}"] if frame else []),
    ]  # fmt: skip


def ready(browser, running, **settings):
    browser.open(running.url, **settings)
    browser.wait(f"{HAS_BUBBLES} && {IS_LIVE}", seconds=40)
    browser.wait("window.__eddy.store.facts.size > 0 && window.__eddy.store.frames.length > 40")


def shown(browser, view):
    browser.go(view)
    browser.wait("!document.querySelector('[aria-busy]')", seconds=40)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_view(browser, running, scheme):
    ready(browser, running, scheme=scheme)
    found = {}
    for view in views(browser):
        shown(browser, view)
        if serious := browser.serious():
            found[view] = serious
    assert found == {}


def test_a_phone_has_no_horizontal_scroll(browser, running):
    ready(browser, running, width=360, height=740, touch=True)
    for view in views(browser):
        shown(browser, view)
        assert browser.value("document.documentElement.scrollWidth") <= 360, view


def test_on_a_phone_the_map_is_drawn_and_the_table_follows(browser, running):
    ready(browser, running, width=360, height=740, touch=True)
    width = browser.value("window.__eddy.map().width")
    assert width == 360
    assert browser.value(
        "document.getElementById('panel').getBoundingClientRect().top >= "
        "document.getElementById('map').getBoundingClientRect().bottom - 1"
    )


def test_the_keyboard_reaches_a_cluster_and_comes_back(browser, running):
    ready(browser, running)
    browser.press("Tab")
    assert browser.value("document.activeElement.id") == "skip"
    browser.press("Enter")
    browser.wait("document.activeElement.id === 'panel'")
    for _ in range(40):
        browser.press("Tab")
        if browser.value("document.activeElement.matches('tbody a.cluster')"):
            break
    hash = browser.value("document.activeElement.hash")
    browser.press("Enter")
    browser.wait(f"location.hash === '{hash}'")
    browser.wait("document.activeElement.tagName === 'H1'")
    browser.value("history.back()")
    browser.wait("document.querySelector('.trending tbody tr')")


def test_a_view_that_is_left_before_its_answer_came_writes_into_no_other(browser, running):
    ready(browser, running)
    browser.value(
        """new Promise((done) => {
          const then = (next) => addEventListener("hashchange", next, { once: true });
          then(() => (then(() => setTimeout(done)), (location.hash = "#map")));
          location.hash = document.querySelector("tbody a.cluster").hash;
        })"""
    )

    assert browser.value("location.hash") == "#map"
    assert browser.value("!!document.querySelector('#panel .trending tbody tr')")


def test_every_view_is_reached_by_tab_and_shows_where_the_focus_is(browser, running):
    ready(browser, running)
    seen = []
    for _ in range(12):
        browser.press("Tab")
        seen.append(
            browser.value(
                "(({id, hash, parentElement}) => parentElement.id === 'nav' ? hash : id)"
                "(document.activeElement)"
            )
        )
        assert browser.value("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert [at for at in seen if at.startswith("#")] == ["#map", "#drift", "#flow", "#history"]
    assert "query" in seen


def test_a_slash_goes_to_the_search(browser, running):
    ready(browser, running)
    browser.press("/")
    assert browser.value("document.activeElement.id") == "query"


def test_the_map_is_said_in_words(browser, running):
    ready(browser, running)
    browser.wait("document.getElementById('live').innerText.length > 20")
    words = browser.value("document.getElementById('live').textContent")
    n = browser.value("window.__eddy.store.clusters.size")
    assert words.startswith(f"{n} clusters with ")
    assert browser.value("document.getElementById('map').role") == "img"
    assert words in browser.value("document.getElementById('map').ariaLabel")


def test_who_wants_it_still_gets_no_easing(browser, running):
    ready(browser, running, motion="reduce")
    browser.wait("window.__eddy.map().drawn.every((d, i, all) => d.r > 3)")
    found = browser.value("window.__eddy.map()")
    drawn, aims = (
        {one["id"]: (one["x"], one["y"], one["r"]) for one in found[key]}
        for key in ("drawn", "bubbles")
    )
    far = [abs(a - b) for one in aims for a, b in zip(aims[one], drawn[one], strict=True)]
    assert max(far) < 1.0, "it is where it belongs, but for a frame that was not drawn yet"
