"""What pages say of the code: files, tests and functions that they name are there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.telemetry.promised import unknown
from tests.test_house import ROOT

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def missing(text: str) -> list[str]:
    """Paths, tests and links of a page that lead nowhere."""
    found = []
    for path, test in re.findall(r"`([\w/.-]+\.(?:py|yaml|toml))(?:::(\w+))?", text):
        places = [folder / path for folder in (ROOT, ROOT / "pipeline") if (folder / path).exists()]
        if not places:
            found.append(path)
        elif test and test not in functions(places[0].read_text(encoding="utf-8")):
            found.append(f"{path}::{test}")
    folders = re.findall(r"`([\w/]+/)`", text)
    found += [f for f in folders if not any((ROOT / x / f).is_dir() for x in ("", "pipeline"))]
    return found


def functions(source: str) -> set[str]:
    """Names of all functions in a file."""
    return {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}


def test_architecture_names_files_and_tests_that_are_there():
    assert missing(ARCHITECTURE) == []


def test_architecture_names_only_options_and_metrics_that_there_are():
    assert unknown(ARCHITECTURE) == []


def test_methods_that_architecture_names_are_there():
    for owner, name in re.findall(r"`(\w+)\.(_?[a-z]\w*)[`(]", ARCHITECTURE):
        if owner[0].isupper():
            sources = [p.read_text() for p in (ROOT / "pipeline").rglob("*.py")]
            assert any(f"class {owner}" in s and f"def {name}(" in s for s in sources), name


@pytest.mark.parametrize("page", ["architecture.md", "operate.md"])
def test_links_of_a_page_lead_somewhere(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        path = ROOT / "docs" / (file or page)
        assert path.is_file(), target
        headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        plain = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
        assert not anchor or anchor in plain, target


@pytest.mark.parametrize(
    "text",
    ["`services/nobody.py`", "`tests/test_docs.py::test_of_nothing`", "`nowhere/`"],
)
def test_control_what_is_not_there_is_found(text):
    assert missing(text)
