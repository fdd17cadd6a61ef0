"""What is fuzzed: a name, a function of bytes, and seeds.

A target is through when the result is good or the error is the one that is documented; anything
else it lets out, and that is a finding.
"""

from __future__ import annotations

import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np

from pipeline.cli.audit import forms
from pipeline.config import PREFIX, load, options, variable
from pipeline.errors import ConfigError, RecordError, UsageError
from pipeline.messages.codec import (
    decode,
    decode_assignment,
    decode_change,
    decode_drift,
    decode_head,
    decode_lifecycle,
    decode_statistics,
    decode_vector,
    encode_statistics,
    record_metadata,
    record_timestamp,
)
from pipeline.messages.commands import decode_command, encode_command
from pipeline.messages.embedding import record_model, record_offset, successor_item
from pipeline.messages.manifest import decode_manifest
from pipeline.messages.model import ModelFold
from pipeline.messages.policy import (
    JSON,
    RAW,
    EmbeddingPolicy,
    NamedEmbeddingPolicy,
    NextEmbedding,
)
from pipeline.messages.records import Record
from pipeline.state.snapshot import (
    Identity,
    Marks,
    SnapshotError,
    SnapshotRows,
    SnapshotWriter,
    open_snapshot,
)
from tests.fuzz.frames import Frame, blob, record_frame, records_frame
from tests.fuzz.letters import (
    LIMITS,
    check_dead_letter,
    letter_seed,
    run_dead_letter,
    run_letter,
)
from tests.golden.files import load as load_golden
from tests.golden.files import versions
from tests.golden.forms import D

POLICIES = (
    EmbeddingPolicy(dimensions=D, model="e5"),
    EmbeddingPolicy(dimensions=D, metric="cosine"),
    EmbeddingPolicy(dimensions=D, content_type=JSON),
    EmbeddingPolicy(dimensions=D, content_type=RAW, metric="cosine"),
    NamedEmbeddingPolicy(dimensions=D, model="e6", content_type=JSON),
    EmbeddingPolicy(dimensions=D, max_component=2.0**15, dtype="float16"),
    EmbeddingPolicy(dimensions=D, content_type=RAW, metric="cosine", dtype="float16"),
    EmbeddingPolicy(dimensions=D, model="e5", next=NextEmbedding(model="e6", dimensions=2)),
)


class Target(NamedTuple):
    """Something that takes bytes of others."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def _golden(*names: str) -> Iterator[tuple[Record, ...]]:
    for version in versions():
        for case in load_golden(version):
            if case.form in names:
                yield case.records


def _values(*names: str) -> Callable[[], Iterator[bytes]]:
    return lambda: (r.value for records in _golden(*names) for r in records if r.value)


# --- input ----------------------------------------------------------------------------------------


def _input_seeds() -> Iterator[bytes]:
    found = [record for records in _golden("input") for record in records]
    for number in range(len(POLICIES)):
        for record in found:
            yield bytes([number]) + records_frame([record])
        yield bytes([number]) + records_frame(found)


def run_input(data: bytes) -> None:
    """Decoding never raises, keeps its promises, and every dead letter fits its topic."""
    frame = Frame(data)
    policy, records = POLICIES[frame.byte() % len(POLICIES)], frame.records()
    batch = decode(records, policy, LIMITS)
    assert np.isfinite(batch.vectors).all()
    assert np.abs(batch.vectors).max(initial=0) <= policy.largest_component
    assert sorted(batch.rows[batch.rows >= 0].tolist()) == list(range(len(batch.vectors)))
    for i, record in enumerate(records):
        is_good = batch.rows[i] >= 0 or i in batch.next_rows
        assert is_good == (record.value is not None and i not in batch.errors)
        assert 0 <= batch.sequences[i] < 2**64
        alone = decode([record], policy, LIMITS)
        assert str(alone.errors.get(0)) == str(batch.errors.get(i)), "judged by its neighbours"
        if batch.rows[i] >= 0:
            assert alone.vectors[0].tobytes() == batch.vectors[batch.rows[i]].tobytes()
        if i in batch.errors:
            check_dead_letter(record, batch.errors[i])


def run_differential(data: bytes) -> None:
    """The product's decoder and that of ``eddy verify``, which share nothing, say the same."""
    frame = Frame(data)
    policy, records = POLICIES[frame.byte() % (len(POLICIES) - 1)], frame.records()
    ours = decode(records, policy, LIMITS)
    theirs = forms.decode(records, policy, LIMITS)
    for i in range(len(records)):
        error = ours.errors.get(i)
        faults = theirs.faults.get(i, forms.NO_FAULT)
        if error is not None:
            assert error.reason.value in faults, (str(error), sorted(faults))
            continue
        assert not faults, f"good here, but there {sorted(faults)}"
        assert (ours.rows[i] >= 0) == (theirs.rows[i] >= 0)
        if ours.rows[i] >= 0:
            assert ours.sequences[i] == theirs.sequences[i]
            vector = ours.vectors[ours.rows[i]]
            assert vector.tobytes() == theirs.vectors[theirs.rows[i]].tobytes()


def _dead_letter_seeds() -> Iterator[bytes]:
    for records in _golden("input", "dead-letter"):
        yield b"\x01" + blob(b"3 dimensions") + record_frame(records[0])


def _letter_seeds() -> Iterator[bytes]:
    return (letter_seed(records[0]) for records in _golden("input", "dead-letter"))


# --- what we wrote --------------------------------------------------------------------------------


def _only_record_errors(*decoders: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        for one in decoders:
            with suppress(RecordError):
                one(data)

    return run


def run_statistics(data: bytes) -> None:
    """What is read is what was written."""
    with suppress(RecordError):
        row = decode_statistics(data)
        assert len(encode_statistics(row)) == len(data)


def run_headers(data: bytes) -> None:
    """The headers beside a stored vector."""
    record = Frame(data).record()
    for read in (record_timestamp, record_metadata, record_model, record_offset):
        with suppress(RecordError):
            read(record)
    successor_item(record.key or b"")
    with suppress(RecordError):
        decode_vector(record.value or b"", D)


def run_model(data: bytes) -> None:
    """A fold takes whatever lies in the topic."""
    fold = ModelFold()
    records = Frame(data).records()
    for record in records:  # as a tail
        fold.fold([record])
    fold.fold(records)
    for epoch in list(fold.epochs):
        fold.model_of(epoch)


def run_command(data: bytes) -> None:
    """A command, or words."""
    record = Frame(data).record()
    with suppress(RecordError):
        command = decode_command(record)
        key, value = encode_command(command)
        assert decode_command(Record(0, 0, key, value)) == command


def _frames(*names: str) -> Callable[[], Iterator[bytes]]:
    return lambda: (record_frame(record) for records in _golden(*names) for record in records)


def _model_seeds() -> Iterator[bytes]:
    for records in _golden("model"):
        yield records_frame(records)
        for record in records:
            yield records_frame([record])


# --- configuration --------------------------------------------------------------------------------


def run_yaml(data: bytes) -> None:
    """A file of any bytes."""
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(data)
        file.flush()
        with suppress(ConfigError):
            load(Path(file.name), {})


def run_environment(data: bytes) -> None:
    """Variables of any names; no files, since what lies in those is not ours to fuzz."""
    frame, given = Frame(data), {}
    known = list(options())
    for _ in range(frame.byte() % 5):
        number, text = frame.byte(), frame.text()
        name = variable(known[number]) if number < len(known) else PREFIX + frame.text()
        if not name.lower().endswith("_file"):
            given[name] = text
    given.pop(f"{PREFIX}CONFIG", None)
    with suppress(ConfigError):
        load(None, given)


def run_sets(data: bytes) -> None:
    """Flags of any text."""
    frame = Frame(data)
    known = list(options())
    sets = []
    for _ in range(frame.byte() % 5):
        number = frame.byte()
        name = f"{known[number]}=" if number < len(known) else ""
        sets.append(name + frame.text())
    with suppress(ConfigError, UsageError):
        load(None, {}, sets)


def _yaml_seeds() -> Iterator[bytes]:
    yield b"clustering: {clusters: 500}\nembedding:\n  next: {model: e6}\nkafka: {a.b: yes}\n"
    yield b"a: &a [1]\nb: *a\nevents: {metadata: [x, y]}\n"
    yield b"batching: {max_wait_s: 1.0e-3}\ninstance: !!str 1\n<<: {x: 1}\n"


def _text_seeds() -> Iterator[bytes]:
    for number, text in ((0, b"name"), (4, b"6"), (9, b"true"), (20, b"[a, b]"), (255, b"X")):
        yield b"\x01" + bytes([number]) + blob(text) + blob(b"kafka.x=1")


# --- snapshots ------------------------------------------------------------------------------------

IDENTITY = Identity(
    partition=1, group="g", topics={"in": "a", "out": "b"}, n_dims=D, dtype="float32",
    metric="euclidean", max_component=256.0, embedding_model="e5", embedding_since=None,
    metadata=("section",), input_policy="compact",
)  # fmt: skip
_HEAD, _SLICE, _CRC = struct.Struct("<8sII"), struct.Struct("<4sIQII"), struct.Struct("<I")


def _parts() -> Iterator[bytes]:
    """A good snapshot, cut where its checksums stand, as a frame of its parts."""
    row = SnapshotRows(
        [b"item", b"another"], np.ones((2, D), np.float32), ("c1", "c40"),
        np.array([1, 0], np.int32), np.array([0, 9], np.uint64), np.array([40, 41]),
        np.array([True, False]), np.array([-1, 1_772_366_400_123]), {1: {"section": "python"}},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path, marks = Path(folder) / "1.snapshot", Marks(40, 7, 8, 9)
        writer = SnapshotWriter(
            path, IDENTITY, marks, created_at_ms=1_772_366_400_123, published=frozenset({"c1"})
        )
        for rows in (row, replace(row, metadata={})):
            writer.add(rows)
        writer.finish(42)
        whole = path.read_bytes()
    ends = [_HEAD.size + _HEAD.unpack_from(whole)[-1] + _CRC.size]
    while whole[ends[-1] :].startswith(b"ROWS"):
        _, n, *lengths = _SLICE.unpack_from(whole, ends[-1])
        n_bytes = n * (4 * 8 + 4 * D + 5) + sum(lengths)
        ends.append(ends[-1] + _SLICE.size + _CRC.size)
        ends.append(ends[-1] + n_bytes + -n_bytes % 8 + _CRC.size)
    ends.append(len(whole))
    bodies = [whole[a : b - _CRC.size] for a, b in zip([0, *ends], ends, strict=False)]
    bodies[-1] = bodies[-1][8:-8]  # the footer's tag, checksum and size are made anew
    yield b"\x01" + b"".join(map(blob, bodies))
    yield b"\x00" + whole


def read_snapshot(path: Path) -> int:
    """How many rows it has; all of them fit together."""
    loaded = open_snapshot(path, IDENTITY)
    n_rows = 0
    for rows in loaded.slices():
        n = len(rows)
        n_rows += n
        assert rows.vectors.shape == (n, D)
        for column in (rows.clusters, rows.sequences, rows.offsets, rows.kept):
            assert column.shape == (n,)
        assert all(0 <= label < len(rows.cluster_ids) for label in rows.clusters.tolist())
    assert n_rows == loaded.n_rows
    return n_rows


def run_snapshot(data: bytes) -> None:
    """Any bytes; and parts of any bytes whose checksums are right, since those hide what is in."""
    frame = Frame(data)
    with tempfile.NamedTemporaryFile(suffix=".snapshot") as file:
        file.write(sealed(frame) if frame.byte() else frame.rest())
        file.flush()
        with suppress(SnapshotError):
            read_snapshot(Path(file.name))


def sealed(frame: Frame) -> bytes:
    bodies = []
    while (body := frame.blob()) and len(bodies) < 8:
        bodies.append(body)
    whole, checksum = b"", 0
    for body in bodies[:-1]:
        crc = _CRC.pack(crc32(body))
        whole, checksum = whole + body + crc, crc32(crc, checksum)
    for body in bodies[-1:]:
        size = struct.pack("<Q", len(whole) + 8 + len(body) + 8 + _CRC.size)
        end = b"DONE" + _CRC.pack(checksum) + body + size
        whole += end + _CRC.pack(crc32(end))
    return whole


TARGETS: Mapping[str, Target] = {
    "input": Target(run_input, _input_seeds),
    "differential": Target(run_differential, _input_seeds),
    "dead-letter": Target(run_dead_letter, _dead_letter_seeds),
    "letter": Target(run_letter, _letter_seeds),
    "events": Target(
        _only_record_errors(decode_change, decode_lifecycle, decode_drift),
        _values("change", "lifecycle", "drift"),
    ),
    "assignment": Target(
        _only_record_errors(decode_assignment, decode_head), _values("assignment", "head")
    ),
    "statistics": Target(run_statistics, _values("statistics")),
    "headers": Target(run_headers, _frames("item-vector")),
    "manifest": Target(
        _only_record_errors(decode_manifest),
        lambda: (value for value in _values("model")() if value.startswith(b"{")),
    ),
    "model": Target(run_model, _model_seeds),
    "command": Target(run_command, _frames("command")),
    "snapshot": Target(run_snapshot, _parts),
    "yaml": Target(run_yaml, _yaml_seeds),
    "environment": Target(run_environment, _text_seeds),
    "sets": Target(run_sets, _text_seeds),
}


def run(name: str, data: bytes) -> None:
    """One input into one target; a warning is a finding too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TARGETS[name].run(data)
