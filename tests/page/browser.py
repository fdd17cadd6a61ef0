"""Chromium, driven by ``driver.mjs``: a method a verb."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODULES = Path(__file__).parents[2] / ".venv" / "page"
"""Where ``make browser-test`` puts what comes from npm."""
NAMES = ("chromium", "chromium-browser")


def missing() -> str | None:
    """Why there is no browser; None: there is one."""
    if shutil.which("node") is None:
        return "no node on this machine"
    if chromium() is None:
        return "no chromium on this machine: apt-get install chromium"
    for name in ("playwright-core", "axe-core"):
        if not (MODULES / "node_modules" / name).is_dir():
            return f"{name} is not installed: make browser-test does it"
    return None


def chromium() -> str | None:
    """The system's Chromium."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser; `open` begins anew with an empty profile.

    Raises
    ------
    AssertionError
        The page did not do what it was to do; the message is the browser's.
    """

    def __init__(self) -> None:
        path = chromium()
        assert path is not None
        self._process = subprocess.Popen(
            ["node", str(HERE / "driver.mjs"), str(MODULES), path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def _say(self, verb: str, **fields: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb, **fields}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the browser has gone"
        answer = json.loads(line)
        assert "error" not in answer, f"{verb} {fields}: {answer['error']}"
        return answer["value"]

    def open(self, url: str, **settings: Any) -> None:
        """A new window; settings: width, height, scheme, motion, ratio, touch."""
        self._say("open", url=url, **settings)

    def go(self, hash: str) -> None:
        self._say("go", hash=hash)

    def value(self, js: str) -> Any:
        """Of an expression in the page."""
        return self._say("evaluate", js=js)

    def wait(self, js: str, seconds: float = 60) -> None:
        """Until an expression in the page is true."""
        self._say("wait", js=js, seconds=seconds)

    def click(self, selector: str) -> None:
        self._say("click", selector=selector)

    def fill(self, selector: str, text: str) -> None:
        self._say("fill", selector=selector, text=text)

    def press(self, key: str, times: int = 1) -> None:
        self._say("press", key=key, times=times)

    def point(self, x: float, y: float) -> None:
        self._say("point", x=x, y=y)

    def tap(self, x: float, y: float) -> None:
        self._say("tap", x=x, y=y)

    def size(self, width: int, height: int) -> None:
        self._say("size", width=width, height=height)

    def media(self, **settings: str) -> None:
        """``scheme``, ``motion``."""
        self._say("media", **settings)

    def picture(self, path: Path, *, full: bool = False) -> None:
        self._say("picture", path=str(path), full=full)

    def notes(self) -> dict[str, list[str]]:
        """Since `open`: requests, refused (with their status), sockets, errors."""
        found: dict[str, list[str]] = self._say("notes")
        return found

    def metrics(self) -> dict[str, float]:
        """Of the page's main thread, in seconds of its own: TaskDuration, ScriptDuration, ..."""
        found: dict[str, float] = self._say("metrics")
        return found

    def serious(self) -> list[str]:
        """What axe-core finds serious or critical on the page as it is."""
        return [
            f"{one['id']}: {one['help']}\n  " + "\n  ".join(one["nodes"])
            for one in self._say("axe")
            if one["impact"] in ("serious", "critical")
        ]
