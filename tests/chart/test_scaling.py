"""Scaling follows lag or CPU, never beyond the partitions, and never two owners of one number."""

from __future__ import annotations

import pytest

from tests.chart.chart import given, render, rendered

KEDA = {"assigner": {"autoscaling": {"mode": "keda"}}}


def scaled(**more):
    return rendered(KEDA, *({k: v} for k, v in more.items())).one("ScaledObject")["spec"]


@pytest.mark.parametrize("mode", ["keda", "hpa"])
def test_replicas_are_left_to_whoever_scales(mode):
    chart = rendered({"assigner": {"autoscaling": {"mode": mode}}})

    assert "replicas" not in chart.one("StatefulSet")["spec"]
    assert chart.has("ScaledObject") == (mode == "keda")
    assert chart.has("HorizontalPodAutoscaler") == (mode == "hpa")
    assert rendered().one("StatefulSet")["spec"]["replicas"] == 2


def test_lag_trigger_says_what_a_group_without_commits_needs():
    (trigger,) = scaled()["triggers"]
    metadata = trigger["metadata"]

    assert trigger["type"] == "kafka"
    assert metadata["topic"] == "embedding-changes"
    assert metadata["consumerGroup"] == "eddy.assigner"
    assert metadata["offsetResetPolicy"] == "earliest"
    assert metadata["lagThreshold"] == "5000"
    assert metadata["allowIdleConsumers"] == "false"
    assert metadata["ensureEvenDistributionOfPartitions"] == "true"
    assert metadata["excludePersistentLag"] == "true"
    assert all(isinstance(value, str) for value in metadata.values())


def test_most_replicas_are_the_partitions():
    assert scaled()["maxReplicaCount"] == 12
    assert scaled(topics={"input": {"partitions": 5}})["maxReplicaCount"] == 5
    assert scaled()["minReplicaCount"] == 1


def test_losing_sight_of_kafka_does_not_shrink_the_fleet():
    assert scaled()["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_down_by_one_pod_up_by_doubling():
    behavior = scaled()["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]

    assert behavior["scaleDown"] == {
        "stabilizationWindowSeconds": 600,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
    }
    assert behavior["scaleUp"]["policies"] == [
        {"type": "Percent", "value": 100, "periodSeconds": 60}
    ]


def test_trigger_signs_in_with_the_same_secrets():
    chart = render(given("keda"))
    trigger = chart.one("ScaledObject")["spec"]["triggers"][0]
    found = chart.one("TriggerAuthentication")["spec"]["secretTargetRef"]

    assert trigger["authenticationRef"] == {"name": "rel-eddy-assigner"}
    assert trigger["metadata"]["sasl"] == "scram_sha512"
    assert trigger["metadata"]["tls"] == "enable"
    assert trigger["metadata"]["consumerGroup"] == "team.assigners"
    assert {(one["parameter"], one["name"], one["key"]) for one in found} == {
        ("username", "kafka-user", "username"),
        ("password", "kafka-user", "password"),
        ("ca", "kafka-tls", "ca.crt"),
    }


def test_without_secrets_the_trigger_needs_none():
    chart = rendered(KEDA)

    assert not chart.has("TriggerAuthentication")
    assert "authenticationRef" not in chart.one("ScaledObject")["spec"]["triggers"][0]


def test_cpu_scales_the_server():
    chart = render(given("hpa"))
    spec = chart.one("HorizontalPodAutoscaler", "rel-eddy-server")["spec"]

    assert spec["scaleTargetRef"]["kind"] == "Deployment"
    assert spec["metrics"][0]["resource"]["target"]["averageUtilization"] == 75
    assert "replicas" not in chart.one("Deployment", "rel-eddy-server")["spec"]


@pytest.mark.parametrize("mode", ["keda", "hpa"])
def test_what_sleeps_is_not_scaled(mode):
    chart = rendered(
        {"assigner": {"autoscaling": {"mode": mode}}, "diagnosticMode": {"enabled": True}}
    )

    assert not chart.has("ScaledObject")
    assert not chart.has("HorizontalPodAutoscaler", "rel-eddy-assigner")
    assert chart.one("StatefulSet")["spec"]["replicas"] == 1
