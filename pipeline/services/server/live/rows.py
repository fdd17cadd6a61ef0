"""What is told of clusters and totals again and again: what moves, and nothing that is dear."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from pipeline.messages.codec import json_bytes
from pipeline.services.server.desk import Desk
from pipeline.services.server.replies import as_of, told
from pipeline.services.server.routes.clusters import growths
from pipeline.services.server.routes.model import totals

NO_PLACE: Final = (None, None)


class Sample(NamedTuple):
    """How all of it stands at one moment."""

    model: tuple[int, int] | None
    time: str | None
    rows: dict[str, bytes]
    """Cluster -> JSON, in the order of the model."""
    stats: bytes
    """JSON: what ``GET /stats`` says."""


def sample(desk: Desk) -> Sample:
    """Look at the view; takes its lock."""
    with desk.looking() as view:
        stats = json_bytes(told(totals(desk, view)))
        model = view.model
        if model is None:
            return Sample(None, as_of(view), {}, stats)
        clusters, labels = model.manifest.clusters, view.models.labels
        sizes = view.items.counts(clusters).tolist()
        gained = growths(desk, view, model).tolist()
        shifts, spreads = desk.shifts(model), desk.spreads()
        is_known = np.isfinite(shifts).tolist()
        places, drifts = desk.places, desk.drifts()
        rows = {
            cluster: json_bytes(
                {
                    "cluster": cluster,
                    "label": labels.get(cluster),
                    "size": size,
                    "spread": spreads.get(cluster),
                    "shift": shift if is_finite else None,
                    "growth": growth,
                    "x": place[0],
                    "y": place[1],
                    "drift": drifts.get(cluster),
                    "state": "live" if size else "empty",
                }
            )
            for cluster, size, growth, shift, is_finite, place in zip(
                clusters,
                sizes,
                gained,
                shifts.tolist(),
                is_known,
                (places.get(cluster, NO_PLACE) for cluster in clusters),
                strict=True,
            )
        }
        return Sample(view.version, as_of(view), rows, stats)
