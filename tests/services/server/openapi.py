"""Writes ``schemas/openapi.json``: ``python -m tests.services.server.openapi``."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.config import ServerPolicy
from pipeline.services.server.app import openapi
from tests.services.server.conftest import Site, TimedWorld

PATH = Path(__file__).parents[3] / "schemas" / "openapi.json"


def described(site: Site) -> str:
    """The description, as it is committed: without the version of the package."""
    told = openapi(site.server.api)
    told["info"]["version"] = "1"
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(described(Site(TimedWorld(1), ServerPolicy())), encoding="utf-8")
