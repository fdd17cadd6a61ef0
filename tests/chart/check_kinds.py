"""Built-in kinds, strictly, for four versions of Kubernetes; slow: ``make chart-test`` only."""

from __future__ import annotations

import json

import kubernetes_validate
import pytest

from tests.chart.chart import SETS, given, render

VERSIONS = ("1.30", "1.32", "1.34", "1.37")
BUILT_IN = {"v1", "apps/v1", "autoscaling/v2", "batch/v1", "networking.k8s.io/v1", "policy/v1"}
FROM_1_34 = {"gpu"}  # resource claims


def objects():
    """Every object of every set once: most are the same but for their checksums."""
    seen = {}
    for name in SETS:
        for one in render(given(name)).objects:
            if one["apiVersion"] in BUILT_IN:
                seen.setdefault(json.dumps(one, sort_keys=True), (name, one))
    return list(seen.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(version):
    for name, one in objects():
        if name in FROM_1_34 and version < "1.34":
            continue
        kubernetes_validate.validate(one, version, strict=True)


def test_a_wrong_field_would_be_noticed():
    service = render(given("default")).one("Service", "rel-eddy-server")
    broken = service | {"spec": service["spec"] | {"targetport": 1}}

    with pytest.raises(kubernetes_validate.ValidationError, match="targetport"):
        kubernetes_validate.validate(broken, "1.34", strict=True)


def test_every_other_kind_is_an_operator_s():
    kinds = {
        one["kind"]
        for name in SETS
        for one in render(given(name)).objects
        if one["apiVersion"] not in BUILT_IN
    }

    assert kinds == {
        "HTTPRoute",
        "KafkaTopic",
        "PodMonitor",
        "PrometheusRule",
        "ScaledObject",
        "ServiceMonitor",
        "TriggerAuthentication",
    }
