"""The change events of a stream, held against their promises: a fold over the topic."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.cli.audit.tally import Tally, Version
from pipeline.messages.records import Record


@dataclass(slots=True)
class _Item:
    """What the last event of an item said."""

    to: str | None
    offset: int
    cause: str


@dataclass(slots=True)
class EventAudit:
    """Feed it every record of ``cluster-changes``, then the assignments; read the tallies."""

    input_topic: str
    cut: Collection[int] = ()
    """Partitions whose oldest events retention has taken."""
    chain: Tally = field(
        default_factory=lambda: Tally(
            "event_chain", "the events of an item chain from its first to its assignment"
        )
    )
    ids: Tally = field(
        default_factory=lambda: Tally("event_ids", "no event occurs twice, each id fits its cause")
    )
    order: Tally = field(
        default_factory=lambda: Tally("event_order", "the source offset of an item never decreases")
    )
    versions: Tally = field(
        default_factory=lambda: Tally("model_order", "in a partition the model never goes back")
    )
    _items: dict[tuple[int, str], _Item] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _newest: dict[int, Version] = field(default_factory=dict)

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """The four checks, in the order in which they are shown."""
        return self.chain, self.ids, self.order, self.versions

    def add(self, record: Record) -> None:
        """Take the next event of its partition in."""
        event = read_event(record)
        if event is None:
            self.chain.n_checked += 1
            self.chain.broken(
                f"partition {record.partition}, offset {record.offset}: not a change event"
            )
            return
        item = str(event["item"])
        source = event["source"]
        offset = int(source["offset"])
        version = (int(event["model"]["epoch"]), int(event["model"]["revision"]))
        where = f"partition {record.partition}, {item}"
        self.ids.n_checked += 1
        if event["id"] in self._seen:
            self.ids.broken(f"{where}: the event {event['id']} is there twice")
        self._seen.add(event["id"])
        if event["id"] != self._id_of(event, item, record.partition, offset, version):
            self.ids.broken(f"{where}: the id {event['id']} does not fit what it tells")
        if (source["topic"], int(source["partition"])) != (self.input_topic, record.partition):
            self.order.broken(f"{where}: the event {event['id']} names another source")
        self.versions.n_checked += 1
        newest = self._newest.get(record.partition, (0, 0))
        if version < newest:
            self.versions.broken(
                f"{where}: an event of model {version[0]}.{version[1]} "
                f"after one of {newest[0]}.{newest[1]}"
            )
        self._newest[record.partition] = max(version, newest)
        self._link(record, event, item, offset, where)

    def _id_of(
        self, event: Mapping[str, Any], item: str, partition: int, offset: int, version: Version
    ) -> str:
        place = f"{self.input_topic}/{partition}/{offset}"
        if event["cause"] == "model":
            return f"model/{version[0]}.{version[1]}/{item}"
        return f"lost/{place}" if event["cause"] == "lost" else place

    def _link(
        self, record: Record, event: Mapping[str, Any], item: str, offset: int, where: str
    ) -> None:
        before = self._items.get((record.partition, item))
        came_from, to = event["from"], event["to"]
        self.chain.n_checked += 1
        self.order.n_checked += 1
        if event["type"] != _type_of(came_from, to):
            self.chain.broken(
                f"{where}: {event['id']} is called {event['type']}, "
                f"but leads from {came_from} to {to}"
            )
        if before is None:
            if came_from is not None and record.partition not in self.cut:
                self.chain.broken(f"{where}: its first event comes from {came_from}")
        else:
            if came_from != before.to:
                self.chain.broken(
                    f"{where}: {event['id']} comes from {came_from}, "
                    f"but the event before led to {before.to}"
                )
            if offset < before.offset:
                self.order.broken(
                    f"{where}: an event of offset {offset} after one of {before.offset}"
                )
        self._items[record.partition, item] = _Item(to, offset, event["cause"])

    def finish(
        self,
        assigned: Mapping[int, Mapping[str, tuple[str, int]]],
        removed_at: Mapping[int, Mapping[str, int]] | None = None,
    ) -> None:
        """Hold the ends of the chains against (cluster, source offset) of the assignments.

        ``removed_at``: where it is known, the offset of the tombstone that ended an item.
        """
        for partition, rows in assigned.items():
            n_unknown = 0
            for item, (cluster, offset) in rows.items():
                last = self._items.get((partition, item))
                where = f"partition {partition}, {item}"
                if last is None:
                    if partition in self.cut:
                        n_unknown += 1
                    else:
                        self.chain.broken(f"{where}: is in {cluster}, but no event says so")
                elif last.to != cluster:
                    self.chain.broken(
                        f"{where}: the last event led to {last.to}, but it is in {cluster}"
                    )
                elif last.offset > offset:
                    self.order.broken(
                        f"{where}: the last event is of offset {last.offset}, "
                        f"the assignment of {offset}"
                    )
            self.chain.unchecked(n_unknown, "retention has cut their events")
        for (partition, item), last in self._items.items():
            if item in assigned.get(partition, {}):
                continue
            if last.to is not None:
                self.chain.broken(
                    f"partition {partition}, {item}: the last event led to {last.to}, "
                    "but it has no assignment"
                )
                continue
            gone = (removed_at or {}).get(partition, {}).get(item, -1)
            if last.cause == "record" and gone >= 0 and gone != last.offset:
                self.order.broken(
                    f"partition {partition}, {item}: removed by its record at {gone}, "
                    f"but the event names {last.offset}"
                )


def audit_events(
    events: Iterable[Record],
    assigned: Mapping[int, Mapping[str, tuple[str, int]]],
    *,
    input_topic: str,
    cut: Collection[int] = (),
) -> list[str]:
    """Every broken promise of a topic of change events, in words; empty: none.

    Parameters
    ----------
    events
        All records of ``cluster-changes`` at read_committed, each partition's in offset order.
    assigned
        Partition -> item -> (cluster id, source offset), as ``cluster-assignments`` has it.
    cut
        Partitions whose oldest events retention has taken.
    """
    audit = EventAudit(input_topic, cut)
    for record in events:
        audit.add(record)
    audit.finish(assigned)
    return [example for tally in audit.tallies for example in tally.examples]


def read_event(record: Record) -> dict[str, Any] | None:
    """A change event out of any of its envelopes, if it has the fields that are promised."""
    try:
        event = json.loads(record.value or b"")
        if isinstance(event, dict) and "specversion" in event:
            event = {**event["data"], "id": event["id"]}
        key = (record.key or b"").decode("utf-8")
        int(event["source"]["offset"])
        int(event["source"]["partition"])
        int(event["model"]["epoch"])
        int(event["model"]["revision"])
        fits = (
            event["item"] == key
            and isinstance(event["id"], str)
            and isinstance(event["source"]["topic"], str)
            and event["cause"] in ("record", "model", "lost")
            and {"type", "from", "to", "distance", "margin", "confidence"} <= event.keys()
        )
    except (ValueError, KeyError, TypeError):
        return None
    return event if fits else None


def _type_of(came_from: str | None, to: str | None) -> str | None:
    """The type that a step must have; None for a step that is none."""
    if came_from == to:
        return None
    if came_from is None:
        return "assigned"
    return "removed" if to is None else "reassigned"
