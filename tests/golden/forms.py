"""Every record form that Eddy writes or reads: facts, the bytes they make, and how they are read.

Facts are plain JSON once they are `told`, so those of an older version lie beside its bytes and
need none of its code.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import Reason, RecordError
from pipeline.messages.codec import (
    AssignmentRow,
    decode,
    decode_assignment,
    decode_change,
    decode_drift,
    decode_head,
    decode_lifecycle,
    decode_statistics,
    decode_vectors,
    encode_assignment,
    encode_change,
    encode_drift,
    encode_head,
    encode_lifecycle,
    encode_statistics,
    encode_vector,
    head_key,
    record_metadata,
    record_timestamp,
    statistics_key,
    vector_headers,
)
from pipeline.messages.commands import Command, decode_command, encode_command
from pipeline.messages.dead_letters import dead_letter, read_letter
from pipeline.messages.embedding import (
    model_headers,
    offset_headers,
    record_model,
    record_offset,
    successor_item,
    successor_key,
)
from pipeline.messages.events import (
    Cause,
    ChangeType,
    ClusterChange,
    Drift,
    Head,
    Lifecycle,
    LifecycleType,
    StatisticsRow,
)
from pipeline.messages.manifest import Manifest
from pipeline.messages.model import (
    N_QUANTILES,
    Model,
    ModelFold,
    digest,
    label_record,
    model_records,
)
from pipeline.messages.policy import (
    JSON,
    RAW,
    EmbeddingPolicy,
    EventPolicy,
    LimitPolicy,
    NamedEmbeddingPolicy,
)
from pipeline.messages.records import Headers, Outgoing, Record

VERSION = "0.1"
"""Of the wire, as this code writes it."""

D = 3
X = np.array([0.5, -0.25, 1.0], np.float32)
AT_MS = 1_772_366_400_123
EMBEDDING = EmbeddingPolicy(dimensions=D, model="e5")
EVENTS = {
    "plain": EventPolicy(metadata=("section",)),
    "structured": EventPolicy("cloudevents-structured", ("section",)),
    "binary": EventPolicy("cloudevents-binary", ("section",)),
}
_EDV1 = struct.Struct("<4sBBHIQ")


class Golden(NamedTuple):
    """Records as they lie in a topic, and what they tell."""

    form: str
    """Which reader, and which file."""
    name: str
    records: tuple[Record, ...]
    facts: Any
    """As `told`."""


def golden() -> Iterator[Golden]:
    """What this version writes, in a fixed order."""
    for form, forms in FORMS.items():
        for name, records, facts in forms.written():
            yield Golden(form, name, records, told(facts))


def told(fact: Any) -> Any:
    """Facts as plain JSON."""
    if isinstance(fact, np.ndarray):
        return {"dtype": str(fact.dtype), "rows": fact.tolist()}
    if isinstance(fact, bytes):
        return {"base64": base64.b64encode(fact).decode()}
    if dataclasses.is_dataclass(fact):
        return {one.name: told(getattr(fact, one.name)) for one in dataclasses.fields(fact)}
    if isinstance(fact, tuple) and hasattr(fact, "_asdict"):
        return {name: told(value) for name, value in fact._asdict().items()}
    if isinstance(fact, Mapping):
        return {str(name): told(value) for name, value in fact.items()}
    if isinstance(fact, list | tuple):
        return [told(one) for one in fact]
    return fact


def agrees(read: Any, written: Any) -> bool:
    """Whether facts say what was written, and nothing more: what came later has nothing to say."""
    if isinstance(written, dict) and isinstance(read, dict):
        later = (read[name] for name in read.keys() - written.keys())
        return written.keys() <= read.keys() and not any(later) and all(
            agrees(read[name], written[name]) for name in written
        )  # fmt: skip
    if isinstance(written, list) and isinstance(read, list):
        return len(read) == len(written) and all(map(agrees, read, written))
    return bool(read == written)


# --- input ----------------------------------------------------------------------------------------

Written = Iterator[tuple[str, tuple[Record, ...], Any]]


def _typed(form: str, *more: tuple[str, bytes | None]) -> Headers:
    return (("content-type", form.encode()), *more)


def _edv1(dtype: int, body: bytes, sequence: int = 7) -> bytes:
    return _EDV1.pack(b"EDV1", dtype, 0, 0, D, sequence) + body


def _input() -> Written:
    numbers = '{"vector": [0.5, -0.25, 1], "sequence": 7, "embedding_model": "e5", "metadata": '
    text = json.dumps({"vector": base64.b64encode(X.tobytes()).decode()}).encode()
    metadata = ("eddy-metadata", b'{"section":"python","n":1,"x":0.5,"new":true}')
    known = {"section": "python", "n": 1, "x": 0.5, "new": True}
    named = ("embedding-model", b"e5")
    halves = X.astype("<f2").tobytes()
    for name, value, headers, sequence, about in (
        ("edv1-float32", _edv1(0, X.tobytes()), (), 7, None),
        ("edv1-float16", _edv1(1, halves), (named, metadata), 7, known),
        ("raw", X.tobytes(), _typed(RAW, metadata), 0, known),
        ("json-numbers", numbers.encode() + metadata[1] + b"}", _typed(JSON), 7, known),
        ("json-base64", text, _typed(JSON, ("traceparent", b"00-1-2-01")), 0, None),
        ("tombstone", None, (), 0, None),
    ):
        given = Record(1, 42, b"item", value, AT_MS, headers)
        vectors = np.array([] if value is None else [X], np.float32).reshape(-1, D)
        facts = {"vectors": vectors, "sequences": [sequence], "metadata": [about], "errors": {}}
        yield name, (given,), facts


def _read_input(records: tuple[Record, ...]) -> Any:
    batch = decode(records, EMBEDDING, LimitPolicy())
    about = [batch.metadata.get(i) for i in range(len(records))]
    errors = {i: str(error) for i, error in batch.errors.items()}
    return {
        "vectors": batch.vectors, "sequences": batch.sequences,
        "metadata": about, "errors": errors,
    }  # fmt: skip


# --- what the assigner writes ---------------------------------------------------------------------


def _kept(outgoing: Outgoing | None = None, **given: Any) -> Record:
    one = outgoing or Outgoing("", 1, **given)
    return Record(one.partition, 42, one.key, one.value, None, one.headers)


def _changes() -> Written:
    steps = {
        "assigned": ClusterChange(
            "in/1/40", ChangeType.ASSIGNED, "item", None, "c1", Cause.RECORD,
            0.5, None, 1.0, 7, 31, "in", 1, 40, None,
        ),
        "reassigned": ClusterChange(
            "model/7.31/item", ChangeType.REASSIGNED, "item", "c1", "c40", Cause.MODEL,
            0.412, 0.083, 0.17, 7, 31, "in", 1, 41, AT_MS, {"section": "python"}, 0.25,
        ),
        "removed": ClusterChange(
            "lost/in/1/41", ChangeType.REMOVED, "item", "c40", None, Cause.LOST,
            None, None, None, 7, 31, "in", 1, 41, AT_MS,
        ),
    }  # fmt: skip
    for envelope, policy in EVENTS.items():
        for name, change in steps.items():
            value, headers = encode_change(change, policy)
            record = _kept(key=change.item.encode(), value=value, headers=headers)
            yield f"{name}-{envelope}", (record,), change


def _assignments() -> Written:
    value = encode_assignment("c40", 0.412, 9, 7, 31, 1, 42)
    row = AssignmentRow("c40", 0.412, 9, 7, 31, 1, 42)
    yield "row", (_kept(key=b"item", value=value),), row


def _vectors() -> Written:
    facts = {
        "vector": X, "metadata": None, "timestamp": None, "model": None, "offset": 41,
        "successor_of": None,
    }  # fmt: skip
    value, beside = encode_vector(X, 9), offset_headers(41)
    yield "plain", (_kept(key=b"item", value=value, headers=beside),), facts
    about, policy = {"section": "python"}, NamedEmbeddingPolicy(dimensions=D, model="e6")
    headers = vector_headers(about, AT_MS) + model_headers(policy) + beside
    known = {"metadata": about, "timestamp": AT_MS, "model": "e6"}
    yield "all-headers", (_kept(key=b"item", value=value, headers=headers),), facts | known
    key = successor_key(b"item")
    known |= {"successor_of": b"item"}
    yield "successor", (_kept(key=key, value=value, headers=headers),), facts | known


def _read_vector(records: tuple[Record, ...]) -> Any:
    (record,) = records
    vectors, _ = decode_vectors([record.value or b""], D)
    return {
        "vector": vectors[0], "metadata": record_metadata(record),
        "timestamp": record_timestamp(record), "model": record_model(record),
        "offset": record_offset(record), "successor_of": successor_item(record.key or b""),
    }  # fmt: skip


def _statistics() -> Written:
    sums = np.array([1 << 40, -(1 << 40), 0], np.int64)
    row = StatisticsRow(7, 812, 3, 5, 40, 1.5, 2.25, sums)
    for name, fact in (("plain", row), ("weights", dataclasses.replace(row, weight=1 << 30))):
        value = encode_statistics(fact)
        yield name, (_kept(key=statistics_key(1, "c40"), value=value),), fact


def _heads() -> Written:
    head = Head(7, 31, 10, 42, 812, 30, 4)
    for name, fact in (
        ("plain", head),
        ("before-a-model", Head(None, None, 0, 0, 0, 0, 0)),
        ("second-embedding", head._replace(embedding_since=6)),
    ):
        yield name, (_kept(key=head_key(1), value=encode_head(fact)),), fact


def _dead_letters() -> Written:
    headers = _typed(JSON, ("traceparent", None))
    record = Record(1, 42, b"item", b'{"vector": []}', AT_MS, headers)
    error = RecordError(Reason.DIMENSION, "0 dimensions, but expected 3")
    huge = RecordError(Reason.TOO_LARGE, "9 bytes, but limits.max_record_bytes is 8")
    for name, given, why in (
        ("verbatim", record, error),
        ("too-large", record._replace(timestamp_ms=None, headers=()), huge),
    ):
        letter = _kept(dead_letter(given, topic="in", to="in.dlq", error=why, stage="decode"))
        yield name, (letter,), _read_dead_letter((letter,))


def _read_dead_letter(records: tuple[Record, ...]) -> Any:
    (letter,) = records
    return {
        "key": letter.key, "value": letter.value,
        "headers": {name: None if v is None else v.decode() for name, v in letter.headers},
    }  # fmt: skip


def _letters() -> Written:
    """As `eddy dlq` reads them: each reason, all that can be left out, and strangers' words."""
    lost = Record(1, 42, b"k" * 600, b"vast", AT_MS, _typed(JSON, ("filler", b"x" * 33_000)))
    for reason in Reason:
        error = RecordError(reason, f"it is {reason}")
        letter = dead_letter(lost, topic="in", to="in.dlq", error=error, stage="assign")
        record = _kept(letter._replace(value=None))  # which is no part of what is told
        yield str(reason), (record,), read_letter(record)
    strange = {
        "partition": b"-1", "offset": b"9" * 30, "timestamp": b"soon", "topic": b"\xff\x1b[2J",
        "value.bytes": b"1e9", "exception.class.name": None, "something.new": b"1",
    }  # fmt: skip
    headers = tuple((f"eddy.errors.{name}", text) for name, text in strange.items())
    record = _kept(key=None, value=None, headers=headers)
    yield "strange", (record,), read_letter(record)


# --- what the reclusterer writes and reads --------------------------------------------------------


def _model(revision: int, **more: Any) -> Model:
    centroids = np.array([[1, 0, 0], [0, 1 + revision, 0]], np.float32)
    manifest = Manifest(
        epoch=7, revision=revision, metric="euclidean", dimensions=D, embedding_model="e5",
        clusters=("c1", "c40"), max_component=256.0, input_policy="compact",
        digest=digest(centroids), next_cluster_number=41, fitted_items=17, fitted_inertia=0.125,
        fitted_offsets=(4, 0), created_at_ms=AT_MS, **more,
    )  # fmt: skip
    fitted = centroids.copy()
    fitted[1, 1] = 1.0
    quantiles = np.arange(2 * N_QUANTILES, dtype=np.float32).reshape(2, -1) / 8
    return Model(
        manifest, centroids, np.array([9, 8], np.int64), np.array([0.25, 0.5]),
        np.array([0.375, 0.625]), quantiles, fitted,
    )  # fmt: skip


def _models() -> Written:
    first, moved = _model(0), _model(1)
    fading = _model(0, half_life_s=3600.0, landmark_ms=AT_MS, embedding_since=6)
    labels = [label_record("c40", "numbers", "")]
    for name, steps, facts in (
        ("first", [model_records(first, "")], {"newest": first, "labels": {}}),
        (
            "revision-and-label",
            [model_records(first, ""), model_records(moved, "", previous=first), labels],
            {"newest": moved, "labels": {"c40": "numbers"}},
        ),
        ("forgetting", [model_records(fading, "")], {"newest": fading, "labels": {}}),
    ):
        written = [one for step in steps for one in step]
        records = tuple(_kept(one)._replace(offset=i) for i, one in enumerate(written))
        yield name, records, facts
    first = dataclasses.replace(
        first, mean_distances=np.zeros(2), quantiles=np.zeros((2, N_QUANTILES), np.float32)
    )
    written = model_records(first, "")
    short = _EDV1.size + 4 * D + 16  # without what a profile knows
    records = tuple(
        _kept(one._replace(value=one.value[:short] if b"/" in one.key else one.value))
        for one in written
        if one.key is not None and one.value is not None
    )
    yield "without-tails", records, {"newest": first, "labels": {}}


def _read_model(records: tuple[Record, ...]) -> Any:
    fold = ModelFold()
    fold.fold(records)
    assert fold.n_ignored == 0
    return {"newest": fold.newest, "labels": fold.labels}


def _lifecycle() -> Written:
    installed = Lifecycle(
        "7/model/installed", LifecycleType.INSTALLED, 7, 0, AT_MS, reason="age",
        inertia_before=0.5, inertia_after=0.25, moved=0.125,
    )  # fmt: skip
    split = Lifecycle(
        "7/c1/split", LifecycleType.SPLIT, 7, 0, AT_MS, "c1", (), ("c40", "c41"), 812, 0.75, "a",
        "command-1",
    )  # fmt: skip
    for envelope, policy in EVENTS.items():
        for event in (installed, split):
            value, headers = encode_lifecycle(event, policy)
            record = _kept(key=event.key, value=value, headers=headers)
            yield f"{event.type}-{envelope}", (record,), event


def _drift() -> Written:
    alarm = Drift(
        "7.31/c1/occupancy/raised/1772366400123", "raised", "cluster", "c1", "occupancy",
        9.3125, 8.75, 0.125, 10_000, 4096, 7, 31, AT_MS, ("c1", "c40"),
    )  # fmt: skip
    cleared = alarm._replace(
        id="7.31/model/churn/cleared/1772366400123", state="cleared", scope="model", cluster=None,
        clusters=(),
    )  # fmt: skip
    for envelope, policy in EVENTS.items():
        for event in (alarm, cleared):
            value, headers = encode_drift(event, policy)
            record = _kept(key=event.key, value=value, headers=headers)
            yield f"{event.state}-{envelope}", (record,), event


def _commands() -> Written:
    for command in (
        Command("a", "recluster"),
        Command("b", "recluster", requested_by="ada", reason="drift", cold=True, force=True),
        Command("c", "rollback", epoch=6),
        Command("d", "split", cluster="c1"),
        Command("e", "merge", clusters=("c1", "c40")),
        Command("f", "label", cluster="c1", label="numbers"),
    ):
        key, value = encode_command(command)
        yield f"{command.type}-{command.id}", (_kept(key=key, value=value),), command


class Form(NamedTuple):
    """How the records of a form are made, and read."""

    written: Callable[[], Written]
    read: Callable[[tuple[Record, ...]], Any]
    optional: tuple[str, ...] = ()
    """Fields of the JSON value that a reader does not need; they came later, or may be absent."""
    is_open: bool = True
    """Whether the value is JSON of ours, to which a minor version may add fields."""


def _value_reader(decoder: Callable[[bytes], Any]) -> Callable[[tuple[Record, ...]], Any]:
    return lambda records: decoder(records[0].value or b"")


FORMS = {
    "input": Form(_input, _read_input, is_open=False),
    "change": Form(_changes, _value_reader(decode_change), ("metadata", "typicality")),
    "assignment": Form(_assignments, _value_reader(decode_assignment)),
    "item-vector": Form(_vectors, _read_vector, is_open=False),
    "statistics": Form(_statistics, _value_reader(decode_statistics), is_open=False),
    "head": Form(_heads, _value_reader(decode_head), ("embedding_since",)),
    "dead-letter": Form(_dead_letters, _read_dead_letter, is_open=False),
    "letter": Form(_letters, lambda records: read_letter(records[0]), is_open=False),
    "model": Form(_models, _read_model, ("forgetting", "embedding_since")),
    "lifecycle": Form(
        _lifecycle,
        _value_reader(decode_lifecycle),
        ("reason", "inertia_before", "inertia_after", "moved"),
    ),
    "drift": Form(_drift, _value_reader(decode_drift), ("clusters",)),
    "command": Form(_commands, lambda records: decode_command(records[0]), is_open=False),
}
