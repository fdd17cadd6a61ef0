"""``python -m tests.chaos``: runs of faults, a table, and exit code 1 if any promise was broken."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.run import Outcome, Plan, run

ROOT = Path(__file__).parents[2]
CONTROLS = (
    "tests/simulation/test_barriers.py",
    "tests/chaos/test_controls.py",
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="each with the next seed")
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults, each run")
    parser.add_argument("--seed", type=int, help="of the first run; drawn if not given")
    parser.add_argument("--brokers", type=int, choices=(1, 3), help="else one and three in turn")
    parser.add_argument(
        "--protocol", choices=("classic", "consumer"), help="of groups; else both in turn"
    )
    parser.add_argument("--faults", help=f"of {','.join(FAULTS)}; else all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--controls", action="store_true", help="only what must be caught")
    return parser.parse_args()


def _line(cells: list[object]) -> str:
    widths = (8, 9, 10, 9, 9, 8, 6, 7, 7, 7, 10, 9)
    return "".join(f"{cell!s:>{width}}" for cell, width in zip(cells, widths, strict=True))


HEAD = _line(
    ["seed", "brokers", "protocol", "records", "events", "faults",
     "lost", "twice", "order", "wrong", "recovery", "aborted"]
)  # fmt: skip


def _row(outcome: Outcome) -> str:
    plan, found = outcome.plan, outcome.findings
    share = outcome.n_aborted / max(1, outcome.n_transactions)
    recovered = "-" if outcome.recovered_s is None else f"{outcome.recovered_s:.1f} s"
    return _line(
        [plan.seed, plan.n_brokers, plan.protocol, found.n_records, found.n_events,
         outcome.n_faults.total(), found.n_lost, found.n_duplicated, found.n_out_of_order,
         found.n_wrong, recovered, f"{share:.1%}"]
    )  # fmt: skip


def _totals(outcomes: list[Outcome]) -> dict[str, object]:
    found = [outcome.findings for outcome in outcomes]
    faults: Counter[str] = sum((o.n_faults for o in outcomes), Counter())
    return {
        "runs": len(outcomes),
        "passed": sum(outcome.ok for outcome in outcomes),
        "records": sum(f.n_records for f in found),
        "events": sum(f.n_events for f in found),
        "faults": faults.total(),
        "faults_by_kind": dict(faults),
        "lost": sum(f.n_lost for f in found),
        "duplicated": sum(f.n_duplicated for f in found),
        "out_of_order": sum(f.n_out_of_order for f in found),
        "wrong_state": sum(f.n_wrong for f in found),
        "recovery_s_max": max((o.recovered_s or 0.0 for o in outcomes), default=0.0),
        "transactions": sum(o.n_transactions for o in outcomes),
        "aborted": sum(o.n_aborted for o in outcomes),
    }


def main() -> int:
    """Play the runs; 0 if every promise held in all of them."""
    asked = _arguments()
    if asked.controls:
        return int(pytest.main([*(str(ROOT / path) for path in CONTROLS), "-k", "control", "-rA"]))
    faults = tuple(asked.faults.split(",")) if asked.faults else tuple(FAULTS)
    if unknown := set(faults) - FAULTS.keys():
        print(f"no such faults: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
        return 2
    first = time.time_ns() % 1_000_000 if asked.seed is None else asked.seed
    outcomes: list[Outcome] = []
    for n in range(asked.runs):
        plan = Plan(
            seed=first + n,
            seconds=asked.seconds,
            n_brokers=asked.brokers or (1, 3)[n % 2],
            protocol=asked.protocol or ("classic", "consumer")[n // 2 % 2],
            faults=faults,
        )
        print(f"run {n + 1} of {asked.runs}: {plan}", flush=True)
        outcomes.append(run(plan, lambda said: print(said, flush=True)))
        print(f"{HEAD}\n{_row(outcomes[-1])}", flush=True)
        for name, why in outcomes[-1].skipped.items():
            print(f"skipped {name}: {why}")
        if not outcomes[-1].ok:
            told = [outcomes[-1].problem, *outcomes[-1].findings.problems]
            print(*(problem for problem in told if problem), sep="\n")
            print(f"seed {plan.seed}: everything is kept in {outcomes[-1].folder}")
        if asked.json:  # after every run: a long night may end early
            told = {"totals": _totals(outcomes), "runs": [o.as_json() for o in outcomes]}
            asked.json.write_text(json.dumps(told, indent=1) + "\n")
    print(HEAD, *map(_row, outcomes), sep="\n")
    print(json.dumps(_totals(outcomes)))
    return 0 if all(outcome.ok for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
