"""One test for each row of the feature table: what a value does to the objects."""

from __future__ import annotations

import pytest

from pipeline.state.snapshot import VERSION
from tests.chart.chart import SETS, given, loaded, render, rendered

ASSIGNER = "rel-eddy-assigner"
SERVER = "rel-eddy-server"
COMPONENTS = ("assigner", "reclusterer", "server")


def test_workloads_are_what_the_promises_need():
    chart = rendered()
    assigner, server = chart.one("StatefulSet"), chart.one("Deployment", SERVER)
    reclusterer = chart.one("Deployment", "rel-eddy-reclusterer")

    assert assigner["spec"]["podManagementPolicy"] == "Parallel"
    assert reclusterer["spec"]["replicas"] == 1
    assert reclusterer["spec"]["strategy"] == {"type": "Recreate"}
    assert server["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert chart.env("assigner")["EDDY_INSTANCE"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    for component in COMPONENTS:
        assert chart.container(component)["args"] == [component]


def test_assigner_service_is_headless_and_names_pods_that_are_not_ready():
    spec = rendered().one("Service", ASSIGNER)["spec"]

    assert spec["clusterIP"] == "None"
    assert spec["publishNotReadyAddresses"] is True


def test_volume_of_the_assigner_is_a_claim_or_scratch():
    kept = rendered().one("StatefulSet")["spec"]
    without = rendered({"assigner": {"persistence": {"enabled": False}}})

    assert kept["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Delete",
    }
    assert kept["volumeClaimTemplates"][0]["spec"]["resources"] == {"requests": {"storage": "10Gi"}}
    assert "volumeClaimTemplates" not in without.one("StatefulSet")["spec"]
    data = [v for v in without.template("assigner")["spec"]["volumes"] if v["name"] == "data"]
    assert data == [{"name": "data", "emptyDir": {"sizeLimit": "10Gi"}}]


def test_storage_class_may_be_named_or_none():
    def claim(name):
        chart = rendered({"assigner": {"persistence": {"storageClass": name}}})
        return chart.one("StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"]

    assert claim("fast")["storageClassName"] == "fast"
    assert claim("-")["storageClassName"] == ""
    assert "storageClassName" not in claim("")


def test_snapshot_format_stands_at_the_workload_and_is_the_code_s():
    annotations = rendered().one("StatefulSet")["metadata"]["annotations"]

    assert annotations["eddy/snapshot-format"] == str(VERSION)


@pytest.mark.parametrize("component", ["assigner", "server"])
def test_budget_for_disruptions(component):
    spec = rendered().one("PodDisruptionBudget", f"rel-eddy-{component}")["spec"]

    assert spec["maxUnavailable"] == 1
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert spec["selector"]["matchLabels"]["app.kubernetes.io/component"] == component
    assert not rendered({component: {"pdb": {"enabled": False}}}).has(
        "PodDisruptionBudget", f"rel-eddy-{component}"
    )


def test_reclusterer_has_no_budget():
    assert not rendered().has("PodDisruptionBudget", "rel-eddy-reclusterer")


@pytest.mark.parametrize(
    ("component", "revision"),
    [("assigner", "controller-revision-hash"), ("server", "pod-template-hash")],
)
def test_pods_are_spread_by_revision(component, revision):
    (spread,) = rendered().template(component)["spec"]["topologySpreadConstraints"]
    own = {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    (given_by_user,) = rendered({component: {"topologySpreadConstraints": [own]}}).template(
        component
    )["spec"]["topologySpreadConstraints"]

    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["matchLabelKeys"] == [revision]
    assert spread["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
    assert given_by_user["maxSkew"] == 2
    assert (
        "topologySpreadConstraints"
        not in rendered({component: {"topologySpreadConstraints": []}}).template(component)["spec"]
    )


def test_where_pods_go_is_a_component_s_over_global():
    everywhere = {
        "nodeSelector": {"a": "1", "b": "1"},
        "tolerations": [{"key": "all"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "low",
        "runtimeClassName": "gvisor",
    }
    own = {
        "nodeSelector": {"b": "2"},
        "tolerations": [{"key": "own"}],
        "priorityClassName": "high",
        "runtimeClassName": "kata",
        "affinity": {"podAffinity": {}},
    }
    chart = rendered({"global": everywhere, "server": own})
    server = chart.template("server")["spec"]
    assigner = chart.template("assigner")["spec"]

    assert server["nodeSelector"] == {"a": "1", "b": "2"}
    assert server["tolerations"] == [{"key": "own"}, {"key": "all"}]
    assert server["priorityClassName"] == "high"
    assert server["runtimeClassName"] == "kata"
    assert server["affinity"] == {"podAffinity": {}}
    assert assigner["nodeSelector"] == everywhere["nodeSelector"]
    assert assigner["runtimeClassName"] == "gvisor"
    assert assigner["affinity"] == {"nodeAffinity": {}}
    assert "runtimeClassName" not in rendered().template("assigner")["spec"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_probes_ask_the_ops_port_and_startup_has_600_s(component):
    container = rendered().container(component)
    startup = container["startupProbe"]

    assert startup["httpGet"] == {"path": "/startupz", "port": "ops"}
    assert startup["periodSeconds"] * startup["failureThreshold"] == 600
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "ops"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "ops"}
    off = rendered({component: {"probes": {"startup": {"enabled": False}}}}).container(component)
    assert "startupProbe" not in off


def test_time_to_end_is_longer_than_a_transaction_and_the_server_sleeps_first():
    chart = rendered()
    grace = {c: chart.template(c)["spec"]["terminationGracePeriodSeconds"] for c in COMPONENTS}

    assert grace == {"assigner": 90, "reclusterer": 120, "server": 30}
    assert chart.container("server")["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert "lifecycle" not in chart.container("assigner")


def test_pods_start_anew_when_configuration_or_secret_changes():
    def sums(*values):
        annotations = rendered(*values).template("assigner")["metadata"]["annotations"]
        return annotations["checksum/config"], annotations["checksum/secret"]

    config, secret = sums()

    assert sums({"config": {"clustering": {"clusters": 7}}})[0] != config
    assert sums({"secretRevision": 2})[1] != secret
    assert sums({"secretRevision": 2})[0] == config


def test_helm_test_looks_at_everything_and_its_logs_stay():
    pod = rendered().one("Pod")
    (look,) = pod["spec"]["containers"]  # helm shows the logs of one

    assert "initContainers" not in pod["spec"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation"
    assert 'call(["eddy", "doctor"])' in look["command"][2]
    assert f"http://{SERVER}:9108/readyz" in look["command"][2]
    compile(look["command"][2], "look", "exec")
    alone = rendered({"server": {"enabled": False}}).one("Pod")["spec"]
    assert alone["containers"][0]["args"] == ["doctor"]
    assert not rendered({"tests": {"enabled": False}}).has("Pod")


def test_ingress_and_gateway_lead_to_the_server():
    chart = render(given("everything"))
    (rule,) = chart.one("Ingress")["spec"]["rules"]
    route = chart.one("HTTPRoute")["spec"]

    assert rule["host"] == "eddy.ns.example.com"
    assert rule["http"]["paths"][0]["backend"]["service"]["name"] == SERVER
    assert route["rules"][0]["backendRefs"] == [{"name": SERVER, "port": 80}]
    assert route["rules"][0]["timeouts"] == {"request": "0s"}  # streams last
    assert "proxy-read-timeout" in chart.notes


@pytest.mark.parametrize("component", COMPONENTS)
def test_extras_reach_the_pod_through_tpl(component):
    extra = {
        "extraEnv": [{"name": "A", "value": "{{ .Release.Name }}"}],
        "extraEnvFrom": [{"configMapRef": {"name": "{{ .Release.Name }}-env"}}],
        "extraVolumes": [{"name": "v", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
        "initContainers": [{"name": "first", "image": "i:1"}],
        "sidecars": [{"name": "beside", "image": "{{ .Chart.Name }}:1"}],
        "extraArgs": ["--verbose"],
    }
    everywhere = {"extraEnv": [{"name": "B", "value": "b"}]}
    chart = rendered({component: extra, "global": everywhere})
    spec, container = chart.template(component)["spec"], chart.container(component)

    assert chart.env(component)["A"] == "rel"
    assert chart.env(component)["B"] == "b"
    assert container["envFrom"] == [{"configMapRef": {"name": "rel-env"}}]
    assert {"name": "v", "mountPath": "/v"} in container["volumeMounts"]
    assert {"name": "v", "emptyDir": {}} in spec["volumes"]
    assert spec["initContainers"] == [{"name": "first", "image": "i:1"}]
    assert spec["containers"][1] == {"name": "beside", "image": "eddy:1"}
    assert container["args"] == [component, "--verbose"]


def test_objects_of_the_user_go_through_tpl():
    chart = render(given("everything"))

    assert chart.has("ConfigMap", "rel-own")
    assert chart.has("ConfigMap", "rel-text")


def test_common_labels_reach_everything_but_selectors():
    chart = render(given("everything"))
    ours = [o for o in chart.objects if o["metadata"]["name"] not in ("rel-own", "rel-text")]

    assert {o["metadata"]["labels"]["team"] for o in ours} == {"search"}
    assert {o["metadata"]["annotations"]["example.com/owner"] for o in ours} == {"search"}
    template = chart.template("assigner")["metadata"]
    assert template["labels"]["cost-centre"] == "7"
    assert template["annotations"]["example.com/scan"] == "no"
    assert "team" not in chart.one("StatefulSet")["spec"]["selector"]["matchLabels"]


def test_image_by_digest_tag_flavour_and_registry():
    def image(**values):
        return rendered(*({k: v} for k, v in values.items())).container("server")["image"]

    digest = f"sha256:{'0' * 64}"
    assert image() == f"eddy:{loaded().metadata['appVersion']}"
    assert image(image={"tag": "1.2.3", "flavour": "gpu"}) == "eddy:1.2.3-gpu"
    assert image(image={"tag": "1.2.3", "digest": digest}) == f"eddy@{digest}"
    registry = {"imageRegistry": "registry.example.com/"}
    assert (
        image(**{"global": registry})
        == f"registry.example.com/eddy:{loaded().metadata['appVersion']}"
    )


def test_one_registry_and_its_secrets_hold_for_every_pod():
    chart = render(given("restricted"))

    for name, spec in chart.pods():
        assert spec["imagePullSecrets"] == [{"name": "pull"}, {"name": "second"}], name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["image"].startswith("registry.example.com/mirror/eddy:"), name


def test_names_are_cut_where_kubernetes_needs_it():
    long = {"fullnameOverride": "e" * 60}

    names = [o["metadata"]["name"] for o in rendered(long).objects]

    assert max(map(len, names)) <= 52
    assert rendered({"nameOverride": "other"}).one("StatefulSet")["metadata"]["name"] == (
        "rel-other-assigner"
    )
    assert (
        rendered({"namespaceOverride": "far"}).one("StatefulSet")["metadata"]["namespace"] == "far"
    )


def test_chart_says_which_kubernetes_and_what_it_is():
    metadata = loaded().metadata

    assert metadata["kubeVersion"] == ">=1.30.0-0"
    for key in ("category", "license", "images", "links", "changes"):
        assert metadata["annotations"][f"artifacthub.io/{key}"], key


def test_notes_give_the_next_commands_and_warn():
    plain = rendered().notes
    loud = rendered(
        {
            "assigner": {"persistence": {"enabled": False}},
            "server": {"auth": {"mode": "none"}},
            "topics": {"provision": "none"},
            "diagnosticMode": {"enabled": True},
        }
    ).notes

    assert "helm test rel --namespace ns --logs" in plain
    assert "port-forward service/rel-eddy-server" in plain
    assert "delete pvc" in plain  # uninstalling leaves them
    for warning in ("persistence is off", "auth.mode is none", "provision is none", "asleep"):
        assert f"{warning}" in loud
    assert "monitoring is off" in plain
    assert "monitoring is off" not in render(given("everything")).notes


def test_diagnostic_mode_is_the_same_pod_asleep():
    chart = rendered({"diagnosticMode": {"enabled": True}})

    for component in COMPONENTS:
        container = chart.container(component)
        assert container["command"][0] == "python"
        assert not {"args", "livenessProbe", "readinessProbe", "startupProbe"} & {*container}
        assert container["volumeMounts"] == rendered().container(component)["volumeMounts"]
    assert "command" not in chart.container("topics")


def test_no_kafka_is_bundled():
    assert loaded().dependencies == []


def test_nothing_asks_what_the_cluster_has():
    """It would render differently without one."""
    texts = [template["data"] for template in loaded().templates]

    assert not any(".Capabilities" in text for text in texts)


@pytest.mark.parametrize("name", SETS)
def test_set_of_ci_renders(name):
    chart = render(given(name))

    assert chart.has("StatefulSet")
    assert len({(o["kind"], o["metadata"]["name"]) for o in chart.objects}) == len(chart.objects)


def test_there_are_nine_sets():
    expected = "default everything gpu hpa keda minimal restricted sasl-tls strimzi"
    assert list(SETS) == expected.split()
