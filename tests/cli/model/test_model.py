"""`eddy model show`: the newest model, the sizes of now, its quality, and one cluster of it."""

from __future__ import annotations

import numpy as np
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
        write_sizes(filled.broker, partition, 7, c2=None)

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
    assert "out of c3" in filled.out

    assert "half of its members lay within 0.375" in filled.out
    assert "centroid  where it was fitted" in filled.out

    assert filled("model", "show", "c40", "--json") == 0
    assert filled.lines[0]["neighbours"] == ["c2", "c1"]
    assert filled.lines[0]["events"] == ["7/c40/born"]


def test_a_cluster_that_is_not_in_the_model_is_wrong_use(filled: Console):
    assert filled("model", "show", "c3") == 2

    assert "c3 is no cluster of model 7.0" in filled.err


def test_one_clusters_past_names_everybody_in_it(filled: Console):
    write_lifecycle(
        filled.broker, LifecycleType.SPLIT, cluster="c2", children=("c2", "c40"), similarity=0.62
    )
    write_lifecycle(filled.broker, LifecycleType.RETIRED, cluster="c7", children=("c40", "c1"))

    assert filled("model", "show", "c40") == 0
    assert "c2: into c2, c40, overlap 62%" in filled.out
    assert "c7: its members went to c40, c1" in filled.out

    filled("model", "show", "c40", "--json")
    told = [(e["type"], e["cluster"], e["similarity"]) for e in filled.lines[0]["lineage"]]
    assert told == [("split", "c2", pytest.approx(0.62)), ("retired", "c7", None)]


def test_one_cluster_says_how_far_it_has_moved_since_the_fit(eddy_with_topics: Console):
    eddy = eddy_with_topics
    write_model(eddy.broker, ["c1", "c2"], [5, 5], at=[0, 3.2], fitted_at=[0, 3], revision=4)

    eddy("model", "show", "c2")
    assert "0.4 of its spread from where it was fitted" in eddy.out
    eddy("model", "show", "c2", "--json")
    assert eddy.lines[0]["shift"] == pytest.approx(0.4, rel=1e-5)


@pytest.mark.parametrize(("metric", "median"), [("euclidean", 0.375), ("cosine", 0.375**2 / 2)])
def test_distances_at_the_fit_are_in_the_measure_of_the_events(
    eddy_with_topics: Console, metric, median
):
    eddy = eddy_with_topics
    write_model(eddy.broker, ["c1"], [5], metric=metric)

    eddy("model", "show", "c1", "--json")

    quantiles = eddy.lines[0]["quantiles"]
    assert quantiles["distances"][quantiles["levels"].index(0.5)] == pytest.approx(median)


def test_a_cluster_of_an_older_version_has_no_distances(eddy_with_topics: Console):
    write_model(eddy_with_topics.broker, ["c1"], [0])

    eddy_with_topics("model", "show", "c1", "--json")

    assert eddy_with_topics.lines[0]["quantiles"] is None


# Quality


@pytest.fixture
def measured(eddy_with_topics: Console) -> Console:
    """Centroids at 1, 2 and 5; members at (n, 1, 0); one partition has not swept yet."""
    eddy = eddy_with_topics
    clusters, revision = ["c1", "c2", "c5"], {"epoch": 7, "revision": 3}
    write_model(
        eddy.broker, clusters, [8, 4, 4], at=[1, 2, 5.5], fitted_at=[1, 2, 5], fitted_inertia=16.0,
        **revision,
    )  # fmt: skip
    write_sizes(eddy.broker, 0, 7, 3, c1=6, c2=1, c5=2, records=100, reassigned=4)
    write_sizes(eddy.broker, 1, 7, 2, c1=2, c2=1, records=60)
    return eddy


def test_quality_is_that_of_all_published_members(measured: Console):
    measured("model", "show", "--json")

    quality = measured.lines[0]["quality"]
    # ten members one away from their centroids, two of c5 another half away across
    assert quality["inertia_per_member"] == pytest.approx((10 * 1 + 2 * 1.25) / 12)
    assert quality["inertia_per_member_at_fit"] == pytest.approx(1.0)
    assert quality["churn"] == pytest.approx(4 / 160)
    assert quality["stale"] == pytest.approx(3 / 12)
    assert quality["shift"]["max"] == pytest.approx(1.0)
    assert quality["size_cv"] == pytest.approx(np.std([8, 2, 2]) / 4)
    assert quality["empty"] == 0


def test_silhouette_is_that_of_clusters_as_wholes(measured: Console):
    measured("model", "show", "--json")

    # root mean squared distances: to the own centroid, and to the one that is next
    ab = [(1, 2**0.5), (1, 2**0.5), (1.25**0.5, 10**0.5)]
    expected = [(b - a) / b for a, b in ab]
    silhouette = measured.lines[0]["quality"]["silhouette_of_means"]
    assert silhouette == pytest.approx(np.average(expected, weights=[8, 2, 2]))


def test_people_read_quality_with_a_phrase_that_says_what_of(measured: Console):
    measured("model", "show")

    for words in (
        "inertia    1 per item at the fit, 1.042 per member now (+4.2%)",
        "silhouette 0.35, of clusters as wholes",
        "balance    evenness",
        "at most 1 of a spread since the fit",
        "churn      2.50% of the records moved their item",
        "stale      25.0% of the members are not held against it yet",
    ):
        assert words in measured.out, measured.out


def test_before_anything_is_published_only_the_fit_is_known(eddy_with_topics: Console):
    write_model(eddy_with_topics.broker, ["c1", "c2"], [10, 10])

    eddy_with_topics("model", "show", "--json")

    quality = eddy_with_topics.lines[0]["quality"]
    assert quality["inertia_per_member_at_fit"] == pytest.approx(0.5)
    known = {name: value for name, value in quality.items() if value is not None}
    assert known.keys() == {"inertia_per_member_at_fit", "shift"}
    eddy_with_topics("model", "show")
    assert "churn" not in eddy_with_topics.out
