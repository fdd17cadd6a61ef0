"""Holds records against `schemas/`, without the product's codec: it reads what strangers read.

`validate_record("cluster-changes", record)` raises AssertionError or jsonschema's ValidationError.
The kind is the topic's name without its prefix, ``embedding-changes`` for the input, and
``dead-letters`` for its dead letters.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from pipeline.errors import Reason
from pipeline.messages.records import Headers, Outgoing, Record

SCHEMAS = Path(__file__).parent.parent / "schemas"
_EDV1 = struct.Struct("<4sBBHIQ")
_EDS1 = struct.Struct("<4sIQqqqqdd")
_CLUSTER = r"c[1-9][0-9]*"


def validate_record(kind: str, record: Record | Outgoing) -> None:
    """Hold any record against what its topic promises."""
    validate(kind, record.key, record.value, record.headers)


def validate(kind: str, key: bytes | None, value: bytes | None, headers: Headers = ()) -> None:
    """Hold key, value and headers of a record against what its topic promises."""
    for name, told in headers:
        assert type(name) is str
        assert told is None or type(told) is bytes
    _KINDS[kind](key, value, dict(headers))


@cache
def validator(name: str) -> Draft202012Validator:
    """The checker of one file."""
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@cache
def asyncapi() -> dict[str, Any]:
    """The description of all topics."""
    described: dict[str, Any] = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text("utf-8"))
    return described


def schema_names() -> list[str]:
    """Of all files."""
    return sorted(path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.schema.json"))


Given = Mapping[str, bytes | None]


def _change(key: bytes | None, value: bytes | None, headers: Given) -> None:
    assert value is not None
    event = _event("cluster-change", key, value, headers)
    assert event["item"] == _item(key)
    assert (event["from"] is None) == (event["type"] == "assigned")
    assert event["from"] != event["to"]
    source = event["source"]
    place = f"{source['topic']}/{source['partition']}/{source['offset']}"
    version = f"{event['model']['epoch']}.{event['model']['revision']}"
    made_of = {
        "record": place,
        "lost": f"lost/{place}",
        "model": f"model/{version}/{event['item']}",
    }
    assert event["id"] == made_of[event["cause"]]
    _numbers(event, "distance", "margin", "confidence")


def _assignment(key: bytes | None, value: bytes | None, headers: Given) -> None:
    _item(key)
    assert not headers
    if value is not None:
        row = _json("cluster-assignment", value)
        _numbers(row, "distance")


def _vector(key: bytes | None, value: bytes | None, headers: Given) -> None:
    if key is not None and key.startswith(b"\xff"):
        _item(key[1:])
        assert value is None or (headers["embedding-model"] and headers["eddy-offset"])
    else:
        _item(key)
    _metadata(headers)
    timestamp = headers.get("eddy-timestamp")
    assert timestamp is None or re.fullmatch(rb"[0-9]{1,19}", timestamp)
    if value is not None:
        _edv1(value)


def _statistics(key: bytes | None, value: bytes | None, headers: Given) -> None:
    assert not headers
    if re.fullmatch(r"[0-9]+", _text(key)):
        assert value is not None
        _json("partition-head", value)
        return
    assert re.fullmatch(rf"[0-9]+/{_CLUSTER}", _text(key))
    if value is None:
        return
    magic, n_dims, epoch, count, *_, landed, distance, squared = _EDS1.unpack_from(value)
    assert magic == b"EDS1"
    weight = value[_EDS1.size + 8 * n_dims :]
    assert len(value) == _EDS1.size + 8 * n_dims + len(weight)
    if weight:
        (units,) = struct.unpack("<q", weight)
        assert 2**15 * count <= units <= 2**39 * count, "each weighs 2**-16 to 2**8"
    assert epoch >= 1
    assert 0 <= count < 2**23
    assert landed >= 0
    assert math.isfinite(distance)
    assert math.isfinite(squared)
    sums = struct.unpack_from(f"<{n_dims}q", value, _EDS1.size)
    assert count or not any(sums), "no members add up to nothing"


def _model(key: bytes | None, value: bytes | None, headers: Given) -> None:
    assert not headers
    name = _text(key)
    if name == "manifest" or re.fullmatch(r"[1-9][0-9]*", name):
        if value is None:
            assert name != "manifest"
            return
        manifest = _json("manifest", value)
        assert name in ("manifest", str(manifest["epoch"]))
        assert math.frexp(manifest["max_component"])[0] == 0.5
        numbers = [int(cluster[1:]) for cluster in manifest["clusters"]]
        assert max(numbers) < manifest["next_cluster_number"]
    elif re.fullmatch(rf"label:{_CLUSTER}", name):
        if value is not None:
            _json("label", value)
    else:
        assert re.fullmatch(rf"[1-9][0-9]*/{_CLUSTER}", name)
        if value is not None:
            _centroid(value)


def _centroid(value: bytes) -> None:
    n_dims = struct.unpack_from("<I", value, 8)[0]
    tail = value[_EDV1.size + 4 * n_dims :]
    _edv1(value[: len(value) - len(tail)])
    count, squared, mean, *quantiles = struct.unpack_from("<Qdd9f", tail)
    assert count < 2**63
    assert math.isfinite(squared)
    assert 0 <= mean**2 <= squared * (1 + 1e-9)
    assert all(math.isfinite(quantile) and quantile >= 0 for quantile in quantiles)
    assert quantiles == sorted(quantiles)
    if len(tail) > 60:
        assert len(tail) == 60 + 4 * n_dims, "the fitted centroid, or nothing"
        assert tail[60:] != value[_EDV1.size :][: 4 * n_dims], "which has moved since"


def _lifecycle(key: bytes | None, value: bytes | None, headers: Given) -> None:
    assert value is not None
    event = _event("lifecycle", key, value, headers)
    assert _text(key) == (event["cluster"] or "model")


def _drift(key: bytes | None, value: bytes | None, headers: Given) -> None:
    assert value is not None
    event = _event("drift", key, value, headers)
    assert _text(key) == (event["cluster"] or "model")
    assert (event["cluster"] is None) == (event["scope"] == "model")


def _command(key: bytes | None, value: bytes | None, headers: Given) -> None:
    assert 1 <= len(key or b"") <= 512
    _text(key)
    assert value is not None
    _json("command", value)


def _input(key: bytes | None, value: bytes | None, headers: Given) -> None:
    """A good record of the input, as far as no configuration is needed to judge it."""
    _item(key)
    _metadata(headers)
    form = (headers.get("content-type") or b"application/vnd.eddy.vector").decode()
    if value is None:
        return
    if form == "application/json":
        _json("embedding-change", value)
    elif form == "application/octet-stream":
        assert value
        assert len(value) % 4 == 0
    else:
        assert form == "application/vnd.eddy.vector"
        _edv1(value, dtypes={0: 4, 1: 2})


def _dead_letter(key: bytes | None, value: bytes | None, headers: Given) -> None:
    told = {
        name.removeprefix("eddy.errors."): (text or b"").decode("utf-8")
        for name, text in headers.items()
        if name.startswith("eddy.errors.")
    }
    described = asyncapi()["components"]["schemas"]["ErrorHeaders"]
    Draft202012Validator(described).validate({f"eddy.errors.{k}": v for k, v in told.items()})
    assert {f"eddy.errors.{name}" for name in told} <= described["properties"].keys()
    reason = Reason(told["exception.class.name"])
    assert told["exception.message"]
    assert len(told["exception.message"].encode()) <= 1024
    assert ("value.bytes" in told) <= (value is None)
    assert ("key.bytes" in told) <= (key is None)
    if reason is Reason.TOO_LARGE:
        assert value is None
    if reason not in (Reason.KEY, Reason.TOO_LARGE):  # of which the size is judged first
        _item(key)


_KINDS: dict[str, Callable[[bytes | None, bytes | None, Given], None]] = {
    "embedding-changes": _input,
    "cluster-changes": _change,
    "cluster-assignments": _assignment,
    "item-vectors": _vector,
    "cluster-stats": _statistics,
    "cluster-model": _model,
    "cluster-drift": _drift,
    "cluster-lifecycle": _lifecycle,
    "recluster-commands": _command,
    "dead-letters": _dead_letter,
}


def _event(name: str, key: bytes | None, value: bytes, headers: Given) -> dict[str, Any]:
    """The plain event, out of any envelope, which is held against CloudEvents on the way."""
    headers = _untraced(name, headers)
    content_type = headers.get("content-type")
    if content_type is None:
        assert not headers, "the plain form has no headers"
        return _json(name, value)
    if content_type == b"application/cloudevents+json; charset=UTF-8":
        outside = json.loads(value.decode("utf-8"))
        inside: dict[str, Any] = outside.pop("data")
        assert outside.pop("datacontenttype") == "application/json"
        validator(name).validate(inside)
    else:
        assert content_type == b"application/json"
        inside = _json(name, value)
        outside = {
            attribute.removeprefix("ce_"): (told or b"").decode("utf-8")
            for attribute, told in headers.items()
            if attribute != "content-type"
        }
    assert outside.pop("time", None) == inside["occurred_at"]
    assert outside.pop("specversion") == "1.0"
    assert outside.pop("id") == inside["id"]
    assert outside.pop("subject") == _text(key)
    assert outside.pop("source").startswith("/eddy/")
    assert outside.pop("type").startswith("eddy.cluster-")
    assert not outside
    return inside


def _untraced(name: str, headers: Given) -> Given:
    """The headers without a context, which a change may have."""
    traced = {"traceparent", "tracestate"} & headers.keys()
    if traced:
        assert name == "cluster-change"
        assert re.fullmatch(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-01", headers["traceparent"])
    return {name: told for name, told in headers.items() if name not in traced}


def _json(name: str, value: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(value.decode("utf-8"), parse_constant=_no_constant)
    validator(name).validate(parsed)
    return parsed


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def _numbers(fields: Mapping[str, Any], *names: str) -> None:
    for name in names:
        number = fields[name]
        assert number is None or float(f"{number:.7g}") == number, "at most 7 significant digits"


def _metadata(headers: Given) -> None:
    told = headers.get("eddy-metadata")
    if told is not None:
        assert len(told) <= 4096
        _json("metadata", told)


def _edv1(value: bytes, dtypes: Mapping[int, int] | None = None) -> None:
    magic, dtype, flags, reserved, n_dims, _ = _EDV1.unpack_from(value)
    size = (dtypes or {0: 4})[dtype]
    assert (magic, flags, reserved) == (b"EDV1", 0, 0)
    assert len(value) == _EDV1.size + n_dims * size
    form = {4: "f", 2: "e"}[size]
    numbers = struct.unpack_from(f"<{n_dims}{form}", value, _EDV1.size)
    assert all(math.isfinite(number) for number in numbers)


def _item(key: bytes | None) -> str:
    assert 1 <= len(key or b"") <= 512
    return _text(key)


def _text(key: bytes | None) -> str:
    assert key is not None
    return key.decode("utf-8")
