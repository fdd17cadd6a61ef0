"""What the chart writes is what Eddy reads: the real ``eddy config show`` on every rendering."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.cli.main import main
from pipeline.config import options
from pipeline.errors import ConfigError
from pipeline.streams.kafka.client import OWNED, ClientSettings
from pipeline.telemetry.policy import TelemetryPolicy
from tests.chart.chart import SETS, given, loaded, merged, refusal, render, rendered
from tests.chart.generate import is_derived

SECRETS = "/etc/eddy/secrets/"


def environment(chart, component, folder: Path, config: str | None = None):
    """The component's variables, with its files where this test may write them."""
    env = {name: value for name, value in chart.env(component).items() if isinstance(value, str)}
    file = folder / f"{component}.yaml"
    file.write_text(yaml.safe_dump(chart.config(config)))
    env["EDDY_CONFIG"] = str(file)
    env["EDDY_INSTANCE"] = "rel-eddy-assigner-0"
    for name, value in env.items():
        if name.endswith("_FILE"):
            secret = folder / value.removeprefix(SECRETS).replace("/", "-")
            secret.write_text("0077\n")
            env[name] = str(secret)
    return env


@pytest.fixture
def shown(monkeypatch, capsys, tmp_path):
    """Rendering and component -> option -> value and origin, as Eddy says."""

    def show(chart, component, config=None):
        for name, value in environment(chart, component, tmp_path, config).items():
            monkeypatch.setenv(name, value)
        code = main(["config", "show", "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return show


def components(chart):
    return [c for c in ("assigner", "reclusterer", "server", "topics") if has(chart, c)]


def has(chart, component):
    return any(
        one["metadata"].get("labels", {}).get("app.kubernetes.io/component") == component
        and one["kind"] in ("StatefulSet", "Deployment", "Job")
        for one in chart.objects
    )


@pytest.mark.parametrize("name", SETS)
def test_eddy_reads_what_the_chart_writes(name, shown):
    chart = render(given(name))

    for component in components(chart):
        config = "rel-eddy-topics" if component == "topics" else None
        found = shown(chart, component, config)
        told = {key: one["value"] for key, one in found.items() if one["origin"] != "default"}
        values = merged(loaded().values, given(name))
        assert told["kafka.bootstrap.servers"] == values["kafka"]["bootstrapServers"]
        assert told["topics.input"] == values["topics"]["input"]["name"]
        assert told["topics.prefix"] == values["topics"]["prefix"]
        assert told["topics.partitions"] == values["topics"]["input"]["partitions"]
        assert told["topics.replication_factor"] == values["topics"]["replicationFactor"]
        assert told["instance"] == "rel-eddy-assigner-0"


def test_everything_set_arrives(shown):
    values = given("everything")
    found = shown(render(values), "assigner")

    assert found["embedding.dimensions"]["value"] == 384
    assert found["clustering.clusters"]["value"] == "auto"
    assert found["recluster.min_gain"]["value"] == 0.001
    assert found["server.max_vector_bytes"]["value"] == 2**34
    assert found["telemetry.tracing.endpoint"]["value"] == "http://collector:4318"
    assert found["telemetry.log_format"]["origin"] == "environment EDDY_TELEMETRY__LOG_FORMAT"


def test_secrets_arrive_as_text_and_are_not_shown(shown):
    found = shown(render(given("sasl-tls")), "assigner")

    assert found["kafka.sasl.username"]["value"] == "0077"
    assert found["kafka.sasl.password"]["value"] == "***"
    assert found["kafka.ssl.key.password"]["value"] == "***"


def test_the_program_itself_reads_it(tmp_path):
    """As a process, once: what the other tests call as a function."""
    env = environment(render(given("keda")), "assigner", tmp_path)

    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "config", "show", "--json", "--changed"],
        env=env | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )

    found = json.loads(ended.stdout)
    assert found["kafka.group.id"]["value"] == "team.assigners"
    assert found["kafka.security.protocol"]["value"] == "SASL_SSL"


def test_a_name_that_eddy_does_not_know_would_be_noticed(monkeypatch, capsys, tmp_path):
    """The control: the chart's file with one name changed."""
    config = rendered().config()
    config["topics"]["replicas"] = config["topics"].pop("replication_factor")
    file = tmp_path / "eddy.yaml"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("EDDY_CONFIG", str(file))

    assert main(["config", "show"]) == 3
    assert "topics.replicas" in capsys.readouterr().err


def leaves(schema, path=""):
    for name, one in schema.get("properties", {}).items():
        if one.get("type") == "object" and "properties" in one:
            yield from leaves(one, f"{path}{name}.")
        else:
            yield f"{path}{name}", one


def test_config_holds_every_option_that_the_chart_does_not_set():
    known = dict(leaves(loaded().schema["properties"]["config"]))

    ours = {key for key in options() if not key.startswith("kafka.") and not is_derived(key)}
    assert set(known) == ours


def test_what_the_chart_sets_is_no_option_of_config():
    told = set()
    for name in SETS:
        tree = render(given(name)).config()
        asked = given(name).get("config", {})
        told |= set(paths(tree)) - set(paths(asked))

    assert {key for key in told if not key.startswith("kafka.")} == {
        key
        for key in options()
        if is_derived(key) and not key.startswith("kafka.") and key != "instance"
    }


def paths(tree, path=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from paths(value, f"{path}{name}.")
        else:
            yield f"{path}{name}"


@pytest.mark.parametrize("key", sorted(OWNED))
def test_what_eddy_refuses_the_chart_refuses(key):
    with pytest.raises(ConfigError):
        ClientSettings({key: "x"}, 1_048_576)

    assert f"kafka.config holds {key}, which is not for you" in refusal(
        {"kafka": {"config": {key: "x"}}}
    )


def test_group_of_the_scaler_is_the_group_of_the_assigners():
    keda = {"assigner": {"autoscaling": {"mode": "keda"}}, "topics": {"prefix": "news."}}
    chart = rendered(keda)
    metadata = chart.one("ScaledObject")["spec"]["triggers"][0]["metadata"]

    assert "group.id" not in chart.config()["kafka"]  # Eddy makes it of the prefix
    assert metadata["consumerGroup"] == "news.assigner"


def test_ports_and_probe_paths_are_the_process_s():
    text = (Path(__file__).parent.parent.parent / "pipeline/telemetry/health.py").read_text()
    chart = rendered()

    for component in ("assigner", "reclusterer", "server"):
        container = chart.container(component)
        opened = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert opened["ops"] == TelemetryPolicy().metrics_port
        for kind in ("startup", "liveness", "readiness"):
            assert f'"{container[f"{kind}Probe"]["httpGet"]["path"]}"' in text
    server = {p["name"]: p["containerPort"] for p in chart.container("server")["ports"]}
    assert server["http"] == chart.config()["server"]["port"]
