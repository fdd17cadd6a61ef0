"""``eddy model show``: the newest model, or one cluster of it, for people and for machines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from pipeline.cli.lines import lifecycle_words
from pipeline.cli.model.quality import quality_as_json, quality_lines
from pipeline.cli.model.standing import Standing
from pipeline.cli.output import age, count, out, printable, table
from pipeline.clustering.profile import LEVELS
from pipeline.clustering.quality import Quality
from pipeline.messages.events import Lifecycle
from pipeline.messages.model import Manifest, Model

_ROWS_SHOWN: Final = 30
_BAR_CELLS: Final = 16
_N_NEIGHBOURS: Final = 5
_SAID: Final = {0.5: "half of its members", 0.9: "nine in ten", 1.0: "all"}
"""The levels that people are told; machines get all of them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One cluster, as the table has it."""

    cluster: str
    members: int | None
    """None: nothing was published yet."""
    fitted: int
    spread: float
    label: str | None

    @property
    def size(self) -> int:
        """Members of now, or of the fit while those are not known."""
        return self.fitted if self.members is None else self.members

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "cluster": self.cluster,
            "members": self.members,
            "fitted": self.fitted,
            "spread": self.spread,
            "label": self.label,
        }


@dataclass(frozen=True, slots=True)
class Detail:
    """What one cluster's page has beside its row."""

    shift: float | None
    """How far the centroid is from where it was fitted, in units of the spread; None: no spread."""
    distances: tuple[float, ...] | None
    """Within which the shares `LEVELS` of its members lay at the fit; None: not known."""
    neighbours: tuple[str, ...]
    """The clusters whose centroids are nearest, the nearest first."""
    past: tuple[Lifecycle, ...]
    """The events that name it, the oldest first."""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "shift": self.shift,
            "quantiles": None
            if self.distances is None
            else {"levels": list(LEVELS), "distances": list(self.distances)},
            "neighbours": list(self.neighbours),
            "events": [event.id for event in self.past],
            "lineage": [event._asdict() for event in self.past],
        }


def model_rows(model: Model, members: Mapping[str, int], labels: Mapping[str, str]) -> list[Row]:
    """The clusters, the largest first; ``members`` is empty before anything was published."""
    rows = [
        Row(
            cluster=cluster,
            members=members.get(cluster, 0) if members else None,
            fitted=int(model.counts[i]),
            spread=math.sqrt(float(model.mean_squared_distances[i])),
            label=labels.get(cluster),
        )
        for i, cluster in enumerate(model.manifest.clusters)
    ]
    return sorted(rows, key=lambda row: -row.size)


def cluster_detail(model: Model, cluster: str, past: Sequence[Lifecycle]) -> Detail:
    """Everything about one cluster of the model."""
    clusters = model.manifest.clusters
    at = clusters.index(cluster)
    spread = math.sqrt(float(model.mean_squared_distances[at]))
    moved = float(np.linalg.norm(model.centroids[at].astype(np.float64) - model.fitted[at]))
    gaps: NDArray[np.float64] = model.centroids.astype(np.float64) - model.centroids[at]
    order = np.argsort((gaps * gaps).sum(axis=1), kind="stable")
    return Detail(
        shift=moved / spread if spread > 0.0 else None,
        distances=_shown_distances(model, at),
        neighbours=tuple([clusters[i] for i in order.tolist() if i != at][:_N_NEIGHBOURS]),
        past=tuple(e for e in past if cluster in (e.cluster, *e.parents, *e.children)),
    )


def _shown_distances(model: Model, at: int) -> tuple[float, ...] | None:
    """The quantiles in the measure of the change events: half the square under cosine."""
    if not model.is_profiled[at]:
        return None
    kept = model.quantiles[at].astype(np.float64)
    if model.manifest.metric == "cosine":
        kept = kept * kept / 2
    return tuple(kept.tolist())


def model_as_json(
    manifest: Manifest, standing: Standing, quality: Quality, rows: Sequence[Row]
) -> dict[str, Any]:
    """The model for machines."""
    return {
        "epoch": manifest.epoch,
        "revision": manifest.revision,
        "metric": manifest.metric,
        "dimensions": manifest.dimensions,
        "embedding_model": manifest.embedding_model,
        "fitted_on": {"items": manifest.fitted_items, "inertia": manifest.fitted_inertia},
        "created_at_ms": manifest.created_at_ms,
        "partitions": {"all": standing.n_partitions, "swept": len(standing.swept)},
        "quality": quality_as_json(quality),
        "clusters": [row.as_json() for row in rows],
    }


def print_model(
    manifest: Manifest,
    standing: Standing,
    quality: Quality,
    rows: Sequence[Row],
    *,
    everything: bool,
) -> None:
    """The model's own lines, then a table of clusters."""
    out.print(f"model [bold]{manifest.version}[/]  {age(manifest.created_at_ms)}")
    kind = f"{count(len(rows))} clusters, {manifest.metric}, {manifest.dimensions} dimensions"
    if manifest.embedding_model:
        kind += f", {escape(printable(manifest.embedding_model))}"
    out.print(f"  {kind}", soft_wrap=True)
    fitted = f"fitted on {count(manifest.fitted_items)} items"
    if any(row.members is not None for row in rows):
        fitted += f"; {count(sum(row.size for row in rows))} members now"
    out.print(f"  {fitted}", soft_wrap=True)
    for name, words in quality_lines(quality):
        out.print(f"  {name:<11}{words}", soft_wrap=True)
    n_swept = len(standing.swept)
    if n_swept < standing.n_partitions:
        done = f"{n_swept} of {standing.n_partitions} partitions"
        out.print(f"  [yellow]{done} have been assigned by it so far[/]")
    out.print()
    shown = rows if everything else rows[:_ROWS_SHOWN]
    out.print(_table(shown, largest=max((row.size for row in rows), default=0)))
    if len(shown) < len(rows):
        out.print(f"[dim]and {count(len(rows) - len(shown))} smaller ones; --all shows them[/]")


def print_cluster(manifest: Manifest, row: Row, detail: Detail) -> None:
    """One cluster: size, distances, neighbours, and its past."""
    label = f"  {escape(printable(row.label))}" if row.label else ""
    out.print(f"cluster [bold]{escape(row.cluster)}[/] of model {manifest.version}{label}")
    members = "not published yet" if row.members is None else count(row.members)
    out.print(f"  members   {members}")
    out.print(f"  fitted    {count(row.fitted)}, spread {row.spread:.4g}")
    if detail.distances is not None:
        said = [
            f"{who} lay within {distance:.4g}"
            if who == _SAID[0.5]
            else f"{who} within {distance:.4g}"
            for level, distance in zip(LEVELS, detail.distances, strict=True)
            if (who := _SAID.get(level))
        ]
        out.print(f"  distances {', '.join(said)}", soft_wrap=True)
    if detail.shift is not None:
        where = "where it was fitted"
        if detail.shift > 0.0:
            where = f"{detail.shift:.3g} of its spread from {where}"
        out.print(f"  centroid  {where}")
    out.print(f"  nearest   {', '.join(detail.neighbours) or 'none'}")
    for event in detail.past:
        who = "" if event.cluster == row.cluster else f"{event.cluster or 'model'}: "
        words = lifecycle_words(event)
        beside = f", {escape(who + words)}" if who or words else ""
        when = f"epoch {event.epoch}, {age(event.occurred_at_ms)}"
        out.print(f"  {event.type:<9} {when}{beside}", soft_wrap=True)


def _table(rows: Sequence[Row], *, largest: int) -> Table:
    has_labels = any(row.label for row in rows)
    shown = table(
        "cluster", "members", "", "fitted", "spread", *(["label"] if has_labels else []),
        right=["members", "fitted", "spread"], flowing=["label"],
    )  # fmt: skip
    for row in rows:
        cells = 0 if not largest else round(_BAR_CELLS * row.size / largest)
        shown.add_row(
            f"[bold]{escape(row.cluster)}[/]",
            "" if row.members is None else count(row.members),
            f"[cyan]{chr(0x2588) * cells}[/]",
            count(row.fitted),
            f"{row.spread:.4g}",
            *([escape(printable(row.label or ""))] if has_labels else []),
        )
    return shown
