"""The command of Helm, 3 or 4, makes what its library makes; skipped where there is none.

It is the one on the path, else the one that `make cluster-test` builds.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
import yaml

from tests.chart.chart import CHART, NAMESPACE, RELEASE, ROOT, SETS, given, render

BUILT = f"{os.environ.get('K8S_DIR') or ROOT / '.venv' / 'k8s'}/bin"
HELM = shutil.which("helm") or shutil.which("helm", path=BUILT)
needs_helm = pytest.mark.skipif(HELM is None, reason=f"no helm on the path, and none in {BUILT}")


def by_name(objects):
    return {(one["kind"], one["metadata"]["name"]): one for one in objects}


def helm(verb, *words):
    assert HELM
    # one that was built from its sources does not know which Kubernetes it is for
    given = () if verb == "package" else ("--kube-version", "v1.34.0")
    return subprocess.run([HELM, verb, *words, *given], capture_output=True, text=True, check=False)


@needs_helm
@pytest.mark.parametrize("name", SETS)
def test_command_and_library_agree(name):
    values = CHART / "ci" / f"{name}-values.yaml"

    ended = helm("template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", values)

    assert ended.returncode == 0, ended.stderr
    found = [one for one in yaml.safe_load_all(ended.stdout) if one]
    assert by_name(found) == by_name(render(given(name)).objects)


@needs_helm
@pytest.mark.parametrize("name", SETS)
def test_strict_lint_finds_nothing(name):
    values = CHART / "ci" / f"{name}-values.yaml"

    ended = helm("lint", CHART, "--strict", "--values", values)

    assert ended.returncode == 0, ended.stdout
    assert "[WARNING]" not in ended.stdout


@needs_helm
def test_command_refuses_with_the_same_sentence():
    words = ("--set", "kafka.bootstrapServers=k:9092", "--set", "replicaCount=3")
    ended = helm("template", RELEASE, CHART, *words)

    assert ended.returncode != 0
    assert "replicaCount is no value of this chart" in ended.stderr


@needs_helm
def test_package_leaves_out_what_is_for_tests_alone(tmp_path):
    assert helm("package", CHART, "--destination", tmp_path).returncode == 0

    (package,) = tmp_path.glob("eddy-*.tgz")
    listed = subprocess.run(["tar", "tzf", package], capture_output=True, text=True, check=True)
    assert "eddy/files/rules.yaml" in listed.stdout
    assert "rules_test" not in listed.stdout
    assert "/ci/" not in listed.stdout
