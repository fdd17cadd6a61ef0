"""JSON into the dataclasses of :mod:`pipeline.client.results`, by their types."""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import (
    Any,
    Final,
    NamedTuple,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from pipeline.client.problems import AnswerError

T = TypeVar("T")
_MISSING: Final = object()
WIRE: Final = {"from_cluster": "from", "to_cluster": "to"}
"""Fields whose names on the wire are words of Python."""


class _Step(NamedTuple):
    name: str
    wire: str
    convert: Callable[[Any], Any]
    is_optional: bool


def read(shape: type[T], given: Any) -> T:
    """An object of JSON as a dataclass.

    Raises
    ------
    AnswerError
        It is none, lacks a field, or holds a time that is none.
    """
    if not isinstance(given, Mapping):
        raise AnswerError(f"{shape.__name__} is no object in the server's answer")
    values: dict[str, Any] = {}
    for step in _steps(cast(Hashable, shape)):
        value = given.get(step.wire, _MISSING)
        if value is _MISSING:
            if not step.is_optional:
                raise AnswerError(f"{shape.__name__} lacks {step.wire} in the server's answer")
            continue
        try:
            values[step.name] = None if value is None else step.convert(value)
        except (TypeError, ValueError) as error:
            place = f"{step.wire} of {shape.__name__}"
            raise AnswerError(f"{place} cannot be read in the server's answer") from error
    return shape(**values)


@cache
def _steps(shape: Any) -> tuple[_Step, ...]:
    hints = get_type_hints(shape)
    return tuple(
        _Step(
            one.name,
            WIRE.get(one.name, one.name),
            _converter(hints[one.name]),
            one.default is not MISSING or one.default_factory is not MISSING,
        )
        for one in fields(shape)
    )


def _converter(hint: Any) -> Callable[[Any], Any]:
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return _converter(kinds[0]) if len(kinds) == 1 else _as_is
    if get_origin(hint) is tuple:
        inner = _converter(get_args(hint)[0])
        return lambda value: tuple(map(inner, value))
    if hint is datetime:
        return datetime.fromisoformat
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda value: read(hint, value)
    return _as_is


def _as_is(value: Any) -> Any:
    return value
