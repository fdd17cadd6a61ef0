"""`schemas/`: they hold together, their examples are ours, and the description names everything."""

from __future__ import annotations

import json
import re

import jsonschema
import numpy as np
import pytest

from pipeline.errors import Reason
from pipeline.messages.codec import (
    decode,
    decode_assignment,
    decode_change,
    decode_drift,
    decode_head,
    decode_lifecycle,
    encode_assignment,
    encode_change,
    encode_drift,
    encode_head,
    encode_lifecycle,
    json_bytes,
    record_metadata,
    vector_headers,
)
from pipeline.messages.commands import decode_command, encode_command
from pipeline.messages.model import ModelFold, decode_manifest, encode_manifest, label_key
from pipeline.messages.policy import JSON, EmbeddingPolicy, EventPolicy, LimitPolicy
from pipeline.messages.records import Record
from pipeline.streams.topics import TopicPolicy
from tests.schemas import SCHEMAS, asyncapi, schema_names, validate, validator

ALL_METADATA = EventPolicy(metadata=("section",))


def _change(value):
    return encode_change(decode_change(value), ALL_METADATA)[0]


def _embedding(value):
    embedding = EmbeddingPolicy(dimensions=4, content_type=JSON)
    batch = decode([Record(0, 0, b"item", value)], embedding, LimitPolicy())
    assert batch.errors == {}
    assert batch.vectors.tolist() == [[0.5, -0.25, 1.0, 0.125]]
    return value


def _metadata(value):
    (header,) = vector_headers(json.loads(value), None)
    return json_bytes(record_metadata(Record(0, 0, b"item", None, None, (header,))))


def _label(value):
    fold = ModelFold()
    fold.fold([Record(0, 0, label_key("c1"), value)])
    return json_bytes({"label": fold.labels["c1"]})


ROUND_TRIPS = {
    "cluster-assignment": lambda value: encode_assignment(*decode_assignment(value)),
    "cluster-change": _change,
    "command": lambda value: encode_command(decode_command(Record(0, 0, b"id", value)))[1],
    "drift": lambda value: encode_drift(decode_drift(value), ALL_METADATA)[0],
    "embedding-change": _embedding,
    "label": _label,
    "lifecycle": lambda value: encode_lifecycle(decode_lifecycle(value), ALL_METADATA)[0],
    "manifest": lambda value: encode_manifest(decode_manifest(value)),
    "metadata": _metadata,
    "partition-head": lambda value: encode_head(decode_head(value)),
}
WRITTEN_BY_PEOPLE = {"embedding-change", "command"}
EXAMPLES = [
    pytest.param(name, example, id=f"{name} {i}")
    for name in schema_names()
    for i, example in enumerate(validator(name).schema["examples"])
]


def test_every_json_value_has_a_schema_and_a_class():
    assert schema_names() == sorted(ROUND_TRIPS)


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_example_fits_its_schema_and_comes_back_from_the_class(name, example):
    validator(name).validate(example)

    value = json_bytes(example)

    assert ROUND_TRIPS[name](value) == value, "field by field, in the same order"


@pytest.mark.parametrize("name", schema_names())
def test_a_schema_is_2020_12_and_says_what_each_field_is(name):
    schema = validator(name).schema

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:eddy:schema:{name}"
    assert schema["title"]
    assert schema["description"]
    for place in [schema, *schema.get("oneOf", ())]:
        for field, told in place.get("properties", {}).items():
            if name != "cluster-change" or place is schema:
                assert "description" in told or "const" in told, field


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_only_what_people_write_is_closed(name, example):
    more = example | {"something_new": [1]}
    if name in WRITTEN_BY_PEOPLE:
        with pytest.raises(jsonschema.ValidationError):
            validator(name).validate(more)
    elif name != "metadata":
        validator(name).validate(more)


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_control_an_example_with_a_field_missing_or_wrong_is_refused(name, example):
    required = set(validator(name).schema.get("required", ()))
    for field in example.keys() & required:
        with pytest.raises(jsonschema.ValidationError):
            validator(name).validate({k: v for k, v in example.items() if k != field})
        with pytest.raises(jsonschema.ValidationError):
            validator(name).validate(example | {field: {"no": object}})


@pytest.mark.parametrize(
    "fields",
    [
        {"vector": None}, {"vector": 1}, {"vector": []}, {"vector": [1, "2"]}, {"vector": [True]},
        {"vector": "?"}, {}, {"vector": [1.0], "sequence": -1}, {"vector": [1.0], "sequence": 0.5},
        {"vector": [1.0], "sequence": 2**64}, {"vector": [1.0], "sequence": None},
        {"vector": [1.0], "embedding_model": None}, {"vector": [1.0], "metadata": []},
        {"vector": [1.0], "metadata": {"a": None}}, {"vector": [1.0], "metadata": {"a": [1]}},
        {"vector": [1.0], "sequnce": 1},
    ],
)  # fmt: skip
def test_decoder_and_schema_refuse_the_same(fields):
    embedding = EmbeddingPolicy(dimensions=1, content_type=JSON)
    batch = decode([Record(0, 0, b"item", json.dumps(fields).encode())], embedding, LimitPolicy())

    assert batch.errors[0].reason in (Reason.DECODE, Reason.DIMENSION)
    with pytest.raises(jsonschema.ValidationError):
        validator("embedding-change").validate(fields)


# --- asyncapi -------------------------------------------------------------------------------------


def test_the_description_names_every_topic():
    by_server = {}
    for channel in asyncapi()["channels"].values():
        (server,) = channel["servers"]
        by_server.setdefault(server["$ref"], set()).add(channel["address"])

    assert by_server == {
        "#/servers/kafka": set(TopicPolicy().names),
        "#/servers/websocket": {"/api/v1/stream"},
        "#/servers/http": {"/api/v1/events"},
    }


def test_every_channel_has_an_operation():
    described = asyncapi()
    used = {op["channel"]["$ref"].split("/")[-1] for op in described["operations"].values()}

    assert used == set(described["channels"])


def test_every_reference_leads_somewhere_and_every_schema_is_used():
    described = asyncapi()
    references = set(_references(described))

    files = {
        ref.removeprefix("./").removesuffix(".schema.json") for ref in references if "./" in ref
    }
    assert files == set(schema_names()) - {"metadata"}
    assert "metadata.schema.json" in (SCHEMAS / "asyncapi.yaml").read_text("utf-8")
    used = set()
    for ref in references:
        if ref.startswith("#/"):
            place = described
            for step in ref.removeprefix("#/").split("/"):
                place = place[step]
            used.add(ref)
        else:
            assert (SCHEMAS / ref).is_file()
    for kind in ("messages", "schemas"):
        for name in described["components"][kind]:
            assert f"#/components/{kind}/{name}" in used, f"{name} is used nowhere"


def test_every_reason_and_every_error_header_is_described():
    headers = asyncapi()["components"]["schemas"]["ErrorHeaders"]["properties"]

    reasons = headers["eddy.errors.exception.class.name"]["enum"]
    assert reasons == [reason.value for reason in Reason]


def test_schemas_inside_the_description_are_schemas():
    for schema in asyncapi()["components"]["schemas"].values():
        if "$ref" not in json.dumps(schema):
            jsonschema.Draft202012Validator.check_schema(schema)


def test_control_the_checker_of_records_objects():
    value = encode_assignment("c40", 0.412, 0, 7, 31, 3, 1841)
    validate("cluster-assignments", b"item", value)
    broken = [
        (b"", value, ()),
        (b"\xff", value, ()),
        (b"item", value.replace(b"c40", b"40"), ()),
        (b"item", value.replace(b"0.412", b"0.41234567891"), ()),
        (b"item", value.replace(b"0.412", b"NaN"), ()),
        (b"item", value, (("h", b"x"),)),
        (b"item", np.ones(3).tobytes(), ()),
    ]
    for key, wrong, headers in broken:
        with pytest.raises((AssertionError, ValueError, jsonschema.ValidationError)):
            validate("cluster-assignments", key, wrong, headers)


def _references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def test_keys_in_the_description_are_patterns():
    for name, message in asyncapi()["components"]["messages"].items():
        if name.startswith("stream"):
            continue  # the server's: they have no key
        pattern = message["bindings"]["kafka"]["key"].get("pattern", "")
        assert re.compile(pattern)
