"""Files of embeddings as rows to produce: ``.npy`` with ids, ``.jsonl``, ``.parquet``.

All three become the native form, one row at a time, so a file of any size passes through little
memory, and so that what is checked before it is sent is the very bytes that are sent.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RecordError, UsageError
from pipeline.messages.codec import json_bytes, json_value
from pipeline.messages.policy import NATIVE
from pipeline.messages.records import Headers
from pipeline.messages.vectors import encode_vector

_FIELDS: Final = frozenset({"item", "vector", "embedding_model", "sequence", "metadata"})
_MAX_SEQUENCE: Final = 2**64 - 1
_PARQUET_ROWS: Final = 1024


class Row(NamedTuple):
    """One record to be; ``number`` is its place in the file, counted from 1."""

    number: int
    key: bytes
    value: bytes | None
    headers: Headers = ()


class Source(Protocol):
    """A file that was opened and looked at."""

    unit: str
    """What its numbers count: line or row."""
    total: int

    def rows(self, after: int) -> Iterator[Row]:
        """Those with a number above ``after``; `UsageError` at the first that cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class Given:
    """What holds for every row of a file."""

    dimensions: int
    content_type: str
    sequence: int = 0
    """For rows that bring none of their own."""
    model: str | None = None
    """The embedding model, for rows that name none."""

    @property
    def headers(self) -> Headers:
        """What the topic's default does not say already: three headers halve the rate."""
        return self.form_headers + self.model_headers(self.model)

    @property
    def form_headers(self) -> Headers:
        """What a value is, unless the topic's default says it."""
        return () if self.content_type == NATIVE else (("content-type", NATIVE.encode()),)

    @staticmethod
    def model_headers(model: str | None) -> Headers:
        """Which embedding model made a vector, if somebody says so."""
        return () if model is None else (("embedding-model", model.encode()),)


def open_source(path: Path, ids: Path | None, given: Given) -> Source:
    """Open a file by its suffix.

    Raises
    ------
    UsageError
        It is not there, is of no known form, or its shape does not fit.
    """
    for needed in (path, ids):
        if needed is not None and not needed.is_file():
            raise UsageError(f"{needed} is not there, or is no file")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        if ids is None:
            raise UsageError(
                f"{path} holds vectors only: name their ids with --ids FILE, one a line"
            )
        return MatrixSource(path, ids, given)
    if ids is not None:
        raise UsageError(f"--ids belongs to a .npy file; {path} brings its ids itself")
    if suffix == ".jsonl":
        return LinesSource(path, given)
    if suffix == ".parquet":
        return ParquetSource(path, given)
    raise UsageError(
        f"{path} ends in {suffix or 'nothing'}; what can be read: .npy .jsonl .parquet"
    )


class MatrixSource:
    """``.npy`` of shape (n, dimensions), any float; mapped, not loaded."""

    unit = "row"

    def __init__(self, path: Path, ids: Path, given: Given) -> None:
        try:
            matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as error:
            raise UsageError(f"{path} is no .npy array: {error}") from error
        if matrix.ndim != 2 or matrix.dtype.kind != "f":
            raise UsageError(
                f"{path} is a {matrix.dtype} array of shape {matrix.shape}, but must be floats of "
                f"shape (n, {given.dimensions})"
            )
        _check_dimensions(path, matrix.shape[1], given.dimensions)
        self._matrix = matrix
        self._given = given
        try:
            # not splitlines: an id may hold what Unicode counts as a line break
            self._ids = ids.read_text("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise UsageError(f"{ids} is not UTF-8: {error}") from error
        self.total = len(matrix)
        if len(self._ids) != self.total:
            raise UsageError(
                f"{ids} has {len(self._ids)} ids, but {path} has {self.total} rows: one id a line"
            )

    def rows(self, after: int) -> Iterator[Row]:
        """See `Source`."""
        headers, sequence = self._given.headers, self._given.sequence
        for i in range(after, self.total):
            key = self._ids[i].removesuffix("\r").encode()
            yield Row(i + 1, key, encode_vector(_float32(self._matrix[i]), sequence), headers)


class LinesSource:
    """``.jsonl``: the fields of the JSON value, with ``item`` beside them."""

    unit = "line"

    def __init__(self, path: Path, given: Given) -> None:
        self._path = path
        self._given = given
        with path.open("rb") as file:
            chunks = iter(lambda: file.read(1 << 20), b"")
            self.total, last = 0, b"\n"
            for chunk in chunks:
                self.total += chunk.count(b"\n")
                last = chunk[-1:]
        self.total += last != b"\n"

    def rows(self, after: int) -> Iterator[Row]:
        """See `Source`; an empty line is no row."""
        with self._path.open("rb") as file:
            for number, line in enumerate(itertools.islice(file, after, None), after + 1):
                if line.strip():
                    try:
                        yield self._row(number, line)
                    except RecordError as error:
                        raise UsageError(f"{self._path} line {number}: {error}") from error
                    except _BadRowError as error:
                        raise UsageError(f"{self._path} line {number}: {error}") from None

    def _row(self, number: int, line: bytes) -> Row:
        fields = json_value(line)
        if not isinstance(fields, dict):
            raise _BadRowError("is no JSON object")
        unknown = fields.keys() - _FIELDS
        if unknown:
            known = ", ".join(sorted(_FIELDS))
            raise _BadRowError(f"unknown field {min(unknown)!r}; the fields are {known}")
        item = fields.get("item")
        if not isinstance(item, str):
            raise _BadRowError('needs "item", a string')
        if "vector" not in fields:
            raise _BadRowError('needs "vector": numbers, base64 of float32, or null to remove')
        if fields["vector"] is None:
            return Row(number, item.encode(), None)

        model, metadata = fields.get("embedding_model"), fields.get("metadata")
        if model is not None and not isinstance(model, str):
            raise _BadRowError('"embedding_model" must be a string')
        headers = list(self._given.form_headers)
        headers += self._given.model_headers(self._given.model if model is None else model)
        if metadata is not None:
            headers.append(("eddy-metadata", json_bytes(metadata)))
        sequence = _sequence(fields.get("sequence"), self._given.sequence)
        return Row(
            number,
            item.encode(),
            encode_vector(_vector(fields["vector"]), sequence),
            tuple(headers),
        )


class ParquetSource:
    """``.parquet`` with columns ``item``, ``vector``, perhaps ``sequence``; others are ignored."""

    unit = "row"

    def __init__(self, path: Path, given: Given) -> None:
        try:
            parquet = importlib.import_module("pyarrow.parquet")
            arrow = importlib.import_module("pyarrow")
        except ImportError as error:
            raise UsageError(f"{path} needs pyarrow: pip install 'eddy-stream[parquet]'") from error
        self._path = path
        self._given = given
        try:
            self._file: Any = parquet.ParquetFile(path)
        except (arrow.ArrowInvalid, OSError) as error:
            raise UsageError(f"{path} is no Parquet file: {error}") from error
        names = set(self._file.schema_arrow.names)
        missing = {"item", "vector"} - names
        if missing:
            raise UsageError(
                f"{path} has no column {min(missing)!r}, but {', '.join(sorted(names))}"
            )
        self._columns = sorted({"item", "vector", "sequence"} & names)
        self.total = int(self._file.metadata.num_rows)

    def rows(self, after: int) -> Iterator[Row]:
        """See `Source`."""
        number = 0
        for batch in self._file.iter_batches(batch_size=_PARQUET_ROWS, columns=self._columns):
            first, number = number, number + batch.num_rows
            if number <= after:
                continue
            items, vectors = batch.column("item"), batch.column("vector")
            has_sequence = "sequence" in self._columns
            for i in range(max(0, after - first), batch.num_rows):
                own = batch.column("sequence")[i].as_py() if has_sequence else None
                try:
                    yield self._row(first + i + 1, items[i].as_py(), vectors[i], own)
                except _BadRowError as error:
                    raise UsageError(f"{self._path} row {first + i + 1}: {error}") from None

    def _row(self, number: int, item: object, vector: Any, own: object) -> Row:
        if not isinstance(item, str):
            raise _BadRowError("item is no string")
        if not vector.is_valid:
            return Row(number, item.encode(), None)
        numbers = np.asarray(vector.values.to_numpy(zero_copy_only=False))
        if numbers.dtype.kind not in "fiu":
            raise _BadRowError("vector is no list of numbers")
        value = encode_vector(_float32(numbers), _sequence(own, self._given.sequence))
        return Row(number, item.encode(), value, self._given.headers)


class _BadRowError(ValueError):
    """Something about one row, said by whoever knows its number."""


def _check_dimensions(path: Path, found: int, configured: int) -> None:
    if found != configured:
        raise UsageError(
            f"{path} has vectors of {found} dimensions, but embedding.dimensions is {configured}"
        )


def _sequence(given: object, otherwise: int) -> int:
    if given is None:
        return otherwise
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= _MAX_SEQUENCE:
        raise _BadRowError("sequence must be a whole number from 0 to 2**64 - 1")
    return given


def _vector(given: object) -> NDArray[np.float32]:
    if isinstance(given, str):
        try:
            packed = base64.b64decode(given, validate=True)
        except binascii.Error as error:
            raise _BadRowError(f"vector is no base64: {error}") from None
        if len(packed) % 4:
            raise _BadRowError(f"vector holds {len(packed)} bytes, which are no float32 numbers")
        return np.frombuffer(packed, "<f4")
    if not isinstance(given, list) or not all(type(x) in (float, int) for x in given):
        raise _BadRowError("vector is neither a list of numbers, nor base64, nor null")
    return _float32(np.array(given, np.float64))


def _float32(numbers: NDArray[Any]) -> NDArray[np.float32]:
    """Rounded; what does not fit becomes infinite, and is refused with the rest of its kind."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)
