"""`eddy config`: what would be obeyed, from where, without secrets; and a file to start from."""

from __future__ import annotations

import pytest

from tests.cli.console import Console


@pytest.fixture
def eddy(eddy: Console, monkeypatch, tmp_path) -> Console:
    eddy.flags = ()
    monkeypatch.chdir(tmp_path)
    return eddy


def test_each_value_says_where_it_came_from(eddy: Console, monkeypatch, tmp_path):
    (tmp_path / "e.yaml").write_text("clustering: {clusters: 7, seed: 1}\n")
    monkeypatch.setenv("EDDY_CLUSTERING__SEED", "2")
    flags = ["--config", "e.yaml", "--set", "embedding.dimensions=3"]

    assert eddy("config", "show", "--json", *flags) == 0

    shown = eddy.lines[0]
    assert shown["clustering.clusters"]["value"] == 7
    assert "e.yaml" in shown["clustering.clusters"]["origin"]
    assert shown["clustering.seed"] == {"value": 2, "origin": "environment EDDY_CLUSTERING__SEED"}
    assert shown["embedding.dimensions"]["origin"] == "--set"
    assert shown["topics.input"] == {"value": "embedding-changes", "origin": "default"}


def test_people_see_a_line_for_each_option_and_changed_only_what_is_not_a_default(eddy: Console):
    assert eddy("config", "show") == 0
    everything = eddy.out
    assert eddy("config", "show", "--changed", "--set", "clustering.clusters=7") == 0

    assert "batching.max_records" in everything
    assert [line.split() for line in eddy.out.splitlines()] == [
        ["clustering.clusters", "7", "--set"]
    ]


def test_secrets_are_hidden(eddy: Console):
    for more in ((), ("--json",)):
        eddy("config", "show", *more, "--set", "kafka.sasl.password=hunter2")

        assert "hunter2" not in eddy.out
        assert "***" in eddy.out


def test_the_file_to_start_from_is_read_back_as_the_defaults(eddy: Console, tmp_path):
    assert eddy("config", "init") == 0
    assert "eddy.yaml" in eddy.err
    assert eddy("config", "show", "--changed", "--config", "eddy.yaml") == 0
    assert eddy.out == ""

    assert eddy("config", "init", "-") == 0
    assert eddy.out == (tmp_path / "eddy.yaml").read_text()


def test_a_file_that_is_there_is_written_over_only_by_force(eddy: Console, tmp_path):
    (tmp_path / "eddy.yaml").write_text("mine")

    assert eddy("config", "init") == 2
    assert "eddy.yaml is there already" in eddy.err
    assert (tmp_path / "eddy.yaml").read_text() == "mine"
    assert eddy("config", "init", "--force") == 0
    assert eddy("config", "init", "no/such/folder.yaml") == 2


def test_a_file_that_is_not_there_is_a_configuration_error(eddy: Console):
    assert eddy("config", "show", "--config", "nowhere.yaml") == 3

    assert "nowhere.yaml" in eddy.err
