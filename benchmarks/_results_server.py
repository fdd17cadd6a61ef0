"""The part of the page of results about the server: similar items, questions, streams."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def server_parts(folder: Path) -> list[str]:
    """The newest run of each kind and machine; nothing of what was not run."""
    newest: dict[tuple[str, str], tuple[str, Mapping[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        for benchmark in ("server", "streams"):
            for key, found in results.get(benchmark, {}).items():
                about = found["machine"]
                where = f"{about['cpu']}, {about['cores']} cores, {path.name[:10]}"
                if _is_told_so(key, found):
                    newest[key, about["cpu"]] = where, found
    parts = [
        _KINDS[key.partition(" ")[0]](key, where, found)
        for (key, _), (where, found) in sorted(newest.items(), key=_place)
    ]
    return ["## Server\n\n" + "\n".join(parts) + "\n"] if parts else []


def _is_told_so(key: str, found: Mapping[str, Any]) -> bool:
    """Whether a run tells what the page shows: an older one may not have measured it."""
    if key.startswith("similarity"):
        return "exact" in found
    if key.startswith("requests"):
        return all("cpu_ms" in one for name, one in found.items() if name != "machine")
    return True


def _place(entry: tuple[tuple[str, str], object]) -> tuple[int, int, str]:
    (key, cpu), _ = entry
    kind, _, size = key.partition(" ")
    return list(_KINDS).index(kind), int(size or 0), cpu


def _similarity(key: str, where: str, found: Mapping[str, Any]) -> str:
    exact, related = found["exact"], found["related"]
    line = f"* {found['items']:,} items ({where}): by a scan p50 {exact['p50_ms']:.2f} ms"
    if "faiss" in found:
        faiss = found["faiss"]
        line += (
            f"; by the index p50 {faiss['p50_ms']:.2f}, p99 {faiss['p99_ms']:.2f} ms, recall@10 "
            f"{faiss['recall_at_10']:.4f} (standard error {faiss['recall_error']:.4f}), "
            f"{found['index_bytes_per_item']} bytes an item, built in {found['built_s']:.0f} s by "
            f"{found['build_threads']}"
        )
    target = found["p50_target_ms"]
    line += "" if target is None else f" (target {target:g} ms)"
    return (
        f"{line}. Related items in a cluster of {related['members']:,}: p99 "
        f"{related['p99_ms']:.2f} ms. The view takes {found['view_bytes_per_item']:,} bytes an "
        f"item, vectors included."
    )


def _requests(key: str, where: str, found: Mapping[str, Any]) -> str:
    rows = [
        f"| `{route}` | {one['requests_per_s']:,} | {one['p50_ms']:.1f} | {one['p99_ms']:.1f} | "
        f"{one['cpu_ms']:.2f} |"
        for route, one in found.items()
        if route != "machine"
    ]
    head = f"\nQuestions over HTTP, with {int(key.split()[1]):,} items ({where}), four at a time:\n"
    return "\n".join(
        [
            head,
            "| question | a second | p50, ms | p99, ms | CPU of the server, ms |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def _streams(key: str, where: str, found: Mapping[str, Any]) -> str:
    waits = ", ".join(f"{name} {value:.0f}" for name, value in found["latency_ms"].items())
    return (
        f"\nLive streams ({where}): {found['clients']:,} clients, {found['changes']:,} changes and "
        f"{found['lifecycle']} lifecycle events, {found['delivered']:,} delivered, "
        f"{found['lifecycle_missing']} lifecycle events missing, {found['dropped']} changes "
        f"dropped; from commit to client, ms: {waits}."
    )


_KINDS = {"similarity": _similarity, "requests": _requests, "streams": _streams}
