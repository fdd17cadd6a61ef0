"""What users write, decoded a second time: every form, and every fault of a record.

Written for ``eddy verify`` from the published rules alone (the table of input forms and
dead letters), with struct, the standard library's JSON and numpy: a codec that is wrong
must not be its own judge.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from pipeline.messages.policy import EmbeddingPolicy, LimitPolicy
from pipeline.messages.records import Record

NATIVE = "application/vnd.eddy.vector"
BARE = "application/octet-stream"
JSON = "application/json"
NO_FAULT: frozenset[str] = frozenset()

_HEADER = struct.Struct("<4sBBHIQ")
_MAX_KEY_BYTES = 512
_MAX_METADATA_BYTES = 4096


def lane_sums(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum each row (n, d) in the published order: 32 running sums, then halves onto halves."""
    n, n_dims = squares.shape
    width = -(-max(n_dims, 1) // 32) * 32
    if width != n_dims:
        squares = np.concatenate([squares, np.zeros((n, width - n_dims))], axis=1)
    lanes = squares[:, :32].copy()
    for start in range(32, width, 32):
        lanes += squares[:, start : start + 32]
    for half in (16, 8, 4, 2, 1):
        lanes = lanes[:, :half] + lanes[:, half : 2 * half]
    return np.asarray(lanes[:, 0], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Read:
    """What decoding made of a chunk of records."""

    vectors: NDArray[np.float32]
    """(n_vectors, d), as they are compared: unit vectors under cosine."""
    rows: list[int]
    """Per record the row in ``vectors``; -1 for a tombstone or a bad one."""
    sequences: list[int]
    faults: dict[int, frozenset[str]]


def item_id(key: bytes | None) -> str | None:
    if not key or len(key) > _MAX_KEY_BYTES:
        return None
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        return None


def decode(records: Sequence[Record], embedding: EmbeddingPolicy, limits: LimitPolicy) -> Read:
    """Decode records of any form; a fault of one leaves the others as they are."""
    n_dims = embedding.dimensions
    plain = 20 + 4 * n_dims
    fast = [
        embedding.content_type == NATIVE
        and not embedding.must_name
        and not record.headers
        and record.value is not None
        and len(record.value) == plain
        and plain <= limits.max_record_bytes
        for record in records
    ]
    faults: dict[int, frozenset[str]] = {}
    sequences = [0] * len(records)
    places: list[int] = []
    parts: list[NDArray[np.float32]] = []
    chosen = [i for i, is_fast in enumerate(fast) if is_fast]
    if chosen:
        block = np.frombuffer(b"".join(records[i].value or b"" for i in chosen), np.uint8)
        block = block.reshape(len(chosen), plain)
        expected = np.frombuffer(_HEADER.pack(b"EDV1", 0, 0, 0, n_dims, 0)[:12], np.uint8)
        fits = (block[:, :12] == expected).all(axis=1)
        numbers = block[:, 12:20].copy().view("<u8")[:, 0].tolist()
        for i, fit, number in zip(chosen, fits.tolist(), numbers, strict=True):
            fast[i] = fit
            sequences[i] = number
        places += [i for i in chosen if fast[i]]
        parts.append(np.ascontiguousarray(block[fits, 20:]).view("<f4").astype(np.float32))
    for i, record in enumerate(records):
        if fast[i]:
            if item_id(record.key) is None:
                faults[i] = frozenset({"key"})
            continue
        found, vector, sequences[i] = _decode_one(record, embedding, limits)
        if found:
            faults[i] = found
        if vector is not None:
            places.append(i)
            parts.append(vector.reshape(1, n_dims))
    vectors = np.concatenate(parts) if parts else np.zeros((0, n_dims), np.float32)
    vectors = _judge_numbers(vectors, places, embedding, faults)
    rows = [-1] * len(records)
    for row, i in enumerate(places):
        if i not in faults:
            rows[i] = row
    return Read(vectors, rows, sequences, faults)


def _judge_numbers(
    vectors: NDArray[np.float32],
    places: Sequence[int],
    embedding: EmbeddingPolicy,
    faults: dict[int, frozenset[str]],
) -> NDArray[np.float32]:
    """Add the faults of the numbers themselves; return the vectors as they are compared."""
    if not len(vectors):
        return vectors
    vectors = _judge_range(vectors, places, embedding, faults)
    return held(vectors, embedding.dtype)


def held(vectors: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """Vectors as an assigner with this ``state.dtype`` holds them, without what float16 loses."""
    if dtype == "float32":
        return vectors
    with np.errstate(over="ignore", invalid="ignore"):  # of rows that are dead letters
        return vectors.astype(np.float16).astype(np.float32)


def _judge_range(
    vectors: NDArray[np.float32],
    places: Sequence[int],
    embedding: EmbeddingPolicy,
    faults: dict[int, frozenset[str]],
) -> NDArray[np.float32]:
    """Add the faults; return what the numbers are before they are rounded to be held."""
    largest = np.abs(vectors).max(axis=1)
    finite = np.isfinite(largest)
    for row in np.flatnonzero(~finite).tolist():
        reasons = {"not_finite"}
        if np.isinf(vectors[row]).any():
            reasons.add("out_of_range")  # a number beyond float32 is either
        faults[places[row]] = faults.get(places[row], NO_FAULT) | reasons
    if embedding.metric != "cosine":
        for row in np.flatnonzero(finite & (largest > embedding.largest_component)).tolist():
            faults[places[row]] = faults.get(places[row], NO_FAULT) | {"out_of_range"}
        return vectors
    for row in np.flatnonzero(largest == 0).tolist():
        faults[places[row]] = faults.get(places[row], NO_FAULT) | {"zero_vector"}
    wide = np.where(finite[:, None], vectors, np.float32(0)).astype(np.float64)
    norms = np.sqrt(lane_sums(wide * wide))
    norms[norms == 0] = 1.0
    return (wide / norms[:, None]).astype(np.float32)


def _decode_one(
    record: Record, embedding: EmbeddingPolicy, limits: LimitPolicy
) -> tuple[frozenset[str], NDArray[np.float32] | None, int]:
    """Faults, the vector before any judgement of its numbers, and the sequence."""
    faults: set[str] = set()
    if item_id(record.key) is None:
        faults.add("key")
    if record.value is None:
        return frozenset(faults), None, 0
    if len(record.value) > limits.max_record_bytes:
        faults.add("too_large")
    headers = {name: value or b"" for name, value in record.headers}
    content_type: str = embedding.content_type
    if "content-type" in headers:
        content_type = headers["content-type"].decode("utf-8", "replace").strip().lower()
    models = {headers.get("embedding-model", b"").decode("utf-8", "replace")}
    vector: NDArray[np.float32] | None = None
    sequence = 0
    try:
        if "eddy-metadata" in headers:
            if len(headers["eddy-metadata"]) > _MAX_METADATA_BYTES:
                faults.add("decode")
            _check_metadata(_parse(headers["eddy-metadata"]))
    except (ValueError, RecursionError):
        faults.add("decode")
    try:
        if content_type == NATIVE:
            vector, sequence = _native(record.value, embedding.dimensions, faults)
        elif content_type == BARE:
            vector = _bare(record.value, embedding.dimensions, faults)
        elif content_type == JSON:
            vector, sequence, model = _json(record.value, embedding.dimensions, faults)
            models.add(model)
        else:
            faults.add("content_type")
    except (ValueError, struct.error, binascii.Error, RecursionError):
        faults.add("decode")
        vector = None
    if embedding.model is not None and models - {"", embedding.model}:
        faults.add("embedding_model")
    if embedding.must_name and not models - {""}:  # then it counts as one of the first
        faults.add("embedding_model")
    return frozenset(faults), vector, sequence


def _native(value: bytes, n_dims: int, faults: set[str]) -> tuple[NDArray[np.float32] | None, int]:
    magic, dtype, flags, reserved, dims, sequence = _HEADER.unpack_from(value)
    if magic != b"EDV1" or dtype not in (0, 1) or flags or reserved:
        raise ValueError("no such header")
    if dims != n_dims:
        faults.add("dimension")
    if len(value) != 20 + dims * (2 if dtype else 4):
        faults.add("decode")
    if faults & {"dimension", "decode"}:
        return None, 0
    return np.frombuffer(value, "<f2" if dtype else "<f4", offset=20).astype(np.float32), sequence


def _bare(value: bytes, n_dims: int, faults: set[str]) -> NDArray[np.float32] | None:
    if len(value) != 4 * n_dims:
        # A whole number of floats is a vector of another dimension, and also a wrong length.
        faults.update({"decode", "dimension"} if len(value) % 4 == 0 else {"decode"})
        return None
    return np.frombuffer(value, "<f4").astype(np.float32)


def _json(
    value: bytes, n_dims: int, faults: set[str]
) -> tuple[NDArray[np.float32] | None, int, str]:
    told = _parse(value)
    if not isinstance(told, dict) or not told.keys() <= {
        "vector",
        "embedding_model",
        "sequence",
        "metadata",
    }:
        raise ValueError("not an embedding change")
    model = told.get("embedding_model") or ""
    if not isinstance(model, str):
        raise ValueError("embedding_model is no text")
    sequence = told.get("sequence", 0)
    if not isinstance(sequence, int) or isinstance(sequence, bool) or not 0 <= sequence < 2**64:
        raise ValueError("sequence is no count")
    if told.get("metadata") is not None:
        _check_metadata(told["metadata"])
    vector = told.get("vector")
    if isinstance(vector, str):
        return _bare(base64.b64decode(vector, validate=True), n_dims, faults), sequence, model
    if not isinstance(vector, list) or any(type(x) not in (int, float) for x in vector):
        raise ValueError("vector is neither numbers nor base64")
    if len(vector) != n_dims:
        faults.add("dimension")
        return None, sequence, model
    with np.errstate(over="ignore"):
        try:
            return np.array(vector, np.float64).astype(np.float32), sequence, model
        except OverflowError:
            faults.update({"not_finite", "out_of_range", "decode"})
            return None, sequence, model


def _check_metadata(value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError("metadata is no object")
    if any(not isinstance(entry, (str, int, float, bool)) for entry in value.values()):
        raise ValueError("metadata holds more than texts, numbers and booleans")


def _parse(value: bytes) -> Any:
    return json.loads(value.decode("utf-8"), parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def sequence_of(record: Record) -> int:
    """The sequence of a record whose dimensions nobody knows any more; 0: none, as far as seen."""
    value = record.value or b""
    if value[:4] == b"EDV1" and len(value) >= _HEADER.size:
        return int(_HEADER.unpack_from(value)[-1])
    try:
        told = _parse(value)
        return int(told["sequence"]) if isinstance(told, dict) else 0
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
