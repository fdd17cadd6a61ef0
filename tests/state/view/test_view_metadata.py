"""Metadata of items is what was said last, found by value, and takes the bytes that are stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.state.view.metadata import MAX_KEYS, VALUE_BYTES, MetadataTable, is_value

values = st.one_of(
    st.sampled_from(["a", "b", "1", "true"]), st.booleans(), st.sampled_from([1, 2, 1.0, 2.5])
)
entries = st.dictionaries(st.sampled_from(["k", "l", "m"]), values, max_size=3)


@settings(deadline=None)
@given(history=st.lists(st.tuples(st.integers(0, 90), st.one_of(st.none(), entries)), max_size=60))
def test_a_row_says_what_it_was_given_last(history):
    table, truth = MetadataTable(), {}
    for row, metadata in history:
        if metadata is None:
            table.clear(np.array([row]))
            truth.pop(row, None)
        else:
            table.put(row, metadata)
            truth[row] = metadata

    for row in range(91):
        assert table.get(row) == truth.get(row, {})
    for text in ("a", "1", "1.0", "2.5", "true", "nobody", ""):
        fits = table.fits([("k", text)], 91)
        told = [row for row in truth if "k" in truth[row] and is_value(truth[row]["k"], text)]
        assert np.flatnonzero(fits).tolist() == sorted(told)
    both = table.fits([("k", "a"), ("l", "true")], 91)
    assert (both == (table.fits([("k", "a")], 91) & table.fits([("l", "true")], 91))).all()
    for row in range(91):
        table.clear(np.array([row]))
    assert table._value_bytes == 0
    assert not any(column.codes_of for column in table._columns.values())


@pytest.mark.parametrize(("value", "text", "fits"), [
    ("python", "python", True), ("5", "5", True), (5, "5", True), (5.0, "5", True),
    (True, "true", True), (True, "1", False), (1, "true", False), ("True", "true", False),
    (0.1, "1e-1", True), (float("1e308"), "inf", False), ("nan", "nan", True), (5, "0x5", False),
])  # fmt: skip
def test_values_are_written_as_json_has_them(value, text, fits):
    assert is_value(value, text) is fits


def test_values_that_come_and_go_take_no_room():
    table = MetadataTable()
    for turn in range(5000):
        table.put(7, {"seen": f"at {turn}"})

    assert len(table._columns["seen"].values) <= 3
    assert table.n_bytes < 1000


def test_an_item_takes_the_bytes_that_are_stated():
    n, table = 10_000, MetadataTable()
    for row in range(n):
        table.put(row, {"section": f"s{row % 10}", "name": f"package-{row:06}"})

    per_item = table.n_bytes / n

    assert per_item <= 1.25 * 2 * 4 + VALUE_BYTES + len("package-000000") + 1


def test_what_there_is_no_room_for_is_left_out_and_counted():
    table = MetadataTable(max_bytes=10_000)
    for row in range(200):
        table.put(row, {"name": f"{row}"})
    assert table.n_bytes <= 10_000
    assert table.n_left_out > 0
    assert table.get(0) == {"name": "0"}

    wide = MetadataTable()
    wide.put(0, {f"k{i}": i for i in range(MAX_KEYS + 5)})
    assert wide.n_left_out == 5
    assert len(wide.get(0)) == MAX_KEYS
