"""Golden files: a folder per wire version, a file per form, a line per case."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.messages.records import Record
from tests.golden.forms import Golden

FOLDER = Path(__file__).parent


def versions() -> list[str]:
    """Those that there are, the newest last."""
    found = [path.name for path in FOLDER.iterdir() if path.name[:1].isdigit()]
    return sorted(found, key=lambda name: [int(part) for part in name.split(".")])


def files(cases: Iterable[Golden]) -> dict[str, str]:
    """The text of each file, by its name."""
    texts: dict[str, str] = {}
    for case in cases:
        records = [
            {"key": _shown(r.key), "value": _shown(r.value), "partition": r.partition,
             "offset": r.offset, "timestamp_ms": r.timestamp_ms,
             "headers": [[name, _shown(value)] for name, value in r.headers]}
            for r in case.records
        ]  # fmt: skip
        line = {"name": case.name, "records": records, "facts": case.facts}
        texts.setdefault(f"{case.form}.jsonl", "")
        texts[f"{case.form}.jsonl"] += json.dumps(line, ensure_ascii=False) + "\n"
    return texts


def load(version: str) -> list[Golden]:
    """What a version wrote."""
    return [
        Golden(path.stem, line["name"], tuple(map(_record, line["records"])), line["facts"])
        for path in sorted((FOLDER / version).glob("*.jsonl"))
        for line in map(json.loads, path.read_text("utf-8").splitlines())
    ]


def _record(told: dict[str, Any]) -> Record:
    headers = tuple((name, _bytes(value)) for name, value in told["headers"])
    return Record(
        told["partition"], told["offset"], _bytes(told["key"]), _bytes(told["value"]),
        told["timestamp_ms"], headers,
    )  # fmt: skip


def _shown(value: bytes | None) -> Any:
    """Text as it is, other bytes in base64."""
    if value is None:
        return None
    text = value.decode("utf-8", "replace")
    if text.encode() == value and text.isprintable():
        return text
    return {"base64": base64.b64encode(value).decode()}


def _bytes(shown: Any) -> bytes | None:
    if shown is None:
        return None
    return base64.b64decode(shown["base64"]) if isinstance(shown, dict) else shown.encode()
