"""Events for people, a line each: changes of items, what became of clusters, alarms."""

from __future__ import annotations

import datetime
from typing import Final

from rich.text import Text

from pipeline.cli.output import count, printable, some
from pipeline.messages.events import (
    Cause,
    ChangeType,
    ClusterChange,
    Drift,
    Lifecycle,
    LifecycleType,
)

_MARKS: Final = {
    ChangeType.ASSIGNED: ("+", "green"),
    ChangeType.REASSIGNED: ("~", "yellow"),
    ChangeType.REMOVED: ("-", "red"),
}
_CAUSES: Final = {Cause.RECORD: "", Cause.MODEL: "new model", Cause.LOST: "tombstone lost"}
_ITEM_WIDTH: Final = 32
_ATYPICAL: Final = 0.01
"""Below this typicality a record is worth a remark: one in a hundred of the fit's own members."""

_STYLES: Final = {
    LifecycleType.INSTALLED: "cyan",
    LifecycleType.BORN: "green",
    LifecycleType.SPLIT: "green",
    LifecycleType.MERGED: "yellow",
    LifecycleType.RETIRED: "red",
    LifecycleType.RESTORED: "green",
    LifecycleType.LABELLED: "cyan",
    LifecycleType.REJECTED: "yellow",
}
_SIGNALS: Final = {
    "occupancy": (
        "the clusters' shares of the traffic are not those of the fit",
        "its share of the traffic is not that of the fit",
    ),
    "distance": (
        "records land at another distance from their centroids than at the fit",
        "records land at another distance from its centroid than at the fit",
    ),
    "shift": (
        "centroids have left the places where they were fitted",
        "its centroid has left the place where it was fitted",
    ),
    "imbalance": (
        "the clusters' sizes are less equal than at the fit",
        "its size is out of proportion to that at the fit",
    ),
    "churn": (
        "changed items change their cluster more often than before",
        "changed items leave or enter it more often than before",
    ),
}
"""Signal -> what an alarm means, of the whole model and of one cluster."""


def change_line(change: ClusterChange) -> Text:
    """One step of an item."""
    mark, colour = _MARKS[change.type]
    item = printable(change.item)
    if len(item) > _ITEM_WIDTH:
        item = item[: _ITEM_WIDTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
    line = Text().append(clock_time(change.occurred_at_ms), style="dim")
    line.append(f"  {mark} ", style=f"bold {colour}")
    line.append(f"{item:<{_ITEM_WIDTH}}  ", style="bold")
    before = change.from_cluster or ""
    after = change.to_cluster or "gone"
    arrow = "\N{RIGHTWARDS ARROW}" if before else " "
    line.append(f"{before:>7} {arrow} ", style="dim")
    line.append(f"{after:<7}", style=colour)
    confidence = "" if change.confidence is None else f"{change.confidence:.0%}"
    line.append(f"  {confidence:>4}")
    line.append(f"  {change.epoch}.{change.revision}", style="dim")
    if _CAUSES[change.cause]:
        line.append(f"  {_CAUSES[change.cause]}", style="italic dim")
    if change.typicality is not None and change.typicality < _ATYPICAL:
        line.append(f"  {_beyond(change.typicality)}", style="magenta")
    return line


def lifecycle_line(event: Lifecycle) -> Text:
    """One step of a cluster, or of the model."""
    line = Text().append(clock_time(event.occurred_at_ms), style="dim")
    line.append("  ")
    line.append(f"{event.type:<9}", style=f"bold {_STYLES[event.type]}")
    line.append(f"  {event.cluster or 'model':<7}", style="bold")
    line.append(f"  {event.epoch}.{event.revision}", style="dim")
    said = lifecycle_words(event)
    line.append(f"  {said}" if said else "")
    return line


def drift_line(alarm: Drift) -> Text:
    """One alarm, raised or cleared, and what it means."""
    is_raised = alarm.state == "raised"
    line = Text().append(clock_time(alarm.occurred_at_ms), style="dim")
    line.append("  ")
    line.append(f"{printable(alarm.state):<7}", style="bold red" if is_raised else "bold green")
    line.append(f"  {alarm.cluster or 'model':<7}", style="bold")
    line.append(f"  {printable(alarm.signal):<9}")
    line.append(f"  {alarm.epoch}.{alarm.revision}", style="dim")
    beside = "above" if alarm.statistic > alarm.threshold else "not above"
    measured = f"{alarm.statistic:.3g} {beside} {alarm.threshold:.3g}"
    line.append(f"  {measured}, effect {alarm.effect:.2g}")
    if is_raised:
        line.append(f"  {drift_words(alarm)}", style="italic")
    return line


def drift_words(alarm: Drift) -> str:
    """What an alarm means; may be empty, of a signal that is not known here."""
    of_model, of_cluster = _SIGNALS.get(alarm.signal, ("", ""))
    words = [of_model if alarm.cluster is None else of_cluster]
    others = [cluster for cluster in alarm.clusters if cluster != alarm.cluster]
    words.append(f"mostly {some(others)}" if others else "")
    return ": ".join(word for word in words if word)


def lifecycle_words(event: Lifecycle) -> str:
    """What an event says beyond its type, cluster and version; may be empty."""
    match event.type:
        case LifecycleType.INSTALLED:
            words = [printable(event.reason or ""), gain(event), _moved(event)]
        case LifecycleType.BORN:
            words = [f"out of {some(event.parents)}" if event.parents else "", size(event)]
        case LifecycleType.SPLIT:
            keeps = "" if event.size is None else f"keeps {size(event)}"
            words = [f"into {some(event.children)}" if event.children else "", keeps]
        case LifecycleType.MERGED:
            words = [f"from {some(event.parents)}" if event.parents else "", size(event)]
        case LifecycleType.RETIRED:
            heirs = f"its members went to {some(event.children)}" if event.children else ""
            words = [heirs, size(event)]
        case LifecycleType.RESTORED:
            words = [f"out of {some(event.parents)}" if event.parents else "", size(event)]
        case LifecycleType.LABELLED:
            return printable(event.label or "without a label now")
        case LifecycleType.REJECTED:
            words = [printable(event.reason or "no reason given")]
    if event.similarity is not None and event.type is not LifecycleType.INSTALLED:
        words.append(f"overlap {event.similarity:.0%}")
    return ", ".join(word for word in words if word)


def gain(event: Lifecycle) -> str:
    """By how much the inertia changed; empty where that is not known."""
    if not event.inertia_before or event.inertia_after is None:
        return ""
    return f"inertia {event.inertia_after / event.inertia_before - 1:+.2%}"


def size(event: Lifecycle) -> str:
    """Members in the sample of the fit; empty where that is not known."""
    if event.size is None:
        return ""
    return f"{count(event.size)} item{'' if event.size == 1 else 's'}"


def clock_time(ms: int | None) -> str:
    """Local time of day; the day instead of the seconds when it is another than today."""
    if ms is None:
        return f"{'no time':<12}"
    moment = datetime.datetime.fromtimestamp(ms / 1000).astimezone()
    form = "%H:%M:%S.%f" if moment.date() == datetime.datetime.now().date() else "%b %d %H:%M"
    return f"{moment.strftime(form)[:12]:<12}"


def _moved(event: Lifecycle) -> str:
    return "" if event.moved is None else f"{event.moved:.1%} of the items move"


def _beyond(typicality: float) -> str:
    """Short, so that the line of most items still fits beside it."""
    if typicality == 0.0:
        return "beyond all of its cluster at the fit"
    # never rounded up to all of it
    return f"beyond {min(1.0 - typicality, 0.999):.1%} of its cluster at the fit"
