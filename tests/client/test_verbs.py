"""`eddy clusters` and `eddy export`, against a real server."""

from __future__ import annotations

import json

import pytest

from pipeline.cli.main import main
from tests.services.server.conftest import READER


@pytest.fixture
def eddy(living, capsys):
    """Runs a verb; its exit code and what it wrote."""

    def run(*words, url=living.url):
        code = main([*words, "--server", url])
        out, err = capsys.readouterr()
        # the server of the test runs in this process, and its log goes here, too
        return code, "".join(x for x in out.splitlines(True) if "[info " not in x), err

    return run


def test_clusters_are_listed(eddy, client):
    code, shown, _ = eddy("clusters", "list", "--limit", "2")
    assert code == 0
    assert "2 more" in shown

    code, lines, _ = eddy("clusters", "list", "--json")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert [row["cluster"] for row in rows] == [one.cluster for one in client.clusters()]
    assert rows[0]["born_at"].endswith("Z")
    assert "nothing is like" in eddy("clusters", "list", "--search", "nowhere")[1]


def test_a_cluster_is_shown_with_its_items(eddy, client):
    cluster = client.item("item-0").cluster

    code, shown, _ = eddy("clusters", "show", cluster)
    assert code == 0
    assert shown.startswith(cluster)
    assert next(iter(client.members(cluster))).item in shown

    told = json.loads(eddy("clusters", "show", cluster, "--json", "--items", "3")[1])
    assert (told["cluster"], len(told["members"]), len(told["near"])) == (cluster, 3, 3)


def test_a_cluster_that_is_none_is_exit_code_1(eddy):
    code, _, said = eddy("clusters", "show", "c999")

    assert code == 1
    assert "c999 is no cluster" in said


def test_a_server_that_is_not_there_is_exit_code_4(eddy, monkeypatch):
    monkeypatch.setattr("pipeline.cli.asking._LIMIT_S", 0.1)
    code, _, said = eddy("clusters", "list", url="http://127.0.0.1:9")

    assert code == 4
    assert "no Eddy server answers at http://127.0.0.1:9" in said


def test_a_token_comes_from_a_file(guarded, eddy, tmp_path):
    token = tmp_path / "token"
    token.write_text(READER + "\n")

    assert eddy("clusters", "list", url=guarded.url)[0] == 1
    assert eddy("clusters", "list", "--token-file", str(token), url=guarded.url)[0] == 0


def test_items_and_clusters_are_exported_as_lines(eddy, client, tmp_path):
    file = tmp_path / "items.jsonl"

    code, said, _ = eddy("export", "items", str(file))

    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert code == 0
    assert {row["item"]: row["cluster"] for row in rows} == {
        row.item: row.cluster for row in client.items()
    }
    assert "items in" in said
    assert [path.name for path in tmp_path.iterdir()] == ["items.jsonl"]
    lines = eddy("export", "clusters", "-")[1].splitlines()
    assert sum(json.loads(line)["size"] for line in lines) == len(rows)


def test_items_and_clusters_are_exported_as_parquet(eddy, client, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra [parquet] is missing")

    assert eddy("export", "items", str(tmp_path / "items.parquet"))[0] == 0
    assert eddy("export", "clusters", str(tmp_path / "clusters.parquet"))[0] == 0

    items = parquet.read_table(tmp_path / "items.parquet").to_pylist()
    clusters = parquet.read_table(tmp_path / "clusters.parquet").to_pylist()
    assert {row["item"] for row in items} == {row.item for row in client.items()}
    assert [row["cluster"] for row in clusters] == [one.cluster for one in client.clusters()]
    assert clusters[0]["born_at"].tzinfo is not None


def test_a_file_of_another_kind_is_refused(eddy, tmp_path):
    assert eddy("export", "items", str(tmp_path / "items.csv"))[0] == 2
    assert "cannot be written" in eddy("export", "items", str(tmp_path / "no" / "items.jsonl"))[2]
