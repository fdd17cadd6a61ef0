"""Copies equal their sources, and every value is described and does something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from tests.chart.chart import CHART, ROOT, SETS, given, loaded, merged, nested, render
from tests.chart.generate import lookup, outputs, params, schema_at

HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
CONTEXT = {  # a value that is only asked for where another one says so -> what says so
    "kafka.tls.": {"kafka": {"tls": {"enabled": True, "existingSecret": "t"}}},
    "kafka.tls.enabled": {},
    "kafka.sasl.": {"kafka": {"sasl": {"mechanism": "PLAIN", "existingSecret": "s"}}},
    "kafka.sasl.username": {
        "kafka": {"sasl": {"mechanism": "PLAIN", "username": "u", "password": "p"}}
    },
    "kafka.sasl.password": {
        "kafka": {"sasl": {"mechanism": "PLAIN", "username": "u", "password": "p"}}
    },
    "topics.strimzi.": {"topics": {"provision": "strimzi", "strimzi": {"cluster": "m"}}},
    "topics.provision": {"topics": {"strimzi": {"cluster": "m"}}},
    "assigner.gpu.": {"assigner": {"gpu": {"enabled": True}}},
    "assigner.gpu.enabled": {},
    "reclusterer.gpu.": {"reclusterer": {"gpu": {"enabled": True}}},
    "reclusterer.gpu.enabled": {},
    "assigner.scratch.": {"assigner": {"persistence": {"enabled": False}}},
    "assigner.autoscaling.": {"assigner": {"autoscaling": {"mode": "keda"}}},
    "assigner.autoscaling.mode": {},
    "assigner.autoscaling.targetCpuUtilization": {"assigner": {"autoscaling": {"mode": "hpa"}}},
    "server.autoscaling.": {"server": {"autoscaling": {"mode": "hpa"}}},
    "server.autoscaling.mode": {},
    "server.ingress.": {"server": {"ingress": {"enabled": True, "hosts": [{"host": "h"}]}}},
    "server.httpRoute.": {
        "server": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]}}
    },
    "server.auth.tokens": {
        "server": {"auth": {"existingSecret": "", "tokens": [f"a:read:{HASH}"]}}
    },
    "server.httpRoute.path": {
        "config": {"server": {"root_path": "/other"}},
        "server": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]}},
    },
    "server.ingress.enabled": {"server": {"ingress": {"hosts": [{"host": "h"}]}}},
    "server.httpRoute.enabled": {"server": {"httpRoute": {"parentRefs": [{"name": "g"}]}}},
    **{
        f"monitoring.{one}.enabled": {}
        for one in ("podMonitor", "serviceMonitor", "prometheusRule", "dashboards")
    },
    "monitoring.podMonitor.": {"monitoring": {"podMonitor": {"enabled": True}}},
    "monitoring.serviceMonitor.": {"monitoring": {"serviceMonitor": {"enabled": True}}},
    "monitoring.prometheusRule.": {"monitoring": {"prometheusRule": {"enabled": True}}},
    "monitoring.dashboards.": {"monitoring": {"dashboards": {"enabled": True}}},
    "diagnosticMode.command": {"diagnosticMode": {"enabled": True}},
}
OTHER = {  # where another value of the same type is not enough
    "kafka.bootstrapServers": "other:9092",
    "kafka.sasl.mechanism": "SCRAM-SHA-256",
    "image.digest": f"sha256:{HASH}",
    "topics.strimzi.apiVersion": "kafka.strimzi.io/v1beta2",
    "assigner.gpu.resourceName": "example.com/card",
    "assigner.gpu.resourceClaims": [{"name": "c", "resourceClaimTemplateName": "t"}],
    "reclusterer.gpu.resourceName": "example.com/card",
    "reclusterer.gpu.resourceClaims": [{"name": "c", "resourceClaimTemplateName": "t"}],
    "assigner.persistence.accessModes": ["ReadWriteOncePod"],
    "server.auth.tokens": [f"ops:read:{HASH}"],
    "server.ingress.hosts": [{"host": "other"}],
    "server.httpRoute.path": "/other",
    "server.httpRoute.timeouts": {"request": "1s"},
    "monitoring.prometheusRule.disabled": ["EddyDeadLetters"],
    "monitoring.prometheusRule.runbookBaseUrl": "https://example.com",
    "monitoring.tracing.endpoint": "http://collector:4319",
    "networkPolicy.kafkaPorts": [9092, 9094],
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}],
    "config": {"clustering": {"clusters": 5}},
    "global.imagePullSecrets": ["pull"],
    "assigner.pdb.maxUnavailable": 2,
    "server.pdb.maxUnavailable": 2,
    "assigner.autoscaling.maxReplicas": 7,
}
SEEN_ELSEWHERE = {"assigner.persistence.allowSnapshotLoss"}  # only an upgrade asks for it


def another(path: str, value: object, schema: dict) -> object:
    """A value that is allowed there, and not the default."""
    if path in OTHER:
        return OTHER[path]
    if "enum" in schema:
        return next(one for one in schema["enum"] if one and one != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        if "quantity" in str(schema.get("$ref", "")) or value.endswith("i"):
            return "7Gi"
        return "15s" if value == "30s" else "other"
    if isinstance(value, list):
        name = path.rpartition(".")[2]
        if schema.get("items", {}).get("type") == "string":
            return ["other"]
        return [{"name": "other", "image": "i:1"}] if name != "extraEnv" else [{"name": "OTHER"}]
    name = path.rpartition(".")[2]
    if name == "resources":
        return {"requests": {"cpu": "7m"}}
    if name in ("startup", "liveness", "readiness"):
        return {"failureThreshold": 77}
    return {"whenScaled": "Retain"} if name == "retentionPolicy" else {"other": "other"}


def base(path: str) -> dict:
    fitting = [key for key in CONTEXT if key == path or (key[-1] == "." and path.startswith(key))]
    exact = [key for key in fitting if key == path]
    context = CONTEXT[exact[0]] if exact else merged(*(CONTEXT[key] for key in fitting))
    minimum = given("default")
    if path == "serviceAccount.name":
        context = {"serviceAccount": {"create": False}}
    return merged(minimum, context)


@pytest.mark.parametrize("path", [param.path for param in params()])
def test_value_does_something(path):
    """Another value gives other objects: none is read by nobody."""
    if path in SEEN_ELSEWHERE:
        pytest.skip("only an upgrade on a cluster asks for it")
    before = base(path)
    value = another(path, lookup(loaded().values, path), schema_at(path))

    after = merged(before, nested(path, value))

    assert render(after).texts != render(before).texts, (path, value)


def described(tree, path=""):
    """Every value that a user may set, free maps as one."""
    names = {param.path for param in params()}
    for name, value in tree.items():
        here = f"{path}{name}"
        if here in names or not isinstance(value, dict):
            yield here
        else:
            yield from described(value, f"{here}.")


def test_every_value_is_described_once():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    names = [param.path for param in params()]

    assert sorted(names) == sorted(set(names))
    assert sorted(described(values)) == sorted(names)


def properties(schema, root, path=""):
    for name, one in schema["properties"].items():
        one = root["$defs"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one
        here = f"{path}{name}"
        if one.get("deprecated"):
            continue
        if "properties" in one and here not in {param.path for param in params()}:
            yield from properties(one, root, f"{here}.")
        else:
            yield here


def test_schema_and_values_know_the_same():
    schema = loaded().schema

    assert sorted(properties(schema, schema)) == sorted(param.path for param in params())


def test_files_are_those_of_their_source():
    different = [
        path for path, text in outputs() if (ROOT / path).read_text(encoding="utf-8") != text
    ]

    assert different == [], "run python -m tests.chart.generate"


def test_readme_ends_with_what_is_not_verified():
    text = (CHART / "README.md").read_text(encoding="utf-8")

    assert text.rpartition("\n## ")[2].startswith("Not verified")


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(CHART.rglob("*.y*ml")) if "templates" not in p.parts],
    ids=lambda path: path.name,
)
def test_yaml_is_tidy(path):
    config = YamlLintConfig((CHART / ".yamllint").read_text())

    problems = [f"{one.line}: {one.desc}" for one in linter.run(path.read_text(), config)]

    assert problems == []


def test_released_version_is_the_package_s():
    text = (ROOT / "pyproject.toml").read_text()

    assert f'version = "{loaded().metadata["appVersion"]}"' in text


def test_golden_files_are_of_the_sets():
    files = {path.stem for path in (Path(__file__).parent / "golden").glob("*.yaml")}

    assert files == set(SETS)
    assert json.dumps(sorted(files))
