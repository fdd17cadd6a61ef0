"""What the tests of the estimator share: data, a small fit, a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import make_blobs

from pipeline import KMeans

ROOT = Path(__file__).parents[2]


def blobs(n=300, d=3, k=5, seed=0, dtype=np.float64):
    return make_blobs(n, d, centers=k, random_state=seed)[0].astype(dtype)


def fitted(x, k=5, **options):
    return KMeans(k, random_state=0, n_threads=1, **options).fit(x)


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
