"""`eddy model diff`: two kept epochs, cluster by cluster."""

from __future__ import annotations

import pytest

from pipeline.messages.events import LifecycleType
from tests.cli.console import TOPICS, Console, write_lifecycle, write_model


@pytest.fixture
def filled(eddy_with_topics: Console) -> Console:
    """From epoch 5 to 6 c1 stays, c2 moves, c3 is split into c3 and c5, c4 goes into c1."""
    eddy = eddy_with_topics
    write_model(eddy.broker, ["c1", "c2", "c3", "c4"], [10, 20, 30, 2], at=[0, 1, 2, 0.5], epoch=5)
    at = [0.01, 1.3, 2, 2.25]
    write_model(eddy.broker, ["c1", "c2", "c3", "c5"], [12, 20, 18, 12], at=at, epoch=6)
    for kind, fields in (
        (LifecycleType.BORN, {"cluster": "c5", "parents": ("c3",)}),
        (LifecycleType.SPLIT, {"cluster": "c3", "children": ("c3", "c5")}),
        (LifecycleType.RETIRED, {"cluster": "c4", "children": ("c1",)}),
    ):
        write_lifecycle(eddy.broker, kind, epoch=6, **fields)
    return eddy


def test_each_cluster_has_a_kind_and_its_sizes(filled: Console):
    assert filled("model", "diff", "5", "6", "--json") == 0

    told = {line["cluster"]: line for line in filled.lines}
    assert {name: line["type"] for name, line in told.items()} == {
        "c1": "stayed", "c2": "moved", "c3": "split", "c4": "retired", "c5": "born",
    }  # fmt: skip
    assert (told["c3"]["size_before"], told["c3"]["size_after"]) == (30, 18)
    assert (told["c5"]["size_before"], told["c5"]["size_after"]) == (None, 12)
    assert (told["c4"]["size_before"], told["c4"]["size_after"]) == (2, None)
    assert told["c5"]["parents"] == ["c3"]
    assert told["c3"]["children"] == ["c3", "c5"]
    assert told["c4"]["children"] == ["c1"]


def test_shift_is_in_units_of_the_spread_at_the_older_fit(filled: Console):
    filled("model", "diff", "5", "6", "--json")

    told = {line["cluster"]: line for line in filled.lines}
    assert told["c2"]["shift"] == pytest.approx(0.3 / 0.5, rel=1e-6)
    assert told["c1"]["shift"] == pytest.approx(0.02, rel=1e-6)
    assert (told["c5"]["nearest"], told["c5"]["shift"]) == ("c3", pytest.approx(0.5))


def test_the_order_of_the_epochs_does_not_matter(filled: Console):
    filled("model", "diff", "5", "6", "--json")
    forwards = filled.lines

    filled("model", "diff", "6", "5", "--json")

    assert filled.lines == forwards


def test_without_its_lineage_a_new_cluster_still_has_a_nearest(filled: Console):
    end = filled.broker.ranges(TOPICS.lifecycle)[0].high
    filled.broker.truncate(TOPICS.lifecycle, 0, end)

    filled("model", "diff", "5", "6", "--json")

    told = {line["cluster"]: line for line in filled.lines}
    assert (told["c5"]["type"], told["c5"]["parents"], told["c5"]["nearest"]) == ("born", [], "c3")
    assert told["c3"]["type"] == "stayed"  # nobody says any more that it was split


def test_people_see_what_changed_and_with_all_what_did_not(filled: Console):
    assert filled("model", "diff", "5", "6") == 0

    assert "from model 5.0 to 6.0: 4 clusters, then 4" in filled.out
    assert "1 stayed, 1 moved, 1 retired, 1 split, 1 born" in filled.out
    rows = [line.split() for line in filled.out.splitlines()]
    assert ["c5", "born", "12", "out", "of", "c3"] in rows
    assert ["c3", "split", "30", "18", "0.00", "into", "c3,", "c5"] in rows
    assert ["c2", "moved", "20", "20", "0.60"] in rows
    assert not [row for row in rows if row[:1] == ["c1"]]

    filled("model", "diff", "5", "6", "--all")
    assert ["c1", "stayed", "10", "12", "0.02"] in [
        line.split() for line in filled.out.splitlines()
    ]


def test_a_merger_names_its_parents(eddy_with_topics: Console):
    eddy = eddy_with_topics
    write_model(eddy.broker, ["c1", "c2"], [1, 1], epoch=5)
    write_model(eddy.broker, ["c1"], [2], epoch=6)
    write_lifecycle(eddy.broker, LifecycleType.MERGED, epoch=6, cluster="c1", parents=("c1", "c2"))

    eddy("model", "diff", "5", "6", "--json")

    told = {line["cluster"]: (line["type"], line["parents"]) for line in eddy.lines}
    assert told == {"c1": ("merged", ["c1", "c2"]), "c2": ("retired", [])}


def test_clusters_without_a_spread_have_no_shift(eddy_with_topics: Console):
    for epoch, at in ((5, [0, 1]), (6, [0, 2])):
        write_model(eddy_with_topics.broker, ["c1", "c2"], [1, 1], at=at, spread=0, epoch=epoch)

    eddy_with_topics("model", "diff", "5", "6", "--json")

    told = {line["cluster"]: (line["type"], line["shift"]) for line in eddy_with_topics.lines}
    assert told == {"c1": ("stayed", None), "c2": ("moved", None)}


def test_models_of_two_embeddings_share_ids_only(eddy_with_topics: Console):
    for epoch, name, ids in ((5, "old", ["c1", "c2"]), (6, "new", ["c1", "c3"])):
        write_model(eddy_with_topics.broker, ids, [1, 1], epoch=epoch, embedding_model=name)

    assert eddy_with_topics("model", "diff", "5", "6", "--json") == 0

    assert {line["type"] for line in eddy_with_topics.lines} == {"stayed", "born", "retired"}
    assert {line["shift"] for line in eddy_with_topics.lines} == {None}
    assert {line["nearest"] for line in eddy_with_topics.lines} == {None}


@pytest.mark.parametrize(
    ("epochs", "sentence"),
    [(("5", "9"), "epoch 9 is not kept: there are 5, 6"), (("5", "5"), "differs from itself")],
)
def test_epochs_that_are_not_kept_are_wrong_use(filled: Console, epochs, sentence):
    assert filled("model", "diff", *epochs) == 2

    assert sentence in filled.err
