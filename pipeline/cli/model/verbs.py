"""``eddy model``: the newest model, the kept ones, what differs between two, and the way back."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.commands import (
    WAIT_S,
    JsonOption,
    ReasonOption,
    TimeoutOption,
    WaitOption,
    ask,
    new_command,
)
from pipeline.cli.context import invocation
from pipeline.cli.model.diff import differences, print_diff
from pipeline.cli.model.history import chapters, print_history
from pipeline.cli.model.migrate import print_migration, read_migration
from pipeline.cli.model.quality import measure
from pipeline.cli.model.show import (
    cluster_detail,
    model_as_json,
    model_rows,
    print_cluster,
    print_model,
)
from pipeline.cli.model.standing import read_standing
from pipeline.cli.options import flag
from pipeline.cli.output import print_json
from pipeline.cli.reading import known_cluster, read_commands, read_lifecycle, read_models
from pipeline.errors import FatalError, UsageError
from pipeline.messages.commands import CommandType
from pipeline.messages.model import Model, ModelFold

app = typer.Typer(add_completion=False)

EpochArgument = Annotated[int, typer.Argument(metavar="EPOCH", min=1, help="A kept epoch, as 7.")]
LineOption = Annotated[bool, flag("--json", help="One line of JSON.")]


@app.callback()
def model() -> None:
    """Show the model and its history, compare two, or go back to one."""


@app.command()
def show(
    ctx: typer.Context,
    cluster: Annotated[
        str | None, typer.Argument(metavar="[CLUSTER]", help="One cluster in detail, as c12.")
    ] = None,
    everything: Annotated[bool, flag("--all", help="All clusters, not just the largest.")] = False,
    as_json: LineOption = False,
) -> None:
    """Show the newest model, or one cluster of it.

    Members are those of now; fitted is the cluster's size in the sample that it was fitted on;
    spread is the root mean squared distance there.
    """
    config, broker = invocation(ctx).config, invocation(ctx).broker()
    fold, newest = read_models(broker, config)
    manifest = newest.manifest
    if cluster is not None:
        past = read_lifecycle(broker, config)
        known_cluster(cluster, newest, fold.labels, past)
    standing = read_standing(broker, config, manifest)
    rows = model_rows(newest, standing.members, fold.labels)
    if cluster is None:
        quality = measure(newest, standing)
        if as_json:
            print_json(model_as_json(manifest, standing, quality, rows))
        else:
            print_model(manifest, standing, quality, rows, everything=everything)
        return
    row = next(row for row in rows if row.cluster == cluster)
    detail = cluster_detail(newest, cluster, past)
    if as_json:
        print_json(row.as_json() | detail.as_json())
    else:
        print_cluster(manifest, row, detail)


@app.command()
def history(
    ctx: typer.Context,
    as_json: Annotated[bool, flag("--json", help="One line of JSON an epoch.")] = False,
) -> None:
    """Show every kept epoch, and what became of clusters in it.

    Inertia is that of the sample an epoch was fitted on, per item: under the model before it,
    then under its own. Moved is the share of that sample's items that changed their cluster.
    """
    config, broker = invocation(ctx).config, invocation(ctx).broker()
    fold, _ = read_models(broker, config)
    told = chapters(fold.epochs, read_lifecycle(broker, config), read_commands(broker, config))
    if as_json:
        for chapter in told:
            print_json(chapter.as_json())
    else:
        print_history(told)


@app.command()
def diff(
    ctx: typer.Context,
    first: Annotated[int, typer.Argument(metavar="EPOCH", min=1, help="A kept epoch, as 6.")],
    second: Annotated[int, typer.Argument(metavar="EPOCH", min=1, help="Another, as 7.")],
    everything: Annotated[bool, flag("--all", help="Also the clusters that stayed.")] = False,
    as_json: Annotated[bool, flag("--json", help="One line of JSON a cluster.")] = False,
) -> None:
    """Show what became of the clusters between two kept epochs.

    The last revision of the older one is held against that of the newer one. Shift is how far a
    centroid is from where it was, in units of the cluster's spread at the older fit.
    """
    if first == second:
        raise UsageError(f"epoch {first} differs from itself in nothing: name two epochs")
    config, broker = invocation(ctx).config, invocation(ctx).broker()
    fold, _ = read_models(broker, config)
    old, new = (_kept(fold, epoch) for epoch in sorted((first, second)))
    found = differences(old, new, read_lifecycle(broker, config))
    if as_json:
        for each in found:
            print_json(each.as_json())
    else:
        print_diff(old, new, found, everything=everything)


@app.command()
def migrate(
    ctx: typer.Context,
    status: Annotated[
        bool, flag("--status", help="How far it is, and whether it is over.")
    ] = False,
    as_json: LineOption = False,
) -> None:
    """Show how far the items are on the way to the next embedding model.

    Another model is announced by embedding.next.model; it takes over by itself, once so large a
    share of the items has a vector of both as embedding.next.share says.
    """
    if not status:
        raise UsageError(
            "a migration begins with embedding.next.model in the configuration, and ends by "
            "itself: --status shows how far it is"
        )
    config, broker = invocation(ctx).config, invocation(ctx).broker()
    _, newest = read_models(broker, config)
    found = read_migration(broker, config, newest.manifest)
    if as_json:
        print_json(found.as_json())
    else:
        print_migration(found)


@app.command()
def rollback(
    ctx: typer.Context,
    epoch: EpochArgument,
    reason: ReasonOption = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = WAIT_S,
    as_json: JsonOption = False,
) -> int:
    """Ask to go back to a kept epoch.

    Its centroids and ids are published as a new epoch: numbers only grow. With --wait the exit
    code is 1 if it was rejected, or if no answer came.
    """
    config, broker = invocation(ctx).config, invocation(ctx).broker()
    fold, newest = read_models(broker, config)
    kept = _kept(fold, epoch).manifest
    if epoch == newest.manifest.epoch:
        raise UsageError(f"epoch {epoch} is the newest: there is nothing to go back from")
    if not kept.shares_embedding_with(newest.manifest):
        raise UsageError(
            f"epoch {epoch} is of the embedding model {kept.embedding_model}, the newest of "
            f"{newest.manifest.embedding_model}: their vectors cannot be compared"
        )
    command = new_command(CommandType.ROLLBACK, reason, epoch=epoch)
    return ask(broker, config, command, wait=wait, timeout_s=timeout, as_json=as_json)


def _kept(fold: ModelFold, epoch: int) -> Model:
    """The last revision of an epoch; `UsageError` that lists the kept ones if it is not kept."""
    found = fold.model_of(epoch)
    if found is not None:
        return found
    if epoch in fold.epochs:
        # a revision was being written: the next reading finds it whole
        raise FatalError(f"epoch {epoch} was read in the middle of a revision: try again")
    kept = ", ".join(str(known) for known in sorted(fold.epochs))
    raise UsageError(
        f"epoch {epoch} is not kept: there are {kept}; recluster.keep_epochs decides how many"
    )
