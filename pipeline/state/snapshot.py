"""A partition's members as a file: an accelerator of restores, never the truth.

The snapshot is fuzzy, like a checkpoint of ARIES (Mohan et al., 1992): rows are captured slice by
slice while records, sweeps and removals go on, so no two slices need be of one moment. What
changed meanwhile lies in the changelogs behind the `Marks`, noted before the first slice, and
replaying them over the rows is idempotent: an item's last assignment decides, and a row counts
only if its source offset is that of the assignment. One item may be in two slices for that reason.

    header   magic, format version, length, JSON (identity, marks, ...), CRC-32
    slice    tag, lengths, CRC-32 of both   arrays, keys, JSON   CRC-32 of these
    ...
    footer   tag, rows, next offset, size of the file, checksum of all checksums, CRC-32

Everything is little-endian, and nothing is pickled. A length is compared with the size of the file
before anything of it is allocated. Files are read, not mapped: a disk that fails under a mapping
ends the process by a signal, where a failed read is an `OSError` and so a refusal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, Final, cast
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from pipeline.messages.codec import json_bytes
from pipeline.state.members import Members, Metadata
from pipeline.state.snapshot_bytes import (
    CRC,
    CheckedFile,
    check_sum,
    is_entry,
    is_offset,
    is_strings,
    parse,
    read_checked,
    read_exactly,
)
from pipeline.state.snapshot_bytes import SnapshotError as SnapshotError

VERSION: Final = 1
MAGIC: Final = b"EDDYSNAP"
ALIGNMENT: Final = 8  # arrays of a slice are read where they lie

_HEADER: Final = Struct("<8sII")  #      magic, version, bytes of JSON
_SLICE: Final = Struct("<4sIQII")  #     tag, rows, bytes of keys, of cluster ids, of metadata
_FOOTER: Final = Struct("<4sIQqQ")  #    tag, checksum of all checksums, rows, next offset, size
_ROWS_TAG: Final = b"ROWS"
_END_TAG: Final = b"DONE"
_STORED: Final = {"float32": "<f4", "float16": "<f2"}
"""By `Identity.dtype`, how a vector's numbers lie there."""
_COLUMNS: Final = (("sequences", "<u8"), ("offsets", "<i8"), ("timestamps", "<i8"), ("ends", "<i8"))


@dataclass(frozen=True, slots=True)
class Identity:
    """What a snapshot is of. One that differs in anything is of something else."""

    partition: int
    group: str
    topics: Mapping[str, str]
    """Input, assignments, vectors, statistics and model: name -> id, which a topic that is made
    anew does not inherit."""
    n_dims: int
    dtype: str
    """Of the vectors: one that rounds them otherwise holds others."""
    metric: str
    max_component: float
    embedding_model: str | None
    embedding_since: int | None
    """As the manifest says it."""
    metadata: tuple[str, ...]
    """The keys that are kept with an item."""
    input_policy: str


@dataclass(frozen=True, slots=True)
class Marks:
    """From where to replay: offsets noted before the first row was captured."""

    next_offset: int
    """Of the input."""
    assignments: int
    vectors: int
    statistics: int


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotRows:
    """Some members; all arrays are parallel to ``keys``."""

    keys: Sequence[bytes]
    vectors: NDArray[Any]
    """(n_rows, n_dims) float32 or float16, as the identity says."""
    cluster_ids: tuple[str, ...]
    clusters: NDArray[np.int32]
    """(n_rows,) indices into ``cluster_ids``."""
    sequences: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    kept: NDArray[np.bool_]
    timestamps: NDArray[np.int64]
    """Milliseconds since 1970; -1: none."""
    metadata: dict[int, Metadata] = field(default_factory=dict)
    """By position, of those that have some."""

    def __len__(self) -> int:
        return len(self.keys)


def capture(members: Members, cluster_ids: Sequence[str], start: int, stop: int) -> SnapshotRows:
    """Copy the members in the rows ``start:stop``, between two transactions.

    Parameters
    ----------
    cluster_ids : (n_labels,)
        The cluster of each label.
    """
    rows: Any = members.occupied(start, stop)
    keys = members.names(rows)
    # a slice is copied three times as fast as the rows of a list
    if len(rows) == min(stop, members.n_rows) - start:
        rows = slice(start, start + len(rows))
    used, clusters = np.unique(members.labels[rows], return_inverse=True)
    metadata = {}
    if members.metadata:
        metadata = {i: members.metadata[k] for i, k in enumerate(keys) if k in members.metadata}
    return SnapshotRows(
        keys=keys,
        vectors=members.vectors[rows].copy(),
        cluster_ids=tuple(cluster_ids[label] for label in used.tolist()),
        clusters=clusters.astype(np.int32),
        sequences=members.sequences[rows].copy(),
        offsets=members.offsets[rows].copy(),
        kept=members.kept[rows].copy(),
        timestamps=members.timestamps[rows].copy(),
        metadata=metadata,
    )


class SnapshotWriter:
    """Writes beside the file that is there, and takes its place only once everything is on disk.

    Parameters
    ----------
    path
        Of the snapshot; its folder must be there.
    suffix
        Of the unfinished file's name: nobody else may write one with it.

    Raises
    ------
    OSError
        From every method: the disk is full, the folder read-only or gone. `abandon` it then.
    SnapshotError
        From `add`: metadata that JSON cannot hold.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        marks: Marks,
        *,
        created_at_ms: int,
        published: frozenset[str],
        suffix: str = "tmp",
    ) -> None:
        self._n_dims = identity.n_dims
        self._stored = _STORED[identity.dtype]
        self._n_rows = 0
        self._file = CheckedFile(path, suffix)
        header = json_bytes(
            {
                "identity": asdict(identity),
                "marks": asdict(marks),
                "created_at_ms": created_at_ms,
                "published": sorted(published),
            }
        )
        self._file.write(_HEADER.pack(MAGIC, VERSION, len(header)), header)

    def add(self, rows: SnapshotRows) -> None:
        """Write a slice; it may be empty."""
        n_rows = len(rows)
        assert rows.vectors.shape == (n_rows, self._n_dims)
        keys = b"".join(rows.keys)
        try:
            clusters, metadata = json_bytes(rows.cluster_ids), json_bytes([*rows.metadata.items()])
        except TypeError as error:
            raise SnapshotError(f"metadata cannot be written as JSON: {error}") from error
        ends = np.cumsum([len(key) for key in rows.keys], dtype=np.int64)
        parts: list[Any] = [
            *(np.asarray(x, "<i8") for x in (rows.sequences.view(np.int64), rows.offsets)),
            *(np.asarray(x, "<i8") for x in (rows.timestamps, ends)),
            np.ascontiguousarray(rows.vectors, self._stored),
            np.asarray(rows.clusters, "<i4"),
            np.asarray(rows.kept, np.uint8),
        ]
        parts = [np.ascontiguousarray(x).reshape(-1).view(np.uint8).data for x in parts]
        parts += [keys, clusters, metadata]
        parts.append(bytes(-sum(len(part) for part in parts) % ALIGNMENT))
        lengths = len(keys), len(clusters), len(metadata)
        self._file.write(_SLICE.pack(_ROWS_TAG, n_rows, *lengths))
        self._file.write(*parts)
        self._n_rows += n_rows

    def finish(self, next_offset: int) -> int:
        """Make it the snapshot, for good once this returns; how many bytes it has.

        Parameters
        ----------
        next_offset
            The partition's, after the last slice.
        """
        size, checksum = self._file.size_after(_FOOTER.size), self._file.checksum
        self._file.write(_FOOTER.pack(_END_TAG, checksum, self._n_rows, next_offset, size))
        self._file.finish()
        return size

    def abandon(self) -> None:
        """Leave nothing of it behind; the snapshot that was there stays."""
        self._file.abandon()


@dataclass(frozen=True, slots=True, eq=False)
class LoadedSnapshot:
    """A snapshot whose header and footer are good, and which is of what was asked for."""

    path: Path
    identity: Identity
    marks: Marks
    created_at_ms: int
    """When the marks were noted, by the clock of the writer."""
    next_offset: int
    """Of the partition, after the last slice."""
    published: frozenset[str]
    """Clusters that had statistics in the topic when the marks were noted."""
    n_rows: int
    """In all slices."""
    n_bytes: int
    _first: int
    _checksum: int

    def slices(self) -> Iterator[SnapshotRows]:
        """The rows, in the slices they were written in, each verified before it is handed out.

        Raises
        ------
        SnapshotError
            Also after some slices: what they held is then not to be used.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                yield from self._read(file)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _read(self, file: BinaryIO) -> Iterator[SnapshotRows]:
        end = self.n_bytes - _FOOTER.size - CRC.size
        if os.fstat(file.fileno()).st_size != self.n_bytes:
            raise SnapshotError("the file was changed while it was read")
        file.seek(0)
        head = read_exactly(file, self._first)
        at, n_rows, checksum = self._first, 0, crc32(head[-CRC.size :])
        stored = np.dtype(_STORED[self.identity.dtype])
        n_vector = stored.itemsize * self.identity.n_dims
        while at < end:
            head, crc = read_checked(file, _SLICE.size, end - at)
            checksum, at = crc32(crc, checksum), at + _SLICE.size + CRC.size
            tag, n, *lengths = _SLICE.unpack(head)
            n_bytes = n * (8 * len(_COLUMNS) + n_vector + 5) + sum(lengths)
            n_bytes += -n_bytes % ALIGNMENT
            if tag != _ROWS_TAG:
                raise SnapshotError(f"what stands at byte {at} is no slice")
            body, crc = read_checked(file, n_bytes, end - at)
            checksum, at = crc32(crc, checksum), at + n_bytes + CRC.size
            n_rows += n
            rows = _unpack(body, n, self.identity.n_dims, stored, *lengths)
            if at == end and (n_rows, checksum) != (self.n_rows, self._checksum):
                raise SnapshotError("the slices are not those that the footer counts")
            yield rows
        if (n_rows, checksum) != (self.n_rows, self._checksum):
            raise SnapshotError("the slices are not those that the footer counts")


def open_snapshot(path: Path, identity: Identity) -> LoadedSnapshot:
    """Look at a snapshot's header and footer; its rows are verified as they are read.

    Raises
    ------
    SnapshotError
        It cannot be read, was cut off or damaged, has another version, or is of something else.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return _open(path, file, identity)
    except OSError as error:
        raise _unreadable(path, error) from error


def _open(path: Path, file: BinaryIO, identity: Identity) -> LoadedSnapshot:
    size = os.fstat(file.fileno()).st_size
    last = _FOOTER.size + CRC.size
    if size < _HEADER.size + CRC.size + last:
        raise SnapshotError(f"it has {size} bytes, which is too short for a snapshot")
    start = read_exactly(file, _HEADER.size)
    magic, version, n_header = _HEADER.unpack(start)
    if magic != MAGIC:
        raise SnapshotError("it does not begin as a snapshot does")
    if version != VERSION:
        raise SnapshotError(f"it is of format version {version}, and this is {VERSION}")
    first = _HEADER.size + n_header + CRC.size
    if first + last > size:
        raise SnapshotError(f"its header is to have {n_header} bytes, but the file has {size}")
    header = read_exactly(file, n_header)
    check_sum(read_exactly(file, CRC.size), crc32(header, crc32(start)), "the header")
    file.seek(size - last)
    footer, _ = read_checked(file, _FOOTER.size, size)
    tag, checksum, n_rows, next_offset, n_bytes = _FOOTER.unpack(footer)
    if tag != _END_TAG or n_bytes != size:
        raise SnapshotError("it does not end as it should: it was cut off, or something was added")
    told = parse(header)
    if not isinstance(told, dict):
        raise SnapshotError("its header does not say what it should")
    _check_identity(told.get("identity"), identity)
    marks, published = told.get("marks"), told.get("published")
    names = Marks.__slots__
    if not (
        isinstance(marks, dict)
        and set(marks) == {*names}
        and all(is_offset(marks[name]) for name in names)
        and is_offset(told.get("created_at_ms"))
        and is_strings(published)
        and 0 <= marks["next_offset"] <= next_offset
    ):
        raise SnapshotError("its header does not say what it should")
    return LoadedSnapshot(
        path=path,
        identity=identity,
        marks=Marks(**{name: marks[name] for name in names}),
        created_at_ms=told["created_at_ms"],
        next_offset=next_offset,
        published=frozenset(cast("list[str]", published)),
        n_rows=n_rows,
        n_bytes=size,
        _first=first,
        _checksum=checksum,
    )


def _check_identity(told: object, identity: Identity) -> None:
    wanted = parse(json_bytes(asdict(identity)))
    if not isinstance(told, dict) or told.keys() != wanted.keys():
        raise SnapshotError("its header does not say what it is of")
    for name, value in wanted.items():
        if told[name] != value or type(told[name]) is not type(value):
            raise SnapshotError(f"it is of {name} {told[name]!r}, and not of {value!r}")


def _unpack(
    body: bytes,
    n_rows: int,
    n_dims: int,
    stored: np.dtype[Any],
    n_keys: int,
    n_clusters: int,
    n_metadata: int,
) -> SnapshotRows:
    if not body:
        raise SnapshotError("a slice of it is empty")
    columns, at = {}, 0
    for name, dtype in _COLUMNS:
        columns[name] = np.frombuffer(body, dtype, n_rows, at)
        at += 8 * n_rows
    vectors = np.frombuffer(body, stored, n_rows * n_dims, at).reshape(n_rows, n_dims)
    at += vectors.nbytes
    clusters = np.frombuffer(body, "<i4", n_rows, at)
    at += clusters.nbytes
    kept = np.frombuffer(body, np.uint8, n_rows, at)
    at += n_rows
    keys, at = bytes(body[at : at + n_keys]), at + n_keys
    cluster_ids, at = parse(body[at : at + n_clusters]), at + n_clusters
    metadata = parse(body[at : at + n_metadata])
    ends = columns["ends"].tolist()
    starts = [0, *ends[:-1]] if ends else []
    lengths_are_right = all(a <= b for a, b in zip(starts, ends, strict=True))
    if not (lengths_are_right and (ends[-1] if ends else 0) == n_keys):
        raise SnapshotError("the keys of a slice are not as long as it says")
    if not is_strings(cluster_ids):
        raise SnapshotError("the clusters of a slice are no names")
    is_indexed = n_rows == 0 or (clusters.min() >= 0 and clusters.max() < len(cluster_ids))
    if not is_indexed:
        raise SnapshotError("a slice names a cluster that it does not list")
    if not (isinstance(metadata, list) and all(is_entry(x, n_rows) for x in metadata)):
        raise SnapshotError("the metadata of a slice is of no row of it")
    return SnapshotRows(
        keys=[keys[a:b] for a, b in zip(starts, ends, strict=True)],
        vectors=vectors,
        cluster_ids=tuple(cluster_ids),
        clusters=clusters,
        sequences=columns["sequences"],
        offsets=columns["offsets"],
        kept=kept.astype(np.bool_),
        timestamps=columns["timestamps"],
        metadata=dict(metadata),
    )


def _unreadable(path: Path, error: OSError) -> SnapshotError:
    return SnapshotError(f"{path} cannot be read: {error.strerror or error}")
