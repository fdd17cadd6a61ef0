"""A view's parts as a file: what was written is read, and nothing else is ever taken for it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.state.snapshot_bytes import SnapshotError
from pipeline.state.view.snapshot_file import ViewWriter, open_view

PARTS = [
    ("numbers", np.arange(12, dtype=np.int32).reshape(3, 4)),
    ("none", np.empty((0, 4), np.float32)),
    ("texts", [b"", b"a", b"bc\n"]),
    ("no texts", []),
    ("told", {"a": [1, 2.5, True, None, "x"]}),
    ("numbers", np.array([True, False])),
]


@pytest.fixture
def path(tmp_path):
    """A file of these parts."""
    writer = ViewWriter(tmp_path / "one", {"of": "this"})
    for name, part in PARTS:
        writer.add(name, part)
    assert writer.finish() == (tmp_path / "one").stat().st_size
    assert [found.name for found in tmp_path.iterdir()] == ["one"]
    return tmp_path / "one"


def read(path):
    file = open_view(path)
    return file.header, list(file.parts())


def test_what_was_written_is_read(path):
    header, parts = read(path)

    assert header == {"of": "this"}
    for (name, part), (told, found) in zip(PARTS, parts, strict=True):
        assert name == told
        if isinstance(part, np.ndarray):
            assert found.dtype == part.dtype
            np.testing.assert_array_equal(found, part)
        else:
            assert found == part


def test_a_flipped_bit_anywhere_is_noticed(path):
    whole = path.read_bytes()
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        with pytest.raises(SnapshotError):
            read(path)
    path.write_bytes(whole)
    read(path)  # negative control


def test_a_file_that_was_cut_or_added_to_is_noticed(path):
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(SnapshotError):
            read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(SnapshotError):
        read(path)


def test_what_is_given_up_leaves_the_one_that_was_there(path):
    whole = path.read_bytes()
    writer = ViewWriter(path, {"of": "that"}, suffix="other")
    writer.add(*PARTS[0])
    writer.abandon()

    assert path.read_bytes() == whole
    assert [found.name for found in path.parent.iterdir()] == ["one"]


def test_no_objects_are_read(tmp_path):
    writer = ViewWriter(tmp_path / "one", {})
    writer.add("objects", np.array([1, 2], np.complex128))
    writer.finish()

    with pytest.raises(SnapshotError, match="objects"):
        read(tmp_path / "one")
