"""The file of a snapshot: what was written is read, and what is not that is refused."""

from __future__ import annotations

import dataclasses
import struct
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.state import snapshot
from pipeline.state.members import Members, write_members
from pipeline.state.snapshot import (
    Identity,
    Marks,
    SnapshotError,
    SnapshotRows,
    SnapshotWriter,
    capture,
    open_snapshot,
)

N_DIMS = 3
IDENTITY = Identity(
    partition=2,
    group="t.assigner",
    topics={"in": "A", "t.cluster-assignments": "B"},
    n_dims=N_DIMS,
    dtype="float32",
    metric="euclidean",
    max_component=256.0,
    embedding_model=None,
    embedding_since=None,
    metadata=("kind",),
    input_policy="compact",
)
MARKS = Marks(next_offset=40, assignments=30, vectors=20, statistics=10)


HALF = dataclasses.replace(IDENTITY, dtype="float16")


def rows_of(keys, seed=0, metadata=None, dtype="float32"):
    rng, n = np.random.default_rng(seed), len(keys)
    return SnapshotRows(
        keys=keys,
        vectors=rng.random((n, N_DIMS), np.float32).astype(dtype),
        cluster_ids=("c1", "c7"),
        clusters=rng.integers(0, 2, n).astype(np.int32),
        sequences=rng.integers(0, 2**64, n, np.uint64),
        offsets=rng.integers(0, 2**62, n),
        kept=rng.integers(0, 2, n).astype(np.bool_),
        timestamps=rng.integers(-1, 2**60, n),
        metadata=metadata or {},
    )


def write(path, slices, *, identity=IDENTITY, next_offset=50):
    writer = SnapshotWriter(
        path, identity, MARKS, created_at_ms=123, published=frozenset({"c1", "c2"})
    )
    for rows in slices:
        writer.add(rows)
    return writer.finish(next_offset)


def read(path, identity=IDENTITY):
    return list(open_snapshot(path, identity).slices())


def assert_equal(got, wanted):
    assert list(got.keys) == list(wanted.keys)
    assert all(type(key) is bytes for key in got.keys)
    assert [got.cluster_ids[i] for i in got.clusters] == [
        wanted.cluster_ids[i] for i in wanted.clusters
    ]
    for name in ("vectors", "sequences", "offsets", "kept", "timestamps"):
        a, b = getattr(got, name), getattr(wanted, name)
        assert a.dtype == b.dtype and a.shape == b.shape
        assert a.tobytes() == b.tobytes()
    assert got.metadata == wanted.metadata


KEYS = st.lists(st.binary(min_size=1, max_size=20), max_size=8, unique=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(KEYS, max_size=4), st.integers(0, 2**32), st.sampled_from([IDENTITY, HALF]))
def test_rows_come_back_as_they_were_written(tmp_path_factory, slices, seed, identity):
    path = tmp_path_factory.mktemp("s") / "2.snapshot"
    written = [
        rows_of(
            keys, seed + i, {j: {"kind": str(j)} for j in range(0, len(keys), 2)}, identity.dtype
        )
        for i, keys in enumerate(slices)
    ]

    n_bytes = write(path, written, identity=identity)
    loaded = open_snapshot(path, identity)

    for got, wanted in zip(loaded.slices(), written, strict=True):
        assert_equal(got, wanted)
    assert (loaded.marks, loaded.next_offset, loaded.created_at_ms) == (MARKS, 50, 123)
    assert loaded.published == {"c1", "c2"}
    assert loaded.n_rows == sum(map(len, slices))
    assert loaded.n_bytes == n_bytes == path.stat().st_size


def test_every_flipped_byte_is_refused_with_a_sentence(tmp_path):
    path = tmp_path / "2.snapshot"
    write(path, [rows_of([b"a", b"bc"], metadata={1: {"kind": "x"}}), rows_of([b"d"])])
    good = path.read_bytes()

    for at in range(len(good)):
        for flip in (0x01, 0x80, 0xFF):
            bad = bytearray(good)
            bad[at] ^= flip
            path.write_bytes(bad)
            with pytest.raises(SnapshotError, match=r"\w+ \w+ \w+"):
                read(path)


def test_every_truncation_and_anything_added_is_refused(tmp_path):
    path = tmp_path / "2.snapshot"
    write(path, [rows_of([b"a", b"bc"]), rows_of([b"d"])])
    good = path.read_bytes()

    for n in range(len(good)):
        path.write_bytes(good[:n])
        with pytest.raises(SnapshotError):
            read(path)
    for tail in (b"\0", good[-36:], good):
        path.write_bytes(good + tail)
        with pytest.raises(SnapshotError):
            read(path)


def test_float16_takes_half_the_disk_and_a_damaged_slice_is_refused(tmp_path):
    path, keys = tmp_path / "2.snapshot", [b"%d" % i for i in range(100)]
    n_bytes = write(path, [rows_of(keys)])
    n_half = write(path, [rows_of(keys, dtype="float16")], identity=HALF)

    assert n_bytes - n_half == 100 * N_DIMS * 2
    good = path.read_bytes()
    for n in range(0, len(good), 37):
        path.write_bytes(good[:n])
        with pytest.raises(SnapshotError):
            read(path, HALF)


def test_slices_that_were_swapped_are_refused(tmp_path):
    path = tmp_path / "2.snapshot"
    write(path, [rows_of([b"a"], 1), rows_of([b"b"], 2)])
    good = path.read_bytes()
    a, b = (i for i in range(len(good)) if good[i : i + 4] == b"ROWS")
    end = good.index(b"DONE")

    path.write_bytes(good[:a] + good[b:end] + good[a:b] + good[end:])

    with pytest.raises(SnapshotError, match="footer counts"):
        read(path)


@pytest.mark.parametrize(
    ("name", "value"),
    {
        "partition": 3,
        "group": "other",
        "topics": {"in": "A", "t.cluster-assignments": "made anew"},
        "n_dims": 4,
        "dtype": "float16",
        "metric": "cosine",
        "max_component": 1.0,
        "embedding_model": "m",
        "embedding_since": 3,
        "metadata": (),
        "input_policy": "delete",
    }.items(),
)
def test_a_snapshot_of_something_else_is_refused(tmp_path, name, value):
    path = tmp_path / "2.snapshot"
    write(path, [rows_of([b"a"])])

    with pytest.raises(SnapshotError, match=f"it is of {name} "):
        open_snapshot(path, dataclasses.replace(IDENTITY, **{name: value}))


def test_every_field_of_the_identity_has_a_refusal():
    tested = test_a_snapshot_of_something_else_is_refused.pytestmark[0].args[1]

    assert {name for name, _ in tested} == set(Identity.__slots__)


def test_another_version_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "2.snapshot"
    monkeypatch.setattr(snapshot, "VERSION", 2)
    write(path, [rows_of([b"a"])])
    monkeypatch.undo()

    with pytest.raises(SnapshotError, match="format version 2, and this is 1"):
        open_snapshot(path, IDENTITY)


def test_an_absurd_length_is_refused_before_anything_of_it_is_allocated(tmp_path):
    path = tmp_path / "2.snapshot"
    write(path, [rows_of([b"a"])])
    good = path.read_bytes()
    at = good.index(b"ROWS")
    for lengths in ((2**32 - 1, 1, 2, 2), (1, 2**63, 2, 2), (1, 1, 2**32 - 1, 2)):
        head = struct.pack("<4sIQII", b"ROWS", *lengths)
        path.write_bytes(
            good[:at] + head + struct.pack("<I", crc32(head)) + good[at + len(head) + 4 :]
        )
        with pytest.raises(SnapshotError, match="bytes are left|are left"):
            read(path)


def test_what_was_not_finished_leaves_the_snapshot_that_was_there(tmp_path):
    path = tmp_path / "2.snapshot"
    write(path, [rows_of([b"old"])])
    killed = SnapshotWriter(path, IDENTITY, MARKS, created_at_ms=1, published=frozenset())
    killed.add(rows_of([b"new"]))

    assert [list(rows.keys) for rows in read(path)] == [[b"old"]]
    killed.abandon()
    assert [p.name for p in tmp_path.iterdir()] == ["2.snapshot"]
    write(path, [rows_of([b"new"])])
    assert [list(rows.keys) for rows in read(path)] == [[b"new"]]


def test_a_file_that_is_not_there_or_no_file_is_refused(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(SnapshotError, match="cannot be read"):
            open_snapshot(path, IDENTITY)


def test_a_file_that_was_replaced_after_it_was_opened_is_refused(tmp_path):
    path = tmp_path / "2.snapshot"
    write(path, [rows_of([b"a"])])
    loaded = open_snapshot(path, IDENTITY)
    write(path, [rows_of([b"b"])])

    with pytest.raises(SnapshotError, match="changed|footer counts"):
        list(loaded.slices())


def test_capture_copies_the_members_of_a_span_and_no_free_rows():
    members = Members(N_DIMS)
    keys = [b"%d" % i for i in range(10)]
    n = np.arange(10)
    write_members(
        members,
        keys,
        np.repeat(n[:, None], N_DIMS, axis=1).astype(np.float32),
        (n % 3).astype(np.int32),
        np.zeros(10),
        n.astype(np.uint64),
        n,
        n % 2 == 0,
        n,
        None,
    )
    members.metadata = {b"4": {"kind": "x"}, b"9": {"kind": "y"}}
    members.remove([b"3", b"5"])

    rows = capture(members, ["c1", "c2", "c3"], 2, 8)
    members.vectors[:] = -1

    assert list(rows.keys) == [b"2", b"4", b"6", b"7"]
    assert rows.vectors[:, 0].tolist() == [2, 4, 6, 7]
    assert [rows.cluster_ids[i] for i in rows.clusters] == ["c3", "c2", "c1", "c2"]
    assert rows.offsets.tolist() == rows.timestamps.tolist() == [2, 4, 6, 7]
    assert rows.kept.tolist() == [True, True, True, False]
    assert rows.metadata == {1: {"kind": "x"}}
    assert list(capture(members, ["c1", "c2", "c3"], 8, 20).keys) == [b"8", b"9"]
