"""The parts of the page of results about whole systems under load: a line for each run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def living_parts(folder: Path) -> list[str]:
    """Loads and soaks, the newest of each machine; nothing of what was not run."""
    parts = []
    for benchmark, (title, line) in KINDS.items():
        newest: dict[tuple[str, str], str] = {}
        for path in sorted(folder.glob("*.json")):
            runs = json.loads(path.read_text(encoding="utf-8")).get(benchmark, {})
            for key, found in runs.items():
                about = found["machine"]
                where = f"{about['cpu']}, {about['cores']} cores, {path.name[:10]}"
                newest[key, about["cpu"]] = f"* {key} dimensions ({where}): {line(found)}"
        if newest:
            parts.append(f"## {title}\n\n" + "\n".join(newest.values()) + "\n")
    return parts


def load_line(found: Mapping[str, Any]) -> str:
    waits = found["latency_ms"]
    shares = ", ".join(f"{name} {waits[name]:.1f}" for name in ("mean", "p50", "p95", "p99", "max"))
    memory = ", ".join(f"{name} {mb:.0f}" for name, mb in found["peak_rss_mb"].items())
    lost = "not verified" if found["lost"] is None else f"lost {found['lost']}"
    return (
        f"{found['records']} records in {found['seconds']:.0f} s (x{found['factor']:.0f}), {lost}; "
        f"ms: {shares}; MB: {memory}."
    )


def soak_line(found: Mapping[str, Any]) -> str:
    memory = "; ".join(
        f"{name} {found[name]['rss_mb']:.0f} MB, {found[name]['slope_mb_per_min']:+.2f} MB/min "
        f"({found[name]['slope_low']:+.2f} .. {found[name]['slope_high']:+.2f}), "
        f"threads {found[name]['threads']:+.0f}, descriptors {found[name]['descriptors']:+.0f}"
        for name in ("assigner", "reclusterer")
    )
    waits = "; ".join(
        f"{share} {found[share]['first_ms']:.1f} then {found[share]['last_ms']:.1f} ms"
        for share in ("p50", "p99")
    )
    return (
        f"{found['minutes']:g} minutes at {found['rate_per_s']:,.0f} records/s, "
        f"{found['records']:,} records, {found['reclusters']} reclusters, "
        f"{'verified' if found['verified'] else 'verify FAILED'}. {memory}. {waits}."
    )


def memory_line(found: Mapping[str, Any]) -> str:
    items = "; ".join(
        f"{name}: {one['vectors'] / one['rows_kept']:.0f} bytes of vector and "
        f"{one['beside_vector']:.0f} beside it"
        for name, one in found["items"].items()
    )
    services = "; ".join(
        f"{name} {one['mb']:.0f} MB (at most {one['most_mb']:.0f})"
        for name, one in found.get("services", {}).items()
    )
    return f"an item of {items}. {found['n_items']} items, K = {found['n_clusters']}: {services}."


KINDS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "load": ("Named loads", load_line),
    "soak": ("Soak", soak_line),
    "memory": ("Memory", memory_line),
}
