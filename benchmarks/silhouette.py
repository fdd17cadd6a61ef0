"""Seconds to a silhouette, exact and sampled, beside scikit-learn, and to a small fit with one.

Real embeddings with the labels of a fit. Beside scikit-learn stand the same formula written down in
NumPy and in torch: tiles of float32 distances times a one-hot matrix, which is what a user in a
hurry does. Each result is compared with scikit-learn's of the same points in float64. A sample of
scikit-learn's sees only itself, Eddy's sees all points and comes with an interval. The small fit is
2634 points of 7 dimensions, K = 26, n_init = 3: warm, and as a process with the compiled loops on
disk, where importing counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_samples as sklearn_samples
from sklearn.metrics import silhouette_score

from benchmarks import _environment
from benchmarks._contenders import optional, stage
from benchmarks._environment import settle
from benchmarks._floor import Floor
from benchmarks._pairs import Contender, Rounds, Row, measure, show, write
from benchmarks._stage import ROOT, quartiles
from benchmarks._vectors import Vectors, centroids_of, nearest
from pipeline.clustering.kmeans import fit
from pipeline.clustering.silhouette import sampled_silhouette, silhouette, silhouette_samples
from pipeline.kernels.contract import Kernels, Points

TILE = 1024
MAX_OFF = 1e-6
SMALL = (2634, 7, 26, 3)
SMALL_LIMIT_S, COLD_LIMIT_S = 0.5, 5.0
SAME = 0.005
COLD_RUNS = 3

Labels = NDArray[Any]


def parsed() -> Any:
    parser = _environment.options(__doc__)
    parser.add_argument("--points", type=int, nargs="*", default=[5000, 20_000], help="exact ones")
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=58)
    parser.add_argument("--sample", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-small", action="store_true", help="without the small fit")
    return parser.parse_args()


def by_hand(points: Points, labels: Labels, distances: Callable[..., Any]) -> NDArray[Any]:
    """The definition over tiles; ``distances`` gives those of a tile to all points."""
    counts = np.bincount(labels)
    belongs = np.eye(len(counts), dtype=np.float32)[labels]
    found = np.empty(len(points), np.float32)
    for start in range(0, len(points), TILE):
        own = labels[start : start + TILE]
        sums = distances(points[start : start + TILE]) @ belongs
        rows = np.arange(len(own))
        inside = sums[rows, own] / np.maximum(counts[own] - 1, 1)
        sums /= counts
        sums[rows, own] = np.inf
        outside = sums.min(axis=1)
        score = (outside - inside) / np.maximum(inside, outside)
        found[start : start + TILE] = np.where(counts[own] > 1, score, 0.0)
    return found


def numpy_samples(points: Points, labels: Labels) -> NDArray[Any]:
    squares = np.square(points).sum(axis=1)

    def distances(tile: Points) -> NDArray[Any]:
        found = tile @ points.T
        found *= -2.0
        found += squares
        found += np.square(tile).sum(axis=1)[:, None]
        return np.sqrt(np.maximum(found, 0.0, out=found), out=found)

    return by_hand(points, labels, distances)


def torch_samples(torch: Any, points: Points, labels: Labels) -> NDArray[Any]:
    all_points = torch.from_numpy(points)

    def distances(tile: Points) -> NDArray[Any]:
        found: NDArray[Any] = torch.cdist(torch.from_numpy(tile), all_points).numpy()
        return found

    return by_hand(points, labels, distances)


def exact(
    points: Points, labels: Labels, kernels: Kernels, floor: Floor, options: Any
) -> list[Row]:
    """Every point, by everybody."""
    torch = optional("torch")
    everybody = [
        Contender("eddy", lambda: silhouette_samples(points, labels, kernels=kernels), True),
        Contender("scikit-learn", lambda: sklearn_samples(points, labels), is_fair=True),
        Contender("numpy, by hand", lambda: numpy_samples(points, labels), is_fair=True),
    ]
    if torch is not None:
        torch.set_num_threads(options.threads)
        call = lambda: torch_samples(torch, points, labels)  # noqa: E731
        everybody.append(Contender("torch, by hand", call, is_fair=True))
    truth = sklearn_samples(points.astype(np.float64), labels)
    rounds = run(everybody, options)
    n, n_dims = points.shape
    least = floor.seconds(2.0 * n * n * n_dims, 0.0)
    cell = f"exact, {n} x {n_dims}, K = {len(np.unique(labels))}"
    rows = []
    for one in everybody:
        off = float(np.abs(rounds.results[one.name] - truth).max())
        took = rounds.took(one.name)["median"]
        beside = {"largest error": f"{off:.1e}", "of the floor": f"{least / took:.0%}"}
        kept = {f"within {MAX_OFF:g}": off <= MAX_OFF} if one.is_ours else {}
        rows.append(Row.of(cell, one.name, rounds, scale=1.0, unit="s", beside=beside, kept=kept))
    return rows


def sampled(points: Points, labels: Labels, kernels: Kernels, options: Any) -> list[Row]:
    """Some of the points, and what is said about the rest."""
    n_sample, seed = options.sample, options.seed
    everybody = [
        Contender(
            "eddy",
            lambda: sampled_silhouette(points, labels, n_sample, kernels=kernels, seed=seed),
            True,
        ),
        Contender(
            "scikit-learn, sample_size",
            lambda: silhouette_score(points, labels, sample_size=n_sample, random_state=seed),
            is_fair=True,
        ),
    ]
    rounds = run(everybody, options)
    whole = silhouette(points, labels, kernels=kernels)
    estimate, alone = (rounds.results[one.name] for one in everybody)
    beside = [
        {
            "value": f"{estimate.value:.4f} ({estimate.low:.4f} .. {estimate.high:.4f})",
            "exact": f"{whole:.4f}",
        },
        {"value": f"{alone:.4f}", "exact": f"{whole:.4f}"},
    ]
    cell = f"sample of {n_sample} of {len(points)} x {points.shape[1]}"
    return [
        Row.of(cell, one.name, rounds, scale=1.0, unit="s", beside=told)
        for one, told in zip(everybody, beside, strict=True)
    ]


def run(everybody: list[Contender], options: Any) -> Rounds:
    return measure(
        everybody, threads=options.threads, rng=np.random.default_rng([options.seed, 7]),
        min_rounds=options.rounds, seconds=0.0,
    )  # fmt: skip


def small(vectors: Vectors, kernels: Kernels, options: Any) -> list[Row]:
    """A fit of few points with its silhouette: warm beside scikit-learn's, and cold."""
    n, n_dims, k, n_init = SMALL
    held = vectors.sample(n, vectors.texts.shape[1])
    if len(held) < n:
        held = np.resize(held, (n, held.shape[1]))
    centred = held - held.mean(axis=0)
    points = np.ascontiguousarray(
        centred @ np.linalg.svd(centred, full_matrices=False)[2][:n_dims].T
    )

    def ours() -> tuple[float, float]:
        found = fit(points, k, kernels=kernels, seed=0, max_component=2.0, n_init=n_init)
        return found.inertia, silhouette(points, found.labels, kernels=kernels)

    def theirs() -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = KMeans(k, n_init=n_init, random_state=0).fit(points)
        return float(found.inertia_), float(silhouette_score(points, found.labels_))

    everybody = [
        Contender("eddy", ours, True),
        Contender("scikit-learn", theirs, is_fair=True),
    ]
    rounds = measure(
        everybody, threads=options.threads, rng=np.random.default_rng([options.seed, 8]),
        min_rounds=11, seconds=2.0,
    )  # fmt: skip
    peer = rounds.results["scikit-learn"][0]
    cell = f"{n} x {n_dims}, K = {k}, n_init = {n_init}, fit and exact silhouette"
    rows = []
    for one in everybody:
        inertia, score = rounds.results[one.name]
        off = inertia / peer - 1.0
        beside = {
            "inertia": f"{inertia:.5g} ({off:+.2%}{'' if off <= SAME else ', TOO HIGH'})",
            "silhouette": f"{score:.4f}",
        }
        limit = SMALL_LIMIT_S if one.is_ours else None
        rows.append(Row.of(cell, one.name, rounds, scale=1.0, unit="s", beside=beside, limit=limit))
    return [*rows, cold(cell, points, rounds, options)]


def cold(cell: str, points: Points, rounds: Rounds, options: Any) -> Row:
    """The same as a process; a first one, not counted, compiles what is not on disk yet."""
    took = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.npy"
        np.save(path, points)
        arguments = [str(path), str(SMALL[2]), str(SMALL[3]), str(options.threads)]
        for _ in range(COLD_RUNS + 1):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "benchmarks._cold", *arguments],
                cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            took.append(time.perf_counter() - start)
    beside = {"first process": f"{took[0]:.1f} s (compiles what is not on disk)"}
    return Row(
        cell, "eddy, a cold process", quartiles(took[1:]), "s", beside=beside,
        n_rounds=COLD_RUNS, others=rounds.others, limit=COLD_LIMIT_S,
    )  # fmt: skip


def main() -> int:
    options = parsed()
    settle(options.isa, "silhouette")
    ready = stage(options)
    print("× is speed beside the fastest peer of each round")
    vectors, kernels = ready.vectors, ready.kernels
    rows: list[Row] = []
    for n in options.points:
        points = vectors.sample(n, options.dims)
        labels = nearest(points, centroids_of(points, options.clusters, options.seed))
        labels = np.unique(labels, return_inverse=True)[1]
        for new in (
            exact(points, labels, kernels, ready.floor, options),
            sampled(points, labels, kernels, options),
        ):
            rows += new
            show(new)
    if not options.no_small:
        rows += (new := small(vectors, kernels, options))
        show(new)
    write("silhouette", rows, ready.told, scratch=options.scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
