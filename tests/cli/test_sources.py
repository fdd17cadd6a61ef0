"""Files of embeddings: what is read from them, and how a bad one is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli.sources import Given, Row, open_source
from pipeline.errors import UsageError
from pipeline.messages.vectors import decode_vector

GIVEN = Given(dimensions=3, content_type="application/vnd.eddy.vector")


def lines(path: Path, *values: object) -> Path:
    text = "".join((v if isinstance(v, str) else json.dumps(v)) + "\n" for v in values)
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, ids: Path | None = None, given: Given = GIVEN, after: int = 0) -> list[Row]:
    return list(open_source(path, ids, given).rows(after))


def matrix(folder: Path, rows: int = 4, dtype: str = "float32") -> tuple[Path, Path]:
    np.save(folder / "v.npy", np.arange(3 * rows, dtype=dtype).reshape(rows, 3))
    (folder / "ids.txt").write_text("".join(f"item-{i}\n" for i in range(rows)), encoding="utf-8")
    return folder / "v.npy", folder / "ids.txt"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_a_matrix_of_any_float_becomes_native_records_in_order(tmp_path, dtype):
    rows = read(*matrix(tmp_path, dtype=dtype))

    assert [row.key for row in rows] == [b"item-0", b"item-1", b"item-2", b"item-3"]
    assert [row.number for row in rows] == [1, 2, 3, 4]
    vector, sequence = decode_vector(rows[1].value or b"", 3)
    assert (vector.tolist(), sequence) == ([3.0, 4.0, 5.0], 0)


def test_ids_may_hold_what_unicode_calls_a_line_break_and_may_end_like_on_windows(tmp_path):
    path, ids = matrix(tmp_path, rows=2)
    ids.write_bytes("a\u2028b\r\nc\r\n".encode())

    assert [row.key.decode() for row in read(path, ids)] == ["a\u2028b", "c"]


def test_rows_go_on_after_a_number(tmp_path):
    path, ids = matrix(tmp_path)

    assert [row.number for row in read(path, ids, after=3)] == [4]
    assert read(path, ids, after=4) == []


def test_the_given_sequence_stands_in_every_record_without_its_own(tmp_path):
    given = Given(3, "application/vnd.eddy.vector", sequence=7)
    path = lines(
        tmp_path / "x.jsonl",
        {"item": "a", "vector": [1, 2, 3]},
        {"item": "b", "vector": [1, 2, 3], "sequence": 2**64 - 1},
    )

    sequences = [decode_vector(row.value or b"", 3)[1] for row in read(path, given=given)]

    assert sequences == [7, 2**64 - 1]


def test_a_content_type_header_is_added_only_where_the_topic_expects_another(tmp_path):
    path, ids = matrix(tmp_path, rows=1)

    assert read(path, ids)[0].headers == ()
    assert read(path, ids, Given(3, "application/json"))[0].headers == (
        ("content-type", b"application/vnd.eddy.vector"),
    )


def test_lines_hold_lists_base64_removals_and_metadata(tmp_path):
    packed = base64.b64encode(np.array([1, 2, 3], "<f4").tobytes()).decode()
    path = lines(
        tmp_path / "x.jsonl",
        {"item": "ä", "vector": [1, 2.5, -3]},
        {"item": "b", "vector": packed, "metadata": {"k": 1}, "embedding_model": "m"},
        "",
        {"item": "c", "vector": None},
    )

    a, b, c = read(path)

    assert a.key.decode() == "ä"
    assert decode_vector(a.value or b"", 3)[0].tolist() == [1.0, 2.5, -3.0]
    assert decode_vector(b.value or b"", 3)[0].tolist() == [1.0, 2.0, 3.0]
    assert dict(b.headers) == {"embedding-model": b"m", "eddy-metadata": b'{"k":1}'}
    assert (c.number, c.value) == (4, None)  # the empty line is no row, but it counts


def test_a_last_line_without_an_end_is_a_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"item": "a", "vector": null}\n{"item": "b", "vector": null}')

    source = open_source(path, None, GIVEN)

    assert source.total == 2
    assert [row.key for row in source.rows(1)] == [b"b"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "no JSON"),
        ("[1]", "is no JSON object"),
        ({"vector": [1]}, 'needs "item"'),
        ({"item": 7, "vector": [1]}, 'needs "item"'),
        ({"item": "a"}, 'needs "vector"'),
        ({"item": "a", "vectr": [1]}, "unknown field 'vectr'"),
        ({"item": "a", "vector": ["1", "2"]}, "neither a list of numbers"),
        ({"item": "a", "vector": [True, False]}, "neither a list of numbers"),
        ({"item": "a", "vector": "%%%"}, "no base64"),
        ({"item": "a", "vector": "AAA="}, "no float32 numbers"),
        ({"item": "a", "vector": [1], "sequence": -1}, "sequence must be"),
        ({"item": "a", "vector": [1], "sequence": True}, "sequence must be"),
        ({"item": "a", "vector": [1], "embedding_model": 1}, "must be a string"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(tmp_path, line, sentence):
    path = lines(tmp_path / "x.jsonl", {"item": "a", "vector": [1, 2, 3]}, line)
    rows = open_source(path, None, GIVEN).rows(0)

    assert next(rows).key == b"a"
    with pytest.raises(UsageError, match=r"x\.jsonl line 2: .*") as caught:
        next(rows)
    assert sentence in str(caught.value)


def test_a_number_beyond_float32_is_left_to_the_judge_of_ranges(tmp_path):
    path = lines(tmp_path / "x.jsonl", {"item": "a", "vector": [1e300, 0, 0]})

    assert np.isinf(decode_vector(read(path)[0].value or b"", 3)[0][0])


def test_files_that_do_not_fit_are_refused_before_anything_is_sent(tmp_path):
    path, ids = matrix(tmp_path)
    short = tmp_path / "short.txt"
    short.write_text("a\nb\n")
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2), "float32"))
    np.save(tmp_path / "ints.npy", np.zeros((2, 3), "int64"))
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "x.csv").touch()

    for given, words in [
        ((path, None), "--ids"),
        ((path, short), "has 2 ids, but"),
        ((path, tmp_path / "nowhere"), "is not there"),
        ((tmp_path / "cube.npy", ids), "shape"),
        ((tmp_path / "ints.npy", ids), "int64"),
        ((tmp_path / "torn.npy", ids), "no .npy array"),
        ((tmp_path / "x.csv", None), ".npy .jsonl .parquet"),
        ((lines(tmp_path / "x.jsonl"), ids), "--ids belongs to a .npy"),
    ]:
        with pytest.raises(UsageError) as caught:
            open_source(*given, GIVEN)
        assert words in str(caught.value)
    with pytest.raises(UsageError, match="3 dimensions, but embedding.dimensions is 5"):
        open_source(path, ids, Given(5, "application/vnd.eddy.vector"))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "x.parquet").touch()

    with pytest.raises(UsageError, match=r"pip install 'eddy-stream\[parquet\]'"):
        open_source(tmp_path / "x.parquet", None, GIVEN)


def test_parquet_columns_become_records_and_a_null_vector_a_removal(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="the extra [parquet] is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    for name, kind in [
        ("list", arrow.list_(arrow.float32())),
        ("fixed", arrow.list_(arrow.float64(), 3)),
        ("half", arrow.list_(arrow.float16())),
    ]:
        vectors = [np.array([1, 2, 3], np.float16)] * 2 if name == "half" else [[1.0, 2.0, 3.0]] * 2
        held = arrow.table(
            {
                "item": ["a", "b", "c"],
                "vector": arrow.array([*vectors, None], kind),
                "sequence": [5, None, None],
                "other": ["x", "y", "z"],
            }
        )
        parquet.write_table(held, tmp_path / f"{name}.parquet")

        a, b, c = read(tmp_path / f"{name}.parquet")

        assert decode_vector(a.value or b"", 3)[1] == 5
        assert decode_vector(b.value or b"", 3)[0].tolist() == [1.0, 2.0, 3.0]
        assert c == Row(3, b"c", None)
        assert read(tmp_path / f"{name}.parquet", after=2) == [c]


def test_parquet_without_its_columns_is_refused(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="the extra [parquet] is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"id": ["a"]}), tmp_path / "x.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")

    with pytest.raises(UsageError, match="no column 'item'"):
        open_source(tmp_path / "x.parquet", None, GIVEN)
    with pytest.raises(UsageError, match="no Parquet file"):
        open_source(tmp_path / "torn.parquet", None, GIVEN)
