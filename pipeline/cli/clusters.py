"""``eddy clusters``: the clusters as they are now, asked of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.markup import escape

from pipeline.cli.asking import ServerOption, TokenOption, as_json, open_client
from pipeline.cli.context import invocation
from pipeline.cli.options import flag
from pipeline.cli.output import count, out, print_json, printable, table

if TYPE_CHECKING:
    from pipeline.client.results import Cluster, ClusterDetail, Member

app = typer.Typer(add_completion=False)

_SHOWN: Final = 20
_MEMBERS: Final = 10
JsonLines = Annotated[bool, flag("--json", help="One line of JSON each.")]


@app.callback()
def clusters() -> None:
    """List the clusters as they are now, or show one with its items."""


@app.command("list")
def list_clusters(
    ctx: typer.Context,
    sort: Annotated[
        Literal["size", "growth", "drift", "born_at"],
        typer.Option("--sort", metavar="BY", help="size, growth, drift or born_at."),
    ] = "size",
    q: Annotated[
        str | None,
        typer.Option("--search", metavar="TEXT", help="In ids, labels and typical items."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many of them.")] = _SHOWN,
    server: ServerOption = None,
    token_file: TokenOption = None,
    json_lines: JsonLines = False,
) -> None:
    """List the clusters, the largest first.

    growth is what an hour brought less what it took; shift is how far the centroid has gone since
    it was fitted, in units of the spread.
    """
    with open_client(invocation(ctx), server, token_file) as client:
        found = list(client.clusters(sort=sort, q=q, limit=limit))
        n_clusters = None if q is not None else client.stats().clusters
    if json_lines:
        for one in found:
            print_json(as_json(one))
        return
    if not found:
        out.print("no clusters" if q is None else f"nothing is like {escape(printable(q))}")
        return
    shown = table(
        "cluster", "label", "items", "share", "growth", "shift", "typical",
        right=("items", "share", "growth", "shift"),
    )  # fmt: skip
    for one in found:
        shown.add_row(*_cells(one))
    out.print(shown)
    if n_clusters is not None and n_clusters > len(found):
        out.print(f"[dim]and {count(n_clusters - len(found))} more: --limit shows them[/]")


@app.command("show")
def show_cluster(
    ctx: typer.Context,
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="Its id, as c12.")],
    n_members: Annotated[
        int, typer.Option("--items", min=0, help="So many of its typical items.")
    ] = _MEMBERS,
    server: ServerOption = None,
    token_file: TokenOption = None,
    json_line: Annotated[bool, flag("--json", help="One line of JSON.")] = False,
) -> None:
    """Show a cluster and its most typical items."""
    with open_client(invocation(ctx), server, token_file) as client:
        found = client.cluster(cluster)
        members = list(client.members(cluster, limit=n_members))
        near = client.near_clusters(cluster, limit=3)
    if json_line:
        print_json(
            as_json(found)
            | {"members": [as_json(one) for one in members], "near": [as_json(one) for one in near]}
        )
        return
    _print(found, members, [one.cluster for one in near])


def _cells(one: Cluster) -> list[str]:
    return [
        one.cluster, escape(printable(one.label or "")), count(one.size), f"{one.share:.1%}",
        f"{one.growth:+}" if one.growth else "0", "" if one.shift is None else f"{one.shift:.2f}",
        escape(printable(one.exemplar or "")),
    ]  # fmt: skip


def _print(found: ClusterDetail, members: list[Member], near: list[str]) -> None:
    label = f" [bold]{escape(printable(found.label))}[/]" if found.label else ""
    out.print(f"[bold]{found.cluster}[/]{label}", soft_wrap=True)
    out.print(
        f"  items   {count(found.size)}, {found.share:.1%} of all; "
        f"{count(found.size_at_fit)} at the fit; {found.growth:+} within the last hour"
    )
    if found.spread is not None:
        moved = "" if found.shift is None else f"; centroid moved by {found.shift:.2f} of it"
        out.print(f"  spread  {found.spread:.4g}{moved}")
    if found.born_at is not None:
        of = f" of {', '.join(found.parents)}" if found.parents else ""
        out.print(f"  born    {found.born_at.astimezone():%Y-%m-%d %H:%M}{of}")
    if near:
        out.print(f"  near    {', '.join(near)}")
    for signal in found.signals:
        if signal.state == "raised":
            out.print(f"  [yellow]drift   {signal.signal}: {signal.statistic:.3g}[/]")
    if not members:
        return
    shown = table("item", "distance", right=("distance",))
    for member in members:
        shown.add_row(escape(printable(member.item)), f"{member.distance:.4g}")
    out.print()
    out.print(shown)
