"""The check of dependencies: what fails, what is only said."""

from __future__ import annotations

import json

import pytest

from tests.audit_dependencies import judge

CLEAN = {"name": "a", "version": "1", "vulns": []}
WEAK = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1"}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([CLEAN, WEAK, UNKNOWN], 1, "b 2: CVE-1"),
        ([UNKNOWN], 0, "not reachable: skipped"),
        ([CLEAN, UNKNOWN], 0, "no known weakness in 1 packages, 1 not asked"),
    ],
)
def test_a_finding_fails_and_silence_is_no_clean_bill(packages, code, said):
    got, sentence = judge(json.dumps({"dependencies": packages}))

    assert got == code
    assert said in sentence


def test_no_answer_is_said():
    assert judge("") == (0, "advisories not reachable: skipped")
