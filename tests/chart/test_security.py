"""Pods pass the standard "restricted", hooks and tests too; networks say who talks to whom."""

from __future__ import annotations

import pytest

from tests.chart.chart import SETS, given, render, rendered

OURS = ("assigner", "reclusterer", "server", "create", "topics", "doctor")


@pytest.mark.parametrize("name", SETS)
def test_every_pod_is_restricted(name):
    for owner, spec in render(given(name)).pods():
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True, owner
        assert pod["runAsUser"] == pod["runAsGroup"] == pod["fsGroup"] == 65532, owner
        assert pod["fsGroupChangePolicy"] == "OnRootMismatch", owner
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, owner
        assert spec["automountServiceAccountToken"] is False, owner
        # a service called eddy-x would put EDDY_X_PORT into the environment: an unknown option
        assert spec["enableServiceLinks"] is False, owner
        assert not {"hostNetwork", "hostPID", "hostIPC"} & {*spec}, owner
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, owner
            assert context["capabilities"] == {"drop": ["ALL"]}, owner
            if container["name"] in OURS:
                assert context["readOnlyRootFilesystem"] is True, owner


@pytest.mark.parametrize("name", SETS)
def test_volumes_are_only_of_harmless_kinds(name):
    allowed = {"configMap", "secret", "emptyDir"}

    for owner, spec in render(given(name)).pods():
        for volume in spec["volumes"]:
            assert {*volume} - {"name"} <= allowed, owner


@pytest.mark.parametrize("name", SETS)
def test_what_is_mounted_has_a_volume(name):
    for owner, spec in render(given(name)).pods():
        volumes = {v["name"] for v in spec["volumes"]}
        if owner.startswith("StatefulSet"):
            volumes.add("data")
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            mounted = {m["name"] for m in container.get("volumeMounts", [])}
            assert mounted <= volumes, owner


def test_tmp_has_a_limit():
    for _, spec in rendered().pods():
        tmp = [v for v in spec["volumes"] if v["name"] == "tmp"]
        assert tmp == [{"name": "tmp", "emptyDir": {"sizeLimit": "512Mi"}}]


def test_service_account_has_no_token():
    account = rendered().one("ServiceAccount")

    assert account["automountServiceAccountToken"] is False
    assert not rendered({"serviceAccount": {"create": False}}).has("ServiceAccount")
    own = rendered({"serviceAccount": {"create": False, "name": "apps"}})
    assert own.template("assigner")["spec"]["serviceAccountName"] == "apps"


def test_chart_needs_no_rights_in_the_cluster():
    kinds = {o["kind"] for name in SETS for o in render(given(name)).objects}

    assert not kinds & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}


def policy(chart, component):
    return chart.one("NetworkPolicy", f"rel-eddy-{component}")["spec"]


def ports(rule):
    return {port["port"] for port in rule["ports"]}


@pytest.mark.parametrize("component", ["assigner", "reclusterer", "server", "tests", "topics"])
def test_every_component_has_a_policy_in_both_directions(component):
    spec = policy(rendered(), component)

    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
    assert {53, 9092, 9093} <= set().union(*(ports(rule) for rule in spec["egress"]))


def test_assigners_never_talk_to_each_other():
    spec = policy(rendered(), "assigner")

    (rule,) = spec["ingress"]
    assert ports(rule) == {"ops"}
    assert all("podSelector" not in peer for peer in rule["from"])
    assert not any("to" in rule for rule in spec["egress"])


def test_ops_is_for_monitoring_and_http_for_who_is_named():
    chart = render(given("restricted"))
    rules = {tuple(ports(rule)): rule for rule in policy(chart, "server")["ingress"][:2]}
    labels = "kubernetes.io/metadata.name"

    watcher = rules[("ops",)]["from"][0]["namespaceSelector"]["matchLabels"]
    assert watcher == {labels: "observability"}
    assert rules[("http",)]["from"] == [{"namespaceSelector": {"matchLabels": {labels: "web"}}}]
    anyone = [r for r in policy(rendered(), "server")["ingress"] if ports(r) == {"http"}]
    assert "from" not in anyone[0]


def test_more_ways_out_only_when_asked():
    endpoint = {"monitoring": {"tracing": {"endpoint": "http://collector:4318"}}}

    def out(chart):
        return set().union(*(ports(rule) for rule in policy(chart, "assigner")["egress"]))

    assert out(rendered()) == {53, 9092, 9093}
    assert out(rendered(endpoint)) == {53, 9092, 9093, 4318}
    assert out(render(given("restricted"))) == {53, 19092, 443}


def test_policies_may_be_left_out():
    assert not rendered({"networkPolicy": {"enabled": False}}).has("NetworkPolicy")


def test_policy_of_the_job_is_there_before_the_job():
    annotations = rendered().one("NetworkPolicy", "rel-eddy-topics")["metadata"]["annotations"]

    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert int(annotations["helm.sh/hook-weight"]) < -5
