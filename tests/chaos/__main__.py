"""``python -m tests.chaos``: runs of faults, a table, and exit code 1 if any promise was broken."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.report import COLUMNS, line, rewrite, row, table, totals
from tests.chaos.run import Outcome, Plan, run

ROOT = Path(__file__).parents[2]
CONTROLS = (
    "tests/simulation/test_barriers.py",
    "tests/chaos/test_controls.py",
    "tests/chaos/test_showing.py",
    "tests/chaos/test_controls_on_kafka.py",
)
PROTOCOLS = ("classic", "consumer")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="each with the next seed")
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults, each run")
    parser.add_argument("--seed", type=int, help="of the first run; drawn if not given")
    parser.add_argument(
        "--brokers", type=int, choices=(1, 3), help="else three for two of ten seeds"
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, help="of groups; else by seed, in turn")
    parser.add_argument("--servers", type=int, default=1, help="with an API; 0 to 9")
    parser.add_argument("--faults", help=f"of {','.join(FAULTS)}; else all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="and there as a table")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="put them into docs/reliability.md"
    )
    parser.add_argument("--controls", action="store_true", help="only what must be caught")
    return parser.parse_args()


def _plan(asked: argparse.Namespace, seed: int, faults: tuple[str, ...]) -> Plan:
    """Of ten seeds in a row two have three brokers, one of them with each protocol."""
    return Plan(
        seed=seed,
        seconds=asked.seconds,
        n_brokers=asked.brokers or (3 if seed // 2 % 5 == 0 else 1),
        protocol=asked.protocol or PROTOCOLS[seed % 2],
        faults=faults,
        n_servers=asked.servers,
    )


def _tell(asked: argparse.Namespace, outcomes: list[Outcome]) -> None:
    """After every run: a long night may end early."""
    last = outcomes[-1]
    print(f"{line(COLUMNS)}\n{line(row(last))}\n{last.total_s:.0f} s in all", flush=True)
    for name, why in last.skipped.items():
        print(f"skipped {name}: {why}")
    if not last.ok:
        told = [last.problem, *last.findings.problems]
        print(*(problem for problem in told if problem), sep="\n")
        print(f"seed {last.plan.seed}: everything is kept in {last.folder}", flush=True)
    if asked.json:
        told = {"totals": totals(outcomes), "runs": [o.as_json() for o in outcomes]}
        asked.json.write_text(json.dumps(told, indent=1) + "\n")
    if asked.markdown:
        asked.markdown.write_text(table(outcomes) + "\n")
    if asked.page:
        rewrite(asked.page, outcomes)


def main() -> int:
    """Play the runs; 0 if every promise held in all of them."""
    asked = _arguments()
    # what the runs start is of this tree, wherever an installed one lies
    os.environ["PYTHONPATH"] = str(ROOT)
    if asked.controls:
        return int(pytest.main([*(str(ROOT / path) for path in CONTROLS), "-k", "control", "-rA"]))
    faults = tuple(asked.faults.split(",")) if asked.faults else tuple(FAULTS)
    if unknown := set(faults) - FAULTS.keys():
        print(f"no such faults: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
        return 2
    first = time.time_ns() % 1_000_000 if asked.seed is None else asked.seed
    outcomes: list[Outcome] = []
    for n in range(asked.runs):
        plan = _plan(asked, first + n, faults)
        print(f"run {n + 1} of {asked.runs}: {plan}", flush=True)
        outcomes.append(run(plan, lambda said: print(said, flush=True)))
        _tell(asked, outcomes)
    print(table(outcomes), json.dumps(totals(outcomes)), sep="\n\n")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
