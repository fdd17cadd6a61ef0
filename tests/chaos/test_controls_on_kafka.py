"""What must be caught on a real Kafka: assigners that break the promise, under the same kills.

The wrong ones are of this folder (:mod:`tests.chaos.service`); Eddy has no switch for it. They are
killed between the two transactions that they make of one, the right one anywhere in its own.
"""

from __future__ import annotations

import pytest

from tests.chaos.run import Plan, run

pytestmark = [pytest.mark.kafka, pytest.mark.pressure]

SEED, SECONDS = 11, 15.0


def killed_in_commits(transactions, protocol):
    """The outcome of a short run in which processes die inside their commits only."""
    places = {} if transactions == "Whole" else {"places": ("between",)}
    plan = Plan(
        SEED, SECONDS, protocol=protocol, faults=("crash",), transactions=transactions, **places
    )
    outcome = run(plan, print)
    print(outcome.as_json())
    assert outcome.n_faults["crash"] >= 2
    return outcome


def test_control_the_right_assigner_passes_under_the_same_kills():
    outcome = killed_in_commits("Whole", "classic")
    assert outcome.ok, (outcome.problem, *outcome.findings.problems, outcome.folder)


def test_control_offsets_committed_before_records_are_lost_and_caught():
    outcome = killed_in_commits("OffsetsFirst", "classic")
    assert outcome.problem is None, (outcome.problem, outcome.folder)
    assert outcome.findings.n_lost > 0
    assert outcome.findings.n_wrong > 0


def test_control_records_written_before_offsets_come_twice_and_are_caught():
    outcome = killed_in_commits("OffsetsLast", "consumer")
    assert outcome.problem is None, (outcome.problem, outcome.folder)
    assert outcome.findings.n_duplicated > 0
    assert outcome.findings.n_wrong > 0
