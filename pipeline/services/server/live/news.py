"""What the follower heard as events of the streams: bytes of the topics, and what filters ask."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.messages.codec import json_bytes, json_value
from pipeline.messages.envelope import opened
from pipeline.messages.records import Record
from pipeline.services.server.live.ring import CHANGES, DRIFT, LIFECYCLE, Told
from pipeline.state.view.fold import News


def events_of(news: News) -> Sequence[Told]:
    """What clients are told of it, as it stands in the topics; numbered by nobody yet."""
    told: list[Told] = []
    for change, record in zip(news.changes, news.records, strict=False):
        ends = tuple(c for c in (change.from_cluster, change.to_cluster) if c is not None)
        one = _told(CHANGES, record, str(change.type), change.item, ends)
        told.append(one if change.metadata is None else one._replace(metadata=change.metadata))
    for event, record in zip(news.lifecycle, news.records, strict=False):
        about = (*filter(None, [event.cluster]), *event.parents, *event.children)
        told.append(_told(LIFECYCLE, record, str(event.type), None, about))
    for alarm, record in zip(news.alarms, news.records, strict=False):
        about = (*filter(None, [alarm.cluster]), *alarm.clusters)
        told.append(_told(DRIFT, record, "drift", None, about))
    return told


def _told(
    channel: str, record: Record, kind: str, item: str | None, clusters: tuple[str, ...]
) -> Told:
    body = record.value or b"null"
    if b"\n" in body or b"\r" in body or body[:1] != b"{":  # not written by us; it has to be a line
        body = json_bytes(opened(json_value(body)))
    return Told(0, channel, record.partition, record.offset, kind, item, clusters, body)
