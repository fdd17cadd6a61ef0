"""``eddy recluster``, ``split``, ``merge`` and ``label``: what people ask of the reclusterer.

What needs no round trip to be refused is refused here: the reclusterer is asked for what it may
be able to do.
"""

from __future__ import annotations

from typing import Annotated, Final

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
from pipeline.cli.context import Invocation, invocation
from pipeline.cli.options import flag
from pipeline.cli.reading import known_cluster, read_lifecycle, read_models
from pipeline.errors import UsageError
from pipeline.messages.commands import CommandType
from pipeline.streams.contract import Broker

app = typer.Typer(add_completion=False)
split = typer.Typer(add_completion=False)
merge = typer.Typer(add_completion=False)
label = typer.Typer(add_completion=False)

MAX_LABEL_LENGTH: Final = 200

ClusterArgument = Annotated[str, typer.Argument(metavar="CLUSTER", help="Its id, as c12.")]


@app.command()
def recluster(
    ctx: typer.Context,
    force: Annotated[bool, flag("--force", help="Publish even without a gain.")] = False,
    cold: Annotated[
        bool, flag("--cold", help="Start from nothing instead of the present centroids.")
    ] = False,
    reason: ReasonOption = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = WAIT_S,
    as_json: JsonOption = False,
) -> int:
    """Ask for a new model.

    The reclusterer fits one, and publishes it if it is better than the present one by
    recluster.min_gain. With --wait the exit code is 1 if it was not, or if no answer came.
    """
    asked = invocation(ctx)
    command = new_command(CommandType.RECLUSTER, reason, cold=cold, force=force)
    broker = asked.broker()
    return ask(broker, asked.config, command, wait=wait, timeout_s=timeout, as_json=as_json)


@split.command("split")
def split_verb(
    ctx: typer.Context,
    cluster: ClusterArgument,
    reason: ReasonOption = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = WAIT_S,
    as_json: JsonOption = False,
) -> int:
    """Ask for a cluster to be split in two.

    The larger half keeps the id, the other gets a new one. A new epoch; the number of clusters
    grows by one. With --wait the exit code is 1 if it was rejected, or if no answer came.
    """
    asked = invocation(ctx)
    broker = asked.broker()
    (known,) = _known(asked, broker, [cluster])
    command = new_command(CommandType.SPLIT, reason, cluster=known)
    return ask(broker, asked.config, command, wait=wait, timeout_s=timeout, as_json=as_json)


@merge.command("merge")
def merge_verb(
    ctx: typer.Context,
    clusters: Annotated[
        list[str], typer.Argument(metavar="CLUSTER", help="Two or more ids, as c3 c9.")
    ],
    reason: ReasonOption = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = WAIT_S,
    as_json: JsonOption = False,
) -> int:
    """Ask for clusters to become one.

    The one that brings the most members keeps its id, the others retire. A new epoch. With --wait
    the exit code is 1 if it was rejected, or if no answer came.
    """
    if len(clusters) < 2:
        raise UsageError(f"a merge needs two clusters at least, not {clusters[0]} alone")
    twice = [cluster for cluster in clusters if clusters.count(cluster) > 1]
    if twice:
        raise UsageError(f"{twice[0]} stands there twice: a merge needs different clusters")
    asked = invocation(ctx)
    broker = asked.broker()
    known = tuple(_known(asked, broker, clusters))
    command = new_command(CommandType.MERGE, reason, clusters=known)
    return ask(broker, asked.config, command, wait=wait, timeout_s=timeout, as_json=as_json)


@label.command("label")
def label_verb(
    ctx: typer.Context,
    cluster: ClusterArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What people call it.")],
    reason: ReasonOption = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = WAIT_S,
    as_json: JsonOption = False,
) -> int:
    """Ask for a cluster to be called something.

    The label stays with the id, and goes to the largest heir when the cluster retires. No new
    epoch. With --wait the exit code is 1 if it was rejected, or if no answer came.
    """
    name = text.strip()
    if not name:
        raise UsageError("a label has at least one character")
    if len(name) > MAX_LABEL_LENGTH:
        raise UsageError(f"a label has at most {MAX_LABEL_LENGTH} characters, not {len(name)}")
    if not name.isprintable():
        raise UsageError("a label is one line of printable characters")
    asked = invocation(ctx)
    broker = asked.broker()
    (known,) = _known(asked, broker, [cluster])
    command = new_command(CommandType.LABEL, reason, cluster=known, label=name)
    return ask(broker, asked.config, command, wait=wait, timeout_s=timeout, as_json=as_json)


def _known(asked: Invocation, broker: Broker, names: list[str]) -> list[str]:
    """The clusters of the newest model that are meant."""
    fold, newest = read_models(broker, asked.config)
    is_known = set(names) <= set(newest.manifest.clusters)
    past = [] if is_known else read_lifecycle(broker, asked.config)
    return [known_cluster(name, newest, fold.labels, past) for name in names]
