"""What must be caught on a real Kafka: assigners and servers that break the promise.

The wrong ones are of this folder (:mod:`tests.chaos.service`); Eddy has no switch for it. Assigners
are killed between the two transactions that they make of one, the right one anywhere in its own.
What else may be wrong with a server is in ``test_showing.py``, in memory.
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
        SEED, SECONDS, protocol=protocol, faults=("crash",), n_servers=0,
        transactions=transactions, **places,
    )  # fmt: skip
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


def test_control_a_server_that_loses_one_record_is_caught():
    outcome = run(Plan(SEED, SECONDS, faults=("kill",), answers="Forgetful"), print)
    print(outcome.as_json())
    assert outcome.problem is None, (outcome.problem, outcome.folder)
    assert any("changes: " in problem for problem in outcome.findings.problems)
    assert outcome.findings.n_lost >= 1, "it is missing in the stream, too"


def test_control_a_server_that_claims_to_know_a_record_too_soon_is_caught():
    outcome = run(Plan(SEED, SECONDS, faults=("kill",), answers="Hasty"), print)
    print(outcome.as_json())
    assert outcome.problem is None, (outcome.problem, outcome.folder)
    assert any("claims to know it" in problem for problem in outcome.findings.problems)
