"""What cannot work is refused, with a sentence that names the value and says what to do."""

from __future__ import annotations

import helm_python
import pytest
from jsonschema import Draft202012Validator

from tests.chart.chart import CHART, SETS, given, loaded, nested, refusal, rendered

HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
KEDA = {"assigner": {"autoscaling": {"mode": "keda"}}}

ROUTE = {"server.httpRoute.enabled": True, "server.httpRoute.parentRefs": [{"name": "g"}]}

BY_SCHEMA = [  # path, value, what Helm says about it
    ("assigner.replicaz", 3, "at '/assigner': additional properties 'replicaz' not allowed"),
    ("asigner", {}, "at '': additional properties 'asigner' not allowed"),
    ("assigner.replicas", "3", "at '/assigner/replicas': got string, want integer"),
    ("assigner.replicas", 0, "at '/assigner/replicas': minimum: got 0, want 1"),
    ("assigner.replicas", 1.5, "at '/assigner/replicas': got number, want integer"),
    ("assigner.autoscaling.mode", "lag", "at '/assigner/autoscaling/mode': value must be one of"),
    ("server.autoscaling.mode", "keda", "at '/server/autoscaling/mode': value must be one of"),
    ("assigner.persistence.size", "10 GB", "at '/assigner/persistence/size': '10 GB' does not"),
    ("assigner.gpu.resourceName", "gpu", "at '/assigner/gpu/resourceName': 'gpu' does not match"),
    ("assigner.gpu.count", 0, "at '/assigner/gpu/count': minimum: got 0, want 1"),
    ("assigner.probes.startup.path", "/x", "additional properties 'path' not allowed"),
    ("assigner.extraEnv", {"A": "b"}, "at '/assigner/extraEnv': got object, want array"),
    ("assigner.extraEnv", [{"value": "b"}], "at '/assigner/extraEnv/0': missing property 'name'"),
    ("assigner.nodeSelector", {"a": True}, "at '/assigner/nodeSelector/a': got boolean"),
    ("image.tag", "latest", "at '/image/tag': 'not' failed"),
    ("image.digest", "sha256:abc", "at '/image/digest': 'sha256:abc' does not match"),
    ("image.flavour", "amx", "at '/image/flavour': value must be one of 'cpu', 'gpu'"),
    ("image.pullPolicy", "Sometimes", "at '/image/pullPolicy': value must be one of"),
    ("kafka.bootstrapServers", "kafka", "at '/kafka/bootstrapServers': 'kafka' does not match"),
    ("kafka.sasl.mechanism", "GSSAPI", "at '/kafka/sasl/mechanism': value must be one of"),
    ("kafka.config", {"acks": [1]}, "at '/kafka/config/acks': got array"),
    ("topics.prefix", "my topics", "at '/topics/prefix': 'my topics' does not match"),
    ("topics.input.partitions", 0, "at '/topics/input/partitions': minimum: got 0, want 1"),
    ("topics.provision", "yes", "at '/topics/provision': value must be one of"),
    ("config.clustering.cluster", 5, "at '/config/clustering': additional properties 'cluster'"),
    ("config.clustering.clusters", "many", "at '/config/clustering/clusters'"),
    ("config.embedding.dimensions", "384", "at '/config/embedding/dimensions': got string"),
    ("config.embedding.metric", "manhattan", "at '/config/embedding/metric': value must be one of"),
    ("config.kafka", {}, "at '/config': additional properties 'kafka' not allowed"),
    ("config.topics", {}, "at '/config': additional properties 'topics' not allowed"),
    ("config.state.directory", "/x", "at '/config/state': additional properties 'directory'"),
    ("config.instance", "a", "at '/config': additional properties 'instance' not allowed"),
    ("config.telemetry.metrics_port", 1, "at '/config/telemetry': additional properties"),
    ("server.auth.mode", "basic", "at '/server/auth/mode': value must be one of 'none', 'bearer'"),
    ("server.auth.tokens", ["secret"], "at '/server/auth/tokens/0': 'secret' does not match"),
    ("server.service.port", 70000, "at '/server/service/port': maximum: got 70,000, want 65,535"),
    ("monitoring.podMonitor.interval", "30", "at '/monitoring/podMonitor/interval': '30' does not"),
    ("monitoring.tracing.endpoint", "collector:4317", "at '/monitoring/tracing/endpoint'"),
    ("networkPolicy.kafkaPorts", [], "at '/networkPolicy/kafkaPorts': minItems: got 0, want 1"),
    ("fullnameOverride", "My_Eddy", "at '/fullnameOverride': 'My_Eddy' does not match"),
]

BY_TEMPLATE = [  # values as path and value pairs, the sentence
    ({"kafka.bootstrapServers": ""}, "kafka.bootstrapServers is empty, but must name brokers"),
    (
        {"assigner.replicas": 13},
        "assigner.replicas is 13, but topics.input.partitions is 12: the pods beyond it would have "
        "nothing to do",
    ),
    (
        {"assigner.autoscaling.mode": "keda", "assigner.autoscaling.maxReplicas": 24},
        "assigner.autoscaling.maxReplicas is 24, but topics.input.partitions is 12",
    ),
    (
        {"assigner.autoscaling.mode": "keda", "assigner.autoscaling.minReplicas": 13},
        "assigner.autoscaling.minReplicas is 13, but the most is 12",
    ),
    (
        {"assigner.autoscaling.mode": "hpa", "assigner.gpu.enabled": True},
        "assigner.autoscaling.mode is hpa, but assigner.gpu.enabled is true",
    ),
    (
        {"assigner.autoscaling.mode": "hpa", "assigner.resources.requests": None},
        "assigner.autoscaling.mode is hpa, but assigner.resources.requests.cpu is not set",
    ),
    (
        {"server.autoscaling.mode": "hpa", "server.autoscaling.minReplicas": 9},
        "server.autoscaling.minReplicas is 9, but server.autoscaling.maxReplicas is 6",
    ),
    (
        {"assigner.replicas": 1},
        "assigner.pdb.enabled is true, but assigner.replicas is 1: a budget over one pod",
    ),
    ({"server.replicas": 1}, "server.pdb.enabled is true, but server.replicas is 1"),
    ({"assigner.pdb.maxUnavailable": 0}, "assigner.pdb.maxUnavailable is 0: no node could ever"),
    (
        {"assigner.terminationGracePeriodSeconds": 10},
        "assigner.terminationGracePeriodSeconds is 10, but a transaction may take 15 s",
    ),
    (
        {"server.terminationGracePeriodSeconds": 5},
        "server.terminationGracePeriodSeconds is 5, but server.preStopSleepSeconds alone is 5",
    ),
    (
        {"server.auth.existingSecret": ""},
        "server.auth.mode is bearer, but there are no tokens: set server.auth.existingSecret",
    ),
    (
        {"server.auth.tokens": [f"ops:read:{HASH}"]},
        "server.auth.existingSecret and server.auth.tokens are both set",
    ),
    ({"server.ingress.enabled": True}, "server.ingress.enabled is true, but server.ingress.hosts"),
    ({"server.httpRoute.enabled": True}, "but server.httpRoute.parentRefs is empty"),
    (
        {**ROUTE, "server.httpRoute.path": "/eddy"},
        "server.httpRoute.path is /eddy, but config.server.root_path is empty: the server would",
    ),
    (
        {**ROUTE, "server.httpRoute.path": "/eddy", "config.server.root_path": "/ed"},
        "server.httpRoute.path is /eddy, but config.server.root_path is /ed: the server would",
    ),
    (
        {
            "server.ingress.enabled": True,
            "server.ingress.hosts": [{"host": "a"}, {"host": "b", "path": "/eddy/"}],
        },
        "server.ingress.hosts[1].path is /eddy/, but config.server.root_path is empty: the server",
    ),
    (
        {"server.enabled": False, "server.ingress.enabled": True},
        "server.enabled is false, but server.ingress or server.httpRoute is enabled",
    ),
    (
        {"kafka.sasl.mechanism": "SCRAM-SHA-512"},
        "kafka.sasl.mechanism is SCRAM-SHA-512, but kafka.sasl.existingSecret is empty",
    ),
    (
        {"kafka.sasl.existingSecret": "user"},
        "kafka.sasl.existingSecret is set, but kafka.sasl.mechanism is empty",
    ),
    (
        {"kafka.sasl.mechanism": "PLAIN", "kafka.sasl.password": "x"},
        "kafka.sasl.password is set, but kafka.sasl.username is empty",
    ),
    (
        {"kafka.tls.existingSecret": "tls"},
        "kafka.tls.existingSecret is set, but kafka.tls.enabled is false",
    ),
    (
        {"kafka.tls.certKey": ""},
        "kafka.tls.certKey and kafka.tls.keyKey belong together",
    ),
    (
        {r"kafka.config.enable\.auto\.commit": True},
        "kafka.config holds enable.auto.commit, which is not for you to set: offsets are committed",
    ),
    (
        {r"kafka.consumer.isolation\.level": "read_uncommitted"},
        "kafka.consumer holds isolation.level, which is not for you to set",
    ),
    (
        {r"kafka.producer.transactional\.id": "x"},
        "kafka.producer holds transactional.id, which is not for you to set: it is <kafka.groupId>",
    ),
    ({r"kafka.config.group\.id": "x"}, "which is not for you to set: it is kafka.groupId"),
    (
        {r"kafka.config.sasl\.password": "x"},
        "kafka.config holds sasl.password, which would stand in a ConfigMap",
    ),
    ({r"kafka.config.ssl\.key\.pem": "x"}, "kafka.config holds ssl.key.pem, which would stand"),
    (
        {"kafka.bootstrapServers": "a:9092,b:19092"},
        "kafka.bootstrapServers names port 19092, but networkPolicy.kafkaPorts lacks it",
    ),
    ({"topics.provision": "strimzi"}, "topics.provision is strimzi, but topics.strimzi.cluster is"),
    (
        {"topics.input.name": "eddy.cluster-model"},
        "topics.input.name is eddy.cluster-model, but with topics.prefix eddy. that is the name of",
    ),
    (
        {"image.digest": f"sha256:{HASH}", "assigner.gpu.enabled": True},
        "image.digest names one image and image.flavour says cpu",
    ),
    (
        {"assigner.gpu.enabled": True, "config.device.kind": "cpu"},
        "assigner.gpu.enabled is true, but config.device.kind is cpu: the card would be idle",
    ),
    (
        {"assigner.extraEnv": [{"name": "EDDY_INSTANCE", "value": "x"}]},
        "assigner.extraEnv sets EDDY_INSTANCE, which the chart derives from its own values",
    ),
    (
        {"monitoring.prometheusRule.disabled": ["EddyTypo"]},
        "monitoring.prometheusRule.disabled names EddyTypo, but there is no such alert",
    ),
    ({"replicaCount": 3}, "replicaCount is no value of this chart: it is called assigner.replicas"),
    ({"kafka.brokers": "k:1"}, "it is called kafka.bootstrapServers"),
    ({"persistence.enabled": True}, "it is called assigner.persistence"),
    ({"reclusterer.replicas": 2}, "there is one reclusterer, because a second one fences the"),
]


@pytest.mark.parametrize(("path", "value", "said"), BY_SCHEMA, ids=lambda one: str(one)[:40])
def test_schema_refuses_and_names_the_key(path, value, said):
    assert said in refusal(nested(path, value))


@pytest.mark.parametrize(("values", "said"), BY_TEMPLATE, ids=lambda one: str(one)[:60])
def test_contradiction_is_refused_with_a_sentence(values, said):
    assert said in refusal(*(nested(path, value) for path, value in values.items()))


def test_there_are_many_refusals():
    assert len(BY_SCHEMA) + len(BY_TEMPLATE) >= 40


def routed(path, root=None, **host):
    """A route and an Ingress that lead to the server under such a path."""
    host = {"host": "h", "path": path, **host}
    server = {
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}], "path": path},
        "ingress": {"enabled": True, "hosts": [host]},
    }
    return {"server": server, "config": {"server": {"root_path": root}} if root else {}}


def test_a_path_that_the_server_knows_is_taken():
    assert refusal(routed("/eddy", "/eddy")) == ""
    assert refusal(routed("/eddy/", "/eddy")) == ""
    assert refusal(routed("/eddy/api", "/eddy/")) == ""  # the API alone
    assert refusal(routed("/api/v1")) == ""
    assert refusal(routed("/", "/eddy")) == ""  # somebody in front of it has the path
    rewritten = routed("/eddy(/|$)(.*)", "/eddy", pathType="ImplementationSpecific")
    rewritten["server"]["httpRoute"]["enabled"] = False
    assert refusal(rewritten) == ""


def test_what_every_installation_has_to_say_is_enough():
    assert refusal() == ""


@pytest.mark.parametrize("name", SETS)
def test_set_is_taken(name):
    loaded().validate_schema(given(name))


def test_schema_is_a_schema():
    Draft202012Validator.check_schema(loaded().schema)


def test_lint_finds_nothing():
    report = helm_python.lint(CHART, given("default"), strict=True)

    assert report["messages"] == []


def test_snapshots_of_another_format_stop_an_upgrade(tmp_path):
    """`lookup` finds nothing without a cluster, so the check behind it is called by itself."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: x, version: 0.1.0}")
    helpers = (CHART / "templates" / "_helpers.tpl").read_text()
    (tmp_path / "templates" / "_helpers.tpl").write_text(helpers)
    (tmp_path / "templates" / "check.yaml").write_text(
        '{{ include "eddy.checkSnapshots" (dict "written" .Values.written "read" "2") }}'
    )

    with helm_python.Chart.load(tmp_path) as chart:
        for fine in ("2", ""):
            chart.render({"written": fine}, name="x")
        with pytest.raises(helm_python.HelmRenderError, match="are of format 1, and this version"):
            chart.render({"written": "1"}, name="x")


def test_first_upgrade_renders():
    assert rendered({"assigner": {"replicas": 3}}).one("StatefulSet")["spec"]["replicas"] == 3
