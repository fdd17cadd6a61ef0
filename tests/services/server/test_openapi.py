"""The description of the routes is committed, and it is true."""

from __future__ import annotations

import json

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from tests.services.server.openapi import PATH, described

N_EXAMPLES = 4
"""Requests for each route; `schemathesis` finds more with more, in minutes."""


DESCRIPTION = json.loads(PATH.read_text(encoding="utf-8"))
VALIDATORS = {
    name: jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DESCRIPTION["components"]}
    )
    for name in DESCRIPTION["components"]["schemas"]
}


def test_the_committed_description_is_the_one_of_the_routes(corners):
    assert PATH.read_text(encoding="utf-8") == described(corners), (
        "run python -m tests.services.server.openapi"
    )


def test_names_on_the_wire_are_those_of_the_description(corners):
    schemas = json.loads(described(corners))["components"]["schemas"]

    change = corners.ok("/changes", limit=1)["items"][0]

    assert set(schemas["Change"]["properties"]) == set(change)
    assert set(schemas["ClusterReply"]["properties"]) == set(corners.ok("/clusters/c1"))


OPERATIONS = {
    found.ok().label: found.ok()
    for found in schemathesis.openapi.from_dict(DESCRIPTION).get_all_operations()
}


@pytest.mark.parametrize("label", OPERATIONS)
def test_whatever_is_asked_is_answered_as_described(label, corners):
    """No status, no content type and no body that the description does not name; no 500."""
    operation = OPERATIONS[label]
    described_answers = operation.definition.raw["responses"]

    @given(case=operation.as_strategy())
    @settings(
        max_examples=N_EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def check(case):
        asked = case.as_transport_kwargs(base_url="http://localhost")
        answer = corners.client.request(
            asked["method"], asked["url"], params=asked.get("params"), json=asked.get("json"),
            headers={n: v for n, v in (asked.get("headers") or {}).items() if n.isascii()},
        )  # fmt: skip
        assert answer.status_code != 500, answer.text
        told = described_answers.get(str(answer.status_code), described_answers["default"])
        (kind,) = told["content"]
        assert answer.headers["content-type"] == kind
        name = told["content"][kind]["schema"]["$ref"].rpartition("/")[2]
        VALIDATORS[name].validate(answer.json())

    check()


def test_a_body_that_the_description_does_not_know_would_be_noticed(corners):
    body = corners.ok("/clusters/c1")
    VALIDATORS["ClusterReply"].validate(body)

    with pytest.raises(jsonschema.ValidationError):
        VALIDATORS["ClusterReply"].validate({**body, "size": "many"})
