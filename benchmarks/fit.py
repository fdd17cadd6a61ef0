"""Seconds to a k-means fit of real embeddings, beside scikit-learn and faiss at equal inertia.

Cold: everybody seeds as it does by default, and goes on to convergence (tol = 1e-4 of the mean
variance). faiss counts iterations instead: it gets as many as bring it to Eddy's inertia, within
0.2 % in the median of the seeds, or 300 where no number does; its default of 25 stands beside that.
Everybody returns centroids and the
label of every point. One seed a round, the same for all; inertia is computed anew in float64 and
compared with Eddy's of the same rounds. The floor is that of Lloyd's passes, each a whole float32
product: who prunes, or multiplies bytes, may come out above 100 %.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from benchmarks import _environment
from benchmarks._contenders import Stage, optional, sklearn_intelex, stage
from benchmarks._environment import settle
from benchmarks._pairs import Contender, Row, measure, show, write
from pipeline.clustering.kmeans import fit
from pipeline.kernels.contract import Kernels, Points

MAX_COMPONENT = 1.0
SAME = 0.002
"""Inertia so much above Eddy's counts as the same."""
FAISS_ITERATIONS = (25, 50, 100, 300)
ALL_POINTS = 10**9
CHUNK = 8192


class Cell(NamedTuple):
    """Points of so many dimensions, and clusters."""

    n_points: int
    """0: what lives at the end of the Debian set."""
    n_dims: int
    n_clusters: int
    target: float | None = None
    n_rounds: int = 3


CELLS = (
    Cell(0, 384, 58, 3.0),
    Cell(0, 384, 500, 3.0),
    Cell(1000, 1024, 500),
    Cell(10_000, 1024, 500),
    Cell(100_000, 1024, 500, None, 1),
)


class Found(NamedTuple):
    """What a contender returned."""

    centroids: Points
    labels: NDArray[Any]
    n_passes: int | None


@dataclass(slots=True)
class Turn:
    """The seed of the round that is running."""

    seed: int = 0


def parsed() -> Any:
    parser = _environment.options(__doc__)
    parser.add_argument(
        "--cells", nargs="+", metavar="N,D,K", help="other shapes; N = 0: all that lives"
    )
    parser.add_argument("--rounds", type=int, help="of each cell; default: 3, the largest 1")
    parser.add_argument("--only", nargs="+", help="contenders whose names begin so, besides Eddy")
    options = parser.parse_args()
    known = {tuple(cell[:3]): cell for cell in CELLS}
    shapes = [tuple(int(v) for v in text.split(",")) for text in options.cells or ()]
    options.cells = [known.get(shape, Cell(*shape)) for shape in shapes] or CELLS
    return options


def eddy(points: Points, k: int, kernels: Kernels, turn: Turn, **more: Any) -> Found:
    found = fit(
        points, k, kernels=kernels, seed=turn.seed, max_component=MAX_COMPONENT, **more
    )  # fmt: skip
    return Found(found.centroids, found.labels, found.n_iterations)


def sklearn(points: Points, k: int, turn: Turn, kind: Any = KMeans, **more: Any) -> Found:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = kind(k, n_init=1, random_state=turn.seed, **more).fit(points)
    return Found(found.cluster_centers_, found.labels_, int(found.n_iter_))


def faiss_kmeans(points: Points, k: int, turn: Turn, *, faiss: Any, n_iterations: int) -> Found:
    found = faiss.Kmeans(
        points.shape[1], k, niter=n_iterations, seed=turn.seed + 1,
        max_points_per_centroid=ALL_POINTS, min_points_per_centroid=1,
    )  # fmt: skip
    found.train(points)
    n_passes = len(found.iteration_stats) + 1  # it may stop early; one more for the labels
    return Found(found.centroids, found.assign(points)[1], n_passes)


def inertia(points: Points, centroids: Points, labels: NDArray[Any]) -> float:
    """In float64."""
    total = 0.0
    for start in range(0, len(points), CHUNK):
        here = slice(start, start + CHUNK)
        gaps = points[here].astype(np.float64) - centroids[labels[here]]
        total += float(np.einsum("ij,ij->", gaps, gaps))
    return total


def contenders(
    points: Points, cell: Cell, kernels: Kernels, turn: Turn, options: Any
) -> list[Contender]:
    """Eddy, and whoever is there; how long faiss has to go on is found out here."""
    k = cell.n_clusters
    ours: dict[str, Callable[[], Found]] = {"eddy": partial(eddy, points, k, kernels, turn)}
    ours["eddy, k-means||"] = partial(eddy, points, k, kernels, turn, init="k-means||")
    found = [Contender(name, call, is_ours=True) for name, call in ours.items()]
    found += [
        Contender("scikit-learn lloyd", partial(sklearn, points, k, turn), is_fair=True),
        Contender("scikit-learn elkan", partial(sklearn, points, k, turn, algorithm="elkan")),
    ]
    faiss = optional("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(options.threads)
        call = partial(faiss_kmeans, points, k, turn, faiss=faiss)
        if wanted("faiss", options):
            enough = faiss_iterations(points, ours["eddy"], call, turn, rounds_of(cell, options))
            for n_iterations in sorted({enough, FAISS_ITERATIONS[0]}):
                found.append(
                    Contender(
                        f"faiss, {n_iterations} iterations",
                        partial(call, n_iterations=n_iterations),
                        is_fair=n_iterations == enough,
                    )
                )
    kind = sklearn_intelex(options.threads) if options.isa == "native" else None
    if kind is not None:
        found.append(
            Contender("scikit-learn-intelex", partial(sklearn, points, k, turn, kind), is_fair=True)
        )
    return [c for c in found if c.is_ours or wanted(c.name, options)]


def wanted(name: str, options: Any) -> bool:
    return options.only is None or name.startswith(tuple(options.only))


def faiss_iterations(
    points: Points, ours: Callable[[], Found], call: Callable[..., Found], turn: Turn, n_seeds: int
) -> int:
    """How many bring it to Eddy's inertia, or the most that are tried."""
    first = turn.seed

    def median(fit_once: Callable[[], Found]) -> float:
        found = []
        for turn.seed in range(first, first + n_seeds):
            result = fit_once()
            found.append(inertia(points, result.centroids, result.labels))
        return float(np.median(found))

    ceiling = median(ours) * (1.0 + SAME)
    for n_iterations in FAISS_ITERATIONS:
        if median(partial(call, n_iterations=n_iterations)) <= ceiling:
            break
    turn.seed = first
    return n_iterations


def rounds_of(cell: Cell, options: Any) -> int:
    """How many there are."""
    return int(options.rounds or cell.n_rounds)


def run(cell: Cell, ready: Stage, options: Any) -> list[Row]:
    """One table."""
    vectors, kernels, floor = ready.vectors, ready.kernels, ready.floor
    points = vectors.living() if cell.n_points == 0 else vectors.sample(cell.n_points, cell.n_dims)
    turn = Turn(options.seed)
    everybody = contenders(points, cell, kernels, turn, options)
    inertias: dict[str, list[float]] = {c.name: [] for c in everybody}
    passes: dict[str, list[int]] = {c.name: [] for c in everybody}

    def collect(name: str, found: Found) -> None:
        inertias[name].append(inertia(points, found.centroids, found.labels))
        if found.n_passes is not None:
            passes[name].append(found.n_passes)

    def begin(number: int) -> None:
        turn.seed = options.seed + number

    rounds = measure(
        everybody,
        threads=options.threads,
        rng=np.random.default_rng([options.seed, 6]),
        min_rounds=rounds_of(cell, options),
        seconds=0.0,
        keep=lambda found: None,
        on_round=begin,
        collect=collect,
    )
    rows = []
    for contender in everybody:
        name = contender.name
        above = np.median(np.array(inertias[name]) / np.array(inertias["eddy"])) - 1.0
        took = rounds.took(name)["median"]
        flop = 2.0 * points.size * cell.n_clusters * float(np.median(passes[name]))
        least = floor.seconds(flop, 0.0)
        beside = {
            "inertia": f"{np.median(inertias[name]):.6g}",
            "beside Eddy's": f"{above:+.2%}",
            "passes": f"{np.median(passes[name]):.0f}",
            "core-s": f"{np.median(rounds.cpu[name]):.3g}",
            "of the floor of its passes": f"{least / took:.0%}",
        }
        cell_told = f"{len(points)} x {points.shape[1]}, K = {cell.n_clusters}"
        target, kept = None, {}
        if name == "eddy":
            target = cell.target
            if "scikit-learn lloyd" in inertias:
                over = np.median(np.array(inertias[name]) / inertias["scikit-learn lloyd"]) - 1.0
                kept = {f"inertia at most {SAME:.1%} above Lloyd's": bool(over <= SAME)}
        rows.append(
            Row.of(
                cell_told, name, rounds,
                scale=1.0, unit="s", beside=beside, target=target, kept=kept,
            )
        )  # fmt: skip
    return rows


def main() -> int:
    options = parsed()
    settle(options.isa, "fit")
    ready = stage(options)
    print(
        "× is speed beside the fastest of scikit-learn's Lloyd, faiss to the same inertia, and "
        "scikit-learn-intelex"
    )
    rows: list[Row] = []
    for cell in options.cells:
        rows += (new := run(cell, ready, options))
        show(new)
    write("fit", rows, ready.told, scratch=options.scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
