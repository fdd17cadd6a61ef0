"""YAML as people mean it: 1.2's scalars, no key twice, and problems that quote nothing.

The only module that knows the library.
"""

from __future__ import annotations

import re
import reprlib
from typing import Any, Final

import yaml
from yaml import YAMLError as YAMLError

_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 100
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxset = _SHORT.maxtuple = 20
_SHORT.maxlevel = 3


def read_yaml(text: str) -> Any:
    """What a document holds, None if that is nothing.

    Raises
    ------
    YAMLError
        It is none; see `problem_of`.
    RecursionError
        Brackets without end, or an alias inside what it names.
    """
    return _Yaml(text).get_single_data()


def problem_of(error: YAMLError) -> str:
    """Where and why, without the line itself, in which a password may stand."""
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else str(error)


def shortened(value: object) -> str:
    """A value for people, 80 characters at most."""
    text = _SHORT.repr(value)  # aliases make a tree of terabytes from a line
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Yaml(yaml.SafeLoader):
    """Scalars as in YAML 1.2, whose rules hold fewer traps: ``no`` and ``12:30`` are text.

    A number with a leading zero stays text too, and a key that stands twice is an error.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the library's own form

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [str(key.value) for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(str(key.value)) > 1:
                problem = f"{key.value} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # a tag such as !!int before what is none, or digits without end
            problem = f"{shortened(node.value)} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


_FLOAT: Final = r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
for _tag, _form, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", [*"-+0123456789"]),
    ("float", _FLOAT, [*"-+.0123456789"]),
):
    _Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_form})$"), _first)
