"""How the pods get to Kafka: security, secrets, properties, and the topics."""

from __future__ import annotations

import pytest

from pipeline.streams.topics import TopicPolicy, expected_topics
from tests.chart.chart import given, render, rendered


def test_secrets_that_exist_are_used_by_their_keys_and_as_files():
    chart = render(given("keda"))
    env = chart.env("assigner")
    volumes = {v["name"]: v for v in chart.template("assigner")["spec"]["volumes"]}
    mounts = {m["name"]: m for m in chart.container("assigner")["volumeMounts"]}

    assert not chart.has("Secret")
    assert env["EDDY_KAFKA__SASL__PASSWORD_FILE"] == "/etc/eddy/secrets/kafka-sasl/password"
    assert volumes["kafka-sasl"]["secret"]["secretName"] == "kafka-user"
    assert mounts["kafka-sasl"]["readOnly"] is True
    assert [item["key"] for item in volumes["kafka-tls"]["secret"]["items"]] == ["ca.crt"]
    assert not any("password" in str(value) for name, value in env.items() if "FILE" not in name)


def test_given_password_becomes_a_secret_and_never_configuration():
    chart = render(given("sasl-tls"))

    assert chart.one("Secret", "rel-eddy-kafka")["stringData"]["password"] == "007"
    assert "007" not in str(chart.config())
    assert all("007" not in str(o) for o in chart.objects if o["kind"] != "Secret")


def test_kafka_security_passes_through():
    kafka = render(given("sasl-tls")).config()["kafka"]

    assert kafka["security.protocol"] == "SASL_SSL"
    assert kafka["sasl.mechanism"] == "PLAIN"
    assert kafka["ssl.ca.location"] == "/etc/eddy/secrets/kafka-tls/ca.crt"
    assert kafka["socket.keepalive.enable"] is True
    assert kafka["consumer"] == {"fetch.min.bytes": 1, "max.partition.fetch.bytes": 8388608}
    assert kafka["producer"] == {"linger.ms": 10}


def test_static_membership_may_be_turned_off():
    assert "group.instance.id" not in rendered().config()["kafka"]
    off = rendered({"kafka": {"staticMembership": False}}).config()["kafka"]
    assert off["group.instance.id"] == ""


def test_properties_of_the_user_are_above_what_is_derived():
    values = {"kafka": {"tls": {"enabled": True}, "config": {"security.protocol": "SASL_SSL"}}}

    assert rendered(values).config()["kafka"]["security.protocol"] == "SASL_SSL"


def test_oidc_needs_properties_and_a_secret():
    kafka = {
        "config": {"sasl.oauthbearer.token.endpoint.url": "https://id.example.com/token"},
        "sasl": {"mechanism": "OAUTHBEARER", "existingSecret": "client"},
    }
    env = rendered({"kafka": kafka}).env("assigner")

    assert env["EDDY_KAFKA__SASL__OAUTHBEARER__CLIENT__SECRET_FILE"].endswith("/password")


def test_topics_are_made_by_a_hook_that_brings_what_it_reads():
    chart = render(given("sasl-tls"))
    job = chart.one("Job")
    hook = job["metadata"]["annotations"]
    spec = job["spec"]["template"]["spec"]

    assert hook["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert hook["helm.sh/hook-weight"] == "-5"
    assert hook["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    assert spec["containers"][0]["args"] == ["topics", "create"]
    assert spec["restartPolicy"] == "Never"
    assert spec["serviceAccountName"] == "default"  # its own is not there yet
    named = {v["configMap"]["name"] for v in spec["volumes"] if "configMap" in v}
    named |= {v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
    before = {
        o["metadata"]["name"]
        for o in chart.objects
        if (o["metadata"].get("annotations") or {}).get("helm.sh/hook-weight") == "-10"
    }
    assert named - {"kafka-tls"} <= before
    assert chart.config("rel-eddy-topics") == chart.config()


def test_topics_of_strimzi_are_those_that_eddy_would_make():
    values = given("strimzi")
    topics, input_topic = values["topics"], values["topics"]["input"]
    policy = TopicPolicy(
        input=input_topic["name"], prefix=topics["prefix"], partitions=input_topic["partitions"]
    )
    made = {
        o["spec"]["topicName"]: (o["spec"]["partitions"], o["spec"]["config"])
        for o in render(values).all("KafkaTopic")
    }

    expected = expected_topics(policy, values["config"]["limits"]["max_record_bytes"])
    assert made == {t.name: (t.n_partitions, dict(t.config)) for t in expected}


@pytest.mark.parametrize("provision", ["none", "strimzi"])
def test_without_the_job_there_is_none(provision):
    values = {"topics": {"provision": provision, "strimzi": {"cluster": "main"}}}

    assert not rendered(values).has("Job")
