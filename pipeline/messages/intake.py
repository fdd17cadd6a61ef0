"""Sifting a batch of input records: which vectors it brings, and what is wrong with the others.

The batch is looked at as a whole wherever that is cheaper: keys are checked in one join, headers
once for each distinct tuple of them, native vectors as one matrix. A doubt about the whole is
settled record by record, by the same rules, so the answer for one record never depends on its
neighbours. JSON comes through the two functions that `pipeline.messages.codec` hands in: it is
the only door to the library.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Reason, RecordError
from pipeline.messages.policy import (
    JSON,
    MAX_KEY_BYTES,
    MAX_METADATA_BYTES,
    NATIVE,
    RAW,
    EmbeddingPolicy,
    LimitPolicy,
)
from pipeline.messages.records import Headers, Record
from pipeline.messages.vectors import (
    Rows,
    dimension_error,
    float32_row,
    merge,
    read_native,
    read_raw,
    stored_form,
)

_FORMS = (NATIVE, RAW, JSON)
_FIELDS = frozenset({"vector", "embedding_model", "sequence", "metadata"})
_SCALARS = frozenset({str, int, float, bool})
_NUMBERS = frozenset({int, float})
_MAX_SEQUENCE = 2**64 - 1
_SHOWN_CHARACTERS = 80  # of what others wrote, in a sentence

Parse = Callable[[bytes], Any]
Dump = Callable[[Any], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A batch of input records, parallel to them but for ``vectors``."""

    vectors: NDArray[np.float32]
    """(n_vectors, n_dims), C order, writable: the good upserts in order, as they are stored."""
    rows: NDArray[np.int32]
    """(n_records,) the record's row in ``vectors``; -1: a tombstone or a dead letter."""
    sequences: list[int]
    """0: none."""
    metadata: dict[int, Mapping[str, Any]]
    """By record, where one was given; records with equal headers share one."""
    errors: dict[int, RecordError]
    """By record: the dead letters."""
    next_vectors: NDArray[np.float32] | None = None
    """(n_next_vectors, n_next_dims) those of the next embedding model, likewise; None: none is
    among them."""
    next_rows: dict[int, int] = field(default_factory=dict)
    """By record: the row in ``next_vectors``; ``rows`` says -1 of these records."""


class _Meaning(NamedTuple):
    """What a tuple of headers says."""

    form: str
    metadata: dict[str, Any] | None
    error: RecordError | None
    is_named: bool = False
    """Whether the embedding model is among it."""


def decode_batch(
    records: Sequence[Record],
    embedding: EmbeddingPolicy,
    limits: LimitPolicy,
    parse: Parse,
    dump: Dump,
) -> Decoded:
    """The batch as one of a single embedding model; see `pipeline.messages.codec.decode`."""
    n_dims = embedding.dimensions
    if not records:
        empty = np.empty((0, n_dims), np.float32)
        return Decoded(empty, np.empty(0, np.int32), [], {}, {})
    _, _, keys, values, _, headers = zip(*records, strict=True)
    meanings = {given: _meaning(given, embedding, parse) for given in set(headers)}
    errors = _screen(keys, values, limits)
    live = [i for i, value in enumerate(values) if value is not None]
    if errors:
        live = [i for i in live if i not in errors]

    metadata: dict[int, Mapping[str, Any]] = {}
    groups: dict[str, list[int]] = {}
    if len(meanings) == 1:
        (meaning,) = meanings.values()
        if meaning.error is not None:
            errors |= dict.fromkeys(live, meaning.error)
        elif live:
            groups[meaning.form] = live
            if meaning.metadata is not None:
                metadata = dict.fromkeys(live, meaning.metadata)
    else:
        for i in live:
            meaning = meanings[headers[i]]
            if meaning.error is not None:
                errors[i] = meaning.error
                continue
            groups.setdefault(meaning.form, []).append(i)
            if meaning.metadata is not None:
                metadata[i] = meaning.metadata

    parts = []
    for form, indices in groups.items():
        chosen = [values[i] for i in indices]
        if form == JSON:
            named = [meanings[headers[i]].is_named for i in indices] if embedding.must_name else []
            rows, given = _read_json(chosen, named, embedding, parse, dump)
            metadata |= {indices[position]: value for position, value in given.items()}
        else:
            rows = (read_native if form == NATIVE else read_raw)(chosen, n_dims)
        parts.append(_placed(rows, indices))
    read = merge(parts, n_dims, errors)
    return _judged(read, len(records), embedding, metadata)


def metadata_of(value: Any) -> dict[str, Any]:
    """Metadata out of parsed JSON: an object of texts, numbers and booleans; or RecordError."""
    if type(value) is not dict:
        message = f"metadata is {_kind(value)}, but must be an object"
        raise RecordError(Reason.DECODE, message)
    for entry in value.values():
        if type(entry) not in _SCALARS:
            message = f"metadata holds {_kind(entry)}, but only text, numbers and booleans may be"
            raise RecordError(Reason.DECODE, message)
    return value


# --- key and headers ------------------------------------------------------------------------------


def _screen(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], limits: LimitPolicy
) -> dict[int, RecordError]:
    """What is wrong with sizes and keys."""
    largest = max([len(value) for value in values if value is not None], default=0)
    if largest <= limits.max_record_bytes and _are_keys(keys):
        return {}
    errors = {}
    for i, (key, value) in enumerate(zip(keys, values, strict=True)):
        if value is not None and len(value) > limits.max_record_bytes:
            message = (
                f"{len(value)} bytes, but limits.max_record_bytes is {limits.max_record_bytes}"
            )
            errors[i] = RecordError(Reason.TOO_LARGE, message)
            continue
        problem = _key_problem(key)
        if problem is not None:
            errors[i] = RecordError(Reason.KEY, problem)
    return errors


def _are_keys(keys: Sequence[bytes | None]) -> bool:
    """Whether all keys are good, at the price of one."""
    try:
        lengths = list(map(len, keys))  # type: ignore[arg-type]  # None is what is looked for
        # a line break between them is ASCII, so it never completes a torn character
        b"\n".join(keys).decode()  # type: ignore[arg-type]
    except (TypeError, UnicodeDecodeError):
        return False
    return min(lengths) > 0 and max(lengths) <= MAX_KEY_BYTES


def _key_problem(key: bytes | None) -> str | None:
    if key is None:
        return "there is no key"
    if not key:
        return "the key is empty"
    if len(key) > MAX_KEY_BYTES:
        return f"the key has {len(key)} bytes, but at most {MAX_KEY_BYTES} are allowed"
    try:
        key.decode()
    except UnicodeDecodeError as error:
        return f"the key is not UTF-8 at byte {error.start}"
    return None


def _meaning(headers: Headers, embedding: EmbeddingPolicy, parse: Parse) -> _Meaning:
    """What headers say; of a name that occurs twice the last one counts, null is empty."""
    form: str = embedding.content_type
    if not headers and not embedding.must_name:
        return _Meaning(form, None, None)
    given = {name: value or b"" for name, value in headers}
    model = given.get("embedding-model", b"").decode("utf-8", "replace")
    metadata, error = None, None
    try:
        if "content-type" in given:
            form = given["content-type"].decode("utf-8", "replace").strip().lower()
            if form not in _FORMS:
                message = f"{_shown(form)} is unknown; known are {', '.join(_FORMS)}"
                raise RecordError(Reason.CONTENT_TYPE, message)
        _check_model(model, embedding)
        if not model and form != JSON:  # JSON has a field for it
            _check_named(embedding)
        if "eddy-metadata" in given:
            _check_metadata_size(len(given["eddy-metadata"]))
            metadata = metadata_of(parse(given["eddy-metadata"]))
    except RecordError as found:
        error = found.kept()
    return _Meaning(form, metadata, error, bool(model))


def _check_model(model: str, embedding: EmbeddingPolicy) -> None:
    """An empty name says as little as none."""
    if model and embedding.model is not None and model != embedding.model:
        message = f"made by {_shown(model)}, but expected {_shown(embedding.model)}"
        raise RecordError(Reason.EMBEDDING_MODEL, message)


def _check_named(embedding: EmbeddingPolicy) -> None:
    """A record that names no model counts as one of the first that there was."""
    if embedding.must_name:
        message = f"names no embedding model, but expected {_shown(embedding.model)}"
        raise RecordError(Reason.EMBEDDING_MODEL, message)


def _check_metadata_size(n_bytes: int) -> None:
    if n_bytes > MAX_METADATA_BYTES:
        message = f"metadata has {n_bytes} bytes, but at most {MAX_METADATA_BYTES} are allowed"
        raise RecordError(Reason.DECODE, message)


# --- values ---------------------------------------------------------------------------------------


def _read_json(
    values: Sequence[bytes],
    named: Sequence[bool],
    embedding: EmbeddingPolicy,
    parse: Parse,
    dump: Dump,
) -> tuple[Rows, dict[int, dict[str, Any]]]:
    """Rows and metadata of JSON values; ``named``: whose headers name the model, where one must."""
    positions, vectors, sequences = [], [], []
    metadata: dict[int, dict[str, Any]] = {}
    errors: dict[int, RecordError] = {}
    for position, value in enumerate(values):
        try:
            given = _fields(parse(value))
            sequence = _sequence(given)
            model = _model(given)
            _check_model(model, embedding)
            if embedding.must_name and not model and not named[position]:
                _check_named(embedding)
            if "metadata" in given:
                described = metadata_of(given["metadata"])
                _check_metadata_size(len(dump(described)))
                metadata[position] = described
            vector = _vector(given["vector"], embedding.dimensions)
        except RecordError as error:
            errors[position] = error.kept()
            continue
        positions.append(position)
        vectors.append(vector)
        sequences.append(sequence)
    matrix = np.stack(vectors) if vectors else np.empty((0, embedding.dimensions), np.float32)
    return Rows(positions, matrix, sequences, errors), metadata


def _fields(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise RecordError(Reason.DECODE, f"the value is {_kind(value)}, but must be an object")
    unknown = value.keys() - _FIELDS
    if unknown:
        message = f"{_shown(min(unknown))} is no field; there are {', '.join(sorted(_FIELDS))}"
        raise RecordError(Reason.DECODE, message)
    if "vector" not in value:
        raise RecordError(Reason.DECODE, "there is no vector")
    return value


def _sequence(given: Mapping[str, Any]) -> int:
    sequence = given.get("sequence", 0)
    if type(sequence) is not int or not 0 <= sequence <= _MAX_SEQUENCE:
        message = f"sequence is {_shown(sequence)}, but must be a whole number, 0 to 2**64 - 1"
        raise RecordError(Reason.DECODE, message)
    return sequence


def _model(given: Mapping[str, Any]) -> str:
    model = given.get("embedding_model", "")
    if type(model) is not str:
        message = f"embedding_model is {_kind(model)}, but must be text"
        raise RecordError(Reason.DECODE, message)
    return model


def _vector(given: Any, n_dims: int) -> NDArray[np.float32]:
    if type(given) is str:
        try:
            value = binascii.a2b_base64(given, strict_mode=True)
        except ValueError as error:  # also of text that is not ASCII
            raise RecordError(Reason.DECODE, f"the vector is no base64: {error}") from error
        rows = read_raw([value], n_dims)
        if rows.errors:
            raise rows.errors[0]
        row: NDArray[np.float32] = rows.matrix[0]
        return row
    if type(given) is not list:
        message = f"the vector is {_kind(given)}, but must be a list of numbers or base64"
        raise RecordError(Reason.DECODE, message)
    foreign = set(map(type, given)) - _NUMBERS
    if foreign:
        names = ", ".join(sorted(kind.__name__ for kind in foreign))
        raise RecordError(Reason.DECODE, f"the vector holds {names} among its numbers")
    if len(given) != n_dims:
        raise dimension_error(len(given), n_dims)
    return float32_row(np.array(given, np.float64))


# --- vectors --------------------------------------------------------------------------------------


def _placed(rows: Rows, indices: list[int]) -> Rows:
    """Positions in a group -> positions in the batch."""
    if len(rows.positions) == len(indices):
        return rows._replace(positions=indices)
    return Rows(
        [indices[position] for position in rows.positions],
        rows.matrix,
        rows.sequences,
        {indices[position]: error for position, error in rows.errors.items()},
    )


def _judged(
    read: Rows, n_records: int, embedding: EmbeddingPolicy, metadata: dict[int, Mapping[str, Any]]
) -> Decoded:
    vectors, found = stored_form(
        read.matrix,
        cosine=embedding.metric == "cosine",
        largest=embedding.largest_component,
        is_half=embedding.dtype == "float16",
    )
    errors, positions, numbers = read.errors, read.positions, read.sequences
    if found:
        errors = errors | {positions[row]: error for row, error in found.items()}
        kept = [row for row in range(len(positions)) if row not in found]
        vectors = vectors[kept]
        positions = [positions[row] for row in kept]
        numbers = [numbers[row] for row in kept]
    rows = np.full(n_records, -1, np.int32)
    rows[positions] = np.arange(len(positions), dtype=np.int32)
    if len(positions) == n_records:
        sequences = numbers
    else:
        sequences = [0] * n_records
        for position, number in zip(positions, numbers, strict=True):
            sequences[position] = number
    if errors and metadata:
        metadata = {i: value for i, value in metadata.items() if i not in errors}
    return Decoded(vectors, rows, sequences, metadata, errors)


def _kind(value: Any) -> str:
    """What a JSON value is, for a sentence."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value: object) -> str:
    """What others wrote, short enough for a header."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
