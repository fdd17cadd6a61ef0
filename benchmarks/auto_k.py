"""How many clusters there are: false splits, power, counts found; ``auto_k.py [FOLDER | --table]``.

Three things are measured. How often one heap of points, of eight kinds, passes for two (beside the
same rule by Anderson and Darling's test of normality, that of G-means). How far apart two heaps
must be to be told apart, also when one is small. And, with the full set of package descriptions in
FOLDER, how many clusters a search finds from several beginnings, whether it stays there, and what
sections they hold, beside fits with as many clusters.

``--table`` computes the quantiles that `pipeline.clustering.dip` holds.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from scipy.special import ndtr
from sklearn.metrics import normalized_mutual_info_score

from benchmarks.debian_gap import load_full
from pipeline.clustering.auto import SPLIT_LEVEL, adapted
from pipeline.clustering.dip import TABLE_LEVELS, TABLE_SIZES, settled_dip
from pipeline.clustering.kmeans import Fit, fit
from pipeline.clustering.valleys import along, p_value, two_means
from pipeline.kernels.cpu.twin import CpuKernels

SHAPES = ((60, 2), (60, 64), (400, 2), (400, 64), (90, 384))
LEVELS = (0.05, SPLIT_LEVEL)
BEGINNINGS = (58, 200, 500)


def heaps() -> dict[str, Callable[[np.random.Generator, int, int], np.ndarray]]:
    """Distributions with one mode: (rng, n, n_dims) -> points."""

    def normal(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
        return rng.standard_normal((n, d))

    def ball(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
        points = normal(rng, n, d)
        lengths = np.sqrt(np.square(points).sum(axis=1, keepdims=True))
        return points / lengths * rng.random((n, 1)) ** (1 / d)

    return {
        "gaussian": normal,
        "heavy tails (t, 3)": lambda r, n, d: normal(r, n, d) / np.sqrt(r.chisquare(3, (n, 1)) / 3),
        "exponential": lambda r, n, d: r.exponential(size=(n, d)),
        "lognormal": lambda r, n, d: np.exp(normal(r, n, d)),
        "uniform ball": ball,
        "uniform cube": lambda r, n, d: r.random((n, d)),
        "decaying spectrum": lambda r, n, d: normal(r, n, d) / np.arange(1, d + 1),
        "half a gaussian": lambda r, n, d: np.abs(normal(r, n, d)),
    }


def normality_p_value(points: np.ndarray, is_left: np.ndarray) -> float:
    """The peer: unseen members on the same line, Anderson and Darling's test of a normal one.

    The approximation for estimated mean and variance is D'Agostino and Stephens' of 1986.
    """
    smallest = 1.0
    for seen, unseen in ((is_left, ~is_left), (~is_left, is_left)):
        means = two_means(points[seen])
        if means is None:
            continue
        z = np.sort(along(points[unseen], means[1] - means[0]))
        z = (z - z.mean()) / z.std(ddof=1)
        cdf = np.clip(ndtr(z), 1e-15, 1 - 1e-15)
        n = len(z)
        odd = 2 * np.arange(1, n + 1) - 1
        a = -n - float((odd * (np.log(cdf) + np.log1p(-cdf[::-1]))).sum()) / n
        a *= 1 + 0.75 / n + 2.25 / n**2
        if a >= 0.6:
            found = np.exp(1.2937 - 5.709 * a + 0.0186 * a**2)
        elif a >= 0.34:
            found = np.exp(0.9177 - 4.279 * a - 1.38 * a**2)
        else:
            found = 1.0
        smallest = min(smallest, float(found))
    return min(1.0, 2 * smallest)


def false_splits(n_runs: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for kind, draw in heaps().items():
        for n, n_dims in SHAPES:
            dips, normals = [], []
            for _ in range(n_runs):
                points, is_left = draw(rng, n, n_dims), rng.permutation(n) % 2 == 0
                dips.append(p_value(points, is_left, two_means))
                normals.append(normality_p_value(points, is_left))
            row: dict[str, Any] = {"kind": kind, "n": n, "dims": n_dims}
            for level in LEVELS:
                row[f"dip {level}"] = float((np.array(dips) <= level).mean())
                row[f"normality {level}"] = float((np.array(normals) <= level).mean())
            rows.append(row)
            print(row, flush=True)
    return rows


def power(n_runs: int) -> list[dict[str, Any]]:
    """Two Gaussian heaps, their distance in standard deviations."""
    rng = np.random.default_rng(1)
    rows = []
    for n_large, n_small in ((50, 50), (200, 200), (1000, 1000), (1000, 50), (1000, 16)):
        for n_dims in (2, 64):
            row: dict[str, Any] = {"sizes": f"{n_large} + {n_small}", "dims": n_dims}
            for apart in (3, 4, 5, 6, 8, 12):
                n_found = 0
                for _ in range(n_runs):
                    points = rng.standard_normal((n_large + n_small, n_dims))
                    points[n_large:, 0] += apart
                    is_left = rng.permutation(len(points)) % 2 == 0
                    n_found += p_value(points, is_left, two_means) <= SPLIT_LEVEL
                row[f"{apart} sd"] = n_found / n_runs
            rows.append(row)
            print(row, flush=True)
    return rows


def packages(folder: Path, beginnings: list[int]) -> list[dict[str, Any]]:
    """The last release: how many clusters are found, at what price, and what they hold."""
    loaded = load_full(folder)
    live: dict[str, tuple[int, str]] = {}
    for change in loaded.changes:
        if change.row < 0:
            live.pop(change.name, None)
        else:
            live[change.name] = change.row, change.section
    names = sorted(live)
    points = np.ascontiguousarray(loaded.vectors[[live[name][0] for name in names]])
    sections = [live[name][1] for name in names]
    kernels = CpuKernels()

    def run(n_clusters: int, start: np.ndarray | None = None) -> Fit:
        return fit(points, n_clusters, kernels=kernels, seed=0, max_component=2.0, start=start)

    rows = []
    for beginning in beginnings:
        refits: list[tuple[int, float]] = []

        def refit(start: np.ndarray, refits: list[tuple[int, float]] = refits) -> Fit:
            started = time.monotonic()
            found = run(len(start), start)
            refits.append((len(start), round(time.monotonic() - started, 1)))
            return found

        def search(found: Fit, refit: Callable[[np.ndarray], Fit] = refit) -> Fit:
            return adapted(
                points,
                found,
                min_clusters=2,
                max_clusters=50_000,
                kernels=kernels,
                refit=refit,
                seed=0,
            )

        first = run(beginning)
        started = time.monotonic()
        found = search(first)
        search_s, n_refits = time.monotonic() - started, len(refits)
        started = time.monotonic()
        again = search(found)
        again_s = time.monotonic() - started
        same_k = run(len(found.centroids))
        counts = np.bincount(found.labels)
        row = {
            "from": beginning,
            "clusters": len(found.centroids),
            "stays": again is found,
            "refits": refits[:n_refits],
            "search_s": round(search_s, 1),
            "again_s": round(again_s, 1),
            "sizes": np.percentile(counts, [0, 25, 50, 75, 100]).astype(int).tolist(),
            "nmi": round(float(normalized_mutual_info_score(sections, found.labels)), 3),
            "nmi_same_k": round(float(normalized_mutual_info_score(sections, same_k.labels)), 3),
            "inertia": round(found.inertia, 1),
            "inertia_same_k": round(same_k.inertia, 1),
        }
        rows.append(row)
        print(row, flush=True)
    return rows


def table() -> None:
    compiled = numba.njit(settled_dip)

    @numba.njit
    def dips(n: int, n_runs: int) -> np.ndarray:
        np.random.seed(1)
        found, heights = np.empty(n_runs), np.arange(n + 1)
        for i in range(n_runs):
            found[i] = compiled(np.sort(np.random.random(n)), heights)
        return found

    for n in TABLE_SIZES:
        n_runs = min(1_000_000, 2**28 // n)
        quantiles = np.quantile(dips(n, n_runs) * np.sqrt(n), 1 - np.array(TABLE_LEVELS))
        print(f"({', '.join(f'{q:.3f}' for q in quantiles)}),  # {n}, {n_runs} runs", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--table", action="store_true", help="only the quantiles of the dip")
    parser.add_argument("--runs", type=int, default=2000, help="samples a figure")
    parser.add_argument("--from", type=int, nargs="+", default=BEGINNINGS, dest="beginnings")
    parser.add_argument("--out", type=Path, help="also write the figures to this file, as JSON")
    options = parser.parse_args()

    if options.table:
        table()
        return 0
    figures: dict[str, Any] = {
        "false_splits": false_splits(options.runs),
        "power": power(max(1, options.runs // 5)),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    if options.folder is not None:
        figures["packages"] = packages(options.folder, list(options.beginnings))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    noise = 3 * np.sqrt(SPLIT_LEVEL / options.runs)
    worst = max(row[f"dip {SPLIT_LEVEL}"] for row in figures["false_splits"])
    met = worst <= SPLIT_LEVEL + noise
    print(f"false splits: {worst:.4f} at most, level {SPLIT_LEVEL}: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
