"""Writes what the chart copies from elsewhere: ``python -m tests.chart.generate [--check]``.

The schema of ``config`` is the settings models', the README is the values' own comments, the
dashboards are lists of panels, and the golden files are what Helm makes of the sets in ``ci/``.
The copies are committed, and a test compares them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import yaml
from pydantic import TypeAdapter

from pipeline.cli.explain import explanation, sections
from pipeline.config import Option, is_kafka, options
from tests.chart import dashboards
from tests.chart.chart import CHART, ROOT, SETS, given, render
from tests.chart.readme import AFTER, BEFORE

GOLDEN: Final = ROOT / "tests" / "chart" / "golden"
DERIVED: Final = (
    "instance",
    "state.directory",
    "telemetry.metrics_port",
    "telemetry.tracing.endpoint",
    "server.host",
    "server.port",
)
"""Options that the chart sets from its own values."""
DERIVED_SECTIONS: Final = ("kafka", "topics", "server.auth")


class Param(NamedTuple):
    """One value of the chart, as its comment describes it."""

    path: str
    text: str
    section: str


def is_derived(key: str) -> bool:
    """Whether the chart, and not `config`, sets the option."""
    return key in DERIVED or any(key.startswith(f"{section}.") for section in DERIVED_SECTIONS)


def config_schema() -> dict[str, Any]:
    """The JSON Schema of `config`, from the settings models."""
    root: dict[str, Any] = {
        "type": "object",
        "description": "Eddy's own configuration. Generated from the settings models.",
        "additionalProperties": False,
        "properties": {},
    }
    for key, option in options().items():
        if is_kafka(key) or is_derived(key):
            continue
        place, path = root, ""
        *above, name = key.split(".")
        for word in above:
            path = f"{path}.{word}".removeprefix(".")
            new = {
                "type": "object",
                "description": sections()[path],
                "additionalProperties": False,
                "properties": {},
            }
            place = place["properties"].setdefault(word, new)
        place["properties"][name] = option_schema(option)
    return root


def option_schema(option: Option) -> dict[str, Any]:
    """Of one option: type, default, and the sentence of the documentation."""
    schema = TypeAdapter(option.type).json_schema()
    default = list(option.default) if isinstance(option.default, tuple) else option.default
    return {"description": explanation(option), **schema, "default": default}


def values_schema() -> str:
    """``values.schema.json``: as it is, with the part of `config` anew."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    schema["properties"]["config"] = config_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def params() -> list[Param]:
    """Every ``## @param`` of the values, in their order."""
    found, section = [], ""
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\s*## @section (.+)", line):
            section = match[1]
        elif match := re.match(r"\s*## @param (\S+) (.+)", line):
            found.append(Param(match[1], match[2], section))
    return found


def lookup(tree: Mapping[str, Any], path: str) -> object:
    """The value at ``a.b``; KeyError where there is none."""
    value: Any = tree
    for word in path.split("."):
        value = value[word]
    return value


def schema_at(path: str) -> dict[str, Any]:
    """The schema of a value of the chart."""
    root = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    schema: Any = root
    for word in path.split("."):
        schema = _resolved(root, schema["properties"][word])
    assert isinstance(schema, dict)
    return schema


def _resolved(root: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    found = root["$defs"][reference.rpartition("/")[2]] if reference else schema
    assert isinstance(found, dict)
    return found


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " ".join(f"`{one}`" if one else "empty" for one in schema["enum"])
    kind = schema.get("type", "")
    kinds = kind if isinstance(kind, list) else [kind]
    bounds = [
        f"{sign} {schema[name]}"
        for name, sign in (("minimum", "≥"), ("maximum", "≤"))
        if name in schema
    ]
    return " ".join([" or ".join(kinds), *bounds])


def readme() -> str:
    """``README.md`` of the chart."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    lines, section = [], ""
    for param in params():
        if param.section != section:
            section = param.section
            lines += ["", f"### {section}", "", "| value | is | type | default |"]
            lines += ["|---|---|---|---|"]
        default = json.dumps(lookup(values, param.path), ensure_ascii=False)
        kind = _type(schema_at(param.path))
        cells = (f"`{param.path}`", param.text, kind, f"`{default}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return BEFORE + "\n".join(lines) + "\n" + AFTER


def golden(name: str) -> str:
    """What Helm makes of a set of ``ci/``, as one file."""
    files = sorted(render(given(name)).files.items())
    kept = [(path.partition("/templates/")[2], text.strip()) for path, text in files]
    # copies of files that a test compares by themselves
    kept = [(p, t) for p, t in kept if not p.endswith(("/prometheusrule.yaml", "/dashboards.yaml"))]
    return "".join(
        f"---\n# {path}\n{text.removeprefix('---').strip()}\n"
        for path, text in kept
        if path.endswith(".yaml") and text
    )


def outputs() -> Iterator[tuple[str, str]]:
    """Path from the root, and content; the schema first, for the others read it."""
    yield "helm/values.schema.json", values_schema()
    for name, text in dashboards.files().items():
        yield f"helm/dashboards/{name}.json", text
    yield "helm/README.md", readme()
    for name in SETS:
        yield f"tests/chart/golden/{name}.yaml", golden(name)


def main(arguments: list[str]) -> int:
    """Write the files; with ``--check`` only say which differ."""
    different = []
    GOLDEN.mkdir(exist_ok=True)
    for path, text in outputs():
        file = ROOT / path
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        different.append(path)
        if "--check" not in arguments:
            file.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    if "--check" in arguments and different:
        print(
            f"differ from their source: {', '.join(different)}; run python -m tests.chart.generate"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
