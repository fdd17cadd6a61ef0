"""Rules and panels, read by Prometheus' own checker; ``make chart-test`` only."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from tests.chart.chart import CHART, rendered
from tests.chart.test_dashboards import asked
from tests.chart.tools import promtool

RULES = CHART / "files" / "rules.yaml"
TESTS = CHART / "files" / "rules_test.yaml"


def run(*words, cwd=None):
    ended = subprocess.run(
        [promtool(), *words], capture_output=True, text=True, cwd=cwd, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_rules_of_the_file_are_rules():
    assert run("check", "rules", RULES)[0] == 0


def test_alerts_fire_and_stay_quiet_as_their_tests_say():
    assert run("test", "rules", TESTS.name, cwd=TESTS.parent)[0] == 0


def test_rules_are_still_rules_when_the_chart_has_rendered_them(tmp_path):
    values = {"enabled": True, "labels": {"team": "x"}, "disabled": ["EddyDeadLetters"]}
    spec = rendered({"monitoring": {"prometheusRule": values}}).one("PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))

    assert run("check", "rules", tmp_path / "rules.yaml")[0] == 0


@pytest.mark.parametrize(
    "path", sorted((CHART / "dashboards").glob("*.json")), ids=lambda p: p.stem
)
def test_expressions_of_a_dashboard_parse(path, tmp_path):
    expressions = [*asked(json.loads(path.read_text()))]
    plain = [e.replace("$__rate_interval", "5m").replace("$__range", "1h") for e in expressions]
    rules = [{"record": f"panel:{number}", "expr": e} for number, e in enumerate(plain)]
    groups = {"groups": [{"name": "panels", "rules": rules}]}
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump(groups))

    code, said = run("check", "rules", tmp_path / "panels.yaml")

    assert code == 0, said


def test_a_broken_expression_would_be_noticed(tmp_path):
    rules = {"groups": [{"name": "g", "rules": [{"record": "a:b", "expr": "sum(rate(x))["}]}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))

    assert run("check", "rules", tmp_path / "rules.yaml")[0] != 0
