"""What ``eddy demo`` tells, in the order in which it happens."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from rich.markup import escape

from pipeline.cli.demo.debian import Change, Packages
from pipeline.cli.demo.portrait import Portrait, portraits
from pipeline.cli.demo.replay import Replay
from pipeline.cli.demo.scenery import Scenery
from pipeline.cli.lines import drift_words
from pipeline.cli.output import count, out, printable
from pipeline.config import Config
from pipeline.messages.events import Cause, ChangeType, ClusterChange, Lifecycle, LifecycleType
from pipeline.streams.jars import KAFKA_VERSION

_N_CLUSTERS_SHOWN: Final = 12
_N_EXAMPLES: Final = 5
_N_ALIKE: Final = 2
_N_LINEAGE: Final = 4
_LINEAGE: Final = {
    LifecycleType.BORN: "green",
    LifecycleType.SPLIT: "green",
    LifecycleType.MERGED: "yellow",
    LifecycleType.RETIRED: "red",
}
_PIPE_WIDTH: Final = 120


class Story:
    """Prints, and remembers the clusters as they were shown last."""

    def __init__(self, packages: Packages) -> None:
        self._packages = packages
        self._portraits: dict[str, Portrait] = {}
        self._n_events: Counter[ChangeType] = Counter()
        self._n_by_model = 0

    def opening(self) -> None:
        """What this is about."""
        n_packages = len({change.package for change in self._packages.changes})
        _say("[bold]Eddy keeps the embeddings in a Kafka topic clustered while they change.[/]")
        _say(
            f"The stream is real: {count(n_packages)} packages of Debian, each an embedding of its "
            "description, over five releases."
        )
        _say(
            "Packages come, are described anew, and go. Eddy says which one moved to which "
            "cluster: each change once, also through crashes."
        )

    def started(self, found: Scenery, config: Config, seconds: float) -> None:
        """What runs now."""
        is_ours = found.is_own_broker
        broker = f"Apache Kafka {KAFKA_VERSION}, in a scratch folder" if is_ours else "your broker"
        *names, last = found.services.names
        _say()
        _say(
            f"[bold]{broker}[/] at {found.address}: {len(config.topics.names)} topics, "
            f"{', '.join(names)} and {last} "
            f"[dim]({seconds:.1f} s)[/]"
        )
        if not is_ours:
            _say(f"  its topics begin with {escape(config.topics.prefix)} and stay there")
        if found.page is not None:
            _say(f"  the page, live: [bold]{found.page}[/]")

    def staying(self, page: str) -> None:
        """The replay is over, and somebody looks at the page."""
        _say()
        _say(f"The page stays at [bold]{page}[/] until Ctrl-C.")

    def chapter(self, title: str, *, is_first: bool) -> None:
        """A release begins."""
        _say()
        _say(f"[bold cyan]{title}[/]" + (", the first release" if is_first else ""))

    def produced(self, n: int) -> None:
        """The first release is in the topic."""
        _say(f"  {count(n)} embeddings produced; nothing is assigned before there is a model")

    def first_model(self, replay: Replay, seconds: float) -> None:
        """The first fit."""
        assert replay.view.model is not None
        manifest = replay.view.model.manifest
        _say(
            f"  first model: {len(manifest.clusters)} clusters, fitted on "
            f"{count(manifest.fitted_items)} items [dim]({seconds:.1f} s)[/]"
        )

    def assigned(self, replay: Replay, changes: Sequence[ClusterChange]) -> None:
        """Every item of the first release has its cluster."""
        self._count(changes)
        self._n_by_model += sum(event.cause == Cause.MODEL for event in changes)
        n_assigned = sum(event.type == ChangeType.ASSIGNED for event in changes)
        rate = f", {count(round(replay.rate))} records/s" if replay.rate else ""
        _say(f"  {count(n_assigned)} packages assigned, one event each{rate}")
        self._portraits = self._draw(replay)
        self._show_clusters()

    def happened(
        self, replay: Replay, changes: Sequence[Change], events: Sequence[ClusterChange]
    ) -> None:
        """A release was applied."""
        self._count(events)
        kinds = Counter(change.kind for change in changes)
        n_new, n_removed = kinds["insert"] + kinds["reinsert"], kinds["delete"]
        moved = [event for event in events if event.type == ChangeType.REASSIGNED]
        followed = [event for event in moved if event.cause == Cause.MODEL]
        moved = [event for event in moved if event.cause == Cause.RECORD]
        self._n_by_model += len(followed)
        _say(
            f"  {count(n_new)} packages came, {count(kinds['text'])} were described anew, "
            f"{count(n_removed)} went [dim]({_latency(replay.view.latencies_s)})[/]"
        )
        if kinds["text"]:
            _say(
                f"  {count(len(moved))} of the {count(kinds['text'])} new descriptions "
                "moved a package to another cluster" + (":" if moved else "")
            )
        self._examples(moved)
        if followed:
            _say(
                f"  {count(len(followed))} more moved because the centroids followed their members"
            )
        for alarm in replay.view.take_alarms():
            if alarm.state == "raised":
                who = "" if alarm.cluster is None else f" of {self._name(alarm.cluster)}"
                _say(f"  [magenta]drift[/]{who}: {escape(drift_words(alarm))}")

    def reclustered(
        self,
        replay: Replay,
        answer: Sequence[Lifecycle],
        events: Sequence[ClusterChange],
        seconds: float,
        *,
        is_cold: bool,
    ) -> None:
        """A new model is installed, and every member was held against it."""
        self._count(events)
        before, self._portraits = self._portraits, self._draw(replay)
        installed = next(event for event in answer if event.type == LifecycleType.INSTALLED)
        by_model = [event for event in events if event.cause == Cause.MODEL]
        self._n_by_model += len(by_model)
        moved = [event for event in by_model if event.epoch == installed.epoch]
        n_members = len(replay.view.clusters)
        kept = before.keys() & self._portraits.keys()
        how = "a model fitted from nothing" if is_cold else "a new model"
        _say(
            f"  [bold]{how}[/], {installed.epoch}.{installed.revision}{_gain(installed)}: "
            f"{count(len(moved))} of {count(n_members)} packages moved "
            f"({len(moved) / max(n_members, 1):.1%}) [dim]({seconds:.1f} s)[/]"
        )
        self._examples(moved, n=2)
        kinds = Counter(event.type for event in answer)
        lineage = ", ".join(f"{kind}: {kinds[kind]}" for kind in _LINEAGE if kinds[kind])
        if not lineage:
            _say(f"  all {len(kept)} clusters kept their identity")
            return
        _say(f"  {len(kept)} clusters kept their identity; {lineage}")
        for kind, colour in _LINEAGE.items():
            drawn = before if kind is LifecycleType.RETIRED else self._portraits
            for event in [event for event in answer if event.type is kind][:_N_LINEAGE]:
                words = ", ".join(filter(None, [_named(event.cluster, drawn), _kin(event)]))
                _say(f"    [{colour}]{kind:<8}[/] {words}")

    def summary(self, replay: Replay) -> None:
        """All of it in numbers."""
        _say()
        _say("[bold cyan]What happened[/]")
        rate = f", {count(round(replay.rate))}/s while there was a backlog" if replay.rate else ""
        n = self._n_events
        _say(f"  {count(replay.n_produced)} changes of embeddings in{rate}")
        _say(
            f"  {count(n.total())} change events out: {count(n[ChangeType.ASSIGNED])} assigned, "
            f"{count(n[ChangeType.REASSIGNED])} reassigned ({count(self._n_by_model)} of them by "
            f"a new model), {count(n[ChangeType.REMOVED])} removed"
        )
        self._show_clusters()

    def verifying(self) -> None:
        """The judge's turn."""
        _say()
        _say("[bold cyan]eddy verify[/]: an independent reading of all topics")

    def farewell(self) -> None:
        """What to do next."""
        _say()
        _say("Your own: [bold]eddy up[/], then [bold]eddy produce FILE[/] and [bold]eddy watch[/].")

    def _count(self, events: Sequence[ClusterChange]) -> None:
        self._n_events.update(event.type for event in events)

    def _draw(self, replay: Replay) -> dict[str, Portrait]:
        model = replay.view.model
        assert model is not None
        members = {
            item: (cluster, replay.rows[item])
            for item, cluster in replay.view.clusters.items()
            if item in replay.rows
        }
        centroids = dict(zip(model.manifest.clusters, model.centroids, strict=True))
        return portraits(members, self._packages.summaries, self._packages.vectors, centroids)

    def _show_clusters(self) -> None:
        drawn = sorted(self._portraits.values(), key=lambda portrait: -portrait.size)
        drawn_first = drawn[:_N_CLUSTERS_SHOWN]
        about = max((len(portrait.about) for portrait in drawn_first), default=0)
        # lines of our own, not a table: one that is too wide for a pipe loses its columns
        room = (out.width if out.is_terminal else _PIPE_WIDTH) - about - 18
        for portrait in drawn_first:
            typical = escape(printable(_fitting(portrait.typical, room)))
            _say(
                f"  [bold]{portrait.cluster:>5}[/] {count(portrait.size):>6}  "
                f"{escape(f'{portrait.about:<{about}}')}  [dim]{typical}[/]"
            )
        if drawn[_N_CLUSTERS_SHOWN:]:
            _say(f"        and {len(drawn) - _N_CLUSTERS_SHOWN} more")

    def _examples(self, events: Sequence[ClusterChange], n: int = _N_EXAMPLES) -> None:
        """The clearest ones, not all of them into the same cluster."""
        into: Counter[str | None] = Counter()
        for event in sorted(events, key=lambda event: -(event.confidence or 0.0)):
            into[event.to_cluster] += 1
            if into[event.to_cluster] > _N_ALIKE:
                continue
            _say(
                f"    {escape(printable(event.item))}: {self._name(event.from_cluster)} "
                f"→ {self._name(event.to_cluster)}"
            )
            n -= 1
            if not n:
                break

    def _name(self, cluster: str | None) -> str:
        return _named(cluster, self._portraits)


def _named(cluster: str | None, drawn: Mapping[str, Portrait]) -> str:
    """``c12 (python modules)``."""
    portrait = drawn.get(cluster or "")
    about = f" [dim]({escape(portrait.about)})[/]" if portrait else ""
    return f"[bold]{cluster}[/]{about}"


def _fitting(names: Sequence[str], room: int) -> str:
    """As many of the names as fit; one at least."""
    line = "".join(names[:1])
    for name in names[1:]:
        if len(line) + 2 + len(name) > room:
            break
        line += f", {name}"
    return line


def _kin(event: Lifecycle) -> str:
    """Where a cluster came from, or its members went."""
    match event.type:
        case LifecycleType.SPLIT:
            return f"into {_list(event.children)}"
        case LifecycleType.RETIRED:
            return f"its members went to {_list(event.children)}" if event.children else ""
        case _:
            return f"out of {_list(event.parents)}" if event.parents else ""


def _list(clusters: Sequence[str]) -> str:
    return ", ".join(clusters[:4]) + (", ..." if clusters[4:] else "")


def _gain(event: Lifecycle) -> str:
    if not event.inertia_before or event.inertia_after is None:
        return ""
    return f", inertia {event.inertia_after / event.inertia_before - 1:+.1%}"


def _latency(latencies_s: Sequence[float]) -> str:
    """Produced to seen at read_committed."""
    if len(latencies_s) < 20:
        return "too few for a latency"
    parts = statistics.quantiles(latencies_s, n=20)
    return f"produce → committed event: p50 {parts[9] * 1e3:.0f} ms, p95 {parts[18] * 1e3:.0f} ms"


def _say(line: str = "") -> None:
    out.print(line, soft_wrap=True)
