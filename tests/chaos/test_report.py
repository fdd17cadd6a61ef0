"""Figures of runs reach the page about reliability as they are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.figures import Findings
from tests.chaos.report import BEGIN, END, rewrite, table, totals
from tests.chaos.run import Outcome, Plan

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def outcome(seed, *, n_lost=0, **faults):
    findings = Findings(n_records=1000, n_events=900, n_lost=n_lost)
    return Outcome(
        Plan(seed), n_faults=Counter(faults), n_missed=Counter(nap=1), recovered_s=2.5,
        n_transactions=200, n_aborted=5, is_verified=True, findings=findings,
    )  # fmt: skip


def test_totals_add_up_over_runs():
    found = totals([outcome(1, kill=2, nap=1), outcome(2, kill=1, n_lost=3)])
    assert found["runs"] == 2
    assert found["passed"] == 1
    assert found["records"] == 2000
    assert found["lost"] == 3
    assert found["faults_by_kind"] == {"kill": 3, "nap": 1}
    assert found["met_nothing_by_kind"] == {"nap": 2}


def test_a_run_can_be_told_as_json():
    told = json.loads(json.dumps(outcome(1, kill=2).as_json()))
    assert told["n_faults"] == {"kill": 2}
    assert told["n_missed"] == {"nap": 1}
    assert told["ok"]


def test_a_run_that_failed_is_named_under_the_table():
    assert "2 of 2 runs is good." in table([outcome(1), outcome(2)])
    assert "1 of 2 runs is good; not of those with the seeds 2." in table(
        [outcome(1), outcome(2, n_lost=1)]
    )


def test_the_page_has_a_row_for_each_fault_and_takes_what_became_of_it(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())

    rewrite(page, [outcome(4)])
    rewrite(page, [outcome(5, n_lost=1, **dict.fromkeys(FAULTS, 7)), outcome(6)])

    lines = page.read_text().splitlines()
    for name in FAULTS:
        (cells,) = [line.split("|") for line in lines if f"| `{name}` |" in line]
        assert cells[-2].startswith(" 7 times, see below")
    assert lines.count(BEGIN) == lines.count(END) == 1
    assert not any(line.startswith("| 4 |") for line in lines)
    assert any(line.startswith("| 5 | 1 | classic | 1,000 | 900 |") for line in lines)
