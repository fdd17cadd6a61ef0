"""The answer to a command: what happened, to which clusters, and how many items move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.markup import escape

from pipeline.cli.lines import gain
from pipeline.cli.output import count, out, print_json, printable, some
from pipeline.messages.commands import Command, CommandType
from pipeline.messages.events import Lifecycle, LifecycleType

_DONE: Final = 0
_REJECTED: Final = 1
_N_SHOWN: Final = 8
_LINEAGE: Final = (
    LifecycleType.BORN,
    LifecycleType.SPLIT,
    LifecycleType.MERGED,
    LifecycleType.RETIRED,
    LifecycleType.RESTORED,
)
_HEADS: Final = (LifecycleType.INSTALLED, LifecycleType.REJECTED, LifecycleType.LABELLED)
_NOT_DONE: Final = {
    CommandType.RECLUSTER: "not published",
    CommandType.ROLLBACK: "not rolled back",
    CommandType.SPLIT: "not split",
    CommandType.MERGE: "not merged",
    CommandType.LABEL: "not labelled",
}


def tell(command: Command, events: Sequence[Lifecycle], *, as_json: bool) -> int:
    """Print the events of a command; the exit code, 1 when it was rejected.

    As JSON they are one a line; for people the first line says what was asked for, the others
    what else became of clusters.
    """
    head = next((event for event in events if event.type in _HEADS), events[0])
    is_rejected = head.type == LifecycleType.REJECTED
    if as_json:
        for event in events:
            print_json(event._asdict())
    elif is_rejected:
        why = escape(printable(head.reason or "no reason given"))
        not_done = _NOT_DONE[CommandType(command.type)]
        stays = f"model {head.epoch}.{head.revision} stays"
        out.print(f"[yellow]{not_done}[/]: {why}; {stays}", soft_wrap=True)
    else:
        out.print(_sentence(command, head, events), soft_wrap=True)
        _list(command, events)
    return _REJECTED if is_rejected else _DONE


def _sentence(command: Command, head: Lifecycle, events: Sequence[Lifecycle]) -> str:
    model = f"model [bold]{head.epoch}.{head.revision}[/]"
    match command.type:
        case CommandType.LABEL:
            name = escape(printable(head.label or command.label or ""))
            return f"[bold]{head.cluster or command.cluster}[/] is called [bold]{name}[/] now"
        case CommandType.SPLIT:
            told = _split(command.cluster or "", events)
        case CommandType.MERGE:
            told = _merge(command.clusters, events)
        case CommandType.ROLLBACK:
            told = f"[green]went back[/] to epoch {command.epoch}"
        case _:
            words = [f"[green]published[/] {model}", gain(head), _moved(head, "moved")]
            return ", ".join(word for word in words if word)
    moved = _moved(head, "move")
    return f"{told}{f'; {moved}' if moved else ''} [dim]({model}{_beside(head)})[/]"


def _split(cluster: str, events: Sequence[Lifecycle]) -> str:
    """``c12 was split: c12 keeps 412 items, c59 gets 388``."""
    sizes = {event.cluster: event.size for event in events if event.type in _LINEAGE}
    children = _of(events, LifecycleType.SPLIT, cluster, "children")
    children = children or tuple(
        event.cluster for event in events if event.type == LifecycleType.BORN and event.cluster
    )
    parts = []
    for child in children:
        # the heir's event is the split itself, and may leave its size open
        n, verb = sizes.get(child), "keeps" if child == cluster else "gets"
        if n is not None:
            parts.append(f"{child} {verb} {count(n)} items")
        elif child != cluster:
            parts.append(f"{child} is new")
    said = f"[green]{cluster} was split[/]"
    return f"{said}: {', '.join(parts)}" if parts else said


def _merge(clusters: Sequence[str], events: Sequence[Lifecycle]) -> str:
    """``c3 and c9 were merged: c3 has 800 items, c9 is retired``."""
    merged = [event for event in events if event.type == LifecycleType.MERGED]
    gone = [event.cluster or "" for event in events if event.type == LifecycleType.RETIRED]
    parts = []
    for event in merged[:1]:
        n = "all their items" if event.size is None else f"{count(event.size)} items"
        parts.append(f"{event.cluster} has {n}")
    if gone:
        parts.append(f"{escape(some(gone))} retired")
    said = f"[green]{', '.join(clusters[:-1])} and {clusters[-1]} were merged[/]"
    return f"{said}: {', '.join(parts)}" if parts else said


def _of(
    events: Sequence[Lifecycle], kind: LifecycleType, cluster: str, field: str
) -> tuple[str, ...]:
    for event in events:
        if event.type == kind and event.cluster == cluster:
            found: tuple[str, ...] = getattr(event, field)
            return found
    return ()


def _list(command: Command, events: Sequence[Lifecycle]) -> None:
    """What became of clusters; a split or merge has said its own already."""
    told = {
        CommandType.SPLIT: {LifecycleType.SPLIT, LifecycleType.BORN},
        CommandType.MERGE: {LifecycleType.MERGED, LifecycleType.RETIRED},
    }.get(CommandType(command.type), set())
    for kind in _LINEAGE:
        names = [event.cluster or "" for event in events if event.type == kind]
        if names and kind not in told:
            shown = escape(some(names, _N_SHOWN))
            out.print(f"  {kind:<8} {count(len(names)):>4}  [dim]{shown}[/]", soft_wrap=True)


def _moved(event: Lifecycle, verb: str) -> str:
    return "" if event.moved is None else f"{event.moved:.1%} of the sampled items {verb}"


def _beside(event: Lifecycle) -> str:
    said = gain(event)
    return f", {said}" if said else ""
