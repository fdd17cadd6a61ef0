"""Streams for the drift charts: clusters of uneven sizes, records that land in them."""

from __future__ import annotations

import numpy as np

from pipeline.clustering.drift.signals import Window
from pipeline.clustering.profile import LEVELS, Profiles

MEAN, SPREAD = 0.8, 0.1  # of the distances in every cluster


def uneven(n_clusters, power=0.8):
    """Shares of clusters, as uneven as a k-means of real vectors has them."""
    shares = 1.0 / np.arange(3, n_clusters + 3) ** power
    return shares / shares.sum()


def fitted(n_clusters, counts=None):
    """What a model says of its clusters, by default of a million items; evenly spread distances."""
    if counts is None:
        counts = np.rint(uneven(n_clusters) * 10**6)
    quantiles = MEAN + SPREAD * 3**0.5 * (2.0 * np.array(LEVELS) - 1.0)
    n = len(counts)
    return Profiles(
        counts=np.asarray(counts).astype(np.int64),
        mean_squared_distances=np.full(n, MEAN**2 + SPREAD**2),
        mean_distances=np.full(n, MEAN),
        quantiles=np.tile(quantiles.astype(np.float32), (n, 1)),
    )


class Stream:
    """Windows of records that land by shares, at distances of a mean."""

    def __init__(self, shares, seed=0, n=4096, n_members=10**6):
        self.shares, self.n, self.n_members = np.asarray(shares), n, n_members
        self.rng = np.random.default_rng(seed)

    def window(self, *, shares=None, shift=0.0, churn=0.0, n_new=0, moves=None, displacements=None):
        """``shift``: of the mean distance, per cluster or for all, in units of the spread."""
        landed = self.rng.multinomial(self.n, self.shares if shares is None else shares)
        noise = self.rng.normal(size=len(landed)) * SPREAD * np.sqrt(landed)
        self.n_members += n_new
        return Window(
            landed=landed,
            distances=landed * (MEAN + SPREAD * np.asarray(shift)) + noise,
            n_records=self.n,
            n_reassigned=int(self.rng.binomial(self.n, churn)),
            n_members=self.n_members,
            moves=moves,
            displacements=displacements,
        )
