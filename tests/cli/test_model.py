"""`eddy model show`: the newest model and the sizes of now."""

from __future__ import annotations

import pytest

from pipeline.messages.events import LifecycleType
from tests.cli.console import TOPICS, Console, write_lifecycle, write_model, write_sizes

CLUSTERS, COUNTS = ["c1", "c2", "c40"], [10, 30, 20]


@pytest.fixture
def filled(eddy_with_topics: Console) -> Console:
    """With a model and sizes in two partitions."""
    broker = eddy_with_topics.broker
    write_model(broker, CLUSTERS, COUNTS)
    write_sizes(broker, 0, 7, c1=1, c2=2, c40=3)
    write_sizes(broker, 1, 7, c1=100, c2=5)
    write_sizes(broker, 1, 7, c1=90)
    return eddy_with_topics


def test_before_the_first_model_it_says_what_makes_one(eddy_with_topics: Console):
    assert eddy_with_topics("model", "show") == 1

    assert "there is no model yet" in eddy_with_topics.err
    assert "5000 items" in eddy_with_topics.err


def test_members_are_the_newest_counts_of_all_partitions(filled: Console):
    assert filled("model", "show", "--json") == 0

    shown = filled.lines[0]
    assert (shown["epoch"], shown["revision"]) == (7, 0)
    members = [(row["cluster"], row["members"], row["fitted"]) for row in shown["clusters"]]
    assert members == [("c1", 91, 10), ("c2", 7, 30), ("c40", 3, 20)]
    assert shown["partitions"] == {"all": TOPICS.partitions, "swept": 2}


def test_a_cluster_whose_statistics_went_has_no_members(filled: Console):
    for partition in (0, 1):
        filled.broker.append(TOPICS.statistics, partition, b"%d/c2" % partition, None)

    filled("model", "show", "--json")

    assert filled.lines[0]["clusters"][-1] == {
        "cluster": "c2", "members": 0, "fitted": 30, "spread": 0.5, "label": None,
    }  # fmt: skip


def test_people_see_a_table_the_largest_first(filled: Console):
    assert filled("model", "show") == 0

    assert "model 7.0" in filled.out
    assert "3 clusters, euclidean, 3 dimensions" in filled.out
    assert "2 of 6 partitions have been assigned by it so far" in filled.out
    order = [line.split()[0] for line in filled.out.splitlines() if line.startswith("c")]
    assert order == ["cluster", "c1", "c2", "c40"]


def test_without_statistics_the_sizes_of_the_fit_are_shown(eddy_with_topics: Console):
    write_model(eddy_with_topics.broker, CLUSTERS, COUNTS)

    eddy_with_topics("model", "show", "--json")

    rows = eddy_with_topics.lines[0]["clusters"]
    assert [(row["cluster"], row["members"]) for row in rows] == [
        ("c2", None),
        ("c40", None),
        ("c1", None),
    ]


def test_many_clusters_are_cut_and_all_shows_them(eddy_with_topics: Console):
    eddy = eddy_with_topics
    write_model(eddy.broker, [f"c{i}" for i in range(1, 51)], list(range(50, 0, -1)))

    eddy("model", "show")
    assert "and 20 smaller ones; --all shows them" in eddy.out
    eddy("model", "show", "--all")

    assert "\nc50 " in eddy.out


def test_one_cluster_has_neighbours_and_a_past(filled: Console):
    write_lifecycle(filled.broker, LifecycleType.BORN, cluster="c40", parents=("c3",))
    write_lifecycle(filled.broker, LifecycleType.BORN, cluster="c2")

    assert filled("model", "show", "c40") == 0
    assert "cluster c40 of model 7.0" in filled.out
    assert "nearest   c2, c1" in filled.out
    assert "born      epoch 7" in filled.out
    assert "(c3)" in filled.out

    assert filled("model", "show", "c40", "--json") == 0
    assert filled.lines[0]["neighbours"] == ["c2", "c1"]
    assert filled.lines[0]["events"] == ["7/c40/born"]


def test_a_cluster_that_is_not_in_the_model_is_wrong_use(filled: Console):
    assert filled("model", "show", "c3") == 2

    assert "c3 is no cluster of model 7.0" in filled.err
