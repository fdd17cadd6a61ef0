"""``eddy model diff``: two kept epochs side by side, cluster by cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from pipeline.cli.output import count, out, some, table
from pipeline.messages.events import Lifecycle, LifecycleType
from pipeline.messages.model import Model

STAYED: Final = 0.1
"""In units of the spread: a centroid that went less far than this has stayed."""

_ORDER: Final = ("born", "split", "merged", "retired", "moved", "stayed")
_ROWS_SHOWN: Final = 40
_BLOCK: Final = 256


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of one cluster from the older model to the newer one."""

    cluster: str
    kind: str
    """One of `_ORDER`; split and merged before moved and stayed."""
    size_before: int | None
    """Members at the fit; None: it was not there."""
    size_after: int | None
    shift: float | None
    """How far the centroid is from where it was, in units of the older spread; of a cluster that
    only one of the models has: of the nearest one of the other. None: there is no spread."""
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    nearest: str | None = None
    """Of a cluster that only one of the models has: the one of the other that is nearest."""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "cluster": self.cluster,
            "type": self.kind,
            "size_before": self.size_before,
            "size_after": self.size_after,
            "shift": self.shift,
            "parents": list(self.parents),
            "children": list(self.children),
            "nearest": self.nearest,
        }


def differences(old: Model, new: Model, past: Iterable[Lifecycle]) -> list[Difference]:
    """Cluster by cluster, what is new and gone first.

    Parameters
    ----------
    past
        Lineage; of the epochs after the old one up to the new one it says who split and merged.
        What retention has taken of it is missing here, and the nearest cluster still tells.
    """
    lineage = _Lineage(
        e for e in past if old.manifest.epoch < e.epoch <= new.manifest.epoch and e.cluster
    )
    is_comparable = (
        old.manifest.dimensions == new.manifest.dimensions
        and old.manifest.metric == new.manifest.metric
        and old.manifest.embedding_model == new.manifest.embedding_model
    )
    before = {cluster: i for i, cluster in enumerate(old.manifest.clusters)}
    after = {cluster: i for i, cluster in enumerate(new.manifest.clusters)}
    found = [
        _kept(cluster, old, new, before[cluster], after[cluster], lineage, is_comparable)
        for cluster in after.keys() & before.keys()
    ]
    for lone, index, own, other, kind in (
        (after.keys() - before.keys(), after, new, old, "born"),
        (before.keys() - after.keys(), before, old, new, "retired"),
    ):
        names = sorted(lone, key=index.__getitem__)
        near = _nearest(own, [index[name] for name in names], other) if is_comparable else {}
        for name in names:
            at, shift = near.get(index[name], (None, None))
            size = int(own.counts[index[name]])
            found.append(
                Difference(
                    name,
                    kind,
                    size_before=None if kind == "born" else size,
                    size_after=size if kind == "born" else None,
                    shift=shift,
                    parents=lineage.parents(name) if kind == "born" else (),
                    children=lineage.children(name) if kind == "retired" else (),
                    nearest=None if at is None else other.manifest.clusters[at],
                )
            )
    return sorted(found, key=lambda d: (_ORDER.index(d.kind), -(d.shift or 0.0), _number(d)))


def print_diff(old: Model, new: Model, found: Sequence[Difference], *, everything: bool) -> None:
    """How many of each kind, and those that changed; with ``everything`` the others too."""
    kinds = Counter(d.kind for d in found)
    out.print(
        f"from model [bold]{old.version}[/] to [bold]{new.version}[/]: "
        f"{count(len(old.manifest.clusters))} clusters, then {count(len(new.manifest.clusters))}"
    )
    words = [f"{count(kinds[kind])} {kind}" for kind in reversed(_ORDER) if kinds[kind]]
    out.print(f"  {', '.join(words)} [dim](stayed: within {STAYED:g} of its spread)[/]")
    rows = [d for d in found if everything or d.kind != "stayed"]
    shown = rows if everything else rows[:_ROWS_SHOWN]
    if shown:
        out.print()
        made = table(
            "cluster", "what", "before", "after", "shift", "",
            right=["before", "after", "shift"], flowing=[""],
        )  # fmt: skip
        for d in shown:
            made.add_row(
                f"[bold]{escape(d.cluster)}[/]",
                d.kind,
                "" if d.size_before is None else count(d.size_before),
                "" if d.size_after is None else count(d.size_after),
                "" if d.shift is None or d.kind in ("born", "retired") else f"{d.shift:.2f}",
                escape(_beside(d)),
            )
        out.print(made)
    if len(shown) < len(rows):
        out.print(f"[dim]and {count(len(rows) - len(shown))} more; --all shows them[/]")


class _Lineage:
    """Who came from whom, by the events of the epochs between."""

    def __init__(self, past: Iterable[Lifecycle]) -> None:
        self._parents: dict[str, dict[str, None]] = {}
        self._children: dict[str, dict[str, None]] = {}
        self.split: dict[str, tuple[str, ...]] = {}
        self.merged: dict[str, tuple[str, ...]] = {}
        for event in past:
            assert event.cluster is not None
            self._parents.setdefault(event.cluster, {}).update(dict.fromkeys(event.parents))
            self._children.setdefault(event.cluster, {}).update(dict.fromkeys(event.children))
            if event.type is LifecycleType.SPLIT:
                self.split[event.cluster] = event.children
            elif event.type is LifecycleType.MERGED:
                self.merged[event.cluster] = event.parents

    def parents(self, cluster: str) -> tuple[str, ...]:
        return tuple(self._parents.get(cluster, ()))

    def children(self, cluster: str) -> tuple[str, ...]:
        return tuple(self._children.get(cluster, ()))


def _kept(
    cluster: str,
    old: Model,
    new: Model,
    before: int,
    after: int,
    lineage: _Lineage,
    is_comparable: bool,
) -> Difference:
    shift = _shift(old, before, new.centroids[after]) if is_comparable else None
    if shift is not None:
        has_moved = shift >= STAYED
    else:  # without a spread there is no unit; between two embedding models only ids compare
        has_moved = is_comparable and bool((old.centroids[before] != new.centroids[after]).any())
    kind = "moved" if has_moved else "stayed"
    if cluster in lineage.split:
        kind = "split"
    elif cluster in lineage.merged:
        kind = "merged"
    return Difference(
        cluster,
        kind,
        size_before=int(old.counts[before]),
        size_after=int(new.counts[after]),
        shift=shift,
        parents=lineage.merged.get(cluster, ()),
        children=lineage.split.get(cluster, ()),
    )


def _shift(model: Model, at: int, point: NDArray[np.float32]) -> float | None:
    """How far a point is from a centroid, in units of the cluster's spread."""
    spread = float(np.sqrt(model.mean_squared_distances[at]))
    gap = float(np.linalg.norm(model.centroids[at].astype(np.float64) - point))
    return gap / spread if spread > 0.0 else None


def _nearest(own: Model, rows: Sequence[int], other: Model) -> dict[int, tuple[int, float | None]]:
    """Row of a centroid -> the nearest one of the other model, and how far in that one's units."""
    targets = other.centroids.astype(np.float64)
    norms = (targets * targets).sum(axis=1)
    found: dict[int, tuple[int, float | None]] = {}
    for start in range(0, len(rows), _BLOCK):
        block = list(rows[start : start + _BLOCK])
        points = own.centroids[block].astype(np.float64)
        best = np.argmin(norms - 2.0 * (points @ targets.T), axis=1)
        for row, at in zip(block, best.tolist(), strict=True):
            found[row] = (at, _shift(other, at, own.centroids[row]))
    return found


def _beside(d: Difference) -> str:
    if d.kind in ("born", "merged") and d.parents:
        return f"out of {some(d.parents)}"
    if d.kind == "split" and d.children:
        return f"into {some(d.children)}"
    if d.kind == "retired" and d.children:
        return f"its members went to {some(d.children)}"
    if d.nearest is not None:
        away = "" if d.shift is None else f", {d.shift:.2f} spreads away"
        return f"nearest {d.nearest}{away}"
    return ""


def _number(d: Difference) -> tuple[int, str]:
    digits = d.cluster.removeprefix("c")
    return (int(digits) if digits.isdecimal() else 0), d.cluster
