"""What every option means, what it is here, and a file to start from.

The explanation of an option is the string below its field in the policy: the file, the
documentation and a reader of the code see the same sentence.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

from pipeline.config import (
    SECRET,
    Config,
    Loaded,
    Option,
    is_kafka,
    options,
)

KAFKA: Final = {
    "kafka.bootstrap.servers": "Addresses of brokers, host:port, separated by commas.",
    "kafka.group.id": "Of the assigners; null: the topics' prefix, then assigner.",
}
"""The two keys of a free section that Eddy itself knows."""

HEAD: Final = """\
# Every option of Eddy with its default: take the # away in front of what you change.
# The environment (EDDY_CLUSTERING__CLUSTERS=500) is above this file, and flags
# (--set clustering.clusters=500) are above both.
"""


class Row(NamedTuple):
    """One key of what a process obeys; secrets are hidden."""

    key: str
    value: object
    origin: str


def show(loaded: Loaded) -> list[Row]:
    """What a process obeys, key by key, in the order of the file."""
    known = options()
    place = {key: number for number, key in enumerate(known)}
    rows = []
    for key in sorted(loaded.origins, key=lambda key: place.get(key, place["kafka.group.id"])):
        if is_kafka(key):
            value: object = loaded.config.kafka.get(key.removeprefix("kafka."))
        else:
            value = attrgetter(key)(loaded.config)
        rows.append(Row(key, _hidden(key, value), loaded.origins[key]))
    return rows


def digest(loaded: Loaded) -> str:
    """Twelve digits that differ where two configurations do, whoever gave them; without secrets."""
    values = [(row.key, row.value) for row in show(loaded)]
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]


def explanation(option: Option) -> str:
    """What an option means, in a sentence or two; empty where the source is not at hand."""
    if option.key in KAFKA:
        return KAFKA[option.key]
    said = _below_fields(option.policy).get(option.key.rpartition(".")[2], "")
    if get_origin(option.type) is Literal:
        said += f" One of {', '.join(get_args(option.type))}."
    return said


def section_of(key: str) -> str:
    """The section a key stands in; empty at the top."""
    return "kafka" if key.startswith("kafka.") else key.rpartition(".")[0]


@cache
def sections() -> Mapping[str, str]:
    """Section -> what it is about, in the order of the file."""
    return _sections(Config, "")


def template() -> str:
    """A file with every key, its default, and what it means; all of it commented out."""
    lines, opened = [], ""
    for key, option in options().items():
        section = section_of(key)
        outer, inner = "  " * section.count("."), "  " * (section.count(".") + bool(section))
        if section != opened:
            lines += ["", *_comment(sections()[section], outer)]
            lines.append(f"{outer}{section.rpartition('.')[2]}:")
        elif not section:
            lines.append("")
        opened = section
        lines += _comment(explanation(option), inner)
        lines.append(f"{inner}#{key.removeprefix(f'{section}.')}: {yaml_scalar(option.default)}")
    return HEAD + "\n".join(lines) + "\n"


def yaml_scalar(value: object) -> str:
    """A value as the file would have it, on one line."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(yaml_scalar, value))}]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str) and re.fullmatch(r"(?!(?:null|true|false)$)[A-Za-z][\w./:-]*", value):
        return str(value)
    return json.dumps(value)


def _hidden(key: str, value: object) -> object:
    return "***" if value and SECRET.search(key) else value


def _comment(text: str, pad: str) -> list[str]:
    return textwrap.wrap(text, 96, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ")


def _sections(policy: type, path: str) -> dict[str, str]:
    hints, found = get_type_hints(policy), {}
    for one in fields(policy):
        key, hint = f"{path}{one.name}", hints[one.name]
        if is_dataclass(hint):
            assert isinstance(hint, type)
            found[key] = _line((hint.__doc__ or "").partition("\n\n")[0])
            found |= _sections(hint, f"{key}.")
        elif key == "kafka":
            found[key] = _below_fields(policy)[key]
    return found


@cache
def _below_fields(policy: type) -> Mapping[str, str]:
    """Field -> the string below it."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(policy))).body[0]
    except OSError:
        return {}
    assert isinstance(body, ast.ClassDef)
    said = {}
    for one, below in zip(body.body, body.body[1:], strict=False):
        if not isinstance(one, ast.AnnAssign) or not isinstance(one.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            said[one.target.id] = _line(str(below.value.value))
    return said


def _line(text: str) -> str:
    return " ".join(re.sub(r"\bNone\b", "null", text.replace("``", "")).split())
