"""Facts <-> bytes, and the only door to JSON.

`decode` takes what users wrote, a batch at a time, and never raises: what cannot be used is an
error beside the others (how, stands in :mod:`pipeline.messages.intake`). Everything else here is
what we write, and its counterpart for reading it back, which ignores fields it does not know and
raises RecordError for what is not ours. No byte depends on a clock or a batch.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from pipeline.errors import Reason, RecordError
from pipeline.messages.embedding import decode_both
from pipeline.messages.envelope import attributes, binary_headers, opened, structured
from pipeline.messages.events import (
    Cause,
    ChangeType,
    ClusterChange,
    Drift,
    Head,
    Lifecycle,
    LifecycleType,
    Metadata,
)
from pipeline.messages.intake import Decoded, metadata_of
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy, LimitPolicy
from pipeline.messages.records import Headers, Record
from pipeline.messages.statistics import (
    decode_statistics,
    encode_statistics,
    head_key,
    statistics_key,
)
from pipeline.messages.vectors import decode_vector, decode_vectors, encode_vector

__all__ = [
    "AssignmentRow", "Decoded",
    "decode", "decode_assignment", "decode_change", "decode_drift", "decode_head",
    "decode_lifecycle", "decode_statistics", "decode_vector", "decode_vectors",
    "encode_assignment", "encode_change", "encode_drift", "encode_head", "encode_lifecycle",
    "encode_statistics", "encode_vector",
    "head_key", "json_bytes", "json_value", "milliseconds", "record_metadata", "record_timestamp",
    "statistics_key", "timestamp", "vector_headers", "wire_number",
]  # fmt: skip

_pack_float32, _float32 = struct.Struct("<f").pack, struct.Struct("<f").unpack
_DAY_MS = 86_400_000
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
_METADATA_HEADER = "eddy-metadata"
_TIMESTAMP_HEADER = "eddy-timestamp"

# --- JSON -----------------------------------------------------------------------------------------


def json_bytes(value: Any) -> bytes:
    """Compact UTF-8 JSON, fields in the order given."""
    return orjson.dumps(value)


def json_value(value: bytes | str) -> Any:
    """Parsed JSON; RecordError (decode) for what is none."""
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RecordError(Reason.DECODE, f"no JSON: {error}") from error


def wire_number(number: float) -> float:
    """The number as it goes out: float32, rounded to 7 significant digits.

    Once only: where float32 is coarser than 7 digits are, from 2**-10 to 0.001 say, a second time
    could change it. So facts hold what was computed, and the encoders round.
    """
    return float(f"{_float32(_pack_float32(number))[0]:.7g}")


def timestamp(ms: int | None) -> str | None:
    """ISO 8601 with milliseconds and Z; None where there is none, or outside the years 1 to 9999.

    A producer may write any 64 bits as a time, and that is no reason to refuse its record.
    """
    if ms is None:
        return None
    days, ms = divmod(ms, _DAY_MS)
    day = _day(days)
    if day is None:
        return None
    minutes, ms = divmod(ms, 60_000)
    return f"{day}T{minutes // 60:02d}:{minutes % 60:02d}:{ms // 1000:02d}.{ms % 1000:03d}Z"


def milliseconds(moment: str | None) -> int | None:
    """The counterpart of `timestamp`."""
    if moment is None:
        return None
    try:
        parsed = datetime.datetime.fromisoformat(moment)
    except ValueError as error:
        raise RecordError(Reason.DECODE, f"no time: {error}") from error
    since = parsed - datetime.datetime(1970, 1, 1, tzinfo=parsed.tzinfo and datetime.UTC)
    return since // datetime.timedelta(milliseconds=1)


@lru_cache(maxsize=64)  # records of a batch share a day or two
def _day(days: int) -> str | None:
    ordinal = _EPOCH_DAY + days
    if not 1 <= ordinal <= datetime.date.max.toordinal():
        return None
    return datetime.date.fromordinal(ordinal).isoformat()


# --- input ----------------------------------------------------------------------------------------


def decode(records: Sequence[Record], embedding: EmbeddingPolicy, limits: LimitPolicy) -> Decoded:
    """Records of the input -> vectors in the form they are stored in; never raises.

    The order of the checks, of which the first that fails gives the reason:

    1. the value's size, then the key; a tombstone is through
    2. headers: ``content-type``, ``embedding-model``, ``eddy-metadata``
    3. the value: form, fields, model, length
    4. components: finite, in range; under cosine: not all zero

    Records of the next embedding model, where one is on its way, take the same checks by its own
    name and dimensions.
    """
    return decode_both(records, embedding, limits, json_value, json_bytes)


def vector_headers(metadata: Metadata | None, timestamp_ms: int | None) -> Headers:
    """The headers that carry beside a vector what its record had.

    The time is not that of the copy: it decides what an item weighs, and a broker may set that
    one, refuse it, or have no way to say that there is none.
    """
    headers: Headers = ()
    if metadata is not None:
        headers = ((_METADATA_HEADER, json_bytes(dict(metadata))),)
    if timestamp_ms is not None and timestamp_ms >= 0:
        headers += ((_TIMESTAMP_HEADER, b"%d" % timestamp_ms),)
    return headers


def record_timestamp(record: Record) -> int | None:
    """The time that `vector_headers` wrote, in milliseconds since 1970; None, or RecordError."""
    for name, value in reversed(record.headers):
        if name == _TIMESTAMP_HEADER:
            if value is None or not value.isdigit() or int(value) >= 2**63:
                raise RecordError(Reason.DECODE, f"{name} is {value!r}, not milliseconds")
            return int(value)
    return None


def record_metadata(record: Record) -> dict[str, Any] | None:
    """The metadata that `vector_headers` wrote; None if it wrote none, or RecordError."""
    for name, value in reversed(record.headers):
        if name == _METADATA_HEADER:
            return metadata_of(json_value(value or b""))
    return None


# --- change events --------------------------------------------------------------------------------


def encode_change(change: ClusterChange, policy: EventPolicy) -> tuple[bytes, Headers]:
    """Value and headers of a change event; its key is the item's id."""
    event: dict[str, Any] = {
        "id": change.id,
        "type": change.type,
        "item": change.item,
        "from": change.from_cluster,
        "to": change.to_cluster,
        "cause": change.cause,
        "distance": _wire(change.distance),
        "margin": _wire(change.margin),
        "confidence": _wire(change.confidence),
        "typicality": _wire(change.typicality),
        "model": {"epoch": change.epoch, "revision": change.revision},
        "source": {
            "topic": change.topic, "partition": change.partition, "offset": change.offset,
        },
        "occurred_at": timestamp(change.occurred_at_ms),
    }  # fmt: skip
    if policy.metadata and change.metadata:
        kept = {key: change.metadata[key] for key in policy.metadata if key in change.metadata}
        if kept:
            event["metadata"] = kept
    if policy.envelope == "plain":
        return orjson.dumps(event), ()
    source = f"/eddy/{change.topic}"
    return _sealed(event, policy, source, f"eddy.cluster-change.{change.type}", change.item)


def decode_change(value: bytes) -> ClusterChange:
    """A change event in any envelope."""
    event = opened(json_value(value))
    try:
        return ClusterChange(
            id=event["id"],
            type=ChangeType(event["type"]),
            item=event["item"],
            from_cluster=event["from"],
            to_cluster=event["to"],
            cause=Cause(event["cause"]),
            distance=event["distance"],
            margin=event["margin"],
            confidence=event["confidence"],
            epoch=event["model"]["epoch"],
            revision=event["model"]["revision"],
            topic=event["source"]["topic"],
            partition=event["source"]["partition"],
            offset=event["source"]["offset"],
            occurred_at_ms=milliseconds(event["occurred_at"]),
            metadata=event.get("metadata"),
            typicality=event.get("typicality"),
        )
    except _MISSHAPEN as error:
        raise _not_ours("change event", error) from error


# --- assignments ----------------------------------------------------------------------------------


class AssignmentRow(NamedTuple):
    """Where an item is, and the record that put it there."""

    cluster: str
    distance: float
    sequence: int
    epoch: int
    revision: int
    partition: int
    offset: int


def encode_assignment(
    cluster: str,
    distance: float,
    sequence: int,
    epoch: int,
    revision: int,
    partition: int,
    offset: int,
) -> bytes:
    """An item's row; written for every applied record, so lean. ``sequence`` 0: there is none."""
    return orjson.dumps(
        {
            "cluster": cluster,
            "distance": float(f"{_float32(_pack_float32(distance))[0]:.7g}"),  # `wire_number`
            "sequence": sequence,
            "model": {"epoch": epoch, "revision": revision},
            "source": {"partition": partition, "offset": offset},
        }
    )


def decode_assignment(value: bytes) -> AssignmentRow:
    """The counterpart of `encode_assignment`."""
    try:
        row = orjson.loads(value)
        model, source = row["model"], row["source"]
        return AssignmentRow(
            row["cluster"], row["distance"], row["sequence"],
            model["epoch"], model["revision"], source["partition"], source["offset"],
        )  # fmt: skip
    except _MISSHAPEN as error:
        raise _not_ours("assignment", error) from error


# --- heads ----------------------------------------------------------------------------------------


def encode_head(head: Head) -> bytes:
    """A partition's head."""
    model = None
    if head.epoch is not None:
        model = {"epoch": head.epoch, "revision": head.revision}
    since = {}
    if head.embedding_since is not None:
        since = {"embedding_since": head.embedding_since}
    return orjson.dumps(
        {
            "model": model,
            **since,
            "since": head.since,
            "next": head.next_offset,
            "members": head.members,
            "records": head.records,
            "reassigned": head.reassigned,
        }
    )


def decode_head(value: bytes) -> Head:
    """The counterpart of `encode_head`."""
    head = json_value(value)
    try:
        model = head["model"] or {"epoch": None, "revision": None}
        return Head(
            model["epoch"], model["revision"], head["since"], head["next"], head["members"],
            head["records"], head["reassigned"], head.get("embedding_since"),
        )  # fmt: skip
    except _MISSHAPEN as error:
        raise _not_ours("head", error) from error


# --- lifecycle and drift --------------------------------------------------------------------------


def encode_lifecycle(event: Lifecycle, policy: EventPolicy) -> tuple[bytes, Headers]:
    """Value and headers of a lifecycle event; its key is ``event.key``."""
    told: dict[str, Any] = {
        "id": event.id,
        "type": event.type,
        "cluster": event.cluster,
        "parents": event.parents,
        "children": event.children,
        "size": event.size,
        "model": {"epoch": event.epoch, "revision": event.revision},
        "similarity": _wire(event.similarity),
        "label": event.label,
        "command": event.command,
    }
    if event.reason is not None:
        told["reason"] = event.reason
    for name in ("inertia_before", "inertia_after", "moved"):
        number = getattr(event, name)
        if number is not None:
            told[name] = wire_number(number)
    told["occurred_at"] = timestamp(event.occurred_at_ms)
    kind = f"eddy.cluster-lifecycle.{event.type}"
    return _sealed(told, policy, "/eddy/cluster-model", kind, event.key.decode())


def decode_lifecycle(value: bytes) -> Lifecycle:
    """A lifecycle event in any envelope."""
    told = opened(json_value(value))
    try:
        return Lifecycle(
            id=told["id"],
            type=LifecycleType(told["type"]),
            epoch=told["model"]["epoch"],
            revision=told["model"]["revision"],
            occurred_at_ms=milliseconds(told["occurred_at"]),
            cluster=told["cluster"],
            parents=tuple(told["parents"]),
            children=tuple(told["children"]),
            size=told["size"],
            similarity=told["similarity"],
            label=told["label"],
            command=told["command"],
            reason=told.get("reason"),
            inertia_before=told.get("inertia_before"),
            inertia_after=told.get("inertia_after"),
            moved=told.get("moved"),
        )
    except _MISSHAPEN as error:
        raise _not_ours("lifecycle event", error) from error


def encode_drift(alarm: Drift, policy: EventPolicy) -> tuple[bytes, Headers]:
    """Value and headers of an alarm; its key is ``alarm.key``."""
    told = {
        "id": alarm.id,
        "type": "drift",
        "state": alarm.state,
        "scope": alarm.scope,
        "cluster": alarm.cluster,
        "clusters": alarm.clusters,
        "signal": alarm.signal,
        "statistic": wire_number(alarm.statistic),
        "threshold": wire_number(alarm.threshold),
        "effect": wire_number(alarm.effect),
        "arl0": alarm.arl0,
        "window": alarm.window,
        "model": {"epoch": alarm.epoch, "revision": alarm.revision},
        "occurred_at": timestamp(alarm.occurred_at_ms),
    }
    kind = f"eddy.cluster-drift.{alarm.state}"
    return _sealed(told, policy, "/eddy/cluster-model", kind, alarm.key.decode())


def decode_drift(value: bytes) -> Drift:
    """An alarm in any envelope."""
    told = opened(json_value(value))
    try:
        return Drift(
            told["id"], told["state"], told["scope"], told["cluster"], told["signal"],
            told["statistic"], told["threshold"], told["effect"], told["arl0"], told["window"],
            told["model"]["epoch"], told["model"]["revision"], milliseconds(told["occurred_at"]),
            tuple(told.get("clusters", ())),
        )  # fmt: skip
    except _MISSHAPEN as error:
        raise _not_ours("drift alarm", error) from error


_MISSHAPEN = (KeyError, TypeError, ValueError, AttributeError)  # JSON errors are ValueErrors


def _not_ours(what: str, error: BaseException) -> RecordError:
    return RecordError(Reason.DECODE, f"no {what}: {type(error).__name__} {error}"[:200])


def _wire(number: float | None) -> float | None:
    return None if number is None else wire_number(number)


def _sealed(
    event: Mapping[str, Any], policy: EventPolicy, source: str, kind: str, subject: str
) -> tuple[bytes, Headers]:
    """An event in the envelope of the policy."""
    if policy.envelope == "plain":
        return orjson.dumps(event), ()
    context = attributes(
        event["id"], source=source, kind=kind, subject=subject, time=event["occurred_at"]
    )
    if policy.envelope == "cloudevents-binary":
        return orjson.dumps(event), binary_headers(context)
    value, headers = structured(context, event)
    return orjson.dumps(value), headers
