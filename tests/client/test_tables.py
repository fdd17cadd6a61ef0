"""Results as tables of Arrow and pandas."""

from __future__ import annotations

import sys

import pytest

from pipeline.client.tables import columns, to_arrow, to_pandas
from pipeline.errors import UsageError


def test_items_become_a_table_of_arrow(client):
    pytest.importorskip("pyarrow", reason="the extra [parquet] is not installed")

    table = client.items().to_arrow()

    assert table.column_names == ["item", "cluster", "label", "distance"]
    assert set(table["item"].to_pylist()) == {row.item for row in client.items()}


def test_clusters_become_a_frame_of_pandas(client):
    pytest.importorskip("pandas", reason="pandas is not installed")

    frame = client.clusters().to_pandas()

    assert frame["size"].sum() == client.stats().items
    assert str(frame["born_at"].dtype).startswith("datetime64")


def test_nested_facts_become_text_and_lists(client):
    table = columns(client.changes(item="item-0"))

    assert table["model"][0].startswith("1.")
    assert columns([]) == {}
    assert columns(client.trending(window="24h"))["sparkline"][0].__class__ is list


@pytest.mark.parametrize(("make", "library"), [(to_arrow, "pyarrow"), (to_pandas, "pandas")])
def test_without_the_library_it_says_what_to_install(monkeypatch, make, library):
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(UsageError, match=f"needs {library}: pip install"):
        make([])
