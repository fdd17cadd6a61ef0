"""``eddy model history``: every kept epoch, and what became of clusters in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.markup import escape

from pipeline.cli.output import count, day_and_time, out, printable
from pipeline.messages.commands import Command, CommandType
from pipeline.messages.events import Lifecycle, LifecycleType
from pipeline.messages.model import Manifest

_LINEAGE: Final = (
    LifecycleType.BORN,
    LifecycleType.SPLIT,
    LifecycleType.MERGED,
    LifecycleType.RETIRED,
    LifecycleType.RESTORED,
)
_AMONG: Final = (LifecycleType.LABELLED, LifecycleType.REJECTED)
"""What happens under an epoch that is there already."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """One kept epoch: its last manifest, and the lifecycle around it."""

    manifest: Manifest
    is_newest: bool
    installed: Lifecycle | None
    """None where retention has taken the lineage of this epoch."""
    lineage: Mapping[LifecycleType, int]
    among: Mapping[LifecycleType, int]
    """Labels and rejections from this epoch to the next; a lower bound without `installed`."""
    command: Command | None
    """Who asked for it, while the commands' topic has it."""

    def as_json(self) -> dict[str, Any]:
        """For machines; null: not kept."""
        event, command = self.installed, self.command
        return {
            "epoch": self.manifest.epoch,
            "revision": self.manifest.revision,
            "installed_at_ms": None if event is None else event.occurred_at_ms,
            "revised_at_ms": self.manifest.created_at_ms,
            "reason": None if event is None else event.reason,
            "command": None
            if event is None or event.command is None
            else {
                "id": event.command,
                "type": None if command is None else str(command.type),
                "requested_by": None if command is None else command.requested_by,
                "reason": None if command is None else command.reason,
            },
            "clusters": len(self.manifest.clusters),
            **{
                str(kind): None if event is None else self.lineage.get(kind, 0) for kind in _LINEAGE
            },
            **{str(kind): self.among.get(kind, 0) for kind in _AMONG},
            "items": self.manifest.fitted_items,
            "inertia_before": None if event is None else event.inertia_before,
            "inertia_after": None if event is None else event.inertia_after,
            "moved": None if event is None else event.moved,
            "newest": self.is_newest,
        }


def chapters(
    epochs: Mapping[int, Manifest], past: Sequence[Lifecycle], commands: Mapping[str, Command]
) -> list[Chapter]:
    """The kept epochs, the oldest first.

    The events of an epoch are one transaction and `installed` is the first of them: where
    retention has left it, it has left the others too.
    """
    told = []
    for epoch, manifest in sorted(epochs.items()):
        here = [event for event in past if event.epoch == epoch]
        kinds = Counter(event.type for event in here)
        installed = next((e for e in here if e.type is LifecycleType.INSTALLED), None)
        asked = None if installed is None else installed.command
        told.append(
            Chapter(
                manifest=manifest,
                is_newest=epoch == max(epochs),
                installed=installed,
                lineage={kind: kinds[kind] for kind in _LINEAGE},
                among={kind: kinds[kind] for kind in _AMONG},
                command=None if asked is None else commands.get(asked),
            )
        )
    return told


def print_history(told: Sequence[Chapter]) -> None:
    """Two lines an epoch, the newest last: its figures, and below them why it came and what of it.

    Lines of our own, not a table: a reason may be long, and a table would cut or fold it.
    """
    shown = [(chapter, _figures(chapter)) for chapter in told]
    heads = ("model", "since", "clusters", "inertia per item", "moved")
    widths = [
        max(len(cell) for cell in column)
        for column in zip(heads, *(figures for _, figures in shown), strict=True)
    ]
    out.print(f"[bold]{_aligned(heads, widths)}[/]", soft_wrap=True)
    for chapter, figures in shown:
        style = "bold green" if chapter.is_newest else "bold"
        out.print(f"[{style}]{_aligned(figures, widths)}[/]", soft_wrap=True)
        out.print(f"{' ' * (widths[0] + 2)}{escape(_words(chapter))}", soft_wrap=True)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = {0, 1, 3}
    padded = [
        f"{cell:<{width}}" if i in left else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _figures(chapter: Chapter) -> tuple[str, ...]:
    event = chapter.installed
    return (
        chapter.manifest.version,
        "" if event is None else day_and_time(event.occurred_at_ms),
        count(len(chapter.manifest.clusters)),
        _inertia(chapter),
        "" if event is None or event.moved is None else f"{event.moved:.1%}",
    )


def _words(chapter: Chapter) -> str:
    """``split c3 by ann: 1 born, 1 split; 1 rejected later``."""
    event, command = chapter.installed, chapter.command
    if event is None:
        return "its lineage is not kept: retention has cut cluster-lifecycle"
    why = printable(event.reason or "unknown")
    if command is not None:
        why = _asked(command)
        if command.requested_by:
            why += f" by {printable(command.requested_by)}"
        if command.reason:
            why += f" ({printable(command.reason)})"
    lineage = ", ".join(f"{n} {kind}" for kind, n in chapter.lineage.items() if n)
    later = ", ".join(f"{n} {kind}" for kind, n in chapter.among.items() if n)
    said = f"{why}: {lineage or 'all clusters kept their id'}"
    return f"{said}; {later} later" if later else said


def _asked(command: Command) -> str:
    match command.type:
        case CommandType.ROLLBACK:
            return f"rollback {command.epoch}"
        case CommandType.SPLIT:
            return f"split {printable(command.cluster or '')}"
        case CommandType.MERGE:
            return f"merge {printable(' '.join(command.clusters))}"
        case _:
            return str(command.type)


def _inertia(chapter: Chapter) -> str:
    event, n = chapter.installed, max(chapter.manifest.fitted_items, 1)
    if event is None or event.inertia_after is None:
        return f"{chapter.manifest.fitted_inertia / n:.4g}"
    after = f"{event.inertia_after / n:.4g}"
    if not event.inertia_before:
        return after
    return f"{event.inertia_before / n:.4g} → {after}"
