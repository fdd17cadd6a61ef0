"""Who finds the nearest centroid fastest: Eddy's twins beside NumPy, faiss, scikit-learn, torch.

Real embeddings, in one process, taking turns in random order, with equal threads. Eddy also returns
the exact float64 distance and a bound on the gap to the runner-up; its rows with ``second`` and
``margin`` return those as well. The peers return labels of float32 products, and how many of these
are wrong (against canonical distances to all centroids) stands beside their time. The ratio is to
the fastest fp32 peer of each round. Below it all the floor: the product at the measured peak of
the operands a twin has, or one read of the points at the measured bandwidth, whichever is longer;
who prunes may come out below it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import _environment, _oracle
from benchmarks._contenders import assigners, bound_to, stage, takes, ways
from benchmarks._environment import memory_grown, settle
from benchmarks._floor import Floor
from benchmarks._pairs import Contender, Rounds, Row, alone, measure, show, write
from benchmarks._vectors import Vectors, centroids_of
from pipeline.kernels.contract import Assignment, Kernels, Points

PASSES = {26: 8, 5000: 1}
MAX_CHECKED = 10**7
"""Distances that the oracle computes of one cell: some seconds."""
MAX_MEMORY_MIB = 64.0
N_WARM = 20_000
"""Records that a model has seen before it is timed: it learns which way to search pays."""


class Cell(NamedTuple):
    """A shape, and what is promised of it."""

    n_dims: int
    n_clusters: int
    n_points: int
    target: float | None = None
    portable_target: float | None = None
    """With the wider instructions switched off."""
    unprefixed_target: float | None = None
    """There, without the prefix filter."""

    @property
    def told(self) -> str:
        return f"d = {self.n_dims}, K = {self.n_clusters}, n = {self.n_points}"


CELLS = (
    Cell(1024, 500, 100_000, 4.0, 1.4, 0.95),
    Cell(384, 500, 20_000, 3.0, None, 0.95),
    Cell(1024, 5000, 20_000, 10.0, 2.5),
    Cell(1024, 26, 100_000, 1.3),
    Cell(1024, 500, 1, 1.0),
    Cell(1024, 500, 10, 1.0),
    Cell(1024, 500, 100, 1.0),
    Cell(1024, 500, 1000, 1.0),
)


def parsed() -> Any:
    parser = _environment.options(__doc__)
    parser.add_argument(
        "--cells", nargs="+", metavar="D,K,N", help="other shapes, as in 1024,500,100000"
    )
    parser.add_argument("--rounds", type=int, default=11, help="at least so many of each cell")
    parser.add_argument("--seconds", type=float, default=2.0, help="more rounds until then")
    options = parser.parse_args()
    known = {tuple(cell[:3]): cell for cell in CELLS}
    options.cells = [
        known.get(shape, Cell(*shape))
        for shape in (tuple(int(v) for v in text.split(",")) for text in options.cells or ())
    ] or CELLS
    return options


class Scene:
    """Everybody with the same centroids, for all the batch sizes of one (d, K)."""

    def __init__(
        self, vectors: Vectors, cells: Sequence[Cell], found: dict[str, Kernels], options: Any
    ) -> None:
        n_dims, n_clusters = cells[0][:2]
        self.most = max(cell.n_points for cell in cells)
        self.points = vectors.sample(max(self.most, N_WARM), n_dims)
        self.centroids = centroids_of(
            vectors.of(n_dims) if len(vectors.texts) >= n_clusters else self.points,
            n_clusters,
            options.seed,
            PASSES.get(n_clusters, 4),
        )
        self.peers = assigners(self.centroids, options.threads, isa=options.isa)
        self.twins = found
        self.models = {name: self.warmed(kernels) for name, kernels in found.items()}
        self.unprefixed = {
            name: model
            for name, kernels in found.items()
            if (model := self.without_prefix(kernels, self.models[name])) is not None
        }
        n_checked = min(self.most, max(100, MAX_CHECKED // n_clusters))
        self.truth = _oracle.nearest(self.points[:n_checked], self.centroids)

    def warmed(self, kernels: Kernels, model: Any = None) -> Any:
        """A model as it is in a process that has run for a while."""
        if model is None:
            model = kernels.load(self.centroids)
        for request in self.requests(kernels):
            kernels.assign(model, self.points[:N_WARM], **request)
        return model

    def without_prefix(self, kernels: Kernels, model: Any) -> Any:
        """The same centroids, searched in whole dimensions only; None: they always are."""
        known = ways(model)
        whole = [way for way in known if not way.is_prefixed]
        if len(whole) == len(known):
            return None
        return self.warmed(kernels, bound_to(kernels, self.centroids, whole))

    def requests(self, kernels: Kernels) -> list[dict[str, bool]]:
        """What a call may ask for."""
        return [{}, *({f: True} for f in ("second", "margin") if takes(kernels.assign, f))]

    def ours(self, points: Points) -> dict[str, tuple[str, Callable[[], Assignment]]]:
        """Twin and call by the name of the row; the chosen twin's, and with what is on request."""
        rows: dict[str, tuple[str, Callable[[], Assignment]]] = {}
        for i, (name, kernels) in enumerate(self.twins.items()):
            scenes = [(name, self.models[name], request) for request in self.requests(kernels)]
            if i > 0:
                scenes = scenes[:1]
            if name in self.unprefixed:
                scenes.append((f"{name}, no prefix", self.unprefixed[name], {}))
            for told, model, request in scenes:
                call = partial(kernels.assign, model, points, **request)
                rows["".join([f"eddy {told}", *(f", {field}" for field in request)])] = name, call
        return rows

    def way(self, name: str) -> str:
        """How the model of a twin is searched by now, where it has a choice."""
        choice = getattr(self.models[name], "choice", None)
        return "" if choice is None else str(choice(second=False, margin=False).way.name)


def run(cell: Cell, scene: Scene, floor: Floor, options: Any) -> list[Row]:
    """One table: Eddy's rows, then the peers'."""
    points = np.ascontiguousarray(scene.points[: cell.n_points])
    ours = scene.ours(points)
    contenders = [Contender(name, call, is_ours=True) for name, (_, call) in ours.items()]
    contenders += [
        Contender(peer.name, lambda p=peer: p.assign(points), is_fair=peer.is_fp32)
        for peer in scene.peers
    ]
    rounds = measure(
        contenders,
        threads=options.threads,
        rng=np.random.default_rng([options.seed, cell.n_points]),
        min_rounds=options.rounds,
        seconds=options.seconds,
        keep=labels_of,
    )
    rows = []
    for i, contender in enumerate(contenders):
        twin = ours[contender.name][0] if contender.is_ours else None
        target = cell.target if options.isa == "native" else cell.portable_target
        least = target if i == 0 else None
        if options.isa != "native" and contender.name.endswith("no prefix"):
            least = cell.unprefixed_target
        beside = notes(cell, contender, twin, rounds, scene, floor, options)
        kept = {"no wrong label": beside["wrong labels"].startswith("0 ")} if twin else {}
        grown = memory_grown(contender.call) if i == 0 else None
        if grown is not None:
            n_bytes = 16 * cell.n_points  # the results themselves: 4 + 8 + 4
            added = max(0, grown - n_bytes) / 2**20
            beside["added memory"] = f"{added:.0f} MiB"
            kept[f"at most {MAX_MEMORY_MIB:.0f} MiB"] = added <= MAX_MEMORY_MIB
        is_small = cell.n_points <= 1000
        rows.append(
            Row.of(
                cell.told, contender.name, rounds, beside=beside,
                scale=1e6 if is_small else 1e6 / cell.n_points,
                unit="µs a call" if is_small else "µs a record",
                target=least, kept=kept,
            )
        )  # fmt: skip
    return rows


def labels_of(found: Any) -> NDArray[Any]:
    """Of a twin's or of a peer's result."""
    return np.array(found.labels if isinstance(found, Assignment) else found)


def notes(
    cell: Cell, contender: Contender, twin: str | None, rounds: Rounds, scene: Scene,
    floor: Floor, options: Any,
) -> dict[str, str]:  # fmt: skip
    """Errors, CPU time, the share of the floor, and what taking turns costs."""
    labels = rounds.results[contender.name]
    n_checked = min(len(labels), len(scene.truth.labels))
    n_wrong = int((labels[:n_checked] != scene.truth.labels[:n_checked]).sum())
    is_int8 = twin not in (None, "cpu")
    flop = 2.0 * cell.n_points * cell.n_clusters * cell.n_dims
    least = floor.seconds(flop, 4.0 * cell.n_points * cell.n_dims, is_int8=is_int8)
    took = rounds.took(contender.name)["median"]
    core_micros = np.median(rounds.cpu[contender.name]) * 1e6 / cell.n_points
    by_itself = alone(contender, threads=options.threads)
    way = scene.way(twin) if twin and contender.name == f"eddy {twin}" else ""
    return {
        **({"searched by": way} if way else {}),
        "wrong labels": f"{n_wrong} of {n_checked}",
        "core-µs a record": f"{core_micros:.3g}",
        "of the floor": f"{least / took:.0%} ({'int8' if is_int8 and floor.int8 else 'fp32'})",
        "alone": f"{by_itself / took:.2f} of the time",
    }


def main() -> int:
    options = parsed()
    settle(options.isa, "assign")
    ready = stage(options)
    print("× is speed beside the fastest fp32 peer of each round")
    _oracle.check_itself(70)
    rows: list[Row] = []
    for shape in dict.fromkeys(cell[:2] for cell in options.cells):
        cells = [cell for cell in options.cells if cell[:2] == shape]
        scene = Scene(ready.vectors, cells, ready.twins, options)
        for cell in cells:
            rows += (new := run(cell, scene, ready.floor, options))
            show(new)
    write("assign", rows, ready.told, scratch=options.scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
