"""`eddy produce`: what is in the topic afterwards, whatever went wrong on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.messages.vectors import decode_vector
from tests.cli.console import TOPICS, Console


@pytest.fixture
def in_fives(monkeypatch):
    """Judges and acknowledges five rows at a time."""
    monkeypatch.setattr("pipeline.cli.produce._JUDGED_TOGETHER", 5)
    monkeypatch.setattr("pipeline.cli.produce._ACKNOWLEDGED_TOGETHER", 5)


def jsonl(path: Path, n: int, **bad: object) -> Path:
    """Items 1 to n, one a line; ``line_7=...`` is another vector in line 7."""
    with path.open("w") as file:
        for i in range(1, n + 1):
            vector = bad.get(f"line_{i}", [float(i), 0.0, 0.0])
            file.write(json.dumps({"item": f"item-{i}", "vector": vector}) + "\n")
    return path


def items(eddy: Console) -> list[str]:
    """Keys in the input topic, sorted by their number."""
    held = [r for p in range(TOPICS.partitions) for r in eddy.broker.records(TOPICS.input, p)]
    return sorted(((r.key or b"").decode() for r in held), key=lambda k: int(k.rpartition("-")[2]))


def numbered(first: int, last: int) -> list[str]:
    return [f"item-{i}" for i in range(first, last + 1)]


def test_a_matrix_arrives_bit_by_bit(eddy_with_topics: Console, tmp_path):
    eddy = eddy_with_topics
    vectors = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    (tmp_path / "ids").write_text("".join(f"item-{i}\n" for i in range(7)))

    path, ids = str(tmp_path / "v.npy"), str(tmp_path / "ids")
    assert eddy("produce", path, "--ids", ids, "--sequence", "4", "--json") == 0

    assert eddy.lines[0]["records"] == 7
    found = {}
    for p in range(TOPICS.partitions):
        for record in eddy.broker.records(TOPICS.input, p):
            found[record.key] = decode_vector(record.value or b"", 3)
    for i in range(7):
        vector, sequence = found[f"item-{i}".encode()]
        assert vector.tolist() == vectors[i].tolist()
        assert sequence == 4


def test_lines_arrive_in_order_and_removals_as_tombstones(eddy_with_topics: Console, tmp_path):
    eddy = eddy_with_topics
    path = jsonl(tmp_path / "x.jsonl", 6, line_3=None)

    assert eddy("produce", str(path)) == 0

    assert items(eddy) == numbered(1, 6)
    values = [
        r.value for p in range(TOPICS.partitions) for r in eddy.broker.records(TOPICS.input, p)
    ]
    assert values.count(None) == 1
    assert "6 records in embedding-changes, 1 of them remove an item" in eddy.out
    assert not (tmp_path / "x.jsonl.progress").exists()


@pytest.mark.parametrize(
    ("vector", "sentence"),
    [
        ([1.0, 2.0], "2 dimensions, but expected 3"),
        ([1.0, 1e300, 0.0], "must be finite"),
        ([1.0, 1e9, 0.0], "above 256"),
        ("x", "no base64"),
    ],
)
def test_a_bad_line_is_named_and_everything_before_it_is_in_the_topic(
    eddy_with_topics: Console, tmp_path, in_fives, vector, sentence
):
    eddy = eddy_with_topics
    path = jsonl(tmp_path / "x.jsonl", 20, line_8=vector)

    assert eddy("produce", str(path)) == 2

    assert items(eddy) == numbered(1, 7)
    assert f"{path} line 8: " in eddy.err
    assert sentence in eddy.err
    assert "up to line 7 it is in embedding-changes, --resume goes on after that" in eddy.err
    assert eddy.err.count("\n") == 1


def test_resume_goes_on_after_the_mended_line(eddy_with_topics: Console, tmp_path, in_fives):
    eddy = eddy_with_topics
    path = jsonl(tmp_path / "x.jsonl", 20, line_8=[1.0])
    assert eddy("produce", str(path)) == 2
    jsonl(path, 20)

    assert eddy("produce", str(path), "--resume", "--json") == 0

    assert items(eddy) == numbered(1, 20)  # none twice
    assert (eddy.lines[0]["records"], eddy.lines[0]["skipped"]) == (13, 7)
    assert not (tmp_path / "x.jsonl.progress").exists()


def test_a_broker_that_goes_away_loses_nothing_that_was_acknowledged(
    eddy_with_topics: Console, tmp_path, in_fives, monkeypatch
):
    eddy = eddy_with_topics
    path = jsonl(tmp_path / "x.jsonl", 20)
    append = eddy.broker.append

    def append_then_leave(*args, **kwargs):
        eddy.broker.is_away = append(*args, **kwargs) >= 0 and len(items_now()) >= 12
        return 0

    def items_now() -> list[str]:
        return items(eddy)

    monkeypatch.setattr(eddy.broker, "append", append_then_leave)
    assert eddy("produce", str(path)) == 1
    assert "were not acknowledged; up to line 10" in eddy.err
    eddy.broker.is_away = False
    monkeypatch.setattr(eddy.broker, "append", append)

    assert eddy("produce", str(path), "--resume") == 0

    assert set(items(eddy)) == set(numbered(1, 20))


def test_resume_refuses_a_file_that_changed_or_went_to_another_topic(
    eddy_with_topics: Console, tmp_path, in_fives
):
    eddy = eddy_with_topics
    path = jsonl(tmp_path / "x.jsonl", 9, line_8=[1.0])
    assert eddy("produce", str(path)) == 2

    jsonl(path, 9, line_7=[7.0, 7.0, 7.0])
    assert eddy("produce", str(path), "--resume") == 2
    assert "line 7 is not the one that was acknowledged last" in eddy.err

    assert eddy("produce", str(path), "--resume", "--set", "topics.input=other") == 2
    assert "tells of the topic embedding-changes, not of other" in eddy.err


def test_resume_without_a_note_begins_at_the_first_line(eddy_with_topics: Console, tmp_path):
    eddy = eddy_with_topics
    path = jsonl(tmp_path / "x.jsonl", 3)

    assert eddy("produce", str(path), "--resume") == 0

    assert items(eddy) == numbered(1, 3)
    assert "beginning at the first line" in eddy.err


def test_a_folder_that_cannot_be_written_costs_the_resume_and_nothing_else(
    eddy_with_topics: Console, tmp_path
):
    eddy = eddy_with_topics
    path = jsonl(tmp_path / "x.jsonl", 3)
    (tmp_path / "x.jsonl.progress.new").mkdir()  # also root cannot write a folder as a file

    assert eddy("produce", str(path)) == 0

    assert "--resume will not work" in eddy.err
    assert items(eddy) == numbered(1, 3)


def test_the_zero_vector_is_refused_under_cosine(eddy_with_topics: Console, tmp_path):
    path = jsonl(tmp_path / "x.jsonl", 2, line_2=[0.0, 0.0, 0.0])

    assert eddy_with_topics("produce", str(path), "--set", "embedding.metric=cosine") == 2

    assert "line 2: the zero vector has no direction" in eddy_with_topics.err


def test_a_missing_input_topic_is_said_before_anything_is_sent(eddy: Console, tmp_path):
    assert eddy("produce", str(jsonl(tmp_path / "x.jsonl", 1))) == 3

    assert "embedding-changes does not exist: run eddy topics create" in eddy.err


def test_an_empty_file_is_fine(eddy_with_topics: Console, tmp_path):
    assert eddy_with_topics("produce", str(jsonl(tmp_path / "x.jsonl", 0))) == 0


def test_rows_may_be_of_the_next_embedding_model(eddy_with_topics: Console, tmp_path):
    eddy = eddy_with_topics
    np.save(tmp_path / "v.npy", np.ones((2, 5), np.float32))
    (tmp_path / "ids").write_text("item-0\nitem-1\n")
    path, ids = str(tmp_path / "v.npy"), str(tmp_path / "ids")
    both = ["--set", "embedding.model=old", "--set", "embedding.next.model=new"]
    both += ["--set", "embedding.next.dimensions=5"]

    assert eddy("produce", path, "--ids", ids, "--model", "new", *both) == 0

    held = [r for p in range(TOPICS.partitions) for r in eddy.broker.records(TOPICS.input, p)]
    assert [dict(r.headers) for r in held] == [{"embedding-model": b"new"}] * 2
    assert eddy("produce", path, "--ids", ids, *both) == 2, "5 dimensions are not the old model's"
