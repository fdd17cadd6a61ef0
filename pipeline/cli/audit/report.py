"""What was found, for people and for machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape

from pipeline.cli.audit.tally import Tally
from pipeline.cli.output import count, printable


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found."""

    problem: str | None = None
    """Why nothing could be checked; None if it was."""
    reasons: tuple[str, ...] = ()
    """What the problem is made of."""
    model: str | None = None
    n_items: int = 0
    n_records: int = 0
    n_events: int = 0
    checks: tuple[Tally, ...] = ()
    waited_s: float = 0.0
    duration_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether everything was checked and nothing is broken."""
        return self.problem is None and not any(tally.n_broken for tally in self.checks)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "ok": self.ok,
            "problem": self.problem,
            "reasons": list(self.reasons),
            "model": self.model,
            "items": self.n_items,
            "records": self.n_records,
            "events": self.n_events,
            "waited_s": round(self.waited_s, 3),
            "duration_s": round(self.duration_s, 3),
            "checks": [
                {
                    "name": tally.name,
                    "promise": tally.promise,
                    "checked": tally.n_checked,
                    "unchecked": tally.n_unchecked,
                    "broken": tally.n_broken,
                    "examples": tally.examples,
                    "note": tally.note,
                }
                for tally in self.checks
            ],
        }


def show(report: Report, console: Console) -> None:
    """The report for people."""
    if report.problem is not None:
        console.print(f"[bold red]not verified:[/] {escape(report.problem)}", soft_wrap=True)
        for reason in report.reasons:
            console.print(f"  {escape(printable(reason))}", soft_wrap=True)
        return
    width = max(len(tally.promise) for tally in report.checks)
    # lines of our own, not a table: one that is too wide for a pipe loses its columns
    for tally in report.checks:
        mark = "[red]✗[/]" if tally.n_broken else "[green]✓[/]"
        broken = f"  [bold red]{count(tally.n_broken)} broken[/]" if tally.n_broken else ""
        unchecked = ""
        if tally.n_unchecked:
            unchecked = f"  [dim]{count(tally.n_unchecked)} not checked: {tally.note}[/]"
        checked = f"{tally.promise:<{width}}  {count(tally.n_checked):>9} checked"
        console.print(f"  {mark} {checked}{broken}{unchecked}", soft_wrap=True)
    for tally in report.checks:
        for example in tally.examples:
            console.print(f"  [red]{tally.name}[/]: {escape(printable(example))}", soft_wrap=True)
        n_more = tally.n_broken - len(tally.examples)
        if n_more:
            console.print(f"  [red]{tally.name}[/]: and {count(n_more)} more")
    verdict = (
        "[bold green]Every promise kept[/]" if report.ok else "[bold red]A promise is broken[/]"
    )
    console.print(
        f"{verdict}: {count(report.n_items)} items under model {report.model}, "
        f"{count(report.n_records)} records, {count(report.n_events)} change events, "
        f"in {report.duration_s:.1f} s",
        soft_wrap=True,
    )
