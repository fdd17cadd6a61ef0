"""Whether labels, distances, gaps and margins are right, twin by twin, on real and hostile data.

A million records a twin (``--records``), each compared with all centroids by an oracle of plain
loops over the canonical distance (`_oracle.py`). Counted are wrong labels and runners-up, distances
that are off by a bit, gaps and margins above the true ones: all must be 0. A gap is held against
the difference of the two canonical distances; a margin against what float64 computes, and what it
may be off by there. Beside them the negative control: float32 scores without a bound, which must
be caught. Ends with 1 when anything is wrong, or when the control is not caught.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import _environment, _oracle
from benchmarks._contenders import bound_to, stage, takes, ways
from benchmarks._environment import settle
from benchmarks._oracle import Truth
from benchmarks._pairs import Row, write
from benchmarks._vectors import Vectors, centroids_of
from pipeline.kernels.contract import Assignment, Points

CHUNK = 20_000
PREFIX = 48
KINDS = ("labels", "distances", "second labels", "second distances", "gaps", "margins")

Make = Callable[[int, np.random.Generator], tuple[Points, Points]]


@dataclass(frozen=True, slots=True)
class Case:
    """Data of one kind."""

    name: str
    share: float
    """Of all the records."""
    make: Make
    """Points and centroids for a number of records."""


def real(vectors: Vectors, n_dims: int, n_clusters: int) -> Make:
    def make(n: int, rng: np.random.Generator) -> tuple[Points, Points]:
        k = min(n_clusters, len(vectors.texts) // 4)
        return vectors.sample(n, n_dims), centroids_of(vectors.of(n_dims), k, 0)

    return make


def moved(vectors: Vectors, *, offset: float = 0.0, scale: float = 1.0) -> Make:
    def make(n: int, rng: np.random.Generator) -> tuple[Points, Points]:
        points, centroids = real(vectors, 384, 200)(n, rng)
        return (
            (points * np.float32(scale) + np.float32(offset)).astype(np.float32),
            (centroids * np.float32(scale) + np.float32(offset)).astype(np.float32),
        )

    return make


def duplicates(vectors: Vectors) -> Make:
    """Every centroid three times, in any order, and every third record is a centroid."""

    def make(n: int, rng: np.random.Generator) -> tuple[Points, Points]:
        points, centroids = real(vectors, 384, 100)(n, rng)
        tripled = centroids[rng.permutation(np.repeat(np.arange(len(centroids)), 3))]
        points[::3] = centroids[rng.integers(len(centroids), size=len(points[::3]))]
        return points, tripled

    return make


def halfway(vectors: Vectors) -> Make:
    """Records in the middle of two centroids, but for the rounding."""

    def make(n: int, rng: np.random.Generator) -> tuple[Points, Points]:
        _, centroids = real(vectors, 384, 200)(1, rng)
        a, b = rng.integers(len(centroids), size=(2, n))
        return (centroids[a] + centroids[b]) * np.float32(0.5), centroids

    return make


def heavy_tails(n: int, rng: np.random.Generator) -> tuple[Points, Points]:
    points = rng.standard_t(2, (n + 300, 70)).astype(np.float32)
    return points[:n], points[n:]


def gaussian(n: int, rng: np.random.Generator) -> tuple[Points, Points]:
    points = rng.standard_normal((n + 1000, 256), np.float32)
    return points[:n], points[n:]


def ball(n: int, rng: np.random.Generator) -> tuple[Points, Points]:
    """All in one small ball far from the origin."""
    points = 10.0 + 1e-4 * rng.standard_normal((n + 300, 96))
    return points[:n].astype(np.float32), points[n:].astype(np.float32)


def wild(n: int, rng: np.random.Generator) -> tuple[Points, Points]:
    """Lengths from the least normal number to 1e18, side by side."""
    points = rng.standard_normal((n + 200, 33))
    points *= 10.0 ** rng.uniform(-38, 18, (len(points), 1))
    return points[:n].astype(np.float32), points[n:].astype(np.float32)


def tiny(n: int, rng: np.random.Generator) -> tuple[Points, Points]:
    """Nothing but denormal numbers."""
    points = rng.integers(-2000, 2000, (n + 100, 40)) * 2.0**-149
    return points[:n].astype(np.float32), points[n:].astype(np.float32)


def narrow(n: int, rng: np.random.Generator) -> tuple[Points, Points]:
    points = np.round(rng.standard_normal((n + 50, 1)), 1).astype(np.float32)
    return points[:n], points[n:]


def cases(vectors: Vectors) -> list[Case]:
    return [
        Case("real, 384-d, K = 500", 0.25, real(vectors, 384, 500)),
        Case("real, 1024-d, K = 500", 0.10, real(vectors, 1024, 500)),
        Case("real, 1024-d, K = 26", 0.10, real(vectors, 1024, 26)),
        Case("real, 384-d, K = 5000", 0.02, real(vectors, 384, 5000)),
        Case("duplicated centroids, records equal to them", 0.08, duplicates(vectors)),
        Case("halfway between two centroids", 0.08, halfway(vectors)),
        Case("offset + 10", 0.06, moved(vectors, offset=10.0)),
        Case("offset + 1000", 0.03, moved(vectors, offset=1000.0)),
        Case("scale 1e3", 0.03, moved(vectors, scale=1e3)),
        Case("scale 1e-3", 0.03, moved(vectors, scale=1e-3)),
        Case("scale 1e17", 0.03, moved(vectors, scale=1e17)),
        Case("scale 1e-36", 0.03, moved(vectors, scale=1e-36)),
        Case("heavy tails (t, 2 degrees), 70-d", 0.04, heavy_tails),
        Case("gaussian, 256-d, K = 1000", 0.04, gaussian),
        Case("a small ball far away, 96-d", 0.03, ball),
        Case("lengths 1e-38 to 1e18, 33-d", 0.02, wild),
        Case("denormal numbers, 40-d", 0.02, tiny),
        Case("1-d, many ties", 0.01, narrow),
    ]


class Unbounded:
    """The negative control: the float32 scores decide, and say how sure they are."""

    name = "control"

    def load(self, centroids: Points) -> Points:
        return centroids

    def assign(
        self, model: Points, points: Points, *, second: bool = False, margin: bool = False
    ) -> Assignment:
        with np.errstate(all="ignore"):
            scores = np.square(model).sum(axis=1) - np.float32(2.0) * (points @ model.T)
        rows = np.arange(len(points))
        labels = scores.argmin(axis=1)
        best = scores[rows, labels].copy()
        scores[rows, labels] = np.inf
        others = scores.argmin(axis=1)
        gaps = scores[rows, others] - best
        squares = np.square(points).sum(axis=1)
        apart = np.linalg.norm(model[others] - model[labels], axis=1)
        with np.errstate(all="ignore"):
            margins = (gaps / (2.0 * apart)).astype(np.float32)
        return Assignment(
            labels.astype(np.int32), (best + squares).astype(np.float64), gaps,
            others.astype(np.int32), (scores[rows, others] + squares).astype(np.float64), margins,
        )  # fmt: skip


def faults(found: Assignment, truth: Truth) -> dict[str, int]:
    """How many of each kind there are; of what was not returned there are none."""
    gap = truth.second_distances_squared - truth.distances_squared
    counts = {
        "labels": found.labels != truth.labels,
        "distances": found.distances_squared != truth.distances_squared,
        "gaps": ~(found.gaps.astype(np.float64) <= gap) | (found.gaps < 0),
    }
    if found.second_labels is not None and found.second_distances_squared is not None:
        counts["second labels"] = found.second_labels != truth.second_labels
        counts["second distances"] = (
            found.second_distances_squared != truth.second_distances_squared
        )
    if found.margins is not None:
        most = truth.margins + truth.slacks
        counts["margins"] = ~(found.margins.astype(np.float64) <= most) | (found.margins < 0)
    return {kind: int(wrong.sum()) for kind, wrong in counts.items()}


def chunks(points: Points) -> Iterator[Points]:
    """Of many sizes, so that no path of a twin is left out."""
    start, sizes = 0, (1, 3, 31, 257, CHUNK)
    i = 0
    while start < len(points):
        n = sizes[i] if i < len(sizes) else CHUNK
        yield np.ascontiguousarray(points[start : start + n])
        start, i = start + n, i + 1


def judged(twin: Any, centroids: Points, points: Points, truth: Truth) -> dict[str, int]:
    """The faults of a twin in one case, and of each of its ways alone on fewer records."""
    model = twin.load(centroids)
    total = judged_as(twin, model, points, truth)
    n = max(300, len(points) // 10)
    for way in ways(model):
        alone = bound_to(twin, centroids, [way])
        part = Truth(*(field[:n] for field in truth))
        for kind, wrong in judged_as(twin, alone, points[:n], part).items():
            total[kind] += wrong
    return total


def judged_as(twin: Any, model: Any, points: Points, truth: Truth) -> dict[str, int]:
    """The faults with one model, plain and with all that can be asked for."""
    total = dict.fromkeys(KINDS, 0)
    asked: dict[str, bool] = {f: True for f in ("second", "margin") if takes(twin.assign, f)}
    start = 0
    for chunk in chunks(points):
        part = Truth(*(field[start : start + len(chunk)] for field in truth))
        plain = {f: True for f in asked if f == "margin" and start % 2}  # each field alone, too
        for request in (plain, asked):
            for kind, n in faults(twin.assign(model, chunk, **request), part).items():
                total[kind] += n
        start += len(chunk)
    return total


def parsed() -> Any:
    parser = _environment.options(__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="for each twin")
    parser.add_argument("--twins", nargs="+", help="only these; default: all that run here")
    parser.add_argument("--cases", nargs="+", help="only those whose names begin so")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    settle(options.isa, "exactness")
    ready = stage(options)
    for n_dims in (1, 31, 32, 70, 384):
        _oracle.check_itself(n_dims)
    everybody: dict[str, Any] = {
        name: twin
        for name, twin in ready.twins.items()
        if options.twins is None or name in options.twins
    }
    for name, twin in list(everybody.items()):
        if takes(type(twin), "prefix"):  # else it is there only where it pays
            everybody[f"{name}, prefix"] = type(twin)(options.threads, prefix=PREFIX)
    everybody["control"] = Unbounded()
    totals = {name: dict.fromkeys(KINDS, 0) for name in everybody}
    n_records = dict.fromkeys(everybody, 0)
    rows: list[Row] = []
    for number, case in enumerate(cases(ready.vectors)):
        if options.cases and not case.name.startswith(tuple(options.cases)):
            continue
        n = max(400, round(options.records * case.share))
        rng = np.random.default_rng([options.seed, number])
        start = time.perf_counter()
        points, centroids = case.make(n, rng)
        assert np.isfinite(points).all() and np.isfinite(centroids).all()
        truth = _oracle.nearest(points, centroids, margin=True)
        said = f"{case.name}: {len(points)} records"
        for name, twin in everybody.items():
            found = judged(twin, centroids, points, truth)
            for kind in KINDS:
                totals[name][kind] += found[kind]
            n_records[name] += len(points)
            said += f"; {name} {told(found)}"
        print(f"{said} ({time.perf_counter() - start:.0f} s)", flush=True)
    for name in everybody:
        is_control = name == "control"
        print(f"\n{name}: {n_records[name]} records, {told(totals[name])}")
        wrong = float(sum(totals[name].values()))
        rows.append(
            Row(
                "all cases", name, {"median": wrong, "q1": wrong, "q3": wrong}, "faults",
                beside={"records": str(n_records[name])} | {k: str(totals[name][k]) for k in KINDS},
                n_rounds=1, limit=None if is_control else 0.0,
            )
        )  # fmt: skip
    write("exactness", rows, ready.told, scratch=options.scratch)
    caught = {kind for kind in KINDS if totals["control"][kind]}
    missed = [] if options.cases else sorted({"labels", "distances", "gaps", "margins"} - caught)
    if missed:
        print(f"the control was not caught by its {', '.join(missed)}: this proves nothing")
    failed = [name for name in everybody if name != "control" and any(totals[name].values())]
    return 1 if failed or missed else 0


def told(found: dict[str, int]) -> str:
    """Faults for people."""
    return ", ".join(f"{n} {kind}" for kind, n in found.items() if n) or "no fault"


if __name__ == "__main__":
    sys.exit(main())
