"""Monitors, rules and dashboards reach the operators that read them, as the files have them."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from pipeline.telemetry.catalogue import CATALOGUE
from tests.chart.chart import CHART, given, render, rendered

RULES = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
RULE = {"monitoring": {"prometheusRule": {"enabled": True}}}
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))


def alerts(groups):
    return {r["alert"]: r for group in groups for r in group["rules"] if "alert" in r}


def test_monitors_are_off_until_asked_for():
    kinds = {o["kind"] for o in rendered().objects}

    assert not kinds & {"PodMonitor", "ServiceMonitor", "PrometheusRule", "ScaledObject"}


def test_pods_without_a_service_have_a_pod_monitor():
    spec = render(given("everything")).one("PodMonitor")["spec"]

    assert spec["selector"]["matchExpressions"][0]["values"] == ["assigner", "reclusterer"]
    assert spec["podMetricsEndpoints"] == [{"port": "ops", "path": "/metrics", "interval": "30s"}]


def test_server_has_a_service_monitor_on_a_port_of_its_service():
    chart = render(given("everything"))
    monitor = chart.one("ServiceMonitor")["spec"]
    service = chart.one("Service", "rel-eddy-server")

    assert monitor["endpoints"][0]["port"] in {p["name"] for p in service["spec"]["ports"]}
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_rules_are_those_of_the_file():
    spec = rendered(RULE).one("PrometheusRule")["spec"]

    assert spec["groups"] == RULES["groups"]


def test_alert_is_left_out_labelled_and_pointed_to_its_page():
    rule = render(given("everything")).one("PrometheusRule")
    found = alerts(rule["spec"]["groups"])

    assert set(alerts(RULES["groups"])) - set(found) == {"EddyDeadLetters"}
    for name, one in found.items():
        assert one["labels"]["team"] == "search"
        assert one["labels"]["severity"] == alerts(RULES["groups"])[name]["labels"]["severity"]
        assert one["annotations"]["runbook_url"] == f"https://example.com/runbooks/{name}.md"
        assert one["expr"] == alerts(RULES["groups"])[name]["expr"]


def test_each_dashboard_is_a_config_map_that_grafana_finds():
    chart = rendered({"monitoring": {"dashboards": {"enabled": True}}})

    for path in DASHBOARDS:
        found = chart.one("ConfigMap", f"rel-eddy-{path.stem}")
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert found["metadata"]["annotations"]["grafana_folder"] == "Eddy"
        assert json.loads(found["data"][f"eddy-{path.name}"]) == json.loads(path.read_text())


def expressions():
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}: {panel['title']}", target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()), ids=lambda one: one[:40])
def test_panel_asks_for_metrics_of_the_catalogue(where, expression):
    named = re.findall(r"\beddy_[a-z0-9_]+", expression)

    known = set(CATALOGUE) | {
        f"{name}{end}" for name in CATALOGUE for end in ("_bucket", "_count", "_sum")
    }
    assert named, where
    assert set(named) <= known, where
