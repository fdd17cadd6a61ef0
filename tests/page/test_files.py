"""The files of the page, without a browser: what is in them, how large they are."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from tests.page.browser import MODULES
from tests.page.stage import PAGE

MAX_BYTES = 150_000
OWN = [path for path in PAGE.iterdir() if path.is_file()]
VENDOR = PAGE / "vendor"


def test_what_the_page_loads_at_first_is_below_its_budget():
    """The charts' library and its styles come with the first chart."""
    assert "vendor" not in (PAGE / "index.html").read_text()
    assert sum(path.stat().st_size for path in OWN) < MAX_BYTES


def test_no_file_names_an_outside_address():
    for path in OWN:
        found = set(re.findall(r"https?://[^\s\"'`)]+", path.read_text()))
        assert found <= {"http://www.w3.org/2000/svg"}, path.name


def test_no_script_and_no_style_is_inline():
    text = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert "<style" not in text and " style=" not in text and " onclick=" not in text


def test_every_address_of_the_page_is_relative():
    text = (PAGE / "index.html").read_text()
    for address in re.findall(r'(?:href|src)="([^"#]*)"', text):
        assert not address.startswith(("/", "http")), address


def test_every_module_is_imported_by_another_or_by_the_page():
    scripts = {path.name for path in OWN if path.suffix == ".js"}
    used = {"main.js"}
    for path in OWN:
        used |= set(re.findall(r'from "\./([a-z]+\.js)"', path.read_text()))
    assert used == scripts


def test_every_module_is_asked_for_at_once():
    """A module that is found by reading another one comes a round trip later."""
    text = (PAGE / "index.html").read_text()
    named = re.findall(r'<link rel="modulepreload" href="web/([a-z]+\.js)">', text)
    scripts = {path.name for path in OWN if path.suffix == ".js"}
    assert sorted(named) == sorted(scripts - {"main.js"})


def test_files_are_small_enough_to_read():
    for path in OWN:
        assert path.read_text().count("\n") <= 400, path.name


def test_vendored_files_are_those_that_are_listed():
    listed = json.loads((VENDOR / "vendor.json").read_text())
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.iterdir()
        if path.name != "vendor.json"
    }
    assert found == listed["sha256"]
    assert listed["version"] == "1.6.32" and listed["licence"] == "MIT"


def test_vendored_files_are_those_of_the_package():
    package = MODULES / "node_modules" / "uplot"
    if not package.is_dir():
        pytest.skip("uplot is not installed: make browser-test does it")
    assert json.loads((package / "package.json").read_text())["version"] == "1.6.32"
    for path in VENDOR.iterdir():
        if path.name != "vendor.json":
            folder = package if path.name == "LICENSE" else package / "dist"
            assert path.read_bytes() == (folder / path.name).read_bytes(), path.name
