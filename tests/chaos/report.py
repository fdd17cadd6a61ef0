"""Many runs in figures: for people at a screen, for machines, and for docs/reliability.md."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.run import Outcome

BEGIN, END = "<!-- what the last runs gave: begin -->", "<!-- end -->"
COLUMNS = (
    "seed", "brokers", "protocol", "records", "events", "faults",
    "lost", "twice", "out of order", "wrong", "recovery", "aborted",
)  # fmt: skip
WIDTHS = (8, 9, 10, 9, 9, 8, 6, 7, 14, 7, 10, 9)


def line(cells: tuple[str, ...]) -> str:
    """A row on a screen."""
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))


def row(outcome: Outcome) -> tuple[str, ...]:
    """The figures of one run, as `COLUMNS` name them."""
    plan, found = outcome.plan, outcome.findings
    recovered = "-" if outcome.recovered_s is None else f"{outcome.recovered_s:.1f} s"
    return (
        str(plan.seed), str(plan.n_brokers), plan.protocol,
        f"{found.n_records:,}", f"{found.n_events:,}", str(outcome.n_faults.total()),
        str(found.n_lost), str(found.n_duplicated), str(found.n_out_of_order),
        str(found.n_wrong), recovered, _share(outcome.n_aborted, outcome.n_transactions),
    )  # fmt: skip


def totals(outcomes: list[Outcome]) -> dict[str, object]:
    """Of all runs."""
    found = [outcome.findings for outcome in outcomes]
    faults, missed = _by_kind(outcomes)
    return {
        "runs": len(outcomes),
        "passed": sum(outcome.ok for outcome in outcomes),
        "records": sum(f.n_records for f in found),
        "events": sum(f.n_events for f in found),
        "faults": faults.total(),
        "faults_by_kind": dict(faults),
        "met_nothing_by_kind": dict(missed),
        "fenced": sum(outcome.n_fenced for outcome in outcomes),
        "lost": sum(f.n_lost for f in found),
        "duplicated": sum(f.n_duplicated for f in found),
        "out_of_order": sum(f.n_out_of_order for f in found),
        "wrong_state": sum(f.n_wrong for f in found),
        "recovery_s_max": max((o.recovered_s or 0.0 for o in outcomes), default=0.0),
        "total_s_max": max((o.total_s for o in outcomes), default=0.0),
        "answers": sum(o.n_answers for o in outcomes),
        "streamed": sum(o.n_streamed for o in outcomes),
        "resumed": sum(o.n_resumed for o in outcomes),
        "told_missing": sum(o.n_told_missing for o in outcomes),
        "transactions": sum(o.n_transactions for o in outcomes),
        "aborted": sum(o.n_aborted for o in outcomes),
    }


def table(outcomes: list[Outcome]) -> str:
    """All runs and their sum, as Markdown."""
    found = [outcome.findings for outcome in outcomes]
    slowest = max((o.recovered_s or 0.0 for o in outcomes), default=0.0)
    sums = (
        f"{len(outcomes)} runs", "", "",
        f"{sum(f.n_records for f in found):,}", f"{sum(f.n_events for f in found):,}",
        str(sum(o.n_faults.total() for o in outcomes)),
        str(sum(f.n_lost for f in found)), str(sum(f.n_duplicated for f in found)),
        str(sum(f.n_out_of_order for f in found)), str(sum(f.n_wrong for f in found)),
        f"at most {slowest:.1f} s",
        _share(sum(o.n_aborted for o in outcomes), sum(o.n_transactions for o in outcomes)),
    )  # fmt: skip
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(row, outcomes)]
    rows.append(tuple(cell and f"**{cell}**" for cell in sums))
    failed = [o.plan.seed for o in outcomes if not o.ok]
    said = f"The verdict of {len(outcomes) - len(failed)} of {len(outcomes)} runs is good"
    said += f"; not of those with the seeds {', '.join(map(str, failed))}." if failed else "."
    n_streamed, n_answers = (
        sum(getattr(o, name) for o in outcomes) for name in ("n_streamed", "n_answers")
    )
    if n_streamed:
        said += (
            f" The servers told {n_streamed:,} events over their live streams, through "
            f"{sum(o.n_resumed for o in outcomes):,} lost connections; "
            f"{sum(o.n_told_missing for o in outcomes):,} were said to be missing. {n_answers:,} "
            "of their answers, given meanwhile, were held against what was written."
        )
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in rows), "", said])


def rewrite(page: Path, outcomes: list[Outcome]) -> None:
    """Put the table, and what became of each kind of fault, into the page."""
    text = page.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END, 1)[1]
    faults, missed = _by_kind(outcomes)
    bad = {kind for outcome in outcomes if not outcome.ok for kind in outcome.n_faults}
    for kind in FAULTS:
        times = {0: "never", 1: "once"}.get(faults[kind], f"{faults[kind]} times")
        said = f"{times}, " + ("see below" if kind in bad else "nothing found")
        if missed[kind]:
            said += f"; {missed[kind]} more met nothing"
        head = re.sub(rf"(?m)^(\| [^|]* \| `{kind}` \|.*\|)[^|]*\|$", rf"\1 {said} |", head)
    page.write_text(f"{head}{BEGIN}\n\n{table(outcomes)}\n\n{END}{tail}")


def _by_kind(outcomes: list[Outcome]) -> tuple[Counter[str], Counter[str]]:
    faults: Counter[str] = sum((o.n_faults for o in outcomes), Counter())
    missed: Counter[str] = sum((o.n_missed for o in outcomes), Counter())
    return faults, missed


def _share(part: int, whole: int) -> str:
    return f"{part / max(1, whole):.1%}"
