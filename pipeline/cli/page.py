"""The page in a browser: opened where somebody sits in front of a screen, else only named."""

from __future__ import annotations

import os
import sys
import threading
import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from urllib.error import HTTPError
from urllib.request import urlopen

from pipeline.cli.output import out

_ANSWERS_S: Final = 60.0
_LOOK_S: Final = 0.3
_REQUEST_S: Final = 2.0
_DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY")


def has_display() -> bool:
    """Whether somebody would see a browser: a terminal in front, and a screen behind it."""
    has_screen = sys.platform == "darwin" or any(os.environ.get(name) for name in _DISPLAYS)
    return out.is_terminal and has_screen


def open_page(
    url: str, stop: threading.Event, *, browse: Callable[[str], object] = webbrowser.open
) -> None:
    """Open the page once it answers, beside everything else; where there is no screen, nothing.

    It never fails: who has no browser has been told the address.
    """
    if not has_display():
        return

    def wait_and_open() -> None:
        ends_at = time.monotonic() + _ANSWERS_S
        while not stop.wait(_LOOK_S) and time.monotonic() < ends_at:
            if answers(url):
                with suppress(OSError, webbrowser.Error):
                    browse(url)
                return

    threading.Thread(target=wait_and_open, name="eddy-page", daemon=True).start()


def answers(url: str) -> bool:
    """Whether there is a page."""
    if not url.startswith("http://"):
        return False
    try:
        with urlopen(url, timeout=_REQUEST_S) as reply:  # nosec B310: http, as was just looked at
            return bool(reply.status == 200)
    except HTTPError as error:
        error.close()
        return False
    except OSError:
        return False
