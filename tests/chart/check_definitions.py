"""Objects of operators, held against their definitions; needs node, so ``make chart-test`` only."""

from __future__ import annotations

import copy
import json
import subprocess

import pytest

from tests.chart.chart import SETS, given, render, rendered
from tests.chart.tools import node_modules

GROUPS = {
    "keda.sh": "keda",
    "monitoring.coreos.com": "prometheus-operator",
    "gateway.networking.k8s.io": "gateway-api",
}
PROGRAM = """
import fs from "node:fs";
const problems = [];
for (const one of JSON.parse(fs.readFileSync(0, "utf-8"))) {
  const [group, version] = one.object.apiVersion.split("/");
  const kinds = await import(`@kubernetes-models/${one.models}/${group}/${version}`);
  try { new kinds[one.object.kind](one.object).validate(); }
  catch (error) { problems.push(`${one.object.kind}: ${error.message}`); }
}
console.log(JSON.stringify(problems));
"""


def problems(objects):
    """What the definitions say about the objects; kinds of no known operator are an error."""
    asked = [{"models": GROUPS[o["apiVersion"].partition("/")[0]], "object": o} for o in objects]
    ended = subprocess.run(
        ["node", "--input-type=module", "-e", PROGRAM],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        cwd=node_modules().parent,
    )
    return json.loads(ended.stdout)


def operators(chart):
    return [o for o in chart.objects if o["apiVersion"].partition("/")[0] in GROUPS]


@pytest.mark.parametrize("name", SETS)
def test_definitions_take_every_object(name):
    assert problems(operators(render(given(name)))) == []


def test_a_number_among_the_scaler_s_texts_would_be_noticed():
    scaler = rendered({"assigner": {"autoscaling": {"mode": "keda"}}}).one("ScaledObject")
    broken = copy.deepcopy(scaler)
    broken["spec"]["triggers"][0]["metadata"]["lagThreshold"] = 5000

    (problem,) = problems([broken])

    assert "lagThreshold" in problem
