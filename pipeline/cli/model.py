"""``eddy model show``: the clusters of the newest model, and how large they are now."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from pipeline.cli.context import invocation
from pipeline.cli.options import flag
from pipeline.cli.output import count, out, print_json, printable, table
from pipeline.config import Config
from pipeline.errors import FatalError, RecordError, TopicError, TransientError, UsageError
from pipeline.messages.codec import decode_head, decode_lifecycle, decode_statistics
from pipeline.messages.events import Lifecycle, LifecycleType
from pipeline.messages.model import Manifest, Model, ModelFold
from pipeline.messages.records import Record
from pipeline.streams.contract import Broker

app = typer.Typer(add_completion=False)

_READ_LIMIT_S: Final = 60.0
_ROWS_SHOWN: Final = 30
_BAR_CELLS: Final = 16
_N_NEIGHBOURS: Final = 5


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What the assigners have published: members by cluster, and how far their sweeps are."""

    members: Mapping[str, int]
    n_partitions: int
    n_swept: int
    """Partitions whose members have all been assigned by the newest model."""


@dataclass(frozen=True, slots=True)
class _Row:
    cluster: str
    members: int | None
    fitted: int
    spread: float
    label: str | None


@app.callback()
def model() -> None:
    """Show the model, or one cluster of it."""


@app.command()
def show(
    ctx: typer.Context,
    cluster: Annotated[
        str | None, typer.Argument(metavar="[CLUSTER]", help="One cluster in detail, as c12.")
    ] = None,
    everything: Annotated[bool, flag("--all", help="All clusters, not just the largest.")] = False,
    as_json: Annotated[bool, flag("--json", help="One line of JSON.")] = False,
) -> None:
    """Show the newest model, or one cluster of it.

    Members are those of now; fitted is the cluster's size in the sample that it was fitted on;
    spread is the root mean squared distance there.
    """
    config, broker = invocation(ctx).config, invocation(ctx).broker()
    topics = config.topics
    if topics.model not in broker.topics([topics.model]):
        raise TopicError(f"{topics.model} does not exist: run eddy topics create")
    fold = _fold(broker, config)
    newest = fold.newest
    if newest is None:
        raise FatalError(
            f"there is no model yet: eddy reclusterer makes the first one at "
            f"{config.recluster.bootstrap_items} items, or "
            f"{config.recluster.bootstrap_max_wait_s:g} s after the first record"
        )
    manifest = newest.manifest
    sizes = _sizes(broker, config, manifest)
    rows = _rows(newest, sizes, fold.labels)
    if cluster is None:
        if as_json:
            print_json(_as_json(manifest, sizes, rows))
        else:
            _print_model(manifest, sizes, rows, everything=everything)
        return
    if cluster not in manifest.clusters:
        raise UsageError(
            f"{cluster} is no cluster of model {manifest.version}: eddy model show lists them, "
            "and cluster-lifecycle tells what became of older ones"
        )
    near = _neighbours(newest, cluster)
    past = [event for event in _lifecycle(broker, config) if event.cluster == cluster]
    row = next(row for row in rows if row.cluster == cluster)
    if as_json:
        print_json(_row_as_json(row) | {"neighbours": near, "events": [e.id for e in past]})
    else:
        _print_cluster(manifest, row, near, past)


def _fold(broker: Broker, config: Config) -> ModelFold:
    fold = ModelFold()
    for records in _whole(broker, config.topics.model):
        fold.fold(records)
    return fold


def _sizes(broker: Broker, config: Config, manifest: Manifest) -> _Sizes:
    """The newest published count of every cluster in every partition, summed."""
    counts: dict[bytes, tuple[str, int]] = {}
    swept: set[bytes] = set()
    topic = config.topics.statistics
    if topic not in broker.topics([topic]):
        return _Sizes({}, 0, 0)
    for records in _whole(broker, topic):
        for record in records:
            key, value = record.key or b"", record.value
            _, slash, name = key.partition(b"/")
            if slash:
                if value is None:
                    counts.pop(key, None)
                else:
                    counts[key] = (name.decode(), decode_statistics(value).count)
            elif value is not None:
                head = decode_head(value)
                is_swept = (head.epoch, head.revision) == (manifest.epoch, manifest.revision)
                (swept.add if is_swept else swept.discard)(key)
    members: dict[str, int] = {}
    for cluster, number in counts.values():
        members[cluster] = members.get(cluster, 0) + number
    return _Sizes(members, config.topics.partitions, len(swept))


def _rows(model: Model, sizes: _Sizes, labels: Mapping[str, str]) -> list[_Row]:
    """The clusters, the largest first."""
    rows = [
        _Row(
            cluster=cluster,
            members=sizes.members.get(cluster, 0) if sizes.members else None,
            fitted=int(model.counts[i]),
            spread=math.sqrt(float(model.mean_squared_distances[i])),
            label=labels.get(cluster),
        )
        for i, cluster in enumerate(model.manifest.clusters)
    ]
    return sorted(rows, key=lambda row: -(row.fitted if row.members is None else row.members))


def _neighbours(model: Model, cluster: str) -> list[str]:
    """The clusters whose centroids are nearest, the nearest first."""
    clusters = model.manifest.clusters
    at = clusters.index(cluster)
    gaps: NDArray[np.float64] = model.centroids.astype(np.float64) - model.centroids[at]
    order = np.argsort((gaps * gaps).sum(axis=1), kind="stable")
    return [clusters[i] for i in order.tolist() if i != at][:_N_NEIGHBOURS]


def _lifecycle(broker: Broker, config: Config) -> Iterator[Lifecycle]:
    if config.topics.lifecycle not in broker.topics([config.topics.lifecycle]):
        return
    for records in _whole(broker, config.topics.lifecycle):
        for record in records:
            if record.value is not None:
                try:
                    yield decode_lifecycle(record.value)
                except RecordError:
                    continue  # nothing of ours


def _whole(broker: Broker, topic: str) -> Iterator[list[Record]]:
    """Everything that stands in the topic now; `TransientError` if that takes too long."""
    reader = broker.reader(topic)
    deadline = time.monotonic() + _READ_LIMIT_S
    try:
        while not reader.at_end:
            if time.monotonic() > deadline:
                raise TransientError(f"{topic} could not be read within {_READ_LIMIT_S:g} s")
            yield list(reader.read(10_000, timeout_s=0.2))
    finally:
        reader.close()


def _print_model(manifest: Manifest, sizes: _Sizes, rows: list[_Row], *, everything: bool) -> None:
    out.print(f"model [bold]{manifest.version}[/]  {_age(manifest.created_at_ms)}")
    kind = f"{len(rows)} clusters, {manifest.metric}, {manifest.dimensions} dimensions"
    if manifest.embedding_model:
        kind += f", {escape(printable(manifest.embedding_model))}"
    out.print(f"  {kind}")
    per_item = manifest.fitted_inertia / max(manifest.fitted_items, 1)
    fitted = f"fitted on {count(manifest.fitted_items)} items, inertia per item {per_item:.4g}"
    if sizes.members:
        fitted += f"; {count(sum(sizes.members.values()))} members now"
    out.print(f"  {fitted}")
    if sizes.n_swept < sizes.n_partitions:
        done = f"{sizes.n_swept} of {sizes.n_partitions} partitions"
        out.print(f"  [yellow]{done} have been assigned by it so far[/]")
    out.print()
    shown = rows if everything else rows[:_ROWS_SHOWN]
    out.print(_table(shown, largest=max((_size(row) for row in rows), default=0)))
    if len(shown) < len(rows):
        out.print(f"[dim]and {len(rows) - len(shown)} smaller ones; --all shows them[/]")


def _table(rows: list[_Row], *, largest: int) -> Table:
    has_labels = any(row.label for row in rows)
    shown = table(
        "cluster", "members", "", "fitted", "spread", *(["label"] if has_labels else []),
        right=["members", "fitted", "spread"],
    )  # fmt: skip
    for row in rows:
        cells = 0 if not largest else round(_BAR_CELLS * _size(row) / largest)
        shown.add_row(
            f"[bold]{escape(row.cluster)}[/]",
            "" if row.members is None else count(row.members),
            f"[cyan]{chr(0x2588) * cells}[/]",
            count(row.fitted),
            f"{row.spread:.4g}",
            *([escape(printable(row.label or ""))] if has_labels else []),
        )
    return shown


def _print_cluster(manifest: Manifest, row: _Row, near: list[str], past: list[Lifecycle]) -> None:
    label = f"  {escape(printable(row.label))}" if row.label else ""
    out.print(f"cluster [bold]{escape(row.cluster)}[/] of model {manifest.version}{label}")
    members = "not published yet" if row.members is None else count(row.members)
    out.print(f"  members   {members}")
    out.print(f"  fitted    {count(row.fitted)}, spread {row.spread:.4g}")
    out.print(f"  nearest   {', '.join(near) or 'none'}")
    for event in past:
        others = [*event.parents, *event.children]
        beside = f" ({', '.join(others)})" if others else ""
        if event.type == LifecycleType.LABELLED and event.label:
            beside = f" {escape(printable(event.label))}"
        when = f"epoch {event.epoch}, {_age(event.occurred_at_ms)}"
        out.print(f"  {event.type:<9} {when}{beside}", soft_wrap=True)


def _as_json(manifest: Manifest, sizes: _Sizes, rows: list[_Row]) -> dict[str, Any]:
    return {
        "epoch": manifest.epoch,
        "revision": manifest.revision,
        "metric": manifest.metric,
        "dimensions": manifest.dimensions,
        "embedding_model": manifest.embedding_model,
        "fitted_on": {"items": manifest.fitted_items, "inertia": manifest.fitted_inertia},
        "created_at_ms": manifest.created_at_ms,
        "partitions": {"all": sizes.n_partitions, "swept": sizes.n_swept},
        "clusters": [_row_as_json(row) for row in rows],
    }


def _row_as_json(row: _Row) -> dict[str, Any]:
    return {
        "cluster": row.cluster,
        "members": row.members,
        "fitted": row.fitted,
        "spread": row.spread,
        "label": row.label,
    }


def _size(row: _Row) -> int:
    return row.fitted if row.members is None else row.members


def _age(ms: int | None) -> str:
    """When, and how long ago."""
    if ms is None:
        return "at an unknown time"
    when = datetime.datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    seconds = max(0.0, time.time() - ms / 1000)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{when}, {seconds / size:.0f} {unit} ago"
    return f"{when}, {seconds:.0f} s ago"
