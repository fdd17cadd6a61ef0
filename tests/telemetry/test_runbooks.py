"""An alert has a page, and what the page tells people to type or to look at is there."""

from __future__ import annotations

import re

import pytest
import yaml

from pipeline.config import load
from tests.telemetry.promised import unknown, unknown_metrics
from tests.test_house import ROOT

HELM = ROOT / "helm"
PAGES = {path.stem: path for path in sorted((HELM / "runbooks").glob("*.md"))}
GROUPS = yaml.safe_load((HELM / "files" / "rules.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
HOW_TO = {"resize-storage"}
HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation", "Silence"]


def test_each_alert_has_a_page_and_each_page_an_alert():
    assert set(PAGES) == set(ALERTS) | HOW_TO


@pytest.mark.parametrize("name", ALERTS)
def test_a_page_has_the_five_parts_and_something_in_each(name):
    title, *parts = re.split(r"^## ", PAGES[name].read_text(), flags=re.MULTILINE)

    assert title.strip() == f"# {name}"
    assert [part.splitlines()[0] for part in parts] == HEADINGS
    assert all(len(part.splitlines()) > 2 for part in parts)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_wrong_how_urgent_it_is_and_where_to_read_on(name):
    rule = ALERTS[name]

    assert {"summary", "description", "runbook_url"} == set(rule["annotations"])
    assert rule["annotations"]["runbook_url"].endswith(f"/{name}.md")
    assert rule["labels"]["severity"] in ("critical", "warning", "info")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_reads_metrics_labels_and_values_that_there_are(rule):
    assert [*unknown_metrics(rule["expr"])] == []
    assert set(re.findall(r"eddy:[a-z0-9_:]+", rule["expr"])) <= RECORDED
    assert re.search(r"\beddy[_:]", rule["expr"])


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_only_what_there_is(name):
    assert unknown(PAGES[name].read_text()) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_link_of_a_page_leads_somewhere(name):
    for target in re.findall(r"\]\((?!http)([^)#]+)", PAGES[name].read_text()):
        assert (PAGES[name].parent / target).is_file(), target
    for other in re.findall(r"`(Eddy[A-Z]\w+)`", PAGES[name].read_text()):
        assert other in ALERTS


OPERATE = (ROOT / "docs" / "operate.md").read_text()


def test_the_page_for_operators_names_only_what_there_is():
    assert unknown(OPERATE) == []


def test_the_page_for_operators_leads_to_every_page_of_an_alert_and_to_nothing_that_is_not_there():
    targets = re.findall(r"\]\((?!http)([^)]+)\)", OPERATE)

    for target in targets:
        file, _, anchor = target.partition("#")
        path = ROOT / "docs" / file
        assert path.is_file(), target
        headings = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}
    assert {f"../helm/runbooks/{name}.md" for name in PAGES} <= set(targets)


def test_every_option_of_a_profile_is_obeyed_and_changes_something(tmp_path):
    profiles = dict(re.findall(r"```yaml\n# profile: (\w+)\n(.*?)```", OPERATE, flags=re.DOTALL))
    assert set(profiles) == {"eager", "calm"}
    usual, told = load(None, {}).config, {}

    for name, text in profiles.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        loaded = load(path, {})
        for key, origin in loaded.origins.items():
            if origin == "default":
                continue
            value, default = (reach(config, key) for config in (loaded.config, usual))
            told.setdefault(key, {})[name] = value
            assert value != default or key == "recluster.on_drift", key
    for key, values in told.items():
        assert len({*values.values(), reach(usual, key)}) > 1, key


def reach(config, key):
    for name in key.split("."):
        config = getattr(config, name)
    return config


def section(results, title):
    (found,) = re.findall(rf"^## {title}.*?(?=^## |\Z)", results, flags=re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\|(.*)\|$", found, flags=re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows]


def test_figures_of_the_page_for_operators_stand_in_their_source():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    updates = section(results, "A changed record")
    nearest = {cells[0]: cells[8] for cells in section(results, "Nearest centroid") if cells[0]}
    fit = next(cells for cells in section(results, "Full fits") if cells[1] == "eddy")

    told = re.findall(r"^\| [^|]+ \| ([\d.]+) \| ([\d.]+) \| ", OPERATE, flags=re.MULTILINE)
    measured = [cells[-1] for cells in updates if cells[1].startswith("eddy")]
    assert told == [(one, one) for one in measured]
    words = {
        "5,000": "K = 5000, n = 20000",
        "500": "K = 500, n = 100000",
        "26": "K = 26, n = 100000",
    }
    for clusters, row in words.items():
        said = re.search(rf" of {clusters}\s(?:takes\s)?([\d.]+)", OPERATE)[1]
        assert float(said) == pytest.approx(float(nearest[f"d = 1024, {row}"]), rel=0.01)
    for calls, row in {"1000": "n = 1000", "1": "n = 1"}.items():
        said = re.search(rf"([\d.]+)(?: core-µs)? in calls of {calls}\b", OPERATE)[1]
        assert float(said) == pytest.approx(float(nearest[f"d = 1024, K = 500, {row}"]), rel=0.01)
    took, core_s = re.search(r"took ([\d.]+) s\s+and ([\d.]+) core-seconds", OPERATE).groups()
    assert (took, core_s) == (f"{float(fit[5].split()[0]):.1f}", f"{float(fit[9]):.1f}")
    assert "none was run on one" in results  # else the page has to say what it gave


def test_the_price_of_the_whole_loop_is_reckoned_from_the_figures_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    loop = dict(
        re.findall(r"^\| (\d+) dimensions[^|]*\|[^|]*\|[^|]*\| ([\d ]+) \|", readme, re.MULTILINE)
    )
    share = float(re.search(r"`--living`\), Eddy keeps ([\d.]+)", readme)[1])
    told = re.findall(
        r"^\| (\d+) dimensions[^|]*\| ([\d,]+) \| 2 / ([\d,]+) × 10⁶ = (\d+) \| ([\d.]+) \|$",
        OPERATE,
        re.MULTILINE,
    )

    assert len(told) == 3
    for dimensions, rate, again, per_million, per_billion in told:
        n = int(rate.replace(",", ""))
        full = int(loop[dimensions].replace(" ", ""))
        assert n in (full, round(full * share, -3))
        assert rate == again
        assert int(per_million) == round(2e6 / n)
        assert float(per_billion) == round(2e9 / n / 3600, 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("`eddy repair`", "eddy repair"),
        ("`eddy dlq purge`", "eddy dlq purge"),
        ("`eddy verify --fast`", "eddy verify  --fast"),
        ("`sum(eddy_lag)`", "the metric eddy_lag"),
        ('`eddy_rebalances_total{kind="stolen"}`', "kind=stolen of eddy_rebalances_total"),
        ('`eddy_members{pod="x"}`', "the label pod of eddy_members"),
        ("`batching.max_size`", "the option batching.max_size"),
        ("`assigner.autoscaling.style: keda`", "the option assigner.autoscaling.style"),
        ("`sweep_started`", "the log event sweep_started"),
        ("```sh\neddy topics mend\n```", "eddy topics mend"),
    ],
)
def test_control_what_is_not_there_is_found(text, problem):
    assert unknown(text) == [problem]
