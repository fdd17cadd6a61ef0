"""Cut the stream of `eddy demo` out of the full Debian set: ``make_demo_slice.py FOLDER``.

Whole source families, chosen by a hash of their name, so that every change of a package in the
slice is in the slice, and so that the same folder gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np

SHARE = 0.21
MAX_BYTES = 10_000_000
SUMMARY_CHARACTERS = 60
TARGET = Path(__file__).parent.parent / "pipeline" / "cli" / "demo" / "data"


def lines(path: Path) -> list[Any]:
    with lzma.open(path, "rb") as file:
        return [json.loads(line) for line in file]


def is_chosen(family: str) -> bool:
    digest = hashlib.sha256(f"eddy demo/{family}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < SHARE * 2**64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the full set, with embeddings_f16.npy")
    parser.add_argument("--target", type=Path, default=TARGET)
    options = parser.parse_args()
    nodes = {node["node_id"]: node["family"] for node in lines(options.folder / "nodes.jsonl.xz")}
    texts = lines(options.folder / "texts.jsonl.xz")
    embeddings = np.load(options.folder / "embeddings_f16.npy")

    rows: dict[int, int] = {}  # row there -> row here, in the order of the first use
    changes = []
    for _, suite, _, kind, name, section, row, _ in lines(options.folder / "events.jsonl.xz"):
        # the same text again, or another section: nothing that a clustering could see
        if kind in ("noop", "section") or not is_chosen(nodes[name]):
            continue
        here = rows.setdefault(row, len(rows)) if row >= 0 else -1
        changes.append([suite, kind.removesuffix("+section"), name, section, here])
    summaries = [texts[row].split(". ")[0][:SUMMARY_CHARACTERS] for row in rows]

    options.target.mkdir(parents=True, exist_ok=True)
    np.save(options.target / "embeddings_f16.npy", embeddings[list(rows)])
    for name, values in (("changes", changes), ("summaries", summaries)):
        text = "".join(
            json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n" for value in values
        )
        packed = lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)
        (options.target / f"{name}.jsonl.xz").write_bytes(packed)
    n_bytes = sum(path.stat().st_size for path in options.target.iterdir())
    families = {nodes[change[2]] for change in changes}
    print(f"{len(changes)} changes, {len(rows)} vectors, {len(families)} families, {n_bytes} bytes")
    assert n_bytes <= MAX_BYTES, "too large for the package"


if __name__ == "__main__":
    main()
