"""Policies of the trade, with a reason for each one passed over; ``make chart-test`` only."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.chart.chart import given, render
from tests.chart.tools import checkov

PASSED_OVER = {
    "CKV_K8S_11": "a limit of CPU throttles a loop that has deadlines; it is the operator's to set",
    "CKV_K8S_43": "a digest comes with a release; by hand there is only a tag",
    "CKV_K8S_15": "IfNotPresent: tags are never written twice, and a registry may be away",
    "CKV_K8S_8": "the pod of helm test runs once; probes of services are held by test_values",
    "CKV_K8S_9": "the same",
}
SKIP = ",".join(PASSED_OVER)


@pytest.mark.parametrize("name", ["default", "keda", "gpu", "sasl-tls", "restricted"])
def test_no_policy_is_broken(name, tmp_path):
    (tmp_path / "all.yaml").write_text("---\n".join(render(given(name)).texts.values()))

    assert failed(tmp_path) == []


def test_a_pod_that_may_gain_rights_would_be_noticed(tmp_path):
    text = "---\n".join(render(given("default")).texts.values())
    (tmp_path / "all.yaml").write_text(text.replace("Escalation: false", "Escalation: true"))

    assert any("CKV_K8S_20" in problem for problem in failed(tmp_path))


def failed(folder):
    ended = subprocess.run(
        [
            *(
                checkov(),
                "-m",
                "checkov.main",
                "--framework",
                "kubernetes",
                "--skip-download",
                "--quiet",
                "--compact",
            ),
            *("--output", "json", "--skip-check", SKIP, "--directory", folder),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(ended.stdout)
    assert report["summary"]["passed"] > 50, "it looked at nothing"
    checks = report["results"]["failed_checks"]
    return [f"{one['check_id']} {one['resource']}: {one['check_name']}" for one in checks]
