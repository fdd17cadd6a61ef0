"""One harness for all pairs: who is faster, by how much, and how sure that is.

All contenders in one process; in each round each once, in random order; the figure is the median
of the rounds' ratios with its quartiles. So what disturbs the machine disturbs both sides of a
ratio, and what is left of it shows. The peer of the headline is in each round the fastest of the
fair ones, which favours the peers. Wall and process CPU time stand side by side.

A pool of threads that idles spins for a while. So the BLAS gets as many threads as the contender
that is next may have (one under Eddy, which calls it from threads of its own, as in a service);
contenders with several threads rest before their turn; and afterwards each runs alone, several
calls in a row: what taking turns costs it is then seen.

A neighbour who takes a core hurts peers with a spinning BLAS most, ten times and more: so what
others took during the rounds stands in every figure, and above a tenth of a core it is said.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from benchmarks._stage import RESULTS, quartiles, said, write_results
from benchmarks._worker import busy_seconds

REST_S = 0.05
MIN_CALL_S = 2e-3
"""A shorter call is repeated within its turn: the clocks, and above all that of the CPU time."""
MAX_ROUNDS = 200
ALONE = 5
MAX_OTHERS = 0.1
"""Cores; more, and the ratios are not to be believed."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Someone who does the work."""

    name: str
    call: Callable[[], Any]
    is_ours: bool = False
    is_fair: bool = False
    """A peer of the headline: float32 operands, the whole of the work."""


@dataclass(frozen=True, slots=True, eq=False)
class Rounds:
    """Seconds a call, of each contender in each round."""

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]
    fair: tuple[str, ...]
    others: float = 0.0
    """Cores that other processes had meanwhile."""
    results: dict[str, Any] = field(default_factory=dict)
    """What the first call of each returned."""

    def took(self, name: str) -> dict[str, float]:
        """Seconds of wall time."""
        return quartiles(self.wall[name])

    def ratio(self, name: str, to: str | None = None, *, cpu: bool = False) -> dict[str, float]:
        """How many times faster than another, or than the fastest fair peer of each round."""
        times = self.cpu if cpu else self.wall
        others = self.fair if to is None else (to,)
        peers = np.array([times[other] for other in others if other != name] or [times[name]])
        return quartiles(list(peers.min(axis=0) / np.maximum(times[name], 1e-12)))


def measure(
    contenders: Sequence[Contender],
    *,
    threads: int,
    rng: np.random.Generator,
    min_rounds: int = 11,
    seconds: float = 2.0,
    keep: Callable[[Any], Any] | None = None,
    on_round: Callable[[int], None] | None = None,
    collect: Callable[[str, Any], None] | None = None,
) -> Rounds:
    """At least so many rounds, and more until the time is over; the first call warms up.

    ``keep`` takes from the first result what is wanted of it later. ``on_round`` is told the number
    of a round before it, ``collect`` every result of a round, both while no clock runs.
    """
    controller = ThreadpoolController()
    before = controller.limit(limits={"blas": threads, "openmp": threads})
    repeats, results = {}, {}
    for contender in contenders:
        _prepare(controller, contender, threads)
        start = time.perf_counter()
        found = contender.call()
        took = time.perf_counter() - start
        results[contender.name] = keep(found) if keep is not None else found
        del found
        if took < 100 * MIN_CALL_S:  # the first call may have compiled something
            start = time.perf_counter()
            contender.call()
            took = time.perf_counter() - start
        repeats[contender.name] = max(1, int(MIN_CALL_S / max(took, 1e-7)))
    names = [contender.name for contender in contenders]
    assert len(set(names)) == len(names), names
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    own, busy = time.process_time(), busy_seconds()
    began = time.perf_counter()
    n_rounds = 0
    while n_rounds < min_rounds or (
        time.perf_counter() - began < seconds and n_rounds < MAX_ROUNDS
    ):
        if on_round is not None:
            on_round(n_rounds)
        for i in rng.permutation(len(contenders)):
            contender = contenders[i]
            _prepare(controller, contender, threads)
            wall_s, cpu_s, found = _timed(contender, repeats[contender.name])
            if collect is not None:
                collect(contender.name, found)
            del found
            wall[contender.name].append(wall_s)
            cpu[contender.name].append(cpu_s)
        n_rounds += 1
    gc.enable()
    before.restore_original_limits()
    busy, own = busy_seconds() - busy, time.process_time() - own
    others = max(0.0, busy - own) / (time.perf_counter() - began)
    return Rounds(wall, cpu, tuple(c.name for c in contenders if c.is_fair), others, results)


def alone(contender: Contender, *, threads: int) -> float:
    """Median seconds a call where nobody else has a turn."""
    _prepare(ThreadpoolController(), contender, threads)
    start = time.perf_counter()
    contender.call()
    repeats = max(1, int(MIN_CALL_S / max(time.perf_counter() - start, 1e-7)))
    return float(np.median([_timed(contender, repeats)[0] for _ in range(ALONE)]))


def _prepare(controller: ThreadpoolController, contender: Contender, threads: int) -> None:
    controller.limit(limits={"blas": 1 if contender.is_ours else threads, "openmp": threads})
    if threads > 1:
        time.sleep(REST_S)


def _timed(contender: Contender, repeats: int) -> tuple[float, float, Any]:
    """Seconds a call of wall and of CPU time, and what the last call returned."""
    found = None
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        found = contender.call()
    wall_s = time.perf_counter() - start
    return wall_s / repeats, (time.process_time() - cpu) / repeats, found


# --- rows -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One contender in one cell of a table."""

    cell: str
    who: str
    took: Mapping[str, float]
    """Quartiles, in ``unit``."""
    unit: str
    ratio: Mapping[str, float] | None = None
    """Times faster than the best fair peer of the same round."""
    ratio_cpu: Mapping[str, float] | None = None
    beside: Mapping[str, str] = field(default_factory=dict)
    """What else there is to say, by the title of its column."""
    target: float | None = None
    """The least median of ``ratio``, where one is promised."""
    n_rounds: int = 0
    others: float = 0.0
    """Cores that other processes had meanwhile."""
    limit: float | None = None
    """The most of ``took``, in ``unit``, where that is promised."""
    kept: Mapping[str, bool] = field(default_factory=dict)
    """What else is promised, and whether it holds."""

    @classmethod
    def of(
        cls, cell: str, who: str, rounds: Rounds, *, scale: float, unit: str,
        beside: Mapping[str, str], target: float | None = None, limit: float | None = None,
        kept: Mapping[str, bool] | None = None,
    ) -> Row:  # fmt: skip
        """A contender of some rounds; ``scale`` makes seconds ``unit``."""
        took = {k: v * scale for k, v in rounds.took(who).items()}
        return cls(
            cell, who, took, unit, rounds.ratio(who), rounds.ratio(who, cpu=True), beside, target,
            len(rounds.wall[who]), rounds.others, limit, kept or {},
        )  # fmt: skip

    @property
    def is_met(self) -> bool | None:
        """Whether what is promised holds; None: nothing is."""
        held = list(self.kept.values())
        if self.target is not None and self.ratio is not None:
            held.append(self.ratio["median"] >= self.target)
        if self.limit is not None:
            held.append(self.took["median"] <= self.limit)
        return all(held) if held else None

    @property
    def promise(self) -> str:
        """For people."""
        least = "" if self.target is None else f"at least {self.target:g} ×"
        most = "" if self.limit is None else f"at most {self.limit:g} {self.unit}"
        return ", ".join(part for part in (least, most, *self.kept) if part)

    def figure(self) -> dict[str, Any]:
        """For the file of results."""
        return {
            "cell": self.cell, "who": self.who, "took": dict(self.took), "unit": self.unit,
            "ratio": self.ratio, "ratio_cpu": self.ratio_cpu, "beside": dict(self.beside),
            "promise": self.promise, "is_met": self.is_met, "n_rounds": self.n_rounds,
            "others": round(self.others, 3),
        }  # fmt: skip


def show(rows: Sequence[Row]) -> None:
    """The rows of one cell, for people."""
    if not rows:
        return
    load, others = os.getloadavg()[0], rows[0].others
    disturbed = f"; DISTURBED: others took {others:.1f} cores" if others > MAX_OTHERS else ""
    print(f"\n{rows[0].cell} ({rows[0].n_rounds} rounds, load {load:.1f}{disturbed})")
    for row in rows:
        form = ".4g" if row.took["median"] < 1000 else ",.0f"
        line = f"  {row.who:<30} {said(row.took, form):>30} {row.unit:<12}"
        if row.ratio is not None:
            line += f" {said(row.ratio, '.2f'):>20} ×"
        if row.ratio_cpu is not None:
            line += f", cpu {row.ratio_cpu['median']:.2f} ×"
        if row.is_met is not None:
            line += f" [{row.promise}: {'met' if row.is_met else 'MISSED'}]"
        notes = ", ".join(f"{title} {text}" for title, text in row.beside.items() if text)
        print(line + (f"   {notes}" if notes else ""), flush=True)


def write(
    benchmark: str, rows: Collection[Row], about: Mapping[str, Any], *, scratch: bool
) -> None:
    """Add the rows to the day's file, and say what was missed."""
    figures = {
        f"{row.cell}, {about['threads']} threads, {about['isa']}: {row.who}": row.figure()
        for row in rows
    }
    folder = RESULTS / "scratch" if scratch else RESULTS
    print(f"\nwritten to {write_results(benchmark, figures, about, folder)}")
    for row in rows:
        if row.is_met is False:
            got = "" if row.ratio is None else f", {row.ratio['median']:.2f} ×"
            took = f"{row.took['median']:.4g} {row.unit}"
            print(f"MISSED: {row.cell}: {row.who} {took}{got}; promised: {row.promise}")
