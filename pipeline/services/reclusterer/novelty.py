"""Births between two fits: items unlike everything, watched until they are many and alike."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.clustering.births import MIN_WEIGHT, OutlierBuffer, births, is_far
from pipeline.kernels.contract import Kernels, Points
from pipeline.messages.halves import widened
from pipeline.messages.model import Model
from pipeline.services.reclusterer.sampling import SampleReader

LOOK_S = 5.0
"""Between two looks at what has changed."""


@dataclass(slots=True)
class Novelty:
    """Looks at the sampled items that changed; one look costs an assignment of these."""

    sampling: SampleReader
    kernels: Kernels
    max_clusters: int
    _buffer: OutlierBuffer = field(init=False)
    _looked_s: float = float("-inf")
    _n_searched: int = 0
    """Items in the buffer when groups were last looked for: with hardly more there are none."""

    def __post_init__(self) -> None:
        self._buffer = OutlierBuffer(self.sampling.embedding.dimensions)

    def newborn(self, model: Model, *, now_s: float) -> Points | None:
        """Centroids of clusters that founded themselves since the fit; None: there are none."""
        if now_s - self._looked_s < LOOK_S or not model.is_profiled.any():
            return None
        self._looked_s = now_s
        sample = self.sampling.sample
        changed, sample.changed = sample.changed, set()
        if not changed:
            return None
        keys = sample.present(list(changed))
        self._buffer.remove(changed.difference(keys))
        device = self.kernels.load(model.centroids)
        if keys:
            vectors = widened(sample.vectors[sample.rows_of(keys)])
            found = self.kernels.assign(device, vectors)
            farthest = model.quantiles[found.labels, -1].astype(np.float64)
            far = is_far(np.sqrt(found.distances_squared), farthest)
            self._buffer.apply(keys, vectors, far)
        self._n_searched = min(self._n_searched, len(self._buffer))
        if len(self._buffer) < self._n_searched + MIN_WEIGHT:
            return None
        return self._search(model, device)

    def _search(self, model: Model, device: object) -> Points | None:
        keys, points = self._buffer.snapshot()
        self._n_searched = len(keys)
        room = self.max_clusters - len(model.centroids)
        if room < 1:
            return None
        found = self.kernels.assign(device, points)  # centroids have followed their members since
        spreads = model.mean_squared_distances[model.counts > 0]
        born = births(
            points,
            np.sqrt(found.distances_squared),
            model.quantiles[found.labels, -1].astype(np.float64),
            spread=float(np.sqrt(np.median(spreads))),
            kernels=self.kernels,
            max_births=room,
        )
        if born is None:
            return None
        for founders in born.founders:
            self._buffer.remove(keys[row] for row in founders.tolist())
        self._n_searched = len(self._buffer)
        return born.centroids
