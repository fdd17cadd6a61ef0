"""A fit of few points and its exact silhouette in a process of its own: what a first call costs.

Run by `benchmarks/silhouette.py` as ``python -m benchmarks._cold POINTS.npy K N_INIT THREADS``.
Imports what the work needs and nothing else.
"""

from __future__ import annotations

import sys

import numpy as np

from pipeline.clustering.kmeans import fit
from pipeline.clustering.silhouette import silhouette
from pipeline.kernels.choose import make_kernels
from pipeline.kernels.contract import DevicePolicy

if __name__ == "__main__":
    path, n_clusters, n_init, threads = sys.argv[1:]
    points = np.load(path)
    kernels = make_kernels(DevicePolicy(kind="cpu", threads=int(threads)))
    found = fit(
        points, int(n_clusters), kernels=kernels, seed=0, max_component=2.0, n_init=int(n_init)
    )
    print(found.inertia, silhouette(points, found.labels, kernels=kernels))
