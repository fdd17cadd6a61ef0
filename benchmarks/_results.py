"""Writes ``RESULTS.md`` from the figures in ``results/``: ``python -m benchmarks results``.

So no figure in it was typed by hand. Of every row the newest figure of each class of machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks._results_living import living_parts
from benchmarks._results_server import server_parts
from benchmarks._stage import RESULTS

PAGE: Final = Path(__file__).parent / "RESULTS.md"
BENCHMARKS: Final = {
    "assign": "Nearest centroid",
    "fit": "Full fits",
    "silhouette": "Silhouette",
    "small_models": "Many small models",
    "update": "A changed record, from its vector to the state",
    "exactness": "Faults",
}
HEAD: Final = """# Results

Written by `python -m benchmarks results` from the figures in [results/](results/); how they come
about is in [_pairs.py](_pairs.py). `×` is speed beside the fastest fair peer of the same round, the
median over the rounds with its quartiles; a target stands where one is promised. A ratio measured
while others used the processor is marked. What is not here was not run.
"""


def write_page(folder: Path = RESULTS, page: Path = PAGE) -> Path:
    """Make the page anew from all the files of ``folder``."""
    parts = [text(figures(folder)), *living_parts(folder), *server_parts(folder)]
    page.write_text("\n".join(parts), encoding="utf-8")
    return page


def figures(folder: Path) -> list[dict[str, Any]]:
    """Rows of pairs, the newest of each; where a benchmark keeps something else, it is not ours."""
    newest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        day = path.name[:10]
        for benchmark, rows in json.loads(path.read_text(encoding="utf-8")).items():
            for key, row in rows.items():
                if benchmark in BENCHMARKS and "who" in row:
                    found = row | {"benchmark": benchmark, "day": day}
                    newest[benchmark, key, row["machine"]["class"]] = found
    return list(newest.values())


def text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The page: a part for each benchmark, in it a table for each machine and command."""
    parts = [HEAD]
    held = list(rows)
    for benchmark, title in BENCHMARKS.items():
        mine = [row for row in held if row["benchmark"] == benchmark]
        if not mine:
            parts.append(f"## {title}\n\nNot run yet: `make bench RUN={benchmark}`.\n")
            continue
        parts.append(f"## {title}\n")
        for scene in dict.fromkeys(map(scene_of, mine)):
            here = [row for row in mine if scene_of(row) == scene]
            parts += [head(here[-1]), table(here)]
    card = any("cuda" in row["who"] for row in held)
    if not card:
        parts.append("## Cards\n\nNo kernel for a GPU is in these figures: none was run on one.\n")
    return "\n".join(parts)


def scene_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What rows of one table share."""
    about = row["machine"]
    return about["class"], about["threads"], about["isa"], about["data"]


def head(row: Mapping[str, Any]) -> str:
    """What stands above a table."""
    about = row["machine"]
    versions = about["versions"]
    shown = [f"{k} {v}" for k, v in versions.items() if k not in ("kafka", "confluent-kafka")]
    return (
        f"{about['class']}; threads of each: {about['threads']}; {about['data']}; {row['day']}. "
        f"Floor, {about.get('floor', 'not measured')}. {'; '.join(about['blas'])}. "
        f"{', '.join(shown)}.\n\n`{about['command']}`\n"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown; a line of a cell and a contender each, ratios first."""
    beside = list(dict.fromkeys(title for row in rows for title in row["beside"]))
    has_ratio = any(row["ratio"] for row in rows)
    titles = ["work", "who", *(["×", "× of CPU time", "promise"] if has_ratio else []), "took"]
    lines = [cells([*titles, *beside]), cells(["---"] * (len(titles) + len(beside)))]
    last = None
    for row in rows:
        took = f"{quartile(row['took'], amount)} {row['unit']}"
        ratios = []
        if has_ratio:
            cpu = row["ratio_cpu"]
            ratios = [
                quartile(row["ratio"], times) + (" (disturbed)" if disturbed(row) else ""),
                "" if cpu is None else f"{cpu['median']:.2f}",
                "" if not row["promise"] else f"{row['promise']}: {verdict(row)}",
            ]
        work = "" if row["cell"] == last else row["cell"]
        last = row["cell"]
        told = [row["beside"].get(title, "") for title in beside]
        lines.append(cells([work, row["who"], *ratios, took, *told]))
    return "\n".join(lines) + "\n"


def disturbed(row: Mapping[str, Any]) -> bool:
    return bool(row.get("others", 0.0) > 0.1)


def verdict(row: Mapping[str, Any]) -> str:
    return "met" if row["is_met"] else "**missed**"


def quartile(found: Mapping[str, float] | None, form: Callable[[float], str]) -> str:
    """Median (quartiles), or the median alone where they are it."""
    if found is None:
        return ""
    if found["q1"] == found["q3"]:
        return form(found["median"])
    return f"{form(found['median'])} ({form(found['q1'])} .. {form(found['q3'])})"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.2f}"


def amount(value: float) -> str:
    """Something that was measured, with the digits that mean anything."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def cells(texts: Iterable[str]) -> str:
    """A line of a table."""
    return "| " + " | ".join(re.sub(r"\|", r"\\|", text) for text in texts) + " |"
